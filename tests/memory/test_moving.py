"""What is remembered moves between stores of every kind: bit for bit, in both times, once, and never what was forgotten."""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanchion.core.errors import Conflict, InputError, JournalError
from stanchion.core.fact import Fact, Operation, Owner
from stanchion.journal.archive import ArchiveReader
from stanchion.journal.memory import Change, MovedMemory, subject_of
from stanchion.journal.moving import MovedSession
from stanchion.journal.postgres import PostgresStore
from stanchion.journal.sqlite import SqliteStore
from stanchion.journal.store import Key, Store
from stanchion.runtime.operating.moving import Exported, Exporting, Selection, export, restore
from stanchion.testing import FakeClock
from stanchion.testing.memory import MemoryStore
from stanchion.testing.memory_tables import Tables
from tests.memory.rig import Mind, agent, fact, known, opened, say

EVERYTHING = Selection(everything=True)
TENANT = "default"
T = TypeVar("T")


class Masked:
    """A cipher that nobody should use: enough to tell what lies there open."""

    def seal(self, key: Key, content: bytes) -> bytes:
        return bytes(byte ^ key.secret[at % 32] for at, byte in enumerate(content))

    def open(self, key: Key, blob: bytes) -> bytes:
        return self.seal(key, blob)


async def live(store: Store, user: str = "ann", first: int = 0) -> None:
    """Remember things that end each other, in two spaces, with vectors, as different people say them."""
    for number in range(first, first + 12):
        op = Operation(
            kind="note" if number % 5 == 4 else "fact", do="add" if number % 5 == 4 else "set", subject="user",
            attribute=f"a{number % 3}", value=f"{user} says {number} \U0001f600", trust="user", source="user",
            confidence=1 / (number + 3), run=f"run_{number}", place=str(number), from_ms=1_000 - 7 * number,
            vector=bytes([number, 0, 255, 62]) if number % 2 else b"",
        )  # fmt: skip
        owner = Owner(TENANT, user, "desk" if number % 4 else "lobby")
        change = Change(owner=owner, key=f"{user}/{number}", at_ms=100 * (number + 1), operations=(op,))
        await store.memories.apply(change)


async def written(store: Store, wanted: Selection = EVERYTHING, **how: bool) -> tuple[bytes, Exported]:
    """Export into memory."""
    out = io.BytesIO()
    told = await export(store, TENANT, out, wanted, Exporting(**{"memory": True, **how}))
    return out.getvalue(), told


def body(data: bytes) -> bytes:
    """All but the time in the first line, and the digest."""
    return b"\n".join(data.split(b"\n")[1:-2])


async def answers(store: Store, user: str = "ann") -> list[Any]:
    """What is answered of a user: all versions, and what was believed and held at every moment at which something changed."""
    owner = Owner(TENANT, user, "")
    everything = list(await store.memories.facts(owner, history=True))
    said: list[Any] = [everything]
    for believed in sorted({time for f in everything for time in (f.recorded_ms, f.ended_ms) if time}):
        facts = await store.memories.facts(owner, recorded_ms=believed)
        times = sorted({time for f in everything for time in (f.valid_from_ms, f.valid_to_ms) if time})
        said += [(believed, held, [f.id for f in facts if f.holds(held)]) for held in times]
    return said


# --- round trips ---------------------------------------------------------------------------------------------------------


async def test_from_file_to_database_and_back(tmp_path: Path, fresh_dsn: Callable[[], str]) -> None:
    """SQLite to PostgreSQL to another file and into memory, under ciphers of their own: answers and exports are the first one's."""
    stores: list[Store] = [
        await SqliteStore.open(tmp_path / "a.db"),
        await PostgresStore.open(fresh_dsn(), cipher=Masked()),
        await SqliteStore.open(tmp_path / "b.db", cipher=Masked()),
        await PostgresStore.open(fresh_dsn()),
        MemoryStore(),
    ]
    try:
        one, *others = stores
        for user in ("ann", "bob"):
            await live(one, user)
        (gone, *_) = await one.memories.facts(Owner(TENANT, "bob", "desk"))
        forgotten = await one.memories.forget(TENANT, "bob", ids=(gone.id,))
        first, told = await written(one)
        assert (told.users, told.facts) == (2, len(await facts_of(one, "ann")) + len(await facts_of(one, "bob")))
        assert told.facts > 20
        data = first
        for store in others:
            said = await restore(store, io.BytesIO(data))
            assert (said.users, said.remembered, said.forgotten) == (2, 2, 0)
            for user in ("ann", "bob"):
                assert await answers(store, user) == await answers(one, user)
            again = await restore(store, io.BytesIO(data))
            assert (again.users, again.remembered) == (2, 0)
            assert len(await store.memories.forgotten(TENANT)) == forgotten
            data, _ = await written(store)
            assert body(data) == body(first)
    finally:
        for store in stores:
            await store.aclose()
    assert b"ann says" not in raw(tmp_path, "b.db")
    assert b"ann says" in raw(tmp_path, "a.db")


def raw(folder: Path, name: str) -> bytes:
    """All bytes of a data file, and of its log."""
    return b"".join(path.read_bytes() for path in folder.glob(f"{name}*"))


async def facts_of(store: Store, user: str) -> Sequence[Fact]:
    return await store.memories.facts(Owner(TENANT, user, ""), history=True)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["set", "add", "end", "retract", "correct"]), st.integers(0, 2), st.integers(0, 9),
            st.sampled_from(["user", "trusted", "untrusted"]), st.booleans(),
        ),
        max_size=12,
    ),
    st.integers(0, 12),
)  # fmt: skip
async def test_any_life_answers_alike_after_the_move(life: list[tuple[Any, ...]], cut: int) -> None:
    """Whatever was said, and also where a part of it had moved before the rest was said."""
    source, target = MemoryStore(), MemoryStore()
    for number, (do, attribute, value, trust, vector) in enumerate(life):
        if number == cut:
            await restore(target, io.BytesIO((await written(source))[0]))
        believed = [fact for fact in await source.memories.facts(Owner(TENANT, "ann", "")) if not fact.ended_ms]
        aimed = do in ("retract", "correct") and believed
        op = Operation(
            do=do if aimed or do in ("set", "add", "end") else "set", target=believed[-1].id if aimed else "",
            subject="user", attribute=f"a{attribute}", value=f"v{value}", trust=trust, from_ms=value * 5,
            vector=b"\0\1\2\3" if vector else b"",
        )  # fmt: skip
        owner = Owner(TENANT, "ann", "desk")
        await source.memories.apply(Change(owner=owner, key=f"k{number}", at_ms=10 * number, operations=(op,)))
    data, _ = await written(source)
    await restore(target, io.BytesIO(data))
    assert await answers(target) == await answers(source)
    await restore(target, io.BytesIO(data))
    assert body((await written(target))[0]) == body(data)


# --- what may go wrong -----------------------------------------------------------------------------------------------------


async def test_a_damaged_file_writes_nothing() -> None:
    """Cut off anywhere, or with any line changed, doubled, or out: it is refused before a thing is written."""
    source = MemoryStore()
    for user in ("ann", "bob"):
        await live(source, user)
    data, _ = await written(source)
    lines = data.splitlines(keepends=True)
    target = MemoryStore()
    broken = [data[: len(data) * part // 40] for part in range(40)]
    for at in range(1, len(lines)):
        broken += [b"".join(lines[:at] + lines[at + 1 :]), b"".join([*lines[:at], lines[at], *lines[at:]])]
        broken += (
            [b"".join([*lines[:at], lines[at].replace(b"a", b"b", 1), *lines[at + 1 :]])] if b"a" in lines[at] else []
        )
    for file in broken:
        with pytest.raises(InputError):
            await restore(target, io.BytesIO(file))
    assert list(await target.memories.everyone(TENANT)) == []
    await restore(target, io.BytesIO(gzip.compress(data)))
    assert await answers(target, "bob") == await answers(source, "bob")


class Mortal(MemoryStore):
    """A store of a process that dies behind its n-th write."""

    left = 1 << 30

    async def write(self, call: Callable[[Tables, int], T]) -> T:
        self.left -= 1
        if self.left < 0:
            raise JournalError("the process is dead")
        return await super().write(call)


async def test_an_import_that_dies_is_done_again() -> None:
    """At any write: each user is there whole or not at all, and the same import again completes it."""
    source = MemoryStore()
    for user in ("ann", "bob", "cat"):
        await live(source, user)
    data, _ = await written(source)
    for writes in range(4):
        target = Mortal()
        target.left = writes
        try:
            await restore(target, io.BytesIO(data))
        except JournalError:
            assert writes < 3
        target.left = 1 << 30
        here = list(await target.memories.everyone(TENANT))
        assert here == ["ann", "bob", "cat"][:writes]
        for user in here:
            assert await answers(target, user) == await answers(source, user)
        assert (await restore(target, io.BytesIO(data))).remembered == 3 - min(writes, 3)
        assert body((await written(target))[0]) == body(data)


async def test_other_facts_of_a_user_are_refused_and_named() -> None:
    """Two lives of one user are not mixed: who imports must choose."""
    source, target = MemoryStore(), MemoryStore()
    await live(source)
    await live(target, first=20)
    before = await answers(target)
    with pytest.raises(Conflict, match="remembered of user 'ann' is in this store already and has gone on here"):
        await restore(target, io.BytesIO((await written(source))[0]))
    assert await answers(target) == before


# --- erasure ----------------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["sqlite", "postgres"])
def data(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where the second store is."""
    return str(tmp_path / "t.db") if request.param == "sqlite" else request.getfixturevalue("dsn")


LEARNED = {
    "I live in": [fact("home city", "Lisbon", "I live in Lisbon")],
    "I drink": [fact("drink", "tea", "I drink tea")],
}


async def test_an_erased_user_does_not_come_back(tmp_path: Path, data: str) -> None:
    """Neither into the store that the file is of, nor into one that it was imported into; and the chains verify."""
    file = tmp_path / "all.stx"
    async with await opened(Mind(LEARNED), agent(), data=tmp_path / "a.db") as old:
        await say(old, "I live in Lisbon.")
        await say(old, "I drink tea.", user="bob")
        assert (await old.export(file, EVERYTHING, memory=True)).users == 2
        async with await opened(Mind(LEARNED), agent(), data=data) as new:
            assert (await new.restore(file)).remembered == 2
            assert await known(new) == {"home city": "Lisbon"}
            for runtime in (old, new):
                await runtime.erase("ann")
                said = await runtime.restore(file)
                assert (said.users, said.remembered, said.forgotten) == (2, 0, 1)
                assert await known(runtime) == {}
                assert await known(runtime, "bob") == {"drink": "tea"}
                assert not [found.error async for found in runtime.verify() if found.error]


async def test_a_fact_that_was_forgotten_does_not_come_back(tmp_path: Path, data: str) -> None:
    """Forgotten here it stays so; forgotten where the file comes from it must be forgotten here before the file is taken."""
    async with await opened(Mind(LEARNED), agent(), data=tmp_path / "a.db") as old:
        await say(old, "I live in Lisbon.")
        await say(old, "I drink tea.")
        await old.export(tmp_path / "early.stx", EVERYTHING, memory=True)
        async with await opened(Mind(LEARNED), agent(), data=data) as new:
            await new.restore(tmp_path / "early.stx")
            (city,) = [view.id for view in await old.memory.ls("ann", kind="fact") if view.attribute == "home city"]
            await old.memory.forget("ann", id=city)
            await old.export(tmp_path / "late.stx", EVERYTHING, memory=True)
            with pytest.raises(Conflict, match=f"memory forget --user ann --id {city}"):
                await new.restore(tmp_path / "late.stx")
            await new.memory.forget("ann", id=city)
            for name in ("late.stx", "early.stx"):
                await new.restore(tmp_path / name)
                assert await known(new) == {"drink": "tea"}


# --- what is still to be learned -----------------------------------------------------------------------------------------------


async def test_what_was_not_learned_yet_is_learned_there(tmp_path: Path, data: str) -> None:
    """A run that ended before anybody learned from it is learned from where it came to, once, with the same result."""
    clock = FakeClock()
    mind = Mind(LEARNED)
    async with await opened(mind, agent(), data=tmp_path / "a.db", clock=clock) as old:
        await say(old, "I live in Lisbon.")
        mind.look = _fail
        started = await old.start("desk", "I drink tea.", user="ann")
        await old.wait(started.run, timeout_s=20)
    async with await opened(Mind(), data=tmp_path / "a.db", drive=False) as old:
        assert [due.run for due in await old.store.memories.dues(TENANT)] == [started.run]
        told = await old.export(tmp_path / "all.stx", EVERYTHING, memory=True, live=True)
        assert told.users == 1
    fresh = Mind(LEARNED)
    async with await opened(fresh, data=data, drive=False) as new:
        await new.restore(tmp_path / "all.stx")
    clock.advance(3_600)
    async with await opened(fresh, agent(), data=data, clock=clock) as new:
        await new.memory.learn()
        assert await known(new) == {"home city": "Lisbon", "drink": "tea"}
        assert list(await new.store.memories.dues(TENANT)) == []
        looked = len(fresh.looked)
        await new.restore(tmp_path / "all.stx")
        await new.memory.learn()
        assert (len(fresh.looked), await known(new)) == (looked, {"home city": "Lisbon", "drink": "tea"})


def _fail(_: Any) -> Sequence[Any]:
    raise RuntimeError("nobody looks")


# --- what is chosen ---------------------------------------------------------------------------------------------------------


async def test_whose_memory_is_exported(tmp_path: Path) -> None:
    """That of the users of the sessions; of every user where everything is; none unless it is asked for, and then it is said."""
    async with await opened(Mind(LEARNED), agent(), data=tmp_path / "a.db") as runtime:
        await say(runtime, "I live in Lisbon.", session="s1")
        await say(runtime, "I drink tea.", user="bob")
        await runtime.memory.add("drink", "milk", user="cat", space="desk")
        data, told = await written(runtime.store, Selection(session="s1"))
        assert [part.user for part in parts(data) if isinstance(part, MovedMemory)] == ["ann"]
        assert b'"version":2' in data.splitlines()[0]
        data, told = await written(runtime.store)
        assert [part.user for part in parts(data) if isinstance(part, MovedMemory)] == ["ann", "bob", "cat"]
        assert not told.unmoved
        data, told = await written(runtime.store, memory=False)
        assert (told.users, told.unmoved) == (0, True)
        assert not [part for part in parts(data) if isinstance(part, MovedMemory)]
        assert not [due for part in parts(data) if isinstance(part, MovedSession) for due in part.due]
        assert b'"version":1' in data.splitlines()[0]


def parts(data: bytes) -> list[Any]:
    """What a file holds."""
    return list(ArchiveReader(io.BytesIO(data)).read())


async def test_a_key_of_another_user_is_refused() -> None:
    """The content key of a file that is another one here is no key to write under."""
    source, target = MemoryStore(), MemoryStore()
    await live(source)
    moved = await source.memories.lift(TENANT, "ann")
    assert moved is not None
    await target.memories.take_in(moved)
    other = MovedMemory(TENANT, "bob", moved.key, b"another salt", ())
    assert await target.memories.take_in(other) == "known"
    bob = Fact(id="fact_b", value="x", recorded_ms=1)
    with pytest.raises(Conflict, match="is another here"):
        await target.memories.take_in(MovedMemory(TENANT, "bob", moved.key, b"another salt", (bob,)))
    assert await target.memories.lift(TENANT, "bob") is None
    assert (await target.key_for(TENANT, subject_of("ann"))).id == moved.key
