"""The outbox of the embedded store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from stanchion.journal.outbox import Announcement, Claimed, Delivery, Endpoint, Secrets, Settled
from stanchion.journal.queries import named
from stanchion.journal.sqlite.announce import add_delivery, add_endpoint, endpoint_of
from stanchion.journal.sqlite.connection import Value
from stanchion.journal.sqlite.read import Reader
from stanchion.journal.sqlite.unit import UnitOfWork
from stanchion.journal.sqlite.writer import Writer

_SQL = named("sqlite/outbox.sql")
_DELIVERY = 14
_ENDPOINT = 28
"""Where the columns of a delivery, and of its endpoint, end in a row of both."""


class SqliteOutbox:
    """`Outbox` in one SQLite file."""

    def __init__(self, writer: Writer, reader: Reader, clock: Callable[[], int]) -> None:
        self._writer = writer
        self._reader = reader
        self._clock = clock
        self._heard: list[Callable[[], None]] = []

    def listen(self, heard: Callable[[], None]) -> None:
        self._heard.append(heard)

    def ring(self) -> None:
        """Say that something may be delivered."""
        for heard in self._heard:
            heard()

    async def add(self, endpoint: Endpoint) -> bool:
        return await self._writer.write(lambda unit: add_endpoint(unit.connection, endpoint, unit.now_ms))

    async def endpoint(self, tenant: str, id: str) -> Endpoint | None:
        rows = await self._rows("endpoint", tenant, id)
        return endpoint_of(rows[0]) if rows else None

    async def endpoints(self, tenant: str) -> Sequence[Endpoint]:
        return [endpoint_of(row) for row in await self._rows("endpoints", tenant)]

    async def enable(self, tenant: str, id: str, *, enabled: bool, note: str = "") -> bool:
        def change(unit: UnitOfWork) -> bool:
            found = _changed(unit, "enable", int(enabled), note, tenant, id) > 0
            if found and not enabled:
                _changed(unit, "give_up_endpoint", note, unit.now_ms, tenant, id)
            return found

        return await self._writer.write(change)

    async def remove(self, tenant: str, id: str) -> bool:
        def change(unit: UnitOfWork) -> bool:
            _changed(unit, "remove_deliveries", tenant, id)
            return _changed(unit, "remove_endpoint", tenant, id) > 0

        return await self._writer.write(change)

    async def secrets(self, tenant: str) -> Secrets | None:
        rows = await self._rows("secrets", tenant)
        return Secrets(*rows[0]) if rows else None

    async def set_secrets(self, tenant: str, id: str, secrets: Secrets, *, was: str) -> bool:
        values = (secrets.current, secrets.previous, secrets.previous_until_ms, tenant)

        def change(unit: UnitOfWork) -> bool:
            if id:
                return _changed(unit, "update_endpoint_secrets", *values, id, was) > 0
            return (
                _changed(unit, "update_secrets", *values, was) if was else _changed(unit, "insert_secrets", *values)
            ) > 0

        return await self._writer.write(change)

    async def tell(self, tenant: str, id: str, announcement: Announcement) -> str | None:
        def add(unit: UnitOfWork) -> str | None:
            row = unit.connection.execute(_SQL["endpoint"], (tenant, id)).fetchone()
            return row and add_delivery(unit.connection, endpoint_of(row), "", announcement, unit.now_ms)

        told = await self._writer.write(add)
        self.ring()
        return told

    async def lanes(self, *, limit: int) -> Sequence[str]:
        return [row[0] for row in await self._rows("lanes", self._clock(), limit)]

    async def next_due_ms(self) -> int:
        return (await self._rows("next_due"))[0][0]

    async def claim(self, lane: str, *, lease_ms: int, limit: int) -> Sequence[Claimed]:
        def take(unit: UnitOfWork) -> Sequence[Claimed]:
            found = unit.connection.execute(_SQL["claimable"], (lane, unit.now_ms, limit)).fetchall()
            for row in found:
                _changed(unit, "claim", unit.now_ms + lease_ms, row[0])
            rows = (unit.connection.execute(_SQL["claimed"], row).fetchone() for row in found)
            return [_claimed(row) for row in rows if row is not None]

        return await self._writer.write(take)

    async def settle(self, settled: Sequence[Settled]) -> None:
        await self._writer.write(lambda unit: [_settle(unit, said) for said in settled])

    async def delivery(self, tenant: str, id: str) -> Delivery | None:
        rows = await self._rows("delivery", tenant, id)
        return _delivery(rows[0]) if rows else None

    async def deliveries(
        self, tenant: str, *, endpoint: str = "", run: str = "", standing: str = "", before: str = "", limit: int = 50
    ) -> Sequence[Delivery]:
        name = "deliveries_of_run" if run else "deliveries_of_endpoint" if endpoint else "deliveries"
        rows = await self._rows(name, tenant, before, endpoint, run, standing, limit)
        return [_delivery(row) for row in rows]

    async def redeliver(self, tenant: str, *, id: str = "", endpoint: str = "") -> int:
        name, which = ("redeliver_dead", endpoint) if endpoint else ("redeliver", id)
        done = await self._writer.write(lambda unit: _changed(unit, name, unit.now_ms, tenant, which))
        self.ring()
        return done

    async def prune(self, *, done_before_ms: int, dead_before_ms: int, limit: int = 2_000) -> int:
        return await self._writer.write(lambda unit: _changed(unit, "prune", done_before_ms, dead_before_ms, limit))

    async def _rows(self, name: str, *values: Value) -> list[Any]:
        return await self._reader.use(lambda connection: connection.execute(_SQL[name], values).fetchall())


def _changed(unit: UnitOfWork, name: str, *values: Value) -> int:
    """Run a statement; return how many rows it changed."""
    unit.connection.execute(_SQL[name], values)
    return unit.connection.changes()


def _settle(unit: UnitOfWork, said: Settled) -> None:
    place = (said.tenant, said.id)
    match said.standing:
        case "done":
            _changed(unit, "settle_done", said.status, unit.now_ms, *place)
        case "dead":
            _changed(unit, "settle_dead", said.status, said.note, unit.now_ms, *place, said.attempt)
        case "pending":
            values = (said.retry_ms, said.status, said.note, *place, said.attempt)
            for no, endpoint, run in unit.connection.execute(_SQL["settle_retry"], values).fetchall():
                _changed(unit, "defer_following", said.retry_ms, said.tenant, endpoint, run, no)


def _delivery(row: Any) -> Delivery:
    values: dict[str, Any] = dict(zip(Delivery.__struct_fields__, row, strict=True))
    return Delivery(**values)


def _claimed(row: Any) -> Claimed:
    endpoint = endpoint_of(row[_DELIVERY:_ENDPOINT])
    secrets = Secrets(*row[_ENDPOINT:]) if endpoint.run else endpoint.secrets
    return Claimed(_delivery(row[:_DELIVERY]), endpoint, secrets)
