"""The tables of the in-memory store, and what each write does to them. Nothing here awaits.

A write checks everything before it changes anything, so one that is refused or raises leaves no trace. Times come in with
each call. Rows are kept in the order in which they were made, which is what listings and queues go by.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec

from stanchion.core.chain import Outline
from stanchion.core.errors import Conflict, NotFound, StaleAppend, UnreadInbox
from stanchion.core.event import Base, Entry
from stanchion.journal.alert import Alert
from stanchion.journal.head import check_gapless, check_post, is_known
from stanchion.journal.record import Cipher, content_ids, read_entry, read_envelope, read_outline
from stanchion.journal.schedule import Schedule
from stanchion.journal.share import NoPlace
from stanchion.journal.store import (
    ApiKey,
    Append,
    Claim,
    Claimed,
    IdempotencyMismatch,
    InboxItem,
    Key,
    RawRecord,
    Record,
    Refused,
    RunRow,
    SessionBusy,
    SessionMoved,
    SessionRow,
    Start,
    Started,
    StartSaid,
    Status,
)
from stanchion.testing.memory_books import Books
from stanchion.testing.memory_connection import ConnectionRow
from stanchion.testing.memory_facts import FactTables
from stanchion.testing.memory_outbox import OutboxTables
from stanchion.testing.memory_quota import QuotaTables
from stanchion.testing.memory_share import ShareTables
from stanchion.testing.memory_tray import TrayTables

T = TypeVar("T")
Place = tuple[str, str]
"""Tenant and name."""


@dataclass(slots=True)
class Run:
    """A run: its row, its journal and its inbox."""

    start: Start
    status: Status
    created_ms: int
    updated_ms: int
    outcome: str = ""
    epoch: int = 0
    hash: bytes = b""
    wake_at_ms: int = 0
    lease_until_ms: int = 0
    worker: str = ""
    attempts: int = 0
    cost: int = 0
    records: list[Record] = field(default_factory=list[Record])
    entries: list[Entry] = field(default_factory=list[Entry])
    """Decoded as far as they were read."""
    inbox: list[InboxItem] = field(default_factory=list[InboxItem])
    vain: list[Claimed] = field(default_factory=list[Claimed])

    @property
    def seq(self) -> int:
        return len(self.records)

    def row(self) -> RunRow:
        start = self.start
        return RunRow(
            tenant=start.tenant,
            run=start.run,
            session=start.session,
            agent=start.agent,
            bundle=start.bundle,
            user=start.user,
            status=self.status,
            outcome=self.outcome,
            epoch=self.epoch,
            seq=self.seq,
            hash=self.hash,
            wake_at_ms=self.wake_at_ms,
            lease_until_ms=self.lease_until_ms,
            worker=self.worker,
            attempts=self.attempts,
            priority=start.priority,
            parent=start.parent,
            root=start.root,
            cost=self.cost,
            created_ms=self.created_ms,
            updated_ms=self.updated_ms,
        )


@dataclass(slots=True)
class Session:
    """A session's row."""

    tenant: str
    session: str
    agent: str
    user: str
    live: str
    created_ms: int
    updated_ms: int
    head: Base | None = None
    runs: int = 1

    def row(self) -> SessionRow:
        return SessionRow(
            tenant=self.tenant,
            session=self.session,
            agent=self.agent,
            user=self.user,
            head=self.head,
            live=self.live,
            runs=self.runs,
            created_ms=self.created_ms,
            updated_ms=self.updated_ms,
        )


class Tables:
    """All rows of a store. `make_key` makes the content key of a subject."""

    def __init__(self, cipher: Cipher, make_key: Callable[[], Key]) -> None:
        self.runs: dict[Place, Run] = {}
        self.sessions: dict[Place, Session] = {}
        self.books = Books()
        self.quota = QuotaTables()
        self.bundles: dict[Place, bytes] = {}
        self.api_keys: dict[str, ApiKey] = {}
        self.schedules: dict[Place, Schedule] = {}
        self.connections: dict[tuple[str, str, str], ConnectionRow] = {}
        self.facts = FactTables()
        self.outbox = OutboxTables()
        self.alerts: dict[tuple[str, str, str, int], Alert] = {}
        self.tray = TrayTables()
        self.sharing = ShareTables()
        self.writes = 0
        """How many writes there were, to see those of others."""
        self._cipher = cipher
        self._make_key = make_key
        self.idempotency: dict[Place, tuple[str, str]] = {}
        self._subjects: dict[Place, Key] = {}
        self._moved_keys: list[tuple[str, str, Key]] = []
        """Of subjects that have one of their own here: tenant, subject, key."""
        self.destroyed: set[Place] = set()
        """Tenant and id of keys that were destroyed."""
        self._contents: dict[Place, dict[bytes, bytes]] = {}
        """By tenant and key id, for keys that exist: commitment to blob."""
        self._posted = 0
        self._live: dict[Place, Run] = {}
        """Runs that are not over, so that looking for work does not grow with the past."""

    # --- runs --------------------------------------------------------------------------------------------------------

    def start(self, start: Start, now_ms: int) -> StartSaid:
        if start.first.epoch != int(bool(start.worker and not start.queued)):
            raise ValueError("a run's first append is of epoch 1 where the start names a worker, and else of epoch 0")
        check_gapless(start.first)
        if start.idempotency_key and (known := self.idempotency.get((start.tenant, start.idempotency_key))):
            digest, run = known
            return Started(run, existing=True) if digest == start.idempotency_digest else IdempotencyMismatch(run)
        if start.known_only:
            return NoPlace("queue", 0)
        place = (start.tenant, start.run)
        if place in self.runs:
            raise Conflict(f"there is a run {start.run!r} already; give the new one another id")
        session = self.sessions.get((start.tenant, start.session)) if start.session else None
        live = session.live if session else ""
        if live and not start.queued:
            return SessionBusy(live)
        if start.session and not start.queued and (head := session.head if session else None) != start.base:
            return SessionMoved(head)
        driven = bool(start.worker) and not start.queued
        if driven and (met := self.sharing.met(self.live, start.tenant, start.agent, start.user)):
            return met
        refused = self.books.move(start.first)
        if refused is not None:
            return refused
        run = self.runs[place] = self._live[place] = Run(start, "queued" if live else "runnable", now_ms, now_ms)
        if start.queued:
            self._put_inbox(run, "start", start.request, now_ms)
        if start.idempotency_key:
            self.idempotency[start.tenant, start.idempotency_key] = (start.idempotency_digest, start.run)
        self._enter_session(session, start, live or start.run, now_ms)
        if start.callback is not None:
            self.outbox.add(start.callback, now_ms)
        if start.worker and not start.queued:
            run.epoch = run.attempts = 1
            run.worker, run.lease_until_ms = start.worker, now_ms + start.lease_ms
        self._write(run, start.first, now_ms)
        if not live:
            self._settle_status(run, start.first, now_ms)
        return Started(start.run)

    def append(self, append: Append, now_ms: int) -> Refused | None:
        check_gapless(append)
        run = self._run(append.tenant, append.run)
        self.check(append, run)
        refused = self.books.move(append)
        if refused is not None:
            return refused
        self._write(run, append, now_ms)
        run.inbox = [item for item in run.inbox if item.id not in append.inbox_done]
        self._settle_status(run, append, now_ms)
        return None

    def check(self, append: Append, run: Run) -> None:
        """Raise `StaleAppend` where another driver moved the run."""
        if run.epoch != append.epoch:
            raise StaleAppend(f"run {append.run!r} was claimed again (epoch {run.epoch}, not {append.epoch})")
        if run.seq != append.expected_seq:
            raise StaleAppend(f"run {append.run!r} stands at event {run.seq}, not {append.expected_seq}")
        if run.status == "ended":
            raise StaleAppend(f"run {append.run!r} is over: nothing is added to it")
        unread = (item for item in run.inbox if item.kind != "start" and item.id not in append.inbox_done)
        if append.status == "ended" and any(unread):
            raise UnreadInbox

    def claim(self, tenant: str, run: str, worker: str, lease_ms: int, now_ms: int) -> Claim | None:
        found = self._live.get((tenant, run))
        if found is None or found.status not in ("runnable", "waiting"):
            return None
        if found.lease_until_ms > now_ms and found.worker != worker:
            return None
        if not found.worker and self.sharing.met(self.live, tenant, found.start.agent, found.start.user):
            return None
        if found.attempts:
            found.vain.append(Claimed(found.epoch, found.worker, now_ms))
        found.epoch += 1
        found.attempts += 1
        found.status, found.wake_at_ms = "runnable", 0
        found.worker, found.lease_until_ms, found.updated_ms = worker, now_ms + lease_ms, now_ms
        return Claim(tenant, run, found.epoch, found.seq, found.attempts)

    def renew(self, tenant: str, run: str, epoch: int, lease_ms: int, now_ms: int) -> bool:
        found = self._live.get((tenant, run))
        if found is None or found.epoch != epoch or not found.worker:
            return False
        found.lease_until_ms, found.updated_ms = now_ms + lease_ms, now_ms
        return True

    def post_once(self, tenant: str, run: str, kind: str, body: bytes, key: str, digest: str, now_ms: int) -> int:
        self._run(tenant, run)
        if is_known(self.idempotency.get((tenant, key)), digest):
            return 0
        item = self.post(tenant, run, kind, body, now_ms)
        self.idempotency[tenant, key] = (digest, run)
        return item

    def post(self, tenant: str, run: str, kind: str, body: bytes, now_ms: int) -> int:
        found = self._run(tenant, run)
        check_post(run, found.status, found.outcome)
        item = self._put_inbox(found, kind, body, now_ms)
        if found.status == "waiting":
            found.status, found.wake_at_ms = "runnable", 0
        elif found.status == "runnable" and not found.epoch and kind == "cancel":
            found.epoch = 1  # it does not wait its turn: it has begun, and ends
        elif found.status == "parked" and kind in ("revive", "cancel"):
            found.status, found.attempts, found.outcome = "runnable", 0, ""
        return item

    @property
    def live(self) -> Collection[Run]:
        """Runs that are not over, the oldest first."""
        return self._live.values()

    def next_wake_ms(self) -> int:
        return min((at for run in self._live.values() if (at := _wake_ms(run))), default=0)

    def _run(self, tenant: str, run: str) -> Run:
        found = self.runs.get((tenant, run))
        if found is None:
            raise NotFound(f"there is no run {run!r}")
        return found

    def _put_inbox(self, run: Run, kind: str, body: bytes, now_ms: int) -> int:
        item = self.next_post()
        run.inbox.append(InboxItem(item, kind, body, now_ms))
        return item

    def next_post(self) -> int:
        """Number the next row of an inbox."""
        self._posted += 1
        return self._posted

    def _write(self, run: Run, append: Append, now_ms: int) -> None:
        for record in append.records:
            for content in record.contents:
                kept = self._contents.get((append.tenant, content.key))
                if kept is not None:  # else its key was destroyed: it is erased from the start
                    kept.setdefault(content.commit, content.blob)
            run.records.append(record)
            run.hash = record.hash
        if append.progress:
            run.attempts = 0
        elif append.unclaim:
            run.attempts = max(run.attempts - 1, 0)
        run.cost = max(run.cost, append.cost)
        run.updated_ms = now_ms
        self.outbox.announced(append, now_ms)
        self.tray.add(append.hand_in, now_ms)

    def _settle_status(self, run: Run, append: Append, now_ms: int) -> None:
        run.status, run.wake_at_ms = append.status, append.wake_at_ms if append.status == "waiting" else 0
        if run.status == "waiting" and run.inbox:
            run.status, run.wake_at_ms = "runnable", 0
        if append.release or run.status == "ended":
            run.worker, run.lease_until_ms = "", 0
        if run.status in ("ended", "parked"):
            run.outcome = append.outcome
        if run.status == "ended":
            self._live.pop((append.tenant, append.run), None)
            self._end(run, now_ms)

    # --- sessions ----------------------------------------------------------------------------------------------------

    def _enter_session(self, session: Session | None, start: Start, live: str, now_ms: int) -> None:
        if session is not None:
            session.live, session.runs, session.updated_ms = live, session.runs + 1, now_ms
        elif start.session:
            made = Session(start.tenant, start.session, start.agent, start.user, live, now_ms, now_ms)
            self.sessions[start.tenant, start.session] = made

    def _end(self, run: Run, now_ms: int) -> None:
        """Move the session on: its head to this run, and its next queued run to work."""
        tenant, name = run.start.tenant, run.start.run
        session = self.sessions.get((tenant, run.start.session))
        if session is None:
            return
        if run.seq:
            session.head, session.updated_ms = Base(name, run.seq, run.hash.hex()), now_ms
        if session.live != name:
            return
        waiting = (other for other in self._live.values() if other.status == "queued")
        following = next((other for other in waiting if _is_of(other, session)), None)
        session.live, session.updated_ms = following.start.run if following else "", now_ms
        if following is not None:
            following.status, following.updated_ms = "runnable", now_ms

    # --- contents and keys ---------------------------------------------------------------------------------------------

    def key_for(self, tenant: str, subject: str) -> Key:
        key = self._subjects.get((tenant, subject))
        if key is None:
            key = self._subjects[tenant, subject] = self._make_key()
            self._contents[tenant, key.id] = {}
        return key

    def known_key(self, tenant: str, subject: str) -> Key | None:
        return self._subjects.get((tenant, subject))

    def keys(self, tenant: str) -> Sequence[Key]:
        return [key for _, key in self.subject_keys(tenant)]

    def subject_keys(self, tenant: str) -> list[tuple[str, Key]]:
        """List a tenant's keys with their subjects."""
        own = [(subject, key) for (owner, subject), key in self._subjects.items() if owner == tenant]
        return own + [(subject, key) for owner, subject, key in self._moved_keys if owner == tenant]

    def add_key(self, tenant: str, subject: str, key: Key) -> None:
        """Keep a key that came with moved runs."""
        if (tenant, subject) in self._subjects:
            self._moved_keys.append((tenant, subject, key))
        else:
            self._subjects[tenant, subject] = key
        self._contents[tenant, key.id] = {}

    def keep(self, tenant: str, key: Key, commit: bytes, content: bytes) -> None:
        """Keep a content that came with moved runs."""
        self._contents[tenant, key.id].setdefault(commit, self._cipher.seal(key, content))

    def mark_live(self, place: Place, run: Run) -> None:
        """Have a run that came from elsewhere looked at, unless it is over."""
        if run.status == "ended":
            self._live.pop(place, None)
        else:
            self._live[place] = run

    def destroy_key(self, tenant: str, subject: str) -> bool:
        keys = [key for named, key in self.subject_keys(tenant) if named == subject]
        if not keys:
            return False
        self._subjects.pop((tenant, subject), None)
        self._moved_keys = [moved for moved in self._moved_keys if moved[:2] != (tenant, subject)]
        for place in [place for place in self.connections if place[:2] == (tenant, subject)]:
            del self.connections[place]
        for key in keys:
            del self._contents[tenant, key.id]
            self.destroyed.add((tenant, key.id))
        for (owner, _), run in self.runs.items():
            if owner == tenant:
                run.entries.clear()
        return True

    def raw(self, tenant: str, run: str, after: int, limit: int) -> Sequence[RawRecord]:
        found = self.runs.get((tenant, run))
        if found is None:
            return []
        end = after + limit if limit else None
        keys = {key.id: key for key in self.keys(tenant)}
        return [self._raw(tenant, record, keys) for record in found.records[after:end]]

    def read(self, tenant: str, run: str, after: int, limit: int) -> Sequence[Entry]:
        found = self.runs.get((tenant, run))
        if found is None:
            return []
        if len(found.entries) < found.seq:
            found.entries += [read_entry(record) for record in self.raw(tenant, run, len(found.entries), 0)]
        return found.entries[after : after + limit if limit else None]

    def outlines(self, tenant: str, run: str) -> Sequence[Outline]:
        found = self.runs.get((tenant, run))
        return [read_outline(record.seq, record.envelope) for record in found.records] if found else []

    def _raw(self, tenant: str, record: Record, keys: dict[str, Key]) -> RawRecord:
        if not record.contents:
            return RawRecord(record.seq, record.envelope, record.hash)
        ids = content_ids(read_envelope(record.envelope))
        contents = tuple(self._opened(tenant, keys.get(key), commit) for key, commit in ids)
        return RawRecord(record.seq, record.envelope, record.hash, contents)

    def _opened(self, tenant: str, key: Key | None, commit: bytes) -> bytes | None:
        blob = self._contents[tenant, key.id].get(commit) if key else None
        return None if key is None or blob is None else self._cipher.open(key, blob)

    # --- the rest ------------------------------------------------------------------------------------------------------

    def parked(self, tenant: str, agent: str, reason: str, before: tuple[str, str], limit: int) -> Sequence[RunRow]:
        last = self.runs.get(before)
        rows: list[RunRow] = []
        behind = last is None
        for run in reversed(self._live.values()):
            wanted = ((tenant, run.start.tenant), (agent, run.start.agent), (reason, run.outcome))
            if behind and run.status == "parked" and all(asked in ("", found) for asked, found in wanted):
                rows.append(run.row())
            behind = behind or run is last
        return rows[:limit]

    def orphans(self, until_ms: int) -> Sequence[RunRow]:
        rows: list[RunRow] = []
        for run in self._live.values():
            idle = run.status == "runnable" and max(run.lease_until_ms, run.updated_ms) <= until_ms
            session = self.sessions.get((run.start.tenant, run.start.session))
            behind = session is not None and (run.start.tenant, session.live) in self._live
            if idle or (run.status == "queued" and not behind):
                rows.append(run.row())
        return rows

    def listed(
        self, tenant: str, session: str, agent: str, user: str, status: str, outcome: str, before: str, limit: int
    ) -> Sequence[RunRow]:
        rows: list[RunRow] = []
        for run in _newest(self.runs, tenant, before):
            start = run.start
            wanted = ((session, start.session), (agent, start.agent), (user, start.user), (status, run.status))
            wanted = (*wanted, (outcome, run.outcome))
            if all(asked in ("", found) for asked, found in wanted):
                rows.append(run.row())
            if len(rows) == limit:
                break
        return rows

    def listed_sessions(self, tenant: str, before: str, limit: int) -> Sequence[SessionRow]:
        return [session.row() for session in list(_newest(self.sessions, tenant, before))[:limit]]

    def add_api_key(self, key: ApiKey) -> None:
        if key.id in self.api_keys:
            raise Conflict(f"there is an API key {key.id!r} already")
        self.api_keys[key.id] = key

    def revoke_api_key(self, id: str) -> bool:
        key = self.api_keys.get(id)
        if key is not None:
            self.api_keys[id] = msgspec.structs.replace(key, revoked=True)
        return key is not None


def _is_of(run: Run, session: Session) -> bool:
    return (run.start.tenant, run.start.session) == (session.tenant, session.session)


def _wake_ms(run: Run) -> int:
    """When a run is to be looked at again; 0: not by time."""
    if run.status == "runnable":
        return run.lease_until_ms
    return max(run.wake_at_ms, run.lease_until_ms) if run.status == "waiting" and run.wake_at_ms else 0


def _newest(rows: dict[Place, T], tenant: str, before: str) -> Iterator[T]:
    """List a tenant's rows, newest first, from behind one on."""
    found = before == "" or (tenant, before) not in rows
    for (owner, name), row in reversed(rows.items()):
        if owner != tenant:
            continue
        if found:
            yield row
        found = found or name == before
