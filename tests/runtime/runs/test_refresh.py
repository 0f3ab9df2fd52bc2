"""A session's prefix outlives a pause: read before it lapses, by a run that is journaled, reserved and bounded; at a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from stanchion import Agent, Limits, Model, Runtime, tool
from stanchion.core import event as ev
from stanchion.sim import Fault, FaultPlan, Reply, ReplyCall, Rule, Script, SimServer, SimSettings, When
from stanchion.testing import FakeClock
from tests.engine.rig import events
from tests.waiting import until

LONG = "You are the desk of a shop. " + "Here is a rule that never changes. " * 1_200
SCRIPT = Script(
    rules=(
        Rule(when=When(after="tool"), reply=Reply(text="It is there.")),
        Rule(when=When(user="^my own"), reply=Reply(text="Yes.")),
        Rule(when=When(user="look"), reply=Reply(calls=(ReplyCall(name="look"),))),
    )
)
looked: list[str] = []


@tool(effect="read", repeatable=True)
def look() -> str:
    """Look something up."""
    looked.append("once")
    return "found " * 20


class Desk:
    """A runtime and a provider whose clocks go together."""

    def __init__(self, runtime: Runtime, sim: SimServer, clock: FakeClock) -> None:
        self.runtime, self.sim, self.clock = runtime, sim, clock

    async def ask(self, text: str, session: str) -> str:
        started = await self.runtime.start("desk", text, session=session)
        view = await self.runtime.wait(started.run, timeout_s=30)
        assert view.outcome == "done", view
        await self.let_go()
        return started.run

    async def let_go(self) -> None:
        """Wait until no run is driven."""
        await until(lambda: not self.runtime.active)  # an end is noted just after it can be seen

    def forward(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.sim.advance(seconds)

    async def learn(self) -> None:
        """Have three sessions with a pause of six minutes among quick turns."""
        for number in range(3):
            for turn in range(9):
                self.forward(360 if turn == 4 else 1)
                await self.refreshed()
                await self.ask("hello", f"before-{number}")
            self.forward(100_000)

    async def refreshed(self) -> list[str]:
        begun = await self.runtime.refresh_caches()
        for run in begun:
            await self.runtime.wait(run, timeout_s=30)
        await self.let_go()
        return begun


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    """An agent that has learnt its pauses."""
    sim = SimServer(SimSettings(script=SCRIPT))
    await sim.start()
    clock = FakeClock()
    environment = {"ANTHROPIC_BASE_URL": sim.base_url, "ANTHROPIC_API_KEY": "sim-key"}
    agent = Agent(
        name="desk",
        identity=LONG,
        model=Model("anthropic:claude-sonnet-4-6", retries=1),
        tools=[look],
        limits=Limits(usd="5"),
    )
    runtime = await Runtime.open(agent, data=tmp_path / "t.db", environment=environment, clock=clock)
    made = Desk(runtime, sim, clock)
    await made.learn()
    looked.clear()
    yield made
    await runtime.aclose(grace_s=1.0)
    await sim.stop()


async def test_a_pause_is_outlived(desk: Desk) -> None:
    """The refresh is a run of its own session; the next run reads all, says so before, and when it was refreshed."""
    await desk.ask("hello", "s1")
    head = await desk.runtime.store.session("default", "s1")
    desk.forward(269)
    assert await desk.refreshed() == []  # it is not time yet
    desk.forward(2)
    (run,) = await desk.refreshed()
    (call,) = await events(desk.runtime, run, ev.ModelCallFinished)
    assert call.usage is not None
    assert call.usage.cache_read_tokens > 10_000
    assert call.usage.cache_write_tokens + call.usage.input_tokens == 0
    (started,) = await events(desk.runtime, run, ev.ModelCallStarted)
    assert started.reserved > 0
    assert started.cache_expected == call.usage.cache_read_tokens
    assert await desk.runtime.store.session("default", "s1") == head  # nothing is in a user's way
    desk.forward(89)
    after = await desk.ask("hello", "s1")
    (first,) = await events(desk.runtime, after, ev.RunStarted)
    (asked,) = await events(desk.runtime, after, ev.ModelCallStarted)
    (said,) = await events(desk.runtime, after, ev.ModelCallFinished)
    assert first.refreshed_ms > 0
    assert said.usage is not None
    assert said.usage.cache_read_tokens == asked.cache_expected == call.usage.cache_read_tokens
    view = await desk.runtime.view(after)
    assert (view.usage.cache_hit_tokens, view.cache_misses) == (asked.cache_expected, [])


async def test_all_of_it_is_billed_as_the_provider_does(desk: Desk) -> None:
    """To the nano-dollar, refreshes among it; and each is on the budget of its session's user."""
    await desk.ask("look", "s1")
    desk.forward(271)
    assert len(await desk.refreshed()) == 1
    rows = await desk.runtime.store.runs("default", limit=200)
    assert sum(row.cost for row in rows) == desk.sim.bill.view().total.nano_usd


async def test_nothing_is_refreshed_that_goes_on_or_is_too_late(desk: Desk) -> None:
    """A run that began meanwhile has read it itself; what has lapsed would be written again for nobody."""
    await desk.ask("hello", "s1")
    desk.forward(200)
    await desk.ask("hello", "s1")
    desk.forward(80)
    assert await desk.refreshed() == []
    desk.forward(300)
    assert await desk.refreshed() == []
    before = desk.sim.bill.view().total.nano_usd
    after = await desk.ask("hello", "s1")
    view = await desk.runtime.view(after)
    assert [miss.reason for miss in view.cache_misses] == ["the cache's life was over"]
    assert desk.sim.bill.view().total.nano_usd > before


async def test_a_refresh_is_made_once_and_its_calls_are_not_run(desk: Desk) -> None:
    """The model proposes the call again that it proposed to the last request; a failure is not tried again."""
    await desk.ask("look", "s1")
    assert looked == ["once"]
    desk.forward(271)
    desk.sim.faults = (FaultPlan(kind=Fault.OVERLOADED),)
    (run,) = await desk.refreshed()
    assert (await desk.runtime.view(run)).outcome == "failed"
    assert len(await events(desk.runtime, run, ev.ModelCallStarted)) == 1
    desk.forward(5)
    desk.sim.faults = ()
    assert await desk.refreshed() == []
    assert looked == ["once"]


async def test_a_process_that_closes_begins_no_more(desk: Desk) -> None:
    """What is due then lapses."""
    await desk.ask("hello", "s1")
    desk.forward(271)
    desk.runtime.begin_drain()
    assert desk.runtime._driving is not None
    await desk.runtime._driving.drain(1.0)
    assert [row.session for row in await desk.runtime.store.runs("default", limit=1)] == ["s1"]


async def test_many_are_refreshed_in_turn_and_on_their_budget(desk: Desk) -> None:
    """Forty sessions at once, more than go at a time; a budget that is spent refuses its own, which is then none."""
    for number in range(40):
        await desk.ask(f"my own {number} " + "words that nobody else says " * 2_000, f"s{number}")
    await desk.runtime.set_budget("user:ann", usd="0.50")
    started = await desk.runtime.start("desk", "my own " + "words of mine " * 3_000, session="anns", user="ann")
    assert (await desk.runtime.wait(started.run, timeout_s=30)).outcome == "done"
    await desk.let_go()
    await desk.runtime.set_budget("user:ann", usd="0.05")
    desk.forward(271)
    while await desk.refreshed():
        pass  # (the keeper itself begins some of them)
    rows = await desk.runtime.store.runs("default", limit=60)
    refreshes = [row for row in rows if row.session.startswith("refresh_")]
    assert [row.outcome for row in refreshes if row.user == "ann"] == []
    assert [row.outcome for row in refreshes if not row.user] == ["done"] * 40
