"""What is remembered of users in the scale-out store: a change is one transaction, one at a time for each user."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Collection, Sequence
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
    operation_key,
    pack,
    planned,
    still_here,
    subject_of,
    unpacked,
)
from stanchion.journal.postgres.address import Connection
from stanchion.journal.postgres.read import DECODED_HERE, Reader
from stanchion.journal.postgres.schema import lock_number
from stanchion.journal.queries import named
from stanchion.journal.record import Cipher
from stanchion.journal.store import Key

_SQL = named("postgres/memory.sql")
_MOVING = named("postgres/moving.sql")
_ALWAYS = 1 << 62
"""Later than anything: what is believed now."""


class PostgresMemories:
    """`Memories` in a PostgreSQL database."""

    def __init__(self, reader: Reader, cipher: Cipher, *, sealed: bool) -> None:
        self._reader = reader
        self._cipher = cipher
        self._sealed = sealed

    async def apply(self, change: Change) -> int | None:
        async def write(connection: Connection) -> int | None:
            async with connection.transaction():
                return await self._apply(connection, change)

        return await self._reader.use(write)  # (twice does what once does: it has a key)

    async def facts(
        self,
        owner: Owner,
        *,
        recorded_ms: int = 0,
        history: bool = False,
        kinds: Collection[str] = (),
        limit: int = MOST,
    ) -> Sequence[Fact]:
        asked = (owner.space, recorded_ms or _ALWAYS, history, list(kinds), limit)
        found = await self._rows("listed", owner.tenant, owner.user, *asked)
        row = await self._rows("key_of", owner.tenant, subject_of(owner.user))
        key = Key(*row[0]) if row else None
        if len(found) <= DECODED_HERE:
            return _read(found, key, self._cipher)
        return await asyncio.to_thread(_read, found, key, self._cipher)

    async def users(self, tenant: str, *, after: str = "", limit: int = 50) -> Sequence[Remembered]:
        return [Remembered(*row) for row in await self._rows("users", tenant, after, limit)]

    async def forget(self, tenant: str, user: str, *, ids: Collection[str] = ()) -> int:
        async def write(connection: Connection) -> int:
            async with connection.transaction():
                await connection.execute(_SQL["lock"], _lock_of(tenant, user))
                if ids:
                    gone = await connection.fetch(_SQL["forget_about"], tenant, user, list(ids))
                else:
                    gone = await connection.fetch(_SQL["forget"], tenant, user)
                    await connection.execute(_SQL["drop_dues"], tenant, user)
                await connection.execute(_SQL["note_forgotten"], tenant, [row[0] for row in gone])
                return len(gone)

        return await self._reader.use(write)

    async def expect(self, due: Due) -> None:
        await self._rows("expect", due.tenant, due.run, due.agent, due.user)

    async def due(self, agents: Collection[str], *, limit: int = 20) -> Sequence[Due]:
        await self._rows("drop_dangling", DANGLING_MS)
        return [Due(*row) for row in await self._rows("due", list(agents), limit)]

    async def later(self, tenant: str, run: str, *, in_ms: int) -> None:
        await self._rows("later", tenant, run, in_ms)

    async def drop(self, tenant: str, run: str) -> None:
        await self._rows("drop", tenant, run)

    async def dues(self, tenant: str) -> Sequence[Due]:
        return [Due(*row) for row in await self._rows("dues", tenant)]

    async def everyone(self, tenant: str, *, after: str = "", limit: int = 1_000) -> Sequence[str]:
        return [row[0] for row in await self._rows("everyone", tenant, after, limit)]

    async def lift(self, tenant: str, user: str) -> MovedMemory | None:
        async def read(connection: Connection) -> tuple[list[Any], list[Any]]:
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                rows = await connection.fetch(_SQL["versions"], tenant, user)
                return rows, await connection.fetch(_SQL["key_of"], tenant, subject_of(user))

        rows, keys = await self._reader.use(read)
        key = Key(*keys[0]) if keys else None
        facts = await asyncio.to_thread(_read, rows, key, self._cipher)
        return MovedMemory(tenant, user, key.id, key.salt, tuple(facts)) if key and facts else None

    async def take_in(self, moved: MovedMemory) -> TakenMemory:
        async def write(connection: Connection) -> TakenMemory:
            async with connection.transaction():
                return await self._take_in(connection, moved)

        return await self._reader.use(write, tries=1)

    async def forgotten(self, tenant: str, *, after: str = "", limit: int = 1_000) -> Sequence[str]:
        return [row[0] for row in await self._rows("forgotten", tenant, after, limit)]

    async def take_forgotten(self, tenant: str, ids: Sequence[str]) -> None:
        async def write(connection: Connection) -> None:
            async with connection.transaction():
                for row in await connection.fetch(_SQL["among_users"], tenant, list(ids)):
                    raise still_here(*row)
                await connection.execute(_SQL["note_forgotten"], tenant, list(ids))

        await self._reader.use(write, tries=1)

    async def _rows(self, name: str, *values: Any) -> list[Any]:
        return await self._reader.use(lambda connection: connection.fetch(_SQL[name], *values))

    async def _apply(self, connection: Connection, change: Change) -> int | None:
        owner, moved = change.owner, 0
        await connection.execute(_SQL["lock"], _lock_of(owner.tenant, owner.user))
        if change.due and not await connection.fetch(_SQL["take_due"], owner.tenant, change.due):
            return None
        keys = [operation_key(change, number) for number in range(len(change.operations))]
        if await connection.fetch(_SQL["applied"], owner.tenant, keys):
            return None
        key = await self._key(connection, owner)
        for number, op in enumerate(change.operations):
            if op.target:
                found = await connection.fetch(_SQL["named"], owner.tenant, owner.user, op.target)
            else:
                place = about(key, op.kind, op.subject, op.attribute)
                found = await connection.fetch(_SQL["known"], owner.tenant, owner.user, owner.space, place)
            revision = planned(change, number, (Stored(*row) for row in found), key, self._cipher)
            for fact in revision.added:
                await self._insert(connection, fact, owner, key)
            ended_ms = max((change.at_ms, *(fact.recorded_ms for fact in revision.added)))
            for ended in revision.ended:
                await connection.execute(
                    _SQL["end"], owner.tenant, ended.id, ended_ms, ended.why, ended.replaced_by
                )  # fmt: skip
            moved += len(revision.added) + len(revision.ended)
        return moved

    async def _take_in(self, connection: Connection, moved: MovedMemory) -> TakenMemory:
        tenant, user = moved.tenant, moved.user
        await connection.execute(_SQL["lock"], _lock_of(tenant, user))
        await connection.execute(_MOVING["lock_keys"], [lock_number(f"{tenant}/{moved.key}")])
        if await connection.fetch(_MOVING["destroyed"], tenant, [moved.key]):
            return "forgotten"
        keys = await connection.fetch(_SQL["key_of"], tenant, subject_of(user))
        here = _read(
            await connection.fetch(_SQL["versions"], tenant, user), Key(*keys[0]) if keys else None, self._cipher
        )
        ids = [fact.id for fact in moved.facts]
        gone = {row[0] for row in await connection.fetch(_SQL["among_forgotten"], tenant, ids)}
        planned = intake(moved, here, gone)
        if planned.taken in ("added", "grown"):
            await self._add_key(connection, moved)
            key = await self._key(connection, Owner(tenant, user, ""))
            rows = [self._values(fact, Owner(tenant, user, fact.space), key) for fact in planned.add]
            await connection.executemany(_SQL["insert"], rows)
            ends = [(tenant, fact.id, fact.ended_ms, fact.why, fact.replaced_by) for fact in planned.end]
            await connection.executemany(_SQL["end"], ends)
        return planned.taken

    async def _add_key(self, connection: Connection, moved: MovedMemory) -> None:
        """Keep the key that it came with, beside the user's own if there is one: who erases the user destroys both."""
        rows = await connection.fetch(_MOVING["known_keys"], moved.tenant, [moved.key])
        if rows and rows[0][1] != moved.salt:
            raise Conflict(f"the content key {moved.key} of {moved.user!r} is another here; import into another store")
        if not rows:
            made = (moved.key, moved.salt, secrets.token_bytes(32) if self._sealed else b"")
            await connection.execute(_MOVING["insert_key"], moved.tenant, subject_of(moved.user), *made)

    async def _insert(self, connection: Connection, fact: Fact, owner: Owner, key: Key) -> None:
        await connection.execute(_SQL["insert"], *self._values(fact, owner, key))

    def _values(self, fact: Fact, owner: Owner, key: Key) -> tuple[Any, ...]:
        row = pack(fact, owner, key, self._cipher)
        ended = (fact.ended_ms, fact.why, fact.replaced_by)
        what = (row.id, row.kind, row.about, row.recorded_ms)
        return (owner.tenant, owner.user, row.space, *what, *ended, row.key, row.by, row.body)

    async def _key(self, connection: Connection, owner: Owner) -> Key:
        """Find or make the key. Who destroys it takes the user's lock behind this transaction, and deletes its rows."""
        subject = subject_of(owner.user)
        while not (rows := await connection.fetch(_SQL["key_of"], owner.tenant, subject)):
            secret = secrets.token_bytes(32) if self._sealed else b""
            made = (secrets.token_urlsafe(9), secrets.token_bytes(32), secret)
            await connection.execute(_SQL["insert_key"], owner.tenant, subject, *made)
        return Key(*rows[0])


def _lock_of(tenant: str, user: str) -> int:
    return (lock_number("memory") << 32) + lock_number(f"{tenant}/{user}") + (1 << 31)


def _read(rows: Sequence[Any], key: Key | None, cipher: Cipher) -> list[Fact]:
    return unpacked((Stored(*row) for row in rows), key, cipher)
