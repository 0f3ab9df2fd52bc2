"""Users' connections in the embedded store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stanchion.core.credential import Sealed
from stanchion.journal.connection import Connection
from stanchion.journal.queries import named
from stanchion.journal.sqlite.connection import Value
from stanchion.journal.sqlite.read import Reader
from stanchion.journal.sqlite.unit import UnitOfWork
from stanchion.journal.sqlite.writer import Writer

_SQL = named("sqlite/connection.sql")


class SqliteConnections:
    """`Connections` in one SQLite file."""

    def __init__(self, writer: Writer, reader: Reader) -> None:
        self._writer = writer
        self._reader = reader

    async def get(self, tenant: str, user: str, name: str) -> Sealed | None:
        rows = await self._read("get", tenant, user, name)
        return Sealed(*rows[0]) if rows else None

    async def put(self, tenant: str, user: str, name: str, body: bytes, *, over: int) -> int:
        if over:
            return await self._write("replace", tenant, user, name, body, over)
        return await self._write("insert", tenant, user, name, body)

    async def claim(self, tenant: str, user: str, name: str, *, version: int, for_ms: int) -> bool:
        return bool(await self._write("claim", tenant, user, name, version, for_ms))

    async def remove(self, tenant: str, user: str, name: str, *, version: int = 0) -> bool:
        return bool(await self._write("remove", tenant, user, name, version))

    async def listed(self, tenant: str, user: str = "") -> Sequence[Connection]:
        return [Connection(*row) for row in await self._read("listed", tenant, user)]

    async def _read(self, name: str, *values: Value) -> list[Any]:
        return await self._reader.use(lambda connection: connection.execute(_SQL[name], values).fetchall())

    async def _write(self, name: str, *values: Value) -> int:
        def change(unit: UnitOfWork) -> int:
            rows = unit.connection.execute(_SQL[name], (unit.now_ms, *values)).fetchall()
            return rows[0][0] if rows else 0

        return await self._writer.write(change)
