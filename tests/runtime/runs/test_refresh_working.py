"""A run whose tools take long keeps its prefix: read before it lapses, beside the run, while they are at work; at a real server."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from stanchion import Agent, Limits, Model, Runtime, tool
from stanchion.core import event as ev
from stanchion.engine.keeper import Keeper
from stanchion.engine.load import Loader
from stanchion.runtime.shape import RunView
from stanchion.sim import Fault, FaultPlan, Reply, ReplyCall, Rule, Script, SimServer, SimSettings, When
from stanchion.testing import FakeClock
from tests.engine.rig import events, unchanged
from tests.runtime.runs.test_refresh import LONG
from tests.runtime.runs.test_refresh_waiting import Waiting, proved
from tests.waiting import SOON_S, until

BUILD, LOOK = ReplyCall(name="build"), ReplyCall(name="look", id="call_b")
SCRIPT = Script(
    rules=(
        Rule(when=When(turn=1, contains="build again", after="tool"), reply=Reply(calls=(BUILD,))),
        Rule(when=When(after="tool"), reply=Reply(text="It is built.")),
        Rule(when=When(user="build and look"), reply=Reply(calls=(BUILD, LOOK))),
        Rule(when=When(user="build both"), reply=Reply(calls=(BUILD, ReplyCall(name="build", id="call_b")))),
        Rule(when=When(user="build"), reply=Reply(calls=(BUILD,))),
    )
)
WORK_S = 480


class Site:
    """Where builds are under way until the test ends them."""

    def __init__(self) -> None:
        self.begun: asyncio.Queue[asyncio.Event] = asyncio.Queue()
        self.under_way: list[asyncio.Event] = []

    async def work(self) -> None:
        """Be at work."""
        ended = asyncio.Event()
        self.begun.put_nowait(ended)
        await ended.wait()


def agent(site: Site) -> Agent:
    """Make the desk, whose builds take long."""

    @tool(effect="read", repeatable=True, timeout_s=7_200)
    async def build() -> str:
        """Build it."""
        await site.work()
        return "built " * 20

    @tool(effect="read", repeatable=True)
    async def look() -> str:
        """Look something up."""
        return "found"

    return Agent(
        name="desk",
        identity=LONG,
        model=Model("anthropic:claude-sonnet-4-6", retries=1),
        tools=[build, look],
        limits=Limits(usd="5"),
    )


class Working(Waiting):
    """.. whose builds take as long as the test says."""

    def __init__(self, runtime: Runtime, sim: SimServer, clock: FakeClock, site: Site) -> None:
        super().__init__(runtime, sim, clock)
        self.site = site
        self.held = 0

    @property
    def keeper(self) -> Keeper:
        assert self.runtime._driving is not None
        return self.runtime._driving.keeper

    async def let_go(self) -> None:
        """Wait until no run is driven but those whose builds are under way."""
        await until(lambda: self.runtime.active <= self.held)  # an end is noted just after it can be seen

    async def begin(self, session: str, text: str = "build", builds: int = 1, user: str = "") -> str:
        """Start a run that comes to build."""
        self.held += 1
        started = await self.runtime.start("desk", text, session=session, user=user)
        await self.at_work(builds)
        return started.run

    async def at_work(self, builds: int = 1) -> None:
        """Wait until so many builds have begun."""
        for _ in range(builds):
            self.site.under_way.append(await asyncio.wait_for(self.site.begun.get(), SOON_S))

    async def built(self, run: str) -> RunView:
        """End all builds, and wait for the run's end."""
        while self.site.under_way:
            self.site.under_way.pop(0).set()
        view = await self.runtime.wait(run, timeout_s=30)
        self.held -= 1
        await self.let_go()
        return view

    async def builds(self, session: str, work_s: float = WORK_S) -> str:
        """Have a session that builds once."""
        for _ in range(2):
            self.forward(1)
            await self.ask("hello", session)
        run = await self.begin(session)
        await self.passing(work_s)
        assert (await self.built(run)).outcome == "done"
        return run

    async def learn_builds(self, work_s: float = WORK_S) -> None:
        """Have as many builds as it takes to conclude from them, and begin another session later."""
        for number in range(8):
            await self.builds(f"before-{number}", work_s)
            self.forward(100_000)

    async def of(self, run: str) -> list[str]:
        """List the refreshes of a run, newest first."""
        return [row.run for row in await self.refreshes() if await self.base(row.run) == run]

    async def answered(self, run: str) -> None:
        """Wait until a call of a run has ended, and the keeper knows."""
        place = ("default", (await self.row(run)).session)

        async def known() -> bool:
            ended = await events(self.runtime, run, ev.ToolCallFinished)
            base = self.keeper._idle[place].first.refreshes
            return bool(ended) and base is not None and base.seq == (await self.row(run)).seq

        await until(known)

    async def refresh(self, run: str) -> str:
        """Give the one refresh that is due of a run, whoever begins it."""
        await self.refreshed()
        (refresh,) = await self.of(run)
        assert (await self.runtime.wait(refresh, timeout_s=30)).outcome == "done"
        await self.let_go()
        return refresh


@asynccontextmanager
async def opened(data: Path, sim: SimServer, clock: FakeClock) -> AsyncIterator[Working]:
    """Open a runtime at a provider."""
    environment = {"ANTHROPIC_BASE_URL": sim.base_url, "ANTHROPIC_API_KEY": "sim-key"}
    site = Site()
    runtime = await Runtime.open(agent(site), data=data, environment=environment, clock=clock)
    try:
        yield Working(runtime, sim, clock, site)
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
async def desk(tmp_path: Path, sim: SimServer) -> AsyncIterator[Working]:
    """An agent that has learnt that builds take 8 minutes."""
    async with opened(tmp_path / "t.db", sim, FakeClock()) as made:
        await made.learn_builds()
        yield made


async def test_a_build_is_outlived(desk: Working) -> None:
    """The refresh asks for what the run asked for, beside it; the run then reads it, and says so before."""
    run = await desk.begin("s1")
    (asked,) = await events(desk.runtime, run, ev.ModelCallStarted)
    before = await desk.row(run)
    assert before.status == "runnable"
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
    assert await desk.passing(WORK_S - 271) == 0
    view = await desk.built(run)
    assert (view.outcome, view.cache_misses) == ("done", [])
    told = (await events(desk.runtime, run, ev.ModelCallStarted))[1]
    said = (await events(desk.runtime, run, ev.ModelCallFinished))[1]
    assert said.usage is not None
    assert told.cache_expected == said.usage.cache_read_tokens > 10_000
    (made,) = [entry for entry in await desk.runtime.store.read("default", refresh) if entry.event == again]
    assert told.cache_refreshed_ms == made.at_ms
    await proved(desk)


async def test_it_costs_less_than_to_write_it_again(tmp_path: Path, sim: SimServer) -> None:
    """The same session twice, in the second one's process tools are left alone; by the provider's own bill."""
    bills: list[int] = []
    for refreshing in (True, False):
        async with opened(tmp_path / f"{refreshing}.db", sim, FakeClock()) as desk:
            await desk.learn_builds()
            if not refreshing:
                assert desk.runtime._driving is not None
                desk.runtime._driving.worker.works = None
            before = sim.bill.view().total.nano_usd
            run = await desk.builds("s1")
            bills.append(sim.bill.view().total.nano_usd - before)
            assert len(await desk.of(run)) == refreshing
    assert bills[0] < 0.75 * bills[1]


async def test_a_call_that_ends_before_the_others_changes_nothing(desk: Working) -> None:
    """The run has written since, but not asked: the last request is the same. What was refreshed stays known when another call is over."""
    run = await desk.begin("s1", "build and look")
    await desk.answered(run)
    desk.forward(271)
    refresh = await desk.refresh(run)
    (first,) = await events(desk.runtime, refresh, ev.RunStarted)
    assert first.refreshes is not None
    assert first.refreshes.seq == (await desk.row(run)).seq
    then = await Loader(desk.runtime.store).load("default", refresh)
    desk.forward(200)
    assert (await desk.built(run)).cache_misses == []
    assert await Loader(desk.runtime.store).load("default", refresh) == then  # it folds as it was
    both = await desk.begin("s2", "build both", builds=2)
    desk.forward(271)
    await desk.refresh(both)
    desk.forward(20)
    desk.site.under_way.pop(0).set()
    await desk.answered(both)
    await desk.passing(189)
    assert len(await desk.of(both)) == 1
    assert (await desk.built(both)).cache_misses == []
    told = (await events(desk.runtime, both, ev.ModelCallStarted))[1]
    said = (await events(desk.runtime, both, ev.ModelCallFinished))[1]
    assert said.usage is not None
    assert told.cache_expected == said.usage.cache_read_tokens > 10_000
    await proved(desk)


async def test_a_run_that_has_asked_since_is_not_refreshed_from_where_it_was(desk: Working) -> None:
    """Even if nobody had told the keeper; nor one that another drives now. From where it stands it is."""
    run = await desk.begin("s1", "build again")
    place = ("default", "s1")
    before = desk.keeper._idle[place]
    assert await desk.keeper._stands(before)
    other = msgspec.structs.replace(before, epoch=before.epoch + 1)
    assert not await desk.keeper._stands(other)
    desk.forward(200)
    desk.site.under_way.pop(0).set()
    await desk.at_work()
    now = desk.keeper._idle[place]
    assert now.asked_ms == before.asked_ms + 200_000
    desk.keeper._idle[place] = before
    desk.forward(71)
    assert await desk.refreshed() == []
    desk.keeper._idle[place] = now
    assert await desk.refreshed() == []
    desk.forward(200)
    (refresh,) = await desk.refreshed()
    asked = (await events(desk.runtime, run, ev.ModelCallStarted))[1]
    (again,) = await events(desk.runtime, refresh, ev.ModelCallStarted)
    assert (again.prefix, again.messages) == (asked.prefix, asked.messages)
    assert (await desk.built(run)).cache_misses == []
    await proved(desk)


async def test_a_run_that_is_stopped_is_not_refreshed(desk: Working) -> None:
    """Its build is given up."""
    run = await desk.begin("s1")
    desk.forward(200)
    await desk.runtime.cancel(run)
    assert (await desk.built(run)).outcome == "cancelled"
    desk.forward(71)
    assert await desk.refreshed() == []
    assert await desk.of(run) == []


async def test_a_long_build_is_refreshed_as_often_as_pays(tmp_path: Path, sim: SimServer) -> None:
    """13 minutes: twice; after that its prefix lapses, and the run says why it is not read. The second process reads it from the journals."""
    data, clock = tmp_path / "t.db", FakeClock()
    async with opened(data, sim, clock) as desk:
        await desk.learn_builds(780)
    async with opened(data, sim, clock) as desk:
        run = await desk.begin("s1")
        assert await desk.passing(780) == 2
        assert (await desk.built(run)).cache_misses == []
        other = await desk.begin("s2")
        assert await desk.passing(3_600, other) == 2
        view = await desk.built(other)
        assert [miss.reason for miss in view.cache_misses] == ["the cache's life was over"]
        await proved(desk)


async def test_a_refresh_that_fails_leaves_the_run_alone(desk: Working) -> None:
    """It is not tried again; the run goes on, writes again, and says why."""
    run = await desk.begin("s1")
    desk.sim.faults = (FaultPlan(kind=Fault.OVERLOADED),)
    desk.forward(271)
    (refresh,) = await desk.refreshed()
    assert (await desk.runtime.view(refresh)).outcome == "failed"
    desk.sim.faults = ()
    assert await desk.passing(100) == 0
    view = await desk.built(run)
    assert [miss.reason for miss in view.cache_misses] == ["the cache's life was over"]
    assert view.outcome == "done"


async def test_its_budget_is_its_own(desk: Working) -> None:
    """A budget that has no room is not overdrawn for it."""
    await desk.runtime.set_budget("user:ann", usd="5")
    run = await desk.begin("anns", user="ann")
    await desk.runtime.set_budget("user:ann", usd="0.0001")
    desk.forward(271)
    assert await desk.refreshed() == []
    assert await desk.of(run) == []
    await desk.runtime.set_budget("user:ann", usd="5")
    assert (await desk.built(run)).outcome == "done"


async def test_a_kill_during_a_refresh_loses_nothing(tmp_path: Path, sim: SimServer) -> None:
    """kill -9 while build and refresh are under way: the build is made again, the refresh is billed as a loss, and the run ends."""
    data, clock = tmp_path / "t.db", FakeClock()
    async with opened(data, sim, clock) as desk:
        await desk.learn_builds()
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.runtime.runs.builder",
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
        desk.held = 1
        await desk.at_work()
        view = await desk.runtime.wait(refreshing, timeout_s=30)
        assert (view.outcome, view.reason) == ("failed", "model:lost")
        view = await desk.built(run)
        assert (view.outcome, view.text) == ("done", "It is built.")
        assert [miss.reason for miss in view.cache_misses] == ["the cache's life was over"]
        await unchanged(desk.runtime)
        rows = await desk.runtime.store.runs("default", limit=500)
        assert sum(row.cost for row in rows) >= sim.bill.view().total.nano_usd
