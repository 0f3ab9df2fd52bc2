"""What is measured of an agent's sessions: pauses, length, growth, what others keep; from the store at the start as from runs that are driven."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest

from stanchion import Agent, Runtime, tool
from stanchion.context.life import Gap, Took
from stanchion.core import event as ev
from stanchion.core.message import Usage
from stanchion.core.state import State
from stanchion.engine.habits import FADES, OVER_S, SESSIONS, TOOL_FADES, TOOLS, Habits
from stanchion.testing import FakeClock, ScriptedModel
from stanchion.testing import call as call_of


def call(
    habits: Habits, at_s: float, session: str, *, calls: int = 0, tokens: int = 100, read: int = 0, first: bool = False
) -> None:
    """Have a session call its model."""
    before = State(tenant="t", session=session, agent="desk", kept_calls=calls)
    started = ev.ModelCallStarted(turn=1, attempt=1, route=0, provider="p", model="m", messages=1, prefix="")
    usage = Usage(tokens - read, cache_read_tokens=read)
    finished = ev.ModelCallFinished(turn=1, attempt=1, finish="stop", cost=0, usage=usage)
    entries = [ev.Entry(seq, int(at_s * 1000), 1, event) for seq, event in ((1, started), (2, finished))]
    habits.note(before, entries)


def test_what_is_measured() -> None:
    """Two sessions of three calls, with pauses of 10 and 400 seconds; the second found half of its first request kept."""
    habits = Habits()
    for session, began_s, read in (("s1", 0, 0), ("s2", 100_000, 50)):
        for turn, at_s in enumerate((0, 10, 410)):
            call(habits, began_s + at_s, session, calls=turn, tokens=100 + 20 * turn, read=0 if turn else read)
    call(habits, 300_000, "s3", calls=0, tokens=100)
    habit = habits.of("desk")
    assert [(gap.seconds, gap.count) for gap in habit.gaps] == [(10.0, 2), (400.0, 2)]
    assert habit.lengths == ((3, 2),)
    assert habit.growth == 20
    assert habit.shared == pytest.approx((0.5 * 0.95) / (1 + 0.95 + 0.95**2))
    assert habits.of("another").gaps == ()


def test_what_is_read_after_its_life_is_noted() -> None:
    """Two prefixes outlived it; one that had lapsed counts against that. Once one is refreshed nothing is seen any more, so that one counts."""
    habits = Habits()
    started = ev.ModelCallStarted(
        turn=1,
        attempt=1,
        route=0,
        provider="p",
        model="m",
        messages=1,
        prefix="",
        cache_sent=1_000,
        cache_unkept="life",
    )

    def later(read: int) -> float:
        for number, event in enumerate(
            (
                started,
                ev.ModelCallFinished(
                    turn=1, attempt=1, finish="stop", cost=0, usage=Usage(1_100 - read, cache_read_tokens=read)
                ),
            )
        ):
            before = State(tenant="t", session="s", agent="desk", kept_calls=1)
            habits.note(before, [ev.Entry(number + 1, 400_000, 1, event)])
        return habits.of("desk").outlived

    call(habits, 0, "s", tokens=1_000)
    assert habits.of("desk").outlived == 0.0
    assert [later(1_000), later(960)] == [1.0, 1.0]
    assert 0.6 < later(0) < 0.7


def test_what_others_keep_says_nothing_of_a_life() -> None:
    """After a pause nearly all is read, for other sessions begin with it; only where much is the session's own it would tell."""
    habits = Habits()
    call(habits, 0, "s", tokens=1_000, read=990, first=True)
    for at_s, sent, read in ((4_000, 1_000, 990), (8_000, 1_030, 990), (12_000, 1_200, 990)):
        started = ev.ModelCallStarted(
            turn=1,
            attempt=1,
            route=0,
            provider="p",
            model="m",
            messages=1,
            prefix="",
            cache_sent=sent,
            cache_unkept="life",
        )
        usage = Usage(sent + 100 - read, cache_read_tokens=read)
        finished = ev.ModelCallFinished(turn=1, attempt=1, finish="stop", cost=0, usage=usage)
        before = State(tenant="t", session="s", agent="desk", kept_calls=1)
        habits.note(before, [ev.Entry(n, at_s * 1000, 1, event) for n, event in ((1, started), (2, finished))])
        assert habits.of("desk").outlived == 0.0


def asks(habits: Habits, session: str) -> None:
    """Have a run ask a person."""
    judged = ev.ToolCallJudged(call="2.0", revision=0, action="ask", rule="approval")
    habits.note(State(tenant="t", session=session, agent="desk"), [ev.Entry(3, 0, 1, judged)])


def ends(habits: Habits, session: str, outcome: Literal["done", "cancelled"]) -> None:
    """Have a run end."""
    over = ev.RunFinished(outcome=outcome)
    habits.note(State(tenant="t", session=session, agent="desk"), [ev.Entry(9, 0, 1, over)])


def test_waits_are_pauses_and_more() -> None:
    """They count among the pauses as before, and apart; a run that ends without an answer to the model broke off, one that ends after it did not."""
    habits = Habits()
    for session, waits_s in (("s1", 480), ("s2", 500)):
        call(habits, 0, session)
        call(habits, 2, session, calls=1)
        asks(habits, session)
        asks(habits, session)
        call(habits, 2 + waits_s, session, calls=2)
        ends(habits, session, "done")
    call(habits, 0, "s3")
    asks(habits, "s3")
    ends(habits, "s3", "cancelled")
    habit = habits.of("desk")
    assert [(gap.seconds, gap.count) for gap in habit.gaps] == [(2.0, 2), (490.0, 2)]
    assert [(gap.seconds, gap.count) for gap in habit.waits] == [(490.0, 2)]
    assert habit.broken_off == 1
    call(habits, 20, "s3", calls=1)  # the session goes on: that pause was no wait
    assert sum(gap.count for gap in habits.of("desk").waits) == 2


def test_a_wait_without_an_end_counts_as_broken_off() -> None:
    """Who has not decided for hours is not waited for; the old ones fade with the pauses."""
    habits = Habits()
    call(habits, 0, "s1")
    asks(habits, "s1")
    call(habits, OVER_S + 1, "s2")
    assert habits.of("desk").broken_off == 1
    for number in range(FADES + 2):
        call(habits, OVER_S + 2 + number, "s2", calls=number)
        asks(habits, "s2")
    habit = habits.of("desk")
    assert sum(gap.count for gap in habit.waits) <= sum(gap.count for gap in habit.gaps) <= FADES
    assert habit.broken_off == 0


def works(habits: Habits, session: str, *events: tuple[float, ev.Event]) -> None:
    """Have a run write what its calls do, each at a time in seconds."""
    before = State(tenant="t", session=session, agent="desk")
    habits.note(before, [ev.Entry(9, int(at_s * 1000), 1, event) for at_s, event in events])


def proposed(tool: str, number: int = 0, action: Literal["allow", "ask", "deny"] = "allow") -> ev.Event:
    """Have a call judged."""
    return ev.ToolCallJudged(call=f"2.{number}", revision=0, action=action, rule="r", tool=tool)


def begun(number: int = 0, mode: Literal["run", "reconcile"] = "run") -> ev.Event:
    """Have an attempt begin."""
    return ev.ToolCallStarted(call=f"2.{number}", attempt=1, revision=0, mode=mode)


def answered(number: int = 0, outcome: Literal["ok", "error", "cancelled"] = "ok") -> ev.Event:
    """Have a call end."""
    return ev.ToolCallFinished(call=f"2.{number}", outcome=outcome)


def test_how_long_tools_take() -> None:
    """Each by itself, from the attempt that was answered on; the step goes on when a model is told, and breaks off when the run ends."""
    habits = Habits()
    call(habits, 0, "s")
    step = ((2, proposed("build")), (2, proposed("look", 1)), (2, begun()), (2, begun(1)), (3, answered(1)))
    works(habits, "s", *step, (500, answered()))
    call(habits, 502, "s", calls=1)
    failed = ev.ToolCallFailed(call="2.0", attempt=1, code="lost", retryable=True)
    works(habits, "s", (503, proposed("build")), (503, begun()), (4_000, failed), (5_000, begun()), (5_502, answered()))
    works(habits, "s", (5_503, ev.RunFinished(outcome="done")))
    habit = habits.of("desk")
    assert {tool: [(gap.seconds, gap.count) for gap in took.gaps] for tool, took in habit.tools.items()} == {
        "build": [(500.0, 2)],
        "look": [(1.0, 1)],
    }
    assert {tool: (took.went_on, took.broken_off) for tool, took in habit.tools.items()} == {
        "build": (1, 1),
        "look": (1, 0),
    }
    assert [(gap.seconds, gap.count) for gap in habit.calls.gaps] == [(1.0, 1), (500.0, 2)]
    assert (habit.calls.went_on, habit.calls.broken_off) == (1, 1)


def test_what_says_nothing_of_how_long_a_tool_takes() -> None:
    """A call that was not made or was stopped, a question whether it was done, and the time in which a person says what became of it."""
    habits = Habits()
    call(habits, 0, "s")
    works(habits, "s", (1, proposed("pay", action="deny")), (1, answered()))
    works(habits, "s", (1, proposed("pay", 1)), (1, begun(1)), (400, answered(1, "cancelled")))
    works(habits, "s", (1, proposed("pay", 2)), (1, begun(2)), (2, begun(2, "reconcile")), (3, answered(2)))
    works(habits, "s", (1, proposed("pay", 3)), (1, begun(3)), (2, proposed("pay", 3, "ask")), (900, answered(3)))
    assert all(took.gaps == () for took in habits.of("desk").tools.values())
    assert habits.of("desk").calls.gaps == ()


def test_what_is_known_of_tools_stays_small_and_follows_changes() -> None:
    """However many there are, and however often they were called."""
    habits = Habits()
    call(habits, 0, "s")
    for number in range(TOOLS + 9):
        works(habits, "s", (1, proposed(f"t{number}")), (1, begun()), (2, answered()))
    assert len(habits.of("desk").tools) == TOOLS
    assert "t0" not in habits.of("desk").tools
    for took_s in (5, 400):
        for _ in range(2 * TOOL_FADES):
            works(habits, "s", (1, proposed("build")), (1, begun()), (1 + took_s, answered()))
    gaps = habits.of("desk").tools["build"].gaps
    assert sum(gap.count for gap in gaps) <= TOOL_FADES + 1
    assert gaps[-1].count > 0.7 * sum(gap.count for gap in gaps)


def test_it_stays_small_and_follows_changes() -> None:
    """However many sessions and pauses there are; the old ones fade."""
    habits = Habits()
    for number in range(SESSIONS + 100):
        call(habits, 0, f"s{number}")
    assert sum(count for _, count in habits.of("desk").lengths) == 100
    for number in range(2 * FADES):
        call(habits, number, "busy", calls=number)
    for number in range(FADES // 4):
        call(habits, 2 * FADES + 400 * number, "busy", calls=number)
    assert sum(gap.count for gap in habits.of("desk").gaps) <= FADES
    assert habits.of("desk").gaps[-1].count > FADES // 5
    call(habits, 2 * FADES + 400 * FADES + OVER_S, "later")
    assert sum(count for _, count in habits.of("desk").lengths) >= SESSIONS // 2


def test_a_refresh_is_no_pause() -> None:
    """It says nothing of how the session goes."""
    habits = Habits()
    call(habits, 0, "s")
    first = ev.RunStarted(run="r", tenant="t", session="s", agent="desk", bundle="b", refreshes=ev.Base("r0", 1, ""))
    started = ev.ModelCallStarted(turn=1, attempt=1, route=0, provider="p", model="m", messages=1, prefix="")
    habits.note(State(), [ev.Entry(1, 5_000, 1, first), ev.Entry(2, 5_000, 1, started)])
    assert habits.of("desk").gaps == ()


async def test_a_process_that_starts_reads_what_there_was(tmp_path: Path) -> None:
    """The journals say the same as what was noted while they were written."""
    clock = FakeClock()

    @tool(effect="read", repeatable=True, timeout_s=600)
    async def build() -> str:
        """Build it."""
        clock.advance(480)
        return "built"

    agent = Agent(name="desk", model="anthropic:claude-sonnet-4-6", tools=[build])
    said = [call_of("build") if turn == 3 else "a" for turn in range(6)]
    runtime = await Runtime.open(agent, data=tmp_path / "t.db", clients={"*": ScriptedModel(said)}, clock=clock)
    try:
        for turn in range(9):
            clock.advance(400 if turn == 5 else 7)
            started = await runtime.start("desk", "hello", session=f"s{turn % 2}")
            await runtime.wait(started.run, timeout_s=10)
        assert runtime._driving is not None
        await runtime._driving.drain(5.0)  # the last run's end is noted just after it can be seen
        noted = runtime._driving.worker.habits.of("desk")
        read = Habits()
        await read.read(runtime.store)
        assert read.of("desk") == noted
        assert sum(gap.count for gap in noted.gaps) == 9
        assert noted.tools["build"] == Took((Gap(480.0, 2),), 2, 0) == noted.calls
    finally:
        await runtime.aclose(grace_s=1.0)
