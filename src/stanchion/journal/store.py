"""The store's port: what a database must do to hold the journals of runs.

Safety is decided here and nowhere else: an append names the `seq` it expects and the `epoch` of its claim, both are
checked against the run's row in the transaction that writes, and all of an append happens or nothing of it. Events are
only ever added. Everything that comes from outside a run is a row of its inbox, which its driver turns into events.
Every row belongs to a tenant. Times are the store's own clock, in milliseconds since 1970 UTC.

Any store must pass `stanchion.testing.exercise_store`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

import msgspec

from stanchion.core.chain import Outline
from stanchion.core.event import Base, Entry
from stanchion.journal.alert import Alerts
from stanchion.journal.connection import Connections
from stanchion.journal.outbox import Announcement, Endpoint, Outbox
from stanchion.journal.quota import Quotas
from stanchion.journal.relay import Overheard, Wire
from stanchion.journal.schedule import Schedules
from stanchion.journal.share import INTERACTIVE, NOBODY, Ahead, NoPlace, Ready, Sharing
from stanchion.journal.tray import Tray, TrayItem

if TYPE_CHECKING:
    from stanchion.journal.memory import Memories
    from stanchion.journal.moving import Moving

Status = Literal["queued", "runnable", "waiting", "parked", "ended"]
"""Waits for its session; has work to do; waits for a person or a time; stands until a person revives it; is over."""


class Key(msgspec.Struct, frozen=True):
    """A content key: its salt commits, its secret (none for the identity cipher) seals. Destroying it erases."""

    id: str
    salt: bytes
    secret: bytes = b""

    def __repr__(self) -> str:
        return f"Key({self.id!r})"


class Content(msgspec.Struct, frozen=True):
    """A sealed content part, found again by key and commitment, and stored once under them."""

    key: str
    commit: bytes
    blob: bytes


class Record(msgspec.Struct, frozen=True):
    """An event ready to be stored."""

    seq: int
    envelope: bytes
    hash: bytes
    contents: tuple[Content, ...] = ()


class RawRecord(msgspec.Struct, frozen=True):
    """An event as it lies in the store. A content that was erased is None."""

    seq: int
    envelope: bytes
    hash: bytes
    contents: tuple[bytes | None, ...] = ()


class Reserve(msgspec.Struct, frozen=True):
    """Set money aside on a ledger (nano-dollars).

    A ledger's name is a scope, or a scope in a window: "user:ann", "tenant/day:2026-11-20", "session:s1/month:2026-11".
    Its limit is the one set for the name without the window ("tenant/day"); "all" and "all/.." belong to no tenant
    and are kept under tenant "". A ledger without a limit refuses nothing and is still counted.
    """

    ledger: str
    amount: int


class Settle(msgspec.Struct, frozen=True):
    """Give back a reservation and book what was billed. A cost above the reservation closes the ledger."""

    ledger: str
    reserved: int
    cost: int


class Append(msgspec.Struct, frozen=True, kw_only=True):
    """What a driver writes at once. Without records it moves the run's row only (park, release, renew)."""

    tenant: str
    run: str
    expected_seq: int
    """Seq of the last event the driver knows."""
    epoch: int
    records: tuple[Record, ...] = ()
    status: Status = "runnable"
    """The store makes it "runnable" where it says "waiting" and the inbox holds rows that are not in `inbox_done`."""
    wake_at_ms: int = 0
    """When a waiting run is to be activated; 0: only by its inbox."""
    release: bool = False
    """Give the lease back (the epoch stays: later appends of this claim are stale once another claims)."""
    progress: bool = False
    """Something was settled: the count of claims without progress starts again."""
    unclaim: bool = False
    """This claim is to count for nothing: the run is none for this worker."""
    outcome: str = ""
    """Of an ended run; of a parked one why it stands, which its row keeps until it is revived."""
    cost: int = 0
    """The run's settled cost until now, for listings."""
    reserve: tuple[Reserve, ...] = ()
    settle: tuple[Settle, ...] = ()
    inbox_done: tuple[int, ...] = ()
    announce: tuple[Announcement, ...] = ()
    """What of it others may want to hear of: a delivery for each endpoint that does is written with it."""
    hand_in: tuple[TrayItem, ...] = ()
    """Model calls of it that go into a batch."""


class Refused(msgspec.Struct, frozen=True):
    """A reservation would pass a limit: nothing of the append was written."""

    ledger: str
    needed: int
    left: int
    """Limit - settled - reserved; never below 0."""
    hard: bool
    """Refused by what is settled (or the ledger is closed), not only by what others have reserved."""


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """A new run. `first` holds its `RunStarted`, and what its driver does first; a queued one has no records yet.

    With a `worker` the run starts claimed by it, under epoch 1 and as its first attempt; without one, at epoch 0.
    """

    tenant: str
    run: str
    session: str
    agent: str
    bundle: str
    user: str = ""
    parent: str = ""
    root: str = ""
    priority: int = INTERACTIVE
    base: Base | None = None
    """The session head that the run goes on from. Checked: if the head moved meanwhile, `SessionMoved`."""
    first: Append
    queued: bool = False
    """Put it behind the session's live run; `request` is then kept in its inbox as kind "start"."""
    request: bytes = b""
    worker: str = ""
    lease_ms: int = 0
    known_only: bool = False
    """There is no room for another: only a run that is there already under its key is told of, else `NoPlace("queue")`."""
    idempotency_key: str = ""
    idempotency_digest: str = ""
    """Hash of the request's body."""
    callback: Endpoint | None = None
    """Who is to be told of this run, kept with it."""


class Started(msgspec.Struct, frozen=True):
    """The run was accepted."""

    run: str
    existing: bool = False
    """It was there already, under the same `Idempotency-Key` and body."""


class SessionBusy(msgspec.Struct, frozen=True):
    """The session has a live run."""

    run: str


class SessionMoved(msgspec.Struct, frozen=True):
    """The session's head is another than the start named: read it and start again."""

    base: Base | None


class IdempotencyMismatch(msgspec.Struct, frozen=True):
    """The idempotency key was used with another body."""

    run: str


StartSaid: TypeAlias = Started | SessionBusy | SessionMoved | IdempotencyMismatch | Refused | NoPlace
"""What a store answers to a start."""


class Claim(msgspec.Struct, frozen=True):
    """The right to drive a run, until the lease ends or another claims."""

    tenant: str
    run: str
    epoch: int
    seq: int
    attempts: int
    """Claims since the run last made progress, this one included."""


class Claimed(msgspec.Struct, frozen=True):
    """A claim that came to nothing: the run was claimed again before it had made progress."""

    epoch: int
    worker: str
    """Who had it; "" if the lease was given back."""
    ended_ms: int
    """When the next one claimed."""


class RunRow(msgspec.Struct, frozen=True):
    """A run's row: the only truth about what is runnable."""

    tenant: str
    run: str
    session: str
    agent: str
    bundle: str
    user: str
    status: Status
    outcome: str
    """How it ended, or why it is parked; else ""."""
    epoch: int
    seq: int
    hash: bytes
    wake_at_ms: int
    lease_until_ms: int
    worker: str
    attempts: int
    priority: int
    parent: str
    root: str
    cost: int
    created_ms: int
    updated_ms: int


class RunRef(msgspec.Struct, frozen=True):
    """A run, named."""

    tenant: str
    run: str


class Change(msgspec.Struct, frozen=True, array_like=True):
    """A run that another process has written."""

    tenant: str
    run: str
    seq: int
    wanted: bool
    """It is runnable, and nobody drives it."""


Heard: TypeAlias = Callable[[Sequence[Change] | None], None]
"""Told what others wrote; None: anything may have changed."""


class InboxItem(msgspec.Struct, frozen=True):
    """Something from outside for a run. `body` is an encoded event without a place, or a queued start's request."""

    id: int
    kind: str
    body: bytes
    at_ms: int


class SessionRow(msgspec.Struct, frozen=True):
    """A session: a chain of runs, named by its head."""

    tenant: str
    session: str
    agent: str
    user: str
    head: Base | None
    """The last event of the last run that ended."""
    live: str
    """The run that is not over, or ""."""
    runs: int
    created_ms: int
    updated_ms: int


class Ledger(msgspec.Struct, frozen=True):
    """A shared budget (nano-dollars). `limit` -1: none is set. Settled + reserved never passes a limit.

    One row per window that was used, and one per limit that was set and not used yet.
    """

    tenant: str
    ledger: str
    limit: int
    settled: int
    reserved: int
    closed: bool


class ApiKey(msgspec.Struct, frozen=True):
    """An API key by its hash: the key itself is not kept."""

    id: str
    tenant: str
    hash: bytes
    """SHA-256 of the key."""
    name: str
    created_ms: int
    revoked: bool = False
    may_approve: str = ""
    """What its holder may approve: grants as JSON; "": anything."""


class Store(Protocol):
    """A database that holds journals. Every method may raise `JournalError`."""

    @property
    def schedules(self) -> Schedules:
        """Runs that are to start at certain times."""
        ...

    @property
    def memories(self) -> Memories:
        """What is remembered of users."""
        ...

    @property
    def connections(self) -> Connections:
        """What users have connected."""
        ...

    @property
    def outbox(self) -> Outbox:
        """What is to be told to others."""
        ...

    @property
    def alerts(self) -> Alerts:
        """What of money was told to others."""
        ...

    @property
    def tray(self) -> Tray:
        """Model calls that wait for a batch, and the batches under way."""
        ...

    @property
    def moving(self) -> Moving:
        """Sessions that leave for another store, or come from one."""
        ...

    @property
    def quotas(self) -> Quotas:
        """Limits that all workers share."""
        ...

    @property
    def sharing(self) -> Sharing:
        """Who goes next, and how many at once."""
        ...

    async def now_ms(self) -> int:
        """Read the store's clock."""
        ...

    async def start(self, start: Start) -> StartSaid:
        """Accept a run: its row, first event, session head, idempotency row and reservations in one transaction.

        `NoPlace`: it names a worker, and a cap on running runs is met. Without a worker it is accepted, and waits.
        """
        ...

    async def append(self, append: Append) -> Refused | None:
        """Write durably, or refuse whole. Raises `StaleAppend`, `CommitUnknown`, `StoreFull`, `NotFound`.

        An append that would end a run whose inbox holds rows that are not in `inbox_done`, its own queued start apart,
        raises `UnreadInbox`: what was accepted for a run is always taken in.

        When it ends a run ("ended"), the session's head moves to it, `live` is cleared and the session's next queued run
        becomes runnable, in the same transaction.
        """
        ...

    async def claim(self, tenant: str, run: str, *, worker: str, lease_ms: int) -> Claim | None:
        """Take a run to drive it: raises its epoch and counts the attempt.

        None: it is over, parked, queued or leased by another, or a cap on running runs is met.

        A worker may claim what it has itself leased under an older epoch.
        """
        ...

    async def renew(self, tenant: str, run: str, *, epoch: int, lease_ms: int) -> bool:
        """Prolong a lease. False: the epoch is stale."""
        ...

    async def renew_all(self, held: Sequence[tuple[str, str, int]], *, lease_ms: int) -> set[tuple[str, str]]:
        """Prolong many leases (tenant, run, epoch) at once; return the runs whose epoch still stands."""
        ...

    async def runnable(
        self, *, limit: int, batch: int = -1, agents: Collection[str] | None = None, ahead: Ahead = NOBODY
    ) -> Sequence[Ready]:
        """List what is to be driven: runnable without a live lease, or waiting and due. In the order of `journal.share`.

        At most `limit`, `batch` of them batch runs (-1: any number), of these agents (None: of all).
        """
        ...

    async def changed_elsewhere(self) -> bool:
        """Say whether another process has written since this was last asked. Cheap."""
        ...

    def listen(self, heard: Heard) -> bool:
        """Have `heard` called in the event loop when other processes write. A hint: it may come late, or never.

        False: this store cannot tell; ask `changed_elsewhere`. True: it is made for many processes.
        """
        ...

    def relay(self, overheard: Overheard) -> Wire | None:
        """Have `overheard` called in the event loop with what other processes say; give the end to speak into.

        None: one process drives all runs of this store, and readers elsewhere see what is stored.
        """
        ...

    async def seize(self, worker: str) -> bool:
        """Become the only one that drives runs of this store, if the store is made for one: leases of others are void.

        False: another process drives it. A store made for many answers True and voids nothing.
        """
        ...

    async def next_wake_ms(self) -> int:
        """When the next waiting run is due or the next lease of a runnable run ends; 0: none."""
        ...

    async def post(self, tenant: str, run: str, kind: str, body: bytes, *, key: str = "", digest: str = "") -> int:
        """Put something into a run's inbox and make it runnable (a parked run only by kinds "revive" and "cancel").

        Under a `key`, which is one with the keys of starts, it is put there once: 0 says that it was before, live or ended;
        with another digest that is a `Conflict` of code "idempotency_mismatch". Raises `NotFound`, and `Conflict` if the
        run is over.
        """
        ...

    async def inbox(self, tenant: str, run: str) -> Sequence[InboxItem]:
        """Read a run's inbox, oldest first."""
        ...

    async def read(self, tenant: str, run: str, *, after: int = 0, limit: int = 0) -> Sequence[Entry]:
        """Read events with a higher seq than `after`, whole; an erased part comes as `Erased`. 0: no limit."""
        ...

    async def raw(self, tenant: str, run: str, *, after: int = 0, limit: int = 0) -> Sequence[RawRecord]:
        """Read events as they are stored, for verification and export. Contents are opened, not decoded."""
        ...

    async def outlines(self, tenant: str, runs: Sequence[str]) -> Mapping[str, Sequence[Outline]]:
        """Read all events of some runs without their contents, in order; a run that is not there has none. Cheap."""
        ...

    async def tenants(self) -> Sequence[str]:
        """List the tenants that have runs, in order. Cheap, however many runs there are."""
        ...

    async def run(self, tenant: str, run: str) -> RunRow | None:
        """Read a run's row."""
        ...

    async def runs(
        self,
        tenant: str,
        *,
        session: str = "",
        agent: str = "",
        user: str = "",
        status: str = "",
        outcome: str = "",
        before: str = "",
        limit: int = 50,
    ) -> Sequence[RunRow]:
        """List runs, newest first; `before` is the run to go on from."""
        ...

    async def parked(
        self,
        *,
        tenant: str = "",
        agent: str = "",
        reason: str = "",
        before: tuple[str, str] = ("", ""),
        limit: int = 50,
    ) -> Sequence[RunRow]:
        """List runs that are parked, newest first; where no tenant is named, of all. `before`: tenant and run to go on from.

        Cheap, however many others there are.
        """
        ...

    async def orphans(self, *, idle_ms: int, limit: int = 1_000) -> Sequence[RunRow]:
        """List runs that ought to be driven: runnable and without a live lease for so long, or queued behind nothing."""
        ...

    async def claims(self, tenant: str, run: str) -> Sequence[Claimed]:
        """List the claims of a run that came to nothing, oldest first."""
        ...

    async def session(self, tenant: str, session: str) -> SessionRow | None:
        """Read a session."""
        ...

    async def sessions(self, tenant: str, *, before: str = "", limit: int = 50) -> Sequence[SessionRow]:
        """List sessions, newest first."""
        ...

    async def key_for(self, tenant: str, subject: str) -> Key:
        """Find or make the content key of a subject (a user, or a session without one)."""
        ...

    async def keys(self, tenant: str) -> Sequence[Key]:
        """List the content keys that exist."""
        ...

    async def destroy_key(self, tenant: str, subject: str) -> bool:
        """Erase all content under a subject's key for ever, and the key. False: there is none."""
        ...

    async def put_bundle(self, tenant: str, digest: str, body: bytes) -> None:
        """Keep a bundle under its digest."""
        ...

    async def bundle(self, tenant: str, digest: str) -> bytes | None:
        """Read a bundle."""
        ...

    async def set_limit(self, tenant: str, ledger: str, limit: int) -> Ledger:
        """Set the limit of a name without window (-1: none), and open its ledgers if an overrun had closed them."""
        ...

    async def ledgers(self, tenant: str) -> Sequence[Ledger]:
        """List the tenant's ledgers."""
        ...

    async def add_api_key(self, key: ApiKey) -> None:
        """Keep an API key."""
        ...

    async def api_keys(self) -> Sequence[ApiKey]:
        """List all API keys, revoked ones included."""
        ...

    async def revoke_api_key(self, id: str) -> bool:
        """Revoke an API key. False: there is none."""
        ...

    async def aclose(self) -> None:
        """Finish what is being written and close."""
        ...
