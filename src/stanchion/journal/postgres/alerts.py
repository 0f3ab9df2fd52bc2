"""Alerts in the scale-out store."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from stanchion.journal.alert import Alert
from stanchion.journal.outbox import Announcement
from stanchion.journal.postgres.address import Connection
from stanchion.journal.postgres.announce import alert as deliver
from stanchion.journal.postgres.read import Reader
from stanchion.journal.queries import named
from stanchion.journal.store import Ledger

_SQL = named("postgres/alert.sql")


class PostgresAlerts:
    """`Alerts` in a PostgreSQL database. `ring` says that something may be delivered."""

    def __init__(self, reader: Reader, ring: Callable[[], None]) -> None:
        self._reader = reader
        self._ring = ring

    async def used(self, windows: Sequence[str]) -> Sequence[Ledger]:
        rows = await self._reader.use(lambda connection: connection.fetch(_SQL["used"], list(windows)))
        return [Ledger(*row) for row in rows]

    async def tell(self, alert: Alert, said: Announcement) -> bool:
        async def change(connection: Connection) -> bool:
            async with connection.transaction():
                place = (alert.tenant, alert.subject, alert.line, alert.bound)
                rows = await connection.fetch(_SQL["note"], *place)
                if rows:
                    await deliver(connection, alert, said, rows[0][0])
                return bool(rows)

        told = await self._reader.use(change, tries=1)
        if told:
            self._ring()
        return told

    async def told(self, tenant: str) -> Sequence[Alert]:
        rows = await self._reader.use(lambda connection: connection.fetch(_SQL["told"], tenant))
        return [Alert(*row) for row in rows]
