"""What an operator should know of a store: who works, what nobody drives, what stands, what can never wake. Reads only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import msgspec

from stanchion.core.errors import JournalError, UnknownEvent
from stanchion.core.fold import fold
from stanchion.engine.taking import LIVE_MS
from stanchion.journal.head import MOVED
from stanchion.journal.store import RunRow, Store
from stanchion.runtime.opening.store import open_store

IDLE_MS = 15_000
"""A run that could be driven and was not for so long is an orphan, or waits for a slot."""
LOOKED_AT = 200
"""Waiting runs that are folded, the newest of each tenant."""
FOUND = 1_000


class Survey(msgspec.Struct, frozen=True):
    """What was found, as counts by agent and a few examples each."""

    workers: int
    """Processes that drive, as far as they were heard of within half a minute."""
    served: list[str]
    unserved: dict[str, int]
    """Runs that nobody drives, of agents that no live worker serves."""
    waiting_for_a_slot: dict[str, int]
    """.. of agents that are served: there is more to do than workers do."""
    dead_leases: dict[str, int]
    """Runs whose worker is gone, and that nobody took over."""
    stuck_behind: list[str]
    """Queued runs whose session has no live run before them."""
    never_woken: list[str]
    """Waiting runs that nothing could wake but a message."""
    unreadable: list[str]
    """Runs that hold what this program cannot read."""
    looked_at: int
    """Waiting runs that were folded to find out."""
    parked: dict[str, int]
    """Runs that stand, by reason."""


async def survey(data: str | Path) -> Survey:
    """Look at a store. Raises `ConfigError`, `JournalError`. Makes or migrates it where that is due: ask before."""
    store, _ = await open_store(data, None)
    try:
        return await survey_of(store)
    finally:
        await store.aclose()


async def survey_of(store: Store, *, idle_ms: int = IDLE_MS) -> Survey:
    """Look at an open store."""
    now_ms = await store.now_ms()
    live = [row for row in await store.sharing.workers() if row.seen_ms > now_ms - LIVE_MS]
    served = {agent for row in live for agent in row.agents}
    orphans = await store.orphans(idle_ms=idle_ms, limit=FOUND)
    runnable = [row for row in orphans if row.status == "runnable"]
    free = [row for row in runnable if not row.worker]
    never, unreadable, looked_at = await _asleep(store)
    return Survey(
        workers=len(live),
        served=sorted(served),
        unserved=_by_agent([row for row in free if row.agent not in served]),
        waiting_for_a_slot=_by_agent([row for row in free if row.agent in served]),
        dead_leases=_by_agent([row for row in runnable if row.worker]),
        stuck_behind=[row.run for row in orphans if row.status == "queued"],
        never_woken=never,
        unreadable=unreadable,
        looked_at=looked_at,
        parked=dict(Counter(row.outcome or "unknown" for row in await store.parked(limit=FOUND) if not _has_left(row))),
    )


def _has_left(row: RunRow) -> bool:
    """Whether a run was moved to another store: it stands here for good."""
    return row.outcome.startswith(MOVED)


def _by_agent(rows: Sequence[RunRow]) -> dict[str, int]:
    return dict(Counter(row.agent for row in rows))


async def _asleep(store: Store) -> tuple[list[str], list[str], int]:
    """Find waiting runs that wait for no time and no person; and those that cannot be read."""
    never: list[str] = []
    unreadable: list[str] = []
    looked_at = 0
    for tenant in sorted({"default", *(key.tenant for key in await store.api_keys())}):
        for row in await store.runs(tenant, status="waiting", limit=LOOKED_AT):
            if row.wake_at_ms:
                continue
            looked_at += 1
            try:
                state = fold(await store.read(tenant, row.run))
            except UnknownEvent:
                unreadable.append(row.run)
            except JournalError as error:
                unreadable.append(f"{row.run} ({error.code})")
            else:
                if not state.asking and not state.in_flight and not await store.inbox(tenant, row.run):
                    never.append(row.run)
    return never, unreadable, looked_at
