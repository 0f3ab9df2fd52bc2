"""What a write may be, how it waits for its turn, and that erased content stays erased."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from stanchion.core.errors import InputError, JournalError, StoreFull
from stanchion.journal.postgres import lane
from stanchion.journal.postgres.errors import translate
from stanchion.testing.store_driver import TENANT, Driver, said, words
from tests.journal.scaled import directly, opened


async def test_a_write_that_cannot_be_fails_alone(dsn: str) -> None:
    """A name that PostgreSQL will not take fails its own write, and the others of its group are made."""
    async with opened(dsn) as (store,):
        drivers = [await Driver.driving(store, f"r{number}") for number in range(5)]
        bad = store.post(TENANT, "nul \x00", "message", b"x")
        results = await asyncio.gather(bad, *(driver.append(said("x")) for driver in drivers), return_exceptions=True)
        assert isinstance(results[0], InputError)
        assert results[1:] == [None] * 5


def test_errors_say_what_to_do() -> None:
    """The failures of a database that callers act on are told apart."""
    assert isinstance(translate(asyncpg.DiskFullError("could not extend file"), "db"), StoreFull)
    for error, text, retryable in (
        (asyncpg.TooManyConnectionsError("sorry"), "no connection left", True),
        (asyncpg.QueryCanceledError("statement timeout"), "waited too long", True),
        (asyncpg.ReadOnlySQLTransactionError("read-only"), "takes no writes", True),
        (asyncpg.DataCorruptedError("bad page"), "is damaged", False),
        (ConnectionResetError("reset"), "was lost", True),
        (asyncpg.SyntaxOrAccessError("?"), "the store failed", False),
    ):
        said = translate(error, "db")
        assert (text in str(said), said.retryable) == (True, retryable), said


async def test_a_full_queue_makes_wait(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Above the bounds writes wait for room instead of failing, and all are written, in the order of arrival."""
    monkeypatch.setattr(lane, "LANE_JOBS", 4)
    monkeypatch.setattr(lane, "LANE_BYTES", 20_000)
    async with opened(dsn) as (store,):
        drivers = [await Driver.driving(store, f"r{number}") for number in range(40)]
        await asyncio.gather(*(driver.append(said("x" * 9_000)) for driver in drivers))
        assert {row.seq for row in await store.runs(TENANT, limit=100)} == {2}


async def test_a_closed_store_says_so(dsn: str) -> None:
    """What was waiting is written before it closes; what comes later is refused."""
    async with opened(dsn) as (store,):
        driver = await Driver.driving(store, "r1")
        last = asyncio.create_task(driver.append(said("last")))
        while driver.recorder.seq < 2:  # noqa: ASYNC110  (until it is on its way, and no longer)
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        await store.aclose()
        assert await last is None
        with pytest.raises(JournalError, match="is closed"):
            await store.append(driver.of([], 2, 1))
        with pytest.raises(JournalError, match="is closed"):
            await store.runs(TENANT)


async def test_no_content_outlives_its_key(dsn: str) -> None:
    """Keys are destroyed while drivers go on to write under them: nothing of theirs is left in the database."""
    async with opened(dsn, dsn) as stores, directly(dsn) as connection:
        drivers = [await Driver.driving(stores[n % 2], f"r{n}", subject=f"user {n % 4}") for n in range(12)]

        written, amid = 0, [asyncio.Event() for _ in range(3)]

        async def write(driver: Driver) -> None:
            nonlocal written
            for number in range(12):
                await driver.append(said(f"{driver.run} {number}"))
                written += 1
                if written % 36 == 18:
                    amid[min(written // 36, 2)].set()

        async def erase() -> None:
            for number, moment in enumerate(amid):
                await moment.wait()
                assert await stores[1].destroy_key(TENANT, f"user {number}")

        await asyncio.gather(erase(), *(write(driver) for driver in drivers))
        left = "SELECT count(*) FROM contents c WHERE NOT EXISTS (SELECT FROM keys k WHERE k.no = c.key)"
        assert await connection.fetchval(left) == 0
        assert await connection.fetchval("SELECT count(*) FROM erasing") == 0
        assert len(words(await stores[0].read(TENANT, "r3"))) == 13
        assert words(await stores[0].read(TENANT, "r0")) == []


async def test_an_erasure_cut_short_is_finished(dsn: str) -> None:
    """A process that died between destroying a key and deleting its content leaves the rest to the next that starts."""
    async with opened(dsn) as (store,), directly(dsn) as connection:
        await Driver.driving(store, "r1")
        await connection.execute("WITH gone AS (DELETE FROM keys RETURNING no) INSERT INTO erasing SELECT no FROM gone")
        assert await connection.fetchval("SELECT count(*) FROM contents") == 1
        async with opened(dsn):
            assert await connection.fetchval("SELECT count(*) FROM contents") == 0
