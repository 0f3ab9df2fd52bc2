"""A run that waits for a person keeps its prefix: read before it lapses, beside the run, until it goes on; at a real server."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from stanchion import Agent, Approve, Limits, Model, Runtime, tool
from stanchion.core import event as ev
from stanchion.core.message import USER, Text, ToolResult
from stanchion.engine.load import Loader
from stanchion.journal.store import RunRow
from stanchion.runtime.operating.moving import Selection
from stanchion.runtime.shape import RunView
from stanchion.sim import Fault, FaultPlan, Reply, ReplyCall, Rule, Script, SimServer, SimSettings, When
from stanchion.testing import FakeClock
from tests.engine.rig import events, unchanged
from tests.runtime.runs.test_refresh import LONG, Desk
from tests.waiting import until

SCRIPT = Script(
    rules=(
        Rule(when=When(after="tool"), reply=Reply(text="It is paid.")),
        Rule(
            when=When(user="pay both"), reply=Reply(calls=(ReplyCall(name="pay"), ReplyCall(name="pay", id="call_b")))
        ),
        Rule(when=When(user="pay"), reply=Reply(calls=(ReplyCall(name="pay"),))),
        Rule(when=When(user="lose"), reply=Reply(calls=(ReplyCall(name="lose"),))),
    )
)
WAIT_S = 480
TURNS = 6
paid: list[str] = []


@tool(effect="irreversible")
def pay() -> str:
    """Pay."""
    paid.append("once")
    return "paid " * 20


@tool(effect="write", timeout_s=60)
def lose() -> str:
    """Write something down, and not hear whether it was."""
    raise ConnectionError("gone")


def agent() -> Agent:
    """Make the desk: a payment waits for a person."""
    return Agent(
        name="desk",
        identity=LONG,
        model=Model("anthropic:claude-sonnet-4-6", retries=1),
        tools=[pay, lose],
        approvals=[Approve(tool="pay")],
        limits=Limits(usd="5"),
    )


class Waiting(Desk):
    """.. whose payments wait for as long as the test says."""

    async def pay(self, session: str, text: str = "pay", user: str = "") -> str:
        """Start a run that comes to wait for a person."""
        started = await self.runtime.start("desk", text, session=session, user=user)
        view = await self.runtime.wait(started.run, timeout_s=30)
        assert view.status == "waiting", view
        await self.let_go()
        return started.run

    async def decide(self, run: str, decision: str = "approve") -> RunView:
        """Decide the first call that waits; give how the run then stands."""
        view = await self.runtime.view(run)
        await self.runtime.decide(run, view.waiting[0].call, decision, result="noted" if decision == "record" else None)
        left = len(view.waiting) - 1

        async def settled() -> bool:
            now = await self.runtime.view(run)
            return now.outcome != "" if not left else now.status == "waiting" and len(now.waiting) == left

        await until(settled)
        await self.let_go()
        return await self.runtime.view(run)

    async def paid(self, session: str, wait_s: float = WAIT_S) -> str:
        """Have a session that waits once."""
        for _ in range(TURNS):
            self.forward(1)
            await self.ask("hello", session)
        run = await self.pay(session)
        await self.passing(wait_s)
        assert (await self.decide(run)).outcome == "done"
        return run

    async def passing(self, seconds: float, of: str = "") -> int:
        """Let time pass, half a minute at a time at most; give how many refreshes were made, of one run if it is named."""
        made = 0
        while seconds > 0:
            self.forward(min(seconds, 30))
            begun = await self.refreshed()
            made += len([each for each in begun if not of or await self.base(each) == of])
            seconds -= 30
        return made

    async def base(self, refresh: str) -> str:
        """Give the run whose last request a refresh asked for."""
        (first,) = await events(self.runtime, refresh, ev.RunStarted)
        assert first.refreshes is not None
        return first.refreshes.run

    async def learn_waits(self, wait_s: float = WAIT_S, sessions: int = 3) -> None:
        """Have some sessions whose payment waits, and begin another later."""
        for number in range(sessions):
            await self.paid(f"before-{number}", wait_s)
            self.forward(100_000)
        paid.clear()

    async def row(self, run: str) -> RunRow:
        """Read a run's row."""
        row = await self.runtime.store.run("default", run)
        assert row is not None
        return row

    async def refreshes(self) -> list[RunRow]:
        """List the runs that refreshed, newest first."""
        rows = await self.runtime.store.runs("default", limit=200)
        return [row for row in rows if row.session.startswith("refresh_")]


@asynccontextmanager
async def opened(data: Path, sim: SimServer, clock: FakeClock) -> AsyncIterator[Waiting]:
    """Open a runtime at a provider."""
    environment = {"ANTHROPIC_BASE_URL": sim.base_url, "ANTHROPIC_API_KEY": "sim-key"}
    runtime = await Runtime.open(agent(), data=data, environment=environment, clock=clock)
    try:
        yield Waiting(runtime, sim, clock)
    finally:
        await runtime.aclose(grace_s=1.0)


@pytest.fixture
async def sim() -> AsyncIterator[SimServer]:
    """A provider of one's own."""
    made = SimServer(SimSettings(script=SCRIPT))
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def desk(tmp_path: Path, sim: SimServer) -> AsyncIterator[Waiting]:
    """An agent that has learnt that payments wait for 8 minutes."""
    async with opened(tmp_path / "t.db", sim, FakeClock()) as made:
        await made.learn_waits()
        yield made


async def proved(desk: Waiting) -> None:
    """Check that each chain verifies, and that the journal's costs are the provider's bill to the nano-dollar."""
    await unchanged(desk.runtime)
    rows = await desk.runtime.store.runs("default", limit=500)
    assert sum(row.cost for row in rows) == desk.sim.bill.view().total.nano_usd


async def test_a_wait_is_outlived(desk: Waiting) -> None:
    """The refresh asks for what the waiting run asked for, call and all left out, beside it; the run then reads it, and says so before."""
    run = await desk.pay("s1")
    (asked,) = await events(desk.runtime, run, ev.ModelCallStarted)
    before = await desk.row(run)
    session = await desk.runtime.store.session("default", "s1")
    desk.forward(269)
    assert await desk.refreshed() == []
    desk.forward(2)
    (refresh,) = await desk.refreshed()
    (first,) = await events(desk.runtime, refresh, ev.RunStarted)
    assert first.refreshes == ev.Base(run, before.seq, before.hash.hex())
    (again,) = await events(desk.runtime, refresh, ev.ModelCallStarted)
    assert (again.prefix, again.messages, again.cache) == (asked.prefix, asked.messages, asked.cache)
    (read,) = await events(desk.runtime, refresh, ev.ModelCallFinished)
    assert read.usage is not None
    assert again.cache_expected == read.usage.cache_read_tokens > 10_000
    assert read.usage.cache_write_tokens == 0
    assert await desk.row(run) == before  # the run was not touched
    assert await desk.runtime.store.session("default", "s1") == session
    assert await desk.passing(WAIT_S - 271) == 0
    view = await desk.decide(run)
    assert (view.outcome, paid, view.cache_misses) == ("done", ["once"], [])
    told = (await events(desk.runtime, run, ev.ModelCallStarted))[1]
    said = (await events(desk.runtime, run, ev.ModelCallFinished))[1]
    assert said.usage is not None
    assert said.usage.cache_read_tokens == told.cache_expected == asked.cache_expected + read.usage.cache_read_tokens
    assert told.cache_unkept == ""
    (made,) = [entry for entry in await desk.runtime.store.read("default", refresh) if entry.event == again]
    assert told.cache_refreshed_ms == made.at_ms
    await proved(desk)


async def test_it_costs_less_than_to_write_it_again(tmp_path: Path, sim: SimServer) -> None:
    """The same session twice, in the second one's process waits are left alone; by the provider's own bill."""
    bills: list[int] = []
    for refreshing in (True, False):
        async with opened(tmp_path / f"{refreshing}.db", sim, FakeClock()) as desk:
            await desk.learn_waits()
            if not refreshing:
                assert desk.runtime._driving is not None
                desk.runtime._driving.worker.waits = None
            before = sim.bill.view().total.nano_usd
            rows = {row.run for row in await desk.runtime.store.runs("default", limit=200)}
            await desk.paid("s1")
            bills.append(sim.bill.view().total.nano_usd - before)
            made = [row for row in await desk.runtime.store.runs("default", limit=200) if row.run not in rows]
            assert sum(row.cost for row in made) == bills[-1]
            assert any(row.session.startswith("refresh_") for row in made) == refreshing
    assert bills[0] < 0.75 * bills[1]


@pytest.mark.parametrize("ends", ["cancel", "approve", "reject", "erase", "move"])
async def test_nothing_is_refreshed_for_a_run_that_moved_on(desk: Waiting, tmp_path: Path, ends: str) -> None:
    """Neither once a person has acted, nor what was erased, nor in the store that the run was moved away from."""
    run = await desk.pay("s1")
    desk.forward(200)
    match ends:
        case "cancel":
            await desk.runtime.cancel(run)
            await until(lambda: _over(desk, run))
            await desk.let_go()
            desk.forward(71)
        case "erase":
            assert await desk.runtime.erase("s1")
            desk.forward(71)
        case "move":
            await desk.runtime.export(tmp_path / "moved.jsonl", Selection(session="s1"), live=True)
            desk.forward(71)
        case _:
            view = await desk.runtime.view(run)
            desk.forward(71)
            await desk.runtime.decide(run, view.waiting[0].call, ends)  # type: ignore[arg-type]
    assert await desk.refreshed() == []
    assert [row.run for row in await desk.refreshes() if await desk.base(row.run) == run] == []


async def _over(desk: Waiting, run: str) -> bool:
    return (await desk.runtime.view(run)).outcome != ""


async def test_two_decisions_are_one_pause(desk: Waiting) -> None:
    """Between them no model is asked: what was refreshed is known, counts, and is not refreshed oftener than pays."""
    run = await desk.pay("s1", "pay both")
    desk.forward(271)
    assert len(await desk.refreshed()) == 1
    view = await desk.decide(run)
    assert (view.status, paid) == ("waiting", ["once"])
    assert await desk.passing(WAIT_S - 271) == 0
    assert (await desk.decide(run)).outcome == "done"
    assert len([row for row in await desk.refreshes() if await desk.base(row.run) == run]) == 1
    told = (await events(desk.runtime, run, ev.ModelCallStarted))[1]
    said = (await events(desk.runtime, run, ev.ModelCallFinished))[1]
    assert said.usage is not None
    assert told.cache_expected == said.usage.cache_read_tokens > 10_000
    await proved(desk)


async def test_what_is_said_meanwhile_changes_nothing(desk: Waiting) -> None:
    """A message to the run, and a run that is queued behind it: the last request is the same."""
    run = await desk.pay("s1")
    desk.forward(100)
    await desk.runtime.send(run, "and be quick")
    await until(lambda: _took_in(desk, run))
    await desk.let_go()
    behind = await desk.runtime.start("desk", "hello", session="s1", if_busy="queue")
    desk.forward(171)
    (refresh,) = await desk.refreshed()
    assert await desk.base(refresh) == run
    assert (await desk.runtime.wait(refresh, timeout_s=30)).outcome == "done"
    desk.forward(100)
    assert (await desk.decide(run)).cache_misses == []
    assert (await desk.runtime.wait(behind.run, timeout_s=30)).outcome == "done"
    await desk.let_go()
    await proved(desk)


async def _took_in(desk: Waiting, run: str) -> bool:
    return bool(await events(desk.runtime, run, ev.MessageAdded)) and (await desk.row(run)).status == "waiting"


async def test_a_doubt_is_a_wait_too(desk: Waiting) -> None:
    """A person is asked what became of a call; that he is slow costs a read."""
    run = await desk.pay("s1", "lose it")
    assert await desk.passing(300) == 1
    view = await desk.decide(run, "record")
    assert (view.outcome, view.cache_misses) == ("done", [])


async def test_a_refresh_that_fails_leaves_the_run_alone(desk: Waiting) -> None:
    """It is not tried again; the run goes on, writes again, and says why."""
    run = await desk.pay("s1")
    desk.sim.faults = (FaultPlan(kind=Fault.OVERLOADED),)
    desk.forward(271)
    (refresh,) = await desk.refreshed()
    assert (await desk.runtime.view(refresh)).outcome == "failed"
    desk.sim.faults = ()
    assert await desk.passing(100) == 0
    view = await desk.decide(run)
    assert [miss.reason for miss in view.cache_misses] == ["the cache's life was over"]
    assert (view.outcome, paid) == ("done", ["once"])


async def test_its_budget_is_its_own(desk: Waiting) -> None:
    """A budget that has no room is not overdrawn for it, and the run goes on by what it has reserved since."""
    await desk.runtime.set_budget("user:ann", usd="5")
    run = await desk.pay("anns", user="ann")
    await desk.runtime.set_budget("user:ann", usd="0.0001")
    desk.forward(271)
    assert await desk.refreshed() == []
    assert [row for row in await desk.refreshes() if row.user == "ann"] == []
    await desk.runtime.set_budget("user:ann", usd="5")
    assert (await desk.decide(run)).outcome == "done"


async def test_a_long_wait_is_refreshed_as_often_as_pays(tmp_path: Path, sim: SimServer) -> None:
    """13 minutes: twice. The second knows of the first, and keeps the life; after that it lapses."""
    async with opened(tmp_path / "t.db", sim, FakeClock()) as desk:
        await desk.learn_waits(780)
        run = await desk.pay("s1")
        assert await desk.passing(780) == 2
        for row in (await desk.refreshes())[:2]:
            (asked,) = await events(desk.runtime, row.run, ev.ModelCallStarted)
            (read,) = await events(desk.runtime, row.run, ev.ModelCallFinished)
            assert read.usage is not None
            assert (asked.cache_expected, asked.cache_unkept) == (read.usage.cache_read_tokens, "")
            assert asked.cache == "short"
        assert (await desk.decide(run)).cache_misses == []
        other = await desk.pay("s2")
        assert await desk.passing(3_600, other) == 2
        view = await desk.decide(other)
        assert [miss.reason for miss in view.cache_misses] == ["the cache's life was over"]
        await proved(desk)


async def test_a_state_in_the_midst_of_a_run_that_has_ended_since(desk: Waiting) -> None:
    """A refresh folds as it was, however its session went on, and whatever is kept in memory."""
    run = await desk.pay("s1")
    desk.forward(271)
    (refresh,) = await desk.refreshed()
    then = await Loader(desk.runtime.store).load("default", refresh)
    desk.forward(100)
    await desk.decide(run)
    await desk.ask("hello", "s1")
    assert await Loader(desk.runtime.store).load("default", refresh) == then
    assert await desk.runtime._loader.load("default", refresh) == then
    assert then.messages[0].parts == (Text("pay", USER),)
    assert not any(isinstance(part, ToolResult) for message in then.messages for part in message.parts)


async def test_a_kill_during_a_refresh_leaves_the_run_whole(tmp_path: Path, sim: SimServer) -> None:
    """kill -9 while its request is under way: what left is billed as a loss, and the run waits as before and goes on."""
    data, clock = tmp_path / "t.db", FakeClock()
    async with opened(data, sim, clock) as desk:
        await desk.learn_waits()
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.runtime.runs.refresher",
        str(data),
        sim.base_url,
        str(clock.now_ms()),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert child.stdout is not None
    assert child.stdin is not None
    run = (await asyncio.wait_for(child.stdout.readline(), 60)).decode().strip()
    sim.faults = (FaultPlan(kind=Fault.STALL_FIRST_BYTE, stall_s=600, times=1),)
    child.stdin.write(b"go on\n")
    refreshing = (await asyncio.wait_for(child.stdout.readline(), 60)).decode().strip()

    async def asked() -> bool:
        return bool(sim._log._met)

    await until(asked)
    child.kill()
    await child.wait()
    sim.faults = ()
    clock.advance(400)
    sim.advance(400)
    async with opened(data, sim, clock) as desk:
        view = await desk.runtime.wait(refreshing, timeout_s=30)
        assert (view.outcome, view.reason) == ("failed", "model:lost")
        row = await desk.row(run)
        assert row.status == "waiting"
        view = await desk.decide(run)
        assert (view.outcome, view.text) == ("done", "It is paid.")
        await unchanged(desk.runtime)
