"""The bill: exact token counts per API key, conversation and model.

What a response's `usage` says is what is billed. An answer that broke off is billed for its input and for the output
generated until then, as a provider does; an answer that never came from a model (429, 5xx, a proxy's page) is not billed.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter

import msgspec

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
    faults: dict[str, int] = {}


class BillView(msgspec.Struct):
    """The body of `GET /bill`."""

    simulated: bool
    token_rule: str
    in_flight: int
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

    def settle(self, line: Line, usage: Usage, output_tokens: int, *, complete: bool, batch: bool = False) -> None:
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
        return BillView(True, "ceil(utf-8 bytes / 4) per text; simulated", self._in_flight, total, lines)

    def clear(self) -> None:
        """Start again from nothing; answers on their way go to lines that are no longer shown."""
        self._lines.clear()


def shown_key(key: str) -> str:
    """Name a key on the bill: `sim-..` keys as they are, others by a digest, since one might be real."""
    return key if key.startswith("sim") else "key-" + hashlib.sha256(key.encode()).hexdigest()[:8]
