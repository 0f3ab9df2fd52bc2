"""Start runs that were accepted: the store says whether one may begin.

A run is driven from its start where this process drives (`Starter.start`), or accepted for whichever worker takes it up
(`Starter.enqueue`): then its `RunStarted` stands alone, under epoch 0 and without a lease, until somebody claims it.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Literal

import msgspec

from stanchion.core import chain
from stanchion.core import event as ev
from stanchion.core.bundle import encode_bundle
from stanchion.core.errors import Conflict, UnknownEvent
from stanchion.engine.bound import BoundAgent
from stanchion.engine.clock import Clock
from stanchion.engine.worker import Worker
from stanchion.journal.head import is_moved
from stanchion.journal.outbox import Endpoint
from stanchion.journal.record import Identity, Recorder
from stanchion.journal.share import INTERACTIVE, NoPlace
from stanchion.journal.store import (
    Append,
    IdempotencyMismatch,
    Refused,
    Reserve,
    SessionBusy,
    SessionMoved,
    SessionRow,
    Start,
    StartSaid,
    Store,
)
from stanchion.journal.store import Started as StoreStarted
from stanchion.loop.limit import windowed
from stanchion.runtime.name import without_window
from stanchion.runtime.runs.admission import Admission
from stanchion.runtime.shape import Started

IfBusy = Literal["reject", "queue"]
_CACHED_S = 1.0
"""For how long limits are remembered; another process may change them."""
_TRIES = 8
"""Starts again with a session's new head, when others move it meanwhile."""


class Starter:
    """Starts runs for one worker; without one (`worker` None) it accepts them for the workers of other processes."""

    def __init__(
        self, store: Store, worker: Worker | None, clock: Clock, expires_s: Mapping[str, float] | None = None
    ) -> None:
        """`expires_s`: for how long sessions of an agent may be idle, by its name; 0: for ever."""
        self._expires_s = expires_s or {}
        self._store = store
        self._worker = worker
        self._clock = clock
        self.admission = Admission(store, worker)
        self._bundles_put: set[tuple[str, str]] = set()
        self._limited: dict[str, tuple[float, frozenset[str]]] = {}
        self.spent: Callable[[str, str], None] = lambda _tenant, _ledger: None
        """Told of a budget that had too little left for a run."""

    async def ledgers(self, tenant: str, user: str, session: str) -> tuple[str, ...]:
        """Name the budgets with a limit that a run falls under."""
        limited = await self._names_with_limit(tenant)
        scopes = ("all", "tenant", f"user:{user}" if user else "", f"session:{session}")
        names = (f"{scope}{period}" for scope in scopes if scope for period in ("", "/day", "/month"))
        return tuple(name for name in names if name in limited)

    def limits_changed(self) -> None:
        """Read the limits anew at the next start."""
        self._limited.clear()

    async def start(
        self,
        first: ev.RunStarted,
        agent: BoundAgent,
        key: str,
        digest: str,
        if_busy: IfBusy,
        *,
        fresh: bool = False,
        priority: int = INTERACTIVE,
        callback: Endpoint | None = None,
    ) -> Started:
        """Start a run and drive it here. Raises `Conflict` that says what stands in its way.

        `fresh`: its session was named just now. Where this process drives nothing or there is no room, it is `enqueue`d.
        """
        worker = self._worker
        if worker is None or not self.admission.may_start(priority):
            if worker is not None and priority >= INTERACTIVE:
                worker.taking.waits()
            return await self.enqueue(
                first, agent, key, digest, if_busy, fresh=fresh, priority=priority, callback=callback
            )

        async def drive(start: Start, first: ev.RunStarted) -> tuple[StartSaid, bool]:
            try:
                said = await worker.start(start, first, agent)
            except UnknownEvent:  # the session's last run was of a newer program: a newer worker drives this one too
                return await self._leave(start, first)
            return await self._leave(start, first) if isinstance(said, NoPlace) else (said, False)

        return await self._accept(
            drive, first, agent, key, digest, if_busy, fresh=fresh, priority=priority, callback=callback
        )

    async def enqueue(
        self,
        first: ev.RunStarted,
        agent: BoundAgent,
        key: str,
        digest: str,
        if_busy: IfBusy,
        *,
        fresh: bool = False,
        priority: int = INTERACTIVE,
        callback: Endpoint | None = None,
    ) -> Started:
        """Accept a run and leave it to whichever worker takes it up: `RunStarted` alone, nobody's lease, nothing reserved.

        The rules of sessions, keys and spent budgets are those of `start`. Its wall clock begins with its first claim.
        Raises `Conflict` that says what stands in its way.
        """

        return await self._accept(
            self._leave, first, agent, key, digest, if_busy, fresh=fresh, priority=priority, callback=callback
        )

    async def _accept(
        self,
        begin: Callable[[Start, ev.RunStarted], Awaitable[tuple[StartSaid, bool]]],
        first: ev.RunStarted,
        agent: BoundAgent,
        key: str,
        digest: str,
        if_busy: IfBusy,
        *,
        fresh: bool,
        priority: int,
        callback: Endpoint | None,
    ) -> Started:
        """Begin a run behind its session's head, again if the head moved meanwhile. `begin` says whether it waits."""
        if (first.tenant, agent.digest) not in self._bundles_put:
            await self._store.put_bundle(first.tenant, agent.digest, encode_bundle(agent.bundle))
            self._bundles_put.add((first.tenant, agent.digest))
        for tried in range(_TRIES):
            row = None if fresh and not tried else await self._store.session(first.tenant, first.session)
            if row is not None and row.agent != first.agent:
                raise Conflict(f"the session belongs to agent {row.agent!r}", field="session", code="session_agent")
            first = msgspec.structs.replace(first, base=row.head if row else None)
            start = msgspec.structs.replace(_start_of(first, key, digest), priority=priority, callback=callback)
            if row is not None and self.is_expired(row):
                return await self._known_of_expired(start, first)
            said, waits = await begin(start, first)
            if isinstance(said, SessionBusy):
                await self._check_here(first.tenant, said.run)
                if if_busy == "queue":
                    said, waits = await self._queue(start, first), True
            match said:
                case StoreStarted():
                    session = await self._session_of(first, said)
                    return Started(said.run, session, said.existing, waits and not said.existing)
                case SessionMoved():
                    continue
                case NoPlace():
                    raise await self.admission.refusal(first.tenant, priority)
                case _:
                    if isinstance(said, Refused):
                        self.spent(first.tenant, said.ledger)
                    raise _refusal(said)
        raise Conflict("the session is being used by others at this moment; try again", code="session_busy")

    def is_expired(self, row: SessionRow) -> bool:
        """Say whether a session was idle for longer than its agent allows."""
        idle_ms = self._expires_s.get(row.agent, 0.0) * 1000
        return bool(idle_ms) and not row.live and row.updated_ms + idle_ms <= self._clock.now_ms()

    async def _known_of_expired(self, start: Start, first: ev.RunStarted) -> Started:
        """Answer a request that was accepted before its session expired; refuse any other."""
        said = (
            await self._store.start(msgspec.structs.replace(start, known_only=True)) if start.idempotency_key else None
        )
        match said:
            case StoreStarted():
                return Started(said.run, await self._session_of(first, said), said.existing)
            case IdempotencyMismatch():
                raise _refusal(said)
            case _:
                text = "it was idle for too long and has expired; leave it out, or name a new one, to begin afresh"
                raise Conflict(text, field="session", code="session_expired")

    async def _leave(self, start: Start, first: ev.RunStarted) -> tuple[StartSaid, bool]:
        """Write a run's first event, and tell the workers. A budget that is overdrawn or closed refuses it."""
        start = await self._admitted(start)
        key = await self._store.key_for(first.tenant, first.user or first.session)
        genesis = chain.genesis(first.tenant, first.run)
        now_ms = self._clock.now_ms()
        _, records = Recorder(key, Identity(), seq=0, hash=genesis, at_ms=0).record([first], now_ms=now_ms, epoch=0)
        none = tuple(Reserve(ledger, 0) for ledger in windowed(first.ledgers, now_ms))
        alone = msgspec.structs.replace(start.first, records=tuple(records))
        said = await self._store.start(
            msgspec.structs.replace(start, first=msgspec.structs.replace(alone, reserve=none))
        )
        if isinstance(said, Refused) and not said.hard:  # it waits for the money when it is driven
            said = await self._store.start(msgspec.structs.replace(start, first=alone))
        if isinstance(said, StoreStarted) and self._worker is not None:
            self._worker.look()
        return said, True

    async def _check_here(self, tenant: str, live: str) -> None:
        """Refuse to wait for a run that was moved to another store: it does not end here."""
        row = await self._store.run(tenant, live)
        if row is not None and is_moved(row.status, row.outcome):
            text = f"it was moved to another store with its live run {live} (`stanchion export --live`); go on there"
            raise Conflict(text, field="session", code="session_moved")

    async def _queue(self, start: Start, first: ev.RunStarted) -> StartSaid:
        start = await self._admitted(start)
        queued = msgspec.structs.replace(start, queued=True, base=None, request=msgspec.json.encode(first))
        said = await self._store.start(queued)
        if self._worker is not None:
            self._worker.hint(start.tenant, start.run)  # its session may have come free meanwhile
        return said

    async def _admitted(self, start: Start) -> Start:
        """Say with a start that has to wait whether it may."""
        return msgspec.structs.replace(start, known_only=not await self.admission.may_wait(start.tenant))

    async def _session_of(self, first: ev.RunStarted, said: StoreStarted) -> str:
        if said.run == first.run:
            return first.session
        row = await self._store.run(first.tenant, said.run)
        return row.session if row else ""

    async def _names_with_limit(self, tenant: str) -> frozenset[str]:
        read_s, limited = self._limited.get(tenant, (0.0, frozenset[str]()))
        if not read_s or time.monotonic() - read_s > _CACHED_S:
            rows = [*await self._store.ledgers(tenant), *await self._store.ledgers("")]
            limited = frozenset(without_window(row.ledger) for row in rows if row.limit >= 0)
            self._limited[tenant] = (time.monotonic(), limited)
        return limited


def _refusal(said: SessionBusy | IdempotencyMismatch | Refused) -> Conflict:
    match said:
        case SessionBusy():
            text = f"the session has a live run, {said.run}; wait for it, send it a message, or say if_busy=queue"
            return Conflict(text, code="session_busy")
        case IdempotencyMismatch():
            text = f"this Idempotency-Key was used with another body, for {said.run}"
            return Conflict(text, code="idempotency_mismatch")
        case Refused():
            return Conflict(f"the budget {said.ledger!r} is spent", code="budget_exhausted")


def _start_of(first: ev.RunStarted, key: str, digest: str) -> Start:
    return Start(
        tenant=first.tenant,
        run=first.run,
        session=first.session,
        agent=first.agent,
        bundle=first.bundle,
        user=first.user,
        base=first.base,
        first=Append(tenant=first.tenant, run=first.run, expected_seq=0, epoch=0),
        idempotency_key=key,
        idempotency_digest=digest,
    )
