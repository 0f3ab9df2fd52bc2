"""Moving sessions between stores: what a session takes along, how a store lets runs go, and how it takes a session in.

A session moves whole: the runs of one stand on each other. What is over may be copied, and both copies go on by themselves.
A run that is not over is let go first: the store that it leaves keeps it parked, raises its epoch and never gives it out
again, so no two stores drive it. Taking in is one transaction, changes nothing where all is there already, and refuses
what is there with another history. A content key that was destroyed in a store is not taken in again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal, Protocol, TypeAlias

import msgspec

from stanchion.core.errors import Conflict
from stanchion.journal.head import MOVED, is_moved
from stanchion.journal.memory import Due
from stanchion.journal.record import content_ids, read_envelope
from stanchion.journal.store import InboxItem, Key, Ledger, RawRecord, RunRow, SessionRow, Status, Store


class MovedKey(msgspec.Struct, frozen=True):
    """A content key without its secret: contents move opened, and the store that takes them in seals them anew."""

    subject: str
    id: str
    salt: bytes


class UsedKey(msgspec.Struct, frozen=True):
    """An `Idempotency-Key` that was used, and for which run."""

    key: str
    digest: str
    run: str


class MovedRun(msgspec.Struct, frozen=True):
    """A run with its events as they lie in the store, and what lies in its inbox."""

    row: RunRow
    records: tuple[RawRecord, ...] = ()
    inbox: tuple[InboxItem, ...] = ()


class MovedSession(msgspec.Struct, frozen=True):
    """All of a session, or one run without a session. Runs in the order in which they were made."""

    tenant: str
    row: SessionRow | None
    runs: tuple[MovedRun, ...]
    keys: tuple[MovedKey, ...] = ()
    used: tuple[UsedKey, ...] = ()
    due: tuple[Due, ...] = ()
    """Its runs of which is still to be learned."""

    @property
    def name(self) -> str:
        """For people."""
        return f"session {self.row.session!r}" if self.row else f"run {self.runs[0].row.run!r}"


Taken: TypeAlias = Literal["added", "grown", "known", "back"]
"""It was not there; it was, and has more now; all of it was there; runs that were let go here are driven here again."""


class Moving(Protocol):
    """A store's part in moving."""

    async def keys(self, tenant: str) -> Sequence[MovedKey]:
        """List the content keys that exist, with their subjects."""
        ...

    async def used_keys(self, tenant: str) -> Sequence[UsedKey]:
        """List the idempotency keys that were used."""
        ...

    async def let_go(self, tenant: str, runs: Sequence[tuple[str, int]]) -> None:
        """Give runs (with the seq they stand at) away for ever: parked, as "moved:<status>[:<why it was parked>]".

        All or none; those that were let go already stay so. Raises `NotFound`, and `Conflict` where a run is over, has
        gone on or is leased.
        """
        ...

    async def take_in(self, moved: MovedSession, *, back: bool = False) -> Taken:
        """Write a session with its runs, or find it written. Checks no hashes: who calls has verified them.

        `back`: runs that were let go here, and stand as they did, are driven here again. Raises `Conflict` for what is
        there with another history or goes on here.
        """
        ...

    async def carry_over(self, ledger: Ledger) -> bool:
        """Book what was settled on a ledger of another store. False: the ledger is here already, and stays as it is."""
        ...


class Found(msgspec.Struct, frozen=True):
    """A run of a moved session as it is in the store."""

    session: str
    status: Status
    outcome: str
    seq: int
    hash: bytes
    hash_there: bytes
    """Of its event at the moved run's seq; b"" if there is none."""


class Plan(msgspec.Struct, frozen=True):
    """What taking in a session comes to: runs to add, runs that have grown elsewhere, runs to be driven here again."""

    taken: Taken
    add: tuple[MovedRun, ...] = ()
    grow: tuple[tuple[MovedRun, int], ...] = ()
    """With the seq that they stand at here."""
    back: tuple[MovedRun, ...] = ()

    def due(self, moved: MovedSession) -> Sequence[Due]:
        """List what is to be learned of runs that come in: of one that is here as it is in the file it was learned here, or it is due here."""
        names = {run.row.run for run in (*self.add, *(run for run, _ in self.grow))}
        return [due for due in moved.due if due.run in names]

    def events(self) -> Sequence[tuple[MovedRun, tuple[RawRecord, ...]]]:
        """List the runs that bring events, with those that they bring."""
        return [(run, run.records) for run in self.add] + [(run, run.records[seq:]) for run, seq in self.grow]


def plan(moved: MovedSession, found: Mapping[str, Found], session: SessionRow | None, *, back: bool) -> Plan:
    """Compare what is to be taken in with what is there. Raises `Conflict`."""
    known = [run for run in moved.runs if run.row.run in found]
    missing = tuple(run for run in moved.runs if run.row.run not in found)
    grow: list[tuple[MovedRun, int]] = []
    for run in known:
        here = found[run.row.run]
        if here.session != run.row.session or not _same_history(run, here):
            raise Conflict(
                f"run {run.row.run!r} is in this store already, with another history; import into a store without it"
            )
        if run.row.seq > here.seq:
            grow.append((run, here.seq))
    if not known:
        if session is not None:
            raise _goes_on(moved)
        return Plan("added", add=missing)
    if not missing and not grow:
        again = tuple(run for run in known if back and _stands(run, found[run.row.run]))
        return Plan("back", back=again) if again else Plan("known")
    gone = {name for name, here in found.items() if is_moved(here.status, here.outcome)}
    if session is None or session.runs != len(known) or (session.live and session.live not in gone):
        raise _goes_on(moved)
    if any(run.row.run not in gone for run, _ in grow) or [run.row.run for run in moved.runs[: len(known)]] != [
        run.row.run for run in known
    ]:
        raise _goes_on(moved)
    return Plan("grown", add=missing, grow=tuple(grow))


def _goes_on(moved: MovedSession) -> Conflict:
    return Conflict(
        f"{moved.name} is in this store already and has gone on here; import into a store without it, or go on here"
    )


def _same_history(run: MovedRun, here: Found) -> bool:
    if run.row.seq <= here.seq:
        return not run.row.seq or here.hash_there == run.row.hash
    return not here.seq or run.records[here.seq - 1].hash == here.hash


def _stands(run: MovedRun, here: Found) -> bool:
    return is_moved(here.status, here.outcome) and here.seq == run.row.seq


def let_go_as(status: Status, outcome: str) -> str:
    """Say in the row of a run that is let go what it was."""
    return f"{MOVED}{status}:{outcome}" if outcome else f"{MOVED}{status}"


def before(row: RunRow) -> RunRow:
    """Make the row that a run had before it was let go, as it is to be taken in elsewhere: leased by nobody."""
    if not is_moved(row.status, row.outcome):
        return msgspec.structs.replace(row, worker="", lease_until_ms=0)
    status, _, outcome = row.outcome.removeprefix(MOVED).partition(":")
    return msgspec.structs.replace(
        row, status=msgspec.convert(status, Status), outcome=outcome, worker="", lease_until_ms=0
    )


def check_let_go(run: str, *, seq: int, expected: int, status: Status, leased_by: str) -> None:
    """Raise `Conflict` unless a run may be let go."""
    if status == "ended":
        raise Conflict(f"run {run!r} is over; export it without letting it go")
    if leased_by:
        raise Conflict(
            f"run {run!r} is being driven by {leased_by}; stop that worker (SIGTERM lets it finish its steps), then export"
        )
    if seq != expected:
        raise Conflict(f"run {run!r} has gone on to event {seq} meanwhile; export again")


def moved_contents(records: Iterable[RawRecord], keys: Mapping[str, Key]) -> Iterator[tuple[Key, bytes, bytes]]:
    """List the contents of records under keys that exist: key, commitment, content. Each once."""
    seen: set[tuple[str, bytes]] = set()
    for record in records:
        if not record.contents:
            continue
        for (key, commit), content in zip(content_ids(read_envelope(record.envelope)), record.contents, strict=True):
            if content is not None and key in keys and (key, commit) not in seen:
                seen.add((key, commit))
                yield keys[key], commit, content


async def lift(
    store: Store,
    rows: Sequence[RunRow],
    session: SessionRow | None,
    keys: Mapping[str, MovedKey],
    used: Sequence[UsedKey],
    due: Sequence[Due] = (),
) -> MovedSession:
    """Read a session for moving: its runs, oldest first, with all that they take along. Raises `BrokenChain`.

    `keys` are the tenant's, by id; `used` and `due` those of these runs. A run that was let go comes with the row it had before.
    """
    runs: list[MovedRun] = []
    wanted: dict[str, MovedKey] = {}
    for row in rows:
        records = tuple(await store.raw(row.tenant, row.run))
        inbox = tuple(await store.inbox(row.tenant, row.run)) if row.status != "ended" else ()
        runs.append(MovedRun(before(row), records[: row.seq], inbox))
        for record in records:
            if record.contents:
                ids = content_ids(read_envelope(record.envelope))
                wanted |= {key: keys[key] for key, _ in ids if key in keys and key not in wanted}
    return MovedSession(rows[0].tenant, session, tuple(runs), tuple(wanted.values()), tuple(used), tuple(due))
