"""The rows of the runs that are being driven, held in memory between the writer's transactions.

A head is read once, changed in memory, and written with the others at the end of a transaction. What another process
writes empties this cache (`UnitOfWork.begin`), and so does a rollback.
"""

from __future__ import annotations

from stanchion.core.errors import NotFound
from stanchion.journal.head import Head
from stanchion.journal.queries import named
from stanchion.journal.sqlite import multi
from stanchion.journal.sqlite.connection import Connection, Value

_SQL = named("sqlite/journal.sql")
_KEPT = 5_000
"""Heads in the cache; above it those that are not being changed are let go."""


class Heads:
    """The heads of the unit of work."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._heads: dict[tuple[str, str], Head] = {}
        self._touched: list[Head] = []

    def find(self, tenant: str, run: str) -> Head | None:
        """Find a run's head."""
        head = self._heads.get((tenant, run))
        if head is None:
            row = self._connection.execute(_SQL["head"], (tenant, run)).fetchone()
            if row is None:
                return None
            head = self._heads[tenant, run] = Head(*row)
        return head

    def get(self, tenant: str, run: str) -> Head:
        """Find a run's head. Raises `NotFound`."""
        head = self.find(tenant, run)
        if head is None:
            raise NotFound(f"there is no run {run!r}; list them with `stanchion runs ls`")
        return head

    def touch(self, head: Head) -> None:
        """Have a head written."""
        if not head.moved:
            head.moved = True
            self._touched.append(head)

    def flush(self, now_ms: int) -> None:
        """Write what was touched."""
        moved: list[Value] = []
        changed: list[Value] = []
        for head in self._touched:
            values = (head.no, head.seq, head.hash, head.cost, head.attempts, now_ms)
            if head.changed:
                changed += values
                changed += (head.status, head.outcome, head.epoch, head.wake_at_ms, head.lease_until_ms, head.worker)
            else:
                moved += values
            head.moved = head.changed = False
        self._touched.clear()
        if moved:
            multi.execute(self._connection, multi.MOVE_HEADS, moved)
        if changed:
            multi.execute(self._connection, multi.CHANGE_HEADS, changed)
        if len(self._heads) > _KEPT:
            self._heads.clear()

    def forget(self) -> None:
        """Empty the cache."""
        self._heads.clear()
        self._touched.clear()
