"""Whether it pays to ask another model with a brief context, and leave a conversation's cached prefix alone for a turn. Pure arithmetic.

Either way what is said in the turn is written into the cache by the next request that goes on from the conversation. So what a detour
saves is one read of the prefix and the dearer answer. What it costs: the brief request and its answer; the turn itself, as often as
the answer is not taken; and the prefix, written again, where it lapses only because nobody read it in this turn.
"""

from __future__ import annotations

import msgspec

from stanchion.context.life import Habit
from stanchion.core.bundle import Route
from stanchion.core.caching import cache_rules
from stanchion.core.kept import life_ms
from stanchion.core.state import State

ANSWER_TOKENS = 300
"""Taken for the length of an answer, as long as the run has given none."""


class Detour(msgspec.Struct, frozen=True):
    """A turn that could go to another model. Costs are nano-dollars."""

    brief: float
    """The brief request and its answer."""
    whole: float
    """The prefix read once, and the main model's answer."""
    lapse: float
    """What the prefix costs to be written again, as often as it lapses for it."""
    passed_on: float = 0.0
    """The share of answers that are not taken."""

    @property
    def pays(self) -> bool:
        """Whether it is expected to be cheaper."""
        again = self.passed_on * self.whole
        return self.brief + again + (1 - self.passed_on) * self.lapse < self.whole


def detour(
    state: State,
    main: Route,
    other: Route,
    habit: Habit,
    now_ms: int,
    *,
    tokens: int,
    brief_tokens: int,
    passed_on: float,
) -> Detour:
    """Weigh a detour. `tokens`: of the conversation as it would be sent; `brief_tokens`: of the brief request."""
    turns = state.totals.turns
    answer = state.totals.output_tokens // turns if turns else ANSWER_TOKENS
    million = 1_000_000
    kept = state.kept_tokens or tokens
    rules = cache_rules(main.provider, main.model) if main.cache != "off" else None
    reads = rules is not None and kept >= rules.minimum
    read = main.price.cache_read if reads else main.price.input
    writes = max(main.price.cache_write_long if state.kept_long else main.price.cache_write, main.price.input)
    chance = lapses(state, main, habit, now_ms) if reads else 0.0
    lost = kept - habit.shared * min(kept, tokens)
    return Detour(
        brief=(brief_tokens * other.price.input + answer * other.price.output) / million,
        whole=(kept * read + answer * main.price.output) / million,
        lapse=chance * lost * (writes - read) / million,
        passed_on=passed_on,
    )


def lapses(state: State, main: Route, habit: Habit, now_ms: int) -> float:
    """Give the chance that the prefix lapses before the next turn, and would not if it were read in this one."""
    rules = cache_rules(main.provider, main.model)
    total = sum(gap.count for gap in habit.gaps)
    if rules is None or not state.kept_tokens or not total:
        return 0.0
    life_s = life_ms(rules, long=state.kept_long) / 1000
    idle_s = (now_ms - max(state.kept_ms, state.refreshed_ms)) / 1000
    if idle_s >= life_s:  # it has lapsed already
        return 0.0
    return sum(gap.count for gap in habit.gaps if life_s - idle_s < gap.seconds <= life_s) / total
