"""For how long a prefix is kept, and how often it is refreshed: the arithmetic, against a plain sum over sessions."""

from __future__ import annotations

import itertools
import math
from typing import Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanchion.context.life import (
    LEAST_GAPS,
    MOST_REFRESHES,
    REFRESH_AT,
    Gap,
    Habit,
    Kept,
    Took,
    choose,
    keeps,
    kept,
    longest,
    refreshes,
)
from stanchion.core.bundle import Route
from stanchion.core.caching import CacheRules, cache_rules
from stanchion.core.message import MODEL, USER, Message, Text, ToolCall, ToolResult
from stanchion.core.money import price_usd
from stanchion.core.state import Call, State

ASKING = Call("4.0", ToolCall("c", "pay", "{}", MODEL), phase="asking")
PRICE = price_usd(input="3", output="15", cache_read="0.30", cache_write="3.75", cache_write_long="6")


def rules() -> CacheRules:
    found = cache_rules("anthropic", "claude-sonnet-4-6")
    assert found is not None
    return found


def habit(*gaps: tuple[float, int], shared: float = 0.0, sessions: int = 4) -> Habit:
    """Sessions of 15 calls that grow by 1,429 tokens a turn."""
    return Habit(tuple(Gap(*gap) for gap in gaps), ((15, sessions),), 1_429.0, shared)


@pytest.mark.parametrize(
    ("how", "life", "often"),
    [
        (habit((2, 56)), "short", 0),
        (habit((2, 52), (360, 4)), "short", 1),
        (habit((2, 52), (360, 4), shared=1.0), "short", 1),
        (habit((360, 56)), "long", 0),
        (habit((2, 52), (4_200, 4)), "long", 1),
        (habit((2, 52), (4_200, 4), shared=1.0), "short", 0),
        (habit((4_200, 56)), "long", 1),
        (habit((4_200, 56), shared=1.0), "long", 1),
        (habit((2, 52), (1_200, 4)), "short", 4),
        (habit((2, 28), (1_200, 28)), "long", 0),
        (habit((100_000, 56)), "short", 0),
    ],
)
def test_what_costs_least(how: Habit, life: str, often: int) -> None:
    """The cases of the benchmark: no pauses, one of 6 or 70 minutes a session, one before every turn; 20 minutes in one turn or every other one; a day each."""
    chosen = choose(PRICE, rules(), how, 60_000)
    assert chosen == life
    prefix = kept(PRICE, rules(), 70_000, how.shared * 60_000, long=chosen == "long")
    assert prefix.best(how, how.goes_on(8))[0] == often


def waiting(*waits: tuple[float, int], broken_off: int = 0) -> Habit:
    """Sessions whose pauses are short, but for those in which a person was waited for."""
    every = (Gap(2.0, 500), *(Gap(*gap) for gap in waits))
    return Habit(every, ((15, 40),), 1_429.0, 0.0, 0.0, tuple(Gap(*gap) for gap in waits), broken_off)


@pytest.mark.parametrize(
    ("how", "chance", "often"),
    [
        (waiting((480, 3)), 1.0, 1),
        (waiting((480, 12)), 1.0, 1),
        (waiting((480, 12), broken_off=3), 13 / 16, 1),
        (waiting((480, 8), broken_off=400), 9 / 409, 0),
        (waiting((20, 100)), 1.0, 0),
        (waiting((20, 100), (480, 1)), 1.0, 1),
        (waiting((780, 10)), 1.0, 2),
        (waiting((40_000, 10)), 1.0, 0),
        (waiting((480, 5), (40_000, 50), broken_off=10), 56 / 66, 0),
    ],
)
def test_how_often_while_a_person_is_waited_for(how: Habit, chance: float, often: int) -> None:
    """By how long people took before, not by the pauses between a tool's result and the next call; and a run nearly always goes on."""
    pauses, goes_on = how.within(State(calls=(ASKING,)), 0.0)
    assert goes_on == pytest.approx(chance)
    state = State(kept_tokens=70_000, kept_calls=15, kept_ms=1)
    route = Route("anthropic", "claude-sonnet-4-6", PRICE)
    assert refreshes(state, route, how) == 0  # a session that is idle after so many calls is over
    assert refreshes(msgspec.structs.replace(state, calls=(ASKING,)), route, how) == often
    assert (pauses.gaps == how.waits) == (sum(gap.count for gap in how.waits) >= LEAST_GAPS)


BUILDING = Call("4.0", ToolCall("c", "build", "{}", MODEL), phase="running", tool="build", started_ms=3_001)


def working(*took: tuple[float, int], broken_off: int = 0, quick: int = 500) -> Habit:
    """Sessions whose pauses are short, but for those in which a build was under way."""
    builds = tuple(Gap(*gap) for gap in took)
    count = sum(gap.count for gap in builds)
    build = Took(builds, round(count), broken_off)
    every = Took((Gap(1.0, quick), *builds), round(count) + quick, broken_off)
    return Habit(
        every.gaps, ((15, 40),), 1_429.0, tools={"build": build, "look": Took((Gap(1.0, quick),), quick)}, calls=every
    )


@pytest.mark.parametrize(
    ("how", "often"),
    [
        (working((360, 12)), 1),
        (working((1_200, 12)), 4),
        (working((20, 100)), 0),
        (working((20, 100), (480, 1)), 1),
        (working((265, 12)), 0),
        (working((298, 12)), 1),  # (.. and 3 seconds until it began: the request's life is over)
        (working((40_000, 12)), 0),
        (working((360, 12), broken_off=400), 0),
        (working((360, 3)), 1),  # seldom called: by all calls, of which those that last so long mostly last longer
        (working((360, 3), quick=2), 0),
    ],
)
def test_how_often_while_a_tool_is_at_work(how: Habit, often: int) -> None:
    """By how long it took before, from when it began."""
    state = State(kept_tokens=70_000, kept_calls=15, kept_ms=1, calls=(BUILDING,))
    assert refreshes(state, Route("anthropic", "claude-sonnet-4-6", PRICE), how) == often


def test_the_last_of_a_step_s_calls_ends_it() -> None:
    """A quick one beside a slow one takes nothing away; of many that may be slow one mostly is; a person's wait is one of them."""
    route = Route("anthropic", "claude-sonnet-4-6", PRICE)
    state = State(kept_tokens=70_000, kept_calls=15, kept_ms=1, calls=(BUILDING,))
    looking = msgspec.structs.replace(BUILDING, tool="look")
    how = working((360, 12))
    assert refreshes(msgspec.structs.replace(state, calls=(looking,)), route, how) == 0
    assert refreshes(msgspec.structs.replace(state, calls=(looking, BUILDING)), route, how) == 1
    either = working((20, 18), (1_200, 2))
    thrice = longest([either.tools["build"].gaps] * 3)
    assert [gap.seconds for gap in thrice] == [20, 1_200]
    assert [gap.count for gap in thrice] == pytest.approx([0.9**3, 1 - 0.9**3])
    asked = msgspec.structs.replace(how, waits=(Gap(780.0, 10),))
    assert refreshes(msgspec.structs.replace(state, calls=(BUILDING, ASKING)), route, asked) == 2
    over = msgspec.structs.replace(BUILDING, phase="settled")
    assert refreshes(msgspec.structs.replace(state, calls=(over,)), route, how) == 0


@given(
    st.lists(st.lists(st.tuples(st.integers(0, 6), st.integers(1, 5)), min_size=1, max_size=4), min_size=2, max_size=4)
)
def test_the_longest_of_some_pauses(parts: list[list[tuple[int, int]]]) -> None:
    """As chances go when each is drawn by itself."""
    chances: dict[int, float] = {}
    for drawn in itertools.product(*parts):
        chance = math.prod(count / sum(n for _, n in part) for (_, count), part in zip(drawn, parts, strict=True))
        end = max(seconds for seconds, _ in drawn)
        chances[end] = chances.get(end, 0.0) + chance
    found = longest([tuple(Gap(*each) for each in sorted(part)) for part in parts])
    assert {gap.seconds: gap.count for gap in found} == pytest.approx(chances)


def test_a_person_is_waited_for_before_anything_was_measured() -> None:
    """Nothing is refreshed by chance alone."""
    state = State(kept_tokens=70_000, kept_calls=1, kept_ms=1, calls=(ASKING,))
    assert refreshes(state, Route("anthropic", "claude-sonnet-4-6", PRICE), Habit()) == 0


def test_nothing_is_concluded_from_few_pauses() -> None:
    """A few long ones at the start are no habit."""
    few, enough = habit((360, LEAST_GAPS - 1)), habit((360, LEAST_GAPS))
    assert choose(PRICE, rules(), few, 60_000) == "short"
    assert choose(PRICE, rules(), enough, 60_000) == "long"


def test_a_session_that_is_over_is_not_refreshed() -> None:
    """After the last call of sessions of one length nothing comes, so nothing is read for it."""
    how = habit((360, 56))
    assert how.goes_on(14) == 1.0
    assert how.goes_on(15) == 0.0
    assert kept(PRICE, rules(), 80_000, 0, long=False).best(how, how.goes_on(15))[0] == 0


@given(
    tokens=st.integers(2_048, 200_000),
    shared=st.floats(0, 1),
    gaps=st.lists(st.tuples(st.floats(0, 50_000), st.integers(1, 50)), min_size=1, max_size=6),
    goes_on=st.floats(0, 1),
    often=st.integers(0, MOST_REFRESHES),
    long=st.booleans(),
)
def test_a_pause_costs_what_its_parts_cost(
    tokens: int, shared: float, gaps: list[tuple[float, int]], goes_on: float, often: int, long: bool
) -> None:
    """Played second by second: each refresh in its time, a write of what has lapsed; and the best is none dearer."""
    how = Habit(tuple(Gap(*gap) for gap in sorted(gaps)))
    prefix = kept(PRICE, rules(), tokens, shared * tokens, long=long)
    total = sum(count for _, count in gaps)
    played = sum(count * played_pause(prefix, seconds, often) for seconds, count in gaps) / total
    cost = goes_on * played + (1 - goes_on) * often * tokens * prefix.read
    assert prefix.pause(how, goes_on, often) == pytest.approx(cost, rel=1e-9, abs=1e-3)
    assert prefix.best(how, goes_on)[1] <= cost * (1 + 1e-9) + 1e-3


def played_pause(prefix: Kept, seconds: float, often: int) -> float:
    """Let a pause pass."""
    cost, used_s = 0.0, 0.0
    for _ in range(often):
        due_s = used_s + prefix.life_s * REFRESH_AT
        if due_s >= seconds:
            break
        cost, used_s = cost + prefix.tokens * prefix.read, due_s
    lapsed = seconds - used_s > prefix.life_s and not math.isclose(seconds - used_s, prefix.life_s)
    return cost + (prefix.tokens - prefix.shared) * (prefix.write - prefix.read) * lapsed


@pytest.mark.parametrize(
    "changed", [{"cache": "short"}, {"cache": "off"}, {"thinking_tokens": 2_000}, {"provider": "mine", "model": "own"}]
)
def test_only_what_was_left_to_us_is_refreshed(changed: dict[str, object]) -> None:
    """Not a life that was set, nor thinking by a budget, nor a cache of which nothing is known."""
    told = {"provider": "anthropic", "model": "claude-sonnet-4-6", "price": PRICE, **changed}
    state = State(kept_tokens=70_000, kept_calls=8, kept_ms=1)
    how = habit((2, 52), (360, 4))
    assert refreshes(state, Route("anthropic", "claude-sonnet-4-6", PRICE), how) == 1
    assert refreshes(state, Route(**told), how) == 0  # type: ignore[arg-type]


def _after(calls: int, provider: str, model: str, last: Text | ToolResult) -> State:
    """A session that had so many calls, the last of which it asked with this."""
    said = (Message("user", (last,)), Message("assistant", (Text("a", MODEL),)), Message("user", (Text("more", USER),)))
    return State(
        messages=said, bundle="b", prompted="b", kept_by=f"{provider}:{model}", kept_tokens=70_000, kept_ms=1_000,
        kept_parts=1, kept_calls=calls,
    )  # fmt: skip


RESULT = ToolResult("c", "f", "r", USER)


@pytest.mark.parametrize(
    ("calls", "after_s", "lengths", "cache", "what"),
    [
        (14, 10, ((15, 4),), "auto", "read"),
        (14, 400, ((15, 4),), "auto", "nothing"),
        (13, 10, ((15, 4),), "auto", "end"),
        (14, 10, ((15, 4),), "short", "end"),
        (14, 10, ((15, 2),), "auto", "end"),
        (14, 10, ((15, 3), (16, 1)), "auto", "end"),
        (14, 10, ((15, 8), (16, 1)), "auto", "read"),
        (15, 10, ((15, 4),), "auto", "end"),
    ],
)
def test_whether_the_end_is_worth_its_write(
    calls: int, after_s: int, lengths: tuple[tuple[int, int], ...], cache: Literal["auto", "short"], what: str
) -> None:
    """Where a session of this agent is over with a request, by how many it has had; not by few sessions, nor beyond any."""
    how = Habit((Gap(2.0, 56),), lengths, 1_429.0, 0.0)
    route = Route("anthropic", "claude-sonnet-4-6", PRICE, cache=cache)
    state = _after(calls, "anthropic", "claude-sonnet-4-6", Text("q", USER))
    assert keeps(state, route, how, 1_000 + after_s * 1_000, "short") == what


def test_a_breakpoint_stands_on_what_was_said_only() -> None:
    """Not on a result, so that the end is kept; caches that ask nobody are not asked."""
    how = Habit((Gap(2.0, 56),), ((15, 4),), 1_429.0, 0.0)
    price = price_usd(input="4", output="20", cache_read="0.40", cache_write="5", cache_write_long="10")
    for model, last, what in (
        ("gpt-5.6", Text("q", USER), "read"), ("gpt-5.6", RESULT, "end"), ("gpt-5.2", Text("q", USER), "end"),
    ):  # fmt: skip
        state = _after(14, "openai", model, last)
        assert keeps(state, Route("openai", model, price), how, 2_000, "short") == what


def test_what_outlives_its_life_is_not_refreshed() -> None:
    """Some organisations' prefixes are kept for a day: once that is seen, a read before the life's end is for nothing."""
    how = habit((2, 52), (360, 4))
    prefix = kept(PRICE, rules(), 70_000, 0.0, long=False)
    assert prefix.best(how, 1.0)[0] == 1
    assert prefix.best(msgspec.structs.replace(how, outlived=1.0), 1.0) == (0, 0.0)
