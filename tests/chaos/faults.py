"""The faults of the fleet, and how each is delivered: at a random moment, or aimed at a point of what a process does.

A fault counts when it happened: the signal was sent, a connection was cut, the trap was sprung. What was aimed at a point that
did not come within `AIM_S` is not counted.
"""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from tests.chaos.fleet import Fleet, Held, Member, Restart
from tests.chaos.proxy import Cut, Way

LEASE_S = 2.5
"""Of a worker on PostgreSQL; a process is frozen for longer than this."""
LONG_HOLE_S = (41.0, 47.0)
"""Longer than any timeout of the store (a command's is 40 s)."""
GRACE_S = 14.0
"""A process's own is 10 s; the rest is the machine's."""
AIM_S = 2.0
POINTS = ("claim", "claimed", "append", "appended")
"""Of a process's store; see `tests.chaos.member`."""
CALLS = ("received", "applied")
"""Of a call at the witness."""


@dataclass(slots=True)
class Fault:
    """A fault that was delivered."""

    kind: str
    member: str
    at_s: float
    held: list[Held] = field(default_factory=list[Held])
    """The runs that the process drove at that moment."""


@dataclass(slots=True)
class Thaw:
    """A run that a frozen process drove, and where it stood when that one went on."""

    run: str
    epoch: int
    """Of the frozen process."""
    seq: int
    """From here on no event of that epoch may come."""
    taken: bool
    """Another had claimed it meanwhile."""


class Trouble:
    """Delivers faults to a fleet and keeps the list of them."""

    def __init__(self, fleet: Fleet, chance: random.Random, *, long: bool = False) -> None:
        self.faults: list[Fault] = []
        self.thaws: list[Thaw] = []
        self._fleet = fleet
        self._chance = chance
        self._long = long
        self._down = asyncio.Semaphore(max(len(fleet.drivers) - 1, 1))
        """At least one process is neither killed nor frozen nor cut off for long: somebody is there to take over."""

    async def strike(self, member: Member) -> None:
        """Deliver a fault to a process."""
        drives = member.kind != "api"
        down: list[tuple[int, Callable[[Member], Awaitable[None]]]] = [
            (18, self._kill),
            (14 * drives, self._kill_at_point),
            (12 * drives, self._kill_at_call),
            (5, self._freeze),
            (5 * drives, self._freeze_at_point),
            (5 * drives, self._freeze_at_call),
            (7, self._hole),
            (6, self._drain),
        ]
        short: list[tuple[int, Callable[[Member], Awaitable[None]]]] = [
            (14, self._cut),
            (20, self._cut_at),
            (6, self._half_close),
            (5, self._slow),
            (7, self._skew),
        ]
        kinds = [*down, *short]
        chosen = self._chance.choices(range(len(kinds)), [weight for weight, _ in kinds])[0]
        await member.up.wait()
        if chosen >= len(down) or not drives:
            await kinds[chosen][1](member)
            return
        async with self._down:
            await kinds[chosen][1](member)

    async def restart(self) -> None:
        """Restart the database."""
        how: Restart = self._chance.choice(("immediate", "fast", "killed"))
        held = [run for member in self._fleet.drivers for run in await self._fleet.database.held_by(member.worker)]
        self._note(f"database_{how}", "database", held)
        await self._fleet.database.restart(how)

    def _note(self, kind: str, member: str, held: list[Held], at_s: float = 0.0) -> Fault:
        fault = Fault(kind, member, at_s or time.time(), held)
        self.faults.append(fault)
        return fault

    async def _held(self, member: Member) -> list[Held]:
        return await self._fleet.database.held_by(member.worker)

    # --- SIGKILL ---------------------------------------------------------------------------------------------------------

    async def _kill(self, member: Member) -> None:
        await self._died(member, member.worker, "kill", self._send(member, signal.SIGKILL))

    async def _kill_at_point(self, member: Member) -> None:
        point, worker = self._chance.choice(POINTS), member.worker
        at_s = await self._at_point(member, point, signal.SIGKILL)
        if at_s:
            await self._died(member, worker, f"kill_at_{point}", at_s)

    async def _kill_at_call(self, member: Member) -> None:
        point, worker = self._chance.choice(CALLS), member.worker
        member.expected = True
        at_s = await self._fleet.trap(member, point, signal.SIGKILL, AIM_S)
        if at_s:
            await self._died(member, worker, f"kill_at_{point}", at_s)
        else:
            member.expected = False

    async def _died(self, member: Member, worker: str, kind: str, at_s: float) -> None:
        await member.gone.wait()
        self._note(kind, member.name, await self._fleet.database.held_by(worker), at_s)
        await member.up.wait()

    def _send(self, member: Member, number: signal.Signals) -> float:
        member.expected = number == signal.SIGKILL
        at_s = time.time()
        member.send(number)
        return at_s

    async def _at_point(self, member: Member, point: str, number: signal.Signals) -> float:
        """Have a process send itself a signal at a point; when that was, or 0."""
        member.burnt.clear()
        member.expected = number == signal.SIGKILL
        member.order(point=point, at=self._chance.randint(1, 4), signal=int(number))
        try:
            async with asyncio.timeout(AIM_S):
                await member.burnt.wait()
        except TimeoutError:
            if not await member.disarm():
                member.expected = False
                return 0.0
        return time.time()

    async def _drain(self, member: Member) -> None:
        """Ask a process to go, as a deployment does; it must, within its grace and with exit code 0."""
        held = await self._held(member)
        self._note("sigterm", member.name, held, self._send(member, signal.SIGTERM))
        member.expected = True
        try:
            async with asyncio.timeout(GRACE_S):
                await member.gone.wait()
        except TimeoutError:
            member.problems.append(f"{member.name} did not end within {GRACE_S:.0f} s of SIGTERM; see {member.log}")
            self._send(member, signal.SIGKILL)
            await member.gone.wait()
        else:
            if member.code:
                member.problems.append(f"{member.name} ended with exit code {member.code} on SIGTERM; see {member.log}")
        await member.up.wait()

    # --- SIGSTOP ---------------------------------------------------------------------------------------------------------

    async def _freeze(self, member: Member) -> None:
        member.thawed.clear()
        self._send(member, signal.SIGSTOP)
        await self._thaw(member, "freeze")

    async def _freeze_at_point(self, member: Member) -> None:
        point = self._chance.choice(POINTS)
        member.thawed.clear()
        if await self._at_point(member, point, signal.SIGSTOP):
            await self._thaw(member, f"freeze_at_{point}")
        member.thawed.set()

    async def _freeze_at_call(self, member: Member) -> None:
        point = self._chance.choice(CALLS)
        member.thawed.clear()
        if await self._fleet.trap(member, point, signal.SIGSTOP, AIM_S):
            await self._thaw(member, f"freeze_at_{point}")
        member.thawed.set()

    async def _thaw(self, member: Member, kind: str) -> None:
        """Let a process stand for longer than its leases, look what became of its runs, and let it go on."""
        fault = self._note(kind, member.name, await self._held(member))
        await asyncio.sleep(LEASE_S + self._chance.uniform(0.5, 2.5))
        rows = await self._fleet.database.rows([held.run for held in fault.held])
        for held in fault.held:
            if (now := rows.get(held.run)) is not None and now.epoch > held.epoch:
                self.thaws.append(Thaw(held.run, held.epoch, now.seq, taken=True))
        member.send(signal.SIGCONT)
        member.thawed.set()

    # --- connections -----------------------------------------------------------------------------------------------------

    async def _cut(self, member: Member) -> None:
        held = await self._held(member)
        if member.proxy.abort():
            self._note("cut", member.name, held)

    async def _cut_at(self, member: Member) -> None:
        cuts: tuple[Cut, ...] = ("before_commit", "after_commit", "after_commit", "mid_statement")
        cut, proxy = self._chance.choice(cuts), member.proxy
        proxy.was_cut.clear()
        proxy.cut = cut
        try:
            async with asyncio.timeout(AIM_S):
                await proxy.was_cut.wait()
        except TimeoutError:
            proxy.cut = ""
            return
        self._note(f"cut_{cut}", member.name, await self._held(member))

    async def _half_close(self, member: Member) -> None:
        ways: tuple[Way, Way] = ("up", "down")
        way, held = self._chance.choice(ways), await self._held(member)
        if member.proxy.connections:
            member.proxy.half_close(way)
            self._note(f"half_close_{way}", member.name, held)

    async def _hole(self, member: Member) -> None:
        """A black hole, in both directions or in one: nothing comes through, and nobody is told."""
        choices: tuple[tuple[Way, ...], ...] = (("up", "down"), ("up", "down"), ("up",), ("down",))
        ways = self._chance.choice(choices)
        held = await self._held(member)
        member.proxy.shut(*ways)
        long = self._long and self._chance.random() < 0.07
        self._note(f"{'long_' if long else ''}hole_{'both' if len(ways) == 2 else ways[0]}", member.name, held)
        await asyncio.sleep(self._chance.uniform(*(LONG_HOLE_S if long else (1.0, LEASE_S + 3.0))))
        if self._chance.random() < 0.5:
            member.proxy.abort()
        member.proxy.open()

    async def _slow(self, member: Member) -> None:
        held = await self._held(member)
        member.proxy.delay_s = self._chance.uniform(0.02, 0.2)
        self._note("slow", member.name, held)
        await asyncio.sleep(self._chance.uniform(0.5, 2.0))
        member.proxy.delay_s = 0.0

    # --- clocks ----------------------------------------------------------------------------------------------------------

    async def _skew(self, member: Member) -> None:
        """Move a process's wall clock by a minute or two; it stays so, over restarts too."""
        member.skew_s = self._chance.choice([skew_s for skew_s in (-60.0, 0.0, 60.0) if skew_s != member.skew_s])
        member.order(skew_s=member.skew_s)
        self._note("skew", member.name, await self._held(member))
