"""Write src/stanchion/core/prices/prices.json from the data of the installed genai-prices (`make prices`).

One line per model, so that a change of price is a line of a diff. Money becomes nano-dollars per million tokens; what is finer
than that (28 rates of 4,000) is rounded up. Kinds of input that a provider does not price apart get the rate they are billed at: a cache read or write that of
plain input, a long write that of a short one. `--check` writes nothing and fails when the file is stale.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from decimal import Decimal
from importlib.metadata import version
from math import ceil
from pathlib import Path
from typing import Any

from genai_prices import data_snapshot, types

TARGET = Path(__file__).parents[1] / "src/stanchion/core/prices/prices.json"
CLAUSES = ("equals", "starts_with", "contains", "ends_with", "regex", "and_")
BY_TOKENS_ALONE = {"requests_kcount", "output_reasoning_mtok", "output_citation_mtok"}
"""A model priced by one of these cannot be billed from the tokens we count."""

FLOAT_TAIL = Decimal("0.000001")

Rates = tuple[int, int, int, int, int]


def nano(usd: Decimal) -> int:
    """Turn dollars into nano-dollars: exactly, the tail of a float left off (0.18000000000000002), and a third rounded up."""
    scaled = usd.scaleb(9)
    nearest = round(scaled)
    if scaled < 0:
        raise ValueError(f"a price of {usd} dollars")
    return nearest if abs(scaled - nearest) < FLOAT_TAIL else ceil(scaled)


def match_row(clause: Any) -> list[Any]:
    """Turn a tree of clauses into the six lists of a `Match`, the empty ones at the end left out."""
    found: dict[str, list[Any]] = {kind: [] for kind in CLAUSES}
    for leaf in alternatives(clause):
        kind = next(kind for kind in CLAUSES if hasattr(leaf, kind))
        value = getattr(leaf, kind)
        if kind == "and_":
            if found["and_"]:
                raise ValueError("two conjunctions in one clause")
            found["and_"] = [match_row(part) for part in value]
        else:
            found[kind].append(value if kind == "regex" else value.lower())
    row = [found[kind] for kind in CLAUSES]
    while row and not row[-1]:
        row.pop()
    return row


def alternatives(clause: Any) -> list[Any]:
    """Flatten a disjunction."""
    return [leaf for part in clause.or_ for leaf in alternatives(part)] if hasattr(clause, "or_") else [clause]


def rate_above(price: Decimal | types.TieredPrices, total: int) -> Decimal:
    """Find the price of a call whose input is just longer than `total` (-1: of the shortest)."""
    if isinstance(price, Decimal):
        return price
    reached = [tier.price for tier in price.tiers if tier.start <= total]
    return reached[-1] if reached else price.base


def rates_above(prices: dict[str, Any], total: int) -> Rates:
    """Name all five rates of a call, those that are not said as they are billed."""
    said = {key: nano(rate_above(value, total)) for key, value in prices.items() if key.endswith("_mtok")}
    plain = said["input_mtok"]
    write = said.get("cache_write_mtok", plain)
    return plain, said["output_mtok"], said.get("cache_read_mtok", plain), write, said.get("cache_write_1h_mtok", write)


def dearest(rates: Sequence[Rates]) -> Rates:
    """Take the highest of each rate: what holds at every hour of a day."""
    first, *others = rates
    return tuple(max(column) for column in zip(first, *others, strict=True))  # pyright: ignore[reportReturnType]


def dated_row(since: str, sets: list[dict[str, Any]]) -> list[Any]:
    """Write the rates from one date on, given the prices that hold on such a day at some hour."""
    tiered = [value for prices in sets for value in prices.values() if isinstance(value, types.TieredPrices)]
    starts = sorted({tier.start for value in tiered for tier in value.tiers})
    row: list[Any] = [since, dearest([rates_above(prices, -1) for prices in sets])]
    tiers = [[start, *dearest([rates_above(prices, start) for prices in sets])] for start in starts]
    return [*row, tiers] if tiers else row


def said_prices(price: types.ModelPrice) -> dict[str, Any]:
    return {key: value for key, value in vars(price).items() if value is not None}


def dated_rows(model: types.ModelInfo) -> list[list[Any]]:
    """Write a model's rates by date; none where tokens alone do not make its bill."""
    if isinstance(model.prices, types.ModelPrice):
        steps, hourly = [("", said_prices(model.prices))], []
    else:
        steps = [(since(entry), said_prices(entry.prices)) for entry in model.prices if not is_hourly(entry)]
        hourly = [said_prices(entry.prices) for entry in model.prices if is_hourly(entry)]
    if [date for date, _ in steps] != sorted({date for date, _ in steps}):
        raise ValueError(f"{model.id}: prices are not in order of their dates")
    for prices in (*(prices for _, prices in steps), *hourly):
        if not {"input_mtok", "output_mtok"} <= prices.keys() or prices.keys() & BY_TOKENS_ALONE:
            return []
    return [dated_row(date, [prices, *hourly]) for date, prices in steps]


def input_rows(model: types.ModelInfo) -> list[list[Any]]:
    """Write by date what a token of input costs, where input is all that is billed: of models that give vectors of texts."""
    if isinstance(model.prices, types.ModelPrice):
        steps = [("", said_prices(model.prices))]
    else:
        steps = [(since(entry), said_prices(entry.prices)) for entry in model.prices]
    if not all(said.keys() == {"input_mtok"} and isinstance(said["input_mtok"], Decimal) for _, said in steps):
        return []
    return [[date, nano(said["input_mtok"])] for date, said in steps]


def with_long_writes(rows: list[list[Any]]) -> list[list[Any]]:
    """Price OpenAI's writes for 12 hours, which the data leaves out: 2.5 times the input. Source: OpenAI, "Prompt caching"."""
    return [[date, _with_long(rates), *[[[start, *_with_long(rest)] for start, *rest in tier] for tier in tiers]]
            for date, rates, *tiers in rows]  # fmt: skip


def _with_long(rates: Sequence[int]) -> list[int]:
    plain, output, read, write, long = rates
    return [plain, output, read, write, -(-plain * 5 // 2) if write != plain else long]


def is_hourly(entry: types.ConditionalPrice) -> bool:
    return isinstance(entry.constraint, types.TimeOfDateConstraint)


def since(entry: types.ConditionalPrice) -> str:
    return entry.constraint.start_date.isoformat() if isinstance(entry.constraint, types.StartDateConstraint) else ""


def compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def render() -> str:
    """Write the whole table."""
    providers = data_snapshot.get_snapshot().providers
    names = {p.id: match_row(p.provider_match) for p in providers if p.provider_match is not None}
    fallbacks = {p.id: p.fallback_model_providers for p in providers if p.fallback_model_providers}
    blocks: list[str] = []
    for provider in providers:
        own = with_long_writes if provider.id in ("openai", "azure") else list[list[Any]]
        rows = [
            compact([model.id, match_row(model.match), own(dated_rows(model)), *filter(None, [input_rows(model)])])
            for model in provider.models
        ]
        blocks.append(f"{compact(provider.id)}:[\n" + ",\n".join(rows) + "\n]")
    head = {"source": f"genai-prices {version('genai-prices')}", "names": names, "fallbacks": fallbacks}
    return compact(head)[:-1] + ',\n"providers":{\n' + ",\n".join(blocks) + "\n}}\n"


def main(arguments: list[str]) -> int:
    """Write the table, or check it."""
    table = render()
    if "--check" in arguments:
        stale = not TARGET.exists() or TARGET.read_text() != table
        print(f"{TARGET.name}: {'stale; run `make prices`' if stale else 'as the data says'}")
        return int(stale)
    TARGET.write_text(table)
    print(f"{TARGET.name}: {len(table) // 1024} KiB, {table.count(chr(10))} lines, from {version('genai-prices')}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
