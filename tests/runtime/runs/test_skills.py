"""An agent with a skill from a file, over real HTTP against the simulated provider: on each wire, killed and changed in between."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from stanchion import Agent, Runtime, tool
from stanchion.core import event as ev
from stanchion.core.message import ToolResult
from stanchion.runtime import CostQuestion
from stanchion.sim import Reply, ReplyCall, Rule, Script, SimServer, SimSettings, When
from tests.engine.rig import events

SKILL = """\
---
name: refunds
description: Refund an order.
trigger: a customer wants money back
version: "{version}"
tools: [refund]
restrictions:
  - {{tool: refund, most: {{cents: 5000}}, ask: true}}
---
The word of the house is {word}.
"""
RULES = "Here is a rule that never changes. " * 400
OPEN = ReplyCall(name="use_skill", arguments={"name": "refunds"})
SCRIPT = Script(
    rules=(
        Rule(when=When(user="again"), reply=Reply(calls=(OPEN,))),
        Rule(when=When(user="back"), reply=Reply(calls=(OPEN,))),
        Rule(when=When(tool_result="already"), reply=Reply(text="I know.")),
        Rule(
            when=When(tool="use_skill", contains="The word of the house is plover."),
            reply=Reply(calls=(ReplyCall(name="refund", arguments={"order": "A", "cents": 9900}),)),
        ),
        Rule(when=When(tool="refund"), reply=Reply(text="Refunded.")),
    ),
    default=Reply(text="I cannot."),
)


@pytest.fixture
async def sim() -> AsyncIterator[SimServer]:
    """A provider that refunds only after it has read the body of the skill."""
    server = SimServer(SimSettings(script=SCRIPT))
    await server.start()
    yield server
    await server.stop()


def write(folder: Path, word: str = "plover", version: str = "1") -> None:
    """Write the skill."""
    (folder / "refunds").mkdir(exist_ok=True)
    (folder / "refunds" / "SKILL.md").write_text(SKILL.format(word=word, version=version))


async def opened(folder: Path, sim: SimServer, model: str, done: list[int]) -> Runtime:
    """Open a runtime of an agent that is made anew, as after a restart."""

    @tool(effect="write")
    def refund(order: str, cents: int) -> str:
        """Refund an order."""
        done.append(cents)
        return f"{order} refunded"

    agent = Agent(name="desk", identity=RULES, model=model, tools=[refund], skills=[folder])
    environment = {
        "ANTHROPIC_BASE_URL": sim.base_url, "ANTHROPIC_API_KEY": "sim-key",
        "OPENAI_BASE_URL": sim.openai_base_url, "OPENAI_API_KEY": "sim-key",
    }  # fmt: skip
    return await Runtime.open(agent, data=folder / "t.db", environment=environment)


def told(entries: list[ev.ToolCallFinished]) -> list[str]:
    """What the model was told of calls of `use_skill`."""
    parts: list[Any] = [part for entry in entries for part in entry.parts]
    return [part.text for part in parts if isinstance(part, ToolResult) and part.name == "use_skill"]


@pytest.mark.parametrize("model", ["anthropic:claude-sonnet-4-6", "openai:gpt-5.2", "openai-chat:gpt-5.2"])
async def test_a_skill_is_opened_once_and_binds_on_every_wire(tmp_path: Path, sim: SimServer, model: str) -> None:
    """The model reads the body, is held back by its limit, goes on after a yes; and nothing of the prompt moves."""
    done: list[int] = []
    write(tmp_path)
    runtime = await opened(tmp_path, sim, model, done)
    try:
        started = await runtime.start("desk", "I want my money back", session="s")
        view = await runtime.wait(started.run, timeout_s=30)
        assert [(one.tool, one.rule) for one in view.waiting] == [("refund", "skill:refunds")]
        assert done == []
        said = await runtime.explain(started.run, view.waiting[0].call)
        assert [(one.rule, one.text) for one in said.reasons] == [
            ("skill:refunds", "by the skill refunds cents may be at most 5000")
        ]
        assert said.replay == "same"
        await runtime.decide(started.run, view.waiting[0].call, "approve", revision=0, by="ann")
        view = await runtime.wait(started.run, timeout_s=30)
        assert (view.outcome, view.text, done) == ("done", "Refunded.", [9900])
        again = await runtime.start("desk", "again", session="s")
        assert (await runtime.wait(again.run, timeout_s=30)).text == "I know."
        made = [await events(runtime, run, ev.ModelCallFinished) for run in (started.run, again.run)]
        texts = [told(await events(runtime, run, ev.ToolCallFinished)) for run in (started.run, again.run)]
        report = await runtime.costs.report(CostQuestion(by=("skill", "run")))
        calls = {(group.key["skill"], group.key["run"]): group.calls for group in report.groups}
        assert calls == {
            ("", started.run): 1, ("refunds", started.run): 2, ("", again.run): 1, ("refunds", again.run): 1,
        }  # fmt: skip
    finally:
        await runtime.aclose(grace_s=1.0)
    assert [text.split("\n")[0] for one in texts for text in one] == [
        "[skill refunds 1]", "The skill refunds stands above already. Go on by it.",
    ]  # fmt: skip
    step = 128 if "openai" in model else 1
    usages = [call.usage for calls in made for call in calls if call.usage is not None]
    for before, now in pairwise(usages):  # each request begins with all of the one before, the opened skill included
        assert now.cache_read_tokens == before.total_input_tokens // step * step
    assert sim.bill.view().total.nano_usd == sum(call.cost for calls in made for call in calls)


async def test_a_skill_that_changed_under_a_waiting_run(tmp_path: Path, sim: SimServer) -> None:
    """The run goes on under the new bundle and says so; what was opened stays as it was said, and asking again gives the new one."""
    done: list[int] = []
    write(tmp_path)
    runtime = await opened(tmp_path, sim, "anthropic:claude-sonnet-4-6", done)
    started = await runtime.start("desk", "I want my money back", session="s")
    (waiting,) = (await runtime.wait(started.run, timeout_s=30)).waiting
    await runtime.aclose(grace_s=1.0)
    write(tmp_path, word="curlew", version="2")
    runtime = await opened(tmp_path, sim, "anthropic:claude-sonnet-4-6", done)
    try:
        await runtime.decide(started.run, waiting.call, "approve", revision=0, by="ann")
        assert (await runtime.wait(started.run, timeout_s=30)).outcome == "done"
        assert len(await events(runtime, started.run, ev.BundleChanged)) == 1
        again = await runtime.start("desk", "back again", session="s")
        await runtime.wait(again.run, timeout_s=30)
        first, second = [told(await events(runtime, run, ev.ToolCallFinished)) for run in (started.run, again.run)]
    finally:
        await runtime.aclose(grace_s=1.0)
    assert [text.split("\n")[:2] for text in (*first, *second)] == [
        ["[skill refunds 1]", "The word of the house is plover."],
        ["[skill refunds 2]", "The word of the house is curlew."],
    ]
    assert done == [9900]
