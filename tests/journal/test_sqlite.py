"""What is particular to the embedded store: its file, other processes, erasure from the file, backpressure."""

from __future__ import annotations

import asyncio
import hashlib
import random
import stat
from pathlib import Path

import apsw
import pytest

from stanchion.core.errors import ConfigError, StaleAppend
from stanchion.core.event import Event, ToolCallFinished
from stanchion.core.message import Label, ToolResult
from stanchion.journal.record import verify
from stanchion.journal.sqlite import SqliteStore, packing, writer
from stanchion.journal.store import Refused, Reserve
from stanchion.testing.store_driver import TENANT, Driver, said, words


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# --- the file -------------------------------------------------------------------------------------------------------------


async def test_the_file_is_its_owners(tmp_path: Path) -> None:
    """The database, its WAL and the driver's lock are readable by their owner only; missing folders are made."""
    path = tmp_path / "a" / "b" / "journal.db"
    store = await SqliteStore.open(path)
    await Driver.driving(store, "r1")
    assert await store.seize("w1")
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert modes == dict.fromkeys(("journal.db", "journal.db-wal", "journal.db-shm", "journal.db-driver"), 0o600)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    await store.aclose()
    assert sorted(files(path.parent)) == ["journal.db", "journal.db-driver"]


async def test_what_was_written_is_there_after_reopening(tmp_path: Path) -> None:
    """A closed store is opened again with everything in it."""
    store = await SqliteStore.open(tmp_path / "journal.db")
    driver = await Driver.driving(store, "r1")
    await driver.append(said("kept"))
    await store.aclose()
    store = await SqliteStore.open(str(tmp_path / "journal.db"))
    assert words(await store.read(TENANT, "r1")) == ["hello", "kept"]
    await store.aclose()


async def test_paths_that_cannot_be(tmp_path: Path) -> None:
    """A folder, a path below a file, another program's database: each an error that names the path."""
    (tmp_path / "file").write_text("x")
    foreign = apsw.Connection(str(tmp_path / "foreign.db"))
    foreign.execute("CREATE TABLE t (a)")
    foreign.close()
    for path, what in (
        (tmp_path, "is a folder"),
        (tmp_path / "file" / "x.db", "cannot be opened"),
        (tmp_path / "foreign.db", "another program"),
    ):
        with pytest.raises(ConfigError, match=what) as caught:
            await SqliteStore.open(path)
        assert str(path) in str(caught.value)


async def test_a_newer_schema_is_left_alone(tmp_path: Path) -> None:
    """A file of a newer version is refused with both versions and what to do."""
    path = tmp_path / "journal.db"
    await (await SqliteStore.open(path)).aclose()
    connection = apsw.Connection(str(path))
    connection.execute("PRAGMA user_version = 99")
    connection.execute("UPDATE meta SET value = 98 WHERE name = 'compatible_from'")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=r"schema 99 .* from schema 98 on can use; this one knows \d+: upgrade"):
        await SqliteStore.open(path)
    assert path.read_bytes() == before


async def test_a_newer_schema_that_only_adds_is_used(tmp_path: Path) -> None:
    """A newer program's file that says that this version may still use it is used, and keeps its version."""
    path = tmp_path / "journal.db"
    await (await SqliteStore.open(path)).aclose()
    connection = apsw.Connection(str(path))
    connection.execute("PRAGMA user_version = 99; CREATE TABLE theirs (a)")
    store = await SqliteStore.open(path)
    await (await Driver.driving(store, "r1")).end()
    await store.aclose()
    assert connection.pragma("user_version") == 99
    connection.close()


async def test_opened_by_many_at_once(tmp_path: Path) -> None:
    """A new file is made once, whoever comes first, and all can use it; so too when all close and open again."""

    async def use(file: Path, name: str) -> None:
        store = await SqliteStore.open(file)
        await Driver.driving(store, name)
        await store.aclose()

    for number in range(10):
        file = tmp_path / f"{number}.db"
        await asyncio.gather(*(use(file, f"r{user}") for user in range(4)))
        store = await SqliteStore.open(file)
        assert {row.run for row in await store.runs(TENANT)} == {"r0", "r1", "r2", "r3"}
        await store.aclose()


# --- other processes ------------------------------------------------------------------------------------------------------


async def test_another_process_is_seen(tmp_path: Path) -> None:
    """What another connection wrote is seen once; what the writer remembers of its rows is then read again."""
    mine = await SqliteStore.open(tmp_path / "journal.db")
    other = await SqliteStore.open(tmp_path / "journal.db")
    driver = await Driver.driving(mine, "r1")
    await driver.append(said("x"), status="waiting", release=True)
    assert await other.changed_elsewhere()
    assert not await mine.changed_elsewhere()
    await other.post(TENANT, "r1", "message", b"x")
    assert (await mine.changed_elsewhere(), await mine.changed_elsewhere()) == (True, False)
    await driver.append(status="waiting", release=True)
    assert (await driver.row()).status == "runnable"
    assert await other.claim(TENANT, "r1", worker="w2", lease_ms=1_000)
    with pytest.raises(StaleAppend):
        await driver.append(said("stale"))
    await mine.aclose()
    await other.aclose()


async def test_a_limit_set_elsewhere_holds(tmp_path: Path) -> None:
    """A ledger in the writer's memory is not used after another process has set its limit."""
    mine = await SqliteStore.open(tmp_path / "journal.db")
    other = await SqliteStore.open(tmp_path / "journal.db")
    driver = await Driver.driving(mine, "r1")
    assert await driver.append(reserve=(Reserve("tenant", 50),)) is None
    await other.set_limit(TENANT, "tenant", 60)
    assert await driver.append(reserve=(Reserve("tenant", 20),)) == Refused("tenant", 20, 10, hard=False)
    await mine.aclose()
    await other.aclose()


async def test_one_process_has_the_drivers_seat(tmp_path: Path) -> None:
    """The second to seize is refused until the first has closed; then leases of the first are void."""
    first = await SqliteStore.open(tmp_path / "journal.db")
    second = await SqliteStore.open(tmp_path / "journal.db")
    driver = await Driver.driving(first, "r1")
    assert await first.seize("w1")
    assert not await second.seize("w2")
    assert not await driver.is_runnable()
    await first.aclose()
    assert await second.seize("w2")
    assert [ref.run for ref in await second.runnable(limit=9)] == ["r1"]
    await second.aclose()


# --- erasure --------------------------------------------------------------------------------------------------------------


def secret(subject: str, number: int, chance: random.Random) -> Event:
    """Make an event whose every few bytes name their subject."""
    text = f"<{subject}:{number}>" * chance.choice((1, 5, 60, 120, 900))
    return ToolCallFinished(call="1.0", outcome="ok", parts=(ToolResult("id", "t", text, Label("tool")),))


async def test_erased_text_is_in_no_file(tmp_path: Path) -> None:
    """After a key was destroyed no byte of its text is left in the database or the WAL, however the pages had moved."""
    store = await SqliteStore.open(tmp_path / "journal.db")
    chance, subjects = random.Random(5), ["ann", "bob", "cid", "dan", "eve", "fay"]
    drivers = {subject: await Driver.driving(store, f"r {subject}", subject=subject) for subject in subjects}
    for number in range(60):
        for subject in chance.sample(subjects, 6):
            events = [secret(subject, number * 5 + n, chance) for n in range(5)]
            await drivers[subject].append(*events)
    for place, subject in enumerate(subjects[:-1]):
        assert any(f"<{subject}:".encode() in data for data in files(tmp_path).values()), "it was there"
        assert await store.destroy_key(TENANT, subject)
        found = [name for name, data in files(tmp_path).items() if f"<{subject}:".encode() in data]
        assert found == [], f"text of {subject} after its erasure"
        left = subjects[place + 1]
        assert len(words(await store.read(TENANT, f"r {left}"))) == 1
        salts = {key.id: key.salt for key in await store.keys(TENANT)}
        assert verify(TENANT, f"r {left}", await store.raw(TENANT, f"r {left}"), salts).erased == 0
        assert verify(TENANT, f"r {subject}", await store.raw(TENANT, f"r {subject}"), salts).erased == 301
    await store.aclose()


async def test_a_reader_only_delays_the_erasure_of_the_wal(tmp_path: Path) -> None:
    """While another process reads, the WAL cannot be cut; once it has ended, it is."""
    store = await SqliteStore.open(tmp_path / "journal.db")
    driver = await Driver.driving(store, "r1")
    await driver.append(said("<secret>"))
    reader = apsw.Connection(str(tmp_path / "journal.db"))
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM events").fetchall()
    assert await store.destroy_key(TENANT, "ann")
    assert b"<secret>" in files(tmp_path)["journal.db-wal"]
    reader.execute("COMMIT")
    await driver.append()
    assert not any(b"<secret>" in data for data in files(tmp_path).values())
    reader.close()
    await store.aclose()


async def test_equal_content_is_stored_once(tmp_path: Path) -> None:
    """The same text under one key lies in the file once, however often it was said."""
    store = await SqliteStore.open(tmp_path / "journal.db")
    for run in ("r1", "r2"):
        driver = await Driver.driving(store, run)
        for _ in range(5):
            await driver.append(said("<the same text>"), said("<the same text>"))
    await store.aclose()
    assert (tmp_path / "journal.db").read_bytes().count(b"<the same text>") == 1


# --- the writer -----------------------------------------------------------------------------------------------------------


async def test_a_full_queue_makes_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Above the bounds writes wait for room instead of failing, and all are written."""
    monkeypatch.setattr(writer, "LANE_JOBS", 4)
    monkeypatch.setattr(writer, "LANE_BYTES", 20_000)
    store = await SqliteStore.open(tmp_path / "journal.db")
    drivers = [await Driver.driving(store, f"r{number}") for number in range(60)]
    await asyncio.gather(*(driver.append(said("x" * 9_000)) for driver in drivers))
    assert {row.seq for row in await store.runs(TENANT, limit=100)} == {2}
    await store.aclose()


async def test_a_cancelled_writer_in_the_queue_takes_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who gives up waiting for room leaves it to the next."""
    monkeypatch.setattr(writer, "LANE_JOBS", 1)
    store = await SqliteStore.open(tmp_path / "journal.db")
    drivers = [await Driver.driving(store, f"r{number}") for number in range(6)]
    tasks = [asyncio.create_task(driver.append(said("x"))) for driver in drivers]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    for task in tasks[1::2]:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert list(results[::2]) == [None] * 3
    await asyncio.gather(*(driver.append(said("y")) for driver in drivers[::2]))
    await store.aclose()


async def test_who_waits_for_room_goes_in_the_order_of_arrival(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Later writes do not overtake those that wait."""
    monkeypatch.setattr(writer, "LANE_JOBS", 2)
    store = await SqliteStore.open(tmp_path / "journal.db")
    drivers = [await Driver.driving(store, f"r{number:02}") for number in range(12)]
    written: list[str] = []

    async def one(driver: Driver) -> None:
        await driver.append(said("x"))
        written.append(driver.run)

    await asyncio.gather(*(one(driver) for driver in drivers))
    assert written == sorted(written)
    await store.aclose()


def test_two_event_loops(tmp_path: Path) -> None:
    """Loops in two threads use one store; each gets its own results."""
    opened = asyncio.run(SqliteStore.open(tmp_path / "journal.db"))

    async def use(name: str) -> list[int]:
        drivers = [await Driver.driving(opened, f"{name}{number}") for number in range(10)]
        for _ in range(5):
            await asyncio.gather(*(driver.append(said(driver.run)) for driver in drivers))
        return [(await driver.row()).seq for driver in drivers]

    async def both() -> None:
        seqs = await asyncio.gather(*(asyncio.to_thread(asyncio.run, use(name)) for name in "ab"))
        assert seqs == [[6] * 10] * 2
        await opened.aclose()

    asyncio.run(both())


# --- packing --------------------------------------------------------------------------------------------------------------


def test_dictionary_1_never_changes() -> None:
    """Envelopes packed by the first release are read for ever."""
    envelope = (
        b'{"seq":7,"at_ms":1795213788000,"epoch":1,"event":{"type":"tool_call_started","call":"5.0","attempt":1}}'
    )
    packed = bytes.fromhex("01830a992309599a1a191a9b5b58181818e8e0c9e978e2c6142d726a6b01")
    assert packing.unpack(packed) == envelope
    assert packing.unpack(packing.pack(envelope)) == envelope
    assert hashlib.sha256(packing._DICTIONARY_1).hexdigest() == (
        "fc55a3890c2d38da5b0fd9081cbfd9977aad8a69b1a370f9f225280cb2eef679"
    )


@pytest.mark.parametrize("seed", range(3))
def test_packing_gives_back_every_byte(seed: int) -> None:
    """Anything that goes in comes out; damaged bytes never raise."""
    chance = random.Random(seed)
    for size in (0, 1, 30, 300, 5_000, 100_000):
        envelope = b"{" + bytes(chance.choices(b'abc",:{}0123456789', k=size))
        packed = packing.pack(envelope)
        assert packing.unpack(packed) == envelope
        assert len(packed) <= len(envelope)
    for _ in range(2_000):
        packing.unpack(b"\x01" + chance.randbytes(chance.randint(0, 60)))
