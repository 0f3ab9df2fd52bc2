"""Alerts in the embedded store."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from stanchion.journal.alert import Alert
from stanchion.journal.outbox import Announcement
from stanchion.journal.queries import named
from stanchion.journal.sqlite.announce import alert as deliver
from stanchion.journal.sqlite.read import Reader
from stanchion.journal.sqlite.unit import UnitOfWork
from stanchion.journal.sqlite.writer import Writer
from stanchion.journal.store import Ledger

_SQL = named("sqlite/alert.sql")


class SqliteAlerts:
    """`Alerts` in one SQLite file. `ring` says that something may be delivered."""

    def __init__(self, writer: Writer, reader: Reader, ring: Callable[[], None]) -> None:
        self._writer = writer
        self._reader = reader
        self._ring = ring

    async def used(self, windows: Sequence[str]) -> Sequence[Ledger]:
        given = (msgspec.json.encode(list(windows)).decode(),)
        rows = await self._reader.use(lambda connection: connection.execute(_SQL["used"], given).fetchall())
        return [
            Ledger(tenant, ledger, limit, settled, reserved, bool(closed))
            for tenant, ledger, limit, settled, reserved, closed in rows
        ]  # fmt: skip

    async def tell(self, alert: Alert, said: Announcement) -> bool:
        def change(unit: UnitOfWork) -> bool:
            a = alert
            unit.connection.execute(_SQL["note"], (a.tenant, a.subject, a.line, a.bound, unit.now_ms))
            if not unit.connection.changes():
                return False
            deliver(unit.connection, alert, said, unit.now_ms)
            return True

        told = await self._writer.write(change)
        if told:
            self._ring()
        return told

    async def told(self, tenant: str) -> Sequence[Alert]:
        rows = await self._reader.use(lambda connection: connection.execute(_SQL["told"], (tenant,)).fetchall())
        return [Alert(*row) for row in rows]
