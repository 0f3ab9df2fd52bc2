"""Many seeds over a pool of processes, and the search for a smaller plan that still fails."""

from __future__ import annotations

import multiprocessing
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.simulation.faults import Plan
from tests.simulation.scenario import simulate

_CHUNK = 20
_Played = tuple[int, str, int, dict[str, int]]


@dataclass(slots=True)
class Report:
    """What came of many simulations."""

    seeds: int = 0
    events: int = 0
    bad: list[int] = field(default_factory=list)
    problems: dict[int, str] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, played: _Played) -> None:
        seed, problem, events, counts = played
        self.seeds += 1
        self.events += events
        self.counts.update(counts)
        if problem:
            self.bad.append(seed)
            self.problems[seed] = problem

    def summary(self, seconds: float) -> dict[str, Any]:
        """Say it as JSON."""
        return {
            "seeds": self.seeds,
            "bad": len(self.bad),
            "problems": dict(list(self.problems.items())[:20]),
            "again": [f"python -m tests.simulation --seed {seed} --trace" for seed in self.bad[:5]],
            "events": self.events,
            "what_happened": dict(self.counts.most_common()),
            "seconds": round(seconds, 1),
        }


def sweep(seeds: range, *, jobs: int = 2, seconds: float = 0.0, **fixed: Any) -> Report:
    """Play seeds, all of them or until the time is up."""
    report, end_s = Report(), time.monotonic() + seconds if seconds else float("inf")
    chunks = [
        (range(first, min(first + _CHUNK, seeds.stop)), fixed) for first in range(seeds.start, seeds.stop, _CHUNK)
    ]
    for played in _played(chunks, jobs):
        for one in played:
            report.add(one)
        if time.monotonic() > end_s:
            break
    return report


def _played(chunks: list[tuple[range, dict[str, Any]]], jobs: int) -> Iterator[list[_Played]]:
    if jobs <= 1:
        yield from map(_play, chunks)
        return
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        yield from pool.imap(_play, chunks)


def _play(chunk: tuple[range, dict[str, Any]]) -> list[_Played]:
    seeds, fixed = chunk
    outcomes = [simulate(Plan.of(seed, **fixed)) for seed in seeds]
    return [(outcome.plan.seed, outcome.problem, outcome.events, outcome.counts) for outcome in outcomes]


_SMALLER: tuple[tuple[str, tuple[Any, ...]], ...] = (
    ("requests", (1, 2, 3)),
    ("machines", (1, 2)),
    ("people", (0.0,)),
    ("crashes", (0.0,)),
    ("drains", (0.0,)),
    ("jumps", (0.0,)),
    ("kills", (0.0,)),
    ("freezes", (0.0,)),
    ("aim", (0.0,)),
    ("model_fault", (0.0,)),
    ("tool_fault", (0.0,)),
    ("write_fault", (0.0,)),
    ("read_fault", (0.0,)),
    ("hint_fault", (0.0,)),
    ("reorder", (0.0,)),
    ("budget", (0,)),
)


def shrink(seed: int, fixed: dict[str, Any]) -> dict[str, Any]:
    """Take faults away one after the other, as long as the same invariant is violated."""
    kind = simulate(Plan.of(seed, **fixed)).problem.partition(":")[0]
    found = dict(fixed)
    for name, values in _SMALLER:
        now = getattr(Plan.of(seed, **found), name)
        for value in values:
            if value >= now:
                break
            if simulate(Plan.of(seed, **{**found, name: value})).problem.partition(":")[0] == kind:
                found[name] = value
                break
    return found
