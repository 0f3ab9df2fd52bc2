"""Start what schedules say, once for each time, by whichever worker sees it due.

The run is started under the idempotency key `schedule:NAME:TIME`, and then the schedule moves on, if it still stands at that
time. Two workers that see it at once start one run, and so does a worker that died in between with the one after it.
Times are the store's. What became of a time that started no run stands in the schedule's `note`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from stanchion.core.errors import Conflict, InputError, JournalError
from stanchion.engine.clock import Clock
from stanchion.journal.schedule import Schedule
from stanchion.journal.store import Store
from stanchion.runtime.desks.cron import next_time

log = logging.getLogger("stanchion.runtime")

POLL_S = 1.0
"""How often other processes' changes are looked for."""
SPREAD_S = 0.1
"""Over what time workers spread their start of the same run, so that mostly one of them does the work."""
MISSED_MS = 60_000
"""So late a time counts as missed: nobody was there to start its run."""
PAGE = 100
_LATER = ("draining", "not_driving", "queue_full")
"""Refusals that say nothing of the run: it is tried again."""


class Alarm:
    """The task that starts due runs. `start` starts one under a key and returns its id; `serves` knows an agent."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        start: Callable[[Schedule, str], Awaitable[str]],
        serves: Callable[[str], bool],
    ) -> None:
        self._store = store
        self._clock = clock
        self._start = start
        self._serves = serves
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._run(), name="stanchion-alarm")

    def wake(self) -> None:
        """Say that something may be due."""
        self._wake.set()

    async def aclose(self) -> None:
        """End. A start that is under way is made by the next worker that sees the time, under the same key."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            try:
                due_ms = await self._store.schedules.next_due_ms()
                if due_ms and await self._fire_due():
                    due_ms = await self._store.schedules.next_due_ms()
            except JournalError as error:
                log.error("the schedules could not be read: %s", error)
                due_ms = 0
            except Exception:  # without this task no schedule would start anything any more
                log.exception("the alarm failed; it goes on")
                due_ms = 0
            await self._until(due_ms)

    async def _until(self, due_ms: int) -> None:
        left_s = (due_ms - self._clock.now_ms()) / 1000 if due_ms else POLL_S
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(left_s, POLL_S) if left_s > 0 else POLL_S):
                await self._wake.wait()

    async def _fire_due(self) -> bool:
        """Start what is due; say whether anything was."""
        fired, after = False, ("", "")
        while due := await self._store.schedules.due(limit=PAGE, after=after):
            mine = [schedule for schedule in due if self._serves(schedule.agent)]
            fired = fired or bool(mine)
            if mine:
                await asyncio.sleep(self._clock.draw() * SPREAD_S)
            for schedule in mine:
                await self._fire(schedule)
            after = (due[-1].tenant, due[-1].name)
        return fired

    async def _fire(self, seen: Schedule) -> None:
        """Start the run of a schedule that was seen due, unless another has done it."""
        schedule = await self._store.schedules.get(seen.tenant, seen.name)
        if schedule is None or not schedule.enabled or schedule.next_ms != seen.next_ms:
            return
        due_ms, now_ms = schedule.next_ms, await self._store.now_ms()
        if schedule.if_missed == "skip" and now_ms - due_ms > MISSED_MS:
            await self._move(
                schedule, now_ms, note=f"missed: no worker was there until {(now_ms - due_ms) // 1000} s later"
            )
            return
        try:
            run = await self._start(schedule, f"schedule:{schedule.name}:{due_ms}")
        except (Conflict, InputError) as refused:
            if refused.code in _LATER:
                return
            log.warning("the schedule %s of tenant %s started no run: %s", schedule.name, schedule.tenant, refused)
            await self._move(schedule, now_ms, note=str(refused))
        else:
            await self._move(schedule, now_ms, run=run)

    async def _move(self, schedule: Schedule, now_ms: int, *, run: str = "", note: str = "") -> None:
        """Move a schedule on to its next time; times that were missed meanwhile are one with this."""
        due_ms = schedule.next_ms
        next_ms = next_time(schedule.cron, schedule.tz)(max(due_ms, now_ms))
        place = (schedule.tenant, schedule.name)
        await self._store.schedules.fired(*place, due_ms=due_ms, next_ms=next_ms or due_ms, run=run, note=note)
        if not next_ms:
            await self._store.schedules.enable(*place, enabled=False, next_ms=due_ms)
