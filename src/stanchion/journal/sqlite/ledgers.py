"""Shared budgets within the unit of work: read once, counted in memory, written once per transaction.

A hundred reservations on one ledger in one commit are one row written.
"""

from __future__ import annotations

from collections.abc import Iterable

from stanchion.journal.ledger import Book, moved_by, name_of, owner_of
from stanchion.journal.queries import named
from stanchion.journal.sqlite import multi
from stanchion.journal.sqlite.connection import Connection, Value
from stanchion.journal.store import Append, Ledger, Refused

_SQL = named("sqlite/journal.sql")
_KEPT = 10_000


class Ledgers:
    """The ledgers of the unit of work."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._books: dict[tuple[str, str], Book] = {}
        self._touched: set[tuple[str, str]] = set()

    def move(self, append: Append) -> Refused | None:
        """Settle and reserve all that an append asks for, or nothing of it."""
        moved = moved_by(append, self._book)
        if isinstance(moved, Refused):
            return moved
        self._books.update(moved)
        self._touched.update(moved)
        return None

    def set_limit(self, tenant: str, name: str, limit: int) -> Ledger:
        """Set or drop a limit and open its ledgers."""
        tenant = owner_of(tenant, name)
        self.flush()
        if limit < 0:
            self._connection.execute(_SQL["drop_limit"], (tenant, name))
        else:
            self._connection.execute(_SQL["set_limit"], (tenant, name, limit))
        self._connection.execute(_SQL["open_ledgers"], (tenant, name))
        self.forget()
        book = self._book((tenant, name))
        return Ledger(tenant, name, book.limit, book.settled, book.reserved, book.closed)

    def flush(self) -> None:
        """Write what was moved."""
        values: list[Value] = []
        for tenant, ledger in self._touched:
            book = self._books[tenant, ledger]
            values += (tenant, ledger, book.name, book.settled, book.reserved, int(book.closed))
        self._touched.clear()
        if values:
            multi.execute(self._connection, multi.PUT_LEDGERS, values)
        if len(self._books) > _KEPT:
            self._books.clear()

    def forget(self) -> None:
        """Empty the cache."""
        self._books.clear()
        self._touched.clear()

    def _book(self, place: tuple[str, str]) -> Book:
        book = self._books.get(place)
        if book is None:
            name = name_of(place[1])
            limit = self._one(_SQL["limit"], (place[0], name), (-1,))[0]
            settled, reserved, closed = self._one(_SQL["ledger"], place, (0, 0, 0))
            book = self._books[place] = Book(name, limit, settled, reserved, bool(closed))
        return book

    def _one(self, sql: str, values: Iterable[str], default: tuple[int, ...]) -> tuple[int, ...]:
        row = self._connection.execute(sql, tuple(values)).fetchone()
        return default if row is None else row
