"""Ledgers in shards: a group moves its own lane's row of a ledger, so that processes do not wait for one another.

Each shard holds a part of the limit, and the parts add up to the limit at most; a shard reserves only what its own part has
free. So settled + reserved never passes the limit, whatever the others do. A settlement is booked on the shard of who
settles: `reserved` of a shard may be below 0, the sums are exact. What a shard alone cannot say (too little free, a refusal,
an overrun, its first row) is decided with all shards of the ledger locked: `Short` has the group done again that way. Near
the limit that is every group, and exact to the last nano-dollar.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Self

from stanchion.journal.ledger import Book, Place, moved_by, name_of, owner_of, places_of
from stanchion.journal.postgres.address import Connection
from stanchion.journal.postgres.schema import lock_number
from stanchion.journal.queries import named
from stanchion.journal.store import Append, Ledger, Refused

SQL = named("postgres/ledger.sql")
SHARDS = 16
"""Of a ledger at most: it has as many as lanes moved it. One carries over a thousand appends a second (design/postgres.md)."""
IDLE_PARTS = 4
"""One part in so many of what is free is shared out equally, the rest by use."""
_TIGHT = 1_000


class Short(Exception):
    """Own shards are not enough: do the group again with all shards of these ledgers."""

    def __init__(self, places: set[Place]) -> None:
        super().__init__(places)
        self.places = places


class Till:
    """What a lane remembers between groups: its shard, and the ledgers of which its own shard is not enough."""

    def __init__(self) -> None:
        self.number = -1
        """Not known before the lane moves money."""
        self.tight: set[Place] = set()

    def tighten(self, place: Place, *, tight: bool) -> None:
        """Remember whether a ledger is to be had whole from the start."""
        if not tight:
            self.tight.discard(place)
            return
        if len(self.tight) >= _TIGHT:
            self.tight.clear()
        self.tight.add(place)


class Shard:
    """A row of a ledger. `allot` is None without a limit."""

    __slots__ = ("allot", "closed", "given", "number", "reserved", "settled")

    def __init__(
        self, number: int, allot: int | None, given: int = 0, settled: int = 0, reserved: int = 0, closed: bool = False
    ) -> None:
        self.number = number
        self.allot = allot
        self.given = given
        self.settled = settled
        self.reserved = reserved
        self.closed = closed

    @property
    def used(self) -> int:
        """What it has settled and reserved."""
        return self.settled + self.reserved


class Account(Book):
    """A ledger as a group holds it: all of it, or only its own shard (then the limit is the shard's part)."""

    __slots__ = ("limited", "place", "whole")

    def __init__(self, name: str, limit: int | None, settled: int, reserved: int, closed: bool) -> None:
        super().__init__(name, -1 if limit is None else limit, settled, reserved, closed)
        self.limited = limit is not None
        self.whole = False
        self.place: Place = ("", name)

    def copy(self) -> Self:
        made = super().copy()
        made.place, made.whole, made.limited = self.place, self.whole, self.limited
        return made

    def settle(self, reserved: int, cost: int) -> None:
        if cost > reserved and not (self.closed or self.whole):
            raise Short({self.place})
        self.reserved -= reserved
        self.settled += cost
        self.closed = self.closed or cost > reserved

    def refusal(self, ledger: str, amount: int) -> Refused | None:
        if self.whole:
            return super().refusal(ledger, amount)
        if self.limited and (self.closed or amount > self.limit - self.settled - self.reserved):
            raise Short({self.place})
        return None


class Money:
    """The ledgers of a group."""

    def __init__(self, till: Till, whole: set[Place]) -> None:
        self._till = till
        self._asked = whole
        self._wanted: dict[Place, int] = {}
        self._shards: dict[Place, dict[int, Shard]] = {}
        self._accounts: dict[Place, Account] = {}
        self._touched: set[Place] = set()

    async def load(self, connection: Connection, appends: Iterable[Append]) -> None:
        """Lock and read the ledgers that the appends move."""
        for append in appends:
            for place in places_of(append):
                self._wanted.setdefault(place, 0)
            for wish in append.reserve:
                self._wanted[owner_of(append.tenant, wish.ledger), wish.ledger] += wish.amount
        if self._wanted:
            await self._lock(connection)

    async def _lock(self, connection: Connection) -> None:
        if self._till.number < 0:
            self._till.number = await connection.fetchval(SQL["lane_number"]) % SHARDS
        limits: dict[Place, int | None] = {}
        for tenant, ledger, number, allot, *rest in await connection.fetch(SQL["lock_shards"], *self._places()):
            if number < 0:
                limits[tenant, ledger] = allot
            else:
                self._shards.setdefault((tenant, ledger), {})[number] = Shard(number, allot, *rest)
        for place in self._wanted:
            shards = self._shards.setdefault(place, {})
            whole = place in limits
            limit = limits[place] if whole else shards[self._till.number].allot
            settled, reserved = sum(s.settled for s in shards.values()), sum(s.reserved for s in shards.values())
            closed = any(shard.closed for shard in shards.values())
            account = self._accounts[place] = Account(name_of(place[1]), limit, settled, reserved, closed)
            account.place, account.whole = place, whole

    def _places(self) -> tuple[Any, ...]:
        whole = self._asked | {place for place in self._till.tight if self._wanted.get(place)}
        tenants, ledgers = zip(*self._wanted, strict=True)
        names = [name_of(ledger) for ledger in ledgers]
        locks = [name_lock(*place) for place in zip(tenants, names, strict=True)]
        return tenants, ledgers, names, locks, [place in whole for place in self._wanted], self._till.number

    def move(self, append: Append) -> Refused | None:
        """Settle and reserve what an append asks for, or nothing of it. Raises `Short`."""
        if not (append.settle or append.reserve):
            return None
        try:
            moved = moved_by(append, self._accounts.__getitem__)
        except Short as short:
            raise Short(short.places | self._short()) from None
        if isinstance(moved, Refused):
            return moved
        self._accounts.update(moved)
        self._touched.update(moved)
        return None

    def _short(self) -> set[Place]:
        """Other ledgers of which the group may want more than their own shard has."""
        accounts = ((place, self._accounts[place], wanted) for place, wanted in self._wanted.items() if wanted)
        return {
            place
            for place, account, wanted in accounts
            if account.limited and not account.whole and account.settled + account.reserved + wanted > account.limit
        }

    def rows(self) -> list[tuple[Any, ...]]:
        """List the shards to be written."""
        rows: list[tuple[Any, ...]] = []
        for place in sorted(self._touched):
            account = self._accounts[place]
            rows += [
                (*place, s.number, account.name, s.allot, s.given, s.settled, s.reserved, s.closed)
                for s in self._booked(place, account)
            ]
        return rows

    def _booked(self, place: Place, account: Account) -> list[Shard]:
        """Book what was moved on our own shard. A ledger that is held whole is shared out again."""
        shards = self._shards[place]
        own = shards.setdefault(self._till.number, Shard(self._till.number, None))
        own.settled += account.settled - sum(shard.settled for shard in shards.values())
        own.reserved += account.reserved - sum(shard.reserved for shard in shards.values())
        if not account.whole:
            return [own]
        share_out(list(shards.values()), account.limit if account.limited else None, own, closed=account.closed)
        tight = account.limited and (account.closed or own.given < self._wanted[place])
        self._till.tighten(place, tight=tight)
        return [shards[number] for number in sorted(shards)]


def name_lock(tenant: str, name: str) -> int:
    """Number of the lock on all ledgers of a name."""
    return lock_number(f"{tenant}/{name}")


def share_out(shards: Sequence[Shard], limit: int | None, own: Shard | None, *, closed: bool) -> None:
    """Share a limit out: each shard keeps what it has used, and what is free goes by use since the last time.

    Where more is used than the limit each shard owes all of the excess: it reserves again when it alone has given back as
    much, and so never before all of them together have.
    """
    for shard in shards:
        shard.closed = closed
    if limit is None:
        for shard in shards:
            shard.allot, shard.given = None, 0
        return
    free = limit - sum(shard.used for shard in shards)
    parts = [free] * len(shards) if free < 0 else _parts(shards, free)
    for shard, part in zip(shards, parts, strict=True):
        shard.given = part
    if free > 0 and own is not None:
        own.given += free - sum(parts)
    for shard in shards:
        shard.allot = shard.used + shard.given


def _parts(shards: Sequence[Shard], free: int) -> list[int]:
    equal = free // IDLE_PARTS // len(shards)
    rest = free - equal * len(shards)
    uses = [max(0, shard.given - (shard.allot - shard.used)) if shard.allot is not None else 0 for shard in shards]
    if not sum(uses):
        return [equal + rest // len(shards)] * len(shards)
    return [equal + rest * use // sum(uses) for use in uses]


async def set_limit(connection: Connection, tenant: str, name: str, limit: int) -> Ledger:
    """Set or drop (-1) a limit in a transaction of its own: share it out in each window's ledger, and open them."""
    await connection.execute(SQL["lock_name"], name_lock(tenant, name))
    found: dict[str, list[Shard]] = {}
    for ledger, *columns in await connection.fetch(SQL["lock_named"], tenant, name):
        found.setdefault(ledger, []).append(Shard(*columns))
    if limit < 0:
        await connection.execute(SQL["drop_limit"], tenant, name)
    else:
        await connection.execute(SQL["set_limit"], tenant, name, limit)
    for shards in found.values():
        share_out(shards, limit if limit >= 0 else None, shards[0], closed=False)
    rows = [(ledger, s.number, s.allot, s.given, s.closed) for ledger, shards in found.items() for s in shards]
    if rows:
        await connection.execute(SQL["put_shards"], tenant, name, *zip(*rows, strict=True))
    own = found.get(name, [])
    return Ledger(tenant, name, max(limit, -1), sum(s.settled for s in own), sum(s.reserved for s in own), closed=False)


async def ledgers(connection: Connection, tenant: str) -> list[Ledger]:
    """List a tenant's ledgers."""
    return [Ledger(tenant, *row) for row in await connection.fetch(SQL["ledgers"], tenant)]


async def carry_over(connection: Connection, tenant: str, ledger: str, settled: int) -> bool:
    """Make a ledger with what was settled elsewhere, in a transaction of its own. False: there is one already."""
    name = name_of(ledger)
    await connection.execute(SQL["lock_name"], name_lock(tenant, name))
    if await connection.fetchval(SQL["has_ledger"], tenant, ledger):
        return False
    shard = Shard(0, None, settled=settled)
    share_out([shard], await connection.fetchval(SQL["limit"], tenant, name), shard, closed=False)
    await connection.execute(SQL["insert_shard"], tenant, ledger, name, shard.allot, shard.given, settled)
    return True
