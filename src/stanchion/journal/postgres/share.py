"""Who goes next, in the database: shares as they are known here, the looks at what is ready, caps, and the workers."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import msgspec

from stanchion.journal.postgres.places import KnownShares, share_of
from stanchion.journal.postgres.read import Reader
from stanchion.journal.queries import named
from stanchion.journal.share import (
    PAIRS_SEEN,
    Ahead,
    Place,
    Ready,
    Running,
    Share,
    Shares,
    WorkerRow,
    fair_order,
    position,
)

_SQL = named("postgres/share.sql")
COUNTED = 100_000
"""Runs that are counted to tell a place in the queue; behind so many it is not told apart."""
_NEWER = (1 << 63) - 1
"""Number of a run that is newer than all."""
_START = (-(1 << 62), "", "")
_worker = msgspec.json.Decoder(WorkerRow)


class PostgresSharing:
    """`Sharing` in the database."""

    def __init__(self, reader: Reader, known: KnownShares) -> None:
        self._reader = reader
        self._known = known
        self._from: tuple[int, str, str] = _START
        """Where the next look begins, if the last could not take everything in."""

    async def _rows(self, name: str, *values: Any) -> list[Any]:
        return await self._reader.use(lambda connection: connection.fetch(_SQL[name], *values))

    async def runnable(
        self, now_ms: int, *, limit: int, batch: int, agents: Collection[str] | None, ahead: Ahead
    ) -> list[Ready]:
        """List what is to be driven, in order."""
        shares = await self.shares()
        running = Running.counted(shares, await self._rows("driven") if shares.capped else ())
        served = None if agents is None else sorted(agents)
        ready = await self._ready(limit, served, running)
        ready += [Ready(*row) for row in await self._rows("due", now_ms, limit, served)]
        return fair_order(ready, limit=limit, batch=batch, running=running, shares=shares, ahead=ahead)

    async def _ready(self, limit: int, served: list[str] | None, running: Running) -> list[Ready]:
        full = running.full()
        agents = [agent for tenant, agent, _ in full if not tenant]
        tenants = [tenant for tenant, agent, user in full if not (agent or user)]
        of_agent = [f"{tenant}\x1f{agent}" for tenant, agent, _ in full if tenant and agent]
        of_user = [f"{tenant}\x1f{user}" for tenant, _, user in full if user]
        values = (PAIRS_SEEN, limit, served, agents, tenants, of_agent, of_user)
        rows = await self._rows("ready", *self._from, *values)
        last = [row for row in rows if row[4] is None]
        begun_at = self._from
        self._from = (-last[0][0], last[0][1], last[0][2]) if last else _START
        if begun_at != _START and not last and len(rows) < limit:  # the end was reached with room left: begin again
            rows += await self._rows("ready", *_START, *values)
        found = {row[5]: Ready(*row) for row in rows if row[4] is not None}
        return list(found.values())

    async def next_wake_ms(self) -> int:
        """When the next waiting run is due or the next lease ends."""
        return (await self._rows("next_wake"))[0][0]

    async def set(self, share: Share) -> None:
        if share.says_nothing:
            await self._rows("drop_share", share.tenant, share.scope)
        else:
            values = (share.tenant, share.scope, share.weight, share.max_running, share.max_queued)
            await self._rows("set_share", *values)
        self._known.forget()

    async def rows(self) -> Sequence[Share]:
        return [share_of(row) for row in await self._rows("shares")]

    async def shares(self) -> Shares:
        return await self._reader.use(self._known.read)

    async def queued(self, tenant: str, limit: int) -> int:
        return min((await self._rows("queued", tenant, limit))[0][0], limit)

    async def place(self, tenant: str, run: str) -> Place | None:
        found = await self._rows("place_of", tenant, run)
        return await self._place(tenant, *found[0]) if found else None

    async def last(self, tenant: str, priority: int) -> Place:
        return await self._place(tenant, -priority, _NEWER)

    async def _place(self, tenant: str, rank: int, no: int) -> Place:
        own, before = (await self._rows("counts", rank, tenant, no, COUNTED))[0]
        shares = await self.shares()
        rows = await self._rows("queues", rank, tenant, COUNTED)
        others = [(row[1], shares.weight_of(row[0])) for row in rows]
        rate = sum(worker.rate for worker in await self.workers())
        return Place(position(own, shares.weight_of(tenant), others, before), own, rate)

    async def agents(self) -> Collection[str]:
        return {row[0] for row in await self._rows("agents")}

    async def beat(self, worker: WorkerRow) -> None:
        await self._rows("beat", worker.name, msgspec.json.encode(worker))

    async def leave(self, worker: str) -> None:
        await self._rows("leave", worker)

    async def workers(self) -> Sequence[WorkerRow]:
        rows = [(_worker.decode(row[0]), row[1]) for row in await self._rows("workers")]
        found = [msgspec.structs.replace(worker, seen_ms=seen_ms) for worker, seen_ms in rows]
        return sorted(found, key=lambda worker: (worker.started_ms, worker.name))
