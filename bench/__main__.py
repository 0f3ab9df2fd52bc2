"""`python -m bench [--short] [--json FILE] [--only PART ..]`: measure, print a table, say which targets are met.

Everything runs in processes of its own (`bench.subject`), with the simulated provider in another, and CPU is that of the
process under test. A target that is missed is a finding, not a failure: the exit code is 1 only where something did not
work. The full form takes about ten minutes; the short one a bit over one, and its figures are rough.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from bench.imports import imports
from bench.judging import guard
from bench.measure import Size, append, budget, first_token, live, loop, recordings, turn, waiting
from bench.queued import queued
from bench.quota import quota
from bench.redacting import redact
from bench.relay import relay
from bench.report import machine, table

FULL = Size(
    runs=100, turns=3, spread_s=3.4, live_runs=1_000, live_turns=2, live_spread_s=12.0, waiting_runs=10_000,
    stored_runs=100_000, idle_s=10.0, samples=100, starts=9,
)  # fmt: skip
SHORT = Size(
    runs=30, turns=1, spread_s=1.7, live_runs=100, live_turns=1, live_spread_s=1.0, waiting_runs=1_000,
    stored_runs=5_000, idle_s=3.0, samples=20, starts=3, short=True,
)  # fmt: skip
PARTS: dict[str, Callable[[Size, Path], Awaitable[dict[str, Any]]]] = {
    "imports": imports,
    "append": append,
    "turn": turn,
    "loop": loop,
    "first_token": first_token,
    "live": live,
    "waiting": waiting,
    "queued": queued,
    "budget": budget,
    "recordings": recordings,
    "relay": relay,
    "quota": quota,
    "guard": guard,
    "redact": redact,
}

_MOSTLY_WAIT = ("live", "waiting", "budget", "recordings")


async def measure(size: Size, names: list[str]) -> dict[str, Any]:
    """Measure the parts, one after the other; in the short form those together that mostly wait."""
    results: dict[str, Any] = {"machine": machine(), "short": size.short}
    together = [name for name in names if size.short and name in _MOSTLY_WAIT]
    for name in names:
        if name not in together:
            results[name] = await _part(size, name)
    found = await asyncio.gather(*(_part(size, name) for name in together))
    return {**results, **dict(zip(together, found, strict=True))}


async def _part(size: Size, name: str) -> dict[str, Any]:
    """Measure a part in a folder of its own, and print its line."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="stanchion-bench-") as folder:
        result = await PARTS[name](size, Path(folder))
    print(json.dumps({**result, "bench": name, "took_s": round(time.monotonic() - began, 1)}), flush=True)
    return result


def main() -> None:
    """Measure what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    parser.add_argument("--short", action="store_true", help="a quick form, whose figures are rough")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument("--only", nargs="+", choices=list(PARTS), metavar="PART", help=", ".join(PARTS))
    given = parser.parse_args()
    results = asyncio.run(measure(SHORT if given.short else FULL, given.only or list(PARTS)))
    print("\n" + table(results))
    if given.json:
        given.json.write_text(json.dumps(results, indent=1) + "\n")
    sys.exit(0)


if __name__ == "__main__":
    main()
