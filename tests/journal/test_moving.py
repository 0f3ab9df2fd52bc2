"""Sessions move between stores of every kind: byte for byte, once, whole, and never driven in two places."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import apsw
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanchion import Agent, Approve, Runtime, tool
from stanchion.core.errors import BrokenChain, Conflict, InputError, NotFound, StanchionError
from stanchion.core.message import text_of
from stanchion.journal import queries
from stanchion.journal.archive import VERSION, ArchiveReader, check_session
from stanchion.journal.moving import MovedSession
from stanchion.journal.sqlite import SqliteStore
from stanchion.journal.sqlite.schema import APPLICATION_ID
from stanchion.journal.store import Key, Ledger, Store
from stanchion.runtime.opening.store import open_store
from stanchion.runtime.operating.moving import Exported, Exporting, Left, Selection, export, restore
from stanchion.testing import ScriptedModel, call
from stanchion.testing.memory import MemoryStore
from stanchion.testing.store_driver import TENANT, Driver, said

EVERYTHING = Selection(everything=True)
WITNESS: list[str] = []


@tool(effect="write", timeout_s=5)
async def book(room: str, *, key: str) -> str:
    """Book a room."""
    WITNESS.append(f"{room} {key}")
    return f"booked {room}"


@asynccontextmanager
async def opened(*places: str | Path) -> AsyncIterator[list[Store]]:
    """Open stores, and close them."""
    stores = [(await open_store(place, None))[0] for place in places]
    try:
        yield stores
    finally:
        for store in stores:
            await store.aclose()


async def talk(store: Store, session: str, runs: int = 2, *, user: str = "ann") -> None:
    """Have a session of some runs that are over."""
    base = None
    for number in range(runs):
        driver = await Driver.make(store, f"{session}-{number}", session=session, subject=user)
        await driver.start(base=base, user=user, idempotency_key=f"key of {driver.run}", idempotency_digest="d")
        await driver.claim()
        await driver.append(said(f"hello {number}"), said("ünïcode \x00 \U0001f600"))
        base = await driver.end(cost=5)


async def written(store: Store, wanted: Selection = EVERYTHING, **how: bool) -> tuple[bytes, Exported]:
    """Export into memory."""
    out = io.BytesIO()
    told = await export(store, TENANT, out, wanted, Exporting(**how))
    return out.getvalue(), told


def held(data: bytes) -> list[MovedSession]:
    """Read the sessions of a file."""
    return [part for part in ArchiveReader(io.BytesIO(data)).read() if isinstance(part, MovedSession)]


def body(data: bytes) -> bytes:
    """What must be the same in every export of the same sessions: all but the time in the first line, and the digest."""
    return b"\n".join(data.split(b"\n")[1:-2])


# --- round trips ------------------------------------------------------------------------------------------------------------


async def test_from_file_to_database_and_back(tmp_path: Path, dsn: str) -> None:
    """SQLite to PostgreSQL to another file and into memory: each export is the first one, byte for byte."""
    async with opened(tmp_path / "a.db", dsn, tmp_path / "b.db") as (one, two, three):
        for number in range(5):
            await talk(one, f"s{number}", runs=number + 1, user=f"user{number % 2}")
        first, told = await written(one)
        assert (told.sessions, told.runs, told.left, told.let_go) == (5, 15, (), ())
        data = first
        for target in (two, three, MemoryStore()):
            said_ = await restore(target, io.BytesIO(data))
            assert (said_.added, said_.known, said_.runs) == (5, 0, 15)
            data, _ = await written(target)
            assert body(data) == body(first)
            again = await restore(target, io.BytesIO(data))
            assert (again.added, again.known) == (0, 5)
            assert body((await written(target))[0]) == body(first)


async def test_a_thousand_runs(tmp_path: Path, dsn: str) -> None:
    """1,000 runs go into the database, compressed, and all of them verify there."""
    file = tmp_path / "runs.stx.gz"
    async with opened(tmp_path / "a.db", dsn) as (one, two):
        await asyncio.gather(*(talk(one, f"s{n:03}", runs=10) for n in range(100)))
        steps: list[tuple[int, int]] = []
        told = await export(one, TENANT, file, EVERYTHING, progress=lambda *at: steps.append(at))
        assert (told.sessions, told.runs, told.events) == (100, 1_000, 4_000)
        assert (len(steps), steps[-1]) == (100, (100, 4_000))
        restored = await restore(two, file)
        assert (restored.added, restored.runs) == (100, 1_000)
        runtime = await Runtime.open(store=two, drive=False)
        checked = [found async for found in runtime.verify(tenant=TENANT)]
        assert (len(checked), {found.error for found in checked}) == (1_000, {""})


async def test_selections(tmp_path: Path) -> None:
    """A run brings its session; a session, an agent and everything are what they say; nothing else is in the file."""
    async with opened(tmp_path / "a.db") as (store,):
        await talk(store, "s1")
        await talk(store, "s2")
        driver = await Driver.make(store, "sales-1", session="s3")
        await driver.start(agent="sales")
        await driver.claim()
        await driver.end()
        for wanted, sessions in (
            (Selection(runs=("s1-1", "s1-0")), ["s1"]),
            (Selection(runs=("s2-0", "s1-1")), ["s2", "s1"]),
            (Selection(session="s2"), ["s2"]),
            (Selection(agent="sales"), ["s3"]),
            (EVERYTHING, ["s1", "s2", "s3"]),
        ):
            found = held((await written(store, wanted))[0])
            assert [moved.row.session for moved in found if moved.row] == sessions
            assert all(len(moved.runs) == (1 if moved.row and moved.row.session == "s3" else 2) for moved in found)
        for nothing in (Selection(runs=("none",)), Selection(session="none")):
            with pytest.raises(NotFound, match="there is no"):
                await written(store, nothing)


async def test_budgets_come_along(tmp_path: Path, dsn: str) -> None:
    """Limits are set where none is, what was spent is carried over once, and what is set there stays."""
    async with opened(tmp_path / "a.db", dsn) as (one, two):
        await one.set_limit(TENANT, "tenant/day", 500)
        await one.set_limit(TENANT, "user:ann", 300)
        await one.moving.carry_over(Ledger(TENANT, "tenant/day:2026-11-20", 500, 70, 0, closed=False))
        await two.set_limit(TENANT, "user:ann", 100)
        data, told = await written(one, budgets=True)
        assert told.ledgers == 2
        assert [(await restore(two, io.BytesIO(data))).ledgers for _ in range(2)] == [1, 0]
        rows = {row.ledger: (row.limit, row.settled) for row in await two.ledgers(TENANT)}
        assert rows == {"tenant/day:2026-11-20": (500, 70), "user:ann": (100, 0)}


# --- what goes on -----------------------------------------------------------------------------------------------------------


def _agent() -> Agent:
    return Agent(
        name="desk", identity="Book rooms.", tools=(book,), model="openai:gpt-5.2", approvals=[Approve(effect="write")]
    )


def _model() -> ScriptedModel:
    def reply(request):  # type: ignore[no-untyped-def]
        last = request.messages[-1]
        asked = text_of(last.parts) if last.role == "user" else ""
        return call("book", room="12") if asked.startswith("book") else f"Said {len(request.messages)} messages."

    return ScriptedModel(reply)


async def test_a_conversation_goes_on_in_the_database(tmp_path: Path, dsn: str) -> None:
    """The next run of a moved session stands on what was said before it, and everything verifies."""
    async with await Runtime.open(_agent(), data=tmp_path / "a.db", clients={"*": _model()}) as here:
        for text in ("hello", "again"):
            started = await here.start("desk", text, session="s", user="ann")
            await here.wait(started.run, timeout_s=20)
        await here.export(tmp_path / "runs.stx", EVERYTHING)
    async with await Runtime.open(_agent(), data=dsn, clients={"*": _model()}) as there:
        assert (await there.restore(tmp_path / "runs.stx")).added == 1
        started = await there.start("desk", "and here", session="s", user="ann")
        view = await there.wait(started.run, timeout_s=20)
        assert (view.outcome, view.text) == ("done", "Said 5 messages.")
        assert [found.error async for found in there.verify()] == ["", "", ""]


async def test_a_run_that_waits_is_moved_and_done_once(tmp_path: Path, dsn: str) -> None:
    """A run that waits for a person is approved where it was moved to; where it came from nobody can."""
    WITNESS.clear()
    data = tmp_path / "a.db"
    async with await Runtime.open(_agent(), data=data, clients={"*": _model()}) as here:
        run = (await here.start("desk", "book a room", session="s")).run
        waiting = (await here.wait(run, timeout_s=20)).waiting
        with pytest.raises(Conflict, match="--live"):
            await here.export(tmp_path / "no.stx", Selection(runs=(run,)))
        assert (await here.export(tmp_path / "none.stx", EVERYTHING)).left == (Left("s", run, "waiting"),)
        told = await here.export(tmp_path / "runs.stx", EVERYTHING, live=True)
        assert told.let_go == (run,)
        with pytest.raises(Conflict, match="moved to another store"):
            await here.decide(run, waiting[0].call, "approve")
        with pytest.raises(Conflict, match="moved to another store"):
            await here.revive(run)
        for if_busy in ("reject", "queue"):
            with pytest.raises(Conflict, match="session: it was moved to another store with its live run"):
                await here.start("desk", "more", session="s", if_busy=if_busy)
        assert (await here.view(run)).status == "parked"
        again = await here.export(tmp_path / "again.stx", EVERYTHING, live=True)
        assert (again.let_go, again.runs) == ((), 1)
        async with await Runtime.open(_agent(), data=dsn, clients={"*": _model()}) as there:
            assert (await there.restore(tmp_path / "runs.stx")).added == 1
            assert (await there.restore(tmp_path / "again.stx")).known == 1
            await there.decide(run, waiting[0].call, "approve")
            assert (await there.wait(run, timeout_s=20)).outcome == "done"
            assert [line.split()[0] for line in WITNESS] == ["12"]
            await there.export(tmp_path / "home.stx", EVERYTHING)
        assert (await here.restore(tmp_path / "home.stx")).grown == 1
        assert (await here.view(run)).outcome == "done"
        assert [found.error async for found in here.verify()] == [""]
        later = await here.start("desk", "thanks", session="s")
        assert (await here.wait(later.run, timeout_s=20)).outcome == "done"
    assert len(WITNESS) == 1


async def test_what_is_queued_behind_it_moves_too(tmp_path: Path, dsn: str) -> None:
    """A run that waits and the one behind it move together; when the first is over the second begins, there."""
    WITNESS.clear()
    async with await Runtime.open(_agent(), data=tmp_path / "a.db", clients={"*": _model()}) as here:
        first = (await here.start("desk", "book a room", session="s")).run
        waiting = (await here.wait(first, timeout_s=20)).waiting
        second = (await here.start("desk", "thanks", session="s", if_busy="queue")).run
        told = await here.export(tmp_path / "runs.stx", Selection(session="s"), live=True)
        assert set(told.let_go) == {first, second}
    async with await Runtime.open(_agent(), data=dsn, clients={"*": _model()}) as there:
        await there.restore(tmp_path / "runs.stx")
        assert (await there.view(second)).status == "queued"
        await there.decide(first, waiting[0].call, "approve")
        assert [(await there.wait(run, timeout_s=20)).outcome for run in (first, second)] == ["done", "done"]
        assert [found.error async for found in there.verify()] == ["", ""]
    assert len(WITNESS) == 1


async def test_runs_without_a_session(tmp_path: Path, dsn: str) -> None:
    """A run that belongs to no session moves alone."""
    async with opened(tmp_path / "a.db", dsn, tmp_path / "b.db") as (one, two, three):
        for number in range(2):
            driver = await Driver.make(one, f"r{number}")
            driver.session = ""
            await driver.start()
            await driver.claim()
            await driver.end()
        data, told = await written(one)
        assert (told.sessions, told.runs) == (2, 2)
        for target in (two, three, MemoryStore()):
            assert (await restore(target, io.BytesIO(data))).added == 2
            assert (await restore(target, io.BytesIO(data))).known == 2
            assert body((await written(target))[0]) == body(data)
        assert len(held((await written(two, Selection(runs=("r1",))))[0])) == 1


async def test_keys_of_an_older_file_are_kept(tmp_path: Path) -> None:
    """A data file from before moves keeps its content keys and their numbers, and none is given twice."""
    file = tmp_path / "old.db"
    connection = apsw.Connection(str(file))
    for version in (1, 2, 3, 4):
        connection.execute(queries.migrations("sqlite")[version])
    connection.execute(
        """
        INSERT INTO keys (no, tenant, subject, id, salt, secret) VALUES (7, 'acme', 'ann', 'k7', x'07', x''),
            (9, 'acme', 'bob', 'k9', x'09', x'');
        DELETE FROM keys WHERE no = 9;
        PRAGMA user_version = 4
        """
    )
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.close()
    async with opened(file) as (store,):
        assert await store.key_for(TENANT, "ann") == Key("k7", b"\x07")
        await store.key_for(TENANT, "carl")
    connection = apsw.Connection(str(file))
    assert connection.execute("SELECT no, subject FROM keys ORDER BY no").fetchall() == [(7, "ann"), (10, "carl")]
    connection.close()


async def test_a_move_is_taken_back(tmp_path: Path) -> None:
    """A file that went nowhere is taken back: the run is driven here again."""
    WITNESS.clear()
    async with await Runtime.open(_agent(), data=tmp_path / "a.db", clients={"*": _model()}) as here:
        run = (await here.start("desk", "book a room")).run
        waiting = (await here.wait(run, timeout_s=20)).waiting
        await here.export(tmp_path / "runs.stx", Selection(runs=(run,)), live=True)
        assert (await here.restore(tmp_path / "runs.stx")).known == 1
        assert (await here.view(run)).status == "parked"
        assert (await here.restore(tmp_path / "runs.stx", back=True)).back == 1
        await here.decide(run, waiting[0].call, "approve")
        assert (await here.wait(run, timeout_s=20)).outcome == "done"
    assert len(WITNESS) == 1


async def test_what_is_under_way_is_not_moved(tmp_path: Path) -> None:
    """A run that is leased, or whose call has left without an outcome, is not let go."""
    from stanchion.core.event import ModelCallStarted

    async with opened(tmp_path / "a.db") as (store,):
        driver = await Driver.driving(store, "r1")
        with pytest.raises(Conflict, match="is being driven by w1"):
            await written(store, live=True)
        started = ModelCallStarted(turn=1, attempt=1, route=0, provider="p", model="m", messages=1, prefix="x")
        await driver.append(started, release=True)
        with pytest.raises(Conflict, match="has a call under way"):
            await written(store, live=True)
        assert (await driver.row()).status == "runnable"


async def test_erased_content_stays_erased(tmp_path: Path) -> None:
    """What was erased is not in a file; what was erased where the file comes from must be erased here first."""
    async with opened(tmp_path / "a.db", tmp_path / "b.db") as (one, two):
        await talk(one, "s1")
        await restore(two, io.BytesIO((await written(one))[0]))
        await talk(one, "s2")
        await one.destroy_key(TENANT, "ann")
        data, _ = await written(one)
        assert b"aGVsbG8gMA" not in data  # ("hello 0" as base64)
        with pytest.raises(Conflict, match="erase it here first"):
            await restore(two, io.BytesIO(data))
        await two.destroy_key(TENANT, "ann")
        told = await restore(two, io.BytesIO(data))
        assert (told.known, told.added) == (1, 1)
        assert body((await written(two))[0]) == body(data)


async def test_a_run_cannot_change_its_tenant(tmp_path: Path) -> None:
    """The chain begins with the tenant, so another is refused."""
    async with opened(tmp_path / "a.db", tmp_path / "b.db") as (one, two):
        await talk(one, "s1")
        data, _ = await written(one)
        with pytest.raises(InputError, match="tenant: the file is of tenant 'acme'"):
            await restore(two, io.BytesIO(data), tenant="other")
        assert (await restore(two, io.BytesIO(data), tenant=TENANT)).added == 1


async def test_files_are_not_replaced_unasked(tmp_path: Path) -> None:
    """A file that is there is kept; one that could not be finished is not left behind."""
    file = tmp_path / "runs.stx"
    async with opened(tmp_path / "a.db") as (store,):
        await talk(store, "s1")
        await export(store, TENANT, file, EVERYTHING)
        before = file.read_bytes()
        with pytest.raises(InputError, match="--force"):
            await export(store, TENANT, file, EVERYTHING)
        with pytest.raises(NotFound):
            await export(store, TENANT, file, Selection(session="none"), Exporting(force=True))
        assert (file.read_bytes(), file.stat().st_mode & 0o77) == (before, 0)
        await export(store, TENANT, file, EVERYTHING, Exporting(force=True))
        assert sorted(os.listdir(tmp_path)) == ["a.db", "a.db-shm", "a.db-wal", "runs.stx"]


# --- damaged files ----------------------------------------------------------------------------------------------------------


async def _file() -> bytes:
    store = MemoryStore()
    await talk(store, "s1", runs=1)
    await talk(store, "s2", runs=1)
    await store.set_limit(TENANT, "tenant", 5)
    return (await written(store, budgets=True))[0]


FILE = asyncio.run(_file())


async def _refused(data: bytes) -> str:
    """Restore, which must fail and write nothing; return what it says."""
    store = MemoryStore()
    with pytest.raises(StanchionError) as caught:
        await restore(store, io.BytesIO(data))
    assert not isinstance(caught.value, NotFound | Conflict)
    assert (list(await store.runs(TENANT)), list(await store.keys(TENANT)), list(await store.ledgers(TENANT))) == (
        [],
        [],
        [],
    )
    return str(caught.value)


@given(at=st.integers(0, len(FILE) - 1), change=st.integers(1, 255))
def test_every_changed_byte_is_found(at: int, change: int) -> None:
    """Whatever byte is another, nothing of the file is taken."""
    data = bytearray(FILE)
    data[at] ^= change
    assert asyncio.run(_refused(bytes(data)))


@given(length=st.integers(0, len(FILE) - 1))
def test_every_cut_is_found(length: int) -> None:
    """A file that ends early says that it does."""
    assert "cut off" in asyncio.run(_refused(FILE[:length])) or length == 0


@given(lines=st.permutations(range(FILE.count(b"\n"))))
def test_lines_in_another_order_are_found(lines: Sequence[int]) -> None:
    """Lines that were moved, dropped or doubled are found, though each is whole."""
    own = FILE.splitlines(keepends=True)
    if list(lines) != sorted(lines):
        assert asyncio.run(_refused(b"".join(own[at] for at in lines)))
    at = lines[0]
    assert asyncio.run(_refused(b"".join(own[:at] + own[at + 1 :])))
    assert asyncio.run(_refused(b"".join([*own[: at + 1], *own[at:]])))


@given(at=st.integers(0, 10_000), change=st.integers(1, 255), cut=st.booleans())
def test_damage_to_a_compressed_file_is_found_or_does_none(at: int, change: int, cut: bool) -> None:
    """A compressed file that was changed or cut is refused, or is still what was written (its header names a time)."""
    data = bytearray(gzip.compress(FILE, mtime=0))
    at %= len(data)
    if cut:
        data = data[:at]
    else:
        data[at] ^= change
    store = MemoryStore()
    try:
        told = asyncio.run(restore(store, io.BytesIO(bytes(data))))
    except StanchionError:
        assert not asyncio.run(store.runs(TENANT))  # type: ignore[arg-type]
    else:
        assert (told.added, body(asyncio.run(written(store, budgets=True))[0])) == (2, body(FILE))


async def test_forged_files_are_refused() -> None:
    """A file whose digest fits but whose chains, rows or heads do not is refused by what is wrong."""
    moved = held(FILE)[0]
    run, row = moved.runs[0], moved.row
    assert row is not None

    def with_run(**fields: object) -> MovedSession:
        return msgspec.structs.replace(moved, runs=(msgspec.structs.replace(run, **fields),))

    def with_row(**fields: object) -> MovedSession:
        return with_run(row=msgspec.structs.replace(run.row, **fields))

    cut = run.records[:-1]
    swapped = (run.records[1], run.records[0], *run.records[2:])
    erased = (msgspec.structs.replace(run.records[0], contents=(None,)), *run.records[1:])
    for forged, why in (
        (with_run(records=cut), "4 events, and its row says|3 events, and its row says"),
        (with_run(records=swapped), "hash differs"),
        (with_run(records=erased), "missing though its key was not destroyed"),
        (with_row(hash=b"x" * 32), "another last one"),
        (with_row(tenant="other"), "another tenant"),
        (with_row(worker="w"), "is being driven"),
        (msgspec.structs.replace(moved, keys=()), "there though its key was destroyed"),
        (msgspec.structs.replace(moved, row=msgspec.structs.replace(row, runs=2)), "is said to have 2 runs"),
        (msgspec.structs.replace(moved, row=msgspec.structs.replace(row, live=run.row.run)), "the live run"),
        (msgspec.structs.replace(moved, row=msgspec.structs.replace(row, head=None)), "no head"),
        (msgspec.structs.replace(moved, runs=(run, run)), "twice|is said to have"),
    ):
        with pytest.raises((BrokenChain, InputError), match=why):
            check_session(forged)
    assert check_session(moved) == 0


async def test_a_newer_file_and_no_file_at_all_say_so() -> None:
    """A file of a later version asks for an upgrade; what is no export says that."""
    first, rest = FILE.split(b"\n", 1)
    newer = json.dumps(json.loads(first) | {"version": VERSION + 1, "more": 1}).encode()
    assert "upgrade Stanchion" in await _refused(newer + b"\n" + rest)
    assert "no export of Stanchion" in await _refused(b"hello\n")
    assert "no export of Stanchion" in await _refused(b'{"line":"end","sessions":0,"runs":0,"events":0,"sha256":""}\n')
    assert "cut off" in await _refused(b"")
    assert "cut off" in await _refused(gzip.compress(FILE)[:-20])


async def test_a_file_is_taken_in_beside_what_is_there(tmp_path: Path) -> None:
    """Sessions that fit are taken in; one with another history is refused by name, and changes nothing."""
    async with opened(tmp_path / "a.db") as (store,):
        assert isinstance(store, SqliteStore)
        await talk(store, "s2", runs=1)
        with pytest.raises(Conflict, match="run 's2-0' is in this store already, with another history"):
            await restore(store, io.BytesIO(FILE))
        assert {row.run for row in await store.runs(TENANT)} == {"s1-0", "s2-0"}
