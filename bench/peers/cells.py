"""The measurements: each takes one framework once, on a database of its own, and gives figures.

CPU is user and system time of the subject's process. The database's is that of the server and all its children meanwhile.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from dataclasses import dataclass
from typing import Any

from bench.client import first_token_s
from bench.peers.peers import Peer
from bench.peers.work import GAP_S, PROMPT, script
from bench.peers.world import Running, SubjectFailed, World
from stanchion.sim import Pacing, Script
from stanchion.sim.script import Reply

Figures = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured in one go."""

    at_once: dict[int, int]
    """Runs at once, and how many runs in all."""
    turns: int
    crowd: int
    crowd_turns: int
    live: int
    live_turns: int
    steps: tuple[int, ...]
    steps_cap_s: float
    many: int
    """Runs of ten steps each, whose bytes are shared out: what a table costs before its first row no longer shows."""
    kills: int
    """Runs of each kind of write that one kill meets."""
    offered: dict[int, int]
    """Runs at once, and the turns of each, whose whole bill would be well over a dollar."""
    samples: int
    readers: int
    disconnects: int


FULL = Size(
    at_once={1: 3, 10: 10, 100: 100}, turns=3, crowd=1_000, crowd_turns=2, live=100, live_turns=1,
    steps=(10, 100, 1_000), steps_cap_s=240, many=100, kills=5, offered={5: 20, 20: 10, 50: 6, 200: 3}, samples=10,
    readers=20, disconnects=100,
)  # fmt: skip
SHORT = Size(
    at_once={1: 1, 10: 10, 100: 20}, turns=2, crowd=100, crowd_turns=1, live=20, live_turns=1, steps=(10, 50),
    steps_cap_s=30, many=20, kills=2, offered={5: 20, 20: 10}, samples=3, readers=4, disconnects=12,
)  # fmt: skip


async def steady(world: World, peer: Peer, size: Size, parts: set[str]) -> Figures:
    """Measure what one warm process can show: `cpu`, `first`, `memory`."""
    found: Figures = {}
    await world.play(script(2))
    async with world.subject(peer) as (running, _):
        await running.ask("runs", names=[f"warm{n}" for n in range(5)], at_once=5)
        if "memory" in parts:
            await world.play(script(size.live_turns, gap_s=GAP_S))
            cost = await _turns(world, running, "m", size.live, size.live, size.live_turns, over_s=1.0)
            found["memory"] = {**cost, **_by_run(cost, size.live)}
        if "cpu" in parts:
            found["cpu"] = {}
            await world.play(script(size.turns))
            for at_once, runs in size.at_once.items():
                found["cpu"][str(at_once)] = await _turns(world, running, f"c{at_once}", runs, at_once, size.turns)
        if "first" in parts:
            found["first"] = await _first(world, running, size.samples)
    return found


async def crowd(world: World, peer: Peer, size: Size) -> Figures:
    """Measure the CPU of a turn where very many runs are at once in one process, and their memory."""
    await world.play(script(2))
    async with world.subject(peer) as (running, _):
        await running.ask("runs", names=[f"warm{n}" for n in range(5)], at_once=5)
        await world.play(script(size.crowd_turns))
        cost = await _turns(world, running, "x", size.crowd, size.crowd, size.crowd_turns)
        return {**cost, **_by_run(cost, size.crowd)}


def _by_run(cost: Figures, runs: int) -> Figures:
    return {
        "rss_kb_per_run": (cost["rss_most"] - cost["rss_before"]) / runs / 1e3,
        "uss_kb_per_run": (cost["uss_most"] - cost["uss_before"]) / runs / 1e3,
    }


async def _turns(
    world: World, running: Running, name: str, runs: int, at_once: int, turns: int, *, over_s: float = 0.0
) -> Figures:
    before = world.database_cpu_s()
    names = [f"{name}-{number}" for number in range(runs)]
    cost = await running.ask("runs", timeout_s=900, names=names, at_once=at_once, over_s=over_s)
    database = world.database_cpu_s() - before
    if cost["failed"]:
        raise SubjectFailed(f"{cost['failed']} of {runs} runs failed: {cost['failures']}")
    count = runs * turns
    return {
        **cost, "at_once": at_once, "turns": count, "cpu_ms": cost["cpu_s"] / count * 1e3,
        "database_cpu_ms": database / count * 1e3, "turns_per_s_core": count / cost["cpu_s"],
    }  # fmt: skip


async def _first(world: World, running: Running, samples: int) -> Figures:
    """Time first tokens, in turn with those of a bare client at the provider."""
    pacing = Pacing(first_s=0.02, interval_s=0.002, events=8)
    await world.play(Script(default=Reply(text="It left our house on Monday. " * 3, pacing=pacing)))
    body = {
        "model": "bench", "max_tokens": 400, "stream": True,
        "messages": [{"role": "user", "content": PROMPT.format("bare")}],
    }  # fmt: skip
    headers = {"x-api-key": "k", "anthropic-version": "2023-06-01"}
    bare, theirs = list[float](), list[float]()
    for number in range(samples + 1):
        url = f"{world.sim.base_url}/v1/messages"
        bare.append(await first_token_s(world.http, url, b"content_block_delta", json=body, headers=headers))
        theirs.append((await running.ask("first", name=f"f-{number}"))["first_s"])
    bare, theirs = bare[1:], theirs[1:]
    return {
        "bare_ms": statistics.median(bare) * 1e3, "first_ms": statistics.median(theirs) * 1e3,
        "added_ms": (statistics.median(theirs) - statistics.median(bare)) * 1e3,
    }  # fmt: skip


async def stored(world: World, peer: Peer, size: Size) -> Figures:
    """Measure what runs of so many steps leave in the database; give up on a run that takes too long, and say so."""
    found: Figures = {"many": await _many(world, peer, size.many)}
    for steps in size.steps:
        await world.play(script(steps, gap_s=0, events=4))
        async with world.subject(peer) as (running, dsn):
            empty = await world.stored_bytes(dsn)
            began = time.monotonic()
            try:
                cost = await running.ask("runs", timeout_s=size.steps_cap_s, names=["r"], at_once=1)
            except SubjectFailed as error:
                await running.kill()
                calls = (await world.bill())["requests"]
                size_now = await world.stored_bytes(dsn)
                found[str(steps)] = {"gave_up": str(error)[:200], "calls": calls, "bytes": size_now, "empty": empty}
                break
            if cost["failed"]:
                raise SubjectFailed(str(cost["failures"]))
            calls = (await world.bill())["requests"]
            if calls != steps:
                raise SubjectFailed(f"a run of {steps} steps made {calls} model calls")
            size_now = await world.stored_bytes(dsn)
            found[str(steps)] = {
                "bytes": size_now, "empty": empty, "per_step": size_now / steps, "wall_s": time.monotonic() - began
            }  # fmt: skip
    return found


async def _many(world: World, peer: Peer, runs: int) -> Figures:
    """Measure what a run of ten steps stores where it is one of many."""
    await world.play(script(10, gap_s=0, events=4))
    async with world.subject(peer) as (running, dsn):
        cost = await running.ask("runs", names=[f"b-{number}" for number in range(runs)], at_once=10)
        if cost["failed"]:
            raise SubjectFailed(str(cost["failures"]))
        return {"runs": runs, "bytes_per_run": await world.stored_bytes(dsn) / runs}


async def _calls_within(world: World, peer: Peer, usd: float, turns: int) -> int:
    """Find how many calls of one run cost at most so much: what a user would allow who knew every bill beforehand."""
    bills = list[float]()
    async with world.subject(peer) as (trial, _):
        for length in (1, turns):
            await world.play(script(length, gap_s=0, events=4))
            await trial.ask("runs", names=[f"trial-{length}"], at_once=1)
            bills.append((await world.bill())["usd"])
    first, whole = bills
    growth = (whole - turns * first) / (turns * (turns - 1) / 2)
    fitting = (calls for calls in range(turns, 0, -1) if calls * first + growth * calls * (calls - 1) / 2 <= usd)
    return next(fitting, 1)


async def spend(world: World, peer: Peer, size: Size) -> Figures:
    """Offer runs whose bill would be over a dollar, with the framework's own limit set to a dollar; read the bill."""
    found: Figures = {}
    for runs, turns in size.offered.items():
        await world.play(script(turns, gap_s=0, events=4))
        limit: Figures = {}
        if peer.limit == "dollars":
            limit = {"limit_usd": "1.00"}
        elif peer.limit == "dollars a run":
            limit = {"limit_usd_per_run": str(1 / runs)}
        else:
            limit = {"limit_calls": await _calls_within(world, peer, 1 / runs, turns)}
        await world.play(script(turns, gap_s=0, events=4))
        async with world.subject(peer, **limit) as (running, _):
            names = [f"s-{number}" for number in range(runs)]
            cost = await running.ask("runs", names=names, at_once=runs)
            await asyncio.sleep(0.3)
            bill = await world.bill()
        found[str(runs)] = {
            "spent_usd": bill["usd"], "calls": bill["requests"], "stopped": cost["failed"], "runs": runs,
            "why": cost["failures"][:1], "limit": limit,
        }  # fmt: skip
    return found
