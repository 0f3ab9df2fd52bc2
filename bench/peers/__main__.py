"""`python -m bench.peers`: the same agent in Stanchion and its peers, measured side by side.

    python -m bench.peers --short                  a quick look: one repeat, small sizes, rough figures
    python -m bench.peers                          the full set; each finished cell is kept in .peers/results.json
    python -m bench.peers --missing                go on with a set that was broken off
    python -m bench.peers --only 1,3 --peers stanchion,langgraph-sync --repeats 3
    python -m bench.peers --publish                write bench/peers/results.json, the plots, and the part of BENCHMARKS.md

Comparisons: 1 CPU of a turn, 2 bytes stored, 3 SIGKILL in a tool call, 4 spend against $1.00, 5 first token, 6 memory of a
run, 7 streams that are cut. Repeats are interleaved: each repeat takes every framework once. A cell that cannot be measured is
a finding, printed and kept with its reason; the exit code is 1 where Stanchion itself could not be measured.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from bench.peers import cells, kills
from bench.peers.cells import FULL, SHORT, Figures, Size
from bench.peers.peers import BY_NAME, ENVIRONMENTS, PEERS, Peer, make
from bench.peers.publish import COMMITTED, publish
from bench.peers.report import page
from bench.peers.results import Results, read
from bench.peers.streams import streams
from bench.peers.world import World, world
from bench.report import machine

NUMBERS = {
    1: ("cpu", "crowd"), 2: ("bytes",), 3: ("kill", "kill-other"), 4: ("spend",), 5: ("first",), 6: ("memory",),
    7: ("streams",),
}  # fmt: skip
STEADY = ("cpu", "first", "memory")
"""What one warm process shows, in one go."""
FEWER = {"memory": 5, "crowd": 1, "bytes": 1, "kill": 3, "kill-other": 3, "spend": 2, "streams": 1}
"""Repeats of what takes long or is a count of many, unless all are asked for: 1,000 runs are one cell's crowd, 30 are killed,
100 readers are cut, and bytes do not vary."""
GROUPS = ("steady", "crowd", "bytes", "kill", "kill-other", "spend", "streams")
USUAL_S = {
    "steady": 36.0, "crowd": 75.0, "bytes": 70.0, "kill": 13.0, "kill-other": 14.0, "spend": 35.0, "streams": 14.0,
}  # fmt: skip
SHORTLY_S = {
    "steady": 10.0, "crowd": 9.0, "bytes": 8.0, "kill": 11.0, "kill-other": 12.0, "spend": 14.0, "streams": 9.0,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Task:
    """A peer, once, for one or more comparisons."""

    group: str
    parts: tuple[str, ...]
    peer: Peer
    repeat: int

    def key(self, part: str) -> str:
        """Name a cell."""
        return f"{part}/{self.peer.name}/{self.repeat}"


def plan(parts: set[str], peers: list[Peer], repeats: int, results: Results, *, every: bool = False) -> list[Task]:
    """List what is to be done: repeats outermost, so that all frameworks meet the same hour."""
    fewer = {} if every else FEWER
    tasks: list[Task] = []
    for repeat in range(repeats):
        turned = peers[repeat % len(peers) :] + peers[: repeat % len(peers)]
        for group in GROUPS:
            asked = [part for part in (STEADY if group == "steady" else (group,)) if repeat < fewer.get(part, repeats)]
            for peer in turned:
                wanted = (part for part in asked if part in parts and _has(peer, part))
                if mine := tuple(part for part in wanted if not results.has(f"{part}/{peer.name}/{repeat}")):
                    tasks.append(Task(group, mine, peer, repeat))
    return tasks


def _has(peer: Peer, part: str) -> bool:
    """Whether a comparison makes sense for a peer."""
    if part == "kill-other":
        return peer.other_worker and "kill" in peer.parts
    return part in peer.parts


async def _do(world: World, task: Task, size: Size) -> dict[str, Figures]:
    """Measure a task; give its cells."""
    of: dict[str, Callable[[], Awaitable[Figures]]] = {
        "crowd": lambda: cells.crowd(world, task.peer, size),
        "bytes": lambda: cells.stored(world, task.peer, size),
        "kill": lambda: kills.kill(world, task.peer, size, "restart"),
        "kill-other": lambda: kills.kill(world, task.peer, size, "other"),
        "spend": lambda: cells.spend(world, task.peer, size),
        "streams": lambda: streams(world, task.peer, size, task.repeat),
    }
    if task.group == "steady":
        return await cells.steady(world, task.peer, size, set(task.parts))
    return {task.group: await of[task.group]()}


async def measure(tasks: list[Task], size: Size, results: Results, path: Path) -> None:
    """Measure tasks one after the other, keeping each cell as it is found."""
    left = sum(_expected_s(task, size) for task in tasks)
    print(f"{len(tasks)} steps, about {left / 60:.0f} minutes", file=sys.stderr, flush=True)
    async with world() as shared:
        for done, task in enumerate(tasks):
            began = time.monotonic()
            try:
                found = await _do(shared, task, size)
            except Exception as error:  # a framework that cannot do it is a finding, and the next one is measured
                found = {part: {"error": f"{type(error).__name__}: {error}"[-1_000:]} for part in task.parts}
            took = time.monotonic() - began
            for part, figures in found.items():
                results.cells[task.key(part)] = figures
            results.write(path)
            left -= _expected_s(task, size)
            _tell(f"{done + 1}/{len(tasks)}", task, found, took, left)


def _expected_s(task: Task, size: Size) -> float:
    return (SHORTLY_S if size is SHORT else USUAL_S)[task.group]


def _tell(place: str, task: Task, found: dict[str, Figures], took: float, left: float) -> None:
    failed = [figures["error"] for figures in found.values() if "error" in figures]
    said = f"FAILED: {failed[0]}" if failed else "done"
    what = f"{task.peer.name} {'+'.join(task.parts)} #{task.repeat}"
    print(f"{place} {what}: {said} in {took:.0f} s, about {left / 60:.0f} min left", file=sys.stderr, flush=True)


def main() -> None:
    """Do what the command line says."""
    given = _parsed()
    path: Path = given.json or ENVIRONMENTS / ("short.json" if given.short else "results.json")
    if given.publish:
        publish(read(path if path.is_file() else COMMITTED))
        return
    parts = {part for number in given.only for part in NUMBERS[number]}
    results = read(path) if given.missing and path.is_file() else Results(short=given.short)
    for peer in given.peers:
        make(peer)
        results.versions[peer.name] = peer.versions()
    results.machine = machine()
    repeats = given.repeats or (1 if given.short else 10)
    tasks = plan(parts, given.peers, repeats, results, every=given.every)
    asyncio.run(measure(tasks, SHORT if given.short else FULL, results, path))
    print(page(results))
    sys.exit(any("/stanchion/" in key for key in results.errors()))


def _parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.peers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--short", action="store_true", help="a quick form, whose figures are rough")
    parser.add_argument(
        "--only", type=_numbers, default=list(NUMBERS), metavar="1,3", help="comparisons (default: all)"
    )
    parser.add_argument("--peers", type=_peers, default=list(PEERS), metavar="NAME,..", help=", ".join(BY_NAME))
    parser.add_argument("--repeats", type=int, metavar="N", help="repeats (default: 10; 1 with --short)")
    parser.add_argument("--every", action="store_true", help="so many repeats of everything: hours instead of one")
    parser.add_argument("--missing", action="store_true", help="keep the cells that are there, and measure the others")
    parser.add_argument("--json", type=Path, metavar="FILE", help="the set's file (default: .peers/results.json)")
    parser.add_argument("--publish", action="store_true", help="measure nothing; write tables and plots from the set")
    return parser.parse_args()


def _numbers(text: str) -> list[int]:
    numbers = [int(word) for word in text.split(",") if word.isdigit()]
    if not numbers or set(numbers) - set(NUMBERS):
        raise argparse.ArgumentTypeError(f"{text!r}: say numbers from 1 to {max(NUMBERS)}, as in 1,3")
    return numbers


def _peers(text: str) -> list[Peer]:
    unknown = [name for name in text.split(",") if name not in BY_NAME]
    if unknown:
        raise argparse.ArgumentTypeError(f"there is no peer {unknown[0]!r}; there are {', '.join(BY_NAME)}")
    return [BY_NAME[name] for name in text.split(",")]


if __name__ == "__main__":
    main()
