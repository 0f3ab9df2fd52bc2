"""Following runs: gapless from any seq, with the call in the making; waiting; and what a shutdown says."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from stanchion import InputError, Runtime
from stanchion.core import event as ev
from stanchion.core.errors import ModelError, NotFound
from stanchion.runtime import Draining, LiveDelta
from stanchion.testing import ScriptedModel, call
from tests.engine.rig import HeldModel, World, agent, echo, events, once, over, running, texts
from tests.waiting import until

LONG = ScriptedModel([[call("look", order=str(n)) for n in range(30)] for _ in range(12)] + ["Done."])


async def follow(runtime: Runtime, run: str, after: int = 0, **more: Any) -> list[ev.Entry]:
    return [item async for item in runtime.tail(run, after=after, deltas=False, **more) if isinstance(item, ev.Entry)]


async def test_gapless_from_any_seq(tmp_path: Path) -> None:
    """During and after a run of some nine hundred events, from any seq, each reader has every later event once, in order."""
    async with running(tmp_path, LONG, agent(approvals=[])) as runtime:
        run = (await runtime.start("desk", "Go.")).run
        readers = [asyncio.create_task(follow(runtime, run)) for _ in range(20)]
        readers += [asyncio.create_task(follow(runtime, run, 1)) for _ in range(5)]
        async for item in runtime.tail(run, deltas=False):
            if isinstance(item, ev.Entry) and item.seq in (50, 300, 700):
                readers.append(asyncio.create_task(follow(runtime, run, item.seq)))
        for reader in readers:
            seqs = [entry.seq for entry in await reader]
            assert seqs == list(range(seqs[0], seqs[0] + len(seqs)))
        last = (await runtime.view(run)).seq
        assert last > 800
        for after in (0, 1, 255, 256, 257, 512, last - 1, last):
            assert [entry.seq for entry in await follow(runtime, run, after)] == list(range(after + 1, last + 1))
        assert runtime._live._topics == {}


@pytest.mark.parametrize("after", [-1, 99])
async def test_from_a_seq_that_there_is_not(tmp_path: Path, after: int) -> None:
    """A seq that a run has not reached is refused, and does not wait for ever."""
    async with running(tmp_path, echo()) as runtime:
        run = (await runtime.start("desk", "Go.")).run
        await over(runtime, run)
        with pytest.raises(InputError, match="after"):
            await follow(runtime, run, after)
        with pytest.raises(NotFound):
            await follow(runtime, "run_none")


async def test_deltas_and_the_text_so_far(tmp_path: Path) -> None:
    """Deltas come as the model speaks, with their place; who attaches late has the text so far as one piece."""
    model = HeldModel("One", " two", " three.")
    async with running(tmp_path, model) as runtime:
        run = (await runtime.start("desk", "Count.")).run
        await model.began.wait()
        early: list[Any] = []

        async def read() -> None:
            async for item in runtime.tail(run):
                early.append(item)

        reading = asyncio.create_task(read())
        await until(lambda: bool(early) and isinstance(early[-1], LiveDelta))
        model.say("-1")  # (no letter: with some of them a secret may begin, and they are held back)
        await until(lambda: early[-1].text == "-1")
        model.say("-2")
        async with aclosing(runtime.tail(run)) as late:
            first = [await anext(late) for _ in range(3)]
        assert isinstance(first[2], LiveDelta)
        assert (first[2].turn, first[2].attempt, first[2].offset, first[2].text) == (1, 1, 0, "One-1-2")
        model.gate.set()
        await reading
        deltas = [item for item in early if isinstance(item, LiveDelta)]
        assert "One-1-2 two three.".startswith(texts(deltas))
        assert [delta.offset for delta in deltas] == [len(texts(deltas[:n])) for n in range(len(deltas))]
        assert [item.seq for item in early if isinstance(item, ev.Entry)] == [1, 2, 3, 4]
        assert runtime._live._topics == {}


async def test_a_failed_attempt_voids_its_text(tmp_path: Path) -> None:
    """An attempt that failed is told by its event, and the next attempt's deltas begin anew under their own number."""
    tries = 0
    model = HeldModel("Wrong")

    class Failing(HeldModel):
        async def call(self, request: Any, **more: Any) -> Any:
            nonlocal tries
            tries += 1
            if tries == 1:
                self.on_deltas = more["on_deltas"]
                self.say("Wrong")
                self.began.set()
                await self.gate.wait()
                raise ModelError("cut", code="cut", retryable=True, retry_after_s=0)
            return await super().call(request, **more)

    model = Failing("Right", " one.")
    async with running(tmp_path, model) as runtime:
        run = (await runtime.start("desk", "Say.")).run
        seen: list[Any] = []
        async with asyncio.timeout(10):
            async for item in runtime.tail(run):
                seen.append(item)
                if isinstance(item, LiveDelta):
                    model.gate.set()
        order = [item if isinstance(item, LiveDelta) else item.event for item in seen]
        wrong = next(n for n, item in enumerate(order) if isinstance(item, LiveDelta) and item.text == "Wrong")
        failed = next(n for n, item in enumerate(order) if isinstance(item, ev.ModelCallFailed))
        assert wrong < failed
        assert all(item.attempt == 2 for item in order[failed:] if isinstance(item, LiveDelta))
        assert (await runtime.view(run)).text == "Right one."


async def test_a_slow_reader_gets_one_piece_and_slows_nobody(tmp_path: Path) -> None:
    """A reader who does not read costs the run nothing, and is given what he missed joined."""
    model = HeldModel("0")
    async with running(tmp_path, model) as runtime:
        run = (await runtime.start("desk", "Count.")).run
        await model.began.wait()
        async with aclosing(runtime.tail(run)) as slow:
            for _ in range(3):
                await anext(slow)
            for number in range(1, 1000):
                model.say(f" {number}")
            delta = await anext(slow)
            assert isinstance(delta, LiveDelta)
            assert delta.text == "".join(f" {number}" for number in range(1, 1000))
            model.gate.set()
            await over(runtime, run)
            assert [item.seq async for item in slow if isinstance(item, ev.Entry)] == [3, 4]


async def test_a_reader_who_leaves_leaves_nothing(tmp_path: Path) -> None:
    """Readers that come and go leave no trace in memory."""
    model = HeldModel()
    async with running(tmp_path, model) as runtime:
        run = (await runtime.start("desk", "Count.")).run
        await model.began.wait()
        for _ in range(50):
            async with aclosing(runtime.tail(run)) as reader:
                await anext(reader)
        tasks = [asyncio.create_task(follow(runtime, run)) for _ in range(50)]
        await until(lambda: len(runtime._live._topics["default", run].watches) == len(tasks))
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert runtime._live._topics["default", run].watches == []
        model.gate.set()
        await over(runtime, run)
        assert runtime._live._topics == {}


async def test_many_watchers(tmp_path: Path) -> None:
    """Two hundred readers of one run all see its whole."""
    model = ScriptedModel([call("look", order="A"), "Done."])
    async with running(tmp_path, model) as runtime:
        run = (await runtime.start("desk", "Go.")).run
        said = await asyncio.gather(*(follow(runtime, run) for _ in range(200)))
        assert {tuple(entry.seq for entry in entries) for entries in said} == {tuple(range(1, 10))}


async def test_wait(tmp_path: Path) -> None:
    """Waiting ends with the run, with a person's turn, or with its time; not for runs that there are not."""
    world, model = World(), HeldModel()
    async with running(tmp_path, model, agent(world)) as runtime:
        run = (await runtime.start("desk", "Count.")).run
        began = asyncio.get_running_loop().time()
        assert (await runtime.wait(run, timeout_s=0.1)).status == "runnable"
        assert asyncio.get_running_loop().time() - began < 2
        waiting = asyncio.create_task(runtime.wait(run))
        await model.began.wait()
        model.gate.set()
        assert (await waiting).text == "One two."
        assert (await runtime.wait(run)).outcome == "done"
        with pytest.raises(NotFound):
            await runtime.wait("run_none")
    async with running(tmp_path, once("refund", order="A", cents=1), agent(world)) as runtime:
        run = (await runtime.start("desk", "Refund.")).run
        assert (await runtime.wait(run)).waiting[0].tool == "refund"


async def test_shutdown_ends_what_follows(tmp_path: Path) -> None:
    """Streams and waits end with a reason that says to come back, those that begin after it as well."""
    model = HeldModel()
    runtime = await Runtime.open(agent(), data=tmp_path / "t.db", clients={"*": model})
    run = (await runtime.start("desk", "Count.")).run
    await model.began.wait()
    tasks = [asyncio.create_task(follow(runtime, run)), asyncio.create_task(runtime.wait(run))]
    await until(lambda: len(runtime._live._topics["default", run].watches) == len(tasks))
    runtime.begin_drain()
    for task in tasks:
        with pytest.raises(Draining) as told:
            await task
        assert (told.value.code, told.value.retryable) == ("draining", True)
    with pytest.raises(Draining):
        await follow(runtime, run)
    assert not runtime.ready
    model.gate.set()
    await runtime.aclose()


async def test_thousands_leave_no_growth(tmp_path: Path) -> None:
    """After two thousand runs, with a reader for some, nothing of them is left in memory but a bounded cache."""
    async with running(tmp_path, echo(), agent(tools=[], approvals=[])) as runtime:
        runtime._loader._most = 200_000
        tasks = len(asyncio.all_tasks())
        for batch in range(20):
            started = await asyncio.gather(*(runtime.start("desk", f"Hello {batch}.{n}") for n in range(100)))
            await asyncio.gather(*(over(runtime, one.run) for one in started[:20]))
            for one in started[20:]:
                await runtime.wait(one.run, timeout_s=10)
        await until(lambda: runtime.active == 0)
        assert runtime._live._topics == {}
        assert runtime._loader._size <= 200_000
        assert len(runtime._loader._left) <= 50
        assert len(asyncio.all_tasks()) <= tasks


async def test_events_of_a_run_that_ended_before_it_was_watched(tmp_path: Path) -> None:
    """A run that is over is told whole, at once."""
    async with running(tmp_path, echo()) as runtime:
        run = (await runtime.start("desk", "Hello")).run
        await over(runtime, run)
        assert [type(event).__name__ for event in await events(runtime, run)] == [
            type(entry.event).__name__ for entry in await follow(runtime, run)
        ]
