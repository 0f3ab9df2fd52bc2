"""The schedules of the in-memory store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import msgspec

from stanchion.journal.schedule import Schedule

if TYPE_CHECKING:
    from stanchion.testing.memory import MemoryStore


class MemorySchedules:
    """`Schedules` over the tables of a `MemoryStore`."""

    def __init__(self, store: MemoryStore, clock: Callable[[], int]) -> None:
        self._store = store
        self._clock = clock

    async def put(self, schedule: Schedule, *, replace: bool = False) -> bool:
        place = (schedule.tenant, schedule.name)

        def change(rows: dict[tuple[str, str], Schedule], now_ms: int) -> bool:
            old = rows.get(place)
            if old is not None and not replace:
                return False
            made_ms = old.created_ms if old else now_ms
            last = (old.last_ms, old.last_run) if old else (0, "")
            rows[place] = msgspec.structs.replace(
                schedule, created_ms=made_ms, last_ms=last[0], last_run=last[1], note=""
            )
            return True

        return await self._store.write(lambda tables, now_ms: change(tables.schedules, now_ms))

    async def get(self, tenant: str, name: str) -> Schedule | None:
        return await self._store.read_rows(lambda tables: tables.schedules.get((tenant, name)))

    async def listed(self, tenant: str) -> Sequence[Schedule]:
        return await self._store.read_rows(
            lambda tables: [row for place, row in sorted(tables.schedules.items()) if place[0] == tenant]
        )

    async def due(self, *, limit: int, after: tuple[str, str] = ("", "")) -> Sequence[Schedule]:
        def find(rows: dict[tuple[str, str], Schedule]) -> Sequence[Schedule]:
            now_ms = self._clock()
            due = (row for place, row in sorted(rows.items()) if place > after and row.enabled)
            return [row for row in due if row.next_ms <= now_ms][:limit]

        return await self._store.read_rows(lambda tables: find(tables.schedules))

    async def next_due_ms(self) -> int:
        return await self._store.read_rows(
            lambda tables: min((row.next_ms for row in tables.schedules.values() if row.enabled), default=0)
        )

    async def fired(self, tenant: str, name: str, *, due_ms: int, next_ms: int, run: str = "", note: str = "") -> bool:
        def change(rows: dict[tuple[str, str], Schedule]) -> bool:
            row = rows.get((tenant, name))
            if row is None or row.next_ms != due_ms:
                return False
            last_run = run or row.last_run
            rows[tenant, name] = msgspec.structs.replace(
                row, next_ms=next_ms, last_ms=due_ms, last_run=last_run, note=note
            )
            return True

        return await self._store.write(lambda tables, _: change(tables.schedules))

    async def enable(self, tenant: str, name: str, *, enabled: bool, next_ms: int) -> bool:
        def change(rows: dict[tuple[str, str], Schedule]) -> bool:
            row = rows.get((tenant, name))
            if row is not None:
                rows[tenant, name] = msgspec.structs.replace(row, enabled=enabled, next_ms=next_ms)
            return row is not None

        return await self._store.write(lambda tables, _: change(tables.schedules))

    async def remove(self, tenant: str, name: str) -> bool:
        return await self._store.write(lambda tables, _: tables.schedules.pop((tenant, name), None) is not None)
