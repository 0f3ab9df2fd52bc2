"""Who goes next, in the file: the looks at what is ready, places under caps, shares, and the workers.

The steps from queue to queue are made here: a statement costs microseconds, and a recursive one cannot limit each queue.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import islice
from typing import Any

import msgspec

from stanchion.journal.share import (
    INTERACTIVE,
    PAIRS_SEEN,
    Ahead,
    Place,
    Ready,
    Running,
    RunningOf,
    Share,
    Shares,
    WorkerRow,
    fair_order,
    position,
)
from stanchion.journal.sqlite.connection import Connection
from stanchion.journal.sqlite.places import SQL, read_shares, share_of
from stanchion.journal.sqlite.read import Reader
from stanchion.journal.sqlite.writer import Writer

COUNTED = 100_000
"""Runs that are counted to tell a place in the queue; behind so many it is not told apart."""
_DAY_MS = 86_400_000
_NEWER = (1 << 63) - 1
"""Number of a run that is newer than all."""
_START = (-(1 << 62), "", "")
_worker = msgspec.json.Decoder(WorkerRow)
_Queue = tuple[int, str, str]
"""Class, tenant, agent."""


def _ready(row: Any) -> Ready:
    priority, tenant, agent, user, begun, no, run, lost = row
    return Ready(priority, tenant, agent, user, bool(begun), no, run, bool(lost))


class SqliteSharing:
    """`Sharing` in the file."""

    def __init__(self, writer: Writer, reader: Reader, clock: Callable[[], int]) -> None:
        self._writer = writer
        self._reader = reader
        self._clock = clock
        self._from: _Queue = _START
        """Where the next look begins, if the last could not take everything in."""

    async def runnable(self, *, limit: int, batch: int, agents: Collection[str] | None, ahead: Ahead) -> list[Ready]:
        """List what is to be driven, in order."""
        now_ms = self._clock()

        def look(connection: Connection) -> list[Ready]:
            shares = read_shares(connection)
            counts = connection.execute(SQL["driven"]) if shares.capped else ()
            running = Running.counted(shares, counts)  # type: ignore[arg-type]  (rows of the statement)
            found = self._look(connection, limit, batch, agents, running)
            found += self._due(connection, now_ms, limit, agents)
            return fair_order(found, limit=limit, batch=batch, running=running, shares=shares, ahead=ahead)

        return await self._reader.use(look)

    def _look(
        self, connection: Connection, limit: int, batch: int, agents: Collection[str] | None, running: Running
    ) -> list[Ready]:
        full = running.full()
        begun_at = self._from
        queues = list(islice(_queues(connection, begun_at), PAIRS_SEEN))
        self._from = queues[-1] if len(queues) == PAIRS_SEEN else _START
        if begun_at != _START and len(queues) < PAIRS_SEEN:
            queues += islice(_queues(connection, _START), PAIRS_SEEN - len(queues))
        served = [queue for queue in dict.fromkeys(queues) if _is_wanted(queue, batch, agents, full)]
        each = min(limit, 2 * limit // max(len(served), 1) + 1)
        found: list[Ready] = []
        for queue in served:
            rows = map(_ready, connection.execute(SQL["of_queue"], queue))
            found += islice((one for one in rows if (one.tenant, "", one.user) not in full), each)
        return found

    def _due(self, connection: Connection, now_ms: int, limit: int, agents: Collection[str] | None) -> list[Ready]:
        due = map(_ready, connection.execute(SQL["due"], (now_ms,)))
        lost = map(_ready, connection.execute(SQL["lost"], (now_ms,)))
        found = [*islice((one for one in due if agents is None or one.agent in agents), limit)]
        return [*found, *islice((one for one in lost if agents is None or one.agent in agents), limit)]

    async def next_wake_ms(self) -> int:
        """When the next waiting run is due or the next lease ends."""
        return (await self._rows("next_wake"))[0][0] or 0

    async def _rows(self, name: str, *values: Any) -> list[Any]:
        return await self._reader.use(lambda connection: connection.execute(SQL[name], values).fetchall())

    async def set(self, share: Share) -> None:
        await self._writer.write(lambda unit: unit.places.set(share))

    async def rows(self) -> Sequence[Share]:
        return [share_of(row) for row in await self._rows("shares")]

    async def shares(self) -> Shares:
        return await self._reader.use(read_shares)

    async def queued(self, tenant: str, limit: int) -> int:
        return min((await self._rows("queued", tenant, limit))[0][0], limit)

    async def place(self, tenant: str, run: str) -> Place | None:
        found = await self._rows("standing", tenant, run)
        return await self._place(tenant, *found[0]) if found else None

    async def last(self, tenant: str, priority: int) -> Place:
        return await self._place(tenant, -priority, _NEWER)

    async def _place(self, tenant: str, rank: int, no: int) -> Place:
        stands, own = await self._reader.use(lambda connection: _place(connection, tenant, rank, no))
        return Place(stands, own, sum(worker.rate for worker in await self.workers()))

    async def agents(self) -> Collection[str]:
        now_ms = self._clock()

        def look(connection: Connection) -> set[str]:
            due: Any = connection.execute(SQL["due_agents"], (now_ms,))
            return {agent for _, _, agent in _queues(connection, _START)} | {row[0] for row in due}

        return await self._reader.use(look)

    async def beat(self, worker: WorkerRow) -> None:
        values = (worker.name, msgspec.json.encode(worker), self._clock())
        await self._writer.write(lambda unit: unit.connection.execute(SQL["beat"], values))

    async def leave(self, worker: str) -> None:
        values = (worker, self._clock() - _DAY_MS)
        await self._writer.write(lambda unit: unit.connection.execute(SQL["leave"], values))

    async def workers(self) -> Sequence[WorkerRow]:
        rows = [(_worker.decode(row[0]), row[1]) for row in await self._rows("workers", self._clock() - _DAY_MS)]
        found = [msgspec.structs.replace(worker, seen_ms=seen_ms) for worker, seen_ms in rows]
        return sorted(found, key=lambda worker: (worker.started_ms, worker.name))


def _queues(connection: Connection, at: _Queue) -> Iterator[_Queue]:
    """Step from queue to queue, by class, tenant and agent."""
    while True:
        row: Any = connection.execute(SQL["next_queue"], at).fetchone()
        if row is None:
            return
        at = (row[0], row[1], row[2])
        yield at


def _is_wanted(queue: _Queue, batch: int, agents: Collection[str] | None, full: set[RunningOf]) -> bool:
    rank, tenant, agent = queue
    if (agents is not None and agent not in agents) or (batch == 0 and -rank < INTERACTIVE):
        return False
    return not full & {(tenant, "", ""), (tenant, agent, ""), ("", agent, "")}


def _place(connection: Connection, tenant: str, rank: int, no: int) -> tuple[int, int]:
    def count(name: str, *values: Any) -> int:
        row: Any = connection.execute(SQL[name], values).fetchone()
        return row[0]

    shares = read_shares(connection)
    own = count("own_ahead", rank, tenant, no, COUNTED)
    tenants = {queue[1] for queue in _queues(connection, (rank, "", "")) if queue[0] == rank} - {tenant}
    others = [(count("length", rank, other, COUNTED), shares.weight_of(other)) for other in tenants]
    return position(own, shares.weight_of(tenant), others, count("before", rank, COUNTED)), own
