"""Money: read exactly, billed rounded up once, bounded whatever the cache does."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from math import ceil

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from stanchion.core.errors import InputError
from stanchion.core.message import Usage
from stanchion.core.money import (
    MAX_USD,
    NANO_PER_USD,
    Amount,
    Price,
    PriceTier,
    bound,
    cost,
    format_usd,
    parse_usd,
    price_usd,
)

rates = st.integers(0, 200 * NANO_PER_USD)
tokens = st.integers(0, 3_000_000)


@st.composite
def prices(draw: st.DrawFn) -> Price:
    """Any price, with up to three tiers that may be cheaper or dearer than what is below them."""
    above = sorted(draw(st.sets(st.integers(0, 2_000_000), max_size=3)))
    tiers = tuple(PriceTier(at, *(draw(rates) for _ in range(5))) for at in above)
    return Price(*(draw(rates) for _ in range(5)), tiers=tiers)


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    """Any split of the tokens of a call."""
    return Usage(
        input_tokens=draw(tokens),
        cache_read_tokens=draw(tokens),
        cache_write_tokens=draw(tokens),
        cache_write_long_tokens=draw(tokens),
        output_tokens=draw(tokens),
    )


SONNET = price_usd(input="3", output="15", cache_read="0.30", cache_write="3.75", cache_write_long="6")


@pytest.mark.parametrize(
    ("amount", "nano_usd"),
    [
        ("0.50", 500_000_000),
        ("0", 0),
        ("12", 12 * NANO_PER_USD),
        ("0.000000001", 1),
        (" 1.5 ", 1_500_000_000),
        ("007.10", 7_100_000_000),
        (3, 3 * NANO_PER_USD),
        (0.1, 100_000_000),
        (1e-09, 1),
        (1e5, 100_000 * NANO_PER_USD),
        (Decimal("0.30"), 300_000_000),
        (Decimal("1E+2"), 100 * NANO_PER_USD),
        (str(MAX_USD), MAX_USD * NANO_PER_USD),
    ],
)
def test_an_amount_is_read_exactly(amount: Amount, nano_usd: int) -> None:
    """What a person writes is what counts, to the nano-dollar."""
    assert parse_usd(amount, field="usd") == nano_usd


@pytest.mark.parametrize(
    "amount",
    [
        "", " ", "-1", "-0.01", "+1", "abc", "$1", "1,50", "1.", ".5", "1e3", "1_000", "١", "nan", "inf", "0.0000000001",
        "9" * 5000, "1" * 18, "1000000000.01", -1, -0.5, 1e-10, 0.1 + 0.2, float("nan"), float("inf"), 1e22, True,
        Decimal("NaN"), Decimal(-1), Decimal("1e-10"), Decimal("Infinity"),
    ],
)  # fmt: skip
def test_what_is_no_exact_amount_is_refused_by_field(amount: Amount) -> None:
    """Negative, not finite, too fine, too large, not a number: an error that names the field."""
    with pytest.raises(InputError) as caught:
        parse_usd(amount, field="limits.usd")
    assert caught.value.field == "limits.usd"
    assert str(caught.value).startswith("limits.usd: ")


def test_a_float_with_a_tail_says_how_to_write_it() -> None:
    """0.1 + 0.2 is not 0.3; the error says to write a string."""
    with pytest.raises(InputError, match="more than 9 decimals; write it as a string"):
        parse_usd(0.1 + 0.2, field="usd")


@given(st.integers(0, MAX_USD * NANO_PER_USD))
def test_format_and_parse_are_inverse(nano_usd: int) -> None:
    """Every amount is written so that it is read back as itself."""
    assert parse_usd(format_usd(nano_usd), field="usd") == nano_usd


def test_an_amount_is_written_with_two_decimals_or_as_many_as_it_takes() -> None:
    """Cents as people write them, nano-dollars where there are any, and the sign of a difference."""
    written = [format_usd(nano) for nano in (0, 500_000_000, 125_000, 1, -1_250_000_000)]
    assert written == ["0.00", "0.50", "0.000125", "0.000000001", "-1.25"]


def test_a_known_bill() -> None:
    """A bill computed by hand: 1,000 new, 10,000 read, 2,000 and 500 written, 300 out on a Sonnet's prices."""
    usage = Usage(
        input_tokens=1_000,
        cache_read_tokens=10_000,
        cache_write_tokens=2_000,
        cache_write_long_tokens=500,
        output_tokens=300,
    )
    assert format_usd(cost(SONNET, usage)) == "0.021"


def test_a_bill_is_rounded_up_once() -> None:
    """Five parts of less than a nano-dollar each are one nano-dollar together, not five."""
    price = Price(100_000, 100_000, 100_000, 100_000, 100_000)
    assert cost(price, Usage(1, 1, 1, 1, 1)) == 1
    assert cost(price, Usage(2, 2, 2, 2, 3)) == 2
    assert cost(price, Usage()) == 0


@given(prices(), usages())
def test_a_bill_is_the_exact_sum_rounded_up(price: Price, usage: Usage) -> None:
    """In fractions, the bill is the least whole number of nano-dollars that covers it."""
    reached = [tier for tier in price.tiers if usage.total_input_tokens > tier.above]
    at = reached[-1] if reached else price
    exact = Fraction(
        at.input * usage.input_tokens
        + at.cache_read * usage.cache_read_tokens
        + at.cache_write * usage.cache_write_tokens
        + at.cache_write_long * usage.cache_write_long_tokens
        + at.output * usage.output_tokens,
        1_000_000,
    )
    assert cost(price, usage) == ceil(exact)


def test_a_tier_holds_for_the_whole_call() -> None:
    """One token above the step, and all of the call has the tier's rates; at the step, none has."""
    price = msgspec.structs.replace(SONNET, tiers=(PriceTier(200_000, 6, 22, 0, 0, 0),))
    assert cost(price, Usage(input_tokens=200_000)) == cost(SONNET, Usage(input_tokens=200_000))
    assert cost(price, Usage(input_tokens=200_001)) == 2  # 1.2 nano-dollars at 6 per million
    assert cost(price, Usage(cache_read_tokens=200_001, output_tokens=1_000_000)) == 22


@given(prices(), usages(), st.integers(0, 1000), st.integers(0, 1000))
def test_the_bound_holds_for_every_split(price: Price, usage: Usage, more_in: int, more_out: int) -> None:
    """However the input falls into new, read and written, the bill is within the bound."""
    assert cost(price, usage) <= bound(price, usage.total_input_tokens + more_in, usage.output_tokens + more_out)


@given(prices(), usages())
def test_the_bound_without_writes_holds_where_nothing_is_written(price: Price, usage: Usage) -> None:
    """A request that asks no cache to keep anything is bounded by the rates of what is new and what is read."""
    unwritten = msgspec.structs.replace(usage, cache_write_tokens=0, cache_write_long_tokens=0)
    short = msgspec.structs.replace(usage, cache_write_long_tokens=0)
    assert cost(price, unwritten) <= bound(
        price, unwritten.total_input_tokens, usage.output_tokens, cache_writes="none"
    )
    assert cost(price, short) <= bound(price, short.total_input_tokens, usage.output_tokens, cache_writes="short")


@given(prices(), tokens, tokens)
def test_some_split_reaches_the_bound_of_its_tier(price: Price, max_input: int, output: int) -> None:
    """The bound is not slack: at a price without tiers the dearest split costs exactly it."""
    assume(not price.tiers)
    dearest = [
        cost(price, Usage(**{kind: max_input}, output_tokens=output))
        for kind in ("input_tokens", "cache_read_tokens", "cache_write_tokens", "cache_write_long_tokens")
    ]
    assert max(dearest) == bound(price, max_input, output)


def test_a_negative_count_never_lowers_a_bill() -> None:
    """A provider that reports fewer than no tokens is billed as if it had reported none."""
    assert cost(SONNET, Usage(input_tokens=-1_000, output_tokens=10)) == cost(SONNET, Usage(output_tokens=10))


def test_rates_that_are_not_said_are_those_of_plain_input() -> None:
    """A price of two numbers is whole: cached input costs what input does."""
    assert price_usd(input="1", output="2") == Price(10**9, 2 * 10**9, 10**9, 10**9, 10**9)
    assert price_usd(input="1", output="2", cache_write="1.25").cache_write_long == 1_250_000_000


def test_a_price_that_cannot_be_is_refused() -> None:
    """A negative rate, tiers out of order, a word for a number: errors that name the field."""
    with pytest.raises(InputError, match=r"price: a rate must not be negative"):
        Price(-1, 0, 0, 0, 0)
    with pytest.raises(InputError, match=r"price\.tiers: tiers must rise"):
        Price(1, 1, 1, 1, 1, tiers=(PriceTier(9, 1, 1, 1, 1, 1), PriceTier(8, 1, 1, 1, 1, 1)))
    with pytest.raises(InputError, match=r"price\.output: 'free'"):
        price_usd(input="1", output="free")


def test_a_price_survives_encoding() -> None:
    """A price in a bundle is read back as itself, tiers and all."""
    price = msgspec.structs.replace(SONNET, tiers=(PriceTier(200_000, 6, 22, 1, 2, 3),))
    assert msgspec.json.decode(msgspec.json.encode(price), type=Price) == price
