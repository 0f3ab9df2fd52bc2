"""The process goes down, with grace or without, and comes back: everything goes on, and nothing is done twice."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest

from stanchion import Agent, Model, Runtime, ToolContext, price_usd, tool
from stanchion.core import event as ev
from stanchion.core.errors import Conflict, ModelError
from stanchion.runtime import Draining
from stanchion.testing import FakeClock, ScriptedModel, call
from tests.engine.rig import (
    HeldModel,
    World,
    agent,
    echo,
    events,
    kinds,
    once,
    over,
    running,
    tools,
    unchanged,
    until_event,
)
from tests.waiting import until


async def opened(path: Path, client: Any, *agents: Agent, **more: Any) -> Runtime:
    return await Runtime.open(*(agents or [agent()]), data=path / "t.db", clients={"*": client}, **more)


async def test_drain_lets_the_model_call_finish(tmp_path: Path) -> None:
    """Within the grace a model call finishes and is journaled; its tool begins in the next process."""
    world, model = World(), HeldModel()
    runtime = await opened(tmp_path, model, agent(world))
    run = (await runtime.start("desk", "Count.")).run
    await model.began.wait()
    closing = asyncio.create_task(runtime.aclose(grace_s=10))
    await until(lambda: not runtime.ready)
    with pytest.raises(Draining):
        await runtime.start("desk", "More.")
    model.gate.set()
    await closing
    async with running(tmp_path, echo(), agent(world)) as again:
        assert (await over(again, run)).text == "One two."
        assert await kinds(again, run) == ["run_started", "model_call_started", "model_call_finished", "run_finished"]


async def test_drain_stops_a_model_call_that_takes_longer(tmp_path: Path) -> None:
    """A model call that is slower than the grace is stopped and journaled, and made again by the next process."""
    model = HeldModel()
    runtime = await opened(tmp_path, model)
    run = (await runtime.start("desk", "Count.")).run
    await model.began.wait()
    await runtime.aclose(grace_s=0.2)
    async with running(tmp_path, ScriptedModel(["Again."])) as again:
        assert (await over(again, run)).text == "Again."
        (failed,) = await events(again, run, ev.ModelCallFailed)
        assert failed.code == "cancelled"
        await unchanged(again)


async def test_drain_waits_for_an_effect(tmp_path: Path) -> None:
    """An effect that finishes within the grace has its outcome journaled; nothing else begins."""
    world = World()
    model = ScriptedModel([call("slow_note", text="x"), "Noted."])
    runtime = await opened(tmp_path, model, agent(world))
    run = (await runtime.start("desk", "Note.")).run
    await world.began.wait()
    closing = asyncio.create_task(runtime.aclose(grace_s=10))
    await until(lambda: not runtime.ready)
    world.gate.set()
    await closing
    assert len(model.requests) == 1
    async with running(tmp_path, model, agent(World())) as again:
        assert (await over(again, run)).text == "Noted."
        assert world.done == ["note x"]


async def test_drain_with_an_effect_slower_than_the_grace(tmp_path: Path) -> None:
    """An effect that outlives the grace is in doubt for the next process, which asks and does not repeat it."""
    world = World()
    model = ScriptedModel([call("slow_note", text="x"), "Noted."])
    runtime = await opened(tmp_path, model, agent(world))
    run = (await runtime.start("desk", "Note.")).run
    await world.began.wait()
    began = asyncio.get_running_loop().time()
    await runtime.aclose(grace_s=0.2)
    assert asyncio.get_running_loop().time() - began < 3
    fresh = World()
    async with running(tmp_path, model, agent(fresh)) as again:
        view = await again.wait(run, timeout_s=10)
        assert [waiting.kind for waiting in view.waiting] == ["in_doubt"]
        assert not fresh.began.is_set()
        await again.decide(run, view.waiting[0].call, "record", result="it was written")
        assert (await over(again, run)).text == "Noted."
        assert [event.code for event in await events(again, run, ev.ToolCallFailed)] == ["lost"]


async def test_read_in_flight_at_the_drain_is_made_again(tmp_path: Path) -> None:
    """A read is stopped by the drain, and made again."""
    world = World()
    model = once("slow_look", order="A")
    runtime = await opened(tmp_path, model, agent(world))
    run = (await runtime.start("desk", "Look.")).run
    await world.began.wait()
    await runtime.aclose(grace_s=0.2)
    fresh = World()
    fresh.gate.set()
    async with running(tmp_path, model, agent(fresh)) as again:
        assert (await over(again, run)).text == "A was shipped slowly"


async def test_start_during_the_drain(tmp_path: Path) -> None:
    """Starts that race with the shutdown are refused or durable, and none is lost or left hanging."""
    runtime = await opened(tmp_path, echo())
    starts = [asyncio.create_task(runtime.start("desk", f"Hello {n}")) for n in range(50)]
    await asyncio.sleep(0.005)
    await runtime.aclose(grace_s=5)
    said = await asyncio.gather(*starts, return_exceptions=True)
    accepted = [started.run for started in said if not isinstance(started, BaseException)]
    assert all(isinstance(found, Conflict | Exception) for found in said if isinstance(found, BaseException))
    async with running(tmp_path, echo()) as again:
        for run in accepted:
            assert (await over(again, run)).outcome == "done"
        for row in await again.runs(limit=100):
            assert (await over(again, row.run)).outcome == "done"


async def test_closing_twice_and_unopened(tmp_path: Path) -> None:
    """Closing again is nothing, and a runtime that only looks closes as well."""
    runtime = await opened(tmp_path, echo())
    await runtime.aclose()
    await runtime.aclose()
    assert (runtime.ready, runtime.active) == (False, 0)
    looking = await opened(tmp_path, echo(), drive=False)
    await looking.aclose()


async def test_retry_timer_is_durable(tmp_path: Path) -> None:
    """A run that waits an hour for its next try waits in the store, over a restart."""
    clock = FakeClock(draw=0.0)

    def fail(_: Any) -> Any:
        if clock.now_ms() < due:
            return ModelError("later", code="rate_limited", retryable=True, status=429, retry_after_s=3600)
        return "At last."

    due = clock.now_ms() + 3600_000
    model = ScriptedModel(fail)
    async with running(tmp_path, model, clock=clock) as runtime:
        run = (await runtime.start("desk", "Hello")).run
        await until_event(runtime, run, ev.ModelCallFailed)
        await until(lambda: runtime.active == 0)
        assert (await runtime.view(run)).status == "waiting"
    clock.advance(3599)
    async with running(tmp_path, model, clock=clock) as again:
        assert (await again.wait(run, timeout_s=0.7)).status == "waiting"
        assert len(model.requests) == 1
        clock.advance(2)
        assert (await over(again, run)).text == "At last."


@pytest.mark.parametrize("tenant", ["default", "acme"])
async def test_agent_that_is_missing_and_comes_back(tmp_path: Path, tenant: str) -> None:
    """A run whose agent is not served parks and says so; served again, it goes on by itself."""
    world = World()
    model = once("refund", order="A", cents=5)
    async with running(tmp_path, model, agent(world)) as runtime:
        await runtime.keys.add("acme", "test")
        run = (await runtime.start("desk", "Refund.", tenant=tenant)).run
        waiting = (await runtime.wait(run, tenant=tenant, timeout_s=10)).waiting[0]
    async with running(tmp_path, model, agent(name="other")) as runtime:
        await runtime.decide(run, waiting.call, "approve", tenant=tenant)
        view = await runtime.wait(run, tenant=tenant, timeout_s=10)
        assert (view.status, view.parked) == ("parked", "agent_missing")
        parked = (await events(runtime, run, ev.RunParked, tenant))[0]
        assert "no agent named 'desk'" in parked.parts[0].text
        await runtime.revive(run, tenant=tenant)
        await until_event(runtime, run, ev.RunParked, 2, tenant=tenant)
    async with running(tmp_path, model, agent(world)) as runtime:
        view = await over(runtime, run, tenant=tenant)
        assert (view.outcome, view.text, world.done) == ("done", "refunded 5", ["refund A 5"])
        assert [event.by for event in await events(runtime, run, ev.RunRevived, tenant)] == ["runtime"]
        await unchanged(runtime, tenant)
        with pytest.raises(Conflict, match="not parked"):
            await runtime.revive(run, tenant=tenant)


async def test_queued_run_whose_agent_is_missing(tmp_path: Path) -> None:
    """A run that parks before its first event starts when its agent is back."""
    model = HeldModel()
    runtime = await opened(tmp_path, model)
    first = (await runtime.start("desk", "One.", session="s")).run
    second = (await runtime.start("desk", "Two.", session="s", if_busy="queue")).run
    await model.began.wait()
    await runtime.aclose(grace_s=0.1)
    async with running(tmp_path, model, agent(name="other")) as looking:
        assert (await looking.wait(first, timeout_s=10)).parked == "agent_missing"
    async with running(tmp_path, echo()) as again:
        assert (await over(again, first)).text == "You said: One."
        assert (await over(again, second)).text == "You said: Two."


def changed(world: World, parameter: str = "text", **more: Any) -> Agent:
    """The agent with a `note` of another form."""

    @tool(effect="write", name="note")
    async def in_other_words(text: str) -> str:
        """Write something down, in other words."""
        world.done.append(f"new note {text}")
        return "noted anew"

    @tool(effect="write", name="note")
    async def of_another_form(words: str) -> str:
        """Write something down."""
        return "never"

    note: Any = in_other_words if parameter == "text" else of_another_form
    others = [one for one in tools(world) if one.name != "note"]
    return agent(world, tools=[*others, note], **more)


async def test_agent_changed_in_what_does_not_matter(tmp_path: Path) -> None:
    """Other words, limits or identity: the run goes on under the new bundle, and its journal says so."""
    world = World()
    model = ScriptedModel([call("refund", order="A", cents=5), call("note", text="x"), "Done."])
    async with running(tmp_path, model, agent(world)) as runtime:
        run = (await runtime.start("desk", "Refund.")).run
        waiting = (await runtime.wait(run, timeout_s=10)).waiting[0]
    async with running(tmp_path, model, changed(world, identity="Help more.")) as runtime:
        await runtime.decide(run, waiting.call, "approve")
        assert (await over(runtime, run)).outcome == "done"
        assert world.done == ["refund A 5", "new note x"]
        assert len(await events(runtime, run, ev.BundleChanged)) == 1
        assert [event.reason for event in await events(runtime, run, ev.PrefixReset)] == ["bundle"]
        await unchanged(runtime)


async def test_agent_changed_in_what_matters(tmp_path: Path) -> None:
    """A tool of another form: the run parks and says why; cancel works, and so does reviving with the old agent."""
    world = World()
    model = ScriptedModel([call("refund", order="A", cents=5), "Done."])
    async with running(tmp_path, model, agent(world)) as runtime:
        runs = [(await runtime.start("desk", "Refund.")).run for _ in range(2)]
        calls = [(await runtime.wait(run, timeout_s=10)).waiting[0].call for run in runs]
    async with running(tmp_path, model, changed(world, "words")) as runtime:
        for run, waiting in zip(runs, calls, strict=True):
            await runtime.decide(run, waiting, "approve")
            view = await runtime.wait(run, timeout_s=10)
            assert (view.status, view.parked) == ("parked", "bundle_changed")
            (parked,) = await events(runtime, run, ev.RunParked)
            assert "the parameters of 'note' changed" in parked.parts[0].text
        await runtime.cancel(runs[0])
        assert (await over(runtime, runs[0])).outcome == "cancelled"
        assert world.done == []
    async with running(tmp_path, model, agent(world)) as runtime:
        assert (await runtime.view(runs[1])).status == "parked"
        await runtime.revive(runs[1], by="eve")
        assert (await over(runtime, runs[1])).outcome == "done"
        assert world.done == ["refund A 5"]


_CRASHER = """
import asyncio, os, sys
from stanchion import Agent, Model, Runtime, price_usd, tool
from stanchion.testing import ScriptedModel, call

@tool(effect="read", retries=50)
def crash() -> str:
    "Kill the process."
    os._exit(9)

async def main(data):
    agent = Agent(name="desk", tools=[crash], model=Model("openai:m", price=price_usd(input="1", output="1")))
    model = ScriptedModel([call("crash"), "Never."])
    async with await Runtime.open(agent, data=data, clients={"*": model}) as runtime:
        rows = await runtime.runs()
        run = rows[0].run if rows else (await runtime.start("desk", "Go.")).run
        view = await runtime.wait(run, timeout_s=20)
        print(view.status, view.parked, flush=True)
        if view.status == "parked" and "revive" in sys.argv:
            await runtime.revive(run)
            await asyncio.Event().wait()  # until it is killed

asyncio.run(main(sys.argv[1]))
"""


async def _crash(data: Path, *more: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _CRASHER, str(data), *more, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    return process.returncode or 0, out.decode().strip()


async def test_dead_letter_after_a_crash_loop(tmp_path: Path) -> None:
    """A run that kills its process at each claim is parked after five, and tried again when it is revived."""
    data = tmp_path / "t.db"
    codes: list[int] = []
    out = ""
    for _ in range(8):
        code, out = await _crash(data)
        codes.append(code)
        if code == 0:
            break
    assert codes == [9] * 6 + [0]  # the start, which had the model's answer as its progress, and five claims
    assert out == "parked dead_letter"
    assert await _crash(data, "revive") == (9, "parked dead_letter")
    looking = await opened(tmp_path, echo(), drive=False)
    run = (await looking.runs())[0].run
    (parked,) = await events(looking, run, ev.RunParked)
    assert "5 times without progress" in parked.parts[0].text
    await looking.aclose()


async def test_contexts_stay_the_same_over_a_restart(tmp_path: Path) -> None:
    """The call's identity and key are the same in each attempt, in each process."""
    seen: list[tuple[str, str, int]] = []

    @tool(effect="write", timeout_s=60)
    async def keyed(text: str, context: ToolContext, *, key: str) -> str:
        """Write once."""
        seen.append((context.call, key, context.attempt))
        if len(seen) == 1:
            await asyncio.Event().wait()
        return "written"

    model = ScriptedModel([call("keyed", text="x"), "Done."])
    mine = agent(tools=[keyed], approvals=[])
    runtime = await opened(tmp_path, model, mine)
    run = (await runtime.start("desk", "Write.")).run
    await until(lambda: bool(seen))
    await runtime.aclose(grace_s=0)
    async with running(tmp_path, model, mine) as again:
        assert (await over(again, run)).outcome == "done"
    (first, second) = seen
    assert first[:2] == second[:2]
    assert (first[2], second[2]) == (1, 2)


async def test_fallback_that_is_gone(tmp_path: Path) -> None:
    """A run on a fallback that its agent no longer has goes on with what models there are."""
    clock = FakeClock(draw=0.0)
    gone = ScriptedModel(lambda _: ModelError("gone", code="not_found", retryable=False))
    later = ScriptedModel(lambda _: ModelError("later", code="rate_limited", retryable=True, retry_after_s=3600))
    two = agent(fallbacks=[Model("anthropic:backup", price=price_usd(input="1", output="1"))])
    clients = {"openai": gone, "anthropic": later}
    runtime = await Runtime.open(two, data=tmp_path / "t.db", clients=clients, clock=clock)
    run = (await runtime.start("desk", "Hello")).run
    await until_event(runtime, run, ev.ModelCallFailed, 2)
    await runtime.aclose()
    clock.advance(3601)
    async with running(tmp_path, echo(), clock=clock) as again:
        assert (await over(again, run)).text == "You said: Hello"
        assert len(await events(again, run, ev.BundleChanged)) == 1


async def test_who_adopts_none_leaves_the_runs_of_others_alone(tmp_path: Path) -> None:
    """A process for one run (`stanchion run`) neither drives nor parks what was left in the file; a server takes it up."""
    model = HeldModel()
    runtime = await opened(tmp_path, model)
    left = (await runtime.start("desk", "One.")).run
    await model.began.wait()
    await runtime.aclose(grace_s=0.1)
    mine = agent(name="other")
    async with await Runtime.open(mine, data=tmp_path / "t.db", clients={"*": echo()}, adopt=False) as one:
        own = (await one.start("other", "Mine.")).run
        assert (await over(one, own)).text == "You said: Mine."
        assert (await one.view(left)).status in ("runnable", "waiting")
    async with running(tmp_path, echo()) as server:
        assert (await over(server, left)).text == "You said: One."
