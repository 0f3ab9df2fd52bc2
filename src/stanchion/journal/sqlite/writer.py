"""The writer: one thread, one connection, group commit without a timer.

The thread sleeps until something is to be written, then takes all that is there and commits it in one transaction; what
arrives meanwhile is the next group. A lone write waits for nobody, and under load a group is what came during one sync.
Results go back with one wake-up per event loop and group, after the sync. A write that is refused fails alone; if the
group cannot be written for a reason of one of its writes, each is tried by itself. The thread outlives every failure of
the disk; should it end all the same, everything waiting fails with it, and nothing hangs.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

import apsw

from stanchion.core.errors import CommitUnknown, JournalError, StanchionError
from stanchion.journal.sqlite.connection import Connection
from stanchion.journal.sqlite.errors import translate
from stanchion.journal.sqlite.schema import BUSY_TIMEOUT_MS
from stanchion.journal.sqlite.unit import UnitOfWork

T = TypeVar("T")
ERASURE_WAIT_MS = 250
RETRY_S = 1.0
"""How long the cutting of the WAL waits for a reader, and when it is tried again."""
GROUP_JOBS = 1_024
GROUP_BYTES = 8 << 20
"""Bounds of one transaction."""
LANE_JOBS = 8_192
LANE_BYTES = 32 << 20
"""Bounds of what one event loop may have waiting; above them a write waits for room before it joins the queue."""
_DISK = (apsw.FullError, apsw.IOError, apsw.BusyError, apsw.CorruptError, apsw.NotADBError, apsw.ReadOnlyError)
"""Failures that no single write of a group is the cause of."""


class _Job:
    __slots__ = ("call", "error", "future", "lane", "looks", "result", "weight")

    def __init__(
        self, lane: _Lane, future: asyncio.Future[Any], call: Callable[[UnitOfWork], Any], weight: int, looks: bool
    ) -> None:
        self.lane = lane
        self.future = future
        self.call = call
        self.weight = weight
        self.looks = looks
        """Writes nothing and needs no transaction."""
        self.result: Any = None
        self.error: BaseException | None = None


class _Lane:
    """One event loop's writes. Everything here runs in that loop."""

    __slots__ = ("bytes", "jobs", "loop", "waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.jobs = 0
        self.bytes = 0
        self.waiting: deque[tuple[asyncio.Future[None], int]] = deque()

    @property
    def full(self) -> bool:
        """Whether the next has to wait."""
        return self.jobs >= LANE_JOBS or self.bytes >= LANE_BYTES

    async def enter(self, weight: int) -> None:
        """Wait until there is room, in the order of arrival."""
        if not (self.full or self.waiting):
            self.jobs += 1
            self.bytes += weight
            return
        turn: asyncio.Future[None] = self.loop.create_future()
        self.waiting.append((turn, weight))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave(weight)
            raise

    def leave(self, weight: int) -> None:
        """Give back the room of one, and let in who waits."""
        self.jobs -= 1
        self.bytes -= weight
        while self.waiting and not self.full:
            turn, wanted = self.waiting.popleft()
            if not turn.done():
                self.jobs += 1
                self.bytes += wanted
                turn.set_result(None)

    def settle(self, jobs: list[_Job]) -> None:
        """Hand out results."""
        for job in jobs:
            if not job.future.done():
                if job.error is None:
                    job.future.set_result(job.result)
                else:
                    job.future.set_exception(job.error)
            self.leave(job.weight)


class Writer:
    """The writing thread."""

    def __init__(
        self, path: str, connect: Callable[[], Connection], now_ms: Callable[[], int], connection: Connection
    ) -> None:
        self._path = path
        self._connect = connect
        self._now_ms = now_ms
        self._unit: UnitOfWork | None = UnitOfWork(connection)
        self._queue: SimpleQueue[_Job | None] = SimpleQueue()
        self._lanes: dict[asyncio.AbstractEventLoop, _Lane] = {}
        self._lock = threading.Lock()
        self._ended: JournalError | None = None
        self._truncate = False
        self._foreign = 0
        self._thread = threading.Thread(target=self._run, name="stanchion-writer", daemon=True)
        self._thread.start()

    async def write(self, call: Callable[[UnitOfWork], T], weight: int = 256, *, looks: bool = False) -> T:
        """Have `call` done in a transaction; return when it is on the disk. `weight`: its bytes, about.

        A caller that is cancelled does not know whether it was written.
        """
        loop = asyncio.get_running_loop()
        lane = self._lanes.get(loop) or self._add_lane(loop)
        await lane.enter(weight)
        job = _Job(lane, loop.create_future(), call, weight, looks)
        with self._lock:
            ended = self._ended
            if ended is None:
                self._queue.put(job)
        if ended is not None:
            lane.leave(weight)
            raise type(ended)(str(ended), code=ended.code)
        return await job.future

    async def aclose(self) -> None:
        """Write what is waiting, close the connection and end the thread."""
        with self._lock:
            if self._ended is None:
                self._ended = JournalError(f"the store {self._path} is closed", code="journal_closed")
                self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    async def changed_elsewhere(self) -> bool:
        """Tell whether another process has written since the last call."""
        return await self.write(self._look, looks=True)

    def _look(self, unit: UnitOfWork) -> bool:
        unit.look()
        seen, self._foreign = self._foreign, unit.foreign
        return seen != unit.foreign

    def _add_lane(self, loop: asyncio.AbstractEventLoop) -> _Lane:
        with self._lock:
            self._lanes = {known: lane for known, lane in self._lanes.items() if not known.is_closed()}
            lane = self._lanes[loop] = _Lane(loop)
        return lane

    # --- the thread --------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        error: BaseException | None = None
        jobs: list[_Job] = []
        try:
            open_ = True
            while open_:
                jobs, open_ = self._take()
                self._serve(jobs)
        except BaseException as caught:  # (nothing may end this thread and leave the others waiting)
            error = caught
        if self._unit is not None:
            with suppress(apsw.Error):
                self._unit.connection.close(True)
        self._end(jobs, error)

    def _take(self) -> tuple[list[_Job], bool]:
        """Wait for a write, then take all there are. False: the last."""
        try:
            first = self._queue.get(timeout=RETRY_S if self._truncate else None)
        except Empty:
            self._empty_wal(self._open())
            return [], True
        if first is None:
            return [], False
        jobs, size = [first], first.weight
        while len(jobs) < GROUP_JOBS and size < GROUP_BYTES:
            try:
                job = self._queue.get_nowait()
            except Empty:
                break
            if job is None:
                return jobs, False
            jobs.append(job)
            size += job.weight
        return jobs, True

    def _serve(self, jobs: list[_Job]) -> None:
        looks = [job for job in jobs if job.looks]
        writes = [job for job in jobs if not job.looks] if looks else jobs
        if writes and not self._commit(writes):
            for job in writes:
                self._commit([job], alone=True)
        for job in looks:
            self._try(job)
        _resolve(jobs)

    def _try(self, job: _Job) -> None:
        try:
            job.result = job.call(self._open())
        except (apsw.Error, StanchionError) as error:
            job.error = translate(error, self._path)

    def _open(self) -> UnitOfWork:
        if self._unit is None:
            self._unit = UnitOfWork(self._connect())
        return self._unit

    def _commit(self, jobs: list[_Job], *, alone: bool = False) -> bool:
        """Write a group. False: one of it has spoilt it, nothing was written, and each is to be tried by itself."""
        committing = False
        try:
            unit = self._open()
            unit.begin(self._now_ms())
            for job in jobs:
                job.error = None
                try:
                    job.result = job.call(unit)
                except StanchionError as refusal:
                    job.error = refusal
            unit.flush()
            committing = True
            unit.connection.execute("COMMIT")
        except Exception as error:  # (a write that cannot be bound, a full disk: all must be answered)
            whole = isinstance(error, _DISK)
            self._roll_back(reopen=whole)
            if not whole and not alone and len(jobs) > 1:
                return False
            self._fail(jobs, error, committing)
            return True
        self._truncate = self._truncate or unit.truncate
        if self._truncate:
            self._empty_wal(unit)
        return True

    def _roll_back(self, *, reopen: bool) -> None:
        unit = self._unit
        if unit is None:
            return
        try:
            unit.forget()
            if unit.connection.in_transaction:
                unit.connection.execute("ROLLBACK")
        except apsw.Error:
            reopen = True
        if reopen:
            # A connection whose disk failed is not trusted again.
            self._unit = None
            with suppress(apsw.Error):
                unit.connection.close(True)

    def _fail(self, jobs: list[_Job], error: Exception, committing: bool) -> None:
        unknown = committing and isinstance(error, apsw.IOError)
        for job in jobs:
            if unknown:
                job.error = CommitUnknown(
                    f"{self._path}: the disk failed during a commit ({error}); what it held is known after reading again"
                )
                job.error.__cause__ = error
            elif job.error is None:
                job.error = translate(error, self._path)

    def _empty_wal(self, unit: UnitOfWork) -> None:
        """Copy the WAL into the file and cut it, so that erased text lies in neither. A reader may put it off."""
        self._truncate = True
        with suppress(apsw.Error):
            unit.connection.set_busy_timeout(ERASURE_WAIT_MS)
            busy, _, _ = unit.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            unit.connection.set_busy_timeout(BUSY_TIMEOUT_MS)
            self._truncate = bool(busy)

    def _end(self, jobs: list[_Job], error: BaseException | None) -> None:
        """Fail what is still waiting, and what will come."""
        with self._lock:
            if error is not None or self._ended is None:
                self._ended = JournalError(
                    f"{self._path}: the writer stopped ({type(error).__name__}: {error}); restart the server",
                    code="journal_stopped",
                )
            ended = self._ended
        left = jobs if error is not None else []
        while not self._queue.empty():
            job = self._queue.get()
            if job is not None:
                left.append(job)
        for job in left:
            job.error = job.error or ended
        _resolve(left)


def _resolve(jobs: list[_Job]) -> None:
    by_lane: dict[_Lane, list[_Job]] = {}
    for job in jobs:
        by_lane.setdefault(job.lane, []).append(job)
    for lane, its in by_lane.items():
        try:
            lane.loop.call_soon_threadsafe(lane.settle, its)
        except RuntimeError:  # its loop is closed: nobody is waiting
            continue
