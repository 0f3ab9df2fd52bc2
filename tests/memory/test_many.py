"""Of a user with very many facts: what is told and found, while the event loop has its turns."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import apsw
import pytest

from stanchion.core.cosine import packed
from stanchion.core.fact import Fact, Operation, Owner
from stanchion.core.message import ToolResult
from stanchion.core.remembered import BYTES_PER_TOKEN, MemoryRules, fitting, line, profile, told
from stanchion.engine import memory as engine_memory
from stanchion.journal.memory import Change
from stanchion.journal.queries import named
from stanchion.journal.sqlite import SqliteStore
from stanchion.memory import Memory
from stanchion.runtime.desks import remembering
from stanchion.testing.model import call
from tests.memory.rig import Mind, agent, memory_in, opened, say

MANY = 20_000
NEEDLE = MANY - 77


def facts() -> list[Fact]:
    """Make facts with vectors; one of them holds a word of its own."""
    chance = random.Random(2)
    vectors = [packed([chance.gauss(0, 1) for _ in range(32)]) for _ in range(64)]
    return [
        Fact(
            id=f"fact_{n}", subject="user", attribute=f"thing {n}", trust="user", source="user", recorded_ms=1,
            value="kingfisher" if n == NEEDLE else f"value {n % 977}", vector=vectors[n % 64],
        )
        for n in range(MANY)
    ]  # fmt: skip


class Directions:
    """An embedder."""

    async def embed(self, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        return [[1.0 if n % 2 else -1.0 for n in range(32)] for _ in texts]

    async def aclose(self) -> None:
        """Nothing is open."""


class Turns:
    """Counts the turns of the event loop, and how many there were while something was done."""

    def __init__(self) -> None:
        self.count = 0
        self.during: dict[str, int] = {}

    async def run(self) -> None:
        while True:
            self.count += 1
            await asyncio.sleep(0)

    def watching(self, name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap what is done."""

        def watched(*args: Any, **kwargs: Any) -> Any:
            before = self.count
            result = work(*args, **kwargs)
            self.during[name] = self.count - before
            return result

        return watched


@pytest.fixture
async def turns() -> AsyncIterator[Turns]:
    """A loop that is turned all the time."""
    counted = Turns()
    task = asyncio.create_task(counted.run())
    yield counted
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_many_facts_do_not_hold_the_loop(tmp_path: Path, turns: Turns, monkeypatch: pytest.MonkeyPatch) -> None:
    """A profile, the model's search and a person's, over 20,000 facts: the loop turns all the while, and each finds what is there."""
    monkeypatch.setattr(engine_memory, "_recalled", turns.watching("profile", engine_memory._recalled))
    monkeypatch.setattr(engine_memory, "search", turns.watching("recall", engine_memory.search))
    monkeypatch.setattr(remembering, "search", turns.watching("ls", remembering.search))
    replies = iter([call("recall_memory", query="kingfisher"), "There."])
    mind = Mind(chat=lambda _: next(replies))
    desk = agent(memory=Memory(embeddings=Directions(), extract=False, episodes=False, procedures=0))
    async with await opened(mind, desk, data=tmp_path / "m.db") as runtime:

        async def many(*_: Any, **__: Any) -> Sequence[Fact]:
            return everything

        everything = facts()
        monkeypatch.setattr(runtime.store.memories, "facts", many)
        await say(runtime, "Where is the bird?")
        found = await runtime.memory.ls("ann", query="kingfisher")
    assert "thing" in memory_in(mind.asked[0])
    results = [part for message in mind.asked[-1].messages for part in message.parts if isinstance(part, ToolResult)]
    assert "kingfisher" in results[0].text
    assert "kingfisher" in [view.value for view in found]
    assert min(turns.during[name] for name in ("profile", "recall", "ls")) > 10, turns.during


async def test_few_facts_take_no_thread() -> None:
    """They are gone through at once: a thread would cost more."""
    ran: list[bool] = []
    loop = asyncio.get_running_loop()

    def work() -> None:
        with contextlib.suppress(RuntimeError):
            ran.append(asyncio.get_running_loop() is loop)

    await engine_memory.beside(engine_memory.MANY_FACTS - 1, work)
    assert ran == [True]
    await engine_memory.beside(engine_memory.MANY_FACTS, work)
    assert ran == [True], "a thread has no loop"


def test_what_fits_is_what_is_told() -> None:
    """Of 20,000 facts those are chosen, in their order, of which each line stands in what is told, and no other line does."""
    rules = MemoryRules("desk")
    shown = profile(facts(), 5, rules, untrusted=True)
    for tokens in (20, 33, 200, 801):
        chosen = fitting(shown, tokens)
        parts = told(shown, tokens, place="", space="desk")
        assert [row for part in parts for row in part.text.splitlines()[1:]] == [line(fact) for fact in chosen]
        assert sum(len(part.text.encode()) for part in parts) <= tokens * BYTES_PER_TOKEN
        left = tokens * BYTES_PER_TOKEN - sum(len(part.text.encode()) for part in parts)
        spare = [fact for fact in shown if fact not in chosen and len(line(fact).encode()) + 2 < left]
        assert not chosen or not spare, "one that would fit is left out"


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open files are listed by Linux alone")
async def test_reading_sorts_no_content(tmp_path: Path) -> None:
    """Of facts that are more than SQLite sorts in memory nothing is written to a temporary file, where no erasure would find it."""
    path = tmp_path / "m.db"
    store = await SqliteStore.open(path)
    ops = tuple(
        Operation(do="add", attribute=f"thing {n}", value="x" * 1_500, trust="user", from_ms=1) for n in range(2_500)
    )
    await store.memories.apply(Change(owner=Owner("default", "ann", "desk"), key="k", at_ms=1, operations=ops))
    await store.aclose()

    def temporary() -> set[str]:
        names = {os.readlink(file) for file in Path("/proc/self/fd").iterdir() if os.path.lexists(file)}
        return {name for name in names if name.endswith("(deleted)")}

    connection, before = apsw.Connection(str(path)), temporary()
    sql = named("sqlite/memory.sql")["listed"]
    rows = connection.execute(sql, ("default", "ann", "desk", 1 << 62, 0, "", 10_000))
    assert next(rows)
    assert temporary() == before
    by_value = connection.execute("SELECT body FROM memory_bodies ORDER BY body")
    assert next(by_value)
    assert temporary() != before, "(so would such a file be seen)"
    connection.close()
