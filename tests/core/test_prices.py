"""The price table: its answers are those of the data it was made from, and it is cheap to have."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from math import ceil
from pathlib import Path
from typing import Any

import msgspec
import pytest
from genai_prices import Usage as GenaiUsage
from genai_prices import data_snapshot, types

from stanchion.core.message import Usage
from stanchion.core.money import Price, cost, format_usd, price_usd
from stanchion.core.prices import ModelRow, Prices, find_input_price, find_price, load_prices

ROOT = Path(__file__).parents[2]
TODAY = "2026-11-01"
USAGES = (
    Usage(input_tokens=1_000, output_tokens=300),
    Usage(input_tokens=1, cache_read_tokens=999, output_tokens=1, reasoning_tokens=1),
    Usage(input_tokens=3_001, cache_read_tokens=90_003, cache_write_tokens=2_007, cache_write_long_tokens=511),
    Usage(input_tokens=130_003, cache_read_tokens=120_001, cache_write_tokens=7, output_tokens=12_345),
    Usage(input_tokens=11, cache_read_tokens=1_000_003, cache_write_long_tokens=100_003, output_tokens=7),
)


@pytest.fixture(scope="module")
def prices() -> Prices:
    return load_prices()


def names_of(row: ModelRow) -> Iterator[str]:
    """Names that a row answers to: what it lists, and a dated snapshot of each beginning."""
    yield from row.match.equals
    for beginning in row.match.starts:
        yield beginning
        yield f"{beginning}-20260101"


def days_of(row: ModelRow) -> list[str]:
    """The day before and the day of every change of a price, and a day of now."""
    changes = [datetime.fromisoformat(dated.since) for dated in row.dated if dated.since]
    days = {day.date().isoformat() for change in changes for day in (change, change - timedelta(days=1))}
    return sorted(days | {TODAY})


def genai_usage(usage: Usage) -> GenaiUsage:
    """Say a usage in the other's terms, in which totals include their parts."""
    return GenaiUsage(
        input_tokens=usage.total_input_tokens,
        cache_read_tokens=usage.cache_read_tokens,
        cache_write_tokens=usage.cache_write_tokens + usage.cache_write_long_tokens,
        cache_write_1h_tokens=usage.cache_write_long_tokens,
        output_tokens=usage.output_tokens,
    )


def is_hourly(model: types.ModelInfo) -> bool:
    """Tell whether a price depends on the hour."""
    return isinstance(model.prices, list) and any(
        isinstance(entry.constraint, types.TimeOfDateConstraint) for entry in model.prices
    )


def is_fine(model: types.ModelInfo) -> bool:
    """Tell whether the data holds a rate with more than nine decimals, which we round."""
    return re.search(r"Decimal\('[0-9]*\.[0-9]{10}", repr(model.prices)) is not None


def without_long_writes(price: Price) -> Price:
    """Take back what the data does not say: OpenAI's writes for 12 hours cost 2.5 times the input, in every tier."""
    for at in (price, *price.tiers):
        assert at.cache_write_long * 2 == at.input * 5
    tiers = tuple(msgspec.structs.replace(tier, cache_write_long=tier.cache_write) for tier in price.tiers)
    return msgspec.structs.replace(price, cache_write_long=price.cache_write, tiers=tiers)


def genai_nano_usd(provider: types.Provider, model: types.ModelInfo, usage: Usage, day: str) -> int:
    """Calculate a bill with genai-prices, rounded up: the dearest of the day's hours where they differ."""
    midnight = datetime.fromisoformat(day).replace(tzinfo=UTC)
    at = [midnight + timedelta(hours=hour) for hour in (range(24) if is_hourly(model) else (12,))]
    said = genai_usage(usage)
    bills = [model.calc_price(said, provider, genai_request_timestamp=moment).total_price for moment in at]
    return ceil(max(bills).scaleb(9))


def test_every_price_is_that_of_the_data_it_was_made_from(prices: Prices) -> None:
    """Every provider, every model, every name it lists, before and after every change: bills equal to the nano-dollar."""
    providers = data_snapshot.get_snapshot().providers
    compared, wrong = 0, list[Any]()
    for provider in providers:
        for row in prices.rows(provider.id):
            name = next(names_of(row), None)
            model = name and provider.find_model(name)
            if not name or not model or model.id != row.id:
                continue  # the name belongs to an earlier row; the next test asks for every name
            for day in days_of(row):
                price = find_price(prices, provider.id, name, day)
                if price is None:
                    assert not row.dated, (provider.id, name, day)
                    continue
                if provider.id in ("openai", "azure") and price.cache_write != price.input:
                    price = without_long_writes(price)
                for usage in USAGES:
                    off = cost(price, usage) - genai_nano_usd(provider, model, usage, day)
                    compared += 1
                    # Of a past day on which some hours had one rate dearer and some another, the table holds both.
                    allowed = off >= 0 if is_hourly(model) and day != TODAY else abs(off) <= is_fine(model)
                    if not allowed:
                        wrong.append((provider.id, name, day, usage, off))
    assert not wrong, wrong[:10]
    assert compared > 8_000


def test_every_name_finds_the_model_it_finds_in_the_data(prices: Prices) -> None:
    """Aliases, beginnings and dated snapshots: the first row that answers is the one the data's own search gives."""
    providers = data_snapshot.get_snapshot().providers
    asked = 0
    for provider in providers:
        rows = prices.rows(provider.id)
        by_id = {row.id: row for row in rows}
        for name in {name for row in rows for name in names_of(row)}:
            model = provider.find_model(name, all_providers=providers)
            found = next((row.id for row in rows if row.match.holds(name)), None)
            if model is not None and model.id in by_id:
                asked += 1
                assert found == model.id, (provider.id, name)
    assert asked > 3_000


def test_the_table_is_made_from_the_installed_data() -> None:
    """The committed table is what `make prices` writes today."""
    checked = subprocess.run(
        [sys.executable, ROOT / "scripts/make_prices.py", "--check"], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("anthropic", "claude-opus-4-5"),
        ("anthropic", "claude-opus-4-6"),
        ("anthropic", "claude-haiku-4-5-20251001"),
        ("anthropic", "claude-sonnet-5"),
        ("openai", "gpt-5"),
        ("openai", "gpt-5-mini-2025-08-07"),
        ("openai", "gpt-5.2-20251211"),
        ("openai", "o3"),
        ("openai", "o4-mini"),
        ("openai", "gpt-4o"),
        ("google", "gemini-2.5-pro"),
        ("google-vertex", "gemini-2.5-flash"),
        ("google", "claude-sonnet-4-5@20250929"),
        ("mistral", "mistral-large-latest"),
        ("groq", "llama-3.3-70b-versatile"),
        ("deepseek", "deepseek-chat"),
        ("xai", "grok-4"),
        ("azure", "gpt-5"),
        ("bedrock", "anthropic.claude-sonnet-4-5-20250929-v1:0"),
        ("openrouter", "anthropic/claude-sonnet-4.5"),
        ("Anthropic", "Claude-Sonnet-4-6"),
    ],
)
def test_models_in_use_are_known(prices: Prices, provider: str, model: str) -> None:
    """The models people name today have a price, under the names they use."""
    price = find_price(prices, provider, model, TODAY)
    assert price is not None
    assert price.output > price.input > price.cache_read > 0 or provider in {"groq", "mistral"}


def test_a_price_holds_from_its_date_on(prices: Prices) -> None:
    """Sonnet 4.6 had a dearer rate above 200,000 tokens until 2026-03-13; a call is billed by its date."""
    base = price_usd(input="3", output="15", cache_read="0.30", cache_write="3.75", cache_write_long="6")
    before = find_price(prices, "anthropic", "claude-sonnet-4-6-20260101", "2026-03-12")
    assert before is not None
    assert find_price(prices, "anthropic", "claude-sonnet-4-6-20260101", "2026-03-13") == base
    long_call = Usage(input_tokens=200_001)
    assert [format_usd(cost(price, long_call)) for price in (before, base)] == ["1.200006", "0.600003"]


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("anthropic", "claude-nothing-9"),
        ("anthropic", ""),
        ("nobody", "gpt-5"),
        ("openai", "text-embedding-3-small"),
        ("perplexity", "sonar-pro"),
    ],
)
def test_what_the_table_cannot_say_it_does_not(prices: Prices, provider: str, model: str) -> None:
    """Unknown providers and models, and those that are not billed by tokens alone, are None: the caller must say."""
    assert find_price(prices, provider, model, TODAY) is None


def test_what_gives_vectors_is_billed_by_its_input(prices: Prices) -> None:
    """The rates of OpenAI's price page, to the nano-dollar; of a chat model what it is always billed by; nothing of what is unknown."""
    for model, usd in (("3-small", "0.02"), ("3-large", "0.13"), ("ada-002", "0.10")):
        name = f"text-embedding-{model}"
        assert find_input_price(prices, "openai", name, TODAY) == price_usd(input=usd, output=0), name
    assert find_input_price(prices, "openai", "gpt-5", TODAY) == find_price(prices, "openai", "gpt-5", TODAY)
    assert find_input_price(prices, "openai", "text-embedding-9", TODAY) is None
    assert find_input_price(prices, "nobody", "text-embedding-3-small", TODAY) is None


def test_every_input_rate_is_that_of_the_data(prices: Prices) -> None:
    """Of every model of the data that is billed by its input alone."""
    compared = 0
    for provider in data_snapshot.get_snapshot().providers:
        for row in prices.rows(provider.id):
            model = next(found for found in provider.models if found.id == row.id)
            for since, _ in row.inputs:
                price = row.input_price_on(since or TODAY)
                assert price is not None
                entries: Any = model.prices if isinstance(model.prices, list) else [model]
                said = [entry.prices.input_mtok for entry in entries]
                assert any(cost(price, Usage(1_000_000)) == usd.scaleb(9) for usd in said), (provider.id, row.id)
                compared += 1
    assert compared > 50


def test_a_snapshot_of_no_listed_date_has_the_price_of_its_model(prices: Prices) -> None:
    """A new dated snapshot or `-latest` costs what its model costs."""
    known = find_price(prices, "openai", "gpt-5.4", TODAY)
    assert known is not None
    for name in ("gpt-5.4-20261015", "gpt-5.4-2026-10-15", "gpt-5.4-latest"):
        assert find_price(prices, "openai", name, TODAY) == known
