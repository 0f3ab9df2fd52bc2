"""Runs whose model calls wait for a batch: the same answers for half the price, whatever dies on the way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from stanchion import Agent, Limits, Model, Runtime, price_usd, tool
from stanchion.core import event as ev
from stanchion.core.errors import BrokenChain, JournalError
from stanchion.engine.batcher import Batcher, BatcherSettings
from stanchion.journal.sqlite import SqliteStore
from stanchion.model.providers import open_batches, resolve_endpoint
from stanchion.policy import GuardRules
from stanchion.sim import Reply, ReplyCall, Rule, Script, SimServer, SimSettings, When
from tests.engine.rig import events
from tests.waiting import until

DOLLAR = price_usd(input="1", output="2")
SCRIPT = Script(
    rules=(
        Rule(when=When(after="tool"), reply=Reply(text="The sum is ${tool}.")),
        Rule(
            when=When(user="add (?P<a>\\d+)"),
            reply=Reply(calls=(ReplyCall(name="add", arguments={"a": "${match.a}"}),)),
        ),
    )
)


@tool(effect="read")
def add(a: str) -> str:
    """Add one to a number."""
    return str(int(a) + 1)


def agent(model: str = "anthropic:claude-test", **options: Any) -> Agent:
    """Make the agent."""
    return Agent(name="desk", model=Model(model, price=DOLLAR), tools=[add], guard=GuardRules(mark=False), **options)


@pytest.fixture
async def sim() -> AsyncIterator[SimServer]:
    """A provider whose batches take a tenth of a second."""
    server = SimServer(SimSettings(script=SCRIPT, batch_s=0.1))
    await server.start()
    yield server
    await server.stop()


def environment(sim: SimServer) -> Mapping[str, str]:
    """Point every provider at the simulated one."""
    return {
        "ANTHROPIC_BASE_URL": sim.base_url,
        "ANTHROPIC_API_KEY": "sim-key",
        "OPENAI_BASE_URL": sim.openai_base_url,
        "OPENAI_API_KEY": "sim-key",
    }


@asynccontextmanager
async def running(path: Path, sim: SimServer, *agents: Agent, gather_s: float = 0.2) -> AsyncIterator[Runtime]:
    """Drive agents on a file."""
    data = path / "t.db"
    runtime = await Runtime.open(*agents, data=data, environment=environment(sim), batch_gather_s=gather_s)
    try:
        yield runtime
    finally:
        await runtime.aclose(grace_s=1.0)


@pytest.mark.parametrize("model", ["anthropic:claude-test", "openai-chat:gpt-test", "openai:gpt-test"])
async def test_runs_are_answered_by_batches_at_half_the_price(tmp_path: Path, sim: SimServer, model: str) -> None:
    """Twelve runs of two turns each: two batches in all or a few more, none billed as a direct call would be."""
    async with running(tmp_path, sim, agent(model)) as runtime:
        started = await asyncio.gather(*(runtime.start("desk", f"add {n}", batch_api=True) for n in range(12)))
        views = [await runtime.wait(run.run, timeout_s=60) for run in started]
        assert [view.text for view in views] == [f"The sum is {n + 1}." for n in range(12)]
        calls = await events(runtime, started[0].run, ev.ModelCallFinished)
        for call in calls:
            assert call.usage is not None
            full = call.usage.input_tokens * 1_000 + call.usage.output_tokens * 2_000
            assert call.cost == -(-full // 2)
        assert [verified.error async for verified in runtime.verify()] == [""] * 12
        assert (await runtime.store.tray.waiting(), list(await runtime.store.tray.batches())) == ({}, [])
    total = sim.bill.view().total
    assert (total.requests, total.batch_requests) == (24, 24)


async def test_a_waiting_call_takes_no_memory(tmp_path: Path, sim: SimServer) -> None:
    """While its batch is awaited the run is a row: not active, no lease, and it wakes by its answer."""
    async with running(tmp_path, sim, agent(), gather_s=30.0) as runtime:
        started = await runtime.start("desk", "add 1", batch_api=True)
        await until(lambda: not runtime.active)
        row = await runtime.store.run("default", started.run)
        assert row is not None
        assert (row.status, row.worker) == ("waiting", "")
        view = await runtime.view(started.run)
        assert (view.status, view.outcome) == ("waiting", "")


async def test_a_run_without_a_day_left_is_not_batched(tmp_path: Path, sim: SimServer) -> None:
    """A deadline or a limit of time below a day: the call goes out at once."""
    hurried = agent(limits=Limits(wall_s=3600))
    async with running(tmp_path, sim, hurried) as runtime:
        started = await runtime.start("desk", "add 1", batch_api=True)
        assert (await runtime.wait(started.run, timeout_s=30)).text == "The sum is 2."
        assert not any(call.batch for call in await events(runtime, started.run, ev.ModelCallStarted))
    assert sim.bill.view().total.batch_requests == 0


async def test_a_cancelled_call_is_billed_at_its_bound(tmp_path: Path, sim: SimServer) -> None:
    """Its answer may still come and be billed: the reservation is settled whole, and a late answer changes nothing."""
    async with running(tmp_path, sim, agent(), gather_s=30.0) as runtime:
        await runtime.set_budget("tenant", "1.00")
        started = await runtime.start("desk", "add 1", batch_api=True)
        await until(lambda: not runtime.active)
        (call,) = await events(runtime, started.run, ev.ModelCallStarted)
        await runtime.cancel(started.run)
        view = await runtime.wait(started.run, timeout_s=30)
        assert view.outcome == "cancelled"
        (ledger,) = [row for row in await runtime.budgets() if row.ledger == "tenant"]
        assert (ledger.settled, ledger.reserved) == (call.reserved, 0)


async def test_an_api_that_refuses_batches_is_asked_directly(tmp_path: Path) -> None:
    """A server of the same wire without a batch API: each call fails its batch once, unbilled, and goes out at once."""
    server = SimServer(SimSettings(script=SCRIPT, batch_s=None))
    await server.start()
    async with running(tmp_path, server, agent()) as runtime:
        started = await runtime.start("desk", "add 1", batch_api=True)
        view = await runtime.wait(started.run, timeout_s=30)
        assert view.text == "The sum is 2."
        failed = await events(runtime, started.run, ev.ModelCallFailed)
        assert [(call.code, call.cost) for call in failed] == [("not_found", 0)] * 2
    await server.stop()


class _Interrupted(Exception):
    """A process died here."""


@pytest.mark.parametrize("model", ["anthropic:claude-test", "openai-chat:gpt-test"])
@pytest.mark.parametrize("dies", ["before the hand-in", "after the hand-in", "in the middle of telling"])
async def test_a_batcher_that_dies_loses_nothing(tmp_path: Path, sim: SimServer, model: str, dies: str) -> None:
    """Another goes on from the tray's rows. Where the provider cannot be asked, calls are made again, and billed twice."""
    async with running(tmp_path, sim, agent(model), gather_s=3600.0) as runtime:
        started = await asyncio.gather(*(runtime.start("desk", f"add {n}", batch_api=True) for n in range(4)))
        await until(lambda: not runtime.active)
    await _die(tmp_path, sim, model.partition(":")[0], dies)
    async with running(tmp_path, sim, agent(model)) as runtime:
        views = [await runtime.wait(run.run, timeout_s=60) for run in started]
        assert [view.text for view in views] == [f"The sum is {n + 1}." for n in range(4)]
        firsts = [(await events(runtime, run.run, ev.ModelCallStarted))[0] for run in started]
        assert all(call.batch for call in firsts)
        lost = [failed for run in started for failed in await events(runtime, run.run, ev.ModelCallFailed)]
        unsure = dies != "in the middle of telling" and model.startswith("anthropic")
        assert [failed.code for failed in lost] == (["lost"] * 4 if unsure else [])
        assert all(failed.cost == call.reserved for failed, call in zip(lost, firsts, strict=False))
    total = sim.bill.view().total
    assert total.requests == (12 if unsure and dies == "after the hand-in" else 8)


async def _die(path: Path, sim: SimServer, provider: str, when: str) -> None:
    """Serve the tray until a certain point, and stop as a killed process would: without another word to the store."""
    store = await SqliteStore.open(path / "t.db")
    client: Any = open_batches(provider, resolve_endpoint(provider, environment(sim)))
    submit, posted = client.submit, 0

    async def submits(items: Any, *, name: str) -> str:
        if when == "before the hand-in":
            raise _Interrupted
        said = await submit(items, name=name)
        if when == "after the hand-in":
            raise _Interrupted
        return said

    post = store.post

    async def posts(*values: Any) -> int:
        nonlocal posted
        posted += 1
        if posted == 3:
            raise _Interrupted
        return await post(*values)

    client.submit = submits
    store.post = posts  # type: ignore[method-assign]
    settings = BatcherSettings("dying", gather_s=0.0, look_s=0.0, lease_s=0.2)
    batcher = Batcher(store, {provider: client}, settings)
    with pytest.raises(_Interrupted):
        await asyncio.wait_for(_serving(batcher), 20)
    await client.aclose()
    await store.aclose()


async def _serving(batcher: Batcher) -> None:
    """Serve for ever."""
    while True:
        await batcher.serve()
        await asyncio.sleep(0.02)


async def test_a_run_that_cannot_be_read_holds_no_other_up(tmp_path: Path, sim: SimServer) -> None:
    """A call whose journal is damaged is left out of the batch; the others of it are answered."""
    async with running(tmp_path, sim, agent(), gather_s=3600.0) as runtime:
        lame = await runtime.start("desk", "add 1", batch_api=True)
        whole = await runtime.start("desk", "add 2", batch_api=True)
        await until(lambda: not runtime.active)
    store = await SqliteStore.open(tmp_path / "t.db")
    read = store.read

    async def damaged(tenant: str, run: str, **how: int) -> Any:
        if run == lame.run:
            raise BrokenChain(run=run, seq=1)
        return await read(tenant, run, **how)

    store.read = damaged  # type: ignore[method-assign]
    client = open_batches("anthropic", resolve_endpoint("anthropic", environment(sim)))
    batcher = Batcher(store, {"anthropic": client}, BatcherSettings("b", gather_s=0.0, look_s=0.0))
    serving = asyncio.create_task(_serving(batcher))
    await until(lambda: store.inbox("default", whole.run))
    serving.cancel()
    await client.aclose()
    row = await store.run("default", lame.run)
    assert row is not None
    assert row.status == "waiting"
    await store.aclose()


async def test_a_hand_in_that_was_not_begun_is_billed_to_nobody(tmp_path: Path, sim: SimServer) -> None:
    """The store fails while the requests are made up: the calls wait again, and are not taken for lost."""
    async with running(tmp_path, sim, agent(), gather_s=3600.0) as runtime:
        await runtime.start("desk", "add 1", batch_api=True)
        await until(lambda: not runtime.active)
    store = await SqliteStore.open(tmp_path / "t.db")

    async def fails(*_: Any, **__: Any) -> Any:
        raise JournalError("the database is away", retryable=True)

    store.read = fails  # type: ignore[method-assign]
    client = open_batches("anthropic", resolve_endpoint("anthropic", environment(sim)))
    batcher = Batcher(store, {"anthropic": client}, BatcherSettings("b", gather_s=0.0))
    with pytest.raises(JournalError, match="away"):
        await batcher.serve()
    assert list(await store.tray.batches()) == []
    assert {lane: count for lane, (count, _) in (await store.tray.waiting()).items()} == {"anthropic": 1}
    await client.aclose()
    await store.aclose()


async def test_a_shutdown_lets_a_hand_in_arrive(tmp_path: Path, sim: SimServer) -> None:
    """A batcher that is closed while the provider is being asked notes the answer: the calls are not taken for lost."""
    async with running(tmp_path, sim, agent(), gather_s=3600.0) as runtime:
        await runtime.start("desk", "add 1", batch_api=True)
        await until(lambda: not runtime.active)
    store = await SqliteStore.open(tmp_path / "t.db")
    client: Any = open_batches("anthropic", resolve_endpoint("anthropic", environment(sim)))
    submit, asked, answer = client.submit, asyncio.Event(), asyncio.Event()

    async def slow(items: Any, *, name: str) -> str:
        said = await submit(items, name=name)
        asked.set()
        await answer.wait()
        return said

    client.submit = slow
    batcher = Batcher(store, {"anthropic": client}, BatcherSettings("b", gather_s=0.0))
    await batcher.open()
    await asyncio.wait_for(asked.wait(), 20)
    closing = asyncio.create_task(batcher.aclose())
    await asyncio.sleep(0)
    answer.set()
    await asyncio.wait_for(closing, 20)
    (batch,) = await store.tray.batches()
    assert (batch.stage, bool(batch.provider_id)) == ("running", True)
    await store.aclose()
