"""The machines of a deployment: each a process with a real runtime, that is killed, frozen, drained and started again."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from functools import cache
from random import Random
from typing import Any, TypeVar

from stanchion.core.errors import StanchionError
from stanchion.core.prices import load_prices
from stanchion.engine.bound import BoundAgent, bind
from stanchion.journal.quota import Quota
from stanchion.runtime import Runtime
from stanchion.runtime.driving import DriveSettings
from tests.simulation.audit import Audit
from tests.simulation.batches import BatchProvider, BatchThinker
from tests.simulation.database import Connection, Database
from tests.simulation.faults import Faults
from tests.simulation.loop import SimLoop
from tests.simulation.sources import SkewedClock
from tests.simulation.thinker import WINDOW_S, Thinker
from tests.simulation.world import AGENTS

T = TypeVar("T")
SKEWS_MS = (0, 0, 0, 500, -500, 20_000, -20_000, 60_000, -60_000)


class Gone(ConnectionError):
    """The machine went away while it was asked."""


@cache
def bound_agents() -> dict[str, BoundAgent]:
    """Bind the agents, once for all simulations of a process: schemas take long to make."""
    bound: dict[str, BoundAgent] = {}
    for agent in AGENTS:
        registry = agent.registry()
        bundle = agent.bundle(registry, load_prices(), "2026-01-01", framework="sim")
        bound[agent.name] = bind(bundle, registry, (), batchable=frozenset(range(len(bundle.routes))))
    return bound


def slots_of(runtime: Runtime) -> dict[Any, Any]:
    """Give the runs that a runtime drives."""
    return runtime._driving.worker._slots if runtime._driving else {}


class Machine:
    """One process at a time, under one name."""

    def __init__(self, cluster: Cluster, number: int) -> None:
        self.name = f"m{number}"
        self.cluster = cluster
        self.domain = cluster.loop.domain(self.name)
        self.clock = SkewedClock(cluster.loop, cluster.rng, 0)
        self.runtime: Runtime | None = None
        self.asked: dict[asyncio.Future[Any], None] = {}
        self.lines: dict[asyncio.Queue[Any], None] = {}
        self.draining = False

    @property
    def serves(self) -> bool:
        """Whether a client that tries it gets through."""
        return self.runtime is not None and self.domain.state != "dead" and not self.draining

    def start(self) -> None:
        """Start a new process."""
        cluster = self.cluster
        self.domain = cluster.loop.domain(self.name)
        skew_ms = cluster.rng.choice(SKEWS_MS) if cluster.faults.plan.skewed else cluster.database.skew_ms
        self.clock = SkewedClock(cluster.loop, cluster.rng, skew_ms)
        self.draining = False
        cluster.trace("start", self.name, self.clock.skew_ms)
        cluster.loop.spawn(self.domain, self._boot(self.domain))

    async def _boot(self, domain: Any) -> None:
        cluster = self.cluster
        while True:
            client = Thinker(cluster.rng, cluster.faults, cluster.audit, cluster.fail)
            bound = {
                name: dataclasses.replace(agent, clients=[client] * len(agent.bundle.routes))
                for name, agent in bound_agents().items()
            }
            store = Connection(cluster.database, cluster.loop)
            runtime = cluster.runtime_class(
                store, bound, {agent.name: agent for agent in AGENTS}, self.clock, drive=True
            )
            try:
                plan = cluster.faults.plan
                quotas = (Quota("openai", rpm=plan.rpm, tpm=60_000, window_s=WINDOW_S),) if plan.rpm else ()
                batches = {"openai": BatchThinker(cluster.batches)}
                await runtime._drive(
                    DriveSettings(max_active=plan.slots, quotas=quotas, batches=batches, batch_gather_s=2.0)
                )
            except StanchionError:
                await runtime.aclose(grace_s=0)
                await asyncio.sleep(1.0)
                continue
            cluster.prepare(runtime)
            self.runtime = runtime
            return

    def kill(self) -> None:
        """End the process between two of its steps."""
        self.cluster.trace("kill", self.name)
        self.cluster.loop.kill(self.domain)
        self._hang_up()
        self.runtime = None

    def _hang_up(self) -> None:
        for future in list(self.asked):
            self.cluster.loop.after(0.01, _fail, future, Gone(self.name))
        for line in list(self.lines):
            self.cluster.loop.after(0.01, line.put_nowait, Gone(self.name))
        self.asked.clear()
        self.lines.clear()

    async def drain(self, grace_s: float) -> None:
        """Close the runtime in order, and check that nothing is left of it."""
        runtime = self.runtime
        if runtime is None or self.draining or self.domain.state == "dead":
            return
        self.draining = True
        self.cluster.trace("drain", self.name)
        domain = self.domain
        done: asyncio.Future[None] = self.cluster.loop.create_future()

        async def close() -> None:
            await runtime.aclose(grace_s=grace_s)
            if runtime.active and self.cluster.over:
                left = slots_of(runtime)
                self.cluster.fail("memory", f"{self.name}: these runs are active after the drain: {left}")
            _tell(done, None)

        self.cluster.loop.spawn(domain, close())
        try:
            async with asyncio.timeout(grace_s + 60.0):
                await done
        except TimeoutError:
            if domain.state == "up" and not self.cluster.faults.on:
                self.cluster.fail("drain", f"{self.name} did not close within its grace of {grace_s} s")
        if self.domain is domain and domain.state != "dead":
            self.cluster.loop.kill(domain)
            self._hang_up()
            self.runtime = None

    async def ask(self, call: Callable[[Runtime], Awaitable[T]], timeout_s: float = 6.0) -> T:
        """Ask the machine for something, as a client over HTTP does. Raises what it raises, `Gone` and `TimeoutError`."""
        runtime = self.runtime
        if runtime is None:
            raise Gone(self.name)
        answer: asyncio.Future[T] = self.cluster.loop.create_future()
        self.asked[answer] = None

        async def serve() -> None:
            try:
                said = await call(runtime)
            except Exception as error:
                _fail(answer, error)
            else:
                _tell(answer, said)

        self.cluster.loop.spawn(self.domain, serve())
        try:
            async with asyncio.timeout(timeout_s):
                return await answer
        finally:
            self.asked.pop(answer, None)

    def follow(self, tenant: str, run: str, after: int, line: asyncio.Queue[Any]) -> asyncio.Task[None]:
        """Stream a run into a line, as the server does; the line ends with the reason why."""
        runtime = self.runtime
        if runtime is None:
            raise Gone(self.name)
        self.lines[line] = None

        async def pump() -> None:
            try:
                async with aclosing(runtime.tail(run, tenant=tenant, after=after)) as items:
                    async for item in items:
                        line.put_nowait(item)
                line.put_nowait(None)
            except Exception as error:
                line.put_nowait(error)

        return self.cluster.loop.spawn(self.domain, pump())


def _tell(future: asyncio.Future[Any], said: Any) -> None:
    if not future.done():
        future.set_result(said)


def _fail(future: asyncio.Future[Any], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
        future.exception()


class Cluster:
    """All machines over one database."""

    def __init__(
        self, loop: SimLoop, rng: Random, faults: Faults, database: Database, audit: Audit, fail: Any, trace: Any
    ) -> None:
        self.loop, self.rng, self.faults = loop, rng, faults
        self.database, self.audit, self.fail, self.trace = database, audit, fail, trace
        self.over = False
        """All runs are over."""
        self.runtime_class: type[Runtime] = Runtime
        self.batches = BatchProvider(Random(f"batches {faults.plan.seed}"), faults, audit, fail, trace)
        self.machines = [Machine(self, number) for number in range(faults.plan.machines)]

    def prepare(self, runtime: Runtime) -> None:
        """Make hints what they may be: late, lost or doubled."""
        worker: Any = runtime._driving.worker if runtime._driving else None
        hint = worker.hint

        def unsure(tenant: str, run: str) -> None:
            if (tenant, run) not in worker._slots and self.faults.strikes(self.faults.plan.hint_fault):
                for _ in range(self.rng.choice((0, 2))):
                    asyncio.get_running_loop().call_later(self.rng.random() * 2.0, hint, tenant, run)
            else:
                hint(tenant, run)

        worker.hint = unsure

    def any(self) -> Machine | None:
        """Some machine that a client may try; it may be frozen."""
        serving = [machine for machine in self.machines if machine.serves]
        return self.rng.choice(serving) if serving else None

    def sleeping(self) -> Machine | None:
        """Some machine that is frozen and takes requests all the same."""
        frozen = [machine for machine in self.machines if machine.serves and machine.domain.state == "frozen"]
        return self.rng.choice(frozen) if frozen else None

    def check_states(self) -> None:
        """Whoever drives a run holds the state that its journal says (I3)."""
        for machine in self.machines:
            runtime = machine.runtime
            if runtime is None or machine.domain.state != "up":
                continue
            for place, slot in slots_of(runtime).items():
                known = self.audit.runs.get(place)
                if slot.drive is None or known is None or slot.drive.state.hash != known.hash or not known.seq:
                    continue
                if slot.drive.state != known.state:
                    self.fail("I3", f"{known.run}: its driver's state is not what its journal says")
