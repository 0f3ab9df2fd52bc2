"""What arrives just as a run is let go, or taken up: nothing that was accepted is lost, and nothing is done twice."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

from stanchion.core import event as ev
from stanchion.core.errors import Conflict
from stanchion.testing import ScriptedModel, call
from tests.engine.rig import World, agent, events, once, over, running, unchanged
from tests.waiting import until


async def test_messages_at_the_moment_of_parking(tmp_path: Path) -> None:
    """Messages that hit runs while they are being let go, again and again, all reach the journal, in order."""
    world, chance = World(), random.Random(7)
    model = ScriptedModel([call("refund", order="A", cents=1), "Done.", "Done again."])
    async with running(tmp_path, model, agent(world)) as runtime:
        runs = [(await runtime.start("desk", "Refund.")).run for _ in range(20)]

        async def talk(run: str) -> None:
            for number in range(15):
                await asyncio.sleep(chance.random() * 0.004)
                await runtime.send(run, str(number))

        await asyncio.gather(*(talk(run) for run in runs))
        for run in runs:
            view = await runtime.wait(run, timeout_s=10)
            await until(lambda: runtime.active == 0)
            said = [event.parts[0].text for event in await events(runtime, run, ev.MessageAdded)]
            assert said == [str(number) for number in range(15)]
            await runtime.decide(run, view.waiting[0].call, "approve")
            assert (await over(runtime, run)).outcome == "done"
        assert len(world.done) == 20
        await unchanged(runtime)


async def test_decisions_and_cancels_at_once(tmp_path: Path) -> None:
    """Approve, reject and cancel at the same moment: one holds, the effect is done once or not at all."""
    world = World()
    async with running(tmp_path, once("refund", order="A", cents=1), agent(world)) as runtime:
        runs = [(await runtime.start("desk", "Refund.")).run for _ in range(20)]
        for run in runs:
            waiting = (await runtime.wait(run, timeout_s=10)).waiting[0].call
            said = await asyncio.gather(
                runtime.decide(run, waiting, "approve"),
                runtime.decide(run, waiting, "reject"),
                runtime.cancel(run),
                return_exceptions=True,
            )
            assert all(error is None or isinstance(error, Conflict) for error in said), said
        done = 0
        for run in runs:
            view = await over(runtime, run)
            assert len(await events(runtime, run, ev.CallDecided)) <= 1
            assert view.in_doubt == []
            done += len(view.done)
        assert len(world.done) == done
        await unchanged(runtime)


async def test_dead_letter_can_be_cancelled(tmp_path: Path) -> None:
    """A run that is parked for its crashes ends when it is cancelled, without its code being run."""
    world = World()
    model = once("slow_look", order="A")
    async with running(tmp_path, model, agent(world)) as runtime:
        run = (await runtime.start("desk", "Look.")).run
        await world.began.wait()

    async with running(tmp_path, model, agent(world), drive=False) as looking:
        inner = looking.store
        claim = None
        for _ in range(6):  # as many processes that claimed it and died
            claim = await inner.claim("default", run, worker="w", lease_ms=0)
        assert claim is not None
        assert claim.attempts > 5
    async with running(tmp_path, model, agent(World())) as runtime:
        view = await runtime.wait(run, timeout_s=10)
        assert view.parked == "dead_letter"
        await runtime.cancel(run)
        assert (await over(runtime, run)).outcome == "cancelled"
        await unchanged(runtime)
