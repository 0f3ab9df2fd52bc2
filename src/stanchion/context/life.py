"""Choose for how long a session's prefix is kept at the provider, and whether it is read now and then while nobody asks. Pure arithmetic.

What is kept for the long life costs more to write; what lapses in a pause is written again; a read before it lapses costs a
tenth of that. Which is least follows from the prices and from how an agent's sessions have gone until now: the pauses in them, their length,
their growth, and how much of a first request others keep. All of it is measured (`Habit`), so all of it is an estimate.

A prefix is kept wholly for one life, chosen before it is first written: whether a provider would prolong what was written for the
short life, and only its growth for the long one, is not said in its rules.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from stanchion.context.cache import Keeps
from stanchion.core.bundle import Route
from stanchion.core.caching import CacheRules, cache_rules
from stanchion.core.kept import expected, why_not
from stanchion.core.message import Text
from stanchion.core.money import Price
from stanchion.core.state import State

Life = Literal["short", "long", "off"]

REFRESH_AT = 0.9
"""A prefix is refreshed when so much of its life is over."""
MOST_REFRESHES = 12
"""In one pause: an hour of the short life, half a day of the long one."""
LEAST_GAPS = 8
"""Before so many pauses were measured nothing is concluded from them: short, and no refresh."""
LEAST_SESSIONS = 3
""".. and from the length of so many sessions."""


class Gap(msgspec.Struct, frozen=True):
    """Pauses of about one length, after which a session went on."""

    seconds: float
    count: float


class Took(msgspec.Struct, frozen=True):
    """How an agent's calls of one tool have gone until now."""

    gaps: tuple[Gap, ...] = ()
    """From the attempt that was answered to its result, by rising length."""
    went_on: int = 0
    """Steps with such a call whose results a model was told .."""
    broken_off: int = 0
    """.. and those in which the run ended, or did not go on for long."""

    @property
    def measured(self) -> bool:
        """Whether there were enough calls to conclude from."""
        return sum(gap.count for gap in self.gaps) >= LEAST_GAPS

    @property
    def goes_on(self) -> float:
        """Give the chance that a model is told."""
        return (self.went_on + 1) / (self.went_on + self.broken_off + 1)


class Habit(msgspec.Struct, frozen=True):
    """How an agent's sessions have gone until now."""

    gaps: tuple[Gap, ...] = ()
    """Between one model call of a session and the next, by rising length."""
    lengths: tuple[tuple[int, int], ...] = ()
    """(model calls, sessions that had so many and are over), rising."""
    growth: float = 0.0
    """Tokens by which a request is longer than the one before it, in the mean."""
    shared: float = 0.0
    """The part of a session's first request that was read, because other sessions keep it; of late."""
    outlived: float = 0.0
    """The part of prefixes that were read after their life was over: some organisations' are kept longer than others'."""
    waits: tuple[Gap, ...] = ()
    """Of the pauses those in which a person was waited for, within a run .."""
    broken_off: int = 0
    """.. and how many more runs ended, or did not go on for long, while one was."""
    tools: Mapping[str, Took] = {}
    """How long each tool takes .."""
    calls: Took = Took()
    """.. and all of them, which stands for one that was seldom called."""

    @property
    def measured(self) -> bool:
        """Whether there were enough pauses to conclude from."""
        return sum(gap.count for gap in self.gaps) >= LEAST_GAPS

    def goes_on(self, calls: int) -> float:
        """Give the chance that a session with so many model calls has another."""
        reached = sum(count for length, count in self.lengths if length >= calls)
        if reached >= LEAST_SESSIONS:
            return sum(count for length, count in self.lengths if length > calls) / reached
        gaps, ended = sum(gap.count for gap in self.gaps), sum(count for _, count in self.lengths)
        return gaps / (gaps + ended) if gaps else 0.0

    def within(self, state: State, least_s: float) -> tuple[Habit, float]:
        """Give the pauses of a step that is under way, from its request to the next, and the chance that there is one.

        The last of what is waited for ends it. A tool's time begins with its attempt; what is over within `least_s` seconds is left out.
        """
        parts: list[tuple[Gap, ...]] = []
        chance = 1.0
        for call in state.calls:
            if call.phase == "asking":
                gaps, goes_on = self._waiting()
            elif call.phase == "running":
                gaps, goes_on = self._working(call.tool, (call.started_ms - state.kept_ms) / 1000)
            else:
                continue
            chance = min(chance, goes_on)
            if gaps and gaps[-1].seconds > least_s:
                parts.append(gaps)
        return msgspec.structs.replace(self, gaps=longest(parts)), chance

    def _waiting(self) -> tuple[tuple[Gap, ...], float]:
        """Give how long a person is waited for, and the chance that the run goes on.

        Whatever is decided, the model is told, so that before any wait was measured one is taken to have gone on. From few nothing is
        concluded: then all pauses stand for theirs.
        """
        went_on = sum(gap.count for gap in self.waits)
        gaps = self.waits if went_on >= LEAST_GAPS else self.gaps
        return gaps, (went_on + 1) / (went_on + self.broken_off + 1)

    def _working(self, tool: str, began_s: float) -> tuple[tuple[Gap, ...], float]:
        """Give when a call that began so late after the request is over. Of a tool that was seldom called all calls say so."""
        took = self.tools.get(tool, self.calls)
        took = took if took.measured else self.calls
        gaps = took.gaps if took.measured else ()
        return tuple(Gap(began_s + gap.seconds, gap.count) for gap in gaps), took.goes_on

    def left(self, calls: int) -> float:
        """Give how many more model calls a session with so many is to have, in the mean."""
        later = [(length - calls, count) for length, count in self.lengths if length > calls]
        sessions = sum(count for _, count in later)
        return sum(more * count for more, count in later) / sessions if sessions else 1.0


def longest(parts: Sequence[tuple[Gap, ...]]) -> tuple[Gap, ...]:
    """Give the length of the longest of some pauses that nothing ties to each other, each by rising length. The counts are chances."""
    if len(parts) < 2:
        return parts[0] if parts else ()
    totals = [sum(gap.count for gap in gaps) for gaps in parts]
    ends = sorted((gap.seconds, part, gap.count / totals[part]) for part, gaps in enumerate(parts) for gap in gaps)
    over, before = [0.0] * len(parts), 0.0
    found: dict[float, float] = {}
    for seconds, part, share in ends:
        over[part] += share
        now = math.prod(over)
        if now > before:
            found[seconds] = found.get(seconds, 0.0) + now - before
        before = now
    return tuple(Gap(seconds, chance) for seconds, chance in found.items())


class Kept(msgspec.Struct, frozen=True):
    """A prefix, and what keeping it costs. Rates are nano-dollars per million tokens."""

    tokens: float
    shared: float
    """Of them what other sessions keep."""
    life_s: float
    write: int
    read: int

    def pause(self, habit: Habit, goes_on: float, refreshes: int) -> float:
        """Expect the cost of a pause with at most so many refreshes, beside the read that ends it."""
        total = float(sum(gap.count for gap in habit.gaps)) or 1.0
        again = (self.tokens - self.shared) * (self.write - self.read) * (1 - habit.outlived)
        each = self.tokens * self.read
        cost = (1 - goes_on) * refreshes * each
        for gap in habit.gaps:
            done = min(refreshes, max(math.ceil(gap.seconds / (self.life_s * REFRESH_AT)) - 1, 0))
            lapsed = gap.seconds > self.life_s * (1 + REFRESH_AT * done)
            cost += goes_on * gap.count / total * (done * each + (again if lapsed else 0.0))
        return cost

    def best(self, habit: Habit, goes_on: float) -> tuple[int, float]:
        """Find how many refreshes cost least, and what a pause then costs."""
        if not habit.gaps or habit.gaps[-1].seconds <= self.life_s * REFRESH_AT:
            return 0, 0.0
        costs = [(self.pause(habit, goes_on, n), n) for n in range(MOST_REFRESHES + 1)]
        cost, refreshes = min(costs)
        return refreshes, cost


def choose(price: Price, rules: CacheRules, habit: Habit, tokens: int, calls: int = 0) -> Literal["short", "long"]:
    """Choose the life of a prefix of so many tokens that is written now, in a session that had so many model calls."""
    if rules.kind == "automatic" or not habit.measured:
        return "short"
    costs = [_session(price, rules, habit, tokens, calls, long=long) for long in (False, True)]
    return "long" if costs[1] < costs[0] else "short"


def _session(price: Price, rules: CacheRules, habit: Habit, tokens: int, calls: int, *, long: bool) -> float:
    """Expect what a prefix costs until its session is over: written, prolonged, grown, and written again."""
    left = habit.left(calls + 1) * habit.goes_on(calls + 1)
    shared = habit.shared * tokens
    now = kept(price, rules, tokens, shared, long=long)
    later = msgspec.structs.replace(now, tokens=tokens + habit.growth * left / 2)
    grown = habit.growth * now.write
    return (tokens - shared) * now.write + left * (grown + later.best(habit, 1.0)[1])


def kept(price: Price, rules: CacheRules, tokens: float, shared: float, *, long: bool) -> Kept:
    """Make a prefix of a life."""
    if rules.kind == "automatic":
        return Kept(tokens, shared, rules.short_s, max(price.cache_write, price.input), price.cache_read)
    write, life_s = (price.cache_write_long, rules.long_s) if long else (price.cache_write, rules.short_s)
    return Kept(tokens, shared, life_s, write, price.cache_read)


def refreshes(state: State, route: Route, habit: Habit) -> int:
    """Say how often a session's prefix is to be refreshed at most while nobody asks: between its runs, or while one waits for a person or a tool."""
    rules = cache_rules(route.provider, route.model)
    if rules is None or not rules.promised or route.cache != "auto" or route.thinking_tokens or not habit.measured:
        return 0  # (a budget of thinking must be below the length of the answer, and another budget is another prefix)
    if state.kept_tokens < rules.minimum or state.kept_void:
        return 0
    first = state.kept_tokens - habit.growth * (state.kept_calls - 1)
    shared = habit.shared * max(first, 0.0)
    prefix = kept(route.price, rules, state.kept_tokens, shared, long=state.kept_long)
    if state.calls:
        return prefix.best(*habit.within(state, prefix.life_s * REFRESH_AT))[0]
    return prefix.best(habit, habit.goes_on(state.kept_calls))[0]


def life(state: State, route: Route, habit: Habit, now_ms: int, tokens: int) -> Life:
    """Say for how long the next request is to be kept: as its session began, while that lives; else what costs least."""
    if route.cache != "auto":
        return route.cache
    rules = cache_rules(route.provider, route.model)
    if rules is None:
        return "short"
    if (
        expected(state, route.provider, route.model, now_ms)
        or why_not(state, route.provider, route.model, now_ms) == "compaction"
    ):
        return "long" if state.kept_long else "short"
    return choose(route.price, rules, habit, tokens, state.kept_calls)


def keeps(state: State, route: Route, habit: Habit, now_ms: int, life: Life) -> Keeps:
    """Say what of the next request is to be kept: not its end, where the session is so likely over with it that its write does not pay."""
    rules = cache_rules(route.provider, route.model)
    calls = state.kept_calls + 1
    known = sum(count for length, count in habit.lengths if length >= calls) >= LEAST_SESSIONS
    if rules is None or rules.kind == "automatic" or route.cache != "auto" or state.refreshing:
        return "end"
    if not (habit.measured and known) or (rules.kind == "breakpoints" and not _ended_in_text(state)):
        return "end"
    chance, price = habit.goes_on(calls), route.price
    write = price.cache_write_long if life == "long" else price.cache_write
    if chance * (price.input - price.cache_read) >= (1 - chance) * (write - price.input):
        return "end"
    return "read" if expected(state, route.provider, route.model, now_ms) else "nothing"


def _ended_in_text(state: State) -> bool:
    """Say whether the session's last request ended with a text of the user's: on nothing else a breakpoint may stand."""
    left = state.kept_parts
    for message in state.messages:
        if left <= len(message.parts):
            return left > 0 and message.role == "user" and isinstance(message.parts[left - 1], Text)
        left -= len(message.parts)
    return False
