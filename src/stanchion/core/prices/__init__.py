"""What the models of many providers cost, by date: a table shipped with the package, and how to look into it.

`load_prices` reads the table, once at start-up and outside of anything pure; `find_price` is pure. The table is made by
`scripts/make_prices.py` from the data of genai-prices (MIT, see prices.LICENSE) and kept as bytes: only the provider asked
for is ever decoded. It holds standard processing of text: batch, priority and fast tiers, audio tokens and fees per search
or request are not in it, and a model that cannot be billed by tokens alone is not found. Models that give vectors are billed by their
input alone, and are found by `find_input_price`. Where the price depends on the
hour, the table holds the dearest of the day. A model that is not found needs an explicit price from the caller.
"""

from __future__ import annotations

import pkgutil  # noqa: TID251 - the one file this room reads, and only in load_prices
import re
from collections.abc import Iterator, Mapping

import msgspec

from stanchion.core.money import Price, PriceTier, input_price


class Match(msgspec.Struct, frozen=True, array_like=True):
    """Which names are meant, in lower case: any of these clauses holds. `every` is the only clause of a conjunction."""

    equals: tuple[str, ...] = ()
    starts: tuple[str, ...] = ()
    contains: tuple[str, ...] = ()
    ends: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()
    every: tuple[Match, ...] = ()

    def holds(self, name: str) -> bool:
        """Tell whether a name, in lower case, is meant."""
        return (
            name in self.equals
            or name.startswith(self.starts)
            or any(piece in name for piece in self.contains)
            or name.endswith(self.ends)
            or any(re.search(pattern, name) for pattern in self.patterns)
            or (bool(self.every) and all(match.holds(name) for match in self.every))
        )


class DatedRates(msgspec.Struct, frozen=True, array_like=True):
    """Rates from a date on ("" is from ever): input, output, cache read, cache write, long cache write; then the tiers."""

    since: str
    rates: tuple[int, int, int, int, int]
    tiers: tuple[tuple[int, int, int, int, int, int], ...] = ()

    def price(self) -> Price:
        """Name the numbers."""
        return Price(*self.rates, tiers=tuple(PriceTier(*tier) for tier in self.tiers))


class ModelRow(msgspec.Struct, frozen=True, array_like=True):
    """A model: the names it answers to, and its rates by rising date. No rates: it cannot be billed by tokens alone."""

    id: str
    match: Match
    dated: tuple[DatedRates, ...] = ()
    inputs: tuple[tuple[str, int], ...] = ()
    """Of a model that is billed by its input alone: since when, and the rate."""

    def price_on(self, date: str) -> Price | None:
        """Find the price that holds on a date."""
        current = [rates for rates in self.dated if rates.since <= date]
        return current[-1].price() if current else None

    def input_price_on(self, date: str) -> Price | None:
        """Find by what input is billed where no output is asked for."""
        current = [rate for since, rate in self.inputs if since <= date]
        return input_price(current[-1]) if current else self.price_on(date)


class Prices(msgspec.Struct, frozen=True):
    """The table, its providers still encoded."""

    source: str
    """Which release of which data it was made from."""
    providers: Mapping[str, msgspec.Raw]
    names: Mapping[str, Match]
    """What else a provider may be called."""
    fallbacks: Mapping[str, tuple[str, ...]]
    """Whose models a provider sells too, at the same price, where it does not list them itself."""

    def rows(self, provider: str) -> tuple[ModelRow, ...]:
        """Decode a provider's models, in the order they are to be tried."""
        return msgspec.json.decode(self.providers[provider], type=tuple[ModelRow, ...])


def load_prices() -> Prices:
    """Read the table that is shipped with the package (I/O; 2 ms)."""
    data = pkgutil.get_data(__name__, "prices.json")
    if data is None:  # a loader without data; not one that Python or a wheel has
        raise FileNotFoundError("prices.json is missing from the installed package; install it again")
    return msgspec.json.decode(data, type=Prices)


def find_price(prices: Prices, provider: str, model: str, on_date: str) -> Price | None:
    """Find what a provider's model costs on a date ("2026-05-01"), or None where the table does not say.

    Aliases and dated snapshots are known; a snapshot the table does not name has the price of its model.
    """
    row = _find_row(prices, provider, model)
    return row.price_on(on_date) if row is not None else None


def find_input_price(prices: Prices, provider: str, model: str, on_date: str) -> Price | None:
    """Find what a provider's embedding model costs on a date, or None where the table does not say."""
    row = _find_row(prices, provider, model)
    return row.input_price_on(on_date) if row is not None else None


def _find_row(prices: Prices, provider: str, model: str) -> ModelRow | None:
    seller = _provider_called(prices, provider.lower())
    if seller is None:
        return None
    listed = [prices.rows(name) for name in (seller, *prices.fallbacks.get(seller, ()))]
    for name in _spellings(model.lower()):
        for rows in listed:
            for row in rows:
                if row.match.holds(name):
                    return row
    return None


def _provider_called(prices: Prices, name: str) -> str | None:
    if name in prices.providers:
        return name
    return next((provider for provider, match in prices.names.items() if match.holds(name)), None)


_COMPACT_DATE = re.compile(r"-(20[0-9]{2})(0[1-9]|1[0-2])([0-2][0-9]|3[01])$")
_SNAPSHOT = re.compile(r"[-@](?:20[0-9]{6}|20[0-9]{2}-[0-9]{2}-[0-9]{2}|latest)$")


def _spellings(model: str) -> Iterator[str]:
    """The name as it is, with its date as some providers write it, and without its date."""
    yield model
    dashed = _COMPACT_DATE.sub(r"-\1-\2-\3", model)
    if dashed != model:
        yield dashed
    base = _SNAPSHOT.sub("", model)
    if base != model:
        yield base
