"""`python -m tests.chaos [--short] [--random N] [--seed S] [--seeds N]`: kill the server and count, then simulate deployments.

Exit 1 if anything was lost or repeated, or a simulation violated an invariant.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time

from tests.chaos.sweep import sweep
from tests.simulation.sweep import sweep as play


def main() -> int:
    """Run the sweeps and print one JSON document."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--short", action="store_true", help="a few of each kind, for CI")
    parser.add_argument("--random", type=int, default=None, metavar="N", help="kills at random moments (default 1000)")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the random moments; printed")
    parser.add_argument("--parallel", type=int, default=3, help="cases at once")
    parser.add_argument("--seeds", type=int, default=None, metavar="N", help="simulations (default 100000; short 500)")
    parser.add_argument("--seconds", type=float, default=0.0, help="end the simulations after so long; 0: play all")
    given = parser.parse_args()
    kills = given.random if given.random is not None else (12 if given.short else 1000)
    appends, syncs, effects = (7, 7, 7) if given.short else (24, 30, 8)
    report = asyncio.run(
        sweep(
            appends=appends,
            syncs=syncs,
            effects=effects,
            random_kills=kills,
            seed=given.seed,
            parallel=given.parallel,
        )
    )
    seeds = given.seeds if given.seeds is not None else (500 if given.short else 100_000)
    began = time.monotonic()
    played = play(range(seeds), jobs=2, seconds=given.seconds)
    report["simulation"] = played.summary(time.monotonic() - began)
    print(json.dumps(report, indent=2))
    if played.bad:
        print(f"{len(played.bad)} simulations failed; see `again` for how to play one", file=sys.stderr)
        return 1
    if report["kept"]:
        print(f"the databases of the bad cases are kept in {report['kept']}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
