"""The tray in the file: changes go through the writer, looks through a reading connection. Items come with their appends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from stanchion.journal.queries import named
from stanchion.journal.sqlite.connection import Value
from stanchion.journal.sqlite.read import Reader
from stanchion.journal.sqlite.unit import UnitOfWork
from stanchion.journal.sqlite.writer import Writer
from stanchion.journal.tray import Batch, TrayItem

_SQL = named("sqlite/tray.sql")


class SqliteTray:
    """The `Tray` of a file."""

    def __init__(self, writer: Writer, reader: Reader, clock: Callable[[], int]) -> None:
        self._writer = writer
        self._reader = reader
        self._clock = clock

    async def waiting(self) -> dict[str, tuple[int, int]]:
        return {row[0]: (row[1], row[2]) for row in await self._read("waiting", self._clock())}

    async def take(self, lane: str, name: str, *, most: int, worker: str, lease_ms: int) -> Sequence[TrayItem]:
        return await self._writer.write(lambda unit: _take(unit, lane, name, most, worker, lease_ms))

    async def handed_in(self, name: str, provider_id: str, *, look_in_ms: int) -> None:
        await self._writer.write(lambda unit: _run(unit, "handed_in", name, provider_id, unit.now_ms + look_in_ms))

    async def put_back(self, name: str) -> None:
        await self._writer.write(lambda unit: (_run(unit, "free_items", name), _run(unit, "drop_batch", name)))

    async def due(self, *, worker: str, lease_ms: int, limit: int = 20) -> Sequence[Batch]:
        rows = await self._writer.write(lambda unit: _run(unit, "due", worker, lease_ms, limit, unit.now_ms))
        return [Batch(*row) for row in rows]

    async def items(self, name: str) -> Sequence[TrayItem]:
        return [TrayItem(*row) for row in await self._read("items", name)]

    async def look_again(self, name: str, *, in_ms: int) -> None:
        await self._writer.write(lambda unit: _run(unit, "look_again", name, unit.now_ms + in_ms))

    async def drop(self, name: str) -> None:
        await self._writer.write(lambda unit: (_run(unit, "drop_items", name), _run(unit, "drop_batch", name)))

    async def batches(self) -> Sequence[Batch]:
        return [Batch(*row) for row in await self._read("batches", self._clock())]

    async def _read(self, name: str, *values: Value) -> list[Any]:
        return await self._reader.use(lambda connection: connection.execute(_SQL[name], values).fetchall())


def _run(unit: UnitOfWork, name: str, *values: Value) -> list[Any]:
    return unit.connection.execute(_SQL[name], values).fetchall()


def _take(unit: UnitOfWork, lane: str, name: str, most: int, worker: str, lease_ms: int) -> list[TrayItem]:
    _run(unit, "take", lane, name, most)
    items = [TrayItem(*row) for row in _run(unit, "items", name)]
    if items:
        _run(unit, "insert_batch", name, lane, len(items), unit.now_ms, unit.now_ms + lease_ms, worker)
    return items
