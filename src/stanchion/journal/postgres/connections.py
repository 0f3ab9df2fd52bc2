"""Users' connections in the scale-out store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stanchion.core.credential import Sealed
from stanchion.journal.connection import Connection
from stanchion.journal.postgres.read import Reader
from stanchion.journal.queries import named

_SQL = named("postgres/connection.sql")


class PostgresConnections:
    """`Connections` in a PostgreSQL database."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    async def get(self, tenant: str, user: str, name: str) -> Sealed | None:
        rows = await self._reader.use(lambda connection: connection.fetch(_SQL["get"], tenant, user, name))
        return Sealed(*rows[0]) if rows else None

    async def put(self, tenant: str, user: str, name: str, body: bytes, *, over: int) -> int:
        if over:
            return await self._once("replace", tenant, user, name, body, over)
        return await self._once("insert", tenant, user, name, body)

    async def claim(self, tenant: str, user: str, name: str, *, version: int, for_ms: int) -> bool:
        return bool(await self._once("claim", tenant, user, name, version, for_ms))

    async def remove(self, tenant: str, user: str, name: str, *, version: int = 0) -> bool:
        return bool(await self._once("remove", tenant, user, name, version))

    async def listed(self, tenant: str, user: str = "") -> Sequence[Connection]:
        rows = await self._reader.use(lambda connection: connection.fetch(_SQL["listed"], tenant, user))
        return [Connection(*row) for row in rows]

    async def _once(self, name: str, *values: Any) -> int:
        """Run what would answer differently if it were done twice."""
        rows = await self._reader.use(lambda connection: connection.fetch(_SQL[name], *values), tries=1)
        return rows[0][0] if rows else 0
