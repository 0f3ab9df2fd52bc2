"""Shared limits in the database: each call is one statement, and each take one function under its limits' locks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from stanchion.journal.postgres.read import Reader
from stanchion.journal.queries import named
from stanchion.journal.quota import Block, BreakerRow, Changed, Pause, Quota, Signals, Taken, Usage, Wish

_SQL = named("postgres/quota.sql")


class PostgresQuotas:
    """The `Quotas` of a database."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    async def take(self, worker: str, wishes: Sequence[Wish], *, closed_by: str = "") -> Taken:
        if not wishes:
            return Taken()
        lists = [[getattr(wish, name) for wish in wishes] for name in ("limit", "amount", "least", "most", "for_ms")]
        # Tried once: after a lost connection nobody knows whether it was granted. What was then counts out by its time.
        ids, amounts, left, retry_ms = (await self._rows("take", worker, closed_by, *lists, tries=1))[0]
        rows = zip(ids, wishes, amounts, strict=True) if ids else ()
        return Taken(tuple(Block(number, wish.limit, amount) for number, wish, amount in rows), left, retry_ms)

    async def change(self, changes: Sequence[Changed]) -> set[int]:
        gone = [item.id for item in changes if item.amount <= 0]
        kept = [item for item in changes if item.amount > 0]
        rows: list[Any] = []
        if gone:
            rows += await self._rows("give_back", gone)
        if kept:
            lists = [[getattr(item, name) for item in kept] for name in ("id", "amount", "for_ms")]
            rows += await self._rows("change", *lists)
        return {row[0] for row in rows}

    async def pause(self, name: str, for_ms: int) -> None:
        await self._rows("pause", name, for_ms)

    async def trip(self, name: str, for_ms: int) -> None:
        await self._rows("trip", name, for_ms)

    async def probe(self, name: str, worker: str, for_ms: int) -> bool:
        return bool(await self._rows("probe", name, worker, for_ms, tries=1))

    async def mend(self, name: str) -> None:
        await self._rows("mend", name)

    async def signals(self) -> Signals:
        rows = await self._rows("signals")
        return Signals(
            quotas=tuple(msgspec.json.decode(row[4], type=Quota) for row in rows if row[0] == "quota"),
            pauses=tuple(Pause(row[1], row[2]) for row in rows if row[0] == "pause"),
            breakers=tuple(BreakerRow(row[1], row[2], row[3]) for row in rows if row[0] == "breaker"),
        )

    async def usage(self) -> Sequence[Usage]:
        return [Usage(*row) for row in await self._rows("usage")]

    async def set_quota(self, quota: Quota) -> None:
        await self._rows("set_quota", quota.name, msgspec.json.encode(quota))

    async def drop_quota(self, name: str) -> bool:
        return bool(await self._rows("drop_quota", name))

    async def _rows(self, name: str, *values: Any, tries: int = 2) -> list[Any]:
        return await self._reader.use(lambda connection: connection.fetch(_SQL[name], *values), tries=tries)
