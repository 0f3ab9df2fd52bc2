"""Shared budgets within the unit of work: read once, counted in memory, written once per transaction.

A hundred reservations on one ledger in one commit are one row written.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from stanchion.journal.queries import named
from stanchion.journal.sqlite import multi
from stanchion.journal.sqlite.connection import Connection, Value
from stanchion.journal.store import Append, Ledger, Refused

_SQL = named("sqlite.sql")
_WINDOW = re.compile(r"(.*/(?:minute|hour|day|week|month|year)):[0-9TWQ:.-]+", re.DOTALL)
_KEPT = 10_000


def name_of(ledger: str) -> str:
    """Name of a ledger without its window: "tenant/day:2026-11-20" is one of "tenant/day"."""
    match = _WINDOW.fullmatch(ledger)
    return match[1] if match else ledger


def owner_of(tenant: str, ledger: str) -> str:
    """Tenant under which a ledger is kept: "all" and its windows belong to none."""
    return "" if ledger == "all" or ledger.startswith("all/") else tenant


class _Book:
    __slots__ = ("closed", "limit", "name", "reserved", "settled")

    def __init__(self, name: str, limit: int, settled: int, reserved: int, closed: bool) -> None:
        self.name = name
        self.limit = limit
        self.settled = settled
        self.reserved = reserved
        self.closed = closed

    def copy(self) -> _Book:
        return _Book(self.name, self.limit, self.settled, self.reserved, self.closed)

    def refusal(self, ledger: str, amount: int) -> Refused | None:
        if self.limit < 0 or not (self.closed or self.settled + self.reserved + amount > self.limit):
            return None
        left = max(0, self.limit - self.settled - self.reserved)
        return Refused(ledger, amount, left, self.closed or self.settled + amount > self.limit)


class Ledgers:
    """The ledgers of the unit of work."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._books: dict[tuple[str, str], _Book] = {}
        self._touched: set[tuple[str, str]] = set()

    def move(self, append: Append) -> Refused | None:
        """Settle and reserve all that an append asks for, or nothing of it."""
        moved: dict[tuple[str, str], _Book] = {}
        for settle in append.settle:
            book = self._working(moved, append.tenant, settle.ledger)
            book.reserved = max(0, book.reserved - settle.reserved)
            book.settled += settle.cost
            book.closed = book.closed or settle.cost > settle.reserved
        for reserve in append.reserve:
            book = self._working(moved, append.tenant, reserve.ledger)
            refused = book.refusal(reserve.ledger, reserve.amount)
            if refused is not None:
                return refused
            book.reserved += reserve.amount
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

    def _working(self, moved: dict[tuple[str, str], _Book], tenant: str, ledger: str) -> _Book:
        place = (owner_of(tenant, ledger), ledger)
        if place not in moved:
            moved[place] = self._book(place).copy()
        return moved[place]

    def _book(self, place: tuple[str, str]) -> _Book:
        book = self._books.get(place)
        if book is None:
            name = name_of(place[1])
            limit = self._one(_SQL["limit"], (place[0], name), (-1,))[0]
            settled, reserved, closed = self._one(_SQL["ledger"], place, (0, 0, 0))
            book = self._books[place] = _Book(name, limit, settled, reserved, bool(closed))
        return book

    def _one(self, sql: str, values: Iterable[str], default: tuple[int, ...]) -> tuple[int, ...]:
        row = self._connection.execute(sql, tuple(values)).fetchone()
        return default if row is None else row
