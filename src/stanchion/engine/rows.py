"""The engine that needs nothing but the store: its rows, its news, and the time at which the next row is due.

It looks at the start, when told, when something is due, when another process's news says that a driver is wanted, and
otherwise every half second. So what was never told is found all the same, a lost worker's runs among it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence

from stanchion.core.errors import JournalError
from stanchion.engine.clock import Clock
from stanchion.engine.port import Driver
from stanchion.journal.store import Change, Store

log = logging.getLogger("stanchion.engine")

OVERDUE_S = 0.05
"""How soon it looks again at what was due already when it looked."""
LOOK_GAP_S = 0.02
"""The least time between two looks for what is runnable: what comes in between is found together."""
SPREAD_S = 0.02
"""Over what time workers spread their look at a run that all of them heard of."""
SWEEP_S = 0.5
"""How often rows that another process wrote are looked for."""


class RowsEngine:
    """Looks at the rows of runs when there is a reason to, and now and then without one."""

    def __init__(self, store: Store, clock: Clock, *, sweep_s: float = SWEEP_S) -> None:
        self._store = store
        self._clock = clock
        self._sweep_s = sweep_s
        self._driver: Driver | None = None
        self._now = asyncio.Event()
        self._listens = False
        self._sweeper: asyncio.Task[None] | None = None

    async def open(self, driver: Driver) -> None:
        """Begin."""
        self._driver = driver
        self._listens = self._store.listen(self._heard)
        self._now.set()
        self._sweeper = asyncio.create_task(self._sweep(driver), name="stanchion-sweeper")

    def hint(self, tenant: str, run: str) -> None:
        """Activate a run here: who was told of it is as good as any other worker."""
        if self._driver is not None:
            self._driver.activate(tenant, run)

    def look(self) -> None:
        """Look now."""
        self._now.set()

    async def aclose(self) -> None:
        """Look no more."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._sweeper

    async def _sweep(self, driver: Driver) -> None:
        """Take up whatever is runnable and nobody drives: at the start, when something is due, and when told."""
        while True:
            self._now.clear()
            looked_s = asyncio.get_running_loop().time()
            try:
                await driver.take_ready()
                if not self._listens and await self._store.changed_elsewhere():
                    driver.poke_all()
                due_ms = await self._store.next_wake_ms()
            except JournalError as error:
                log.error("the sweeper could not read the store: %s", error)
                due_ms = 0
            except Exception:  # without a sweeper nothing would ever be taken up again
                log.exception("the sweeper failed; it goes on")
                due_ms = 0
            await self._until(due_ms)
            await asyncio.sleep(looked_s + LOOK_GAP_S - asyncio.get_running_loop().time())

    async def _until(self, due_ms: int) -> None:
        wait_s = self._sweep_s
        if due_ms:  # what is overdue was taken up just now, or there is no room for it: no reason to spin
            left_s = (due_ms - self._clock.now_ms()) / 1000
            wait_s = min(wait_s, left_s if left_s > 0 else OVERDUE_S)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._now.wait()

    def _heard(self, changes: Sequence[Change] | None) -> None:
        """Another process wrote: poke whoever drives one of these runs here, and look for those nobody drives."""
        if self._driver is None:
            return
        if changes is None:
            self._driver.poke_all()
            self._now.set()
            return
        for change in changes:
            if not self._driver.poke(change.tenant, change.run) and change.wanted:
                # All workers hear it; who looks first has it, and the others find it leased.
                asyncio.get_running_loop().call_later(self._clock.draw() * SPREAD_S, self._now.set)
