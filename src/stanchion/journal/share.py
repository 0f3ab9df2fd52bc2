"""Who goes next and how many at once: shares, the order of what is runnable, places in the queue, and who works.

A run that may be driven and is not *is ready*; one that was never driven *has not begun*. Ready runs go in this order:

1. By class: interactive (`INTERACTIVE`) before batch (`BATCH`).
2. Within a class, runs whose worker was lost, the longest there first: they hold their places, and effects may be in flight.
3. Then tenants take turns by weight. Each tenant's runs stand in one queue, those that have begun first and each kind by
   age; the n-th (from 0) goes at `ahead + n / weight`, where `ahead` is what the tenant had of late (`engine.turns`).

Nothing here awaits; what a store does lies behind the port `Sharing`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec

INTERACTIVE = 0
BATCH = -1
"""Values of a run's priority: the higher goes first, and what is below `INTERACTIVE` is batch."""
TENANT = "tenant"
MAX_QUEUED = 10_000
"""Runs of a tenant that may wait to begin, where no share says otherwise."""
PAIRS_SEEN = 2_000
"""Queues (a tenant's runs of one agent and class) that one look takes in; the next look goes on from there."""
RunningOf = tuple[str, str, str]
"""Tenant, agent and user of runs; "" stands for all."""
Ahead = Mapping[tuple[int, str], float]
"""What tenants had of late, by priority and tenant; see `engine.turns`."""
NOBODY: Ahead = {}


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """What a tenant, an agent or a user may have of the workers.

    `scope` is "tenant", "agent:NAME" or "user:NAME" ("user:*": each user that has no share of its own). Shares of tenant
    "" are the operator's: "tenant" and "user:*" are what tenants without one of their own have, each for itself;
    "agent:NAME" holds for all tenants together.
    """

    tenant: str
    scope: str = TENANT
    weight: int = 0
    """Of a tenant against others; 0: not set, which is 1."""
    max_running: int = -1
    """Runs that are driven at once; -1: not set, which is no limit."""
    max_queued: int = -1
    """Runs of a tenant that wait to begin; -1: not set, which is `MAX_QUEUED`."""

    @property
    def says_nothing(self) -> bool:
        """Whether nothing is set."""
        return self.weight == 0 and self.max_running < 0 and self.max_queued < 0


class Cap(NamedTuple):
    """A limit on the runs that are driven at once."""

    of: RunningOf
    limit: int
    scope: str


class NoPlace(msgspec.Struct, frozen=True):
    """A start that would be driven at once meets a cap: nothing was written. It may be started undriven, and waits."""

    scope: str
    limit: int
    """Of runs that are driven; for scope "queue", of those that wait to begin."""


class Shares:
    """All shares as they were read."""

    def __init__(self, rows: Iterable[Share] = ()) -> None:
        self._rows = {(row.tenant, row.scope): row for row in rows}
        self.capped = any(row.max_running >= 0 for row in self._rows.values())
        """Whether any number of running runs is limited."""

    def weight_of(self, tenant: str) -> int:
        """A tenant's weight against others."""
        return next((row.weight for row in self._for_tenant(tenant) if row.weight > 0), 1)

    def max_queued(self, tenant: str) -> int:
        """How many runs of a tenant may wait to begin."""
        return next((row.max_queued for row in self._for_tenant(tenant) if row.max_queued >= 0), MAX_QUEUED)

    def caps(self, tenant: str, agent: str, user: str) -> tuple[Cap, ...]:
        """Limits that a run falls under."""
        if not self.capped:
            return ()
        asked: list[tuple[RunningOf, Sequence[tuple[str, str]]]] = [
            ((tenant, "", ""), ((tenant, TENANT), ("", TENANT))),
            ((tenant, agent, ""), ((tenant, f"agent:{agent}"),)),
            (("", agent, ""), (("", f"agent:{agent}"),)),
        ]
        if user:
            asked.append(((tenant, "", user), ((tenant, f"user:{user}"), (tenant, "user:*"), ("", "user:*"))))
        found = (
            (of, next((row for row in self._rows_of(places) if row.max_running >= 0), None)) for of, places in asked
        )
        return tuple(Cap(of, row.max_running, row.scope) for of, row in found if row is not None)

    def _for_tenant(self, tenant: str) -> Iterable[Share]:
        return self._rows_of(((tenant, TENANT), ("", TENANT)))

    def _rows_of(self, places: Iterable[tuple[str, str]]) -> Iterable[Share]:
        return (row for place in places if (row := self._rows.get(place)) is not None)


class Ready(NamedTuple):
    """A run that may be driven and is not."""

    priority: int
    tenant: str
    agent: str
    user: str
    begun: bool
    no: int
    """Its age: the lower is the older."""
    run: str
    lost: bool = False
    """Its worker is gone: it holds its place under the caps."""


class Running:
    """How many runs are driven, by tenant, agent and user; what is still free under the caps."""

    def __init__(self, shares: Shares, counts: Mapping[RunningOf, int] | None = None) -> None:
        self._shares = shares
        self._of: Counter[RunningOf] = Counter(counts)

    @classmethod
    def counted(cls, shares: Shares, rows: Iterable[Sequence[Any]]) -> Running:
        """Count from rows of (tenant, agent, user, how many)."""
        running = cls(shares)
        for tenant, agent, user, count in rows:
            running._add(tenant, agent, user, count)
        return running

    def _add(self, tenant: str, agent: str, user: str, count: int) -> None:
        for of in {(tenant, "", ""), (tenant, agent, ""), ("", agent, ""), (tenant, "", user)}:
            self._of[of] += count

    def met(self, tenant: str, agent: str, user: str) -> Cap | None:
        """Find a cap that leaves no place for such a run."""
        caps = self._shares.caps(tenant, agent, user)
        return next((cap for cap in caps if self._of[cap.of] >= cap.limit), None)

    def take(self, tenant: str, agent: str, user: str) -> bool:
        """Take a place for such a run, if there is one."""
        if self.met(tenant, agent, user) is not None:
            return False
        self._add(tenant, agent, user, 1)
        return True

    def full(self) -> set[RunningOf]:
        """Name what has no place left, of what is driven now."""
        found = {cap for tenant, agent, user in self._of if tenant for cap in self._shares.caps(tenant, agent, user)}
        return {cap.of for cap in found if self._of[cap.of] >= cap.limit}


def fair_order(
    found: Iterable[Ready], *, limit: int, batch: int, running: Running, shares: Shares, ahead: Ahead
) -> list[Ready]:
    """Put runs in the order in which they go, at most `limit`, `batch` of them batch (-1: any number).

    One whose caps leave no place is left out, and holds up nobody.
    """
    queues: dict[tuple[int, str], list[Ready]] = {}
    turns: list[tuple[int, bool, float, int, Ready]] = []
    for one in found:
        if one.lost:
            turns.append((-one.priority, False, 0.0, one.no, one))
        else:
            queues.setdefault((one.priority, one.tenant), []).append(one)
    for (priority, tenant), queue in queues.items():
        queue.sort(key=lambda one: (not one.begun, one.no))
        begins, weight = ahead.get((priority, tenant), 0.0), shares.weight_of(tenant)
        fitting = (one for one in queue if running.met(tenant, one.agent, one.user) is None)
        turns += ((-priority, True, begins + place / weight, one.no, one) for place, one in enumerate(fitting))
    turns.sort(key=lambda turn: turn[:4])
    order: list[Ready] = []
    for *_, one in turns:
        if len(order) == limit:
            break
        if one.priority < INTERACTIVE and batch == 0:
            continue
        if one.lost or running.take(one.tenant, one.agent, one.user):
            order.append(one)
            batch -= one.priority < INTERACTIVE
    return order


class Place(msgspec.Struct, frozen=True):
    """Where a run that has not begun stands, at this moment."""

    position: int
    """From 1: how many go before it, if nothing else comes and all tenants begin even, and itself."""
    ahead: int
    """How many of its own tenant go before it."""
    rate: float
    """Runs that all workers begin in a second, as measured of late; 0: not known."""


def position(own: int, weight: int, others: Iterable[tuple[int, int]], before: int) -> int:
    """Tell a place in the order above. `others`: length of the queue and weight of each other tenant of the class.

    `own`: how many of its own tenant go before it; `before`: how many of a class before its own are ready. Who
    stands level goes first.
    """
    return 1 + before + own + sum(min(length, own * its // weight + 1) for length, its in others)


class WorkerRow(msgspec.Struct, frozen=True, kw_only=True):
    """A worker process."""

    name: str
    agents: dict[str, str]
    """Names and bundle digests of what it drives."""
    adopts: bool = True
    """It parks, after a while, runs of agents that no worker serves."""
    version: str = ""
    host: str = ""
    pid: int = 0
    active: int = 0
    """Runs that it drives."""
    max_active: int = 0
    rate: float = 0.0
    """Runs that it began in a second, of late."""
    started_ms: int = 0
    seen_ms: int = 0
    """When it was last heard of, by the store's clock, which fills it in."""


class Sharing(Protocol):
    """The part of a store that says who goes next."""

    async def set(self, share: Share) -> None:
        """Set a share; one that says nothing is taken away. Other processes go by it within a second."""
        ...

    async def rows(self) -> Sequence[Share]:
        """List all shares."""
        ...

    async def shares(self) -> Shares:
        """Read the shares, as they were within the last second."""
        ...

    async def queued(self, tenant: str, limit: int) -> int:
        """Count the tenant's runs that have not begun, those behind their session's live run included, up to `limit`."""
        ...

    async def place(self, tenant: str, run: str) -> Place | None:
        """Tell where a run stands. None: it has begun, or stands behind its session's live run."""
        ...

    async def last(self, tenant: str, priority: int) -> Place:
        """Tell where a run would stand that came now."""
        ...

    async def agents(self) -> Collection[str]:
        """Name the agents of runs that are ready, or whose worker was lost."""
        ...

    async def beat(self, worker: WorkerRow) -> None:
        """Say that a worker works."""
        ...

    async def leave(self, worker: str) -> None:
        """Say that a worker has ended."""
        ...

    async def workers(self) -> Sequence[WorkerRow]:
        """List the workers that were heard of within the last day, the oldest first."""
        ...
