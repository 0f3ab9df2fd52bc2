"""Whether a detour pays, against a plain sum of what both ways cost."""

from __future__ import annotations

import pytest

from stanchion.context.detour import Detour, detour, lapses
from stanchion.context.life import Gap, Habit
from stanchion.core.bundle import Route
from stanchion.core.money import price_usd
from stanchion.core.state import State, Totals

SONNET = Route(
    "anthropic", "claude-sonnet-4-6",
    price_usd(input="3", output="15", cache_read="0.30", cache_write="3.75", cache_write_long="6"),
)  # fmt: skip
HAIKU = Route("anthropic", "claude-haiku-4-5", price_usd(input="1", output="5"))
NOW_MS = 1_000_000_000


def kept(tokens: int, *, idle_s: float = 10.0, answer: int = 500) -> State:
    """A session whose last request had so many tokens, so long ago."""
    return State(
        kept_tokens=tokens,
        kept_by="anthropic:claude-sonnet-4-6",
        kept_ms=NOW_MS - int(idle_s * 1000),
        totals=Totals(turns=2, output_tokens=2 * answer),
    )


def weighed(state: State, habit: Habit = Habit(), *, passed_on: float = 0.0, tokens: int = 60_000) -> Detour:  # noqa: B008
    return detour(state, SONNET, HAIKU, habit, NOW_MS, tokens=tokens, brief_tokens=2_000, passed_on=passed_on)


def test_what_a_detour_saves_is_a_read_and_the_dearer_answer() -> None:
    """60k tokens at 0.30 and 500 at 15, against 2k at 1 and 500 at 5: nano-dollars."""
    found = weighed(kept(60_000))
    assert (found.whole, found.brief, found.lapse) == (18_000_000 + 7_500_000, 2_000_000 + 2_500_000, 0)
    assert found.pays
    cold = weighed(State(totals=Totals(turns=2, output_tokens=1_000)))  # a write is put off, not saved
    assert (cold.whole, cold.brief) == (found.whole, found.brief)


@pytest.mark.parametrize(("passed_on", "pays"), [(0.0, True), (0.8, True), (0.83, False), (1.0, False)])
def test_answers_that_are_not_taken_cost_the_turn_as_well(passed_on: float, pays: bool) -> None:
    """4.5 + share x 25.5 < 25.5: up to 82 in a hundred."""
    assert weighed(kept(60_000), passed_on=passed_on).pays == pays


def test_a_short_conversation_is_read_for_less() -> None:
    """2,048 tokens that are read for a tenth, and an answer of ten tokens."""
    assert not weighed(kept(2_100, answer=10)).pays
    assert weighed(kept(2_100, answer=500)).pays


def test_a_prefix_that_lapses_only_for_the_detour_is_written_again() -> None:
    """Idle for two minutes: pauses of more than three and at most five minutes lose it, and would not have."""
    habit = Habit((Gap(60.0, 5), Gap(200.0, 3), Gap(290.0, 1), Gap(400.0, 1)), growth=1_000.0)
    state = kept(60_000, idle_s=120)
    assert lapses(state, SONNET, habit, NOW_MS) == pytest.approx(0.4)
    found = weighed(state, habit)
    assert found.lapse == pytest.approx(0.4 * 60_000 * 3.45 * 1_000)
    assert not found.pays
    shared = Habit(habit.gaps, growth=1_000.0, shared=1.0)  # others keep all of it
    assert weighed(state, shared).lapse == 0
    assert lapses(kept(60_000, idle_s=301), SONNET, habit, NOW_MS) == 0
    assert lapses(State(), SONNET, habit, NOW_MS) == 0
