"""`MemoryStore`: a store that lies in memory, for tests of agents and for the simulation of whole deployments.

    async with await Runtime.open(agent, store=MemoryStore(), clients={"*": model}) as runtime: ...

It passes `exercise_store`, forgets everything with the process, and is made for many: stores over the same `Tables`
see the same rows, as the workers of one database do. A subclass may make writes and reads slow or fail (`write`, `read`).
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TypeVar

from stanchion.core.chain import Outline
from stanchion.core.event import Entry
from stanchion.journal.record import Cipher, Identity
from stanchion.journal.relay import Overheard, Wire
from stanchion.journal.share import NOBODY, Ahead, Ready
from stanchion.journal.store import (
    ApiKey,
    Append,
    Claim,
    Claimed,
    Heard,
    InboxItem,
    Key,
    Ledger,
    RawRecord,
    Refused,
    RunRow,
    SessionRow,
    Start,
    StartSaid,
)
from stanchion.testing.memory_alert import MemoryAlerts
from stanchion.testing.memory_connection import MemoryConnections
from stanchion.testing.memory_facts import MemoryMemories
from stanchion.testing.memory_moving import MemoryMoving
from stanchion.testing.memory_outbox import MemoryOutbox
from stanchion.testing.memory_quota import MemoryQuotas
from stanchion.testing.memory_schedule import MemorySchedules
from stanchion.testing.memory_share import MemorySharing
from stanchion.testing.memory_tables import Tables
from stanchion.testing.memory_tray import MemoryTray

T = TypeVar("T")


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


def _new_key() -> Key:
    return Key(secrets.token_urlsafe(9), secrets.token_bytes(32), secrets.token_bytes(32))


class MemoryStore:
    """A `Store` over tables in memory."""

    def __init__(
        self,
        tables: Tables | None = None,
        *,
        clock: Callable[[], int] = _wall_ms,
        cipher: Cipher = Identity(),  # noqa: B008  (it has no state)
    ) -> None:
        self.tables = tables or Tables(cipher, _new_key)
        self._clock = clock
        self.quotas = MemoryQuotas(
            lambda call: self.write(lambda tables, now_ms: call(tables.quota, now_ms)),
            lambda call: self.read_rows(lambda tables: call(tables.quota, self._clock())),
        )
        self._own = 0
        self._seen = 0
        self.schedules = MemorySchedules(self, clock)
        self.connections = MemoryConnections(self)
        self.memories = MemoryMemories(self)
        self.outbox = MemoryOutbox(self, clock)
        self.alerts = MemoryAlerts(self)
        self.sharing = MemorySharing(self, clock)
        self.tray = MemoryTray(self.write)
        self.moving = MemoryMoving(self)

    async def write(self, call: Callable[[Tables, int], T]) -> T:
        """Make a write, with the store's time. All of them come through here."""
        await asyncio.sleep(0)
        return self.applied(call)

    async def read_rows(self, call: Callable[[Tables], T]) -> T:
        """Make a read. All of them come through here."""
        await asyncio.sleep(0)
        return call(self.tables)

    def applied(self, call: Callable[[Tables, int], T]) -> T:
        """Make a write now."""
        self.tables.writes += 1
        self._own += 1
        return call(self.tables, self._clock())

    async def aclose(self) -> None:
        await asyncio.sleep(0)

    async def now_ms(self) -> int:
        return await self.read_rows(lambda _: self._clock())

    async def changed_elsewhere(self) -> bool:
        others = await self.read_rows(lambda tables: tables.writes - self._own)
        changed, self._seen = others != self._seen, others
        return changed

    def listen(self, heard: Heard) -> bool:
        return False

    def relay(self, overheard: Overheard) -> Wire | None:
        return None

    async def seize(self, worker: str) -> bool:
        return await self.read_rows(lambda _: True)

    # --- runs --------------------------------------------------------------------------------------------------------

    async def start(self, start: Start) -> StartSaid:
        said = await self.write(lambda tables, now_ms: tables.start(start, now_ms))
        if start.first.announce:
            self.outbox.ring()
        return said

    async def append(self, append: Append) -> Refused | None:
        refused = await self.write(lambda tables, now_ms: tables.append(append, now_ms))
        if append.announce:
            self.outbox.ring()
        return refused

    async def claim(self, tenant: str, run: str, *, worker: str, lease_ms: int) -> Claim | None:
        return await self.write(lambda tables, now_ms: tables.claim(tenant, run, worker, lease_ms, now_ms))

    async def renew(self, tenant: str, run: str, *, epoch: int, lease_ms: int) -> bool:
        return await self.write(lambda tables, now_ms: tables.renew(tenant, run, epoch, lease_ms, now_ms))

    async def renew_all(self, held: Sequence[tuple[str, str, int]], *, lease_ms: int) -> set[tuple[str, str]]:
        return await self.write(
            lambda tables, now_ms: {
                (tenant, run) for tenant, run, epoch in held if tables.renew(tenant, run, epoch, lease_ms, now_ms)
            }
        )

    async def post(self, tenant: str, run: str, kind: str, body: bytes, *, key: str = "", digest: str = "") -> int:
        if key:
            return await self.write(
                lambda tables, now_ms: tables.post_once(tenant, run, kind, body, key, digest, now_ms)
            )
        return await self.write(lambda tables, now_ms: tables.post(tenant, run, kind, body, now_ms))

    async def runnable(
        self, *, limit: int, batch: int = -1, agents: Collection[str] | None = None, ahead: Ahead = NOBODY
    ) -> Sequence[Ready]:
        now_ms = self._clock()
        return await self.read_rows(
            lambda tables: tables.sharing.order(tables.live, now_ms, limit, batch, agents, ahead)
        )

    async def next_wake_ms(self) -> int:
        return await self.read_rows(lambda tables: tables.next_wake_ms())

    async def inbox(self, tenant: str, run: str) -> Sequence[InboxItem]:
        return await self.read_rows(
            lambda tables: list(found.inbox) if (found := tables.runs.get((tenant, run))) else []
        )

    async def raw(self, tenant: str, run: str, *, after: int = 0, limit: int = 0) -> Sequence[RawRecord]:
        return await self.read_rows(lambda tables: tables.raw(tenant, run, after, limit))

    async def read(self, tenant: str, run: str, *, after: int = 0, limit: int = 0) -> Sequence[Entry]:
        return await self.read_rows(lambda tables: tables.read(tenant, run, after, limit))

    async def outlines(self, tenant: str, runs: Sequence[str]) -> Mapping[str, Sequence[Outline]]:
        return await self.read_rows(lambda tables: {run: tables.outlines(tenant, run) for run in runs})

    async def tenants(self) -> Sequence[str]:
        return await self.read_rows(lambda tables: sorted({tenant for tenant, _ in tables.runs}))

    async def run(self, tenant: str, run: str) -> RunRow | None:
        return await self.read_rows(lambda tables: found.row() if (found := tables.runs.get((tenant, run))) else None)

    async def runs(
        self,
        tenant: str,
        *,
        session: str = "",
        agent: str = "",
        user: str = "",
        status: str = "",
        outcome: str = "",
        before: str = "",
        limit: int = 50,
    ) -> Sequence[RunRow]:
        wanted = (session, agent, user, status, outcome)
        return await self.read_rows(lambda tables: tables.listed(tenant, *wanted, before, limit))

    async def parked(
        self,
        *,
        tenant: str = "",
        agent: str = "",
        reason: str = "",
        before: tuple[str, str] = ("", ""),
        limit: int = 50,
    ) -> Sequence[RunRow]:
        return await self.read_rows(lambda tables: tables.parked(tenant, agent, reason, before, limit))

    async def orphans(self, *, idle_ms: int, limit: int = 1_000) -> Sequence[RunRow]:
        return await self.read_rows(lambda tables: tables.orphans(self._clock() - idle_ms)[:limit])

    async def claims(self, tenant: str, run: str) -> Sequence[Claimed]:
        place = (tenant, run)
        return await self.read_rows(lambda tables: list(found.vain) if (found := tables.runs.get(place)) else [])

    async def session(self, tenant: str, session: str) -> SessionRow | None:
        place = (tenant, session)
        return await self.read_rows(lambda tables: found.row() if (found := tables.sessions.get(place)) else None)

    async def sessions(self, tenant: str, *, before: str = "", limit: int = 50) -> Sequence[SessionRow]:
        return await self.read_rows(lambda tables: tables.listed_sessions(tenant, before, limit))

    # --- the rest ----------------------------------------------------------------------------------------------------

    async def key_for(self, tenant: str, subject: str) -> Key:
        return await self.write(lambda tables, _: tables.key_for(tenant, subject))

    async def keys(self, tenant: str) -> Sequence[Key]:
        return await self.read_rows(lambda tables: tables.keys(tenant))

    async def destroy_key(self, tenant: str, subject: str) -> bool:
        return await self.write(lambda tables, _: tables.destroy_key(tenant, subject))

    async def put_bundle(self, tenant: str, digest: str, body: bytes) -> None:
        await self.write(lambda tables, _: tables.bundles.setdefault((tenant, digest), body))

    async def bundle(self, tenant: str, digest: str) -> bytes | None:
        return await self.read_rows(lambda tables: tables.bundles.get((tenant, digest)))

    async def set_limit(self, tenant: str, ledger: str, limit: int) -> Ledger:
        return await self.write(lambda tables, _: tables.books.set_limit(tenant, ledger, limit))

    async def ledgers(self, tenant: str) -> Sequence[Ledger]:
        return await self.read_rows(lambda tables: tables.books.listed(tenant))

    async def add_api_key(self, key: ApiKey) -> None:
        await self.write(lambda tables, _: tables.add_api_key(key))

    async def api_keys(self) -> Sequence[ApiKey]:
        return await self.read_rows(
            lambda tables: sorted(tables.api_keys.values(), key=lambda key: (key.created_ms, key.id))
        )

    async def revoke_api_key(self, id: str) -> bool:
        return await self.write(lambda tables, _: tables.revoke_api_key(id))
