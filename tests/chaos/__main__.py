"""`python -m tests.chaos [--short] [--random N] [--seed S]`: kill the server and count; exit 1 if anything was lost or repeated."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time

from tests.chaos.sweep import sweep


def main() -> int:
    """Run the sweeps and print one JSON document."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--short", action="store_true", help="a few of each kind, for CI")
    parser.add_argument("--random", type=int, default=None, metavar="N", help="kills at random moments (default 1000)")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the random moments; printed")
    parser.add_argument("--parallel", type=int, default=3, help="cases at once")
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
    print(json.dumps(report, indent=2))
    if report["kept"]:
        print(f"the databases of the bad cases are kept in {report['kept']}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
