"""What a worker takes on: how many runs at once, whose next, and what other workers are there for.

Slots are for runs that are driven. Batch runs leave some of them free, so that an interactive run finds one at once; and
an interactive run starts at once only while no other of its class was seen waiting. What a worker does not serve it
leaves to those that do, and only where no worker has served it for a while it is taken on to be parked.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from stanchion.engine.clock import Clock
from stanchion.engine.turns import Turns
from stanchion.journal.share import INTERACTIVE, Ready, Shares, WorkerRow
from stanchion.journal.store import Store

KNOWN_S = 1.0
"""For how long shares are remembered."""
BEAT_S = 2.0
IDLE_BEAT_S = 10.0
"""How often a worker says that it works: while it drives runs, and while it has none."""
LIVE_MS = 25_000
"""A worker that was not heard of for so long counts as gone."""
GRACE_S = 30.0
"""For how long an agent may be served by nobody before its runs are parked: workers are restarted meanwhile."""
MISSING_CHECK_S = 5.0
MISSING_CHECK_ALONE_S = 1.0
"""How often agents that nobody serves are looked for: where others may come, and where this process is alone."""
PARKED_AT_ONCE = 50
MOST_APART = 8
"""Among how many times as many runs as there is room for workers choose, so as not to choose the same."""
RATE_OVER_S = 30.0
"""The time over which begun runs are counted."""


@dataclass(frozen=True, slots=True)
class Slots:
    """How many runs a worker drives at once."""

    most: int
    reserved: int = -1
    """Of them free of batch runs; -1: a tenth, and at least one of two."""

    @property
    def for_batch(self) -> int:
        """Up to how many active runs a batch run may be taken on."""
        return self.most - (max(self.most // 10, int(self.most > 1)) if self.reserved < 0 else self.reserved)


@dataclass(slots=True)
class Held:
    """A slot that a run takes."""

    priority: int
    tenant: str
    charge: float
    begun: bool
    """It had begun before."""
    since_s: float


@dataclass(slots=True)
class _Rate:
    """How many runs were begun of late."""

    counts: deque[tuple[float, int]] = field(default_factory=deque[tuple[float, int]])

    def add(self, now_s: float) -> None:
        if self.counts and now_s - self.counts[-1][0] < 1.0:
            at, count = self.counts.pop()
            self.counts.append((at, count + 1))
        else:
            self.counts.append((now_s, 1))

    def per_s(self, now_s: float, since_s: float) -> float:
        while self.counts and now_s - self.counts[0][0] > RATE_OVER_S:
            self.counts.popleft()
        over_s = max(min(now_s - since_s, RATE_OVER_S), 1.0)
        return sum(count for _, count in self.counts) / over_s


class Taking:
    """What one worker takes on."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        name: str,
        slots: Slots,
        agents: Mapping[str, str],
        *,
        adopt: bool,
        version: str,
    ) -> None:
        self.shared = False
        """Other processes may drive runs of this store."""
        self._store = store
        self._clock = clock
        self._name = name
        self._slots = slots
        self._agents = agents
        self._adopt = adopt
        self._version = version
        self._turns = Turns()
        self._shares = Shares()
        self._shares_at_s = float("-inf")
        self._backlog = False
        """Interactive runs may be waiting for a slot: none starts past them."""
        self._began_s = asyncio.get_running_loop().time()
        self._rate = _Rate()
        self._started_ms = 0
        self._beat_at_s = float("-inf")
        self._beat_active = -1
        self._checked_at_s = float("-inf")
        self._others = 0
        """Live workers beside this one, which look at the same runs."""
        self._missing: dict[str, float] = {}
        """Agents that no worker serves, and since when."""

    # --- slots -------------------------------------------------------------------------------------------------------

    def may_start(self, active: int) -> bool:
        """Say whether an interactive run may be driven at once."""
        return active < self._slots.most and not self._backlog

    def waits(self) -> None:
        """Say that an interactive run was left to wait for a slot."""
        self._backlog = True

    def hold(self, priority: int, tenant: str, *, begun: bool) -> Held:
        """Count a run that takes a slot."""
        charge = self._turns.begin(priority, tenant, self._shares.weight_of(tenant))
        return Held(priority, tenant, charge, begun, asyncio.get_running_loop().time())

    def drives(self, held: Held) -> None:
        """Count a run that is driven from now on."""
        if not held.begun:
            self._rate.add(asyncio.get_running_loop().time())

    def free(self, held: Held, *, had: bool) -> None:
        """Count a run that leaves its slot. `had`: it was driven."""
        if had:
            held_s = asyncio.get_running_loop().time() - held.since_s
            self._turns.end(held.priority, held.tenant, held_s)
        else:
            self._turns.undo(held.priority, held.tenant, held.charge)

    # --- looking -----------------------------------------------------------------------------------------------------

    async def look(self, active: int) -> Sequence[Ready]:
        """Find what to take on next, in order. Raises `JournalError`."""
        room = self._slots.most - active
        if room <= 0:
            self._backlog = True
            return ()
        await self._read_shares()
        batch = max(self._slots.for_batch - active, 0)
        most = room * min(1 + self._others, MOST_APART)
        found = await self._store.runnable(limit=most, batch=batch, agents=self._agents, ahead=self._turns.ahead())
        if not found:
            self._turns.forget()
        interactive = sum(one.priority >= INTERACTIVE for one in found)
        self._backlog = interactive >= room or (self._backlog and interactive > 0)
        found = found if self._others == 0 else apart(found, room, self._clock.draw)
        return [*found, *await self._unserved(room - len(found))]

    def weight_of(self, tenant: str) -> float:
        """A tenant's weight against others, as it was read last."""
        return self._shares.weight_of(tenant)

    async def _read_shares(self) -> None:
        now_s = asyncio.get_running_loop().time()
        if now_s - self._shares_at_s > KNOWN_S:
            self._shares = await self._store.sharing.shares()
            self._shares_at_s = now_s

    async def _unserved(self, room: int) -> Sequence[Ready]:
        """Find runs that nobody serves, to be parked."""
        now_s = asyncio.get_running_loop().time()
        every_s = MISSING_CHECK_S if self.shared else MISSING_CHECK_ALONE_S
        if not self._adopt or room <= 0 or now_s - self._checked_at_s < every_s:
            return ()
        self._checked_at_s = now_s
        wanted = {agent for agent in await self._store.sharing.agents() if agent not in self._agents}
        served = await self._served_elsewhere() if wanted else frozenset[str]()
        self._missing = {agent: self._missing.get(agent, now_s) for agent in sorted(wanted - served)}
        grace_s = GRACE_S if self.shared else 0.0
        gone = [agent for agent, since_s in self._missing.items() if now_s - since_s >= grace_s]
        if not gone:
            return ()
        return await self._store.runnable(limit=min(room, PARKED_AT_ONCE), agents=gone)

    async def _served_elsewhere(self) -> frozenset[str]:
        return frozenset(agent for row in await self._live() for agent in row.agents)

    async def _live(self) -> Sequence[WorkerRow]:
        since_ms = self._clock.now_ms() - LIVE_MS
        return [row for row in await self._store.sharing.workers() if row.seen_ms > since_ms]

    # --- being there ---------------------------------------------------------------------------------------------------

    async def beat(self, active: int) -> None:
        """Say that this worker works, when it is time. Raises `JournalError`."""
        now_s = asyncio.get_running_loop().time()
        if now_s - self._beat_at_s < (BEAT_S if active or self._beat_active else IDLE_BEAT_S):
            return
        self._beat_at_s, self._beat_active = now_s, active
        self._started_ms = self._started_ms or self._clock.now_ms()
        if self.shared:
            names = {row.name for row in await self._live() if not self._agents.keys().isdisjoint(row.agents)}
            self._others = len(names - {self._name})
        await self._store.sharing.beat(
            WorkerRow(
                name=self._name,
                agents=dict(self._agents),
                adopts=self._adopt,
                version=self._version,
                host=socket.gethostname(),
                pid=os.getpid(),
                active=active,
                max_active=self._slots.most,
                rate=round(self._rate.per_s(now_s, self._began_s), 3),
                started_ms=self._started_ms,
            )
        )

    async def leave(self) -> None:
        """Say that this worker has ended. Raises `JournalError`."""
        await self._store.sharing.leave(self._name)


def apart(found: Sequence[Ready], room: int, draw: Callable[[], float]) -> list[Ready]:
    """Choose so many as there is room for: the turns as they are, and in each tenant's turn any of its first runs.

    Workers that look at the same moment would else all claim the same runs, and all but one in vain.
    """
    pools: dict[tuple[int, str, bool, bool], list[Ready]] = {}
    for one in found:
        pools.setdefault((one.priority, one.tenant, one.begun, one.lost), []).append(one)
    turns = (pools[one.priority, one.tenant, one.begun, one.lost] for one in found[:room])
    return [pool.pop(int(draw() * len(pool))) for pool in turns]
