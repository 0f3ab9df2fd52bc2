"""Money, as integers: nano-dollars (1e-9 USD), and prices in nano-dollars per million tokens (invariant I7).

A float never enters a sum. What a person writes ("0.50") is read exactly or refused; a bill is rounded up, once per call.
A bound holds whatever the provider's cache does, because a reservation is made of it.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Literal

import msgspec

from stanchion.core.errors import InputError
from stanchion.core.message import Usage

NANO_PER_USD = 1_000_000_000
MAX_USD = 1_000_000_000
"""The largest amount read: nano-dollars of it still fit a signed 64-bit column, with room for sums."""

BATCH_PERCENT = 50
"""What a token costs in a batch, of its usual price. Source: the price pages of Anthropic and OpenAI."""

_TOKENS_PER_PRICE = 1_000_000
_AMOUNT = re.compile(r"([0-9]{1,18})(?:\.([0-9]{1,9}))?")

Amount = str | int | float | Decimal
"""US dollars as a person writes them."""


def parse_usd(amount: Amount, *, field: str) -> int:
    """Read an amount of US dollars as nano-dollars, exactly.

    Raises `InputError` naming `field` for what is negative, not finite, above `MAX_USD`, or finer than a nano-dollar.
    """
    text = _plain(amount)
    found = _AMOUNT.fullmatch(text)
    if found is None:
        raise InputError(f"{amount!r} is not an amount of US dollars: {_why_not(text)}", field=field)
    nano = int(found[1]) * NANO_PER_USD + int((found[2] or "").ljust(9, "0"))
    if nano > MAX_USD * NANO_PER_USD:
        raise InputError(f"{amount!r} is above the largest amount, {MAX_USD:,} dollars", field=field)
    return nano


def _plain(amount: Amount) -> str:
    """Write an amount without an exponent; a float is taken as the shortest decimal that reads back as it."""
    if isinstance(amount, float):
        amount = Decimal(repr(amount))
    if isinstance(amount, Decimal):
        return format(amount, "f")
    return "" if isinstance(amount, bool) else str(amount).strip()


def _why_not(text: str) -> str:
    if text.startswith("-"):
        return "it must not be negative"
    if re.fullmatch(r"[0-9]+\.[0-9]{10,}", text):
        return 'it has more than 9 decimals; write it as a string, like "0.50"'
    return 'write digits and at most 9 decimals, like "0.50"'


def format_usd(nano_usd: int) -> str:
    """Write nano-dollars as dollars, exactly, with two decimals or as many as it takes: "0.50", "0.000125"."""
    dollars, nano = divmod(abs(nano_usd), NANO_PER_USD)
    decimals = f"{nano:09d}".rstrip("0").ljust(2, "0")
    return f"{'-' if nano_usd < 0 else ''}{dollars}.{decimals}"


class PriceTier(msgspec.Struct, frozen=True, omit_defaults=True):
    """The rates of a call whose whole input is longer than `above` tokens; they hold for all of the call."""

    above: int
    input: int
    output: int
    cache_read: int
    cache_write: int
    cache_write_long: int


class Price(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a model costs, in nano-dollars per million tokens. Make one from dollars with `price_usd`.

    Every rate is said: a kind of input that a provider does not price apart has the rate of plain input here.
    """

    input: int
    output: int
    cache_read: int
    cache_write: int
    """Into the short-lived cache (5 minutes)."""
    cache_write_long: int
    """Into the long-lived cache (1 hour)."""
    tiers: tuple[PriceTier, ...] = ()
    """By rising `above`; the last one that the input exceeds holds."""

    def __post_init__(self) -> None:
        if any(rate < 0 for at in (self, *self.tiers) for rate in _rates(at)):
            raise InputError("a rate must not be negative", field="price")
        above = [tier.above for tier in self.tiers]
        if above != sorted(set(above)) or (above and above[0] < 0):
            raise InputError("tiers must rise in `above`, from 0 on", field="price.tiers")


def price_usd(
    *,
    input: Amount,
    output: Amount,
    cache_read: Amount | None = None,
    cache_write: Amount | None = None,
    cache_write_long: Amount | None = None,
    tiers: tuple[PriceTier, ...] = (),
    field: str = "price",
) -> Price:
    """Make a price from US dollars per million tokens.

    A cache rate that is not given is the plain input's, and a long write that is not given costs what a short one does.
    """
    rate = parse_usd(input, field=f"{field}.input")
    read = rate if cache_read is None else parse_usd(cache_read, field=f"{field}.cache_read")
    write = rate if cache_write is None else parse_usd(cache_write, field=f"{field}.cache_write")
    long = write if cache_write_long is None else parse_usd(cache_write_long, field=f"{field}.cache_write_long")
    return Price(
        input=rate,
        output=parse_usd(output, field=f"{field}.output"),
        cache_read=read,
        cache_write=write,
        cache_write_long=long,
        tiers=tiers,
    )


def input_price(rate: int) -> Price:
    """Make the price of what answers without output: nano-dollars per million tokens of input."""
    return Price(input=rate, output=0, cache_read=rate, cache_write=rate, cache_write_long=rate)


def cost(price: Price, usage: Usage) -> int:
    """Bill a call in nano-dollars, rounded up once. A negative count, which no provider may report, counts as 0."""
    counts = (
        max(usage.input_tokens, 0),
        max(usage.output_tokens, 0),
        max(usage.cache_read_tokens, 0),
        max(usage.cache_write_tokens, 0),
        max(usage.cache_write_long_tokens, 0),
    )
    rates = _rates(_tier_of(price, sum(counts) - counts[1]))
    return _ceil(sum(rate * count for rate, count in zip(rates, counts, strict=True)))


def bound(
    price: Price,
    max_input_tokens: int,
    max_output_tokens: int,
    *,
    cache_writes: Literal["none", "short", "long"] = "long",
) -> int:
    """Bound the bill of a call in nano-dollars, however its input falls into cached and new, and whatever tier it meets.

    `cache_writes` is the longest life that the request asks a cache for: without one the bound holds for every call.
    """
    return _ceil(
        max(
            min(max_input_tokens, highest) * _dearest_input(at, cache_writes) + max_output_tokens * at.output
            for at, highest in _reachable(price, max_input_tokens)
        )
    )


def in_batch(nano_usd: int) -> int:
    """What a call's bill, or its bound, is when it is made through a batch API, rounded up."""
    return -(-nano_usd * BATCH_PERCENT // 100)


def _rates(at: Price | PriceTier) -> tuple[int, int, int, int, int]:
    return at.input, at.output, at.cache_read, at.cache_write, at.cache_write_long


def _tier_of(price: Price, total_input_tokens: int) -> Price | PriceTier:
    held: Price | PriceTier = price
    for tier in price.tiers:
        if total_input_tokens > tier.above:
            held = tier
    return held


def _reachable(price: Price, max_input_tokens: int) -> list[tuple[Price | PriceTier, int]]:
    """List the tiers that an input of at most so many tokens may meet, each with the longest input it holds for."""
    steps: list[Price | PriceTier] = [price, *(tier for tier in price.tiers if tier.above < max_input_tokens)]
    ends = [tier.above for tier in price.tiers[: len(steps) - 1]]
    return list(zip(steps, [*ends, max_input_tokens], strict=True))


def _dearest_input(at: Price | PriceTier, cache_writes: Literal["none", "short", "long"]) -> int:
    rates = {"none": (), "short": (at.cache_write,), "long": (at.cache_write, at.cache_write_long)}[cache_writes]
    return max(at.input, at.cache_read, *rates)


def _ceil(per_million: int) -> int:
    return -(-per_million // _TOKENS_PER_PRICE)
