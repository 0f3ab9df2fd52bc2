"""Say what a run will have cost when it comes to its end, and within what range: from an agent's past runs, or from its shape. Pure.

**From history.** Of past runs that went on after as many turns, what they still cost is fitted by a line through one thing that is known of the
run by then (what it cost, what tools answered, ..), or by none: that which would have told past runs best, each left out with its group. The line is
one of least absolute errors, so that a few dear runs do not bend it. The range is that of the jackknife+ in its form for groups of runs (Barber,
Candes, Ramdas, Tibshirani, "Predictive inference with the jackknife+", Annals of Statistics 49, 2021, CV+): it asks no more than that the next run
is of the same kind as the past ones.

**From the shape**, where there is no history: so many turns, each of which reads what was sent before from the cache and writes what it grew by.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import median

import msgspec

from stanchion.core.message import Usage
from stanchion.core.money import Price, cost
from stanchion.core.progress import Course, Progress

COVERAGE = 0.9
LEAST = 8
"""Before so many past runs went on after as many turns nothing is concluded from them."""
FOLDS = 24
"""Groups are left out one by one, or so many sets of them."""
BETTER = 0.1
"""So much less the errors with a line must be than without one, for it to be taken."""
SHAPE_TURNS, SHAPE_GROWTH, SHAPE_OUTPUT = 6, 1_000, 300
"""Turns of a run, and tokens by which a request grows and of which an answer is, where nobody says and nothing is known."""
_ITERATIONS = 12
_NEAR = 0.05
"""Errors below it count alike (of the logarithm)."""

_FEATURES: dict[str, Callable[[Progress], int]] = {
    "cost": lambda progress: progress.cost,
    "tokens": lambda progress: progress.tokens,
    "tool_calls": lambda progress: progress.tool_calls,
    "result_bytes": lambda progress: progress.result_bytes,
    "input_bytes": lambda progress: progress.input_bytes,
}


class Forecast(msgspec.Struct, frozen=True):
    """What a run will have cost when it comes to its end (nano-dollars)."""

    expected: int
    """Half of the runs like it cost less."""
    low: int
    high: int
    coverage: float
    """The part of runs that end within the range, as far as past runs tell; 0: the range is one of assumptions."""
    runs: int
    """Past runs that it goes by; 0: it goes by the shape."""
    by: str = ""
    """What was known of the run and told most: "cost", "tokens", "tool_calls", "result_bytes", "input_bytes"; "": nothing did."""


class _Line(msgspec.Struct, frozen=True):
    """The logarithm of what a run still costs, by the logarithm of what is known of it."""

    level: float
    slope: float = 0.0

    def rest(self, known: float) -> float:
        return math.exp(self.level + self.slope * known)


class Fitted(msgspec.Struct, frozen=True):
    """What past runs tell of a run after so many turns."""

    feature: str
    line: _Line
    least: float
    most: float
    """What is known of a run counts within what was seen."""
    folds: tuple[_Line, ...]
    """Without one set of groups each .."""
    errors: tuple[tuple[int, float], ...]
    """.. and how far from it each run of that set then was (nano-dollars)."""

    def forecast(self, progress: Progress) -> Forecast:
        """Say what a run that is so far will cost."""
        known = self._known(progress)
        expected = progress.cost + self.line.rest(known)
        rests = [line.rest(known) for line in self.folds]
        ends = sorted(progress.cost + rests[fold] + error for fold, error in self.errors)
        cut = max(math.floor((1 - COVERAGE) / 2 * (len(ends) + 1)), 1)
        low = min(max(ends[cut - 1], progress.cost), expected)
        return Forecast(
            expected=round(expected),
            low=round(low),
            high=round(max(ends[-cut], expected)),
            coverage=round(min(1 - 2 * cut / (len(ends) + 1), COVERAGE), 3),
            runs=len(ends),
            by=self.feature,
        )

    def _known(self, progress: Progress) -> float:
        return min(max(_known(self.feature, progress), self.least), self.most) if self.feature else 0.0


def fit(courses: Sequence[Course], turns: int) -> Fitted | None:
    """Learn from past runs what a run costs that goes on after so many turns. None: too few did."""
    rows = [(course, course.steps[turns]) for course in courses if len(course.steps) > turns]
    if len(rows) < LEAST:
        return None
    data = _Data(rows)
    plain = data.tried("")
    best = min(
        (data.tried(name) for name in _FEATURES if data.varies(name)), key=lambda tried: tried.error, default=plain
    )
    chosen = best if best.error < (1 - BETTER) * plain.error else plain
    xs = data.known(chosen.feature)
    return Fitted(
        feature=chosen.feature,
        line=_fitted(xs, data.rests),
        least=min(xs, default=0.0),
        most=max(xs, default=0.0),
        folds=chosen.lines,
        errors=tuple(zip(data.folds, chosen.errors, strict=True)),
    )


class _Tried(msgspec.Struct, frozen=True):
    """How well past runs would have been told by one thing known of them."""

    feature: str
    lines: tuple[_Line, ...]
    errors: tuple[float, ...]
    """What each run cost, less what the others said."""
    error: float
    """The median of them, whatever their sign."""


class _Data:
    """Past runs after so many turns."""

    def __init__(self, rows: Sequence[tuple[Course, Progress]]) -> None:
        self._rows = rows
        groups = {name: number for number, name in enumerate(sorted({course.group for course, _ in rows}))}
        sets = min(len(groups), FOLDS)
        self.folds = [groups[course.group] % sets for course, _ in rows]
        rests = [course.cost - progress.cost for course, progress in rows]
        floor = max(median(rests) / 1_000, 1.0)
        self.rests = [math.log(max(rest, floor)) for rest in rests]

    def known(self, feature: str) -> list[float]:
        return [_known(feature, progress) for _, progress in self._rows] if feature else []

    def varies(self, feature: str) -> bool:
        return len(set(self.known(feature))) > 1

    def tried(self, feature: str) -> _Tried:
        """Tell each run by those of other sets."""
        xs = self.known(feature)
        lines = tuple(self._without(fold, xs) for fold in range(max(self.folds) + 1))
        errors = tuple(
            course.cost - progress.cost - lines[fold].rest(xs[row] if xs else 0.0)
            for row, ((course, progress), fold) in enumerate(zip(self._rows, self.folds, strict=True))
        )
        return _Tried(feature, lines, errors, median(abs(error) for error in errors))

    def _without(self, fold: int, xs: Sequence[float]) -> _Line:
        kept = [row for row, own in enumerate(self.folds) if own != fold] or list(range(len(self.folds)))
        return _fitted([xs[row] for row in kept] if xs else [], [self.rests[row] for row in kept])


def _known(feature: str, progress: Progress) -> float:
    return math.log1p(max(_FEATURES[feature](progress), 0))


def _fitted(xs: Sequence[float], ys: Sequence[float]) -> _Line:
    """Find the line of least absolute errors, by weighted least squares that are done again; without x, the median."""
    if not xs:
        return _Line(median(ys))
    weights, line = [1.0] * len(ys), _Line(0.0)
    for _ in range(_ITERATIONS):
        whole = sum(weights)
        x0 = sum(w * x for w, x in zip(weights, xs, strict=True)) / whole
        y0 = sum(w * y for w, y in zip(weights, ys, strict=True)) / whole
        along = sum(w * (x - x0) ** 2 for w, x in zip(weights, xs, strict=True)) + whole / 1_000
        across = sum(w * (x - x0) * (y - y0) for w, x, y in zip(weights, xs, ys, strict=True))
        line = _Line(y0 - across / along * x0, across / along)
        weights = [1 / max(abs(y - line.level - line.slope * x), _NEAR) for x, y in zip(xs, ys, strict=True)]
    return line


class Shape(msgspec.Struct, frozen=True):
    """What a run looks like. Tokens."""

    prefix: int
    """Its first request."""
    turns: int = SHAPE_TURNS
    growth: int = SHAPE_GROWTH
    """By which each request is longer than the one before it: the answer, results, what was said."""
    output: int = SHAPE_OUTPUT
    most_turns: int = 0
    """It has at most so many; 0: it is not said."""

    def cost(self, price: Price, turns: int, done: int = 0) -> int:
        """Bill the turns from `done` on until there were so many, with a cache that keeps what was sent (nano-dollars)."""
        return sum(self._turn(price, turn) for turn in range(done, turns))

    def _turn(self, price: Price, turn: int) -> int:
        new = self.growth if turn else self.prefix
        before = self.prefix + self.growth * (turn - 1) if turn else 0
        usage = Usage(input_tokens=0, cache_read_tokens=before, cache_write_tokens=new, output_tokens=self.output)
        return cost(price, usage)


def from_shape(shape: Shape, price: Price, progress: Progress = Progress()) -> Forecast:  # noqa: B008  (it does not change)
    """Say what a run of a shape costs. Its range is between a turn and three times as many as expected, or all that it may have.

    After k turns as many again are expected: of a thing of which nothing is known but its age (Gott, "Implications of the
    Copernican principle", Nature 363, 1993). Then what a turn cost until now is what goes for those to come.
    """
    done = progress.turns
    turns = max(shape.turns, 2 * done) if done else shape.turns
    most = max(shape.most_turns or 3 * turns, done + 1)
    turns = min(max(turns, done + 1), most)

    def until(count: int) -> int:
        return progress.cost + shape.cost(price, count, done)

    return Forecast(until(turns), until(min(done + 1, most)), until(most), 0.0, 0)
