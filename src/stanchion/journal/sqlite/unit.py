"""The unit of work: what each write does, within the writer's transaction.

A write checks everything before it changes anything: one that is refused leaves no trace, and the others of its group
go on. Heads and ledgers change in memory, new events and contents are collected, and `flush` writes them all.
"""

from __future__ import annotations

import secrets
from typing import Any

import apsw
import msgspec

from stanchion.core.errors import Conflict, UnreadInbox
from stanchion.core.event import Base
from stanchion.journal.head import Head, check_append, check_post, is_known
from stanchion.journal.queries import named
from stanchion.journal.share import NoPlace
from stanchion.journal.sqlite import multi
from stanchion.journal.sqlite.announce import add_endpoint, announce
from stanchion.journal.sqlite.connection import Connection, Value
from stanchion.journal.sqlite.heads import Heads
from stanchion.journal.sqlite.ledgers import Ledgers
from stanchion.journal.sqlite.places import Places
from stanchion.journal.store import (
    ApiKey,
    Append,
    Claim,
    Content,
    IdempotencyMismatch,
    Key,
    Record,
    Refused,
    SessionBusy,
    SessionMoved,
    Start,
    Started,
)

_SQL = named("sqlite/journal.sql")
_HAND_IN = named("sqlite/tray.sql")["insert"]
_KEYS_KEPT = 10_000


class Packed(msgspec.Struct, frozen=True):
    """An append with its envelopes as they will lie in the file."""

    append: Append
    envelopes: tuple[bytes, ...]


class UnitOfWork:
    """The writer's transaction and what it knows of the rows it writes."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.now_ms = 0
        self.truncate = False
        """Content was erased: the WAL is to be emptied after the commit."""
        self.foreign = 0
        """How often another process was seen to have written."""
        self._heads = Heads(connection)
        self._ledgers = Ledgers(connection)
        self.places = Places(connection)
        self._keys: dict[tuple[str, str], int] = {}
        self._events: list[Value] = []
        self._contents: list[Value] = []
        self._version = self._data_version()

    # --- the transaction ---------------------------------------------------------------------------------------------

    def begin(self, now_ms: int) -> None:
        """Begin a transaction that may write at once; drop what another process made stale."""
        self.connection.execute("BEGIN IMMEDIATE")
        self.now_ms = now_ms
        self.truncate = False
        self.look()

    def look(self) -> None:
        """See whether another process has written."""
        version = self._data_version()
        if version != self._version:
            self._version = version
            self.foreign += 1
            self.forget()

    def flush(self) -> None:
        """Write what was collected."""
        events, contents = self._events, self._contents
        self._events, self._contents = [], []
        if contents:
            multi.execute(self.connection, multi.INSERT_CONTENTS, contents)
        if events:
            multi.execute(self.connection, multi.INSERT_EVENTS, events)
        self._heads.flush(self.now_ms)
        self._ledgers.flush()
        if len(self._keys) > _KEYS_KEPT:
            self._keys.clear()

    def settle(self) -> None:
        """Write what was collected and drop what is known, for a write that goes past it."""
        self.flush()
        self.forget()

    def forget(self) -> None:
        """Drop everything that is not in the file."""
        self._events, self._contents = [], []
        self._heads.forget()
        self._ledgers.forget()
        self.places.forget()
        self._keys.clear()

    def _data_version(self) -> int:
        return self._row("PRAGMA data_version", ())[0]

    def _row(self, sql: str, values: tuple[Value, ...]) -> Any:
        return self.connection.execute(sql, values).fetchone()

    # --- runs --------------------------------------------------------------------------------------------------------

    def append(self, packed: Packed) -> Refused | None:
        append = packed.append
        head = self._heads.get(append.tenant, append.run)
        check_append(append, head)
        if append.status == "ended":
            self._check_inbox(append, head)
        contents = self._content_rows(append.tenant, append.records)
        if append.settle or append.reserve:
            refused = self._ledgers.move(append)
            if refused is not None:
                return refused
        self._write(head, packed, contents)
        for item in append.inbox_done:
            self.connection.execute(_SQL["delete_inbox"], (head.no, item))
        self._settle_status(append, head)
        return None

    def _check_inbox(self, append: Append, head: Head) -> None:
        for row in self.connection.execute(_SQL["inbox_nos"], (head.no,)):
            if row[0] not in append.inbox_done:
                raise UnreadInbox

    def claim(self, tenant: str, run: str, worker: str, lease_ms: int) -> Claim | None:
        head = self._heads.find(tenant, run)
        if head is None or head.status not in ("runnable", "waiting"):
            return None
        if head.lease_until_ms > self.now_ms and head.worker != worker:
            return None
        if not head.worker and self.places.shares.capped:
            self.flush()
            if self.places.met_by_run(head.no, tenant) is not None:
                return None
        if head.attempts:
            self.connection.execute(_SQL["insert_claim"], (head.no, head.epoch, head.worker, self.now_ms))
        head.epoch += 1
        head.attempts += 1
        head.put("runnable")
        head.lease(worker, self.now_ms + lease_ms)
        head.changed = True
        self._heads.touch(head)
        return Claim(tenant, run, head.epoch, head.seq, head.attempts)

    def renew(self, tenant: str, run: str, epoch: int, lease_ms: int) -> bool:
        head = self._heads.find(tenant, run)
        if head is None or head.epoch != epoch or not head.worker or head.status == "ended":
            return False
        head.lease(head.worker, self.now_ms + lease_ms)
        self._heads.touch(head)
        return True

    def void_leases(self, worker: str) -> None:
        """Take the leases that others hold."""
        self.flush()
        self._heads.forget()
        self.connection.execute(_SQL["void_claims"], (self.now_ms, worker))
        self.connection.execute(_SQL["void_leases"], (worker,))

    def post(self, tenant: str, run: str, kind: str, body: bytes, key: str = "", digest: str = "") -> int:
        head = self._heads.get(tenant, run)
        if key and is_known(self._row(_SQL["idempotency"], (tenant, key)), digest):
            return 0
        check_post(run, head.status, head.outcome)
        if key:
            self.connection.execute(_SQL["insert_idempotency"], (tenant, key, digest, run))
        self.connection.execute(_SQL["insert_inbox"], (head.no, kind, body, self.now_ms))
        item = self.connection.last_insert_rowid()
        if head.status == "waiting":
            head.put("runnable")
            self._heads.touch(head)
        elif head.status == "runnable" and not head.epoch and kind == "cancel":
            head.epoch, head.changed = 1, True  # it does not wait its turn: it has begun, and ends
            self._heads.touch(head)
        elif head.status == "parked" and kind in ("revive", "cancel"):
            head.put("runnable")
            head.attempts, head.outcome = 0, ""
            self._heads.touch(head)
        return item

    def start(
        self, start: Start, envelopes: tuple[bytes, ...]
    ) -> Started | Refused | SessionBusy | SessionMoved | IdempotencyMismatch | NoPlace:
        known = self._known(start)
        if known is not None:
            return known
        if start.known_only:
            return NoPlace("queue", 0)
        if self._heads.find(start.tenant, start.run) is not None:
            raise Conflict(f"there is a run {start.run!r} already; give the new one another id")
        session = self._row(_SQL["session_for_start"], (start.tenant, start.session)) if start.session else None
        live = session[0] if session else ""
        if live and not start.queued:
            return SessionBusy(live)
        if start.session and not start.queued and (found := _base(session)) != start.base:
            return SessionMoved(found)
        if start.worker and not start.queued and self.places.shares.capped:
            self.flush()
            met = self.places.met(start.tenant, start.agent, start.user)
            if met is not None:
                return met
        contents = self._content_rows(start.tenant, start.first.records)
        refused = self._ledgers.move(start.first)
        if refused is not None:
            return refused
        self._insert_run(start, queued=bool(live))
        self._insert_session(start, session is not None, live or start.run)
        if start.callback is not None:
            add_endpoint(self.connection, start.callback, self.now_ms)
        head = self._heads.get(start.tenant, start.run)
        if start.worker and not start.queued:
            head.epoch = head.attempts = 1
            head.lease(start.worker, self.now_ms + start.lease_ms)
        self._write(head, Packed(start.first, envelopes), contents)
        if not live:
            self._settle_status(start.first, head)
        return Started(start.run)

    def _known(self, start: Start) -> Started | IdempotencyMismatch | None:
        if not start.idempotency_key:
            return None
        row = self._row(_SQL["idempotency"], (start.tenant, start.idempotency_key))
        if row is None:
            return None
        digest, run = row
        return Started(run, existing=True) if digest == start.idempotency_digest else IdempotencyMismatch(run)

    def _insert_run(self, start: Start, *, queued: bool) -> None:
        status = "queued" if queued else "runnable"
        names = (start.tenant, start.run, start.session, start.agent, start.bundle, start.user)
        times = (self.now_ms, self.now_ms)
        values = (*names, status, start.priority, start.parent, start.root, *times)
        self.connection.execute(_SQL["insert_run"], values)
        if start.queued:
            no = self.connection.last_insert_rowid()
            self.connection.execute(_SQL["insert_inbox"], (no, "start", start.request, self.now_ms))
        if start.idempotency_key:
            values = (start.tenant, start.idempotency_key, start.idempotency_digest, start.run)
            self.connection.execute(_SQL["insert_idempotency"], values)

    def _insert_session(self, start: Start, exists: bool, live: str) -> None:
        place = (start.tenant, start.session)
        if exists:
            self.connection.execute(_SQL["session_started"], (live, self.now_ms, *place))
        elif start.session:
            values = (*place, start.agent, start.user, live, self.now_ms, self.now_ms)
            self.connection.execute(_SQL["insert_session"], values)

    def _content_rows(self, tenant: str, records: tuple[Record, ...]) -> list[Value]:
        rows: list[Value] = []
        for record in records:
            for content in record.contents:
                self._add_content(rows, tenant, content)
        return rows

    def _add_content(self, rows: list[Value], tenant: str, content: Content) -> None:
        """Collect a content. One whose key was destroyed meanwhile is not kept: it is erased from the start."""
        place = (tenant, content.key)
        no = self._keys.get(place)
        if no is None:
            row = self._row(_SQL["key_no"], place)
            if row is None:
                return
            no = self._keys[place] = row[0]
        rows += (no, content.commit, content.blob)

    def _write(self, head: Head, packed: Packed, contents: list[Value]) -> None:
        append = packed.append
        self._contents += contents
        for record, envelope in zip(append.records, packed.envelopes, strict=True):
            self._events += (head.no, record.seq, record.hash, envelope)
        if append.records:
            last = append.records[-1]
            head.seq, head.hash = last.seq, last.hash
        if append.progress:
            head.attempts = 0
        elif append.unclaim:
            head.attempts = max(head.attempts - 1, 0)
        head.cost = max(head.cost, append.cost)
        self._heads.touch(head)
        if append.announce:
            announce(self.connection, append, self.now_ms)
        for item in append.hand_in:
            self.connection.execute(_HAND_IN, (item.tenant, item.run, item.seq, item.lane, self.now_ms))

    def _settle_status(self, append: Append, head: Head) -> None:
        status, wake_at_ms = append.status, append.wake_at_ms if append.status == "waiting" else 0
        if status == "waiting" and self._row(_SQL["has_inbox"], (head.no,)) is not None:
            status, wake_at_ms = "runnable", 0
        head.put(status, wake_at_ms)
        if append.release or status == "ended":
            head.lease("", 0)
        if status in ("ended", "parked"):
            head.outcome = append.outcome
            head.changed = True
        if status == "ended":
            self._end(append.tenant, append.run, head)

    def _end(self, tenant: str, run: str, head: Head) -> None:
        """Move the session on: its head to this run, and its next queued run to work."""
        if not head.session:
            return
        place = (tenant, head.session)
        if head.seq:
            values = (run, head.seq, head.hash.hex(), self.now_ms, *place)
            self.connection.execute(_SQL["session_head"], values)
        session = self._row(_SQL["session_for_start"], place)
        if session is None or session[0] != run:
            return
        self.flush()
        row = self._row(_SQL["next_queued"], place)
        if row is not None:
            following = self._heads.get(tenant, row[0])
            following.put("runnable")
            self._heads.touch(following)
        self.connection.execute(_SQL["session_live"], (row[0] if row else "", self.now_ms, *place))

    # --- the rest ----------------------------------------------------------------------------------------------------

    def key_for(self, tenant: str, subject: str, sealed: bool) -> Key:
        row = self._row(_SQL["key_of_subject"], (tenant, subject))
        if row is not None:
            return Key(*row)
        key = Key(secrets.token_urlsafe(9), secrets.token_bytes(32), secrets.token_bytes(32) if sealed else b"")
        self.connection.execute(_SQL["insert_key"], (tenant, subject, key.id, key.salt, key.secret))
        return key

    def destroy_key(self, tenant: str, subject: str) -> bool:
        """Overwrite all content of a subject's keys in its place, and delete the keys.

        The rows stay: deleting them would have SQLite move their neighbours to other pages and leave copies behind,
        which no later erasure would find.
        """
        rows = self.connection.execute(_SQL["subject_nos"], (tenant, subject)).fetchall()
        if not rows:
            return False
        self.flush()
        self._keys.clear()
        for row in rows:
            self.connection.execute(_SQL["erase_contents"], row)
            self.connection.execute(_SQL["remember_destroyed"], row)
            self.connection.execute(_SQL["delete_key"], row)
        self.connection.execute(_SQL["forget_connections"], (tenant, subject))
        self.truncate = True
        return True

    def put_bundle(self, tenant: str, digest: str, body: bytes) -> None:
        self.connection.execute(_SQL["insert_bundle"], (tenant, digest, body))

    def set_limit(self, tenant: str, ledger: str, limit: int) -> Any:
        return self._ledgers.set_limit(tenant, ledger, limit)

    def add_api_key(self, key: ApiKey) -> None:
        values = (key.tenant, key.id, key.hash, key.name, key.created_ms, int(key.revoked), key.may_approve)
        try:
            self.connection.execute(_SQL["insert_api_key"], values)
        except apsw.ConstraintError as error:
            raise Conflict(f"there is an API key {key.id!r} already") from error

    def revoke_api_key(self, id: str) -> bool:
        self.connection.execute(_SQL["revoke_api_key"], (id,))
        return self.connection.changes() > 0


def _base(session: Any) -> Base | None:
    if not session or not session[1]:
        return None
    return Base(session[1], session[2], session[3])
