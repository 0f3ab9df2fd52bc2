"""Facts that change over simulated months: what holds now, what held then, and what was believed then, on each store."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from stanchion import Runtime
from stanchion.core.message import ToolResult
from stanchion.memory import Memory
from stanchion.testing import FakeClock
from stanchion.testing.memory import MemoryStore
from stanchion.testing.model import call
from tests.memory.rig import Mind, agent, fact, known, memory_in, opened, say

DAY_S = 86_400
Open = Callable[[Mind, FakeClock], Awaitable[Runtime]]


def at(date: str) -> int:
    return int(datetime.fromisoformat(date).replace(tzinfo=UTC).timestamp() * 1000)


STORY = (
    # said on, in which words, what the model finds in them
    ("2026-01-05", "I live in Lisbon and I never eat meat.", [
        fact("home city", "Lisbon", "I live in Lisbon"), fact("diet", "never eat meat", "I never eat meat")]),
    ("2026-02-10", "My plan is Basic.", [fact("plan", "Basic", "My plan is Basic")]),
    ("2026-03-20", "I moved to Porto on the first of March.", [
        fact("home city", "Porto", "I moved to Porto", since="2026-03-01")]),
    ("2026-04-15", "I upgraded: my plan is Premium now. My sister is Ines, my brother is Rui.", [
        fact("plan", "Premium", "my plan is Premium"), fact("sibling", "Ines", "My sister is Ines", do="add"),
        fact("sibling", "Rui", "my brother is Rui", do="add")]),
    ("2026-05-02", "By the way, in February I lived in Faro for a while.", [
        fact("home city", "Faro", "in February I lived in Faro", since="2026-02-01", until="2026-03-01")]),
    ("2026-06-30", "I cancelled my plan.", [fact("plan", "", "I cancelled my plan", do="end")]),
    ("2026-07-01", "From the first of September I live in Braga.", [
        fact("home city", "Braga", "I live in Braga", since="2026-09-01")]),
)  # fmt: skip


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def open_runtime(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """Open a runtime over each kind of store, with the same clock for all that is written."""

    async def opening(mind: Mind, clock: FakeClock) -> Runtime:
        how: dict[str, Any] = {"data": tmp_path / "m.db"}
        if request.param == "memory":
            how = {"store": MemoryStore(clock=clock.now_ms)}
        if request.param == "postgres":
            how = {"data": request.getfixturevalue("dsn")}
        return await opened(mind, agent(memory=Memory(tokens=400)), clock=clock, **how)

    return opening


async def test_what_holds_what_held_and_what_was_believed(open_runtime: Open) -> None:
    """All answers of the story: current, as of a date, and as known at a date; the last day counts with its evening."""
    mind = Mind({words: facts for _, words, facts in STORY})
    clock = FakeClock(at("2026-01-01"))
    async with await open_runtime(mind, clock) as runtime:
        for day, words, _ in STORY:
            clock.advance((at(day) - clock.now_ms()) / 1000)
            await say(runtime, words)
        clock.advance((at("2026-10-01") - clock.now_ms()) / 1000)

        async def city(as_of: str = "", known_at: str = "") -> str | None:
            asked: dict[str, Any] = {
                "as_of_ms": at(as_of) if as_of else 0,
                "known_at_ms": at(known_at) if known_at else 0,
            }
            return (await known(runtime, **asked)).get("home city")

        now = await known(runtime)
        assert (now["home city"], now["diet"], now.get("plan")) == ("Braga", "never eat meat", None)
        siblings = [view.value for view in await runtime.memory.ls("ann") if view.attribute == "sibling"]
        assert sorted(siblings) == ["Ines", "Rui"], "those that stand beside each other"
        held = {
            day: await city(day)
            for day in ("2026-01-04", "2026-01-20", "2026-02-15", "2026-03-02", "2026-08-31", "2026-09-01")
        }
        assert held == {
            "2026-01-04": None, "2026-01-20": "Lisbon", "2026-02-15": "Faro", "2026-03-02": "Porto", "2026-08-31": "Porto",
            "2026-09-01": "Braga",
        }  # fmt: skip
        believed = {
            day: await city("2026-02-15", known_at=day)
            for day in ("2026-01-04", "2026-03-10", "2026-04-01", "2026-05-03")
        }
        assert believed == {"2026-01-04": None, "2026-03-10": "Lisbon", "2026-04-01": "Lisbon", "2026-05-03": "Faro"}
        assert await city("2026-03-10", known_at="2026-03-15") == "Lisbon", "the move was told of later"
        plans = {
            day: (await known(runtime, as_of_ms=at(day))).get("plan")
            for day in ("2026-03-01", "2026-05-01", "2026-07-01")
        }
        assert plans == {"2026-03-01": "Basic", "2026-05-01": "Premium", "2026-07-01": None}
        moments = [at("2026-01-06") + n * DAY_S * 1000 for n in range(260)]
        for moment in moments:
            views = [v for v in await runtime.memory.ls("ann", as_of_ms=moment) if v.attribute == "home city"]
            assert len(views) == 1, "one city at any time"


async def test_the_model_is_told_what_holds_and_finds_what_held(open_runtime: Open) -> None:
    """A new session begins with what holds now; `recall_memory` answers for a date."""
    mind = Mind({words: facts for _, words, facts in STORY})
    clock = FakeClock(at("2026-01-01"))
    async with await open_runtime(mind, clock) as runtime:
        for day, words, _ in STORY:
            clock.advance((at(day) - clock.now_ms()) / 1000)
            await say(runtime, words)
        replies = iter([call("recall_memory", query="city", as_of="2026-02-15"), "Faro."])
        mind.chat = lambda _: next(replies)
        await say(runtime, "Where did I live in February?")
        first, last = mind.asked[-2:]
        told = memory_in(first)
        assert "user: home city = Porto" in told
        assert "Lisbon" not in told
        assert "Premium" not in told
        result = next(p for m in last.messages for p in m.parts if isinstance(p, ToolResult))
        assert "home city = Faro (since 2026-02-01 until 2026-03-01)" in result.text
        assert (result.label.source, result.label.trust) == ("memory", "user")
        assert last.messages[: len(first.messages)][0] == first.messages[0], "what was recalled is never moved"
