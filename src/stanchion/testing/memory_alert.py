"""The alerts of the in-memory store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from stanchion.journal.alert import Alert
from stanchion.journal.ledger import name_of
from stanchion.journal.outbox import Announcement
from stanchion.journal.store import Ledger

if TYPE_CHECKING:
    from stanchion.testing.memory import MemoryStore
    from stanchion.testing.memory_tables import Tables

Place = tuple[str, str, str, int]


class MemoryAlerts:
    """`Alerts` over the tables of a `MemoryStore`."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    async def used(self, windows: Sequence[str]) -> Sequence[Ledger]:
        def find(tables: Tables) -> Sequence[Ledger]:
            owners = sorted({owner for owner, _ in tables.books.books})
            return [
                row
                for owner in owners
                for row in tables.books.listed(owner)
                if row.limit > 0 and (row.settled >= row.limit - row.limit // 2 or row.closed)
                if row.ledger in (name := name_of(row.ledger), *(f"{name}:{window}" for window in windows))
            ]

        return await self._store.read_rows(find)

    async def tell(self, alert: Alert, said: Announcement) -> bool:
        place = (alert.tenant, alert.subject, alert.line, alert.bound)

        def change(tables: Tables, now_ms: int) -> bool:
            if place in tables.alerts:
                return False
            tables.alerts[place] = msgspec.structs.replace(alert, told_ms=now_ms)
            tables.outbox.alerted(alert, said, now_ms)
            return True

        told = await self._store.write(change)
        if told:
            self._store.outbox.ring()
        return told

    async def told(self, tenant: str) -> Sequence[Alert]:
        def find(tables: Tables) -> Sequence[Alert]:
            rows = [row for row in tables.alerts.values() if row.tenant == tenant]
            return sorted(rows, key=lambda row: (-row.told_ms, row.subject, row.line))[:1_000]

        return await self._store.read_rows(find)
