"""Schedules in the embedded store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from stanchion.journal.queries import named
from stanchion.journal.schedule import Schedule
from stanchion.journal.sqlite.connection import Value
from stanchion.journal.sqlite.read import Reader
from stanchion.journal.sqlite.unit import UnitOfWork
from stanchion.journal.sqlite.writer import Writer

_SQL = named("sqlite/schedule.sql")


class SqliteSchedules:
    """`Schedules` in one SQLite file."""

    def __init__(self, writer: Writer, reader: Reader, clock: Callable[[], int]) -> None:
        self._writer = writer
        self._reader = reader
        self._clock = clock

    async def put(self, schedule: Schedule, *, replace: bool = False) -> bool:
        s = schedule
        sql = _SQL["replace" if replace else "put"]

        def change(unit: UnitOfWork) -> bool:
            names: tuple[Value, ...] = (s.tenant, s.name, s.agent, s.input, s.cron, s.tz, s.session, s.user)
            rest: tuple[Value, ...] = (s.if_busy, s.if_missed, s.priority, s.limits, int(s.enabled), s.next_ms)
            unit.connection.execute(sql, (*names, *rest, unit.now_ms))
            return unit.connection.changes() > 0

        return await self._writer.write(change, 512 + len(schedule.input))

    async def get(self, tenant: str, name: str) -> Schedule | None:
        rows = await self._rows("get", tenant, name)
        return _schedule(rows[0]) if rows else None

    async def listed(self, tenant: str) -> Sequence[Schedule]:
        return [_schedule(row) for row in await self._rows("listed", tenant)]

    async def due(self, *, limit: int, after: tuple[str, str] = ("", "")) -> Sequence[Schedule]:
        return [_schedule(row) for row in await self._rows("due", self._clock(), *after, limit)]

    async def next_due_ms(self) -> int:
        return (await self._rows("next_due"))[0][0]

    async def fired(self, tenant: str, name: str, *, due_ms: int, next_ms: int, run: str = "", note: str = "") -> bool:
        return await self._change("fired", next_ms, due_ms, run, note, tenant, name, due_ms)

    async def enable(self, tenant: str, name: str, *, enabled: bool, next_ms: int) -> bool:
        return await self._change("enable", int(enabled), next_ms, tenant, name)

    async def remove(self, tenant: str, name: str) -> bool:
        return await self._change("remove", tenant, name)

    async def _rows(self, name: str, *values: Value) -> list[Any]:
        return await self._reader.use(lambda connection: connection.execute(_SQL[name], values).fetchall())

    async def _change(self, name: str, *values: Value) -> bool:
        def change(unit: UnitOfWork) -> bool:
            unit.connection.execute(_SQL[name], values)
            return unit.connection.changes() > 0

        return await self._writer.write(change)


def _schedule(row: Any) -> Schedule:
    values: dict[str, Any] = dict(zip(Schedule.__struct_fields__, row, strict=True))
    values["enabled"] = bool(values["enabled"])
    return Schedule(**values)
