"""What people allowed for a session: shown, and taken back.

Both stand in the session's journal and nowhere else (I3). A live run takes a revocation in through its inbox. In an idle
session the revocation is a run of its own, with nothing in it but that: accepted, journaled and over in one transaction,
so that whatever starts next goes on from it.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from stanchion.core import chain
from stanchion.core import event as ev
from stanchion.core.errors import Conflict, NotFound
from stanchion.core.policy import Grant
from stanchion.core.state import State
from stanchion.engine.clock import Clock
from stanchion.engine.load import Loader
from stanchion.engine.stage import read_inbox
from stanchion.journal.record import Identity, Recorder
from stanchion.journal.store import Append, RunRow, SessionMoved, SessionRow, Start, Started, Store
from stanchion.runtime.name import new_id
from stanchion.runtime.runs.finding import session_of, standing_of
from stanchion.runtime.shape import GrantView

_LOOKED_AT = 200
"""Runs of a session in which it is looked for who allowed what."""
_TRIES = 8


class Granting:
    """The grants of the sessions of a store."""

    def __init__(self, store: Store, loader: Loader, clock: Clock) -> None:
        self._store = store
        self._loader = loader
        self._clock = clock

    async def list(self, tenant: str, session: SessionRow) -> Sequence[GrantView]:
        """List what is allowed in a session now, the oldest first."""
        gone = await self._revoked(tenant, session.live)  # first: what is taken in meanwhile stands in the journal then
        state = await standing_of(self._loader, session)
        grants = {grant.id: grant for grant in state.granted if grant.id not in gone}
        made = await self._made(tenant, session, set(grants)) if grants else {}
        return [_view(grant, *made.get(grant.id, ("", "", 0))) for grant in grants.values()]

    async def revoke(self, tenant: str, session: str, grant: str, *, by: str) -> str:
        """Take a grant back; give the run that heard of it. Raises `NotFound` (no such session or grant)."""
        revoked = ev.GrantRevoked(id=grant, by=by)
        for _ in range(_TRIES):
            row = await session_of(self._store, tenant, session)
            state = await standing_of(self._loader, row)
            if grant not in {each.id for each in state.granted}:
                raise NotFound(f"the session has no grant {grant!r}; it may be revoked already", field="grant")
            if row.live:
                try:
                    await self._store.post(tenant, row.live, "grant", msgspec.json.encode(revoked))
                except Conflict:  # it ended meanwhile
                    continue
                return row.live
            if run := await self._alone(row, state, revoked):
                return run
        raise Conflict("the session is being used by others at this moment; try again", code="session_busy")

    async def _revoked(self, tenant: str, live: str) -> set[str]:
        """List what a live run has not taken in yet."""
        if not live:
            return set()
        items = [item for item in await self._store.inbox(tenant, live) if item.kind == "grant"]
        events = [event for item in items for event in read_inbox(item.body)]
        return {event.id for event in events if isinstance(event, ev.GrantRevoked)}

    async def _made(self, tenant: str, session: SessionRow, wanted: set[str]) -> dict[str, tuple[str, str, int]]:
        """Find who allowed what, in which run and when."""
        found: dict[str, tuple[str, str, int]] = {}
        for row in await self._store.runs(tenant, session=session.session, limit=_LOOKED_AT):
            for entry in await self._store.read(tenant, row.run):
                if isinstance(entry.event, ev.GrantAdded) and entry.event.grant.id in wanted:
                    found[entry.event.grant.id] = (entry.event.by, row.run, entry.at_ms)
            if wanted <= set(found):
                break
        return found

    async def _alone(self, row: SessionRow, state: State, revoked: ev.GrantRevoked) -> str:
        """Journal a revocation in an idle session. "": it is not idle any more."""
        last = await self._store.run(row.tenant, row.head.run) if row.head else None
        if last is None:
            return ""
        first = ev.RunStarted(
            run=new_id("run_"),
            tenant=row.tenant,
            session=row.session,
            agent=row.agent,
            bundle=last.bundle,
            user=last.user,
            base=row.head,
            mark=state.mark,
        )
        said = await self._store.start(await self._start(last, first, revoked))
        if isinstance(said, SessionMoved):
            return ""
        return said.run if isinstance(said, Started) else ""

    async def _start(self, last: RunRow, first: ev.RunStarted, revoked: ev.GrantRevoked) -> Start:
        key = await self._store.key_for(first.tenant, first.user or first.session)
        genesis = chain.genesis(first.tenant, first.run)
        events = (first, revoked, ev.RunFinished(outcome="done", reason="grant_revoked", cost=0))
        recorder = Recorder(key, Identity(), seq=0, hash=genesis, at_ms=0)
        _, records = recorder.record(events, now_ms=self._clock.now_ms(), epoch=0)
        append = Append(
            tenant=first.tenant,
            run=first.run,
            expected_seq=0,
            epoch=0,
            records=tuple(records),
            status="ended",
            release=True,
            outcome="done",
        )
        return Start(
            tenant=first.tenant,
            run=first.run,
            session=first.session,
            agent=first.agent,
            bundle=first.bundle,
            user=first.user,
            base=first.base,
            priority=last.priority,
            first=append,
        )


def _view(grant: Grant, by: str, run: str, at_ms: int) -> GrantView:
    return GrantView(grant.id, list(grant.tools), grant.kind, grant.value, by, run, at_ms)
