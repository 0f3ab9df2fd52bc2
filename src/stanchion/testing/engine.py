"""The conformance suite of the engine's port: whatever brings hints to workers must pass it.

    await exercise_engine(lambda store, clock: MyEngine(store, clock))

Each check gets a new database and at most one worker with the engine under test; the other workers are rows, as for a
worker the others always are. Nothing is asked of an engine but liveness: whatever may be driven is driven soon, and a
hint that is wrong does no harm. `CHECKS` is the same as a list, for a test runner that wants one test per check.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

from stanchion.agent import Agent, Approve, Model
from stanchion.core import event as ev
from stanchion.core.message import ModelRequest, Text, ToolResult
from stanchion.core.money import price_usd
from stanchion.engine.clock import Clock
from stanchion.engine.port import Engine, MakeEngine
from stanchion.journal.store import RunRow, Store
from stanchion.runtime import Runtime, RunView
from stanchion.testing.memory import MemoryStore
from stanchion.testing.memory_tables import Tables
from stanchion.testing.model import Reply, ScriptedModel, call
from stanchion.testing.store_driver import same, true
from stanchion.toolbox.function import tool

OpenStore = Callable[[str], Awaitable[Store]]
"""Opens the database of a name: the same one for the same name."""
SOON_S = 15.0
"""Within which what may be driven must be driven."""
EXPIRES_S = 3.5
"""Of an approval: longer than a run stays in memory for."""
TENANT = "default"
_names = itertools.count(1)


class World:
    """What a check works with: an agent whose effects are counted, and processes on one database."""

    def __init__(self, make_engine: MakeEngine, open_store: OpenStore) -> None:
        self.effects: list[str] = []
        self.asked: list[str] = []
        self.began = asyncio.Event()
        self.gate = asyncio.Event()
        self.engine: Engine | None = None
        self._make_engine = make_engine
        self._open_store = open_store
        self._name = f"engine_{next(_names)}"
        self._model = ScriptedModel(self._reply)

    def _agent(self) -> Agent:
        @tool(effect="irreversible")
        async def refund(order: str) -> str:
            """Refund an order."""
            self.effects.append(order)
            return "refunded"

        @tool(effect="write", timeout_s=60)
        async def pack(order: str) -> str:
            """Pack an order, when the check says so."""
            self.began.set()
            await self.gate.wait()
            self.effects.append(order)
            return "packed"

        approvals = (Approve(tool="refund", expires_s=EXPIRES_S),)
        model = Model("openai:test-model", price=price_usd(input="1", output="1"))
        return Agent(name="desk", identity="Help.", tools=(refund, pack), model=model, approvals=approvals)

    def _reply(self, request: ModelRequest) -> Reply:
        parts = request.messages[-1].parts
        if any(isinstance(part, ToolResult) for part in parts):
            return "Done."
        text = "".join(part.text for part in parts if isinstance(part, Text))
        self.asked.append(text)
        return call(text, order="A-1") if text in ("refund", "pack") else "Hello."

    def _make(self, store: Store, clock: Clock) -> Engine:
        self.engine = self._make_engine(store, clock)
        return self.engine

    def hint(self, run: str, tenant: str = TENANT) -> None:
        """Give the engine a hint."""
        true(self.engine is not None, "there is an engine")
        if self.engine is not None:
            self.engine.hint(tenant, run)

    @asynccontextmanager
    async def worker(self, *, max_active: int = 0) -> AsyncGenerator[Runtime]:
        """Open a process that drives, with the engine under test."""
        store = await self._open_store(self._name)
        async with await Runtime.open(
            self._agent(), store=store, clients={"*": self._model}, engine=self._make, max_active=max_active
        ) as runtime:
            yield runtime

    @asynccontextmanager
    async def api(self) -> AsyncGenerator[Runtime]:
        """Open a process that takes runs and decisions, and drives nothing."""
        store = await self._open_store(self._name)
        async with await Runtime.open(self._agent(), store=store, drive=False, environment={}) as runtime:
            yield runtime


EngineCheck = Callable[[World], Awaitable[None]]


async def _waiting(runtime: Runtime) -> str:
    """Start a run and wait until it waits for a person, driven by nobody."""
    run = (await runtime.start("desk", "refund")).run
    async with asyncio.timeout(SOON_S):
        true((await runtime.wait(run)).waiting, "the run waits for a person")
        while not await _is_free(runtime, run):  # noqa: ASYNC110  (nothing announces it)
            await asyncio.sleep(0.01)
    return run


async def _is_free(runtime: Runtime, run: str) -> bool:
    row = await _row(runtime, run)
    return row.status == "waiting" and row.lease_until_ms <= await runtime.store.now_ms()


async def _approve(runtime: Runtime, run: str) -> None:
    await runtime.decide(run, (await runtime.view(run)).waiting[0].call, "approve")


async def _ended(runtime: Runtime, run: str, outcome: str = "done") -> RunView:
    view = await runtime.wait(run, timeout_s=SOON_S)
    same((view.status, view.outcome), ("ended", outcome), f"run {run}")
    return view


async def _another_ends(runtime: Runtime) -> None:
    """Have another run driven to its end: what an engine was told before has had its time."""
    await _ended(runtime, (await runtime.start("desk", "Hello")).run)
    await asyncio.sleep(0.2)


async def _row(runtime: Runtime, run: str) -> RunRow:
    row = await runtime.store.run(TENANT, run)
    true(row is not None, f"there is a run {run}")
    assert row is not None
    return row


async def a_decision_is_followed_at_once(world: World) -> None:
    """A run that waits for a person is activated when he has decided here; its effect is done once."""
    async with world.worker() as worker:
        run = await _waiting(worker)
        await _approve(worker, run)
        await _ended(worker, run)
        same(world.effects, ["A-1"], "effects")


async def what_other_processes_write_is_found(world: World) -> None:
    """A run that was taken elsewhere is driven, and a decision made elsewhere is followed, without a hint here."""
    async with world.worker() as worker, world.api() as api:
        await _ended(api, (await api.start("desk", "Hello")).run)
        run = await _waiting(worker)
        await _approve(api, run)
        await _ended(api, run)
        same(world.effects, ["A-1"], "effects")


async def what_was_there_before_is_found(world: World) -> None:
    """What came while no worker was there is driven when one is."""
    async with world.api() as api:
        runs = [(await api.start("desk", f"Hello {number}")).run for number in range(5)]
        async with world.worker():
            for run in runs:
                await _ended(api, run)


async def hints_that_are_wrong_do_no_harm(world: World) -> None:
    """Hints that are doubled, late, or of runs that never were: nothing is written, and no effect is done twice."""
    async with world.worker() as worker:
        over = (await worker.start("desk", "Hello")).run
        await _ended(worker, over)
        run = await _waiting(worker)
        seqs = [(await _row(worker, one)).seq for one in (over, run)]
        for _ in range(20):
            world.hint(run)
            world.hint(over)
            world.hint(run, tenant="nobody")
            world.hint("run_none")
        await _another_ends(worker)
        same([(await _row(worker, one)).seq for one in (over, run)], seqs, "events of runs that had nothing to do")
        await _approve(worker, run)
        for _ in range(20):
            world.hint(run)
        await _ended(worker, run)
        same(world.effects, ["A-1"], "effects")


async def a_run_that_another_drives_is_left_alone(world: World) -> None:
    """A hint to a run whose lease another worker holds changes nothing, though it is runnable."""
    async with world.worker() as worker:
        run = await _waiting(worker)
        claim = await worker.store.claim(TENANT, run, worker="another", lease_ms=60_000)
        await _approve(worker, run)
        world.hint(run)
        await _another_ends(worker)
        row = await _row(worker, run)
        true(claim is not None, "another could claim it")
        same((row.worker, row.epoch), ("another", claim.epoch if claim else 0), "who drives it, under which epoch")
        same(world.effects, [], "effects")


async def a_dead_worker_s_run_is_taken_over(world: World) -> None:
    """A run whose worker was not heard of for its lease is driven to its end, without a hint."""
    async with world.worker() as worker:
        run = await _waiting(worker)
        claim = await worker.store.claim(TENANT, run, worker="dead", lease_ms=500)
        true(claim is not None, "the dead worker had claimed it")
        await _approve(worker, run)
        await _ended(worker, run)
        true((await _row(worker, run)).epoch > (claim.epoch if claim else 0), "it was claimed anew")
        same(world.effects, ["A-1"], "effects")


async def a_run_wakes_at_its_time(world: World) -> None:
    """A run that waits for a person until a certain time goes on when that time has come, and not before."""
    async with world.worker() as worker:
        began_s = time.monotonic()
        run = await _waiting(worker)
        async with asyncio.timeout(EXPIRES_S + SOON_S):
            async for _ in worker.tail(run, deltas=False):
                pass
        true(time.monotonic() - began_s >= EXPIRES_S - 0.1, "it did not wake before its time")
        same(world.effects, [], "effects")


async def a_drained_worker_takes_nothing_up(world: World) -> None:
    """Draining lets the step in flight finish and gives the run back; hints that come later do nothing. Another goes on."""
    async with world.api() as api:
        async with world.worker() as worker:
            run = (await worker.start("desk", "pack")).run
            await world.began.wait()
            closing = asyncio.create_task(worker.aclose(grace_s=SOON_S))
            await asyncio.sleep(0.05)
            world.gate.set()
            await closing
        row = await _row(api, run)
        true(row.status == "runnable" and row.lease_until_ms <= await api.store.now_ms(), "the run was given back")
        world.hint(run)
        await asyncio.sleep(0.2)
        same((await _row(api, run)).epoch, row.epoch, "the epoch after a hint to a worker that is gone")
        async with world.worker():
            await _ended(api, run)
        same(world.effects, ["A-1"], "effects")


async def interactive_goes_before_batch(world: World) -> None:
    """Of runs that wait for a slot, interactive ones go first, though batch runs came before them."""
    async with world.api() as api:
        runs = [(await api.start("desk", f"batch {number}", priority="batch")).run for number in range(4)]
        runs += [(await api.start("desk", f"now {number}", priority="interactive")).run for number in range(3)]
        async with world.worker(max_active=1):
            for run in runs:
                await _ended(api, run)
        same([text.split()[0] for text in world.asked], ["now"] * 3 + ["batch"] * 4, "the order of the runs")
        first = [type(entry.event) for entry in await api.store.read(TENANT, runs[0], limit=1)]
        same(first, [ev.RunStarted], "the first event of a batch run")


CHECKS: tuple[EngineCheck, ...] = (
    a_decision_is_followed_at_once,
    what_other_processes_write_is_found,
    what_was_there_before_is_found,
    hints_that_are_wrong_do_no_harm,
    a_run_that_another_drives_is_left_alone,
    a_dead_worker_s_run_is_taken_over,
    a_run_wakes_at_its_time,
    a_drained_worker_takes_nothing_up,
    interactive_goes_before_batch,
)


def in_memory() -> OpenStore:
    """Make databases in memory."""
    databases: dict[str, Tables] = {}

    async def open_store(name: str) -> Store:
        store = MemoryStore(databases.get(name))
        databases[name] = store.tables
        return store

    return open_store


async def exercise_engine(make_engine: MakeEngine, open_store: OpenStore | None = None) -> int:
    """Run every check on a new database of its own (in memory, if no other is given); return how many there are.

    Raises `AssertionError` with the check's name.
    """
    open_store = open_store or in_memory()
    for check in CHECKS:
        await exercise(check, make_engine, open_store)
    return len(CHECKS)


async def exercise(check: EngineCheck, make_engine: MakeEngine, open_store: OpenStore) -> None:
    """Run one check."""
    try:
        await check(World(make_engine, open_store))
    except AssertionError as error:
        raise AssertionError(f"{check.__name__}: {error}") from error
