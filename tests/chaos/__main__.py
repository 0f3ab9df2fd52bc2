"""`python -m tests.chaos [--short] [--random N] [--pg-faults N] [--seed S] [--seeds N]`: break it, and count what happened.

First the kills of one server on a data file, then a fleet on PostgreSQL (kills, freezes, restarts of the database, cut
connections, wrong clocks), then simulated deployments. Exit 1 if anything was lost or repeated, or a simulation violated an
invariant.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from typing import Any

from stanchion.cli.loop import run_loop
from stanchion.testing.postgres import NoPostgres
from tests.chaos.matrix import FLEET, Shape, matrix
from tests.chaos.sweep import sweep
from tests.simulation.sweep import sweep as play


def main() -> int:
    """Run the sweeps and print one JSON document."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--short", action="store_true", help="a few of each kind, for CI")
    parser.add_argument("--random", type=int, default=None, metavar="N", help="kills at random moments (default 1000)")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the random moments; printed")
    parser.add_argument(
        "--pg-faults", type=int, default=None, metavar="N", help="faults of the fleet (default 2000; short 40)"
    )
    parser.add_argument(
        "--pg-processes", default="", metavar="KIND,..", help="what the fleet is made of: serve, worker, api"
    )
    parser.add_argument("--only-fleet", action="store_true", help="neither kills of one server nor simulations")
    parser.add_argument("--parallel", type=int, default=3, help="cases at once")
    parser.add_argument("--seeds", type=int, default=None, metavar="N", help="simulations (default 100000; short 500)")
    parser.add_argument("--seconds", type=float, default=0.0, help="end the simulations after so long; 0: play all")
    given = parser.parse_args()
    kills = given.random if given.random is not None else (12 if given.short else 1000)
    appends, syncs, effects = (7, 7, 7) if given.short else (24, 30, 8)
    if given.only_fleet:
        appends = kills = given.seeds = 0
    report: dict[str, Any] = {}
    if appends or kills:
        sweeping = sweep(
            appends=appends,
            syncs=syncs,
            effects=effects,
            random_kills=kills,
            seed=given.seed,
            parallel=given.parallel,
        )
        report = asyncio.run(sweeping)
    report["fleet"] = _fleet(given)
    seeds = given.seeds if given.seeds is not None else (500 if given.short else 100_000)
    began = time.monotonic()
    played = play(range(seeds), jobs=2, seconds=given.seconds)
    report["simulation"] = played.summary(time.monotonic() - began)
    print(json.dumps(report, indent=2))
    if played.bad:
        print(f"{len(played.bad)} simulations failed; see `again` for how to play one", file=sys.stderr)
        return 1
    kept = [where for where in (report.get("kept"), report["fleet"].get("kept")) if where]
    if kept:
        print(f"something was bad; the databases or logs are kept in {', '.join(kept)}", file=sys.stderr)
        return 1
    return 0


def _fleet(given: argparse.Namespace) -> dict[str, Any]:
    """Play the matrix on PostgreSQL."""
    faults = given.pg_faults if given.pg_faults is not None else (40 if given.short else 2_000)
    if not faults:
        return {}
    kinds = given.pg_processes.split(",") if given.pg_processes else FLEET
    shape = Shape(faults=faults, seed=given.seed, kinds=kinds, in_flight=12 if given.short else 24)
    try:
        return run_loop(matrix(shape))
    except NoPostgres as error:
        return {"skipped": f"no PostgreSQL can be started here: {error}"}


if __name__ == "__main__":
    sys.exit(main())
