"""The port of shared limits: what may be done in a time, and how much at once, over all workers of a store.

A limit is a name and a log of *blocks*. A worker takes a block (an amount under a name), which counts against the name
until it is lowered to nothing or its time is up; a block is granted if it and all that count fit into the limit. So one
rule serves both kinds:

    window      a block counts for the window and the time in which it must be used: no window of the provider's, wherever
                it begins, holds more than the limit
    slots       a block counts for a lease, which its worker prolongs; a worker that dies frees its slots by that

What a limit allows is said with each take, by the worker's own configuration: workers of two versions may differ for a
while, and each keeps to its own. Times are the store's clock, in milliseconds since 1970 UTC. Names are ours, never keys.

*Pauses* close a name for everybody until a time (a provider said so). *Breakers* are rows that are written only when one
opens, is probed or closes. *Quotas* are the settings that an operator keeps in the store.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec


class Quota(msgspec.Struct, frozen=True, omit_defaults=True):
    """What may be asked of a provider, or of one of its models ("anthropic:claude-sonnet-4-6"), with one key. 0: no limit."""

    name: str
    rpm: int = 0
    """Requests in a window."""
    tpm: int = 0
    """Tokens in a window, input and output together."""
    itpm: int = 0
    """Input tokens in a window."""
    otpm: int = 0
    """Output tokens in a window."""
    window_s: float = 60.0


class Wish(msgspec.Struct, frozen=True):
    """An amount wanted under a limit's name."""

    limit: str
    amount: int
    least: int
    """Less than this is of no use."""
    most: int
    """What the limit allows."""
    for_ms: int
    """How long it counts."""


class Block(msgspec.Struct, frozen=True):
    """An amount that was granted."""

    id: int
    limit: str
    amount: int


class Taken(msgspec.Struct, frozen=True):
    """What a take gave: a block for each wish in order, or none at all."""

    blocks: tuple[Block, ...] = ()
    left: bool = False
    """There is more to be had at once."""
    retry_ms: int = 0
    """How long until what was wanted at least will be free, if nothing is given back before; 0: not known."""


class Changed(msgspec.Struct, frozen=True):
    """A block as it is from now on: an amount of 0 gives it back; `for_ms` counts it so long from now (0: as before)."""

    id: int
    amount: int
    for_ms: int = 0


class Pause(msgspec.Struct, frozen=True):
    """A name that is closed for so long from now."""

    name: str
    for_ms: int


class BreakerRow(msgspec.Struct, frozen=True):
    """A circuit breaker that is not closed: open for so long from now; at 0 or below it may be probed."""

    name: str
    for_ms: int
    probed: bool = False
    """Somebody is trying."""


class Signals(msgspec.Struct, frozen=True):
    """What every worker is to know: settings, pauses that last, breakers that are not closed."""

    quotas: tuple[Quota, ...] = ()
    pauses: tuple[Pause, ...] = ()
    breakers: tuple[BreakerRow, ...] = ()


class Usage(msgspec.Struct, frozen=True):
    """What counts against a limit now, and in how many workers' hands it is."""

    limit: str
    amount: int
    workers: int


class Quotas(Protocol):
    """The shared limits of a store. Every method may raise `JournalError`."""

    async def take(self, worker: str, wishes: Sequence[Wish], *, closed_by: str = "") -> Taken:
        """Take a block for each wish, at least as much as its `least`; nothing if one cannot be had so.

        Of what is free no more is given than half, beyond what was wanted at least: others ask too. A name that is
        paused and stands in `closed_by` gives nothing.
        """
        ...

    async def change(self, changes: Sequence[Changed]) -> set[int]:
        """Lower, prolong or give back blocks; return those that were still there. An amount may rise where it was used."""
        ...

    async def pause(self, name: str, for_ms: int) -> None:
        """Close a name for everybody; a longer pause stands."""
        ...

    async def trip(self, name: str, for_ms: int) -> None:
        """Open a breaker, or keep it open for so long from now."""
        ...

    async def probe(self, name: str, worker: str, for_ms: int) -> bool:
        """Become the one who tries a breaker whose time is up, for so long. False: it is closed, or somebody tries."""
        ...

    async def mend(self, name: str) -> None:
        """Close a breaker."""
        ...

    async def signals(self) -> Signals:
        """Read what every worker is to know. Cheap."""
        ...

    async def usage(self) -> Sequence[Usage]:
        """List what counts against limits now."""
        ...

    async def set_quota(self, quota: Quota) -> None:
        """Keep a setting under its name, in place of the one before."""
        ...

    async def drop_quota(self, name: str) -> bool:
        """Forget a setting. False: there is none."""
        ...


class Count(msgspec.Struct):
    """What counts against a limit, for stores that decide in Python: its sum, and (until, amount) by time."""

    used: int
    ends: Sequence[tuple[int, int]]


def decide(wishes: Sequence[Wish], counted: dict[str, Count], now_ms: int) -> tuple[list[int], bool, int]:
    """Divide what is free: the amount of each wish ([]: nothing), whether there is more, and how long to wait (ms)."""
    names = dict.fromkeys(wish.limit for wish in wishes)
    rooms: dict[str, int] = {}
    left, retry_ms = True, 0
    for name in names:
        of = [wish for wish in wishes if wish.limit == name]
        free = of[0].most - counted[name].used
        least = sum(wish.least for wish in of)
        if free < least:
            retry_ms = max(retry_ms, _until(counted[name].ends, least - free) - now_ms)
            rooms[name] = -1
            continue
        rooms[name] = max(least, (free + 1) // 2)
        left = left and free - min(rooms[name], sum(wish.amount for wish in of)) >= least
    if any(room < 0 for room in rooms.values()):
        return [], False, retry_ms
    return [_share(wish, wishes, rooms[wish.limit]) for wish in wishes], left, 0


def _until(ends: Sequence[tuple[int, int]], needed: int) -> int:
    """When so much will have come free."""
    for until_ms, amount in ends:
        needed -= amount
        if needed <= 0:
            return until_ms
    return ends[-1][0] if ends else 0


def _share(wish: Wish, wishes: Sequence[Wish], room: int) -> int:
    of = [other for other in wishes if other.limit == wish.limit]
    least = sum(other.least for other in of)
    more = sum(other.amount - other.least for other in of)
    spare = min(more, room - least)
    return wish.least + (spare * (wish.amount - wish.least) // more if more else 0)
