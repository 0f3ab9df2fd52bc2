"""Sums of charges: by what one likes, in a period, and what they would have been otherwise. Pure, and exact to the nano-dollar.

The cache's part in a bill is a difference of whole bills, each rounded up as the runtime does: the call with all of its input at the
plain rate, with its reads only, and as it was. So reads saved, less what writes and refreshes cost more, is the difference to the nano-dollar.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date
from typing import Literal, assert_never

import msgspec

from stanchion.core.charge import Charge, bill
from stanchion.core.message import Usage
from stanchion.core.money import Price

Dimension = Literal["agent", "model", "step", "tool", "skill", "user", "tenant", "session", "run", "day"]
MOST_GROUPS = 100_000
"""Groups that are kept apart; charges of further ones go into one group without a name."""
UNCHANGED = ("embed",)
"""Steps that nothing is supposed of: no other model of a conversation could have done them."""
_DAY_MS = 86_400_000
_EPOCH = date(1970, 1, 1).toordinal()
_with = msgspec.structs.replace


class Owner(msgspec.Struct, frozen=True):
    """Whose run it was."""

    tenant: str
    run: str
    session: str
    agent: str
    user: str


class Routed(msgspec.Struct, frozen=True):
    """A step that another model is supposed to have done."""

    price: Price
    most_tokens: int = 0
    """Of its input; 0: the same as it was. None of it from a cache: another model has another one."""


class WhatIf(msgspec.Struct, frozen=True):
    """What is supposed to have been otherwise, all of it at once."""

    price: Price | None = None
    """The same tokens at another model's price."""
    without_cache: bool = False
    """All input at the plain rate."""
    batch: bool = False
    """Every call through the batch API."""
    routes: tuple[tuple[str, Routed], ...] = ()
    """Steps, and who does them. The other calls stay as they were, and so does what they read from the cache."""


class Sum(msgspec.Struct):
    """What charges come to (money in nano-dollars)."""

    cost: int = 0
    runs: int = 0
    """With a charge among these."""
    calls: int = 0
    tool_calls: int = 0
    input_tokens: int = 0
    """All input, whatever its price."""
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0
    added_tokens: int = 0
    read_saved: int = 0
    """What reads from the cache would have cost more at the plain rate."""
    cache_extra: int = 0
    """What writes to it cost above the plain rate, and what refreshes of it cost."""
    unmetered: int = 0
    """Part of the cost: of model calls whose tokens do not say it, most of them settled at their reservation."""
    supposed: int = 0
    """The cost under what is supposed; what its tokens do not say stays as it was."""
    kept: int = 0
    """The part of it that stayed as it was."""

    def add(self, charge: Charge, what_if: WhatIf | None) -> None:
        """Add a charge."""
        self.cost += charge.cost
        self.calls += charge.calls
        self.tool_calls += charge.tool_calls
        self.added_tokens += charge.added_tokens
        if (usage := charge.usage) is not None:
            self.input_tokens += usage.total_input_tokens
            self.cache_read_tokens += usage.cache_read_tokens
            self.cache_write_tokens += usage.cache_write_tokens + usage.cache_write_long_tokens
            self.output_tokens += usage.output_tokens
        metered = charge.is_metered
        saved, extra = cached(charge) if metered else (0, 0)
        self.read_saved += saved
        self.cache_extra += extra
        if charge.model and not metered:
            self.unmetered += charge.cost
        if what_if is not None:
            changed = metered and charge.step not in UNCHANGED
            self.supposed += supposed(charge, what_if) if changed else charge.cost
            self.kept += 0 if changed else charge.cost

    def join(self, other: Sum) -> None:
        """Add another sum, of other groups. A run that is in both is counted twice."""
        for name in self.__struct_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


def cached(charge: Charge) -> tuple[int, int]:
    """Say of a metered charge what its reads from the cache saved, and what it cost above plain input (nano-dollars).

    A refresh saves nothing by itself, and would not have been without a cache.
    """
    if charge.step == "refresh":
        return 0, charge.cost
    usage, price = charge.usage, charge.price
    if usage is None or price is None or usage.total_input_tokens == usage.input_tokens:
        return 0, 0
    written = usage.cache_write_tokens + usage.cache_write_long_tokens
    reads_only = _with(
        usage, input_tokens=usage.input_tokens + written, cache_write_tokens=0, cache_write_long_tokens=0
    )
    with_reads = bill(price, reads_only, batch=charge.batch)
    return bill(price, _plain(usage), batch=charge.batch) - with_reads, charge.cost - with_reads


def supposed(charge: Charge, what_if: WhatIf) -> int:
    """Bill a metered charge under what is supposed."""
    usage, price = charge.usage, what_if.price or charge.price
    routed = next((routed for step, routed in what_if.routes if step == charge.step), None)
    if routed is not None and charge.model and usage is not None:
        most = min(usage.total_input_tokens, routed.most_tokens or usage.total_input_tokens)
        asked = Usage(input_tokens=most, output_tokens=usage.output_tokens)
        return bill(routed.price, asked, batch=charge.batch or what_if.batch)
    if charge.step == "refresh" and what_if.without_cache:
        return 0
    if usage is None or price is None:
        return charge.cost
    usage = _plain(usage) if what_if.without_cache else usage
    return bill(price, usage, batch=charge.batch or what_if.batch)


def _plain(usage: Usage) -> Usage:
    return Usage(input_tokens=usage.total_input_tokens, output_tokens=usage.output_tokens)


class Reckoner:
    """Sums up the charges of runs, one run after the other. `total` is the sum of the groups, its runs apart."""

    def __init__(
        self,
        by: Sequence[Dimension],
        *,
        since_ms: int = 0,
        until_ms: int = 0,
        what_if: WhatIf | None = None,
        most_groups: int = MOST_GROUPS,
    ) -> None:
        self.groups: dict[tuple[str, ...], Sum] = {}
        self.others = Sum()
        """Of the groups beyond the most."""
        self.total = Sum()
        self._by = tuple(by)
        self._since_ms = since_ms
        self._until_ms = until_ms
        self._what_if = what_if
        self._most = most_groups

    def add(self, owner: Owner, charges: Iterable[Charge]) -> None:
        """Add the charges of a run that lie in the period (from since on, before until; 0: no bound)."""
        touched: set[tuple[str, ...] | None] = set()
        for charge in charges:
            if charge.at_ms < self._since_ms or (self._until_ms and charge.at_ms >= self._until_ms):
                continue
            key = self._key(owner, charge)
            (self.others if key is None else self.groups[key]).add(charge, self._what_if)
            self.total.add(charge, self._what_if)
            touched.add(key)
        for key in touched:
            (self.others if key is None else self.groups[key]).runs += 1
        self.total.runs += bool(touched)

    def ranked(self) -> list[tuple[tuple[str, ...], Sum]]:
        """List the groups, the dearest first."""
        return sorted(self.groups.items(), key=lambda item: (-item[1].cost, item[0]))

    def _key(self, owner: Owner, charge: Charge) -> tuple[str, ...] | None:
        """Name the group of a charge, which is then there; None: there is room for no further one."""
        key = tuple(_part(dimension, owner, charge) for dimension in self._by)
        if key not in self.groups:
            if len(self.groups) >= self._most:
                return None
            self.groups[key] = Sum()
        return key


def _part(dimension: Dimension, owner: Owner, charge: Charge) -> str:
    match dimension:
        case "tenant" | "run" | "session" | "agent" | "user":
            return getattr(owner, dimension)
        case "model":
            return charge.model
        case "step":
            return charge.step
        case "tool":
            return charge.tool
        case "skill":
            return charge.skill
        case "day":
            return date.fromordinal(_EPOCH + charge.at_ms // _DAY_MS).isoformat()
        case _:
            assert_never(dimension)
