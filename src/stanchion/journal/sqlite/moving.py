"""Sessions that move in and out of the file: each is one write of the writer's. All is checked before anything is written."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

import msgspec

from stanchion.core.errors import Conflict, NotFound
from stanchion.journal.head import is_moved
from stanchion.journal.ledger import name_of, owner_of
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
from stanchion.journal.queries import named
from stanchion.journal.reading import session_row
from stanchion.journal.record import Cipher
from stanchion.journal.sqlite import multi
from stanchion.journal.sqlite.connection import Value
from stanchion.journal.sqlite.packing import pack
from stanchion.journal.sqlite.read import Reader
from stanchion.journal.sqlite.unit import UnitOfWork
from stanchion.journal.sqlite.writer import Writer
from stanchion.journal.store import Key, Ledger, RawRecord, RunRow

_SQL = named("sqlite/moving.sql")
_JOURNAL = named("sqlite/journal.sql")


class SqliteMoving:
    """`Moving` in the file."""

    def __init__(self, writer: Writer, reader: Reader, cipher: Cipher, *, sealed: bool) -> None:
        self._writer = writer
        self._reader = reader
        self._cipher = cipher
        self._sealed = sealed

    async def keys(self, tenant: str) -> Sequence[MovedKey]:
        rows = await self._reader.use(lambda connection: connection.execute(_SQL["keys"], (tenant,)).fetchall())
        return [MovedKey(*row) for row in rows]

    async def used_keys(self, tenant: str) -> Sequence[UsedKey]:
        rows = await self._reader.use(lambda connection: connection.execute(_SQL["used_keys"], (tenant,)).fetchall())
        return [UsedKey(*row) for row in rows]

    async def let_go(self, tenant: str, runs: Sequence[tuple[str, int]]) -> None:
        await self._writer.write(lambda unit: _let_go(unit, tenant, runs))

    async def take_in(self, moved: MovedSession, *, back: bool = False) -> Taken:
        weight = sum(len(record.envelope) for run in moved.runs for record in run.records)
        taking = _Taking(moved, self._cipher, sealed=self._sealed)
        return await self._writer.write(lambda unit: taking.write(unit, back=back), weight)

    async def carry_over(self, ledger: Ledger) -> bool:
        return await self._writer.write(lambda unit: _carry_over(unit, ledger))


def _let_go(unit: UnitOfWork, tenant: str, runs: Sequence[tuple[str, int]]) -> None:
    unit.settle()
    written: list[tuple[str, str]] = []
    for run, expected in runs:
        row: Any = unit.connection.execute(_JOURNAL["head"], (tenant, run)).fetchone()
        if row is None:
            raise NotFound(f"there is no run {run!r}; list them with `stanchion runs ls`")
        seq, status, outcome, leased_ms, worker = row[1], row[4], row[5], row[7], row[8]
        if is_moved(status, outcome) and seq == expected:
            continue
        leased_by = worker if leased_ms > unit.now_ms else ""
        check_let_go(run, seq=seq, expected=expected, status=status, leased_by=leased_by)
        written.append((run, let_go_as(status, outcome)))
    for run, outcome in written:
        unit.connection.execute(_SQL["let_go"], (tenant, run, outcome, unit.now_ms))


def _carry_over(unit: UnitOfWork, ledger: Ledger) -> bool:
    unit.settle()
    place = (owner_of(ledger.tenant, ledger.ledger), ledger.ledger)
    if unit.connection.execute(_SQL["has_ledger"], place).fetchone() is not None:
        return False
    unit.connection.execute(_SQL["insert_ledger"], (*place, name_of(ledger.ledger), ledger.settled))
    return True


class _Taking:
    """A session that is being taken in."""

    def __init__(self, moved: MovedSession, cipher: Cipher, *, sealed: bool) -> None:
        self._moved = moved
        self._tenant = moved.tenant
        self._cipher = cipher
        self._sealed = sealed
        self._envelopes = {
            (run.row.run, record.seq): pack(record.envelope) for run in moved.runs for record in run.records
        }  # (made here and not in the writer's thread)

    def write(self, unit: UnitOfWork, *, back: bool) -> Taken:
        unit.settle()
        planned = self._planned(unit, back=back)
        keys, made = self._keys(unit)
        self._check_used(unit)
        for run in planned.back:
            row = before(run.row)
            values = (self._tenant, row.run, row.status, row.outcome, unit.now_ms)
            unit.connection.execute(_SQL["drive_again"], values)
        if planned.taken in ("added", "grown"):
            self._add(unit, planned, keys, made)
        return planned.taken

    def _planned(self, unit: UnitOfWork, *, back: bool) -> Plan:
        found: dict[str, Found] = {}
        for run in self._moved.runs:
            row: Any = unit.connection.execute(_SQL["find_run"], (self._tenant, run.row.run, run.row.seq)).fetchone()
            if row is not None:
                found[run.row.run] = Found(*row)
        there: Any = None
        if self._moved.row is not None:
            there = unit.connection.execute(_JOURNAL["session"], (self._tenant, self._moved.row.session)).fetchone()
        return plan(self._moved, found, session_row(there) if there else None, back=back)

    def _keys(self, unit: UnitOfWork) -> tuple[dict[str, Key], list[tuple[MovedKey, Key]]]:
        """Find the keys that are here, and make those that are not and were not destroyed here."""
        known: dict[str, Key] = {}
        made: list[tuple[MovedKey, Key]] = []
        for key in self._moved.keys:
            place = (self._tenant, key.id)
            row: Any = unit.connection.execute(_SQL["known_key"], place).fetchone()
            if row is not None:
                known[key.id] = Key(*row)
                if known[key.id].salt != key.salt:
                    raise Conflict(
                        f"the content key {key.id} of {key.subject!r} is another here; import into another store"
                    )
            elif unit.connection.execute(_SQL["destroyed"], place).fetchone() is None:
                known[key.id] = Key(key.id, key.salt, secrets.token_bytes(32) if self._sealed else b"")
                made.append((key, known[key.id]))
        return known, made

    def _check_used(self, unit: UnitOfWork) -> None:
        for used in self._moved.used:
            row: Any = unit.connection.execute(_SQL["used_key"], (self._tenant, used.key)).fetchone()
            if row is not None and tuple(row) != (used.digest, used.run):
                raise Conflict(f"the idempotency key {used.key!r} is used here for another run than {used.run!r}")

    def _add(self, unit: UnitOfWork, planned: Plan, keys: dict[str, Key], made: Sequence[tuple[MovedKey, Key]]) -> None:
        for moved, key in made:
            values = (self._tenant, moved.subject, key.id, key.salt, key.secret)
            unit.connection.execute(_SQL["insert_key"], values)
        numbers = dict(unit.connection.execute(_SQL["key_nos"], (self._tenant,)).fetchall())
        for run, records in planned.events():
            no = self._insert(unit, run.row) if run in planned.add else self._grow(unit, run.row)
            self._inbox(unit, no, run)
            self._events(unit, no, run.row.run, records)
            contents: list[Value] = []
            for key, commit, content in moved_contents(records, keys):
                contents += (numbers[key.id], commit, self._cipher.seal(key, content))
            multi.execute(unit.connection, multi.INSERT_CONTENTS, contents)
        for used in self._moved.used:
            unit.connection.execute(_SQL["insert_used"], (self._tenant, used.key, used.digest, used.run))
        for due in planned.due(self._moved):
            unit.connection.execute(_SQL["insert_due"], (*msgspec.structs.astuple(due), unit.now_ms))
        self._session(unit)

    def _insert(self, unit: UnitOfWork, row: RunRow) -> int:
        unit.connection.execute(_SQL["insert_run"], msgspec.structs.astuple(row))
        return unit.connection.last_insert_rowid()

    def _grow(self, unit: UnitOfWork, row: RunRow) -> int:
        values = (row.tenant, row.run, row.status, row.outcome, row.epoch, row.seq, row.hash, row.wake_at_ms)
        unit.connection.execute(_SQL["grow_run"], (*values, row.attempts, row.cost, row.updated_ms))
        found: Any = unit.connection.execute(_SQL["run_no"], (row.tenant, row.run)).fetchone()
        unit.connection.execute(_SQL["clear_inbox"], found)
        return found[0]

    def _inbox(self, unit: UnitOfWork, no: int, run: MovedRun) -> None:
        for item in run.inbox:
            unit.connection.execute(_JOURNAL["insert_inbox"], (no, item.kind, item.body, item.at_ms))

    def _events(self, unit: UnitOfWork, no: int, run: str, records: Sequence[RawRecord]) -> None:
        rows: list[Value] = []
        for record in records:
            rows += (no, record.seq, record.hash, self._envelopes[run, record.seq])
        multi.execute(unit.connection, multi.INSERT_EVENTS, rows)

    def _session(self, unit: UnitOfWork) -> None:
        row = self._moved.row
        if row is None:
            return
        head = (row.head.run, row.head.seq, row.head.hash) if row.head else ("", 0, "")
        values = (row.tenant, row.session, row.agent, row.user, *head, row.live, row.runs)
        unit.connection.execute(_SQL["put_session"], (*values, row.created_ms, row.updated_ms))
