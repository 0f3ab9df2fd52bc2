"""The process under test: `python -m bench.subject ACTIVITY JSON`. Does one thing and prints what it cost as JSON lines.

CPU is user and system time of this process alone: the simulated provider and the clients have processes of their own.
Every activity imports the same modules, so that `empty` is the floor of memory for all.
"""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import uvloop

from bench.cost import Spec, cpu_s, rss_bytes
from bench.parts import bare, journal, loop, wire
from bench.queued import beside, fill
from bench.runs import budget, serve, turns
from bench.waiting import idle, multiply, wait_here


async def empty(_: Spec) -> dict[str, Any]:
    """Do nothing, with everything imported."""
    gc.collect()
    return {"rss": rss_bytes(), "cpu_s": round(cpu_s(), 3)}


ACTIVITIES: dict[str, Callable[[Spec], Coroutine[Any, Any, dict[str, Any]]]] = {
    activity.__name__: activity
    for activity in (empty, bare, wire, journal, loop, turns, serve, budget, wait_here, multiply, idle, fill, beside)
}


def main() -> None:
    """Do what the command line says."""
    name, spec = sys.argv[1], json.loads(sys.argv[2])
    print(json.dumps(uvloop.run(ACTIVITIES[name](spec))), flush=True)


if __name__ == "__main__":
    main()
