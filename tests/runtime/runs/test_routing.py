"""Routing through the whole runtime: over HTTP to a simulated provider, with its bill; settings that cannot be; what is measured."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from stanchion import Agent, ConfigError, InputError, Runtime, tool
from stanchion.core import event as ev
from stanchion.core.message import ToolCall
from stanchion.core.routing import ENOUGH, lower_bound
from stanchion.core.state import State
from stanchion.engine.habits import Habits
from stanchion.engine.live import LiveDelta
from stanchion.policy import GuardRules
from stanchion.routing import Brief, Routing, When
from stanchion.runtime import CostQuestion
from stanchion.sim import Reply, Rule, Script, SimServer, SimSettings
from stanchion.sim import When as On
from stanchion.testing import ScriptedModel, call
from stanchion.toolbox.options import Breaker
from tests.engine.rig import events
from tests.waiting import SOON_S

SONNET, HAIKU = "anthropic:claude-sonnet-4-6", "anthropic:claude-haiku-4-5"
LONG = "You are the desk.\n\n" + "\n\n".join(f"Rule {n}: kind K{n} is held for {n + 3} days." for n in range(1_500))
TABLE = Routing(
    table={"lookup": Brief(HAIKU, context_tokens=1_000)}, rules=[When("lookup", input="(?i)how long", shorter_than=200)]
)
SCRIPT = Script(
    rules=(
        Rule(when=On(model="haiku", contains="kind K417 is held for 420 days"), reply=Reply(text="420 days.")),
        Rule(when=On(model="haiku"), reply=Reply(text="[escalate] I am not shown that.")),
    ),
    default=Reply(text="Let me see."),
)


@pytest.fixture
async def sim() -> AsyncIterator[SimServer]:
    server = SimServer(SimSettings(script=SCRIPT))
    await server.start()
    yield server
    await server.stop()


async def opened(path: Path, sim: SimServer, **more: Any) -> Runtime:
    given: dict[str, Any] = {"identity": LONG, "model": SONNET, "routing": TABLE} | more
    environment = {"ANTHROPIC_BASE_URL": sim.base_url, "ANTHROPIC_API_KEY": "sim-key"}
    return await Runtime.open(Agent(name="desk", **given), data=path / "t.db", environment=environment)


async def test_a_detour_costs_what_it_costs_and_busts_nothing(tmp_path: Path, sim: SimServer) -> None:
    """Three turns, the second by the cheap model: the third reads all that the first sent; our bill is the provider's."""
    runtime = await opened(tmp_path, sim)
    async with runtime:
        made: list[ev.ModelCallFinished] = []
        for text in ("Hello.", "How long is K417 held?", "Thank you."):
            started = await runtime.start("desk", text, session="s")
            view = await runtime.wait(started.run, timeout_s=SOON_S)
            assert view.outcome == "done"
            assert not view.cache_misses
            made += await events(runtime, started.run, ev.ModelCallFinished)
        first, aside, third = (each.usage for each in made)
        assert first is not None
        assert aside is not None
        assert third is not None
        assert aside.total_input_tokens < 1_000
        assert third.cache_read_tokens == first.cache_write_tokens > 15_000
        steps = await runtime.costs.report(CostQuestion(by=("model",)))
        assert {group.key["model"] for group in steps.groups} == {SONNET, HAIKU}
    assert sim.bill.view().total.nano_usd == sum(call.cost for call in made)


async def test_a_turn_that_is_passed_on_is_told_once(tmp_path: Path, sim: SimServer) -> None:
    """Whoever watches sees the answer that was taken, and nothing of the one that was not."""
    runtime = await opened(tmp_path, sim)
    async with runtime:
        started = await runtime.start("desk", "How long is K9999 held?", session="s")
        heard = [item async for item in runtime.tail(started.run)]
        told = "".join(item.text for item in heard if isinstance(item, LiveDelta))
        assert "escalate" not in told
        view = await runtime.view(started.run)
        assert (view.outcome, view.text) == ("done", "Let me see.")
        (judged,) = await events(runtime, started.run, ev.AnswerJudged)
        assert (judged.action, judged.by, judged.model) == ("escalate", "self", HAIKU)
        first, _ = await events(runtime, started.run, ev.ModelCallFinished)
        assert first.held
        settled = sum(event.cost for event in await events(runtime, started.run, ev.ModelCallFinished))
    assert sim.bill.view().total.nano_usd == settled


@pytest.mark.parametrize("judge", [HAIKU, "openai:gpt-5-mini", "openai-chat:gpt-5-mini"])
@pytest.mark.parametrize(("score", "text"), [(90, "420 days."), (40, "Let me see.")])
async def test_a_judge_on_each_wire(tmp_path: Path, judge: str, score: int, text: str) -> None:
    """Its form is the provider's strict one; its call is on the run's bill."""
    graded = Rule(
        when=On(user="The answer to be graded:\\s+420 days", contains="kind K417 is held for 420 days"),
        reply=Reply(text=f'{{"score": {score}, "reason": "so it says"}}'),
    )
    server = SimServer(SimSettings(script=Script(rules=(graded, *SCRIPT.rules), default=SCRIPT.default)))
    await server.start()
    table = Routing(table=TABLE.table, rules=TABLE.rules, escalate_below=70)
    agent = Agent(name="desk", identity=LONG, model=SONNET, routing=table, steps={"judge": judge})
    environment = {
        "ANTHROPIC_BASE_URL": server.base_url, "ANTHROPIC_API_KEY": "sim-key",
        "OPENAI_BASE_URL": server.openai_base_url, "OPENAI_API_KEY": "sim-key",
    }  # fmt: skip
    try:
        async with await Runtime.open(agent, data=tmp_path / "t.db", environment=environment) as runtime:
            started = await runtime.start("desk", "How long is K417 held?")
            view = await runtime.wait(started.run, timeout_s=SOON_S)
            assert (view.outcome, view.text) == ("done", text)
            (judged,) = await events(runtime, started.run, ev.AnswerJudged)
            assert (judged.by, judged.score) == ("judge", score)
            report = await runtime.costs.report(CostQuestion(by=("step",)))
            assert "judge" in {group.key["step"] for group in report.groups}
            paid = sum(each.cost for each in await events(runtime, started.run, ev.ModelCallFinished))
    finally:
        await server.stop()
    assert server.bill.view().total.nano_usd == paid


async def test_the_label_of_a_start_is_a_row_of_the_table(tmp_path: Path, sim: SimServer) -> None:
    """It sends the turn; one that there is no row for is refused, since it would be dear in silence."""
    runtime = await opened(tmp_path, sim)
    async with runtime:
        started = await runtime.start("desk", "K417, please", step="lookup")
        assert (await runtime.wait(started.run, timeout_s=SOON_S)).text == "420 days."
        for step, why in (("lokup", "has no row 'lokup'; it has lookup"), ("No Name", "small letters")):
            with pytest.raises(InputError, match=why) as caught:
                await runtime.start("desk", "K417, please", step=step)
            assert caught.value.field == "step"


async def test_a_run_goes_on_after_a_restart_with_its_answer_held_back(tmp_path: Path, sim: SimServer) -> None:
    """What was measured before is read from the journals."""
    runtime = await opened(tmp_path, sim)
    async with runtime:
        for _ in range(2):
            started = await runtime.start("desk", "How long is K417 held?")
            await runtime.wait(started.run, timeout_s=SOON_S)
        store = runtime.store
        habits = Habits()
        await habits.read(store)
        bundle = runtime._bound["desk"].bundle
        (found,) = habits.measured(bundle)
        assert (found.step, found.model, found.good, found.all) == ("lookup", HAIKU, 2, 2)


def test_what_is_measured_of_answers() -> None:
    """Taken or passed on; a model that could not be reached says nothing; one that is passed over is forgotten, slowly."""
    agent = Agent(name="desk", model=SONNET, routing=TABLE)
    habits = Habits()
    before = State(tenant="t", session="s", agent="desk")

    def judged(action: Any, by: Any = "") -> None:
        event = ev.AnswerJudged(turn=1, attempt=1, model=HAIKU, step="lookup", action=action, by=by)
        habits.note(before, [ev.Entry(1, 0, 1, event)])

    for _ in range(30):
        judged("escalate", "judge")
    judged("take")
    judged("escalate", "failed")
    bundle = agent.bundle(
        agent.registry(), __import__("stanchion.core.prices", fromlist=["x"]).load_prices(), "2026-12-01"
    )
    (found,) = habits.measured(bundle)
    assert (found.good, found.all) == (1, 31)
    over = ev.ModelCallStarted(
        turn=1, attempt=1, route=0, provider="p", model="m", messages=0, prefix="", step="lookup", choice="measured"
    )
    for n in range(100):
        habits.note(before, [ev.Entry(1, 0, 1, over)])
        if habits.measured(bundle)[0].all < ENOUGH:
            assert 10 < n < 40
            return
    raise AssertionError("it is never tried again")


@pytest.mark.parametrize(
    ("good", "total", "least", "most"),
    [(0, 0, 0, 0), (20, 20, 0.85, 0.9), (10, 20, 0.3, 0.35), (500, 1_000, 0.47, 0.48)],
)
def test_the_bound_is_wilson_s(good: float, total: float, least: float, most: float) -> None:
    """One-sided 95 %: below the share, and nearer with more of them."""
    assert least <= lower_bound(good, total) <= most


@pytest.mark.parametrize(
    ("routing", "said"),
    [
        (Routing(table={"No": Brief(HAIKU)}), "is no name of a type of step"),
        (Routing(table={"a": []}), r"table\['a'\] must have 1 to 4 entries"),
        (Routing(table={"a": Brief(HAIKU, context_tokens=10)}), "context_tokens must be 400 or more"),
        (Routing(table={"a": Brief(HAIKU, tools=["nope"])}), "the agent has no tool 'nope'"),
        (Routing(table={"a": Brief("haiku")}), "is not of the form provider:model"),
        (Routing(table={"a": "haiku"}), r"must be Brief\(..\)"),  # type: ignore[dict-item]
        (Routing(table={"a": Brief(3)}), "must be provider:model"),  # type: ignore[arg-type]
        (Routing(table={"a": Brief(HAIKU)}, rules=[When("b", input="x")]), "'b' has no row in the table; it has a"),
        (Routing(table={"a": Brief(HAIKU)}, rules=[When("a")]), "has no condition"),
        (Routing(table={"a": Brief(HAIKU)}, rules=[When("a", input="(")]), "is no regular expression"),
        (Routing(table={"a": Brief(HAIKU)}, rules=[When("a", tool="x")]), "the agent has no tool 'x'"),
        (Routing(table={"a": Brief(HAIKU)}, rules=["a"]), "must be a list of When"),  # type: ignore[list-item]
        (Routing(escalate_below=70), "needs a model that grades"),
        (Routing(hand_over_below=101), "must be a whole number of percent"),
        (Routing(least_success=1.5), "must be a share"),
        ({"a": 1}, r"must be Routing\(..\)"),
    ],
)
async def test_a_table_that_cannot_be_is_refused(tmp_path: Path, routing: Any, said: str) -> None:
    """Where it is written, with the name of the setting and what to do."""

    async def made() -> None:
        agent = Agent(name="desk", model=SONNET, routing=routing)
        await Runtime.open(agent, data=tmp_path / "t.db", clients={"*": ScriptedModel(["hi"])})

    with pytest.raises(ConfigError, match=said) as caught:
        await made()
    assert "routing" in str(caught.value) or "provider:model" in str(caught.value)


def test_a_planner_in_quarantine_has_no_table() -> None:
    """It would be shown references to what it is not shown."""
    with pytest.raises(ConfigError, match="quarantine"):
        Agent(name="desk", model=SONNET, routing=TABLE, guard=GuardRules(quarantine=True))


# --- tools that are down ---------------------------------------------------------------------------------------------


def broken(*, essential: bool) -> Any:
    @tool(effect="read", retries=0, essential=essential, breaker=Breaker(failures=1, open_s=60))
    async def look(order: str) -> str:
        """Look an order up."""
        raise TimeoutError("nobody is there")

    return look


async def test_a_tool_that_is_down_is_gone_on_without(tmp_path: Path) -> None:
    """The model is told, answers without, and the run says that it had to."""
    model = ScriptedModel([call_look(), call_look(2), "I cannot see it just now."])
    agent = Agent(name="desk", model="openai:gpt-5.2", tools=[broken(essential=False)])
    view = await ended(agent, tmp_path, model)
    assert (view.outcome, view.text) == ("done", "I cannot see it just now.")
    assert view.degraded[-1] == "The tool look: its last calls failed, so it was left alone"


async def test_a_run_ends_without_a_tool_that_it_cannot_do_without(tmp_path: Path) -> None:
    """It says so in plain words; the model is not asked again."""
    model = ScriptedModel([["I look.", call_look()]])
    agent = Agent(name="desk", model="openai:gpt-5.2", tools=[broken(essential=True)])
    view = await ended(agent, tmp_path, model)
    assert (view.outcome, view.reason) == ("failed", "tool:look")
    assert view.text.startswith("I look.\n\nThis could not be finished. The tool look: ")
    assert len(model.requests) == 1


def call_look(number: int = 1) -> ToolCall:
    return call("look", order=f"A{number}")


async def ended(agent: Agent, path: Path, model: ScriptedModel) -> Any:
    async with await Runtime.open(agent, data=path / "t.db", clients={"*": model}) as runtime:
        started = await runtime.start("desk", "Where is it?")
        return await runtime.wait(started.run, timeout_s=SOON_S)
