"""Prove journals: each run's chain, that none was cut short, and that no run of a session is gone."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator

from stanchion.core import event as ev
from stanchion.core.errors import BrokenChain
from stanchion.journal.record import verify
from stanchion.journal.store import RunRow, Store
from stanchion.runtime.runs.finding import row_of
from stanchion.runtime.shape import VerifiedRun

_PAGE = 200


async def verify_run(store: Store, tenant: str, run: str) -> VerifiedRun:
    """Check one run. Raises `NotFound`."""
    row = await row_of(store, tenant, run)
    return await _verify(store, row, await _salts(store, tenant))


async def verify_all(store: Store, tenant: str) -> AsyncGenerator[VerifiedRun]:
    """Check all runs of a tenant, newest first, then that each session still has all of its runs."""
    salts = await _salts(store, tenant)
    found: Counter[str] = Counter()
    sessions = await _sessions(store, tenant)  # before the runs: what starts meanwhile is not missed
    before = ""
    while rows := await store.runs(tenant, before=before, limit=_PAGE):
        for row in rows:
            found[row.session] += 1
            yield await _verify(store, row, salts)
        before = rows[-1].run
    for session, (count, head) in sessions.items():
        if found[session] < count:
            gone = count - found[session]
            yield VerifiedRun(head, 0, 0, f"session {session} had {count} runs, and {gone} of them are gone")


async def _verify(store: Store, row: RunRow, salts: dict[str, bytes]) -> VerifiedRun:
    records = await store.raw(row.tenant, row.run)
    try:
        found = verify(row.tenant, row.run, records, salts)
    except BrokenChain as error:
        return VerifiedRun(row.run, len(records), 0, str(error), error.seq)
    latest = await store.run(row.tenant, row.run)  # it may have grown meanwhile, but not shrunk
    if latest is None:
        return VerifiedRun(row.run, found.events, found.erased, "the run's row was deleted", 0)
    if found.events < row.seq or (found.events == latest.seq and found.head != latest.hash and latest.seq):
        why = f"the journal ends at event {found.events}, but the run's row says {row.seq}: its end was cut off"
        return VerifiedRun(row.run, found.events, found.erased, why, found.events + 1)
    if why := await _base_problem(store, row):
        return VerifiedRun(row.run, found.events, found.erased, why, 1)
    return VerifiedRun(row.run, found.events, found.erased)


async def _base_problem(store: Store, row: RunRow) -> str:
    """Say what is wrong with the run that this one goes on from, or ""."""
    first = await store.read(row.tenant, row.run, limit=1)
    base = first[0].event.base if first and isinstance(first[0].event, ev.RunStarted) else None
    if base is None:
        return ""
    other = await store.run(row.tenant, base.run)
    if other is None:
        return f"it goes on from run {base.run}, which is gone"
    if other.hash.hex() != base.hash:
        return f"it goes on from event {base.seq} of run {base.run}, which is not what it was"
    return ""


async def _salts(store: Store, tenant: str) -> dict[str, bytes]:
    return {key.id: key.salt for key in await store.keys(tenant)}


async def _sessions(store: Store, tenant: str) -> dict[str, tuple[int, str]]:
    """Sessions with how many runs they had, and the last that ended or is live."""
    found: dict[str, tuple[int, str]] = {}
    before = ""
    while rows := await store.sessions(tenant, before=before, limit=_PAGE):
        for row in rows:
            found[row.session] = (row.runs, row.live or (row.head.run if row.head else ""))
        before = rows[-1].session
    return found
