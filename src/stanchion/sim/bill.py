"""The bill: exact token counts per API key, conversation and model.

What a response's `usage` says is what is billed. An answer that broke off is billed for its input and for the output
generated until then, as a provider does; an answer that never came from a model (429, 5xx, a proxy's page) is not billed.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from datetime import UTC, datetime

import msgspec

from stanchion.core.message import Usage as Tokens
from stanchion.core.money import Price, cost, format_usd, in_batch
from stanchion.core.prices import Prices, find_input_price, load_prices
from stanchion.sim.exchange import Usage


class Line(msgspec.Struct):
    """What one (key, conversation, model) used."""

    key: str
    conversation: str
    model: str
    requests: int = 0
    """Requests that were answered, wholly or in part."""
    incomplete: int = 0
    """Of these, answers that did not reach their end."""
    refused: int = 0
    """Requests that were not billed: bad bodies, and faults where no model was reached."""
    input_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    cache_write_long_tokens: int = 0
    batch_requests: int = 0
    """Of the requests, those that came through a batch API, which bills half; so do the two counts below."""
    batch_input_tokens: int = 0
    batch_output_tokens: int = 0
    nano_usd: int = 0
    """What it costs, each call rounded up by itself, as providers' prices say; calls of a model without one cost nothing here."""
    unpriced: int = 0
    """Requests to models of which no price is known."""
    faults: dict[str, int] = {}


class Totals(msgspec.Struct):
    """The sums over all lines."""

    requests: int = 0
    incomplete: int = 0
    refused: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    cache_write_long_tokens: int = 0
    batch_requests: int = 0
    batch_input_tokens: int = 0
    batch_output_tokens: int = 0
    nano_usd: int = 0
    unpriced: int = 0
    faults: dict[str, int] = {}


class BillView(msgspec.Struct):
    """The body of `GET /bill`."""

    simulated: bool
    token_rule: str
    in_flight: int
    usd: str
    """The whole bill in dollars, exactly."""
    total: Totals
    lines: list[Line]


_SUMMED = tuple(name for name in Totals.__struct_fields__ if name != "faults")


class Bill:
    """Adds up what was used. In memory, until a reset."""

    def __init__(self) -> None:
        self._lines: dict[tuple[str, str, str], Line] = {}
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def drained(self) -> None:
        """Wait until no answer is on its way, so that the bill is whole."""
        await self._idle.wait()

    def line(self, key: str, conversation: str, model: str) -> Line:
        """Find or open a line."""
        at = (shown_key(key), conversation, model)
        return self._lines.setdefault(at, Line(*at, faults={}))

    def begin(self) -> None:
        """Note that an answer is on its way."""
        self._in_flight += 1
        self._idle.clear()

    def settle(
        self,
        line: Line,
        usage: Usage,
        output_tokens: int,
        price: Price | None = None,
        *,
        complete: bool,
        batch: bool = False,
    ) -> None:
        """Bill an answer that has ended: its input, and the output that was generated."""
        self._in_flight -= 1
        if self._in_flight == 0:
            self._idle.set()
        line.requests += 1
        line.incomplete += not complete
        line.input_tokens += usage.input_tokens
        line.cache_read_tokens += usage.cache_read_tokens
        line.cache_write_tokens += usage.cache_write_tokens
        line.cache_write_long_tokens += usage.cache_write_long_tokens
        line.output_tokens += output_tokens
        line.reasoning_tokens += min(usage.reasoning_tokens, output_tokens)
        if price is None:
            line.unpriced += 1
        else:
            billed = cost(price, _billed(usage, output_tokens))
            line.nano_usd += in_batch(billed) if batch else billed
        if batch:
            line.batch_requests += 1
            line.batch_input_tokens += usage.input_tokens
            line.batch_output_tokens += output_tokens

    def refuse(self, line: Line) -> None:
        """Count a request that was not billed."""
        line.refused += 1

    def view(self) -> BillView:
        """Show the bill."""
        lines = sorted(self._lines.values(), key=lambda x: (x.key, x.conversation, x.model))
        total = Totals(faults=dict(sum((Counter(line.faults) for line in lines), Counter[str]())))
        for name in _SUMMED:
            setattr(total, name, sum(getattr(line, name) for line in lines))
        return BillView(
            True, "ceil(utf-8 bytes / 4) per text; simulated", self._in_flight, format_usd(total.nano_usd), total, lines
        )

    def clear(self) -> None:
        """Start again from nothing; answers on their way go to lines that are no longer shown."""
        self._lines.clear()


class Sheet:
    """The prices of a day, looked up once for each model."""

    def __init__(self, on_date: str) -> None:
        self._on_date = on_date or datetime.now(UTC).date().isoformat()
        self._prices: Prices | None = None
        self._known: dict[tuple[str, str], Price | None] = {}

    def of(self, wire: str, model: str) -> Price | None:
        """Find a model's price, or None."""
        seller = "google" if model.startswith("gemini-") else "openai"
        at = ("anthropic" if wire == "anthropic" else seller, model)
        if at not in self._known:
            self._prices = self._prices or load_prices()
            self._known[at] = find_input_price(self._prices, *at, self._on_date)
        return self._known[at]


def _billed(usage: Usage, output_tokens: int) -> Tokens:
    return Tokens(
        input_tokens=usage.input_tokens,
        cache_read_tokens=usage.cache_read_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        cache_write_long_tokens=usage.cache_write_long_tokens,
        output_tokens=output_tokens,
    )


def shown_key(key: str) -> str:
    """Name a key on the bill: `sim-..` keys as they are, others by a digest, since one might be real."""
    return key if key.startswith("sim") else "key-" + hashlib.sha256(key.encode()).hexdigest()[:8]
