"""Shared limits of the in-memory store: the rows, and the port over them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from stanchion.journal.quota import Block, BreakerRow, Changed, Count, Pause, Quota, Signals, Taken, Usage, Wish, decide


@dataclass(slots=True)
class _Row:
    name: str
    worker: str
    amount: int
    until_ms: int


@dataclass(slots=True)
class _Breaker:
    until_ms: int
    probe_until_ms: int = 0


@dataclass(slots=True)
class QuotaTables:
    """The rows. Nothing here awaits; times come in with each call."""

    number: int = 0
    blocks: dict[int, _Row] = field(default_factory=dict[int, _Row])
    pauses: dict[str, int] = field(default_factory=dict[str, int])
    breakers: dict[str, _Breaker] = field(default_factory=dict[str, _Breaker])
    quotas: dict[str, Quota] = field(default_factory=dict[str, Quota])

    def take(self, worker: str, wishes: Sequence[Wish], closed_by: str, now_ms: int) -> Taken:
        """Take a block for each wish, or none."""
        if not wishes:
            return Taken()
        if (until_ms := self.pauses.get(closed_by, 0)) > now_ms:
            return Taken(retry_ms=until_ms - now_ms)
        self.blocks = {number: row for number, row in self.blocks.items() if row.until_ms > now_ms}
        counted = {wish.limit: self._count(wish.limit) for wish in wishes}
        amounts, left, retry_ms = decide(wishes, counted, now_ms)
        blocks: list[Block] = []
        for wish, amount in zip(wishes, amounts, strict=False):
            self.number += 1
            self.blocks[self.number] = _Row(wish.limit, worker, amount, now_ms + wish.for_ms)
            blocks.append(Block(self.number, wish.limit, amount))
        return Taken(tuple(blocks), left, retry_ms)

    def _count(self, name: str) -> Count:
        ends = sorted((row.until_ms, row.amount) for row in self.blocks.values() if row.name == name)
        return Count(sum(amount for _, amount in ends), ends)

    def change(self, changes: Sequence[Changed], now_ms: int) -> set[int]:
        """Lower, prolong or give back."""
        found: set[int] = set()
        for item in changes:
            row = self.blocks.get(item.id)
            if row is None or (item.amount > 0 and row.until_ms <= now_ms):
                continue
            found.add(item.id)
            row.amount = item.amount
            if item.for_ms:
                row.until_ms = now_ms + item.for_ms
            if item.amount <= 0:
                del self.blocks[item.id]
        return found

    def pause(self, name: str, until_ms: int) -> None:
        """Close a name."""
        self.pauses[name] = max(self.pauses.get(name, 0), until_ms)

    def probe(self, name: str, for_ms: int, now_ms: int) -> bool:
        """Become the one who tries."""
        found = self.breakers.get(name)
        if found is None or found.until_ms > now_ms or found.probe_until_ms > now_ms:
            return False
        found.probe_until_ms = now_ms + for_ms
        return True

    def signals(self, now_ms: int) -> Signals:
        """List what every worker is to know."""
        breakers = sorted(self.breakers.items())
        return Signals(
            quotas=tuple(self.quotas[name] for name in sorted(self.quotas)),
            pauses=tuple(Pause(name, end - now_ms) for name, end in sorted(self.pauses.items()) if end > now_ms),
            breakers=tuple(BreakerRow(name, at.until_ms - now_ms, at.probe_until_ms > now_ms) for name, at in breakers),
        )

    def usage(self, now_ms: int) -> Sequence[Usage]:
        """Sum up what counts."""
        rows = [row for row in self.blocks.values() if row.until_ms > now_ms]
        found: list[Usage] = []
        for name in sorted({row.name for row in rows}):
            of = [row for row in rows if row.name == name]
            found.append(Usage(name, sum(row.amount for row in of), len({row.worker for row in of})))
        return found


Write = Callable[[Callable[[QuotaTables, int], Any]], Awaitable[Any]]


class MemoryQuotas:
    """The `Quotas` of a store in memory: all goes through the store's own ways to write and to read."""

    def __init__(self, write: Write, read: Write) -> None:
        self._write = write
        self._read = read

    async def take(self, worker: str, wishes: Sequence[Wish], *, closed_by: str = "") -> Taken:
        return await self._write(lambda tables, now_ms: tables.take(worker, wishes, closed_by, now_ms))

    async def change(self, changes: Sequence[Changed]) -> set[int]:
        return await self._write(lambda tables, now_ms: tables.change(changes, now_ms))

    async def pause(self, name: str, for_ms: int) -> None:
        await self._write(lambda tables, now_ms: tables.pause(name, now_ms + for_ms))

    async def trip(self, name: str, for_ms: int) -> None:
        await self._write(lambda tables, now_ms: tables.breakers.update({name: _Breaker(now_ms + for_ms)}))

    async def probe(self, name: str, worker: str, for_ms: int) -> bool:
        return await self._write(lambda tables, now_ms: tables.probe(name, for_ms, now_ms))

    async def mend(self, name: str) -> None:
        await self._write(lambda tables, _: tables.breakers.pop(name, None))

    async def signals(self) -> Signals:
        return await self._read(lambda tables, now_ms: tables.signals(now_ms))

    async def usage(self) -> Sequence[Usage]:
        return await self._read(lambda tables, now_ms: tables.usage(now_ms))

    async def set_quota(self, quota: Quota) -> None:
        await self._write(lambda tables, _: tables.quotas.update({quota.name: quota}))

    async def drop_quota(self, name: str) -> bool:
        return await self._write(lambda tables, _: tables.quotas.pop(name, None)) is not None
