"""One simulation from a seed: build the deployment, let things go wrong for a while, stop the faults, and hold it to account.

outcome = simulate(Plan.of(17))       the same seed gives the same trace, bit for bit
"""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from stanchion.core.errors import JournalError
from stanchion.journal.share import TENANT, Share
from stanchion.journal.store import Key
from tests.simulation.audit import Audit, digest
from tests.simulation.cluster import Cluster, bound_agents, slots_of
from tests.simulation.database import AuditedTables, Database
from tests.simulation.faults import Faults, Plan
from tests.simulation.loop import SimLoop, Stuck
from tests.simulation.mutation import mutated
from tests.simulation.people import People
from tests.simulation.sources import virtual
from tests.simulation.world import World

PATIENCE_S = 900.0
"""Virtual seconds after the last fault within which everything must have come to its end."""
MOST_STEPS = 600_000


@dataclass(slots=True)
class Outcome:
    """What came of a simulation."""

    plan: Plan
    problem: str = ""
    trace: list[str] = field(default_factory=list)
    digest: str = ""
    events: int = 0
    steps: int = 0
    virtual_s: float = 0.0
    counts: dict[str, int] = field(default_factory=dict)


class _Log(logging.Handler):
    """Exceptions that nobody foresaw are violations."""

    def __init__(self, fail: Any) -> None:
        super().__init__()
        self._fail = fail

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[1] is not None:
            self._fail("crash", f"{record.getMessage()}: {record.exc_info[1]!r}")


class Simulation:
    """One deployment and its faults."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.problem = ""
        self.trace_lines: list[str] = []
        self.counts: dict[str, int] = {}
        rng = self._rng = Random(f"run {plan.seed}")
        self.loop = SimLoop(Random(rng.random()), reorder=plan.reorder)
        self.faults = Faults(plan, Random(rng.random()))
        bundles = {name: agent.bundle for name, agent in bound_agents().items()}
        self.audit = Audit(bundles, self.fail, self.trace)
        keys = Random(rng.random())
        self.tables = AuditedTables(self.audit, lambda: _key(keys), plan.mutation)
        self.database = Database(self.loop, Random(rng.random()), self.tables, self.faults)
        self.chance = Random(rng.random())
        self.cluster = Cluster(
            self.loop, Random(rng.random()), self.faults, self.database, self.audit, self.fail, self.trace
        )
        world = Random(rng.random())
        self.world = World.current = World(self.loop, world, self.faults, self.audit, self.fail, self.trace)
        self.people = People(plan, self.cluster, self.world, Random(rng.random()))

    def fail(self, invariant: str, text: str) -> None:
        """Keep the first violation, and stop."""
        if not self.problem:
            self.problem = f"{invariant}: {text}"
            self.trace("VIOLATED", self.problem)
            self.loop.stop()

    def trace(self, what: str, *more: object) -> None:
        """Write a line of the trace."""
        self.counts[what] = self.counts.get(what, 0) + 1
        self.trace_lines.append(f"{self.loop.time():9.3f} {what} {' '.join(map(str, more))}")

    def run(self) -> None:
        """Play it."""
        log = logging.getLogger("stanchion")
        handler, level, propagates = _Log(self.fail), log.level, log.propagate
        log.addHandler(handler)
        log.propagate = False
        log.setLevel(logging.ERROR)
        asyncio.set_event_loop(None)
        collecting = gc.isenabled()
        gc.disable()  # no finalizer runs between two steps
        try:
            main = self.loop.spawn(self.loop.world, self._main())
            main.add_done_callback(lambda _: self.loop.stop())
            self.loop.run_forever()
            self._close(main)
        except Stuck:
            self.fail("liveness", "nothing is ready and nothing is due")
        finally:
            self.loop.finish()
            log.removeHandler(handler)
            log.propagate = propagates
            log.setLevel(level)
            if collecting:
                gc.enable()

    def _close(self, main: asyncio.Task[None]) -> None:
        error = main.exception() if main.done() and not main.cancelled() else None
        if error is not None:
            self.fail("simulation", f"{type(error).__name__}: {error}")
        if self.loop.errors:
            self.fail("crash", self.loop.errors[0])
        for task in self.loop.tasks:
            failed = task.exception() if task.done() and not task.cancelled() else None
            if failed is not None and not isinstance(failed, JournalError):
                self.fail("crash", f"a task ended by {failed!r}")

    async def _main(self) -> None:
        if self.plan.budget:
            self.tables.books.set_limit("acme", "tenant", self.plan.budget)
        if self.plan.cap:
            self.tables.sharing.set(Share(tenant="", scope=TENANT, max_running=self.plan.cap))
        for machine in self.cluster.machines:
            machine.start()
        self.database.aimed = self._aimed
        self.people.begin()
        await self._go_wrong()
        await self._mend()
        await self._await_the_end()
        self.cluster.over = True
        await asyncio.sleep(self.plan.lease_s + 1.0)  # who was thawed just now learns that nothing is his
        for machine in self.cluster.machines:
            self._check_memory(machine)
            await machine.drain(10.0)
        self.audit.verify(self.tables)
        self.people.check()

    # --- faults -----------------------------------------------------------------------------------------------------------

    async def _go_wrong(self) -> None:
        plan, chance = self.plan, self.chance
        kinds = {
            self._kill: plan.kills,
            self._freeze: plan.freezes,
            self._drain: plan.drains,
            self._jump: plan.jumps if plan.skewed else 0.0,
            self._crash: plan.crashes,
        }
        total = sum(kinds.values())
        end_s = plan.fault_s
        while self.loop.time() < end_s:
            step_s = chance.expovariate(total) if total else end_s
            await asyncio.sleep(min(step_s, end_s - self.loop.time(), 2.0))
            self.cluster.check_states()
            if total and step_s <= 2.0:
                (action,) = chance.choices(list(kinds), list(kinds.values()))
                action(chance.choice(self.cluster.machines))

    def _aimed(self, domain: Any) -> None:
        machine = next((machine for machine in self.cluster.machines if machine.domain is domain), None)
        if machine is not None:
            if self.chance.random() < 0.3:
                self._kill(machine)
            else:
                self._freeze(machine, (1.5, 3.0, 5.0))

    def _kill(self, machine: Any) -> None:
        if machine.domain.state != "dead":
            machine.kill()
            self.loop.after(self.chance.random() * self.chance.choice((0.5, 5.0, 20.0)), self._restart, machine)

    def _restart(self, machine: Any) -> None:
        if machine.domain.state == "dead":
            machine.start()

    def _freeze(self, machine: Any, leases: Sequence[float] = (0.2, 0.9, 1.5, 3.0)) -> None:
        if machine.domain.state == "up":
            for_s = self.plan.lease_s * self.chance.choice(leases)
            self.trace("freeze", machine.name, f"{for_s:.1f}")
            self.loop.freeze(machine.domain)
            self.loop.after(for_s, self._thaw, machine.domain)

    def _thaw(self, domain: Any) -> None:
        if domain.state == "frozen":
            self.trace("thaw", domain.name)
            self.loop.thaw(domain)

    def _drain(self, machine: Any) -> None:
        async def drain() -> None:
            await machine.drain(self.chance.choice((0.0, 2.0, 10.0)))
            await asyncio.sleep(self.chance.random() * 5.0)
            self._restart(machine)

        if machine.serves:
            self.loop.spawn(self.loop.world, drain())

    def _jump(self, machine: Any) -> None:
        machine.clock.skew_ms += self.chance.choice((-60_000, -3_000, 3_000, 60_000))
        self.trace("jump", machine.name, machine.clock.skew_ms)

    def _crash(self, _: Any) -> None:
        if self.database.up:
            self.trace("crash")
            self.database.crash()
            self.loop.after(self.chance.random() * self.chance.choice((0.5, 5.0)), self._recover)

    def _recover(self) -> None:
        self.trace("recover")
        self.database.up = True

    # --- the end ----------------------------------------------------------------------------------------------------------

    async def _mend(self) -> None:
        self.faults.stop()
        self.trace("mend")
        await asyncio.sleep(3.0)
        self.database.up = True
        for machine in self.cluster.machines:
            self._restart(machine)

    async def _await_the_end(self) -> None:
        patience_s = PATIENCE_S * (2 if self.plan.batches else 1)
        end_s = self.loop.time() + patience_s
        while self._is_open():
            await asyncio.sleep(1.0)
            if self.loop.steps > MOST_STEPS:
                self.fail("liveness", f"{self.loop.steps} steps, and still not over: {self._open()}")
                return
            if self.loop.time() > end_s:
                self.fail("liveness", f"not over {patience_s:g} s after the last fault: {self._open()}")
                return

    def _is_open(self) -> bool:
        up = all(machine.serves and machine.domain.state == "up" for machine in self.cluster.machines)
        return not up or bool(self.audit.standing) or not all(request.over for request in self.people.requests)

    def _open(self) -> str:
        runs = [f"{run} ({self.tables.runs[tenant, run].status})" for tenant, run in self.audit.standing]
        clients = [request.plan for request in self.people.requests if not request.over]
        return f"runs {runs}, clients {clients}"

    def _check_memory(self, machine: Any) -> None:
        runtime = machine.runtime
        if runtime is None:
            self.fail("liveness", f"{machine.name} is not up")
        elif slots_of(runtime) or runtime._live._topics:
            left = slots_of(runtime), list(runtime._live._topics)
            self.fail("memory", f"{machine.name} still holds {left} when all is over")


def _key(rng: Random) -> Key:
    return Key(f"{rng.getrandbits(48):x}", rng.randbytes(32))


def simulate(plan: Plan) -> Outcome:
    """Play a plan."""
    simulation = Simulation(plan)
    settings = {"lease_s": plan.lease_s, "sweep_s": plan.sweep_s}
    with virtual(simulation.loop, Random(f"ids {plan.seed}"), settings), mutated(plan.mutation):
        simulation.run()
    return Outcome(
        plan,
        simulation.problem,
        simulation.trace_lines,
        digest(simulation.trace_lines),
        simulation.audit.events,
        simulation.loop.steps,
        simulation.loop.time(),
        simulation.counts,
    )
