"""A budget in shards comes to its line where no process sees it alone: it is told all the same, and once."""

from __future__ import annotations

import asyncio

from stanchion.journal.outbox import Endpoint, Secrets
from stanchion.journal.postgres import PostgresStore
from stanchion.journal.store import Reserve, Settle
from stanchion.runtime.money.watching import Watcher
from stanchion.testing.clock import FakeClock
from stanchion.testing.store_driver import TENANT, Driver
from tests.journal.scaled import directly, opened

LIMIT = 1_000_000_000
PROCESSES = 4


async def spend(store: PostgresStore, run: str, amount: int) -> None:
    """Spend on a ledger by a process of its own."""
    driver = await Driver.driving(store, run)
    assert await driver.append(reserve=(Reserve("tenant", amount),)) is None
    assert await driver.append(settle=(Settle("tenant", amount, amount),)) is None


async def test_lines_that_no_shard_alone_has_crossed_are_told_once(dsn: str) -> None:
    """Four processes spend 15 % each: each has a shard far below half; the sum is above it. All four look at once, twice."""
    async with opened(*[dsn] * PROCESSES) as stores:
        endpoint = Endpoint(tenant=TENANT, id="hook", url="http://127.0.0.1:9/x", lane="t/hook", secrets=Secrets("s"))
        await stores[0].outbox.add(endpoint)
        await stores[0].set_limit(TENANT, "tenant", LIMIT)
        for number, store in enumerate(stores):
            await spend(store, f"r{number}", LIMIT * 15 // 100)
        async with directly(dsn) as connection:
            shards = await connection.fetch("SELECT settled FROM ledger_shards WHERE ledger = 'tenant'")
        assert len(shards) > 1
        assert all(row[0] < LIMIT // 2 for row in shards)
        watchers = [Watcher(store, FakeClock()) for store in stores]
        for expected in (1, 0):
            assert sum(await asyncio.gather(*(each.look() for each in watchers))) == expected
        await spend(stores[0], "r9", LIMIT * 40 // 100)
        later = [Watcher(store, FakeClock()) for store in stores]  # they know nothing of what was told
        assert sum(await asyncio.gather(*(each.look() for each in later))) == 2
        assert sorted(alert.line for alert in await stores[1].alerts.told(TENANT)) == ["100", "50", "80"]
        assert len(await stores[2].outbox.deliveries(TENANT)) == 3
