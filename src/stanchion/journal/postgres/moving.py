"""Sessions that move in and out of the database: each is one transaction, beside the lanes and under the same locks."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

import msgspec

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
from stanchion.journal.postgres import money
from stanchion.journal.postgres.address import Connection
from stanchion.journal.postgres.read import Reader
from stanchion.journal.postgres.schema import lock_number
from stanchion.journal.queries import named
from stanchion.journal.reading import session_row
from stanchion.journal.record import Cipher
from stanchion.journal.sqlite.packing import pack
from stanchion.journal.store import Key, Ledger, RawRecord, RunRow, SessionRow

SQL = named("postgres/moving.sql")
_EVENTS = 1_000
"""Rows of one statement."""


class PostgresMoving:
    """`Moving` in the database."""

    def __init__(self, reader: Reader, cipher: Cipher, *, sealed: bool) -> None:
        self._reader = reader
        self._cipher = cipher
        self._sealed = sealed

    async def keys(self, tenant: str) -> Sequence[MovedKey]:
        rows = await self._reader.use(lambda connection: connection.fetch(SQL["keys"], tenant))
        return [MovedKey(*row) for row in rows]

    async def used_keys(self, tenant: str) -> Sequence[UsedKey]:
        rows = await self._reader.use(lambda connection: connection.fetch(SQL["used_keys"], tenant))
        return [UsedKey(*row) for row in rows]

    async def let_go(self, tenant: str, runs: Sequence[tuple[str, int]]) -> None:
        async def write(connection: Connection) -> None:
            async with connection.transaction():
                found = await connection.fetch(SQL["lock_runs"], tenant, [run for run, _ in runs])
                rows = {row[0]: row for row in found}
                for run, expected in runs:
                    if run not in rows:
                        raise NotFound(f"there is no run {run!r}; list them with `stanchion runs ls`")
                    _, seq, status, outcome, worker, leased = rows[run]
                    if is_moved(status, outcome) and seq == expected:
                        continue
                    leased_by = worker if leased else ""
                    check_let_go(run, seq=seq, expected=expected, status=status, leased_by=leased_by)
                    await connection.execute(SQL["let_go"], tenant, run, let_go_as(status, outcome))

        await self._reader.use(write, tries=1)

    async def take_in(self, moved: MovedSession, *, back: bool = False) -> Taken:
        envelopes = {
            (run.row.run, record.seq): pack(record.envelope) for run in moved.runs for record in run.records
        }  # (made before the transaction: the database ends one that stands idle)

        async def write(connection: Connection) -> Taken:
            async with connection.transaction():
                taking = _Taking(connection, moved, self._cipher, sealed=self._sealed)
                return await taking.write(envelopes, back=back)

        return await self._reader.use(write, tries=1)

    async def carry_over(self, ledger: Ledger) -> bool:
        tenant = owner_of(ledger.tenant, ledger.ledger)

        async def write(connection: Connection) -> bool:
            async with connection.transaction():
                return await money.carry_over(connection, tenant, ledger.ledger, ledger.settled)

        return await self._reader.use(write, tries=1)


class _Taking:
    """A session that is being taken in."""

    def __init__(self, connection: Connection, moved: MovedSession, cipher: Cipher, *, sealed: bool) -> None:
        self._connection = connection
        self._moved = moved
        self._tenant = moved.tenant
        self._cipher = cipher
        self._sealed = sealed

    async def write(self, envelopes: dict[tuple[str, int], bytes], *, back: bool) -> Taken:
        locks = sorted(lock_number(f"{self._tenant}/{key.id}") for key in self._moved.keys)
        await self._connection.execute(SQL["lock_keys"], locks)
        planned = plan(self._moved, await self._find_runs(), await self._find_session(), back=back)
        for run in planned.back:
            row = before(msgspec.structs.replace(run.row))
            await self._connection.execute(SQL["drive_again"], self._tenant, row.run, row.status, row.outcome)
        if planned.taken in ("added", "grown"):
            await self._add(planned, envelopes)
        return planned.taken

    async def _find_runs(self) -> dict[str, Found]:
        names, seqs = [run.row.run for run in self._moved.runs], [run.row.seq for run in self._moved.runs]
        rows = await self._connection.fetch(SQL["find_runs"], self._tenant, names, seqs)
        return {row[0]: Found(*row[1:]) for row in rows}

    async def _find_session(self) -> SessionRow | None:
        if self._moved.row is None:
            return None
        row = await self._connection.fetchrow(SQL["find_session"], self._tenant, self._moved.row.session)
        return session_row(row) if row else None

    async def _add(self, planned: Plan, envelopes: dict[tuple[str, int], bytes]) -> None:
        keys = await self._keys()
        rows: list[tuple[int, str, RawRecord]] = []
        for run, records in planned.events():
            no = await (self._insert(run.row) if run in planned.add else self._grow(run.row))
            await self._inbox(no, run)
            rows += [(no, run.row.run, record) for record in records]
        for start in range(0, len(rows), _EVENTS):
            await self._events(rows[start : start + _EVENTS], keys, envelopes)
        await self._use_keys()
        for due in planned.due(self._moved):
            await self._connection.execute(SQL["insert_due"], *msgspec.structs.astuple(due))
        await self._put_session()

    async def _keys(self) -> dict[str, Key]:
        """Add the keys that are not here and were not destroyed here; give all that there are."""
        ids = [key.id for key in self._moved.keys]
        destroyed = {row[0] for row in await self._connection.fetch(SQL["destroyed"], self._tenant, ids)}
        known = {row[0]: Key(*row) for row in await self._connection.fetch(SQL["known_keys"], self._tenant, ids)}
        for key in self._moved.keys:
            if key.id in known and known[key.id].salt != key.salt:
                raise Conflict(
                    f"the content key {key.id} of {key.subject!r} is another here; import into another store"
                )
            if key.id in known or key.id in destroyed:
                continue
            made = Key(key.id, key.salt, secrets.token_bytes(32) if self._sealed else b"")
            await self._connection.execute(
                SQL["insert_key"], self._tenant, key.subject, made.id, made.salt, made.secret
            )
            known[key.id] = made
        return known

    async def _insert(self, row: RunRow) -> int:
        return await self._connection.fetchval(SQL["insert_run"], *msgspec.structs.astuple(row))

    async def _grow(self, row: RunRow) -> int:
        values = (row.status, row.outcome, row.epoch, row.seq, row.hash, row.wake_at_ms)
        rest = (row.attempts, row.cost, row.updated_ms)
        no = await self._connection.fetchval(SQL["grow_run"], row.tenant, row.run, *values, *rest)
        await self._connection.execute(SQL["clear_inbox"], no)
        return no

    async def _inbox(self, no: int, run: MovedRun) -> None:
        rows = [(item.kind, item.body, item.at_ms) for item in run.inbox]
        if rows:
            await self._connection.execute(SQL["insert_inbox"], no, *zip(*rows, strict=True))

    async def _events(
        self, part: list[tuple[int, str, RawRecord]], keys: dict[str, Key], envelopes: dict[tuple[str, int], bytes]
    ) -> None:
        rows = [(no, record.seq, record.hash, envelopes[run, record.seq]) for no, run, record in part]
        await self._connection.execute(SQL["insert_events"], *zip(*rows, strict=True))
        found = moved_contents((record for _, _, record in part), keys)
        contents = [(key.id, commit, self._cipher.seal(key, content)) for key, commit, content in found]
        if contents:
            await self._connection.execute(SQL["insert_contents"], self._tenant, *zip(*contents, strict=True))

    async def _use_keys(self) -> None:
        if not self._moved.used:
            return
        columns = tuple(zip(*((used.key, used.digest, used.run) for used in self._moved.used), strict=True))
        await self._connection.execute(SQL["insert_used"], self._tenant, *columns)
        other = await self._connection.fetchval(SQL["foreign_used"], self._tenant, *columns)
        if other is not None:
            raise Conflict(f"the idempotency key {other!r} is used here for another run")

    async def _put_session(self) -> None:
        row = self._moved.row
        if row is not None:
            head: tuple[Any, ...] = (row.head.run, row.head.seq, row.head.hash) if row.head else ("", 0, "")
            values = (row.tenant, row.session, row.agent, row.user, *head)
            times = (row.created_ms, row.updated_ms)
            await self._connection.execute(SQL["put_session"], *values, row.live, row.runs, *times)
