"""Processes hear what others wrote."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from stanchion.journal.postgres import PostgresStore
from stanchion.journal.store import Change
from stanchion.testing.store_driver import TENANT, Driver, said
from tests.journal.scaled import cut, opened


class Ears:
    """Hears what others wrote."""

    def __init__(self, store: PostgresStore) -> None:
        self.heard: list[Sequence[Change] | None] = []
        self._some = asyncio.Event()
        assert store.listen(self._hear)

    def _hear(self, changes: Sequence[Change] | None) -> None:
        self.heard.append(changes)
        self._some.set()

    async def until(self, run: str | None) -> Change | None:
        """Wait until a run was heard of (None: that anything may have changed); forget it all."""
        async with asyncio.timeout(10):
            while True:
                for changes in self.heard:
                    if changes is None:
                        if run is None:
                            self.heard.clear()
                            return None
                        continue
                    for change in changes:
                        if change.run == run:
                            self.heard.clear()
                            return change
                self._some.clear()
                await self._some.wait()

    async def until_all(self, runs: set[str]) -> None:
        """Wait until all these runs were heard of."""
        async with asyncio.timeout(10):
            while not runs <= {change.run for changes in self.heard for change in changes or ()}:
                self._some.clear()
                await self._some.wait()


async def test_others_hear_of_it(dsn: str) -> None:
    """Every append and post is heard of by the others, with its seq and whether a driver is wanted; never by oneself."""
    async with opened(dsn, dsn) as (mine, other):
        ears, own = Ears(other), Ears(mine)
        driver = await Driver.started(mine, "r1")
        assert await ears.until("r1") == Change(TENANT, "r1", 1, wanted=True)
        await driver.claim()
        await driver.append(said("x"), said("y"), status="waiting", release=True)
        assert await ears.until("r1") == Change(TENANT, "r1", 3, wanted=False)
        await mine.post(TENANT, "r1", "message", b"x")
        assert await ears.until("r1") == Change(TENANT, "r1", 3, wanted=True)
        assert await other.changed_elsewhere()
        assert (await other.changed_elsewhere(), await mine.changed_elsewhere(), own.heard) == (False, False, [])


async def test_many_runs_are_heard_of(dsn: str) -> None:
    """More runs than one ring holds, with names of any kind, are all heard of."""
    async with opened(dsn, dsn) as (mine, other):
        ears = Ears(other)
        drivers = [await Driver.make(mine, f'"{number}\\ä' * 20) for number in range(100)]
        await asyncio.gather(*(driver.start() for driver in drivers))
        await ears.until_all({driver.run for driver in drivers})


async def test_a_lost_line_is_set_up_again(dsn: str) -> None:
    """After its connection was cut a listener is told that anything may have changed, and hears again."""
    async with opened(dsn, dsn) as (mine, other):
        ears = Ears(other)
        assert await cut(dsn, "line") >= 2
        await ears.until(None)
        await Driver.started(mine, "r1")
        while (await asyncio.wait_for(ears.until("r1"), 5)) is None:
            pass
        assert abs(mine.clock_ms() - await mine.now_ms()) < 100
