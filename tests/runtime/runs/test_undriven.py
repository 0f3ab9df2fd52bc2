"""Runs that are accepted in one process and driven by another: the start, its rules, and who hears of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from stanchion import Runtime
from stanchion.core import event as ev
from stanchion.core.errors import Conflict, NotFound
from tests.engine.rig import HeldModel, World, agent, echo, events, kinds, once, over, running, until_event


@asynccontextmanager
async def taking(path: Path) -> AsyncIterator[Runtime]:
    """A runtime that takes runs and drives none: it needs no model client."""
    runtime = await Runtime.open(agent(), data=path / "t.db", drive=False, environment={})
    try:
        yield runtime
    finally:
        await runtime.aclose(grace_s=1.0)


async def test_a_run_taken_here_is_driven_there(tmp_path: Path) -> None:
    """A run starts before there is a driver, with its first event alone; the driver finds it, and later ones beside it."""
    async with taking(tmp_path) as api:
        assert api.ready
        first = await api.start("desk", "Hello", session="s", user="ann")
        row = await api.store.run("default", first.run)
        assert row is not None
        assert (row.status, row.epoch, row.attempts, row.worker, row.seq) == ("runnable", 0, 0, "", 1)
        assert await kinds(api, first.run) == ["run_started"]
        async with running(tmp_path, echo()) as driver:
            assert (await over(driver, first.run)).text == "You said: Hello"
            second = await api.start("desk", "And now?", session="s")
            view = await api.wait(second.run, timeout_s=20)
            assert (view.status, view.text) == ("ended", "You said: And now?")
            started = (await events(api, second.run, ev.RunStarted))[0]
            assert started.base is not None
            assert started.base.run == first.run
            assert [verified.error async for verified in api.verify()] == ["", ""]


async def test_the_rules_of_a_start_hold(tmp_path: Path) -> None:
    """Keys, sessions, agents and budgets are checked as where a run is driven."""
    model = HeldModel()
    async with taking(tmp_path) as api, running(tmp_path, model) as driver:
        first = await api.start("desk", "Hello", session="s", idempotency_key="k")
        again = await driver.start("desk", "Hello", session="s", idempotency_key="k")
        assert (again.run, again.existing) == (first.run, True)
        with pytest.raises(Conflict) as refused:
            await api.start("desk", "Bye", session="s", idempotency_key="k")
        assert refused.value.code == "idempotency_mismatch"
        with pytest.raises(Conflict) as refused:
            await api.start("desk", "Bye", session="s")
        assert refused.value.code == "session_busy"
        with pytest.raises(NotFound, match="there is no agent"):
            await api.start("other", "Hello")
        queued = await api.start("desk", "Bye", session="s", if_busy="queue")
        model.gate.set()
        assert (await over(driver, first.run)).outcome == "done"
        assert (await over(driver, queued.run)).outcome == "done"
        await api.set_budget("user:ann", "0.000001")
        await over(driver, (await api.start("desk", "Hello")).run)  # another's
        poor = await api.start("desk", "Hello", user="ann")
        assert (await over(driver, poor.run)).outcome == "halted"
        assert [event.ledger for event in await events(api, poor.run, ev.BudgetRefused)] == ["user:ann"]


async def test_an_overdrawn_budget_refuses_the_start(tmp_path: Path) -> None:
    """Where a limit was set below what is spent, the start is refused at once, and its key may be used again."""
    async with taking(tmp_path) as api, running(tmp_path, echo()) as driver:
        await api.set_budget("tenant", "1")
        await over(driver, (await driver.start("desk", "Hello")).run)
        await api.set_budget("tenant", "0.000000001")
        with pytest.raises(Conflict) as refused:
            await api.start("desk", "Hello", idempotency_key="k")
        assert refused.value.code == "budget_exhausted"
        await api.set_budget("tenant", "1")
        assert not (await api.start("desk", "Hello", idempotency_key="k")).existing


async def test_a_stream_sees_a_run_driven_elsewhere(tmp_path: Path) -> None:
    """Who follows in the process that took the run gets every event, and the end."""
    async with taking(tmp_path) as api, running(tmp_path, echo()):
        run = (await api.start("desk", "Hello")).run
        assert (await until_event(api, run, ev.RunFinished)).outcome == "done"


async def test_a_driver_may_leave_a_run_to_whoever_has_time(tmp_path: Path) -> None:
    """`enqueue` in a process that drives: its own sweeper takes the run up at once, under epoch 1."""
    async with running(tmp_path, echo()) as runtime:
        found = (await runtime.start("desk", "Hello")).run
        await over(runtime, found)
        first = (await events(runtime, found, ev.RunStarted))[0]
        other = msgspec.structs.replace(first, run="run_x", session="t", base=None)
        bound = runtime._bound["desk"]
        said = await runtime._accepting.starter.enqueue(other, bound, "", "", "reject", priority=3)
        async with asyncio.timeout(20):
            assert (await over(runtime, said.run)).outcome == "done"
        row = await runtime.store.run("default", said.run)
        assert row is not None
        assert (row.epoch, row.priority) == (1, 3)


async def test_a_drain_that_breaks_off_an_effect_leaves_no_lease(tmp_path: Path) -> None:
    """An effect that outlives the grace is cut off and in doubt, and the run is free for others at once."""
    world = World()
    async with running(tmp_path, once("slow_note", text="hi"), agent(world)) as runtime:
        run = (await runtime.start("desk", "Note it.")).run
        await world.began.wait()
    async with taking(tmp_path) as looking:
        row = await looking.store.run("default", run)
        assert row is not None
        assert row.status == "runnable"
        assert row.lease_until_ms <= await looking.store.now_ms()
    async with running(tmp_path, once("note", text="hi")) as runtime:
        assert [waiting.kind for waiting in (await runtime.wait(run, timeout_s=20)).waiting] == ["in_doubt"]
