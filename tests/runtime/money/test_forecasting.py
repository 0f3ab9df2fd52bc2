"""What a run will cost, told before and during it; and a run that cannot end within its money is stopped early, with what it has."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from stanchion import Agent, Limits, Runtime, tool
from stanchion.core import event as ev
from stanchion.core.errors import InputError, JournalError, NotFound
from stanchion.core.message import Text, ToolCall, Usage, text_of
from stanchion.core.money import format_usd, parse_usd
from stanchion.core.progress import Progress
from stanchion.engine.courses import Courses
from stanchion.runtime import ForecastQuestion
from stanchion.testing import ScriptedModel, call
from stanchion.testing.clock import FakeClock
from stanchion.testing.memory import MemoryStore
from tests.engine.rig import events

USAGE = Usage(1_000, output_tokens=200)
A_CALL = parse_usd("0.006", field="usd")
"""By the price of Sonnet 4.6."""


@tool(effect="read", repeatable=True)
async def look(n: int) -> str:
    """Look something up."""
    return "found " * n


def play(request: Any) -> Any:
    """Look as often as the user says, and say how often it was until now; end when the runtime says so, if asked to."""
    words = [part.text for message in request.messages for part in message.parts if isinstance(part, Text)]
    asked = next(text for text in words if text.startswith("look ")).split()
    done = sum(isinstance(part, ToolCall) for message in request.messages for part in message.parts)
    told = any(text.startswith("[runtime] Nineteen") for text in words)
    if done >= int(asked[1]) or (told and "heed" in asked):
        return f"I looked {done} times."
    return [f"{done} so far", call("look", n=done + 1)]


def desk(**limits: Any) -> Agent:
    return Agent(name="desk", model="anthropic:claude-sonnet-4-6", tools=[look], limits=Limits(**limits))


async def opened(store: MemoryStore, agent: Agent, **more: Any) -> Runtime:
    return await Runtime.open(agent, store=store, clients={"*": ScriptedModel(play, usage=USAGE)}, **more)


async def run(runtime: Runtime, text: str, **more: Any) -> str:
    started = await runtime.start("desk", text, **more)
    await runtime.wait(started.run, timeout_s=30)
    return started.run


async def with_past(store: MemoryStore, runs: int = 24) -> None:
    """Runs of 10 and 11 looks: 11 and 12 calls."""
    async with await opened(store, desk()) as runtime:
        for number in range(runs):
            await run(runtime, f"look {10 + number % 2}")


async def test_before_a_run_its_cost_is_told_by_past_runs() -> None:
    """24 runs of 11 or 12 calls: half cost less, and nine of ten lie within the range. Another tenant's are not looked at."""
    store = MemoryStore()
    await with_past(store)
    async with await opened(store, desk()) as runtime:
        said = await runtime.forecasting.before(ForecastQuestion(agent="desk"))
        assert said.runs == 24
        assert said.coverage == 0.9
        assert 11 * A_CALL <= parse_usd(said.usd, field="") <= 12 * A_CALL
        assert parse_usd(said.low_usd, field="") == pytest.approx(11 * A_CALL, rel=0.1)
        assert parse_usd(said.high_usd, field="") == pytest.approx(12 * A_CALL, rel=0.1)
        other = await runtime.forecasting.before(ForecastQuestion(agent="desk"), tenant="acme")
        assert (other.runs, other.coverage) == (0, 0.0)
        assert "Too few past runs" in other.note


async def test_a_shape_is_said_in_place_of_past_runs() -> None:
    """As many turns as are said; what is out of bounds, and an agent that nobody knows, is refused by name."""
    store = MemoryStore()
    await with_past(store)
    async with await opened(store, desk()) as runtime:
        short = await runtime.forecasting.before(ForecastQuestion(agent="desk", turns=2, prefix_tokens=10_000))
        long = await runtime.forecasting.before(ForecastQuestion(agent="desk", turns=20, prefix_tokens=10_000))
        assert (short.runs, long.runs) == (0, 0)
        assert 2 * parse_usd(short.usd, field="") < parse_usd(long.usd, field="")
        with pytest.raises(InputError) as error:
            await runtime.forecasting.before(ForecastQuestion(agent="desk", turns=-1))
        assert error.value.field == "turns"
        with pytest.raises(NotFound, match="no agent 'nobody'"):
            await runtime.forecasting.before(ForecastQuestion(agent="nobody"))


async def test_a_store_alone_knows_an_agent_by_its_runs() -> None:
    """Where the agent is not served, as for `stanchion forecast --data`."""
    store = MemoryStore()
    await with_past(store, runs=3)
    async with await Runtime.open(store=store, drive=False) as runtime:
        said = await runtime.forecasting.before(ForecastQuestion(agent="desk"))
        assert (said.runs, said.coverage) == (0, 0.0)
        assert "anthropic:claude-sonnet-4-6" in said.note


async def test_during_a_run_its_view_tells_what_it_will_have_cost() -> None:
    """While it lives; from what was paid on; when it has ended there is nothing to tell."""
    store = MemoryStore()
    await with_past(store)
    reached, go_on = asyncio.Event(), asyncio.Event()

    @tool(effect="read", repeatable=True, name="look")
    async def slow(n: int) -> str:
        """Look something up."""
        if n == 5:
            reached.set()
            await go_on.wait()
        return "found " * n

    agent = Agent(name="desk", model="anthropic:claude-sonnet-4-6", tools=[slow])
    async with await opened(store, agent) as runtime:
        started = await runtime.start("desk", "look 10")
        await reached.wait()
        view = await runtime.view(started.run)
        go_on.set()
        ended = await runtime.wait(started.run, timeout_s=30)
    assert view.forecast is not None
    assert view.forecast.after_turns == 5
    assert view.forecast.runs == 24
    assert 5 * A_CALL < parse_usd(view.forecast.low_usd, field="") <= parse_usd(view.forecast.high_usd, field="")
    assert ended.outcome == "done"
    assert ended.forecast is None


async def test_a_run_that_cannot_end_within_its_money_is_told_and_stopped() -> None:
    """Runs cost 11 calls; this one may cost seven: told after its first turn, stopped two turns later, with the best it had."""
    store = MemoryStore()
    await with_past(store)
    async with await opened(store, desk(usd="0.042", stop_early=True)) as runtime:
        name = await run(runtime, "look 10")
        view = await runtime.view(name)
        told = [event for event in await events(runtime, name) if isinstance(event, ev.LimitWarned)]
    assert (view.outcome, view.reason) == ("halted", "forecast")
    assert view.usage.turns == 3
    assert view.text == "2 so far"
    (warned,) = [event for event in told if event.limit == "forecast"]
    assert warned.used > warned.max == parse_usd("0.042", field="usd")
    assert f"${format_usd(warned.max)}" in text_of(warned.parts)
    assert "2 more turns" in text_of(warned.parts)


async def test_a_model_that_heeds_it_ends_by_itself() -> None:
    """It is told once, and answers: the run is done, with what it has."""
    store = MemoryStore()
    await with_past(store)
    async with await opened(store, desk(usd="0.042", stop_early=True)) as runtime:
        view = await runtime.view(await run(runtime, "look 10 heed"))
    assert (view.outcome, view.text, view.usage.turns) == ("done", "I looked 1 times.", 2)


@pytest.mark.parametrize(("usd", "past", "early"), [("0.10", 24, True), ("0.042", 24, False), ("0.042", 12, True)])
async def test_others_are_left_alone(usd: str, past: int, early: bool) -> None:
    """Enough money; nobody asked for it; too few past runs for a range that holds nine of ten."""
    store = MemoryStore()
    await with_past(store, runs=past)
    async with await opened(store, desk(usd=usd, stop_early=early)) as runtime:
        name = await run(runtime, "look 10")
        view = await runtime.view(name)
        told = {event.limit for event in await events(runtime, name) if isinstance(event, ev.LimitWarned)}
    assert "forecast" not in told
    assert (view.outcome, view.reason) == (("done", "") if usd == "0.10" else ("halted", "usd"))


async def test_a_request_may_ask_for_it() -> None:
    """The limits of one run: it narrows what its agent allows."""
    store = MemoryStore()
    await with_past(store)
    async with await opened(store, desk()) as runtime:
        view = await runtime.view(await run(runtime, "look 10", limits=Limits(usd="0.042", stop_early=True)))
    assert (view.outcome, view.reason) == ("halted", "forecast")
    with pytest.raises(InputError, match=r"limits\.stop_early: must be True or False"):
        Limits(stop_early="yes").caps()  # type: ignore[arg-type]


class Deaf(MemoryStore):
    """A store whose listing of runs fails."""

    fails = False

    async def runs(self, tenant: str, **asked: Any) -> Any:
        if self.fails:
            raise JournalError("not now")
        return await super().runs(tenant, **asked)


async def test_without_its_past_a_run_goes_on() -> None:
    """Where past runs cannot be read nothing is foretold, and the limit itself holds."""
    store = Deaf()
    await with_past(store)
    async with await opened(store, desk(usd="0.042", stop_early=True)) as runtime:
        store.fails = True
        name = await run(runtime, "look 10")
        store.fails = False
        view = await runtime.view(name)
    assert (view.outcome, view.reason) == ("halted", "usd")


async def test_the_past_is_read_anew_now_and_then() -> None:
    """Within a minute it is as it was read; then new runs count."""
    store, clock = MemoryStore(), FakeClock()
    await with_past(store, runs=10)
    courses = Courses(store, clock)
    found = await courses.told("default", "desk", Progress())
    assert found is not None
    assert found.runs == 10
    await with_past(store, runs=2)
    again = await courses.told("default", "desk", Progress())
    assert again == found
    clock.advance(60)
    later = await courses.told("default", "desk", Progress())
    assert later is not None
    assert later.runs == 12


async def test_a_turn_fits_nothing_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was learnt about runs after so many turns is kept: a forecast is a line and a row of numbers."""
    store = MemoryStore()
    await with_past(store)
    courses = Courses(store, FakeClock())
    await courses.learn("default", "desk", 5)

    def no_fit(*_: Any) -> Any:
        raise AssertionError("it was learnt before")

    monkeypatch.setattr("stanchion.engine.courses.fit", no_fit)
    at = Progress(turns=5, cost=5 * A_CALL, result_bytes=500, tool_calls=5)
    assert courses.forecast("default", "desk", at) == await courses.told("default", "desk", at)
    assert courses.forecast("default", "desk", Progress(turns=4)) is None
    with pytest.raises(AssertionError, match="learnt before"):
        await courses.learn("default", "desk", 4)


async def test_it_is_the_same_on_a_data_file(tmp_path: Path) -> None:
    """SQLite's outlines say the same as memory's."""
    path = tmp_path / "t.db"
    client = ScriptedModel(play, usage=USAGE)
    async with await Runtime.open(desk(), data=path, clients={"*": client}) as runtime:
        for number in range(20):
            await run(runtime, f"look {10 + number % 2}")
        said = await runtime.forecasting.before(ForecastQuestion(agent="desk"))
    assert said.runs == 20
    assert 11 * A_CALL <= parse_usd(said.usd, field="") <= 12 * A_CALL
