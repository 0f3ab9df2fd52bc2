"""The ledgers of the in-memory store: settled + reserved never passes a limit. Nothing here awaits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from stanchion.journal.sqlite.ledgers import name_of, owner_of
from stanchion.journal.store import Append, Ledger, Refused


@dataclass(slots=True)
class Book:
    """One ledger in one window."""

    settled: int = 0
    reserved: int = 0
    closed: bool = False


class Books:
    """All ledgers, and the limits set for their names."""

    def __init__(self) -> None:
        self.books: dict[tuple[str, str], Book] = {}
        self.limits: dict[tuple[str, str], int] = {}

    def move(self, append: Append) -> Refused | None:
        """Settle and reserve all that an append asks for, or nothing of it."""
        moved: dict[tuple[str, str], Book] = {}
        for settle in append.settle:
            book = self._working(moved, append.tenant, settle.ledger)
            book.reserved = max(0, book.reserved - settle.reserved)
            book.settled += settle.cost
            book.closed = book.closed or settle.cost > settle.reserved
        for reserve in append.reserve:
            book = self._working(moved, append.tenant, reserve.ledger)
            refused = self._refusal(book, append.tenant, reserve.ledger, reserve.amount)
            if refused is not None:
                return refused
            book.reserved += reserve.amount
        self.books.update(moved)
        return None

    def set_limit(self, tenant: str, name: str, limit: int) -> Ledger:
        """Set or drop a limit and open its ledgers."""
        owner = owner_of(tenant, name)
        if limit < 0:
            self.limits.pop((owner, name), None)
        else:
            self.limits[owner, name] = limit
        for (of, ledger), book in self.books.items():
            if of == owner and name_of(ledger) == name:
                book.closed = False
        return self._ledger(owner, name, self.books.get((owner, name), Book()))

    def listed(self, tenant: str) -> Sequence[Ledger]:
        """List a tenant's ledgers, and its limits that were not used yet."""
        names = {ledger for owner, ledger in self.books if owner == tenant}
        used = {name_of(ledger) for ledger in names}
        names |= {name for owner, name in self.limits if owner == tenant and name not in used}
        return [self._ledger(tenant, name, self.books.get((tenant, name), Book())) for name in sorted(names)]

    def limit(self, tenant: str, ledger: str) -> int:
        """Limit of a ledger; -1: none."""
        return self.limits.get((owner_of(tenant, ledger), name_of(ledger)), -1)

    def _refusal(self, book: Book, tenant: str, ledger: str, amount: int) -> Refused | None:
        limit = self.limit(tenant, ledger)
        if limit < 0 or not (book.closed or book.settled + book.reserved + amount > limit):
            return None
        left = max(0, limit - book.settled - book.reserved)
        return Refused(ledger, amount, left, book.closed or book.settled + amount > limit)

    def _working(self, moved: dict[tuple[str, str], Book], tenant: str, ledger: str) -> Book:
        place = (owner_of(tenant, ledger), ledger)
        if place not in moved:
            moved[place] = replace(self.books.get(place, Book()))
        return moved[place]

    def _ledger(self, owner: str, name: str, book: Book) -> Ledger:
        return Ledger(owner, name, self.limit(owner, name), book.settled, book.reserved, book.closed)
