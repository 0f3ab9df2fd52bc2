"""The port of the outbox: what is to be told to others over HTTP. Part of the store's (`Store.outbox`).

What happened to a run is announced by the append that wrote it (`Append.announce`): in the same transaction the store adds a
delivery for each endpoint that wants to hear of it. An append that fails announces nothing; one that succeeded is
announced, whoever dies next. Deliveries are then claimed by lease, posted, and settled. A delivery is claimed only when
no earlier one of the same run to the same endpoint is pending: they arrive in order. Each belongs to a *lane* (its
endpoint's, or the receiver's origin for callbacks of single runs), so that a slow receiver holds up nobody else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Literal, Protocol

import msgspec

EventKind = Literal[
    "run.finished", "run.parked", "run.asked", "run.budget", "budget.alert", "spend.spike", "webhook.test"
]
"""A run ended; stands until a person revives it; waits for a person's decision; has come to a line of its own limit; a line of a
budget was crossed; far more than usual was spent; somebody tries an endpoint out."""
BY_NAME: frozenset[EventKind] = frozenset({"run.budget"})
"""What only an endpoint hears that names it: of one run there may be three, and they are mostly nobody's alarm."""
Standing = Literal["pending", "done", "dead"]
"""Of a delivery: to be posted (again); accepted; given up."""


class Announcement(msgspec.Struct, frozen=True):
    """Something that happened to a run and that others may want to hear of. `body` is JSON without content."""

    kind: EventKind
    seq: int
    agent: str
    body: bytes
    line: str = ""
    """What sets it apart from others of its kind and seq: per cent of a limit."""

    def delivery(self, tenant: str, endpoint: str, run: str) -> str:
        """Name its delivery to an endpoint."""
        return delivery_id(tenant, endpoint, run, self.seq, f"{self.kind} {self.line}" if self.line else self.kind)


class Secrets(msgspec.Struct, frozen=True):
    """What deliveries are signed with: two secrets for a time, while one takes the other's place."""

    current: str
    previous: str = ""
    previous_until_ms: int = 0

    def __repr__(self) -> str:
        return "Secrets(..)"


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A receiver. With a `run` it is that run's own callback, signed with the secret of its tenant."""

    tenant: str
    id: str
    url: str
    lane: str
    events: tuple[EventKind, ...] = ()
    """What it wants to hear of; none: everything but what is heard by name alone."""
    agents: tuple[str, ...] = ()
    """Of whose runs; none: everyone's."""
    include: tuple[str, ...] = ()
    """Content that it gets as well: "answer"."""
    secrets: Secrets = Secrets("")
    enabled: bool = True
    note: str = ""
    """Why it is not enabled."""
    run: str = ""
    created_ms: int = 0

    def wants(self, run: str, announcement: Announcement) -> bool:
        """Say whether it is to hear of something."""
        if not self.enabled or self.run not in ("", run) or announcement.kind == "webhook.test":
            return False
        heard = announcement.kind in self.events if self.events else announcement.kind not in BY_NAME
        return heard and (not self.agents or announcement.agent in self.agents)


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """A delivery's row."""

    tenant: str
    id: str
    """The same for every attempt: what a receiver knows a repetition by."""
    endpoint: str
    kind: EventKind
    run: str
    seq: int
    body: bytes
    standing: Standing
    attempts: int
    """Claims until now. The one under way is named by it."""
    next_ms: int
    """When it is to be posted (again); while it is being posted, when its lease ends."""
    status: int
    """HTTP status of the last answer; 0: there was none."""
    note: str
    """What was wrong the last time."""
    created_ms: int
    settled_ms: int
    """When it was accepted or given up; 0: it is pending."""


class Claimed(msgspec.Struct, frozen=True):
    """A delivery that is ours to post, and where to. `secrets`: of the endpoint, or of its tenant for a callback."""

    delivery: Delivery
    endpoint: Endpoint
    secrets: Secrets


class Settled(msgspec.Struct, frozen=True):
    """What became of an attempt. A `retry_ms` posts it again at that time, and what follows it not before."""

    tenant: str
    id: str
    attempt: int
    """Claims, as they were when it was posted. A refusal of an older one changes nothing; a success always counts."""
    standing: Standing
    status: int = 0
    note: str = ""
    retry_ms: int = 0


class Outbox(Protocol):
    """Where endpoints and deliveries are kept. Every method may raise `JournalError`."""

    def listen(self, heard: Callable[[], None]) -> None:
        """Have `heard` called when this process has written something that may be delivered. A hint."""
        ...

    async def add(self, endpoint: Endpoint) -> bool:
        """Keep an endpoint. False: there is one of this id."""
        ...

    async def endpoint(self, tenant: str, id: str) -> Endpoint | None:
        """Read an endpoint."""
        ...

    async def endpoints(self, tenant: str) -> Sequence[Endpoint]:
        """List a tenant's endpoints, oldest first; callbacks of single runs apart."""
        ...

    async def enable(self, tenant: str, id: str, *, enabled: bool, note: str = "") -> bool:
        """Enable an endpoint; or disable it, and give up what it still had to get. False: there is none."""
        ...

    async def remove(self, tenant: str, id: str) -> bool:
        """Remove an endpoint and its deliveries. False: there is none."""
        ...

    async def secrets(self, tenant: str) -> Secrets | None:
        """Read what a tenant's callbacks are signed with."""
        ...

    async def set_secrets(self, tenant: str, id: str, secrets: Secrets, *, was: str) -> bool:
        """Change the secrets of an endpoint, or of the tenant (id ""), if the current one still is `was`; else False."""
        ...

    async def tell(self, tenant: str, id: str, announcement: Announcement) -> str | None:
        """Add a delivery to one endpoint, outside of any run; return its id. None: there is no such endpoint."""
        ...

    async def lanes(self, *, limit: int) -> Sequence[str]:
        """List lanes in which something is due."""
        ...

    async def next_due_ms(self) -> int:
        """Tell when the next pending delivery is due or its lease ends; 0: there is none."""
        ...

    async def claim(self, lane: str, *, lease_ms: int, limit: int) -> Sequence[Claimed]:
        """Take due deliveries of a lane, oldest first; of each run and endpoint only the first that is pending.

        What is about no run is in no order.
        """
        ...

    async def settle(self, settled: Sequence[Settled]) -> None:
        """Note what became of attempts."""
        ...

    async def delivery(self, tenant: str, id: str) -> Delivery | None:
        """Read a delivery."""
        ...

    async def deliveries(
        self, tenant: str, *, endpoint: str = "", run: str = "", standing: str = "", before: str = "", limit: int = 50
    ) -> Sequence[Delivery]:
        """List deliveries, newest first; `before` is the one to go on from."""
        ...

    async def redeliver(self, tenant: str, *, id: str = "", endpoint: str = "") -> int:
        """Post a delivery again, or all that were given up for an endpoint; return how many."""
        ...

    async def prune(self, *, done_before_ms: int, dead_before_ms: int, limit: int = 2_000) -> int:
        """Forget deliveries that were accepted or given up before a time; return how many."""
        ...


def delivery_id(tenant: str, endpoint: str, run: str, seq: int, kind: str) -> str:
    """Name a delivery by what it is about, so that it has the same id wherever it is written."""
    return "msg_" + hashlib.sha256(f"{tenant}/{endpoint}/{run}/{seq}/{kind}".encode()).hexdigest()[:32]
