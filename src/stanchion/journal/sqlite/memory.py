"""What is remembered of users in the embedded store."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Sequence
from typing import Any

from stanchion.core.errors import Conflict
from stanchion.core.fact import Fact, Owner
from stanchion.journal.memory import (
    DANGLING_MS,
    MOST,
    Change,
    Due,
    MovedMemory,
    Remembered,
    Stored,
    TakenMemory,
    about,
    intake,
    pack,
    planned,
    still_here,
    subject_of,
    unpacked,
)
from stanchion.journal.queries import named
from stanchion.journal.record import Cipher
from stanchion.journal.sqlite.connection import Connection, Value
from stanchion.journal.sqlite.read import Reader
from stanchion.journal.sqlite.unit import UnitOfWork
from stanchion.journal.sqlite.writer import Writer
from stanchion.journal.store import Key

_SQL = named("sqlite/memory.sql")
_MOVING = named("sqlite/moving.sql")


class SqliteMemories:
    """`Memories` in one SQLite file."""

    def __init__(
        self, writer: Writer, reader: Reader, cipher: Cipher, clock: Callable[[], int], *, sealed: bool
    ) -> None:
        self._writer = writer
        self._reader = reader
        self._cipher = cipher
        self._clock = clock
        self._sealed = sealed

    async def apply(self, change: Change) -> int | None:
        weight = 512 + sum(256 + len(op.value) + len(op.vector) for op in change.operations)
        return await self._writer.write(lambda unit: self._apply(unit, change), weight)

    async def facts(
        self,
        owner: Owner,
        *,
        recorded_ms: int = 0,
        history: bool = False,
        kinds: Collection[str] = (),
        limit: int = MOST,
    ) -> Sequence[Fact]:
        asked = (owner.space, recorded_ms or _ALWAYS, int(history), f" {' '.join(kinds)} " if kinds else "", limit)

        def read(connection: Connection) -> list[Fact]:
            key = _key_of(connection, owner.tenant, owner.user)
            rows = connection.execute(_SQL["listed"], (owner.tenant, owner.user, *asked))
            facts = unpacked((Stored(*row) for row in rows), key, self._cipher)
            known = _key_of(connection, owner.tenant, owner.user)
            return facts if known == key else []  # (it may have been destroyed meanwhile)

        return await self._reader.use(read)  # (thousands are decoded in the reading thread)

    async def users(self, tenant: str, *, after: str = "", limit: int = 50) -> Sequence[Remembered]:
        return [Remembered(*row) for row in await self._rows("users", tenant, after, limit)]

    async def forget(self, tenant: str, user: str, *, ids: Collection[str] = ()) -> int:
        return await self._writer.write(lambda unit: _forget(unit, tenant, user, tuple(ids)))

    async def expect(self, due: Due) -> None:
        await self._writer.write(
            lambda unit: _run(unit, "expect", due.tenant, due.run, due.agent, due.user, unit.now_ms)
        )

    async def due(self, agents: Collection[str], *, limit: int = 20) -> Sequence[Due]:
        now_ms = self._clock()
        if await self._rows("dangling", now_ms - DANGLING_MS):
            await self._writer.write(lambda unit: _run(unit, "drop_dangling", unit.now_ms - DANGLING_MS))
        rows = await self._rows("due", now_ms)
        return [Due(*row) for row in rows if row[2] in agents][:limit]

    async def later(self, tenant: str, run: str, *, in_ms: int) -> None:
        await self._writer.write(lambda unit: _run(unit, "later", tenant, run, unit.now_ms + in_ms))

    async def drop(self, tenant: str, run: str) -> None:
        await self._writer.write(lambda unit: _run(unit, "drop", tenant, run))

    async def dues(self, tenant: str) -> Sequence[Due]:
        return [Due(*row) for row in await self._rows("dues", tenant)]

    async def everyone(self, tenant: str, *, after: str = "", limit: int = 1_000) -> Sequence[str]:
        return [row[0] for row in await self._rows("everyone", tenant, after, limit)]

    async def lift(self, tenant: str, user: str) -> MovedMemory | None:
        def read(connection: Connection) -> MovedMemory | None:
            key = _key_of(connection, tenant, user)
            facts = self._versions(connection, tenant, user, key)
            if key is None or not facts or _key_of(connection, tenant, user) != key:
                return None
            return MovedMemory(tenant, user, key.id, key.salt, tuple(facts))

        return await self._reader.use(read)

    async def take_in(self, moved: MovedMemory) -> TakenMemory:
        weight = 512 + sum(256 + len(fact.value) + len(fact.vector) for fact in moved.facts)
        return await self._writer.write(lambda unit: self._take_in(unit, moved), weight)

    async def forgotten(self, tenant: str, *, after: str = "", limit: int = 1_000) -> Sequence[str]:
        return [row[0] for row in await self._rows("forgotten", tenant, after, limit)]

    async def take_forgotten(self, tenant: str, ids: Sequence[str]) -> None:
        def change(unit: UnitOfWork) -> None:
            for each in ids:
                for (user,) in _run(unit, "user_of", tenant, each):
                    raise still_here(user, each)
            for each in ids:
                _run(unit, "note_forgotten", tenant, each)

        await self._writer.write(change)

    async def _rows(self, name: str, *values: Value) -> list[Any]:
        return await self._reader.use(lambda connection: connection.execute(_SQL[name], values).fetchall())

    def _apply(self, unit: UnitOfWork, change: Change) -> int | None:
        owner, moved = change.owner, 0
        if change.due and not _run(unit, "take_due", owner.tenant, change.due):
            return None
        if _run(unit, "applied", owner.tenant, change.key + "#", change.key + "$"):
            return None
        key = unit.key_for(owner.tenant, subject_of(owner.user), self._sealed)
        for number, op in enumerate(change.operations):
            found = (
                _run(unit, "named", owner.tenant, owner.user, op.target)
                if op.target
                else _run(
                    unit, "known", owner.tenant, owner.user, owner.space, about(key, op.kind, op.subject, op.attribute)
                )
            )
            revision = planned(change, number, (Stored(*row) for row in found), key, self._cipher)
            for fact in revision.added:
                self._insert(unit, fact, owner, key)
            ended_ms = max((change.at_ms, *(fact.recorded_ms for fact in revision.added)))
            for ended in revision.ended:
                _run(unit, "end", owner.tenant, ended.id, ended_ms, ended.why, ended.replaced_by)
            moved += len(revision.added) + len(revision.ended)
        return moved

    def _take_in(self, unit: UnitOfWork, moved: MovedMemory) -> TakenMemory:
        tenant, user = moved.tenant, moved.user
        unit.settle()
        if unit.connection.execute(_MOVING["destroyed"], (tenant, moved.key)).fetchone() is not None:
            return "forgotten"
        key = _key_of(unit.connection, tenant, user)
        gone = {fact.id for fact in moved.facts if _run(unit, "is_forgotten", tenant, fact.id)}
        planned = intake(moved, self._versions(unit.connection, tenant, user, key), gone)
        if planned.taken in ("added", "grown"):
            self._add_key(unit, moved)
            key = unit.key_for(tenant, subject_of(user), self._sealed)
            for fact in planned.add:
                self._insert(unit, fact, Owner(tenant, user, fact.space), key)
            for fact in planned.end:
                _run(unit, "end", tenant, fact.id, fact.ended_ms, fact.why, fact.replaced_by)
        return planned.taken

    def _add_key(self, unit: UnitOfWork, moved: MovedMemory) -> None:
        """Keep the key that it came with, beside the user's own if there is one: who erases the user destroys both."""
        row: Any = unit.connection.execute(_MOVING["known_key"], (moved.tenant, moved.key)).fetchone()
        if row is not None and row[1] != moved.salt:
            raise Conflict(f"the content key {moved.key} of {moved.user!r} is another here; import into another store")
        if row is None:
            secret = secrets.token_bytes(32) if self._sealed else b""
            values = (moved.tenant, subject_of(moved.user), moved.key, moved.salt, secret)
            unit.connection.execute(_MOVING["insert_key"], values)

    def _versions(self, connection: Connection, tenant: str, user: str, key: Key | None) -> list[Fact]:
        rows: Any = connection.execute(_SQL["versions"], (tenant, user)).fetchall()
        return unpacked((Stored(*row) for row in rows), key, self._cipher)

    def _insert(self, unit: UnitOfWork, fact: Fact, owner: Owner, key: Key) -> None:
        row = pack(fact, owner, key, self._cipher)
        _run(
            unit, "insert", owner.tenant, owner.user, row.space, row.id, row.kind, row.about, row.recorded_ms,
            fact.ended_ms, fact.why, fact.replaced_by, row.key, row.by,
        )  # fmt: skip
        _run(unit, "insert_body", unit.connection.last_insert_rowid(), row.body)


_ALWAYS = 1 << 62
"""Later than anything: what is believed now."""


def _run(unit: UnitOfWork, name: str, *values: Value) -> list[Any]:
    return unit.connection.execute(_SQL[name], values).fetchall()


def _key_of(connection: Connection, tenant: str, user: str) -> Key | None:
    row: Any = connection.execute(_SQL["key_of"], (tenant, subject_of(user))).fetchone()
    return Key(*row) if row else None


def _forget(unit: UnitOfWork, tenant: str, user: str, ids: Sequence[str]) -> int:
    """Overwrite bodies where they lie, and delete what names them."""
    if ids:
        nos = {row[0] for each in ids for row in _run(unit, "nos_about", tenant, user, each)}
    else:
        nos = {row[0] for row in _run(unit, "nos", tenant, user)}
        _run(unit, "drop_dues", tenant, user)
    for no in nos:
        _run(unit, "note_deleted", no)
        _run(unit, "overwrite", no)
        _run(unit, "delete", no)
    unit.truncate = unit.truncate or bool(nos)
    return len(nos)
