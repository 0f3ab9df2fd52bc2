"""The tray of the in-memory store: the rows, and the port over them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from stanchion.journal.tray import Batch, TrayItem


@dataclass(slots=True)
class _Under:
    batch: Batch
    items: list[tuple[int, TrayItem, int]]
    made_ms: int
    look_at_ms: int = 0
    lease_until_ms: int = 0

    def seen(self, now_ms: int) -> Batch:
        """Show it with its age."""
        return msgspec.structs.replace(self.batch, age_ms=now_ms - self.made_ms)


@dataclass(slots=True)
class TrayTables:
    """The rows. Nothing here awaits; times come in with each call."""

    number: int = 0
    waiting: list[tuple[int, TrayItem, int]] = field(default_factory=list[tuple[int, TrayItem, int]])
    """Number, item, since when."""
    batches: dict[str, _Under] = field(default_factory=dict[str, _Under])

    def add(self, items: Sequence[TrayItem], now_ms: int) -> None:
        """Put items on the tray."""
        for item in items:
            self.number += 1
            self.waiting.append((self.number, item, now_ms))

    def take(self, lane: str, name: str, most: int, lease_ms: int, now_ms: int) -> list[TrayItem]:
        """Move items into a new batch."""
        taken = [row for row in self.waiting if row[1].lane == lane][:most]
        if taken:
            self.waiting = [row for row in self.waiting if row not in taken]
            batch = Batch(name, lane, "handing_in", "", len(taken), 0)
            self.batches[name] = _Under(batch, taken, now_ms, lease_until_ms=now_ms + lease_ms)
        return [item for _, item, _ in taken]

    def look_at(self, name: str, at_ms: int, **changed: Any) -> None:
        """Free a batch of its lease until a time."""
        under = self.batches.get(name)
        if under is not None:
            under.batch = msgspec.structs.replace(under.batch, **changed)
            under.look_at_ms, under.lease_until_ms = at_ms, 0

    def drop(self, name: str, *, back: bool) -> None:
        """Forget a batch, or put its items back in their order."""
        under = self.batches.pop(name, None)
        if under is not None and back:
            self.waiting = sorted([*self.waiting, *under.items], key=lambda row: row[0])

    def due(self, lease_ms: int, limit: int, now_ms: int) -> list[Batch]:
        """Lease what is due."""
        free = [each for each in self.batches.values() if each.look_at_ms <= now_ms and each.lease_until_ms <= now_ms]
        free.sort(key=lambda each: (each.look_at_ms, each.made_ms))
        for each in free[:limit]:
            each.lease_until_ms = now_ms + lease_ms
        return [each.seen(now_ms) for each in free[:limit]]


Write = Callable[[Callable[[Any, int], Any]], Awaitable[Any]]


class MemoryTray:
    """The `Tray` over tables; `write` makes each change with the store's time."""

    def __init__(self, write: Write) -> None:
        self._write = write

    async def waiting(self) -> dict[str, tuple[int, int]]:
        def count(tables: Any, now_ms: int) -> dict[str, tuple[int, int]]:
            found: dict[str, tuple[int, int]] = {}
            for _number, item, since_ms in tables.tray.waiting:
                so_far, oldest_ms = found.get(item.lane, (0, 0))
                found[item.lane] = (so_far + 1, max(oldest_ms, now_ms - since_ms))
            return found

        return await self._write(count)

    async def take(self, lane: str, name: str, *, most: int, worker: str, lease_ms: int) -> Sequence[TrayItem]:
        return await self._write(lambda tables, now_ms: tables.tray.take(lane, name, most, lease_ms, now_ms))

    async def handed_in(self, name: str, provider_id: str, *, look_in_ms: int) -> None:
        said = {"stage": "running", "provider_id": provider_id}
        await self._write(lambda tables, now_ms: tables.tray.look_at(name, now_ms + look_in_ms, **said))

    async def put_back(self, name: str) -> None:
        await self._write(lambda tables, _: tables.tray.drop(name, back=True))

    async def due(self, *, worker: str, lease_ms: int, limit: int = 20) -> Sequence[Batch]:
        return await self._write(lambda tables, now_ms: tables.tray.due(lease_ms, limit, now_ms))

    async def items(self, name: str) -> Sequence[TrayItem]:
        def found(tables: Any, _: int) -> list[TrayItem]:
            under = tables.tray.batches.get(name)
            return [item for _, item, _ in under.items] if under else []

        return await self._write(found)

    async def look_again(self, name: str, *, in_ms: int) -> None:
        await self._write(lambda tables, now_ms: tables.tray.look_at(name, now_ms + in_ms))

    async def drop(self, name: str) -> None:
        await self._write(lambda tables, _: tables.tray.drop(name, back=False))

    async def batches(self) -> Sequence[Batch]:
        return await self._write(lambda tables, now_ms: [each.seen(now_ms) for each in tables.tray.batches.values()])
