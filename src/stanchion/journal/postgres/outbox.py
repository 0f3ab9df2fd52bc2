"""The outbox of the scale-out store. Each method is a transaction of its own, on a connection of the pool."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from stanchion.journal.outbox import Announcement, Claimed, Delivery, Endpoint, Secrets, Settled
from stanchion.journal.postgres.address import Connection
from stanchion.journal.postgres.announce import OUTBOX, add_endpoint, endpoint_of
from stanchion.journal.postgres.read import Reader

_DELIVERY = 14
_ENDPOINT = 28
"""Where the columns of a delivery, and of its endpoint, end in a row of both."""


class PostgresOutbox:
    """`Outbox` in a PostgreSQL database."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._heard: list[Callable[[], None]] = []

    def listen(self, heard: Callable[[], None]) -> None:
        self._heard.append(heard)

    def ring(self) -> None:
        """Say that something may be delivered."""
        for heard in self._heard:
            heard()

    async def add(self, endpoint: Endpoint) -> bool:
        return await self._reader.use(lambda connection: add_endpoint(connection, endpoint), tries=1)

    async def endpoint(self, tenant: str, id: str) -> Endpoint | None:
        rows = await self._rows("endpoint", tenant, id)
        return endpoint_of(rows[0]) if rows else None

    async def endpoints(self, tenant: str) -> Sequence[Endpoint]:
        return [endpoint_of(row) for row in await self._rows("endpoints", tenant)]

    async def enable(self, tenant: str, id: str, *, enabled: bool, note: str = "") -> bool:
        async def change(connection: Connection) -> bool:
            async with connection.transaction():
                found = await connection.fetch(OUTBOX["enable"], tenant, id, enabled, note)
                if found and not enabled:
                    await connection.execute(OUTBOX["give_up_endpoint"], tenant, id, note)
                return bool(found)

        return await self._reader.use(change)

    async def remove(self, tenant: str, id: str) -> bool:
        async def change(connection: Connection) -> bool:
            async with connection.transaction():
                found = await connection.fetch(OUTBOX["remove_endpoint"], tenant, id)
                await connection.execute(OUTBOX["remove_deliveries"], tenant, id)
                return bool(found)

        return await self._reader.use(change, tries=1)

    async def secrets(self, tenant: str) -> Secrets | None:
        rows = await self._rows("secrets", tenant)
        return Secrets(*rows[0]) if rows else None

    async def set_secrets(self, tenant: str, id: str, secrets: Secrets, *, was: str) -> bool:
        values = (secrets.current, secrets.previous, secrets.previous_until_ms, tenant)
        if id:
            return bool(await self._once("update_endpoint_secrets", *values, id, was))
        return bool(
            await (self._once("update_secrets", *values, was) if was else self._once("insert_secrets", *values))
        )

    async def tell(self, tenant: str, id: str, announcement: Announcement) -> str | None:
        said = announcement
        name = said.delivery(tenant, id, "")
        told = await self._once("tell", tenant, id, name, said.kind, said.seq, said.body)
        self.ring()
        return name if told else None

    async def lanes(self, *, limit: int) -> Sequence[str]:
        return [row[0] for row in await self._rows("lanes", limit)]

    async def next_due_ms(self) -> int:
        return (await self._rows("next_due"))[0][0]

    async def claim(self, lane: str, *, lease_ms: int, limit: int) -> Sequence[Claimed]:
        return [_claimed(tuple(row)) for row in await self._once("claim", lane, limit, lease_ms)]

    async def settle(self, settled: Sequence[Settled]) -> None:
        ordered = sorted(settled, key=lambda said: (said.tenant, said.id))
        done = [(said.tenant, said.id, said.status) for said in ordered if said.standing == "done"]

        async def change(connection: Connection) -> None:
            async with connection.transaction():
                if done:
                    await connection.execute(OUTBOX["settle_done"], *zip(*done, strict=True))
                for said in ordered:
                    await _settle(connection, said)

        await self._reader.use(change)

    async def delivery(self, tenant: str, id: str) -> Delivery | None:
        rows = await self._rows("delivery", tenant, id)
        return _delivery(tuple(rows[0])) if rows else None

    async def deliveries(
        self, tenant: str, *, endpoint: str = "", run: str = "", standing: str = "", before: str = "", limit: int = 50
    ) -> Sequence[Delivery]:
        name = "deliveries_of_run" if run else "deliveries_of_endpoint" if endpoint else "deliveries"
        rows = await self._rows(name, tenant, before, endpoint, run, standing, limit)
        return [_delivery(tuple(row)) for row in rows]

    async def redeliver(self, tenant: str, *, id: str = "", endpoint: str = "") -> int:
        name, which = ("redeliver_dead", endpoint) if endpoint else ("redeliver", id)
        done = len(await self._once(name, tenant, which))
        self.ring()
        return done

    async def prune(self, *, done_before_ms: int, dead_before_ms: int, limit: int = 2_000) -> int:
        return len(await self._once("prune", done_before_ms, dead_before_ms, limit))

    async def _rows(self, name: str, *values: Any) -> list[Any]:
        return await self._reader.use(lambda connection: connection.fetch(OUTBOX[name], *values))

    async def _once(self, name: str, *values: Any) -> list[Any]:
        """Run what would answer differently if it were done twice."""
        return await self._reader.use(lambda connection: connection.fetch(OUTBOX[name], *values), tries=1)


async def _settle(connection: Connection, said: Settled) -> None:
    place = (said.tenant, said.id, said.attempt)
    match said.standing:
        case "done":
            return  # all of them at once
        case "dead":
            await connection.execute(OUTBOX["settle_dead"], *place, said.status, said.note)
        case "pending":
            rows = await connection.fetch(OUTBOX["settle_retry"], *place, said.retry_ms, said.status, said.note)
            for row in rows:
                following = (said.retry_ms, said.tenant, row[1], row[2], row[0])
                await connection.execute(OUTBOX["defer_following"], *following)


def _delivery(row: tuple[Any, ...]) -> Delivery:
    return Delivery(**dict(zip(Delivery.__struct_fields__, row, strict=True)))


def _claimed(row: tuple[Any, ...]) -> Claimed:
    endpoint = endpoint_of(row[_DELIVERY:_ENDPOINT])
    secrets = Secrets(*row[_ENDPOINT:]) if endpoint.run else endpoint.secrets
    return Claimed(_delivery(row[:_DELIVERY]), endpoint, secrets)
