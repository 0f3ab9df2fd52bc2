"""Who starts at once, who waits, who is one too many; and what is said of it."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from stanchion import Runtime
from stanchion.agent import Agent
from stanchion.core import event as ev
from stanchion.core.errors import ConfigError, InputError, QueueFull
from stanchion.journal.share import BATCH, Place
from stanchion.model.client import ModelClient
from stanchion.runtime.runs.admission import retry_after_s
from tests.engine.rig import HeldModel, agent, once, over, running, until_event
from tests.waiting import until


async def order_of_beginnings(runtime: Runtime, runs: list[str]) -> list[str]:
    """Sort runs by the time of their first model call."""
    begun: list[tuple[int, str]] = []
    for run in runs:
        entries = await runtime.store.read("default", run)
        begun.append((next(e.at_ms for e in entries if isinstance(e.event, ev.ModelCallStarted)), run))
    return [run for _, run in sorted(begun)]


async def test_runs_wait_for_a_slot_and_say_where_they_stand(tmp_path: Path) -> None:
    """With one slot the second and third wait, interactive before batch; each says its place, and begins in turn."""
    model = HeldModel()
    async with running(tmp_path, model, max_active=1) as runtime:
        first = await runtime.start("desk", "One")
        slow = await runtime.start("desk", "Two", priority="batch")
        quick = await runtime.start("desk", "Three")
        assert (first.queued, slow.queued, quick.queued) == (False, True, True)
        assert (await runtime.view(first.run)).queue is None
        places = [(await runtime.view(one.run)).queue for one in (quick, slow)]
        assert [place and (place.position, place.ahead_of_you_in_your_tenant) for place in places] == [(1, 0), (2, 0)]
        row = await runtime.store.run("default", slow.run)
        assert row is not None
        assert (row.priority, row.epoch) == (BATCH, 0)
        behind = await runtime.start("desk", "Four", session=first.session, if_busy="queue")
        queue = (await runtime.view(behind.run)).queue
        assert queue is not None
        assert (queue.position, queue.behind) == (None, first.run)
        model.gate.set()
        for one in (quick, behind, slow):
            view = await over(runtime, one.run)
            assert (view.outcome, view.queue) == ("done", None)
        assert await order_of_beginnings(runtime, [slow.run, quick.run, behind.run]) == [
            quick.run,
            behind.run,
            slow.run,
        ]


async def test_batch_leaves_room_for_people(tmp_path: Path) -> None:
    """Batch runs fill all slots but a tenth; an interactive run starts at once beside them."""
    model = HeldModel()
    async with running(tmp_path, model, max_active=10) as runtime:
        runs = [await runtime.start("desk", f"{number}", priority="batch") for number in range(12)]
        await until(lambda: runtime.active == 9)
        assert not (await runtime.start("desk", "Now")).queued
        assert runtime.active == 10
        model.gate.set()
        for one in runs:
            assert (await over(runtime, one.run)).outcome == "done"


async def test_an_agent_says_of_which_class_its_runs_are(tmp_path: Path) -> None:
    """`Agent(priority=..)` is what a start goes by that says nothing; other words are refused."""
    async with running(tmp_path, HeldModel(), agent(priority="batch"), max_active=1) as runtime:
        rows = [await runtime.start("desk", "a"), await runtime.start("desk", "b", priority="interactive")]
        found = [await runtime.store.run("default", started.run) for started in rows]
        assert [row and row.priority for row in found] == [BATCH, 0]
        with pytest.raises(InputError, match='priority: must be "interactive" or "batch"'):
            await runtime.start("desk", "c", priority="high")
    with pytest.raises(ConfigError, match="priority must be"):
        Agent(name="x", identity="x", model="openai:m", priority="slow")  # type: ignore[arg-type]


async def test_a_queue_has_an_end(tmp_path: Path) -> None:
    """Above `max_queued` a start is refused with the bound, the place and when to come back, and nothing is kept."""
    model = HeldModel()
    async with running(tmp_path, model, max_active=1) as runtime:
        await runtime.shares.set(tenant="default", max_queued=2)
        first = await runtime.start("desk", "0")
        kept = [await runtime.start("desk", "1", idempotency_key="k"), await runtime.start("desk", "2")]
        with pytest.raises(QueueFull) as refused:
            await runtime.start("desk", "3", idempotency_key="l", session="s")
        error = refused.value
        assert (error.code, error.bound, error.limit, error.position) == ("queue_full", "tenant.max_queued", 2, 3)
        assert error.retryable
        assert error.retry_after_s >= 1
        assert await runtime.store.session("default", "s") is None
        assert len(await runtime.runs()) == 3
        assert (await runtime.start("desk", "1", idempotency_key="k")).run == kept[0].run
        other = await runtime.start("desk", "of another tenant", tenant="other")
        assert other.queued
        with pytest.raises(QueueFull):
            await runtime.start("desk", "behind", session=first.session, if_busy="queue")
        model.gate.set()
        for one in kept:
            await over(runtime, one.run)
        later = await runtime.start("desk", "3", idempotency_key="l")
        assert (await over(runtime, later.run)).outcome == "done"


async def test_a_cap_makes_runs_wait(tmp_path: Path) -> None:
    """A user's second run waits while the first is driven, and begins when the first waits for a person."""
    async with running(tmp_path, once("refund", order="A", cents=5)) as runtime:
        await runtime.shares.set("user:*", max_running=1)
        model = HeldModel()
        clients = cast("list[ModelClient]", runtime._bound["desk"].clients)
        quick, clients[0] = clients[0], model
        first = await runtime.start("desk", "Hello", user="ann")
        second = await runtime.start("desk", "Hello", user="ann")
        other = await runtime.start("desk", "Hello", user="ben")
        assert (first.queued, second.queued, other.queued) == (False, True, False)
        clients[0] = quick
        model.gate.set()
        await over(runtime, first.run)
        await until_event(runtime, second.run, ev.ToolCallJudged)  # (it asks for approval now, and holds no place)
        third = await runtime.start("desk", "Hello", user="ann")
        await until_event(runtime, third.run, ev.ToolCallJudged)


async def test_a_cancelled_run_goes_first(tmp_path: Path) -> None:
    """A run that is cancelled before it begins does not wait for those before it, and does nothing."""
    model = HeldModel()
    async with running(tmp_path, model, max_active=1) as runtime:
        await runtime.start("desk", "One")
        runs = [await runtime.start("desk", f"{number}") for number in range(3)]
        await runtime.cancel(runs[-1].run, by="ann")
        model.gate.set()
        view = await over(runtime, runs[-1].run)
        assert (view.outcome, view.usage.turns) == ("cancelled", 0)
        for one in runs[:2]:
            assert (await over(runtime, one.run)).outcome == "done"


async def test_shares_are_checked(tmp_path: Path) -> None:
    """What cannot be a share is refused with its field; what is set is listed."""
    runtime = await Runtime.open(data=tmp_path / "t.db", drive=False)
    bad = [
        ({"scope": "users"}, "scope"), ({"scope": "user:ann"}, "tenant"), ({"weight": 0}, "weight"),
        ({"max_running": -2}, "max_running"), ({"scope": "agent:a", "weight": 2}, "weight"),
    ]  # fmt: skip
    for given, field in bad:
        with pytest.raises(InputError) as refused:
            await runtime.shares.set(**given)  # type: ignore[arg-type]
        assert refused.value.field == field
    await runtime.shares.set(tenant="acme", weight=3)
    assert await runtime.shares.weight_of("acme") == 3
    assert [(row.tenant, row.weight) for row in await runtime.shares.list()] == [("acme", 3)]
    await runtime.aclose()


async def test_workers_say_that_they_are_there(tmp_path: Path) -> None:
    """A runtime that drives is listed with what it drives, until it is closed."""
    looking = await Runtime.open(data=tmp_path / "t.db", drive=False)
    async with running(tmp_path, HeldModel(), max_active=7) as runtime:
        row = (await until(looking.shares.workers))[0]
        assert (list(row.agents), row.max_active, row.adopts) == (["desk"], 7, True)
        assert row.agents["desk"] == runtime._bound["desk"].digest
    assert await looking.shares.workers() == []
    await looking.aclose()


def test_when_to_try_again() -> None:
    """By the rate at which runs began and the tenant's part of it; within bounds; a guess where there is no rate."""
    assert retry_after_s(Place(position=100, ahead=99, rate=10.0)) == 1
    assert retry_after_s(Place(position=4_000, ahead=999, rate=0.5)) == 8
    assert retry_after_s(Place(position=10, ahead=9, rate=0.00001)) == 3_600
    assert retry_after_s(Place(position=10, ahead=9, rate=0.0)) == 10
