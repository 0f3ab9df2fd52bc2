"""A lane: one connection that writes groups, without a timer: what arrives during a commit is the next group.

A connection lost before the commit was asked for has written nothing, and the group is done again on a new one, for a
few seconds; lost during the commit, nobody knows, and every write of the group says so (`CommitUnknown`). A group that
fails for a reason of one of its writes is taken apart: each write is tried alone, and the culprit fails alone.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

import asyncpg

from stanchion.core.errors import CommitUnknown, JournalError, StanchionError
from stanchion.journal.ledger import Place
from stanchion.journal.postgres.address import Connection
from stanchion.journal.postgres.errors import AGAIN, LOST, WHOLE, translate
from stanchion.journal.postgres.group import Group
from stanchion.journal.postgres.money import Money, Short, Till
from stanchion.journal.postgres.places import KnownShares, Places
from stanchion.journal.postgres.write import Posted, RunPlace, Write
from stanchion.journal.store import Change

GROUP_JOBS = 256
GROUP_BYTES = 8 << 20
"""Bounds of one transaction."""
LANE_JOBS = 4_096
LANE_BYTES = 32 << 20
"""Bounds of what may wait; above them a write waits for room before it joins the queue."""
PATIENCE_S = 5.0
"""For how long a group whose connection was lost is tried again."""
TRIES = 6
"""How often a group that others came before is decided again before it is taken apart."""


class _Job:
    __slots__ = ("error", "future", "result", "weight", "write")

    def __init__(self, write: Write, future: asyncio.Future[Any], weight: int) -> None:
        self.write = write
        self.future = future
        self.weight = weight
        self.result: Any = None
        self.error: BaseException | None = None


class Lane:
    """The queue of writes of one connection."""

    def __init__(
        self,
        where: str,
        connect: Callable[[], Awaitable[Connection]],
        committed: Callable[[Mapping[RunPlace, Change]], None],
        shares: KnownShares,
    ) -> None:
        self._where = where
        self._connect = connect
        self._committed = committed
        self._connection: Connection | None = None
        self._till = Till()
        self._shares = shares
        self._queue: deque[_Job] = deque()
        self._room: deque[tuple[asyncio.Future[None], int]] = deque()
        self._jobs = 0
        self._bytes = 0
        self._arrived = asyncio.Event()
        self._closing = False
        self._task = asyncio.create_task(self._run(), name="stanchion-lane")

    async def write(self, write: Write, weight: int) -> Any:
        """Have a write done in a transaction; return when it is on the disk. `weight`: its bytes, about.

        A caller that is cancelled does not know whether it was written.
        """
        await self._enter(weight)
        if self._closing:
            self._leave(weight)
            raise JournalError(f"the store {self._where} is closed", code="journal_closed")
        job = _Job(write, asyncio.get_running_loop().create_future(), weight)
        self._queue.append(job)
        self._arrived.set()
        return await job.future

    async def aclose(self) -> None:
        """Write what is waiting and close the connection."""
        self._closing = True
        self._arrived.set()
        await self._task
        while self._room:
            self._room.popleft()[0].cancel()
        await self._drop(graceful=True)

    # --- room --------------------------------------------------------------------------------------------------------

    @property
    def _full(self) -> bool:
        return self._jobs >= LANE_JOBS or self._bytes >= LANE_BYTES

    async def _enter(self, weight: int) -> None:
        """Wait until there is room, in the order of arrival."""
        if not (self._full or self._room):
            self._jobs += 1
            self._bytes += weight
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._room.append((turn, weight))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._leave(weight)
            raise

    def _leave(self, weight: int) -> None:
        self._jobs -= 1
        self._bytes -= weight
        while self._room and not self._full:
            turn, wanted = self._room.popleft()
            if not turn.done():
                self._jobs += 1
                self._bytes += wanted
                turn.set_result(None)

    # --- the groups --------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            while not self._queue:
                if self._closing:
                    return
                self._arrived.clear()
                await self._arrived.wait()
            jobs = self._take()
            try:
                await self._serve(jobs)
            except Exception as error:  # (nothing may end this task and leave the others waiting)
                for job in jobs:
                    job.error = job.error or translate(error, self._where)
                await self._drop()
            self._settle(jobs)

    def _take(self) -> list[_Job]:
        jobs: list[_Job] = []
        size = 0
        while self._queue and len(jobs) < GROUP_JOBS and size < GROUP_BYTES:
            job = self._queue.popleft()
            jobs.append(job)
            size += job.weight
        return jobs

    def _settle(self, jobs: list[_Job]) -> None:
        for job in jobs:
            if not job.future.done():
                if job.error is None:
                    job.future.set_result(job.result.id if isinstance(job.result, Posted) else job.result)
                else:
                    job.future.set_exception(job.error)
            self._leave(job.weight)

    async def _serve(self, jobs: list[_Job]) -> None:
        if not await self._commit(jobs):
            for job in jobs:
                await self._commit([job])

    async def _commit(self, jobs: list[_Job]) -> bool:
        """Write a group, again and again if others came first or the connection was lost. False: take it apart."""
        loop = asyncio.get_running_loop()
        until, pause_s, tries = loop.time() + PATIENCE_S, 0.05, 0
        whole: set[Place] = set()
        while True:
            try:
                await self._transaction(jobs, whole)
            except Short as short:
                whole |= short.places
                self._till.tight |= short.places
            except CommitUnknown as unknown:
                await self._drop()
                return _fail(jobs, unknown)
            except AGAIN as error:
                tries += 1
                if tries >= TRIES:
                    return _fail(jobs, translate(error, self._where)) if len(jobs) == 1 else False
                await asyncio.sleep(random.random() * 0.005 * tries)
            except LOST as error:
                await self._drop()
                if loop.time() + pause_s > until or self._closing:
                    return _fail(jobs, translate(error, self._where))
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, 0.5)
            except Exception as error:  # (a write that cannot be encoded, a full disk: all must be answered)
                if isinstance(error, WHOLE) or len(jobs) == 1:
                    return _fail(jobs, translate(error, self._where))
                return False
            else:
                return True

    async def _transaction(self, jobs: list[_Job], whole: set[Place]) -> None:
        connection = self._connection
        if connection is None or connection.is_closed():
            connection = self._connection = await self._connect()
        group = Group(Money(self._till, whole), Places(self._shares))
        try:
            await connection.execute("BEGIN")
            await group.load(connection, [job.write for job in jobs])
            for job in jobs:
                job.result = job.error = None
                try:
                    job.result = group.apply(job.write)
                except StanchionError as refusal:
                    job.error = refusal
            if group.writes:
                await group.flush(connection)
        except BaseException:
            await self._roll_back(connection)
            raise
        await self._end(connection, "COMMIT" if group.writes else "ROLLBACK")
        if moved := group.moved:
            self._committed(moved)

    async def _end(self, connection: Connection, how: str) -> None:
        try:
            said = await connection.execute(how)
        except (*LOST, asyncpg.QueryCanceledError) as error:
            if how == "ROLLBACK":
                raise
            raise CommitUnknown(
                f"{self._where} was lost during a commit ({error}); what it held is known after reading again"
            ) from error
        if said != how:
            raise JournalError(f"{self._where}: the commit was answered with {said}; nothing was written")

    async def _roll_back(self, connection: Connection) -> None:
        try:
            if not connection.is_closed():
                await connection.execute("ROLLBACK")
        except Exception:  # (a connection that cannot even do this is not used again)
            await self._drop()

    async def _drop(self, *, graceful: bool = False) -> None:
        """Close the connection; the next group opens another."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if not graceful:
            connection.terminate()
            return
        with suppress(*LOST, asyncpg.PostgresError):
            await connection.close(timeout=2.0)


def _fail(jobs: list[_Job], error: BaseException) -> bool:
    for job in jobs:
        job.result, job.error = None, error
    return True
