"""Many processes on one database: limits hold, one wins, chains stay whole, and nobody waits for ever."""

from __future__ import annotations

import asyncio
import random

import asyncpg

from stanchion.core.errors import StaleAppend
from stanchion.journal.postgres import PostgresStore
from stanchion.journal.record import verify
from stanchion.journal.store import Reserve, Settle, Started
from stanchion.testing.store_driver import TENANT, Driver, said
from tests.journal.scaled import directly, opened
from tests.waiting import until


async def test_a_limit_holds_across_processes(dsn: str) -> None:
    """Three stores reserve and settle at once on two ledgers: what is accepted is exactly what fits, at every moment."""
    async with opened(dsn, dsn, dsn) as stores, directly(dsn) as connection:
        await stores[0].set_limit(TENANT, "tenant/day", 1_000)
        name = "tenant/day:2026-11-20"
        drivers = [await Driver.driving(stores[number % 3], f"r{number:02}") for number in range(60)]

        async def spend(driver: Driver) -> int:
            spent = 0
            for _ in range(5):
                wishes = (Reserve("tenant", 10), Reserve(name, 10))
                if await driver.append(said("x"), reserve=wishes) is None:
                    row = await connection_lock(connection, name)
                    assert row[0] + row[1] <= 1_000
                    await driver.append(settle=(Settle(name, 10, 7), Settle("tenant", 10, 7)))
                    spent += 7
            return spent

        lock = asyncio.Lock()

        async def connection_lock(connection: asyncpg.Connection, ledger: str) -> tuple[int, int]:
            async with lock:
                row = await connection.fetchrow("SELECT settled, reserved FROM ledgers WHERE ledger = $1", ledger)
            assert row is not None
            return row[0], row[1]

        spent = sum(await asyncio.gather(*(spend(driver) for driver in drivers)))
        ledger = {ledger.ledger: ledger for ledger in await stores[1].ledgers(TENANT)}[name]
        assert (ledger.settled, ledger.reserved, ledger.closed) == (spent, 0, False)
        assert 990 < spent <= 1_000


async def test_one_of_many_processes_wins(dsn: str) -> None:
    """Racing starts in one session, racing starts under one key, racing claims: one process each."""
    async with opened(dsn, dsn, dsn) as stores:
        drivers = [await Driver.make(store, f"r{n}", session="s") for n, store in enumerate(stores * 4)]
        results = await asyncio.gather(*(driver.start() for driver in drivers))
        assert sum(isinstance(result, Started) for result in results) == 1
        drivers = [await Driver.make(store, f"k{n}", session=f"k{n}") for n, store in enumerate(stores * 4)]
        calls = (driver.start(idempotency_key="k", idempotency_digest="d") for driver in drivers)
        results = await asyncio.gather(*calls)
        assert len({result.run for result in results}) == 1
        assert sum(not result.existing for result in results) == 1
        driver = await Driver.started(stores[0], "claimed")
        claims = (store.claim(TENANT, "claimed", worker=f"w{n}", lease_ms=9_000) for n, store in enumerate(stores * 4))
        won = [claim for claim in await asyncio.gather(*claims) if claim]
        assert [claim.epoch for claim in won] == [1]
        assert (await driver.row()).worker in {f"w{n}" for n in range(12)}


async def test_two_drivers_of_one_run_leave_one_chain(dsn: str) -> None:
    """Workers that claim the run from each other and append at once leave a gapless chain that verifies."""
    async with opened(dsn, dsn) as stores:
        first = await Driver.started(stores[0], "r1")
        written = stale = 0

        async def drive(store: PostgresStore) -> None:
            nonlocal written, stale
            for _ in range(30):
                entries = await store.read(TENANT, "r1")
                mine = await Driver.make(store, "r1")
                mine.recorder.seq, mine.recorder.hash, mine.recorder.at_ms = len(entries), entries[-1].hash, 0
                claim = await store.claim(TENANT, "r1", worker="both", lease_ms=1_000)
                assert claim is not None
                mine.epoch = claim.epoch
                try:
                    await mine.append(said("a"), said("b"))
                    written += 1
                except StaleAppend:
                    stale += 1

        await asyncio.gather(*(drive(store) for store in stores))
        salts = {key.id: key.salt for key in await stores[0].keys(TENANT)}
        records = await stores[0].raw(TENANT, "r1")
        assert verify(TENANT, "r1", records, salts).events == 1 + 2 * written == (await first.row()).seq
        assert written + stale == 60
        assert written


async def test_crossing_groups_all_end(dsn: str) -> None:
    """Sessions, queues and ledgers crossed between processes: nobody fails, whatever order the locks were taken in."""
    async with opened(dsn, dsn) as stores:
        chance = random.Random(7)

        async def live(store: PostgresStore, run: str, session: str) -> None:
            driver = await Driver.make(store, run, session=session)
            await driver.start(queued=True, request=b"{}")
            await store.post(TENANT, run, "message", b"x")
            names = chance.sample(["tenant", "user:ann", "all"], 3)
            await until(lambda: store.claim(TENANT, run, worker="w", lease_ms=60_000))
            driver.epoch = 1
            await driver.append(said("x"), reserve=tuple(Reserve(name, 1) for name in names))
            read = tuple(item.id for item in await store.inbox(TENANT, run))
            await driver.end(settle=tuple(Settle(name, 1, 1) for name in names), inbox_done=read)

        lives = [live(stores[n % 2], f"r{n}", f"s{n % 5}") for n in range(60)]
        await asyncio.gather(*lives)
        rows = await stores[0].runs(TENANT, limit=100)
        assert {row.status for row in rows} == {"ended"}
        assert {ledger.settled for ledger in await stores[0].ledgers(TENANT)} == {60}
        sessions = await stores[0].sessions(TENANT)
        assert {(session.live, session.runs) for session in sessions} == {("", 12)}
