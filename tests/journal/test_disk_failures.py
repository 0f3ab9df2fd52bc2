"""A disk that is full or fails: the append fails whole and says what to do, and the store goes on when it can."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from stanchion.core.errors import CommitUnknown, ConfigError, JournalError, StoreFull
from stanchion.journal.record import verify
from stanchion.journal.sqlite import SqliteStore
from stanchion.testing.store_driver import TENANT, Driver, said
from tests.journal.disk import Disk


@pytest.fixture
def disk(request: pytest.FixtureRequest) -> Disk:
    """A disk of the test's own."""
    return Disk(f"disk of {request.node.name}")


@pytest.fixture
async def store(disk: Disk, tmp_path: Path) -> AsyncIterator[SqliteStore]:
    """A store on that disk."""
    store = await SqliteStore.open(tmp_path / "journal.db", vfs=disk.name)
    yield store
    await store.aclose()


async def events(store: SqliteStore, run: str) -> int:
    """Verify a run; return its events."""
    salts = {key.id: key.salt for key in await store.keys(TENANT)}
    found = verify(TENANT, run, await store.raw(TENANT, run), salts)
    row = await store.run(TENANT, run)
    assert row is not None
    assert (row.seq, row.hash) == (found.events, found.head)
    return found.events


@pytest.mark.parametrize("room", [0, 5_000, 9_000])
async def test_a_full_disk(store: SqliteStore, disk: Disk, room: int) -> None:
    """However little room is left, the append fails whole as StoreFull; with room again the same append goes on."""
    driver = await Driver.driving(store, "r1")
    disk.room = room
    with pytest.raises(StoreFull, match="free space") as caught:
        await driver.append(*(said(f"{number} " * 900) for number in range(6)))
    assert caught.value.retryable
    assert await events(store, "r1") == 1
    with pytest.raises(StoreFull):
        await driver.append(said("again" * 5_000))
    disk.room = None
    assert await driver.append(said("at last")) is None
    assert await events(store, "r1") == 2


async def test_a_full_disk_fails_nobody_else_later(store: SqliteStore, disk: Disk) -> None:
    """Everything waiting is answered while the disk is full, and all runs go on afterwards."""
    drivers = [await Driver.driving(store, f"r{number}") for number in range(20)]
    disk.room = 20_000
    results = await asyncio.gather(*(driver.append(said("x" * 4_000)) for driver in drivers), return_exceptions=True)
    assert {type(result) for result in results} <= {StoreFull, type(None)}
    assert StoreFull in {type(result) for result in results}
    disk.room = None
    for driver in drivers:
        assert await driver.append(said("y")) is None
    written = [await events(store, driver.run) for driver in drivers]
    assert written == [2 if isinstance(result, StoreFull) else 3 for result in results]


async def test_a_sync_that_fails(store: SqliteStore, disk: Disk) -> None:
    """It is not known whether the commit was made: that is said, and reading again tells where the run stands."""
    driver = await Driver.driving(store, "r1")
    disk.sync_fails = True
    with pytest.raises(CommitUnknown, match="reading again"):
        await driver.append(said("maybe"))
    disk.sync_fails = False
    written = await events(store, "r1")
    assert written == 1
    assert await driver.append(said("surely")) is None
    assert await events(store, "r1") == 2


async def test_a_database_at_its_size_limit(tmp_path: Path) -> None:
    """A database that may not grow is full like a disk, and goes on when it may."""
    store = await SqliteStore.open(tmp_path / "journal.db")
    driver = await Driver.driving(store, "r1")
    await store._writer.write(lambda unit: unit.connection.execute("PRAGMA max_page_count = 1").fetchall(), looks=True)
    with pytest.raises(StoreFull):
        await driver.append(*(said(f"{number} " * 2_000) for number in range(20)))
    await store._writer.write(
        lambda unit: unit.connection.execute("PRAGMA max_page_count = 4294967294").fetchall(), looks=True
    )
    assert await driver.append(said("goes on")) is None
    assert await events(store, "r1") == 2
    await store.aclose()


async def test_a_spoilt_write_fails_alone(tmp_path: Path) -> None:
    """What cannot be written for a reason of its own does not take its group with it."""
    store = await SqliteStore.open(tmp_path / "journal.db")
    drivers = [await Driver.driving(store, f"r{number}") for number in range(10)]
    spoilt = store._writer.write(lambda unit: unit.connection.execute("INSERT INTO meta VALUES (NULL, 1)"))
    calls = [driver.append(said("x")) for driver in drivers]
    results = await asyncio.gather(*calls[:5], spoilt, *calls[5:], return_exceptions=True)
    assert isinstance(results.pop(5), JournalError)
    assert results == [None] * 10
    assert [await events(store, driver.run) for driver in drivers] == [2] * 10
    await store.aclose()


async def test_a_dead_writer_fails_everything(tmp_path: Path) -> None:
    """If the writer's thread ends, what waits and what comes fails; nothing hangs."""
    store = await SqliteStore.open(tmp_path / "journal.db")
    driver = await Driver.driving(store, "r1")
    calls = (store._writer.write(lambda _: sys.exit(3)), driver.append(said("x")))
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert {(type(result), getattr(result, "code", "")) for result in results} == {(JournalError, "journal_stopped")}
    with pytest.raises(JournalError, match="restart"):
        await driver.append(said("y"))
    await store.aclose()


async def test_a_closed_store_says_so(tmp_path: Path) -> None:
    """After closing, reads and writes fail at once; what was waiting was written."""
    store = await SqliteStore.open(tmp_path / "journal.db")
    driver = await Driver.driving(store, "r1")
    last = asyncio.create_task(driver.append(said("last")))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await store.aclose()
    await last
    for call in (driver.append(said("x")), store.read(TENANT, "r1")):
        with pytest.raises(JournalError, match="closed"):
            await call
    again = await SqliteStore.open(tmp_path / "journal.db")
    assert await events(again, "r1") == 2
    await again.aclose()


async def test_damage_is_named(tmp_path: Path) -> None:
    """A file with overwritten pages is an error that names the file, `stanchion verify` and a backup."""
    path = tmp_path / "journal.db"
    await (await SqliteStore.open(path)).aclose()
    tables = path.stat().st_size // 4096  # these pages are the schema's and the roots of the tables
    store = await SqliteStore.open(path)
    driver = await Driver.driving(store, "r1")
    await driver.append(*(said(f"{number}" * 5_000) for number in range(100)))
    await store.aclose()
    damaged = bytearray(path.read_bytes())
    assert len(damaged) > 2 * tables * 4096
    for page in range(tables, len(damaged) // 4096):
        damaged[page * 4096 : page * 4096 + 100] = b"\xee" * 100
    path.write_bytes(damaged)
    store = await SqliteStore.open(path)
    with pytest.raises(JournalError, match="stanchion verify") as caught:
        await store.read(TENANT, "r1")
    assert caught.value.code == "journal_corrupt"
    assert str(path) in str(caught.value)
    await store.aclose()
    path.write_bytes(b"no database at all " * 1_000)
    with pytest.raises(ConfigError, match="not a SQLite database"):
        await SqliteStore.open(path)
