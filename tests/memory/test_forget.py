"""Forgotten is gone: from every table and file, from what journals hold of it, and from what a live session is told. The chains still verify."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import apsw
import asyncpg
import pytest

from stanchion import Runtime
from stanchion.core.errors import NotFound
from stanchion.core.fact import Operation, Owner
from stanchion.journal.memory import Change
from stanchion.memory import Memory
from stanchion.testing.model import call
from tests.memory.rig import Mind, agent, fact, memory_in, opened, say

CANARY = "Kingfisher-7749"
OTHER = "Wagtail-1203"
SAID = f"My code name is {CANARY}."


class Words:
    """An embedder by which every text is somewhere."""

    async def embed(self, texts: Any) -> Any:
        return [[float(len(text)), 1.0, 2.0] for text in texts]

    async def aclose(self) -> None:
        """Nothing is open."""


def mind() -> Mind:
    return Mind(
        {
            "My code name": [fact("code name", CANARY, f"My code name is {CANARY}")],
            "My bird": [fact("bird", OTHER, f"My bird is {OTHER}")],
        }
    )


def desk() -> Any:
    return agent(memory=Memory(notes=True, remember=True, embeddings=Words()))


async def live(runtime: Runtime, mind: Mind) -> None:
    """Have the canary remembered in every way there is, recalled in every way, and looked at."""
    await say(runtime, SAID)
    await say(runtime, f"My bird is {OTHER}.", user="bob")
    await say(runtime, "Hello again.", session="open")
    assert CANARY in memory_in(mind.asked[-1])
    replies = iter(
        [
            call("recall_memory", query="code name"),
            [call("write_note", name="code", text=CANARY), call("remember_fact", attribute="alias", value=CANARY)],
            "Done.",
        ]
    )
    mind.chat = lambda _: next(replies)
    await say(runtime, "Who am I?", session="open")
    mind.chat = lambda _: "Noted."


async def erased(runtime: Runtime) -> None:
    """Forget, then erase the conversations: what the user said there was the user's to say."""
    forgotten = await runtime.memory.forget("ann")
    assert forgotten.versions >= 4
    assert forgotten.journals
    assert list(await runtime.memory.ls("ann", history=True)) == []
    assert {row.user for row in await runtime.memory.users()} == {"bob"}


async def test_nothing_is_left_in_the_file(tmp_path: Path) -> None:
    """Of the facts, notes, vectors, recalled parts and of what was looked for: not one byte; of the other user, all."""
    path, model = tmp_path / "f.db", mind()
    async with await opened(model, desk(), data=path) as runtime:
        await live(runtime, model)
        assert CANARY.encode() in files(path)
        await erased(runtime)
        await runtime.erase("ann")
        assert [verified.error async for verified in runtime.verify()] == [""] * len(await runtime.runs(limit=100))
    left = files(path)
    assert CANARY.encode() not in left
    assert OTHER.encode() in left


def files(path: Path) -> bytes:
    return b"".join(file.read_bytes() for file in sorted(path.parent.glob(path.name + "*")) if file.is_file())


async def test_nothing_is_left_in_the_database(dsn: str) -> None:
    """The same on PostgreSQL: no row of any table holds it."""
    model = mind()
    async with await opened(model, desk(), data=dsn) as runtime:
        await live(runtime, model)
        assert await tables_with(dsn, CANARY)
        await erased(runtime)
        await runtime.erase("ann")
        assert not await tables_with(dsn, CANARY)
        assert await tables_with(dsn, OTHER)


async def tables_with(dsn: str, word: str) -> list[str]:
    """Name the tables that hold a word in any column, as text or as bytes."""
    address, _, schema = dsn.partition("?schema=")
    connection = await asyncpg.connect(address)
    try:
        names = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = $1", schema)
        found: list[str] = []
        for (name,) in names:
            rows = await connection.fetch(f'SELECT * FROM "{schema}"."{name}"')
            cells = (cell for row in rows for cell in row.values())
            if any(word.encode() in cell if isinstance(cell, bytes) else word in str(cell) for cell in cells):
                found.append(name)
        return found
    finally:
        await connection.close()


async def test_forgetting_leaves_what_the_user_said(tmp_path: Path) -> None:
    """The conversation is the user's; what was derived of it is gone from the journals all the same."""
    path, model = tmp_path / "f.db", mind()
    async with await opened(model, desk(), data=path) as runtime:
        await live(runtime, model)
        await erased(runtime)
        said = [part.text for row in await runtime.runs(limit=100) for part in await texts(runtime, row.run)]
        assert SAID in said
        assert not [text for text in said if "[memory]" in text or ('"facts"' in text and CANARY in text)]


async def texts(runtime: Runtime, run: str) -> list[Any]:
    entries = await runtime.store.read("default", run)
    return [part for entry in entries for part in entry.event.parts if hasattr(part, "text")]


async def test_a_live_session_is_not_told_any_more(tmp_path: Path) -> None:
    """What stood at its beginning is erased there too, and `recall_memory` finds nothing."""
    model = mind()
    async with await opened(model, desk(), data=tmp_path / "f.db") as runtime:
        await say(runtime, SAID)
        await say(runtime, "Hello.", session="open")
        await runtime.memory.forget("ann")
        replies = iter([call("recall_memory", query="code name"), "No idea."])
        model.chat = lambda _: next(replies)
        await say(runtime, "Who am I?", session="open")
        for request in model.asked[-2:]:
            assert CANARY not in str(request.messages)


async def test_one_fact_is_forgotten_and_the_rest_stays(tmp_path: Path) -> None:
    """With its versions and what journals hold of any: it may be among it. Other facts go on."""
    path, model = tmp_path / "f.db", mind()
    model.learned["I like tea"] = [fact("drink", "tea", "I like tea")]
    async with await opened(model, desk(), data=path) as runtime:
        await say(runtime, "I like tea.")
        await say(runtime, SAID)
        await say(runtime, "Hello.")
        first = next(view for view in await runtime.memory.ls("ann", kind="fact") if view.attribute == "code name")
        await runtime.memory.edit(first.id, f"{CANARY}, to friends", user="ann", by="eve")
        second = next(view for view in await runtime.memory.ls("ann", kind="fact") if view.attribute == "code name")
        forgotten = await runtime.memory.forget("ann", id=second.id)
        assert (forgotten.versions, forgotten.journals) == (2, True)
        facts = [view.attribute for view in await runtime.memory.ls("ann", kind="fact", history=True)]
        assert facts == ["drink"]
        with pytest.raises(NotFound):
            await runtime.memory.forget("ann", id=second.id)
    bodies = [body for body in await bodies_of(path) if CANARY.encode() in body]
    episodes = [body for body in bodies if b"episode" in body]
    assert bodies == episodes, "what happened in the run is another fact: it quotes what was asked"


async def bodies_of(path: Path) -> list[bytes]:
    connection = apsw.Connection(str(path))
    rows = [row[0] for row in connection.execute("SELECT body FROM memory_bodies")]
    connection.close()
    return rows


async def test_the_oldest_of_thousands_is_exported_and_forgotten(tmp_path: Path) -> None:
    """What was written before a thousand other facts is still taken along, shown and forgotten."""
    async with await opened(mind(), agent(memory=Memory()), data=tmp_path / "m.db") as runtime:
        ops = tuple(
            Operation(do="add", attribute=f"thing {n}", value=f"value {n}", trust="user", from_ms=1)
            for n in range(1_200)
        )
        await runtime.store.memories.apply(
            Change(owner=Owner("default", "ann", "desk"), key="k", at_ms=1, operations=ops)
        )
        views = await runtime.memory.export("ann")
        assert [view.value for view in views] == [f"value {n}" for n in range(1_200)]
        assert await runtime.memory.ls("ann", history=True, limit=1_200) == views
        assert (await runtime.memory.show(views[0].id, user="ann"))[0].value == "value 0"
        assert (await runtime.memory.forget("ann", id=views[0].id)).versions == 1
        assert [view.value for view in await runtime.memory.export("ann")] == [f"value {n}" for n in range(1, 1_200)]
