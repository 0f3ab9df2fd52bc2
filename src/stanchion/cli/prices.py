"""`stanchion prices`: what is known of a model's price."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stanchion.cli.options import Output
from stanchion.cli.output import Row, print_json, table
from stanchion.core.errors import InputError, NotFound

if TYPE_CHECKING:
    from stanchion.core.money import Price, PriceTier

RATES = ("input", "output", "cache_read", "cache_write", "cache_write_long")


def prices(
    model: Annotated[str, typer.Argument(metavar="PROVIDER:MODEL", help="As an agent names it.")],
    on: Annotated[str, typer.Option("--on", metavar="YYYY-MM-DD", help="On this date; default: today.")] = "",
    output: Output = "text",
) -> None:
    """Show what a model costs, in US dollars per million tokens, as runs are billed by it.

    \b
    Examples:
        stanchion prices anthropic:claude-sonnet-4-5
        stanchion prices openai:gpt-5 --on 2026-01-01 -o json
    """
    from stanchion.core.prices import find_input_price, load_prices

    provider, colon, name = model.partition(":")
    if not (provider and colon and name):
        raise InputError(f"{model!r} is not of the form provider:model (as in anthropic:claude-sonnet-4-5)")
    date, known = _date(on), load_prices()
    price = find_input_price(known, "openai" if provider == "openai-chat" else provider, name, date)
    if price is None:
        raise NotFound(
            f"no price is known for {model!r} on {date}; give the agent "
            f"Model({model!r}, price=price_usd(input=.., output=..)), or its memory Embeddings({model!r}, price=..)"
        )
    if output == "json":
        print_json({"model": model, "on": date, "source": known.source} | _rates(price) | {"tiers": _tiers(price)})
    else:
        rows = [_rates(price) | {"above": 0}, *_tiers(price)]
        table(rows, [("input above", _above), *((rate.replace("_", " "), _dollars(rate)) for rate in RATES)], empty="")


def _date(on: str) -> str:
    if not on:
        return datetime.now(UTC).date().isoformat()
    try:
        return datetime.strptime(on, "%Y-%m-%d").replace(tzinfo=UTC).date().isoformat()
    except ValueError:
        raise InputError(f"{on!r} is not a date like 2026-05-01", field="--on") from None


def _rates(price: Price | PriceTier) -> dict[str, Any]:
    from stanchion.core.money import format_usd

    return {rate: format_usd(getattr(price, rate)) for rate in RATES}


def _tiers(price: Price) -> list[dict[str, Any]]:
    return [_rates(tier) | {"above": tier.above} for tier in price.tiers]


def _above(row: Row) -> str:
    return f"{row['above']:,} tokens" if row["above"] else "-"


def _dollars(rate: str) -> Callable[[Row], str]:
    def write(row: Row) -> str:
        return f"${row[rate]}"

    return write
