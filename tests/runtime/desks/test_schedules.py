"""Schedules: each time starts one run, whoever sees it, whoever dies, and what was missed is done once or left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stanchion import InputError, Limits, Runtime
from stanchion.core import event as ev
from stanchion.core.errors import Conflict, JournalError, NotFound
from stanchion.testing import FakeClock
from stanchion.testing.memory import MemoryStore
from stanchion.testing.memory_schedule import MemorySchedules
from tests.engine.rig import HeldModel, agent, echo, over, running, until_event
from tests.waiting import until


async def moved(runtime: Runtime, name: str, last_ms: int) -> Any:
    """Wait until a schedule has done a time."""
    return await until(lambda: runtime.schedules.show(name), lambda view: view.last_ms >= last_ms)


async def test_a_time_starts_a_run(tmp_path: Path) -> None:
    """When its time comes a run starts, in a session of its own, with what the schedule says; then the next time stands."""
    clock = FakeClock()
    async with running(tmp_path, echo(), clock=clock) as runtime:
        made = await runtime.schedules.add(
            "daily", "0 9 * * *", "desk", "Report.", tz="Europe/Berlin", user="ann", limits=Limits(usd="0.50", turns=3)
        )
        assert len(made.next_ms) == 5
        assert made.next_ms[0] - clock.now_ms() == 8 * 3_600_000  # nine in Berlin is eight UTC in January
        clock.advance(8 * 3_600)
        view = await moved(runtime, "daily", made.next_ms[0])
        run = await over(runtime, view.last_run)
        assert (run.text, run.user, run.outcome) == ("You said: Report.", "ann", "done")
        assert (await runtime.store.run("default", view.last_run)).priority < 0  # type: ignore[union-attr]
        first = (await runtime.store.read("default", view.last_run))[0].event
        assert isinstance(first, ev.RunStarted)
        assert (first.caps.turns, first.caps.nano_usd) == (3, 500_000_000)
        assert view.next_ms[0] == made.next_ms[1]
        clock.advance(24 * 3_600)
        second = await moved(runtime, "daily", made.next_ms[1])
        assert second.last_run != view.last_run
        assert (await over(runtime, second.last_run)).session != run.session
        assert len(await runtime.runs()) == 2


async def test_many_workers_start_one_run_for_each_time() -> None:
    """Five workers on one store that all see each time: one run each."""
    clock, first = FakeClock(), MemoryStore()
    stores = [first, *(MemoryStore(first.tables, clock=clock.now_ms) for _ in range(5))]
    runtimes = [await Runtime.open(agent(), store=store, clients={"*": echo()}, clock=clock) for store in stores[1:]]
    try:
        made = await runtimes[0].schedules.add("often", "*/5 * * * *", "desk", "hi")
        for number in range(4):
            clock.advance(300)
            await moved(runtimes[number], "often", made.next_ms[number])
        assert len(await runtimes[0].runs(limit=200)) == 4
    finally:
        for runtime in runtimes:
            await runtime.aclose(grace_s=1)


async def test_a_crash_between_the_start_and_the_move_starts_nothing_twice(tmp_path: Path) -> None:
    """The worker that died after the start left the time due: the next one finds the run there already, and moves on."""

    class Dying(MemorySchedules):
        dead = True

        async def fired(self, *place: Any, **said: Any) -> bool:
            if self.dead:
                raise JournalError("the process died here")
            return await super().fired(*place, **said)

    clock = FakeClock()
    store = MemoryStore(clock=clock.now_ms)
    store.schedules = Dying(store, clock.now_ms)
    runtime = await Runtime.open(agent(), store=store, clients={"*": echo()}, clock=clock)
    made = await runtime.schedules.add("daily", "@daily", "desk", "hi")
    clock.advance(86_400)
    await until(runtime.runs)
    assert (await runtime.schedules.show("daily")).last_ms == 0
    await runtime.aclose(grace_s=1)
    other = MemoryStore(store.tables, clock=clock.now_ms)
    async with await Runtime.open(agent(), store=other, clients={"*": echo()}, clock=clock) as runtime:
        view = await moved(runtime, "daily", made.next_ms[0])
        assert [row.run for row in await runtime.runs()] == [view.last_run]


@pytest.mark.parametrize(("if_missed", "runs"), [("run_once", 1), ("skip", 0)])
async def test_times_that_were_missed(tmp_path: Path, if_missed: Any, runs: int) -> None:
    """Nobody was there for three days: the missed times are one run, or none; and then it goes on as ever."""
    clock = FakeClock()
    async with running(tmp_path, echo(), clock=clock) as runtime:
        made = await runtime.schedules.add("daily", "0 9 * * *", "desk", "hi", if_missed=if_missed)
    clock.advance(3 * 86_400)
    async with running(tmp_path, echo(), clock=clock) as runtime:
        view = await moved(runtime, "daily", made.next_ms[0])
        assert len(await runtime.runs()) == runs
        assert ("missed" in view.note) == (not runs)
        assert view.next_ms[0] == made.next_ms[3]
        clock.advance(9 * 3_600)
        await moved(runtime, "daily", made.next_ms[3])
        assert len(await runtime.runs()) == runs + 1


@pytest.mark.parametrize(("if_busy", "runs"), [("skip", 1), ("queue", 2)])
async def test_a_session_that_is_busy(tmp_path: Path, if_busy: Any, runs: int) -> None:
    """With one session for all runs, a time that comes while one goes on is left out, or waits its turn."""
    clock, held = FakeClock(), HeldModel()
    async with running(tmp_path, held, clock=clock) as runtime:
        made = await runtime.schedules.add("daily", "@every 10s", "desk", "hi", session="reports", if_busy=if_busy)
        clock.advance(10)
        first = await moved(runtime, "daily", made.next_ms[0])
        await held.began.wait()
        clock.advance(10)
        second = await moved(runtime, "daily", made.next_ms[1])
        assert len(await runtime.runs(session="reports")) == runs
        assert (first.last_run == second.last_run) == (if_busy == "skip")
        assert ("has a live run" in second.note) == (if_busy == "skip")
        held.gate.set()
        for row in await runtime.runs():
            await over(runtime, row.run)


async def test_paused_resumed_run_now_and_removed(tmp_path: Path) -> None:
    """A paused schedule does nothing; resumed it goes on with its next time; it can be made due now."""
    clock = FakeClock()
    async with running(tmp_path, echo(), clock=clock) as runtime:
        made = await runtime.schedules.add("daily", "@daily", "desk", "hi")
        assert (await runtime.schedules.pause("daily")).next_ms == []
        with pytest.raises(Conflict, match="paused"):
            await runtime.schedules.run("daily")
        clock.advance(2 * 86_400)
        view = await runtime.schedules.resume("daily")
        assert view.next_ms[0] == made.next_ms[2]
        now_ms = clock.now_ms()
        await runtime.schedules.run("daily")
        view = await moved(runtime, "daily", now_ms)
        assert (view.last_ms, view.next_ms[0]) == (now_ms, made.next_ms[2])
        await over(runtime, view.last_run)
        await runtime.schedules.remove("daily")
        with pytest.raises(NotFound):
            await runtime.schedules.show("daily")
        assert len(await runtime.runs()) == 1


async def test_what_cannot_start_says_why(tmp_path: Path) -> None:
    """A spent budget: the time starts no run, the note says why, and the next time is tried again."""
    clock = FakeClock()
    async with running(tmp_path, echo(), clock=clock) as runtime:
        await over(runtime, (await runtime.start("desk", "hi", session="s")).run)
        other = agent(name="other")
        made = await runtime.schedules.add("daily", "@daily", "desk", "hi", session="s")
        assert other.name not in runtime.agents
        with pytest.raises(NotFound, match="there are: desk"):
            await runtime.schedules.add("x", "@daily", "other", "hi")
        clock.advance(86_400)
        view = await moved(runtime, "daily", made.next_ms[0])
        assert view.note == ""
        assert (await over(runtime, view.last_run)).session == "s"
    async with running(tmp_path, echo(), agent(name="other"), clock=clock) as runtime:
        made = await runtime.schedules.add("theirs", "@daily", "other", "hi", session="s")
        clock.advance(86_400)
        view = await moved(runtime, "theirs", made.next_ms[0])
        assert "belongs to agent 'desk'" in view.note
        assert view.last_run == ""
        assert (await runtime.schedules.show("daily")).next_ms[0] <= clock.now_ms(), "nobody serves its agent: it waits"


async def test_what_may_not_be_asked(tmp_path: Path) -> None:
    """Each refusal names the field; a name is taken once, and may be replaced with its history."""
    async with running(tmp_path, echo()) as runtime:
        add = runtime.schedules.add
        for change, field in (
            ({"name": ""}, "name"),
            ({"name": "a b"}, "name"),
            ({"cron": "0 9 * *"}, "cron"),
            ({"tz": "Mars/Base"}, "tz"),
            ({"agent": "nobody"}, "agent"),
            ({"input": " "}, "input"),
            ({"input": "a\0b"}, "input"),
            ({"session": "a/b"}, "session"),
            ({"if_busy": "wait"}, "if_busy"),
            ({"if_missed": "all"}, "if_missed"),
            ({"priority": "high"}, "priority"),
            ({"limits": Limits(turns=-1)}, "limits.turns"),
        ):
            asked: dict[str, Any] = {"name": "x", "cron": "@daily", "agent": "desk", "input": "hi"} | change
            with pytest.raises(InputError) as refused:
                await add(**asked)
            assert refused.value.field == field
        await add("x", "@daily", "desk", "hi")
        with pytest.raises(Conflict, match="there is a schedule 'x' already"):
            await add("x", "@hourly", "desk", "hi")
        assert (await add("x", "@hourly", "desk", "hi", replace=True)).cron == "@hourly"
        assert [view.name for view in await runtime.schedules.ls()] == ["x"]
        assert not await runtime.schedules.ls(tenant="other")
        for missing in (runtime.schedules.pause("y"), runtime.schedules.resume("y"), runtime.schedules.remove("y")):
            with pytest.raises(NotFound):
                await missing


async def test_a_schedule_made_without_a_driver_is_done_by_one(tmp_path: Path) -> None:
    """A command that only looks and posts makes the schedule; whoever drives the store starts its runs."""
    async with running(tmp_path, echo()) as runtime:
        async with await Runtime.open(data=tmp_path / "t.db", drive=False) as beside:
            await beside.schedules.add("daily", "@daily", "desk", "hi")
            due = await beside.schedules.run("daily")
            view = await moved(beside, "daily", due.next_ms[0])
        await until_event(runtime, view.last_run, ev.RunFinished)
