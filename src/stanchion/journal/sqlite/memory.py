"""What is remembered of users in the embedded store."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

from stanchion.core.fact import Fact, Owner
from stanchion.journal.memory import (
    DANGLING_MS,
    MOST,
    Change,
    Due,
    Remembered,
    Stored,
    about,
    pack,
    planned,
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

        def key_in(connection: Connection) -> Key | None:
            row: Any = connection.execute(_SQL["key_of"], (owner.tenant, subject_of(owner.user))).fetchone()
            return Key(*row) if row else None

        def read(connection: Connection) -> list[Fact]:
            key = key_in(connection)
            rows = connection.execute(_SQL["listed"], (owner.tenant, owner.user, *asked))
            facts = unpacked((Stored(*row) for row in rows), key, self._cipher)
            return facts if key_in(connection) == key else []  # (it may have been destroyed meanwhile)

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

    def _insert(self, unit: UnitOfWork, fact: Fact, owner: Owner, key: Key) -> None:
        row = pack(fact, owner, key, self._cipher)
        _run(
            unit, "insert", owner.tenant, owner.user, row.space, row.id, row.kind, row.about, row.recorded_ms, 0, "", "",
            row.key, row.by,
        )  # fmt: skip
        _run(unit, "insert_body", unit.connection.last_insert_rowid(), row.body)


_ALWAYS = 1 << 62
"""Later than anything: what is believed now."""


def _run(unit: UnitOfWork, name: str, *values: Value) -> list[Any]:
    return unit.connection.execute(_SQL[name], values).fetchall()


def _forget(unit: UnitOfWork, tenant: str, user: str, ids: Sequence[str]) -> int:
    """Overwrite bodies where they lie, and delete what names them."""
    if ids:
        nos = {row[0] for each in ids for row in _run(unit, "nos_about", tenant, user, each)}
    else:
        nos = {row[0] for row in _run(unit, "nos", tenant, user)}
        _run(unit, "drop_dues", tenant, user)
    for no in nos:
        _run(unit, "overwrite", no)
        _run(unit, "delete", no)
    unit.truncate = unit.truncate or bool(nos)
    return len(nos)
