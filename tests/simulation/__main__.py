"""`python -m tests.simulation`: play many seeds, or one with its trace.

python -m tests.simulation --seeds 0:500 --jobs 2          exit 1 if a seed fails; each is printed with its trace's tail
python -m tests.simulation --seed 1594 --trace             one seed, whole
python -m tests.simulation --seed 1594 --set requests=1    .. with a part of its plan fixed
python -m tests.simulation --seed 1594 --shrink            .. find a smaller plan that still fails
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

from tests.simulation.faults import Plan
from tests.simulation.scenario import Outcome, simulate
from tests.simulation.sweep import shrink, sweep

TAIL = 30


def main() -> int:
    """Play what is asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="play one seed")
    parser.add_argument("--seeds", default="0:500", help="from:to (default 0:500)")
    parser.add_argument("--seconds", type=float, default=0.0, help="stop after so long; 0: play all")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--trace", action="store_true", help="print the whole trace of the seed")
    parser.add_argument("--shrink", action="store_true", help="find a smaller plan that fails as well")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="fix a part of the plan")
    given = parser.parse_args()
    fixed = dict(_setting(text) for text in given.set)
    if given.seed is None:
        first, _, last = given.seeds.partition(":")
        return _many(int(first), int(last), given, fixed)
    outcome = simulate(Plan.of(given.seed, **fixed))
    _show(outcome, len(outcome.trace) if given.trace else TAIL)
    if outcome.problem and given.shrink:
        smaller = shrink(given.seed, fixed)
        print("a smaller plan that fails: " + " ".join(f"--set {name}={value}" for name, value in smaller.items()))
    return int(bool(outcome.problem))


def _many(first: int, last: int, given: Any, fixed: dict[str, Any]) -> int:
    began = time.monotonic()
    report = sweep(range(first, last), jobs=given.jobs, seconds=given.seconds, **fixed)
    for seed in report.bad[:5]:
        _show(simulate(Plan.of(seed, **fixed)), TAIL)
    print(json.dumps(report.summary(time.monotonic() - began), indent=2))
    return int(bool(report.bad))


def _show(outcome: Outcome, lines: int) -> None:
    print(f"-- seed {outcome.plan.seed}: {outcome.problem or 'ok'}")
    print(f"   {outcome.plan.lines()}")
    for line in outcome.trace[-lines:]:
        print(f"   {line}")
    figures = f"{outcome.events} events, {outcome.steps} steps, {outcome.virtual_s:.0f} virtual seconds"
    print(f"   trace {outcome.digest}, {figures}")


def _setting(text: str) -> tuple[str, Any]:
    name, _, value = text.partition("=")
    if name not in Plan.__dataclass_fields__:
        raise SystemExit(f"a plan has no {name!r}; it has {', '.join(Plan.__dataclass_fields__)}")
    kind = type(getattr(Plan(0), name))
    return name, value in ("1", "true", "True") if kind is bool else kind(value)


if __name__ == "__main__":
    sys.exit(main())
