"""Schedules in the scale-out store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stanchion.journal.postgres.read import Reader
from stanchion.journal.queries import named
from stanchion.journal.schedule import Schedule

_SQL = named("postgres/schedule.sql")


class PostgresSchedules:
    """`Schedules` in a PostgreSQL database."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    async def put(self, schedule: Schedule, *, replace: bool = False) -> bool:
        s = schedule
        names = (s.tenant, s.name, s.agent, s.input, s.cron, s.tz, s.session, s.user)
        rest = (s.if_busy, s.if_missed, s.priority, s.limits, s.enabled, s.next_ms)
        if replace:
            return bool(await self._rows("replace", *names, *rest))
        return bool(await self._once("put", *names, *rest))

    async def get(self, tenant: str, name: str) -> Schedule | None:
        rows = await self._rows("get", tenant, name)
        return _schedule(rows[0]) if rows else None

    async def listed(self, tenant: str) -> Sequence[Schedule]:
        return [_schedule(row) for row in await self._rows("listed", tenant)]

    async def due(self, *, limit: int, after: tuple[str, str] = ("", "")) -> Sequence[Schedule]:
        return [_schedule(row) for row in await self._rows("due", *after, limit)]

    async def next_due_ms(self) -> int:
        return (await self._rows("next_due"))[0][0]

    async def fired(self, tenant: str, name: str, *, due_ms: int, next_ms: int, run: str = "", note: str = "") -> bool:
        return bool(await self._once("fired", tenant, name, due_ms, next_ms, run, note))

    async def enable(self, tenant: str, name: str, *, enabled: bool, next_ms: int) -> bool:
        return bool(await self._rows("enable", tenant, name, enabled, next_ms))

    async def remove(self, tenant: str, name: str) -> bool:
        return bool(await self._once("remove", tenant, name))

    async def _rows(self, name: str, *values: Any) -> list[Any]:
        return await self._reader.use(lambda connection: connection.fetch(_SQL[name], *values))

    async def _once(self, name: str, *values: Any) -> list[Any]:
        """Run what would answer differently if it were done twice."""
        return await self._reader.use(lambda connection: connection.fetch(_SQL[name], *values), tries=1)


def _schedule(row: Any) -> Schedule:
    return Schedule(**dict(zip(Schedule.__struct_fields__, row, strict=True)))
