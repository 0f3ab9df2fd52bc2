"""Ledgers: their names, and what settling and reserving does to them. Shared by the stores; nothing here awaits."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Self, TypeVar

from stanchion.journal.store import Append, Refused

Place = tuple[str, str]
"""Tenant (as kept) and name of a ledger."""
_WINDOW = re.compile(r"(.*/(?:minute|hour|day|week|month|year)):[0-9TWQ:.-]+", re.DOTALL)


def name_of(ledger: str) -> str:
    """Name of a ledger without its window: "tenant/day:2026-11-20" is one of "tenant/day"."""
    match = _WINDOW.fullmatch(ledger)
    return match[1] if match else ledger


def owner_of(tenant: str, ledger: str) -> str:
    """Tenant under which a ledger is kept: "all" and its windows belong to none."""
    return "" if ledger == "all" or ledger.startswith("all/") else tenant


def places_of(append: Append) -> Iterable[Place]:
    """List the ledgers that an append moves."""
    for moved in (*append.settle, *append.reserve):
        yield owner_of(append.tenant, moved.ledger), moved.ledger


class Book:
    """A ledger that is being written."""

    __slots__ = ("closed", "limit", "name", "reserved", "settled")

    def __init__(self, name: str, limit: int, settled: int, reserved: int, closed: bool) -> None:
        self.name = name
        self.limit = limit
        self.settled: int = settled
        self.reserved: int = reserved
        self.closed: bool = closed

    def copy(self) -> Self:
        """Make one to try a move on."""
        return type(self)(self.name, self.limit, self.settled, self.reserved, self.closed)

    def settle(self, reserved: int, cost: int) -> None:
        """Give back a reservation and book a cost."""
        self.reserved = max(0, self.reserved - reserved)
        self.settled += cost
        self.closed = self.closed or cost > reserved

    def refusal(self, ledger: str, amount: int) -> Refused | None:
        """Say why an amount cannot be reserved."""
        if self.limit < 0 or not (self.closed or self.settled + self.reserved + amount > self.limit):
            return None
        left = max(0, self.limit - self.settled - self.reserved)
        return Refused(ledger, amount, left, self.closed or self.settled + amount > self.limit)


B = TypeVar("B", bound=Book)


def moved_by(append: Append, find: Callable[[Place], B]) -> dict[Place, B] | Refused:
    """Settle and reserve all that an append asks for, on copies; or say what refuses it."""
    moved: dict[Place, B] = {}

    def working(ledger: str) -> B:
        place = (owner_of(append.tenant, ledger), ledger)
        if place not in moved:
            moved[place] = find(place).copy()
        return moved[place]

    for settle in append.settle:
        book = working(settle.ledger)
        book.settle(settle.reserved, settle.cost)
    for reserve in append.reserve:
        book = working(reserve.ledger)
        refused = book.refusal(reserve.ledger, reserve.amount)
        if refused is not None:
            return refused
        book.reserved += reserve.amount
    return moved
