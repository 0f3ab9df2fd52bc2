"""The simulation replays bit for bit, finds what is broken on purpose, and holds what it once found."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.simulation.faults import Plan
from tests.simulation.mutation import MUTATIONS
from tests.simulation.scenario import simulate
from tests.simulation.sweep import shrink, sweep

SHORT = 60
"""Seeds played by the tests; `make chaos` plays more."""

WITHIN = 400
"""Seeds within which a mutant must be found. The first that finds it moves with every change of the code."""

AIMED: dict[str, dict[str, object]] = {
    "first_answer_settles": {"tool_fault": 0.8},
    "key_of_each_attempt": {"tool_fault": 0.6},
    "lost_is_not_in_doubt": {"kills": 0.2, "aim": 0.1, "requests": 5},
    "no_lease_check": {"freezes": 0.2, "aim": 0.1},
    "unknown_is_taken_for_made": {"write_fault": 0.1, "machines": 2, "requests": 5},
}
"""What plans have of the faults by which a mutant shows, where few of those drawn have enough: found in a third of the time."""


def test_seeds_hold() -> None:
    """Under all faults nothing is lost, repeated, overspent or misjudged, and everything comes to its end."""
    report = sweep(range(SHORT), jobs=1)
    assert report.problems == {}
    assert report.events > 2_000
    for what in ("kill", "freeze", "crash", "jump", "drain", "decide", "done"):
        assert report.counts[what] > 0, f"no simulation saw a {what}"


def test_doubts_are_reconciled() -> None:
    """What few drawn plans come to is aimed at: a tool in doubt is asked, and nothing is misjudged for it."""
    report = sweep(range(SHORT), jobs=1, tool_fault=0.6)
    assert report.problems == {}
    assert report.counts["reconciled"] > 0


def test_sessions_are_compacted() -> None:
    """Killed, frozen, cut off and refused at any place: the same holds of what a compaction writes, reserves and settles."""
    report = sweep(range(SHORT // 2), jobs=1, long=True, requests=9, sessions=1)
    assert report.problems == {}
    assert report.counts["compacted"] > 0


def test_a_seed_replays_bit_for_bit() -> None:
    """The same seed gives the same trace twice in a process; another gives another."""
    seeds = (3, 17, 212)
    first = [simulate(Plan.of(seed)) for seed in seeds]
    again = [simulate(Plan.of(seed)) for seed in seeds]
    assert [one.trace for one in first] == [one.trace for one in again]
    assert [one.steps for one in first] == [one.steps for one in again]
    assert len({one.digest for one in first}) == len(seeds)


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_a_seed_replays_in_another_process(hash_seed: str) -> None:
    """No order of a set or of memory takes part."""
    code = (
        "from tests.simulation.scenario import simulate; from tests.simulation.faults import Plan; "
        "print(*(simulate(Plan.of(seed)).digest for seed in (3, 17, 212)))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    made = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert made.stdout.split() == [simulate(Plan.of(seed)).digest for seed in (3, 17, 212)]


@pytest.mark.parametrize("name", sorted(MUTATIONS))
def test_what_is_broken_on_purpose_is_found(name: str) -> None:
    """The simulation bites: each mutant is found, those that bring back a bug it once found in the product among them."""
    for seed in range(WITHIN):
        outcome = simulate(Plan.of(seed, mutation=name, **AIMED.get(name, {})))
        if outcome.problem:
            assert not outcome.problem.startswith("simulation"), outcome.problem
            return
    raise AssertionError(f"no seed finds {name}")


def test_a_failing_seed_is_shrunk() -> None:
    """A smaller plan fails for the same reason."""
    fixed = {"mutation": "never_settles"}
    seed = next(seed for seed in range(60) if simulate(Plan.of(seed, **fixed)).problem)
    smaller = shrink(seed, fixed)
    assert len(smaller) > len(fixed)
    assert simulate(Plan.of(seed, **smaller)).problem.startswith("I7")
