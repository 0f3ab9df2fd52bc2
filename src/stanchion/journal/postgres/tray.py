"""The tray in the database: each call is one statement. Items come with their appends (`Group`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stanchion.journal.postgres.read import Reader
from stanchion.journal.queries import named
from stanchion.journal.tray import Batch, TrayItem

SQL = named("postgres/tray.sql")


class PostgresTray:
    """The `Tray` of a database."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    async def waiting(self) -> dict[str, tuple[int, int]]:
        return {row[0]: (row[1], row[2]) for row in await self._rows("waiting")}

    async def take(self, lane: str, name: str, *, most: int, worker: str, lease_ms: int) -> Sequence[TrayItem]:
        # Tried once: after a lost connection the batch may be there, and comes back as one whose holder is gone.
        return [TrayItem(*row) for row in await self._rows("take", lane, name, most, worker, lease_ms, tries=1)]

    async def handed_in(self, name: str, provider_id: str, *, look_in_ms: int) -> None:
        await self._rows("handed_in", name, provider_id, look_in_ms)

    async def put_back(self, name: str) -> None:
        await self._rows("put_back", name)

    async def due(self, *, worker: str, lease_ms: int, limit: int = 20) -> Sequence[Batch]:
        return [Batch(*row) for row in await self._rows("due", worker, lease_ms, limit, tries=1)]

    async def items(self, name: str) -> Sequence[TrayItem]:
        return [TrayItem(*row) for row in await self._rows("items", name)]

    async def look_again(self, name: str, *, in_ms: int) -> None:
        await self._rows("look_again", name, in_ms)

    async def drop(self, name: str) -> None:
        await self._rows("drop", name)

    async def batches(self) -> Sequence[Batch]:
        return [Batch(*row) for row in await self._rows("batches")]

    async def _rows(self, name: str, *values: Any, tries: int = 2) -> list[Any]:
        return await self._reader.use(lambda connection: connection.fetch(SQL[name], *values), tries=tries)
