"""`python bench/guard/agentdojo.py --runs FILE`: replay recorded AgentDojo runs through the guard, one JSON line a suite and variant.

FILE is JSON lines (`.jsonl`, `.jsonl.xz`), a run a line, in the form in which AgentDojo logs it. Without FILE, runs are made from the
tasks' own ground truths (`--synthetic`). Verdicts are the guard's, on states folded from real events; success and usefulness are judged by the
benchmark's own checkers in its live environments.
"""

from __future__ import annotations

import sys
from pathlib import Path

if sys.path and Path(sys.path[0]).resolve() == Path(__file__).resolve().parent:
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # run as a file: `agentdojo` is the benchmark, not this

import argparse
import json
import multiprocessing
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator

from bench.guard.environment import inside

SUITES = ("workspace", "slack", "banking", "travel")


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    parser.add_argument("--runs", type=Path, metavar="FILE", help="recorded runs, .jsonl or .jsonl.xz")
    parser.add_argument(
        "--synthetic", action="store_true", help="runs made from the ground truths of tasks and injections"
    )
    parser.add_argument("--suite", nargs="+", choices=SUITES, default=list(SUITES))
    parser.add_argument("--variant", nargs="+", default=["default"], help="tiers, destinations, .., or all")
    parser.add_argument("--sample", type=int, default=1, metavar="N", help="only every Nth run")
    parser.add_argument("--kind", nargs="+", default=[], help="only these: attack, benign, denial")
    parser.add_argument(
        "--turned",
        action="store_true",
        help="take attacks that failed when recorded as failed, without a replay: four times as fast",
    )
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--outcomes", type=Path, metavar="FILE", help="write what became of each run, a line each")
    given = parser.parse_args()
    if not given.runs and not given.synthetic:
        parser.error("give --runs FILE, or --synthetic")
    if given.runs and not given.runs.is_file():
        parser.error(f"--runs: there is no file {str(given.runs)!r}")
    return given


def main() -> None:
    """Replay what the command line says."""
    given = arguments()
    inside("bench.guard.agentdojo")
    from bench.guard.accounting import Outcome, row
    from bench.guard.variants import BY_NAME

    names = list(BY_NAME) if given.variant == ["all"] else given.variant
    if unknown := [name for name in names if name not in BY_NAME]:
        sys.exit(f"--variant: there is no {unknown[0]!r}; there are {', '.join(BY_NAME)}, or all")
    for name in names:
        began = time.monotonic()
        grouped: dict[str, list[Outcome]] = defaultdict(list)
        for outcome in outcomes(given, name):
            grouped[outcome.suite].append(outcome)
        took = round(time.monotonic() - began, 1)
        for suite in given.suite:
            if grouped[suite]:
                print(json.dumps({**row(suite, name, grouped[suite]), "took_s": took}), flush=True)
        if given.outcomes:
            _keep(given.outcomes, name, [one for group in grouped.values() for one in group])


def outcomes(given: argparse.Namespace, variant: str) -> Iterator:
    """Replay all runs under a variant, in processes of their own."""
    from bench.guard.work import begin, one

    with multiprocessing.get_context("fork").Pool(
        given.jobs, begin, (variant, tuple(given.suite), tuple(given.kind), given.turned)
    ) as pool:
        for outcome in pool.imap_unordered(one, lines(given), chunksize=16):
            if outcome is not None:
                yield outcome


def lines(given: argparse.Namespace) -> Iterable[bytes]:
    """Give the runs, as JSON."""
    from bench.guard.recordings import read
    from bench.guard.synthetic import synthetic

    source = read(given.runs) if given.runs else synthetic(given.suite)
    return (line for number, line in enumerate(source) if number % given.sample == 0)


def _keep(file: Path, variant: str, kept: list) -> None:
    import msgspec

    with file.open("ab") as out:
        for outcome in kept:
            out.write(msgspec.json.encode({"variant": variant, **msgspec.to_builtins(outcome)}) + b"\n")


if __name__ == "__main__":
    main()
