"""What past runs tell of a run's cost, against runs whose rule is known."""

from __future__ import annotations

import random
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanchion.context.forecast import COVERAGE, LEAST, Shape, fit, from_shape
from stanchion.core.money import price_usd
from stanchion.core.progress import Course, Progress

PRICE = price_usd(input="3", output="15", cache_read="0.30", cache_write="3.75", cache_write_long="6")


def course(number: int, rest: float, **known: int) -> Course:
    """A run that has cost a million after two turns, and then `rest` more."""
    at = Progress(turns=2, cost=1_000_000, **known)
    return Course(f"s{number}", 1_000_000 + round(rest), (Progress(), Progress(turns=1), at))


def drawn(chance: random.Random, count: int) -> list[Course]:
    """What tools answered says what is left: 500 for each byte, give or take."""
    made: list[Course] = []
    for number in range(count):
        size = chance.randint(1_000, 40_000)
        made.append(
            course(number, size * 500 * chance.lognormvariate(0, 0.3), result_bytes=size, tool_calls=number % 3)
        )
    return made


def test_it_finds_what_tells() -> None:
    """Of five things known, the one that the rest goes by; and is then far nearer than any constant."""
    chance = random.Random(7)
    past, new = drawn(chance, 100), drawn(chance, 200)
    fitted = fit(past, 2)
    assert fitted is not None
    assert fitted.feature == "result_bytes"
    constant = median(each.cost for each in past)
    errors = [abs(fitted.forecast(each.steps[2]).expected - each.cost) for each in new]
    assert median(errors) < 0.5 * median(abs(constant - each.cost) for each in new)


def test_chance_is_not_taken_for_a_rule() -> None:
    """Where nothing tells, the forecast is what is left in the median, whatever is known."""
    chance = random.Random(11)
    past = [
        course(
            number,
            chance.lognormvariate(15, 0.8),
            result_bytes=chance.randint(1, 9_999),
            tool_calls=chance.randint(0, 9),
        )
        for number in range(200)
    ]
    fitted = fit(past, 2)
    assert fitted is not None
    assert fitted.feature == ""
    rests = [each.cost - 1_000_000 for each in past]
    assert fitted.forecast(past[0].steps[2]).expected - 1_000_000 == pytest.approx(median(rests), rel=0.01)


@pytest.mark.parametrize("runs", [LEAST, 15, 19, 40, 120])
def test_the_range_holds_what_it_says(runs: int) -> None:
    """Over many pasts of so many runs, the next run ends within the range as often as it says, or nearly."""
    chance = random.Random(runs)
    held, said = [], 0.0
    for _ in range(60):
        *past, new, newer = drawn(chance, runs + 2)
        fitted = fit(past, 2)
        assert fitted is not None
        for each in (new, newer):
            told = fitted.forecast(each.steps[2])
            held.append(told.low <= each.cost <= told.high)
            said = told.coverage
    assert said <= COVERAGE
    assert sum(held) / len(held) >= said - 0.08  # three standard deviations of 120 trials


def test_few_runs_say_a_smaller_range() -> None:
    """Eight runs cannot hold nine of ten: the range says what it holds."""
    chance = random.Random(3)
    few, more = fit(drawn(chance, LEAST), 2), fit(drawn(chance, 40), 2)
    assert few is not None
    assert more is not None
    at = Progress(turns=2, cost=1_000_000, result_bytes=5_000)
    assert few.forecast(at).coverage == pytest.approx(1 - 2 / 9, abs=1e-3)
    assert more.forecast(at).coverage == COVERAGE
    assert fit(drawn(chance, LEAST - 1), 2) is None
    assert fit(drawn(chance, 40), 3) is None  # none of them went on after three


costs = st.integers(0, 10**12)


@given(
    rests=st.lists(costs, min_size=LEAST, max_size=30),
    sizes=st.lists(st.integers(0, 10**9), min_size=30, max_size=30),
    at=st.builds(Progress, turns=st.just(2), cost=costs, result_bytes=costs, tool_calls=costs),
)
def test_whatever_is_known_a_range_is_one(rests: list[int], sizes: list[int], at: Progress) -> None:
    """From what was paid on, in order, finite; the same again for the same past, in any order."""
    past = [
        course(number, rest, result_bytes=size) for number, (rest, size) in enumerate(zip(rests, sizes, strict=False))
    ]
    fitted, again = fit(past, 2), fit(past, 2)
    assert fitted is not None
    assert fitted == again
    told = fitted.forecast(at)
    assert at.cost <= told.low <= told.expected <= told.high
    assert 0 < told.coverage <= COVERAGE


def test_runs_of_one_session_are_left_out_together() -> None:
    """Eight runs of one session say little of another: twins in it must not tell one another."""
    chance = random.Random(5)
    twins = [
        msg
        for number in range(12)
        for size, rest in [(chance.randint(1, 9_999), chance.lognormvariate(15, 1.2))]
        for msg in [course(number, rest, result_bytes=size, tool_calls=number)] * 4
    ]
    fitted = fit(twins, 2)
    assert fitted is not None
    assert len(fitted.folds) == 12
    assert fitted.feature == ""


def test_the_shape_is_the_bill_of_its_turns() -> None:
    """15 turns from 60,000 tokens on that grow evenly to 80,000, 500 answered: the floor of a cold cache, worked out by hand."""
    shape = Shape(prefix=60_000, turns=15, growth=20_000 // 14, output=500, most_turns=30)
    told = from_shape(shape, PRICE)
    assert told.expected / 1e9 == pytest.approx(0.7035, rel=0.01)
    assert told.low / 1e9 == pytest.approx(60_000 * 3.75e-6 + 500 * 15e-6, rel=1e-6)
    assert told.high > told.expected
    assert (told.runs, told.coverage) == (0, 0.0)


def test_the_shape_goes_on_from_where_a_run_is() -> None:
    """What was paid is paid; after k turns as many again are expected, as far as it may have them."""
    shape = Shape(prefix=10_000, turns=6, growth=1_000, output=300, most_turns=20)
    done = Progress(turns=8, cost=5_000_000_000)
    told = from_shape(shape, PRICE, done)
    assert told.expected == 5_000_000_000 + shape.cost(PRICE, 16, 8)
    assert told.low == 5_000_000_000 + shape.cost(PRICE, 9, 8)
    assert told.high == 5_000_000_000 + shape.cost(PRICE, 20, 8)
    last = from_shape(shape, PRICE, Progress(turns=20, cost=1))
    assert last.low <= last.expected <= last.high
