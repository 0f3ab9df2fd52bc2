"""Long runs over real HTTP: by the simulated provider's own bill, and with its context really full."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from stanchion import Agent, Limits, Model, Runtime, tool
from stanchion.compaction import Compaction
from stanchion.core import event as ev
from stanchion.core.conversation import history
from stanchion.core.fold import fold
from stanchion.core.state import State
from stanchion.policy import GuardRules
from stanchion.sim import Reply, ReplyCall, Rule, Script, SimServer, SimSettings, When
from tests.engine.rig import events

SUMMARY = "The parcels were looked up one after the other."
LOOKS = 40


@tool(effect="read", repeatable=True)
def look(n: int) -> dict[str, Any]:
    """Look a parcel up."""
    return {"parcel": f"PCL-{7_000 + n}", "weight": f"{n}.5 kg", "notes": "nothing to see here " * 60}


def script(*more: Rule) -> Script:
    """A model that looks forty parcels up, then answers; and one that sums up."""
    call = Reply(calls=(ReplyCall(name="look", arguments={"n": 1}),))
    return Script(
        rules=(
            *more,
            Rule(when=When(contains="You sum up the beginning"), reply=Reply(text=SUMMARY)),
            Rule(when=When(tool_result='"n": 0'), reply=Reply(text="unused")),
        ),
        default=call,
    )


@asynccontextmanager
async def opened(path: Path, agent: Agent, settings: SimSettings) -> AsyncIterator[tuple[Runtime, SimServer]]:
    sim = SimServer(settings)
    await sim.start()
    environment = {
        "ANTHROPIC_BASE_URL": sim.base_url, "ANTHROPIC_API_KEY": "sim-key",
        "OPENAI_BASE_URL": sim.openai_base_url, "OPENAI_API_KEY": "sim-key",
    }  # fmt: skip
    runtime = await Runtime.open(agent, data=path / "t.db", environment=environment)
    try:
        yield runtime, sim
    finally:
        await runtime.aclose(grace_s=1.0)
        await sim.stop()


def desk(model: str, compaction: Compaction | None, **options: Any) -> Agent:
    return Agent(
        name="desk",
        identity="You are the desk of a parcel service.",
        model=Model(model, max_output_tokens=500, context_tokens=options.pop("context_tokens", 200_000)),
        steps={"summarise": "anthropic:claude-haiku-4-5"} if model.startswith("anthropic") else {},
        tools=[look],
        compaction=compaction,
        limits=Limits(usd="20", turns=LOOKS),
        guard=GuardRules(mark=False),
        **options,
    )


@pytest.mark.parametrize("model", ["anthropic:claude-sonnet-4-6", "openai:gpt-5.2", "openai-chat:gpt-5.2"])
async def test_a_long_run_pays_what_the_provider_billed(tmp_path: Path, model: str) -> None:
    """On every wire: its own cost is the bill to the nano-dollar, summaries included; and it is less than without."""
    paid: list[int] = []
    for compaction in (Compaction(minimum_tokens=1_000), None):
        (tmp_path / str(bool(compaction))).mkdir()
        settings = SimSettings(script=script())
        async with opened(tmp_path / str(bool(compaction)), desk(model, compaction), settings) as (runtime, sim):
            started = await runtime.start("desk", "Look the parcels up.", session="s")
            view = await runtime.wait(started.run, timeout_s=60)
            assert (view.outcome, view.reason) == ("halted", "turns")
            entries = await runtime.store.read("default", started.run)
            state = fold(entries, State())
            bill = sim.bill.view().total.nano_usd
            assert state.totals.cost == bill
            found = [entry.event for entry in entries if isinstance(entry.event, ev.Compacted)]
            assert bool(found) is (compaction is not None)
            assert len(history(state)) == 2 * LOOKS + 1
            paid.append(bill)
    assert paid[0] < paid[1]


async def test_a_context_that_is_really_full_is_survived(tmp_path: Path) -> None:
    """The provider refuses what is longer than it takes; the agent was not told how long that is."""
    for compaction in (Compaction(when="room"), None):
        folder = tmp_path / str(bool(compaction))
        folder.mkdir()
        settings = SimSettings(script=script(), context_tokens=8_000)
        async with opened(folder, desk("anthropic:claude-sonnet-4-6", compaction), settings) as (runtime, sim):
            started = await runtime.start("desk", "Look the parcels up.", session="s")
            view = await runtime.wait(started.run, timeout_s=60)
            assert (view.outcome, view.reason) == ("halted", "turns"), view
            found = [event for event in await events(runtime, started.run) if isinstance(event, ev.Compacted)]
            assert {event.reason for event in found} == {"overflow"}
            assert sim.bill.view().total.refused == len(found)


async def test_where_it_is_known_how_long_it_is_nothing_is_refused(tmp_path: Path) -> None:
    """The next request's length is predicted, and the beginning is left out before it leaves."""
    settings = SimSettings(script=script(), context_tokens=8_000)
    agent = desk("anthropic:claude-sonnet-4-6", Compaction(when="room"), context_tokens=8_500)
    async with opened(tmp_path, agent, settings) as (runtime, sim):
        started = await runtime.start("desk", "Look the parcels up.", session="s")
        await runtime.wait(started.run, timeout_s=60)
        found = [event for event in await events(runtime, started.run) if isinstance(event, ev.Compacted)]
        assert {event.reason for event in found} == {"room"}
        assert sim.bill.view().total.refused == 0


async def test_the_history_tool_is_shown_from_the_first_turn(tmp_path: Path) -> None:
    """So that the list of tools never changes; without compaction there is none."""
    for compaction, shown in ((Compaction(), True), (None, False)):
        agent = desk("anthropic:claude-sonnet-4-6", compaction)
        assert ("read_history" in [spec.name for spec in agent.registry().specs]) is shown
