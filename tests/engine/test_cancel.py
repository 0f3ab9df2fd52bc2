"""Cancel a run in each of its phases: nothing new begins, effects under way are awaited, and the end says what was done."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from stanchion import Runtime
from stanchion.core import event as ev
from stanchion.core.errors import Conflict, NotFound
from stanchion.testing import ScriptedModel, call
from tests.engine.rig import HeldModel, World, agent, echo, events, kinds, once, over, running, unchanged


async def cancelled(runtime: Runtime, run: str) -> None:
    view = await over(runtime, run)
    assert view.outcome == "cancelled", view
    (asked,) = await events(runtime, run, ev.CancelRequested)
    assert (asked.by, asked.parts[0].text) == ("ann", "changed my mind")
    await unchanged(runtime)


async def test_model_call_in_flight(tmp_path: Path) -> None:
    """The model call is stopped, and what it might have cost is settled."""
    model = HeldModel("One")
    async with running(tmp_path, model) as runtime:
        run = (await runtime.start("desk", "Count.")).run
        await model.began.wait()
        await runtime.cancel(run, by="ann", reason="changed my mind")
        await cancelled(runtime, run)
        (failed,) = await events(runtime, run, ev.ModelCallFailed)
        (started,) = await events(runtime, run, ev.ModelCallStarted)
        assert (failed.code, failed.cost) == ("cancelled", started.reserved)


async def test_read_in_flight(tmp_path: Path) -> None:
    """A read is stopped."""
    world = World()
    async with running(tmp_path, once("slow_look", order="A"), agent(world)) as runtime:
        run = (await runtime.start("desk", "Look.")).run
        await world.began.wait()
        await runtime.cancel(run, by="ann", reason="changed my mind")
        await cancelled(runtime, run)
        assert world.done == []
        (finished,) = await events(runtime, run, ev.RunFinished)
        assert (finished.done, finished.in_doubt) == ((), ())


async def test_effect_in_flight_is_awaited(tmp_path: Path) -> None:
    """An effect that has left is awaited, and the end says that it was done; what was proposed beside it is not begun."""
    world = World()
    model = ScriptedModel([[call("slow_note", text="x"), call("refund", order="A", cents=5)]])
    async with running(tmp_path, model, agent(world)) as runtime:
        run = (await runtime.start("desk", "Note.")).run
        await world.began.wait()
        await runtime.cancel(run, by="ann", reason="changed my mind")
        await runtime.cancel(run, by="bob")
        async with asyncio.timeout(10):
            async for item in runtime.tail(run, deltas=False):
                if isinstance(item, ev.Entry) and isinstance(item.event, ev.CancelRequested):
                    break
        assert (await runtime.view(run)).status == "runnable"
        world.gate.set()
        await cancelled(runtime, run)
        assert world.done == ["note x"]
        finished = await events(runtime, run, ev.ToolCallFinished)
        assert sorted(event.outcome for event in finished) == ["cancelled", "ok"]
        (end,) = await events(runtime, run, ev.RunFinished)
        assert len(end.done) == 1


async def test_effect_that_does_not_come_back_is_in_doubt(tmp_path: Path) -> None:
    """An effect that ends without a definite answer after the cancel is told to be in doubt."""
    world = World()

    from stanchion import tool

    @tool(effect="write", timeout_s=0.2)
    async def lost(text: str) -> str:
        """Never answer."""
        world.began.set()
        await asyncio.Event().wait()
        return text

    async with running(tmp_path, once("lost", text="x"), agent(tools=[lost], approvals=[])) as runtime:
        run = (await runtime.start("desk", "Note.")).run
        await world.began.wait()
        await runtime.cancel(run, by="ann", reason="changed my mind")
        await cancelled(runtime, run)
        view = await runtime.view(run)
        assert len(view.in_doubt) == 1
        assert view.done == []


async def test_waiting_for_a_person(tmp_path: Path) -> None:
    """A call that waits for a person is cancelled unasked."""
    world = World()
    async with running(tmp_path, once("refund", order="A", cents=5), agent(world)) as runtime:
        run = (await runtime.start("desk", "Refund.")).run
        assert (await runtime.wait(run, timeout_s=10)).waiting
        await runtime.cancel(run, by="ann", reason="changed my mind")
        await cancelled(runtime, run)
        assert world.done == []


async def test_waiting_for_the_next_try(tmp_path: Path) -> None:
    """A model call that waits for its next try is not tried again."""
    from stanchion.core.errors import ModelError

    def fail(_: object) -> ModelError:
        return ModelError("later", code="rate_limited", retryable=True, status=429, retry_after_s=3600)

    model = ScriptedModel(fail)
    async with running(tmp_path, model) as runtime:
        run = (await runtime.start("desk", "Hello")).run
        async with asyncio.timeout(10):
            async for item in runtime.tail(run, deltas=False):
                if isinstance(item, ev.Entry) and isinstance(item.event, ev.ModelCallFailed):
                    break
        await runtime.cancel(run, by="ann", reason="changed my mind")
        await cancelled(runtime, run)
        assert len(model.requests) == 1
        assert (await runtime.view(run)).usd == "0.00"


async def test_queued(tmp_path: Path) -> None:
    """A run that waits for its session ends, cancelled, as soon as it is its turn, and asks no model."""
    model = HeldModel()
    async with running(tmp_path, model) as runtime:
        first = (await runtime.start("desk", "One.", session="s")).run
        second = (await runtime.start("desk", "Two.", session="s", if_busy="queue")).run
        await runtime.cancel(second, by="ann", reason="changed my mind")
        model.gate.set()
        assert (await over(runtime, first)).outcome == "done"
        await cancelled(runtime, second)
        assert await kinds(runtime, second) == ["run_started", "cancel_requested", "run_finished"]
        assert len(model.requests) == 1


async def test_over_or_unknown(tmp_path: Path) -> None:
    """A run that is over cannot be cancelled, nor one that there is not."""
    async with running(tmp_path, echo()) as runtime:
        run = (await runtime.start("desk", "Hello")).run
        await over(runtime, run)
        with pytest.raises(Conflict, match="over"):
            await runtime.cancel(run)
        with pytest.raises(NotFound):
            await runtime.cancel("run_none")
        with pytest.raises(NotFound):
            await runtime.cancel(run, tenant="other")
