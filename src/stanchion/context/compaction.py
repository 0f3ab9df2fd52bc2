"""Decide by arithmetic whether, and how far, the beginning of a conversation is left out of the prompt. Pure.

What is left out is not read at each further turn. What that costs: the model that sums it up, writing the prompt anew from there on, for the provider's
cache ends where it changes, and reading again what was left out after all. It is done when

    the turns that are still expected would pay more for reading it than it costs, and
    reading it has cost, since it came, what the next such time costs apart from its length

The second is what makes it neither too often nor too late: with even growth the mean cost of a turn is least when what a cycle pays for its
growth equals what ends it (Harris, "How Many Parts to Make at Once", 1913), and whatever comes, less than twice the least is paid (Karlin et
al., "Competitive Snoopy Caching", 1988). How many turns are expected is measured (`Habit`); before that, as many as there were.

And it is done before the next request would be longer than the model takes, and after its provider said that one was.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec

from stanchion.context.life import LEAST_SESSIONS, Habit
from stanchion.core.bundle import CompactionRules, Route
from stanchion.core.caching import cache_rules
from stanchion.core.compacted import LONG, may_begin_with
from stanchion.core.conversation import history
from stanchion.core.event import Compaction
from stanchion.core.message import (
    Erased,
    Media,
    Message,
    Opaque,
    Part,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
)
from stanchion.core.state import State

TOKENS_PER_BYTE = 0.25
"""Before a provider has counted."""
LINE = 60
"""Tokens of the line in the place of a long result."""
INSTRUCTIONS = 500
"""Tokens of what the model that sums up is told beside the text."""
USUAL = 0.6
"""The part of what a summary and the facts beside it may be at most that they mostly are."""
FRAME = 90
"""Bytes by which a part is longer than its text."""
RETRIEVALS = 1.0
"""How often what was left out is read again, until the next compaction; each time so many tokens come back."""
RETRIEVED = 800
MARGIN = 1.1
"""What was not counted by the provider may be so much longer than it is expected to be."""


class Plan(msgspec.Struct, frozen=True):
    """What is to be left out."""

    reason: Compaction
    covers: int
    """How many messages of the session, from its first on, a head is to stand for .."""
    trimmed: int
    """.. and before which long results are left out."""
    kind: Literal["sum", "trim"]


class Size(msgspec.Struct, frozen=True):
    """The next request, in tokens: an estimate by what the provider counted last."""

    all: float
    rate: float
    """Tokens per byte."""


def size(state: State, shown_bytes: int) -> Size:
    """Estimate the next request. `shown_bytes`: of what stands before the conversation."""
    rate = TOKENS_PER_BYTE
    if state.counted_tokens:
        rate = state.counted_tokens / (shown_bytes + state.counted_weight)
    if state.exact_tokens:
        return Size(state.exact_tokens + state.weight_since * rate * MARGIN, rate)
    return Size((shown_bytes + state.weight) * rate * MARGIN, rate)


def plan(
    state: State, rules: CompactionRules | None, route: Route, reader: Route, habit: Habit, shown_bytes: int
) -> Plan | None:
    """Plan a compaction before the next request to `route`. `reader`: the model that sums up. None: there is no need of one."""
    if rules is None or len(state.messages) < 3 or state.squeezed:
        return None
    now = size(state, shown_bytes)
    if now.all > route.context_tokens - route.max_output_tokens:
        return _squeezed(state, rules, "room")
    if rules.when == "room" or not state.carried_tokens or now.all - state.base_tokens < rules.minimum:
        return None
    return _paying(state, rules, route, reader, habit, now)


def survive(state: State, rules: CompactionRules | None) -> Plan | None:
    """Plan what to leave out of a request that its provider found too long. None: there is nothing left to leave out."""
    return _squeezed(state, rules, "overflow")


def _squeezed(state: State, rules: CompactionRules | None, reason: Compaction) -> Plan | None:
    """Leave out what there is, whatever it costs; the second time, or if there is nothing else, up to the last turn."""
    whole = history(state)
    for recent in ((rules or CompactionRules()).recent, 1)[state.squeezed :]:
        until = boundary(whole, recent)
        if rules is not None and until > state.covers:
            return Plan(reason, until, state.trimmed, "sum")
        until = _turn(whole, recent)
        if rules is None and not state.quarantine and any(_long_ones(state, whole, until)):
            return Plan(reason, state.covers, until, "trim")
    return None


def _paying(state: State, rules: CompactionRules, route: Route, reader: Route, habit: Habit, now: Size) -> Plan | None:
    """Find what pays, if anything does, and of two that pay what pays more."""
    whole = history(state)
    until = boundary(whole, rules.recent)
    if until <= state.covers:
        return None
    tail, head = _tokens(whole[until:], now), sum(map(_bytes, state.head)) * now.rate
    dropped = state.weight * now.rate - tail - head
    if dropped < rules.minimum:
        return None
    money = _Money(route, expected_turns(state, habit), now.all)
    made = max(head, USUAL * (rules.summary + rules.facts))
    asks = (INSTRUCTIONS + head) * reader.price.input + USUAL * rules.summary * reader.price.output
    found = [
        money.offer(
            "sum", saved=dropped + head - made, written=tail + made, fixed=asks, more=dropped * reader.price.input
        )
    ]
    long = list(_long_ones(state, whole, until)) if not state.quarantine else []
    saved = sum(_bytes(part) * now.rate - LINE for _, part in long)
    if saved >= rules.minimum:
        behind = _tokens(whole[long[0][0] :], now) - saved
        found.append(money.offer("trim", saved=saved, written=behind, carries=min(saved / dropped, 1.0)))
    due = [one for one in found if one.gain > 0 and one.fixed <= state.carried_tokens * one.carries * money.read]
    best = max(due, key=lambda one: one.gain, default=None)
    if best is None:
        return None
    return (
        Plan("cost", until, state.trimmed, "sum") if best.kind == "sum" else Plan("cost", state.covers, until, "trim")
    )


class _Offer(msgspec.Struct, frozen=True):
    """What one way is worth, in nano-dollars a million times."""

    kind: Literal["sum", "trim"]
    gain: float
    fixed: float
    """Of what it costs, what does not grow with what is left out."""
    carries: float
    """The part of what was read since that it would have spared."""


class _Money:
    """The prices of a route, for so many further turns of a request of so many tokens."""

    def __init__(self, route: Route, turns: float, tokens: float) -> None:
        price = route.price
        self.read = self._write = self._plain = price.input
        rules = cache_rules(route.provider, route.model) if route.cache != "off" else None
        self._least = rules.minimum if rules is not None else 0
        if rules is not None and tokens >= self._least:
            self.read, self._write = price.cache_read, max(price.cache_write, price.input)
        self._turns, self._tokens = turns, tokens

    def offer(
        self,
        kind: Literal["sum", "trim"],
        *,
        saved: float,
        written: float,
        fixed: float = 0.0,
        more: float = 0.0,
        carries: float = 1.0,
    ) -> _Offer:
        """`saved`: tokens less in each request. `written`: tokens that are not read but written, once."""
        left = self._tokens - saved
        read = self.read if left >= self._least else self._plain  # what is too short is not kept
        again = RETRIEVALS * (RETRIEVED * self._write + left * read)
        fixed += written * (self._write - read) + again
        spared = self._turns * (self._tokens * self.read - left * read)
        return _Offer(kind, spared - fixed - more, fixed, carries)


def expected_turns(state: State, habit: Habit) -> float:
    """Expect how many more model calls a session has: as many as those that went on so long; else as many as it had."""
    calls = state.kept_calls
    longer = sum(count for length, count in habit.lengths if length > calls)
    return habit.goes_on(calls) * habit.left(calls) if longer >= LEAST_SESSIONS else float(calls)


def boundary(whole: tuple[Message, ...], recent: int) -> int:
    """Find from which message on the last turns stay: so many of the model's, with what it was asked. 0: there are no more than that.

    A call and its result are on the same side. The last message stays as it is: what is said next may be put to it.
    """
    until = _turn(whole, recent)
    if until > 1 and may_begin_with(whole[until - 1]):
        until -= 1
    return until


def _turn(whole: tuple[Message, ...], recent: int) -> int:
    if not whole or whole[-1].role != "user":
        return 0
    for index in range(len(whole) - 2, 0, -1):
        if whole[index].role == "assistant":
            recent -= 1
            if recent <= 0:
                return index
    return 0


def _long_ones(state: State, whole: tuple[Message, ...], until: int) -> Iterator[tuple[int, ToolResult]]:
    """List the long results of tools that stand in the prompt before a message, with the message that each is in."""
    for index in range(max(state.trimmed, state.covers), until):
        for part in whole[index].parts:
            if isinstance(part, ToolResult) and part.label.source == "tool" and len(part.text) > LONG:
                yield index, part


def _tokens(messages: tuple[Message, ...], now: Size) -> float:
    return sum(_bytes(part) for message in messages for part in message.parts) * now.rate


def _bytes(part: Part) -> int:
    """About what a part weighs."""
    match part:
        case ToolCall():
            return FRAME + len(part.arguments) + len(part.data)
        case Text() | Thinking():
            return FRAME + len(part.text) + len(part.data)
        case ToolResult():
            return FRAME + len(part.text) + 4 * sum(media.max_input_tokens for media in part.media)
        case Media():
            return FRAME + 4 * part.max_input_tokens
        case Opaque():
            return FRAME + len(part.data)
        case Erased():
            return FRAME
