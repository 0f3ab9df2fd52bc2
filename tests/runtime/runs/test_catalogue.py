"""An agent that finds its tools, over real HTTP against the simulated provider: on each wire, on two in one run, stopped and changed in between."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest

from stanchion import Agent, Approve, Model, Runtime, tool
from stanchion.catalogue import ToolSearch
from stanchion.cli.show import Calls
from stanchion.core import event as ev
from stanchion.core.message import ToolCall, ToolResult
from stanchion.sim import Fault, FaultPlan, Reply, ReplyCall, Rule, Script, SimServer, SimSettings, When
from tests.engine.rig import UNMARKED, events

RULES = "Here is a rule that never changes. " * 400
REFUND = {"order": "A", "cents": 9900}
WIRES = ["anthropic:claude-sonnet-4-6", "openai:gpt-5.2", "openai-chat:gpt-5.2"]
SCRIPT = Script(
    rules=(
        Rule(when=When(user="wrong"), reply=Reply(calls=(ReplyCall(name="call_tool", arguments={"name": "refund_ordr", "arguments": {}}),))),
        Rule(when=When(user="money back"), reply=Reply(calls=(ReplyCall(name="find_tools", arguments={"query": "give money back for an order"}),))),
        Rule(  # what was loaded is called by its name
            when=When(tool="find_tools", tool_result='"refund_order".*"input_schema".*"cents"'),
            reply=Reply(calls=(ReplyCall(name="refund_order", arguments=REFUND),)),
        ),
        Rule(
            when=When(tool="find_tools", tool_result='"refund_order".*"cents"'),
            reply=Reply(calls=(ReplyCall(name="call_tool", arguments={"name": "refund_order", "arguments": REFUND}),)),
        ),
        Rule(when=When(tool="find_tools", tool_result="already: refund_order"), reply=Reply(text="I have it.")),
        Rule(when=When(tool="call_tool"), reply=Reply(text="Said: ${tool}")),
        Rule(when=When(tool="refund_order"), reply=Reply(text="Said: ${tool}")),
    ),
    default=Reply(text="I cannot."),
)  # fmt: skip


@pytest.fixture
async def sim() -> AsyncIterator[SimServer]:
    """A provider that refunds only after it has read the tool's schema in a search's answer."""
    server = SimServer(SimSettings(script=SCRIPT))
    await server.start()
    yield server
    await server.stop()


def _others() -> list[Any]:
    """Make tools that are not needed."""

    def made(number: int) -> Any:
        @tool(effect="read", name=f"read_meter_{number}", group="energy")
        def read_meter(meter: str) -> str:
            """Read a meter."""
            return meter

        return read_meter

    return [made(number) for number in range(60)]


def agent(model: str | Model, done: list[int], **more: Any) -> Agent:
    """Make the agent, as after a restart."""

    @tool(effect="irreversible", group="shop")
    def refund_order(order: str, cents: int) -> str:
        """Refund an order, in whole or in part."""
        done.append(cents)
        return f"{order} refunded"

    given = {"tools": [*_others(), refund_order], "approvals": [Approve(tool="refund_order")], **more}
    return Agent(name="desk", identity=RULES, model=model, search=ToolSearch(), guard=UNMARKED, **given)


async def opened(folder: Path, sim: SimServer, made: Agent) -> Runtime:
    """Open a runtime of it."""
    environment = {
        "ANTHROPIC_BASE_URL": sim.base_url, "ANTHROPIC_API_KEY": "sim-key",
        "OPENAI_BASE_URL": sim.openai_base_url, "OPENAI_API_KEY": "sim-key",
    }  # fmt: skip
    return await Runtime.open(made, data=folder / "t.db", environment=environment)


@pytest.mark.parametrize(
    ("model", "form"),
    [
        (WIRES[0], "refund_order"),
        (Model(WIRES[0], loads_tools=False), "call_tool"),
        *((wire, "call_tool") for wire in WIRES[1:]),
    ],
    ids=lambda given: given.name if isinstance(given, Model) else str(given),
)
async def test_a_found_tool_is_called_on_every_wire_and_over_a_restart(
    tmp_path: Path, sim: SimServer, model: str | Model, form: str
) -> None:
    """It waits for a person under its own name, goes on in another process, and nothing of the prompt moves."""
    done: list[int] = []
    runtime = await opened(tmp_path, sim, agent(model, done))
    run = (await runtime.start("desk", "I want my money back", session="s")).run
    (waiting,) = (await runtime.wait(run, timeout_s=30)).waiting
    assert (waiting.tool, waiting.rule, waiting.arguments) == ("refund_order", "approval:refund_order", REFUND)
    await runtime.aclose(grace_s=1.0)
    runtime = await opened(tmp_path, sim, agent(model, done))
    try:
        assert (await runtime.explain(run, waiting.call)).replay == "same"
        await runtime.decide(run, waiting.call, "approve", revision=0, by="ann")
        view = await runtime.wait(run, timeout_s=30)
        assert (view.outcome, view.text, done) == ("done", "Said: A refunded", [9900])
        again = (await runtime.start("desk", "money back", session="s")).run
        assert (await runtime.wait(again, timeout_s=30)).text == "I have it."
        made = [await events(runtime, one, ev.ModelCallFinished) for one in (run, again)]
        judged = [(event.tool, event.rule) for event in await events(runtime, run, ev.ToolCallJudged)]
        resets = [await events(runtime, one, ev.PrefixReset) for one in (run, again)]
    finally:
        await runtime.aclose(grace_s=1.0)
    assert judged == [
        ("find_tools", "built_in"),
        ("refund_order", "approval:refund_order"),
    ]
    assert resets == [[], []]
    step = 128 if model in WIRES[1:] else 1
    usages = [call.usage for calls in made for call in calls if call.usage is not None]
    assert len(usages) == 5
    (called,) = (part for part in made[0][1].parts if isinstance(part, ToolCall))
    assert called.name == form  # a provider that loads tools has them called like listed ones
    for before, now in pairwise(usages):  # each request begins with all of the one before, what was found included
        assert now.cache_read_tokens == before.total_input_tokens // step * step
    assert sim.bill.view().total.nano_usd == sum(call.cost for calls in made for call in calls)


@pytest.mark.parametrize(("first", "second"), [(WIRES[0], WIRES[1]), (WIRES[1], WIRES[0]), (WIRES[2], WIRES[0])])
async def test_a_tool_found_on_one_wire_is_called_on_another(tmp_path: Path, first: str, second: str) -> None:
    """The first provider dies after the search: what it was answered is as good to the other."""
    dead = FaultPlan(Fault.OVERLOADED, turn=1, model=first.partition(":")[2])
    server = SimServer(SimSettings(script=SCRIPT, faults=(dead,)))
    await server.start()
    done: list[int] = []
    second = second.replace("gpt-5.2", "gpt-5-mini")
    made = agent(Model(first, retries=1), done, fallbacks=[second], approvals=[])
    runtime = await opened(tmp_path, server, made)
    try:
        run = (await runtime.start("desk", "I want my money back")).run
        view = await runtime.wait(run, timeout_s=30)
        calls = await events(runtime, run, ev.ModelCallStarted)
    finally:
        await runtime.aclose(grace_s=1.0)
        await server.stop()
    assert (view.outcome, view.text, done) == ("done", "Said: A refunded", [9900])
    assert [call.route for call in calls] == [0, 0, 1, 1]
    assert all(call.dispatch for call in calls)


async def test_a_dry_run_and_a_wrong_name(tmp_path: Path, sim: SimServer) -> None:
    """A found tool is pretended like any other; a name that there is not says which one is near."""
    done: list[int] = []
    runtime = await opened(tmp_path, sim, agent(WIRES[0], done))
    try:
        run = (await runtime.start("desk", "I want my money back", dry_run=True)).run
        view = await runtime.wait(run, timeout_s=30)
        assert "This is a dry run: refund_order was not called" in view.text
        wrong = (await runtime.start("desk", "the wrong one")).run
        text = (await runtime.wait(wrong, timeout_s=30)).text
        results = [event.parts[0] for event in await events(runtime, wrong, ev.ToolCallFinished)]
    finally:
        await runtime.aclose(grace_s=1.0)
    assert text == (
        "Said: There is no tool named 'refund_ordr'. Did you mean refund_order? Look for others with find_tools."
    )
    assert [(part.name, part.error) for part in results if isinstance(part, ToolResult)] == [("refund_ordr", True)]
    assert done == []


async def test_a_catalogue_that_changes_under_a_waiting_run(tmp_path: Path, sim: SimServer) -> None:
    """Tools that it does not call come and go; the one that waits must be there."""
    done: list[int] = []
    runtime = await opened(tmp_path, sim, agent(WIRES[0], done))
    run = (await runtime.start("desk", "I want my money back", session="s")).run
    (waiting,) = (await runtime.wait(run, timeout_s=30)).waiting
    await runtime.aclose(grace_s=1.0)
    only = agent(WIRES[0], done)
    runtime = await opened(tmp_path, sim, agent(WIRES[0], done, tools=[only.tools[-1]]))
    try:
        await runtime.decide(run, waiting.call, "approve", revision=0, by="ann")
        assert (await runtime.wait(run, timeout_s=30)).outcome == "done"
        assert len(await events(runtime, run, ev.BundleChanged)) == 1
    finally:
        await runtime.aclose(grace_s=1.0)
    assert done == [9900]


async def test_what_people_see_is_the_tool(tmp_path: Path, sim: SimServer) -> None:
    """On a terminal, in what was decided before, and in the costs."""
    done: list[int] = []
    runtime = await opened(tmp_path, sim, agent(WIRES[0], done))
    try:
        shown = Calls()
        for session in ("one", "two"):
            run = (await runtime.start("desk", "I want my money back", session=session)).run
            (waiting,) = (await runtime.wait(run, timeout_s=30)).waiting
            await runtime.decide(run, waiting.call, "approve", revision=0, by="ann", reason="as agreed")
            await runtime.wait(run, timeout_s=30)
            for entry in await runtime.store.read("default", run):
                shown.note({"seq": entry.seq, **msgspec.to_builtins(entry.event)})
    finally:
        await runtime.aclose(grace_s=1.0)
    assert [(one.tool, one.same, one.reason) for one in waiting.similar] == [("refund_order", "call", "as agreed")]
    assert str(shown[waiting.call]) == 'refund_order(order="A", cents=9900)'
