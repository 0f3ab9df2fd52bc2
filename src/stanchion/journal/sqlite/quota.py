"""Shared limits in the file: takes and changes go through the writer, signals through a reading connection."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from stanchion.journal.queries import named
from stanchion.journal.quota import Block, BreakerRow, Changed, Count, Pause, Quota, Signals, Taken, Usage, Wish, decide
from stanchion.journal.sqlite.connection import Value
from stanchion.journal.sqlite.read import Reader
from stanchion.journal.sqlite.unit import UnitOfWork
from stanchion.journal.sqlite.writer import Writer

_SQL = named("sqlite/quota.sql")


class SqliteQuotas:
    """The `Quotas` of a file."""

    def __init__(self, writer: Writer, reader: Reader, clock: Callable[[], int]) -> None:
        self._writer = writer
        self._reader = reader
        self._clock = clock

    async def take(self, worker: str, wishes: Sequence[Wish], *, closed_by: str = "") -> Taken:
        if not wishes:
            return Taken()
        return await self._writer.write(lambda unit: _take(unit, worker, wishes, closed_by))

    async def change(self, changes: Sequence[Changed]) -> set[int]:
        if not changes:
            return set()
        return await self._writer.write(lambda unit: {item.id for item in changes if _change(unit, item)})

    async def pause(self, name: str, for_ms: int) -> None:
        await self._writer.write(lambda unit: _run(unit, "pause", name, unit.now_ms + for_ms))

    async def trip(self, name: str, for_ms: int) -> None:
        await self._writer.write(lambda unit: _run(unit, "trip", name, unit.now_ms + for_ms))

    async def probe(self, name: str, worker: str, for_ms: int) -> bool:
        return bool(await self._writer.write(lambda unit: _run(unit, "probe", name, worker, for_ms, unit.now_ms)))

    async def mend(self, name: str) -> None:
        await self._writer.write(lambda unit: _run(unit, "mend", name))

    async def signals(self) -> Signals:
        now_ms = self._clock()
        rows = await self._reader.use(lambda connection: connection.execute(_SQL["signals"], (now_ms,)).fetchall())
        return signals_of(rows)

    async def usage(self) -> Sequence[Usage]:
        now_ms = self._clock()
        rows = await self._reader.use(lambda connection: connection.execute(_SQL["usage"], (now_ms,)).fetchall())
        return [Usage(*row) for row in rows]

    async def set_quota(self, quota: Quota) -> None:
        await self._writer.write(lambda unit: _run(unit, "set_quota", quota.name, msgspec.json.encode(quota)))

    async def drop_quota(self, name: str) -> bool:
        return bool(await self._writer.write(lambda unit: _run(unit, "drop_quota", name)))


def signals_of(rows: Sequence[tuple[str, str, int, bool, bytes]]) -> Signals:
    """Make signals of the rows (kind, name, milliseconds, probed, body)."""
    return Signals(
        quotas=tuple(msgspec.json.decode(row[4], type=Quota) for row in rows if row[0] == "quota"),
        pauses=tuple(Pause(row[1], row[2]) for row in rows if row[0] == "pause"),
        breakers=tuple(BreakerRow(row[1], row[2], bool(row[3])) for row in rows if row[0] == "breaker"),
    )


def _run(unit: UnitOfWork, name: str, *values: Value) -> list[tuple[Value, ...]]:
    return unit.connection.execute(_SQL[name], values).fetchall()


def _take(unit: UnitOfWork, worker: str, wishes: Sequence[Wish], closed_by: str) -> Taken:
    now_ms = unit.now_ms
    paused = unit.connection.execute(_SQL["paused"], (closed_by, now_ms)).fetchone() if closed_by else None
    if paused is not None:
        return Taken(retry_ms=paused[0] - now_ms)
    counted: dict[str, Count] = {}
    for wish in wishes:
        if wish.limit not in counted:
            _run(unit, "expire", wish.limit, now_ms)
            ends: list[tuple[int, int]] = unit.connection.execute(_SQL["counted"], (wish.limit,)).fetchall()
            counted[wish.limit] = Count(sum(amount for _, amount in ends), ends)
    amounts, left, retry_ms = decide(wishes, counted, now_ms)
    blocks: list[Block] = []
    for wish, amount in zip(wishes, amounts, strict=False):
        values = (wish.limit, worker, amount, now_ms + wish.for_ms)
        blocks.append(Block(unit.connection.execute(_SQL["insert_block"], values).fetchone()[0], wish.limit, amount))
    return Taken(tuple(blocks), left, retry_ms)


def _change(unit: UnitOfWork, item: Changed) -> bool:
    if item.amount <= 0:
        return bool(_run(unit, "give_back", item.id))
    return bool(_run(unit, "change", item.id, item.amount, item.for_ms, unit.now_ms))
