"""A bounded pool of daemon threads for tools that are plain functions.

A thread cannot be stopped: a call that timed out goes on in its thread, and occupies it, until the function returns.
Daemons, because such a thread must not hold up the end of the process (those of `concurrent.futures` do). A call that
was still waiting for a thread when it was given up is certain never to have run, and says so.
"""

from __future__ import annotations

import asyncio
import contextvars
import queue
import threading
from collections.abc import Callable
from typing import Any


class Job:
    """One call of a function in a thread. Whoever takes `_claim` first, a thread or the one who gives up, decides."""

    def __init__(self, function: Callable[[], Any], on_start: Callable[[], None]) -> None:
        self._function = function
        self._on_start = on_start
        self._context = contextvars.copy_context()
        self._loop = asyncio.get_running_loop()
        self._claim = threading.Lock()
        self.future: asyncio.Future[tuple[Any, BaseException | None]] = self._loop.create_future()

    def withdraw(self) -> None:
        """Keep a call that did not start from ever starting."""
        self._claim.acquire(blocking=False)

    def run(self) -> None:
        """Call the function, in the thread; what it raises is handed over as a value (a StopIteration could not be)."""
        if not self._claim.acquire(blocking=False):
            return
        self._on_start()
        outcome: tuple[Any, BaseException | None]
        try:
            outcome = (self._context.run(self._function), None)
        except BaseException as error:
            outcome = (None, error)
        try:
            self._loop.call_soon_threadsafe(self._settle, outcome)
        except RuntimeError:
            return  # the loop has ended: nobody waits any more

    def _settle(self, outcome: tuple[Any, BaseException | None]) -> None:
        if not self.future.done():
            self.future.set_result(outcome)


class Threads:
    """At most `size` threads, started when needed and kept."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        self._unfinished = 0
        """Jobs in the queue or at work."""

    async def run(self, function: Callable[[], Any], on_start: Callable[[], None]) -> Any:
        """Call a function in a thread; `on_start` is called there just before it."""
        job = Job(function, on_start)
        with self._lock:
            self._unfinished += 1
            grow = self._unfinished > self._threads and self._threads < self._size
            self._threads += grow
            jobs = self._jobs
        if grow:
            threading.Thread(target=self._work, args=(jobs,), name="stanchion-tool", daemon=True).start()
        jobs.put(job)
        try:
            value, error = await job.future
        except asyncio.CancelledError:
            job.withdraw()
            raise
        if error is not None:
            raise error
        return value

    def close(self) -> None:
        """Let idle threads end; those at work end when their function returns."""
        with self._lock:
            jobs, self._jobs = self._jobs, queue.SimpleQueue()
            ended, self._threads = self._threads, 0
        for _ in range(ended):
            jobs.put(None)

    def _work(self, jobs: queue.SimpleQueue[Job | None]) -> None:
        while (job := jobs.get()) is not None:
            job.run()
            with self._lock:
                self._unfinished -= 1
