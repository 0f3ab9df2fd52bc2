"""Who goes next, in memory: shares, places under caps, and the workers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING

import msgspec

from stanchion.journal.share import (
    Ahead,
    NoPlace,
    Place,
    Ready,
    Running,
    Share,
    Shares,
    WorkerRow,
    fair_order,
    position,
)

if TYPE_CHECKING:
    from stanchion.testing.memory import MemoryStore
    from stanchion.testing.memory_tables import Run

_DAY_MS = 86_400_000


class ShareTables:
    """Shares and workers."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], Share] = {}
        self.workers: dict[str, WorkerRow] = {}
        self.shares = Shares()

    def set(self, share: Share) -> None:
        """Set a share."""
        self.rows.pop((share.tenant, share.scope), None)
        if not share.says_nothing:
            self.rows[share.tenant, share.scope] = share
        self.shares = Shares(self.rows.values())

    def met(self, runs: Collection[Run], tenant: str, agent: str, user: str) -> NoPlace | None:
        """Say which cap leaves no place."""
        if not self.shares.capped:
            return None
        cap = self.running(runs).met(tenant, agent, user)
        return NoPlace(cap.scope, cap.limit) if cap else None

    def running(self, runs: Collection[Run]) -> Running:
        """Count what is driven."""
        driven = [run.start for run in runs if run.worker]
        return Running.counted(self.shares, [(start.tenant, start.agent, start.user, 1) for start in driven])

    def order(
        self, runs: Collection[Run], now_ms: int, limit: int, batch: int, agents: Collection[str] | None, ahead: Ahead
    ) -> list[Ready]:
        """List what is to be driven, in order."""
        found = [one for one in _ready(runs, now_ms) if agents is None or one.agent in agents]
        running = self.running(runs)
        return fair_order(found, limit=limit, batch=batch, running=running, shares=self.shares, ahead=ahead)

    def leave(self, worker: str, now_ms: int) -> None:
        """Forget a worker, and those that were not heard of for long."""
        self.workers = {
            row.name: row for row in self.workers.values() if row.name != worker and row.seen_ms > now_ms - _DAY_MS
        }


def _ready(runs: Collection[Run], now_ms: int) -> Iterator[Ready]:
    for no, run in enumerate(runs):
        start = run.start
        due = run.status == "waiting" and 0 < run.wake_at_ms <= now_ms
        if run.lease_until_ms <= now_ms and (run.status == "runnable" or due):
            begun, lost = run.epoch > 0, bool(run.worker)
            yield Ready(start.priority, start.tenant, start.agent, start.user, begun, no, start.run, lost)


class MemorySharing:
    """`Sharing` in memory."""

    def __init__(self, store: MemoryStore, clock: Callable[[], int]) -> None:
        self._store = store
        self._clock = clock

    async def set(self, share: Share) -> None:
        await self._store.write(lambda tables, _: tables.sharing.set(share))

    async def rows(self) -> Sequence[Share]:
        return await self._store.read_rows(
            lambda tables: [tables.sharing.rows[at] for at in sorted(tables.sharing.rows)]
        )

    async def shares(self) -> Shares:
        return await self._store.read_rows(lambda tables: tables.sharing.shares)

    async def queued(self, tenant: str, limit: int) -> int:
        def count(runs: Collection[Run]) -> int:
            its = (run for run in runs if run.start.tenant == tenant and not run.epoch)
            return sum(run.status in ("runnable", "queued") and not run.worker for run in its)

        return min(await self._store.read_rows(lambda tables: count(tables.live)), limit)

    async def place(self, tenant: str, run: str) -> Place | None:
        runs = await self._store.read_rows(lambda tables: list(tables.live))
        found = [one for one in _ready(runs, self._clock()) if not one.lost]
        mine = next((one for one in found if (one.tenant, one.run) == (tenant, run) and not one.begun), None)
        return await self._place(found, tenant, mine.priority, mine.no) if mine else None

    async def last(self, tenant: str, priority: int) -> Place:
        runs = await self._store.read_rows(lambda tables: list(tables.live))
        found = [one for one in _ready(runs, self._clock()) if not one.lost]
        return await self._place(found, tenant, priority, len(runs))

    async def _place(self, found: Sequence[Ready], tenant: str, priority: int, no: int) -> Place:
        shares = await self.shares()
        level = [one for one in found if one.priority == priority]
        own = sum(one.tenant == tenant and (one.begun or one.no < no) for one in level)
        others = {one.tenant for one in level} - {tenant}
        lengths = [(sum(one.tenant == other for one in level), shares.weight_of(other)) for other in others]
        before = sum(one.priority > priority for one in found)
        rate = sum(worker.rate for worker in await self.workers())
        return Place(position(own, shares.weight_of(tenant), lengths, before), own, rate)

    async def agents(self) -> Collection[str]:
        return await self._store.read_rows(lambda tables: {one.agent for one in _ready(tables.live, self._clock())})

    async def beat(self, worker: WorkerRow) -> None:
        def put(now_ms: int) -> WorkerRow:
            return msgspec.structs.replace(worker, seen_ms=now_ms)

        await self._store.write(lambda tables, now_ms: tables.sharing.workers.update({worker.name: put(now_ms)}))

    async def leave(self, worker: str) -> None:
        await self._store.write(lambda tables, now_ms: tables.sharing.leave(worker, now_ms))

    async def workers(self) -> Sequence[WorkerRow]:
        rows = await self._store.read_rows(lambda tables: list(tables.sharing.workers.values()))
        return sorted(rows, key=lambda worker: (worker.started_ms, worker.name))
