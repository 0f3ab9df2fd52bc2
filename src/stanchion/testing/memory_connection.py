"""Users' connections of the in-memory store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stanchion.core.credential import Sealed
from stanchion.journal.connection import Connection

if TYPE_CHECKING:
    from stanchion.testing.memory import MemoryStore

Place = tuple[str, str, str]


@dataclass(slots=True)
class ConnectionRow:
    """A connection, as it lies there."""

    body: bytes
    version: int
    created_ms: int
    updated_ms: int
    busy_until_ms: int = 0


class MemoryConnections:
    """`Connections` over the tables of a `MemoryStore`."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    async def get(self, tenant: str, user: str, name: str) -> Sealed | None:
        def find(rows: dict[Place, ConnectionRow]) -> Sealed | None:
            row = rows.get((tenant, user, name))
            return Sealed(row.body, row.version, row.busy_until_ms) if row else None

        return await self._store.read_rows(lambda tables: find(tables.connections))

    async def put(self, tenant: str, user: str, name: str, body: bytes, *, over: int) -> int:
        def change(rows: dict[Place, ConnectionRow], now_ms: int) -> int:
            old = rows.get((tenant, user, name))
            if (old.version if old else 0) != over:
                return 0
            made = ConnectionRow(body, max(over + 1, now_ms), old.created_ms if old else now_ms, now_ms)
            rows[tenant, user, name] = made
            return made.version

        return await self._store.write(lambda tables, now_ms: change(tables.connections, now_ms))

    async def claim(self, tenant: str, user: str, name: str, *, version: int, for_ms: int) -> bool:
        def change(rows: dict[Place, ConnectionRow], now_ms: int) -> bool:
            row = rows.get((tenant, user, name))
            if row is None or row.version != version or (for_ms and row.busy_until_ms > now_ms):
                return False
            row.busy_until_ms = now_ms + for_ms
            return True

        return await self._store.write(lambda tables, now_ms: change(tables.connections, now_ms))

    async def remove(self, tenant: str, user: str, name: str, *, version: int = 0) -> bool:
        def change(rows: dict[Place, ConnectionRow]) -> bool:
            row = rows.get((tenant, user, name))
            if row is None or version not in (0, row.version):
                return False
            del rows[tenant, user, name]
            return True

        return await self._store.write(lambda tables, _: change(tables.connections))

    async def listed(self, tenant: str, user: str = "") -> Sequence[Connection]:
        def find(rows: dict[Place, ConnectionRow]) -> Sequence[Connection]:
            return [
                Connection(place[1], place[2], row.created_ms, row.updated_ms)
                for place, row in sorted(rows.items())
                if place[0] == tenant and user in ("", place[1])
            ]

        return await self._store.read_rows(lambda tables: find(tables.connections))
