"""Sessions that move in and out of the in-memory store. All is checked before anything is changed."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import TYPE_CHECKING

from stanchion.core.errors import Conflict, NotFound
from stanchion.journal.head import is_moved
from stanchion.journal.ledger import owner_of
from stanchion.journal.moving import (
    Found,
    MovedKey,
    MovedRun,
    MovedSession,
    Plan,
    Taken,
    UsedKey,
    before,
    check_let_go,
    let_go_as,
    moved_contents,
    plan,
)
from stanchion.journal.record import content_ids, read_envelope
from stanchion.journal.store import Append, Content, InboxItem, Key, Ledger, RawRecord, Record, Start
from stanchion.testing.memory_books import Book
from stanchion.testing.memory_facts import Expected
from stanchion.testing.memory_tables import Run, Session, Tables

if TYPE_CHECKING:
    from stanchion.testing.memory import MemoryStore


class MemoryMoving:
    """`Moving` over tables in memory."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    async def keys(self, tenant: str) -> Sequence[MovedKey]:
        return await self._store.read_rows(
            lambda tables: [MovedKey(subject, key.id, key.salt) for subject, key in tables.subject_keys(tenant)]
        )

    async def used_keys(self, tenant: str) -> Sequence[UsedKey]:
        return await self._store.read_rows(
            lambda tables: [
                UsedKey(key, *said) for (owner, key), said in sorted(tables.idempotency.items()) if owner == tenant
            ]
        )

    async def let_go(self, tenant: str, runs: Sequence[tuple[str, int]]) -> None:
        await self._store.write(lambda tables, now_ms: _let_go(tables, tenant, runs, now_ms))

    async def take_in(self, moved: MovedSession, *, back: bool = False) -> Taken:
        return await self._store.write(lambda tables, now_ms: _take_in(tables, moved, now_ms, back=back))

    async def carry_over(self, ledger: Ledger) -> bool:
        return await self._store.write(lambda tables, _: _carry_over(tables, ledger))


def _let_go(tables: Tables, tenant: str, runs: Sequence[tuple[str, int]], now_ms: int) -> None:
    gone: list[Run] = []
    for name, expected in runs:
        run = tables.runs.get((tenant, name))
        if run is None:
            raise NotFound(f"there is no run {name!r}")
        if is_moved(run.status, run.outcome) and run.seq == expected:
            continue
        leased_by = run.worker if run.lease_until_ms > now_ms else ""
        check_let_go(name, seq=run.seq, expected=expected, status=run.status, leased_by=leased_by)
        gone.append(run)
    for run in gone:
        run.outcome, run.status = let_go_as(run.status, run.outcome), "parked"
        run.epoch, run.worker, run.lease_until_ms, run.updated_ms = run.epoch + 1, "", 0, now_ms


def _carry_over(tables: Tables, ledger: Ledger) -> bool:
    place = (owner_of(ledger.tenant, ledger.ledger), ledger.ledger)
    if place in tables.books.books:
        return False
    tables.books.books[place] = Book(settled=ledger.settled)
    return True


def _take_in(tables: Tables, moved: MovedSession, now_ms: int, *, back: bool) -> Taken:
    planned = _planned(tables, moved, back=back)
    keys, made = _keys(tables, moved)
    for used in moved.used:
        if tables.idempotency.get((moved.tenant, used.key), (used.digest, used.run)) != (used.digest, used.run):
            raise Conflict(f"the idempotency key {used.key!r} is used here for another run than {used.run!r}")
    for run in planned.back:
        row, here = before(run.row), tables.runs[moved.tenant, run.row.run]
        here.status, here.outcome, here.attempts = row.status, row.outcome, 0
    if planned.taken not in ("added", "grown"):
        return planned.taken
    for key, opened in made:
        tables.add_key(moved.tenant, key.subject, opened)
    for run, records in planned.events():
        _put(tables, run, records, keys, grown=run not in planned.add)
    for used in moved.used:
        tables.idempotency.setdefault((moved.tenant, used.key), (used.digest, used.run))
    for due in planned.due(moved):
        tables.facts.due.setdefault((due.tenant, due.run), Expected(due, now_ms))
    row = moved.row
    if row is not None:
        session = Session(row.tenant, row.session, row.agent, row.user, row.live, row.created_ms, row.updated_ms)
        session.head, session.runs = row.head, row.runs
        tables.sessions[row.tenant, row.session] = session
    return planned.taken


def _planned(tables: Tables, moved: MovedSession, *, back: bool) -> Plan:
    found: dict[str, Found] = {}
    for run in moved.runs:
        here = tables.runs.get((moved.tenant, run.row.run))
        if here is not None:
            there = here.records[run.row.seq - 1].hash if 0 < run.row.seq <= here.seq else b""
            found[run.row.run] = Found(here.start.session, here.status, here.outcome, here.seq, here.hash, there)
    session = tables.sessions.get((moved.tenant, moved.row.session)) if moved.row else None
    return plan(moved, found, session.row() if session else None, back=back)


def _keys(tables: Tables, moved: MovedSession) -> tuple[dict[str, Key], list[tuple[MovedKey, Key]]]:
    here = {key.id: key for key in tables.keys(moved.tenant)}
    known: dict[str, Key] = {}
    made: list[tuple[MovedKey, Key]] = []
    for key in moved.keys:
        if key.id in here:
            known[key.id] = here[key.id]
            if known[key.id].salt != key.salt:
                raise Conflict(f"the content key {key.id} of {key.subject!r} is another here")
        elif (moved.tenant, key.id) not in tables.destroyed:
            known[key.id] = Key(key.id, key.salt, secrets.token_bytes(32))
            made.append((key, known[key.id]))
    return known, made


def _put(tables: Tables, run: MovedRun, records: Sequence[RawRecord], keys: dict[str, Key], *, grown: bool) -> None:
    row = run.row
    place = (row.tenant, row.run)
    if grown:
        here = tables.runs[place]
    else:
        first = Append(tenant=row.tenant, run=row.run, expected_seq=0, epoch=0)
        start = Start(
            tenant=row.tenant, run=row.run, session=row.session, agent=row.agent, bundle=row.bundle, user=row.user,
            parent=row.parent, root=row.root, priority=row.priority, first=first,
        )  # fmt: skip
        here = tables.runs[place] = Run(start, row.status, row.created_ms, row.updated_ms)
    here.status, here.outcome, here.epoch, here.hash = row.status, row.outcome, max(here.epoch, row.epoch), row.hash
    here.wake_at_ms, here.worker, here.lease_until_ms = row.wake_at_ms, "", 0
    here.attempts, here.cost, here.updated_ms = row.attempts, row.cost, row.updated_ms
    here.inbox = []
    for item in run.inbox:
        here.inbox.append(InboxItem(tables.next_post(), item.kind, item.body, item.at_ms))
    for key, commit, content in moved_contents(records, keys):
        tables.keep(row.tenant, key, commit, content)
    here.records += [_record(record) for record in records]
    tables.mark_live(place, here)


def _record(raw: RawRecord) -> Record:
    refs = content_ids(read_envelope(raw.envelope)) if raw.contents else []
    return Record(raw.seq, raw.envelope, raw.hash, tuple(Content(key, commit, b"") for key, commit in refs))
