"""CPU of a streamed turn: `python bench/wire/cpu.py [--turns N] [--rounds N] [--profile]`.

A turn is a model call of 170 events, one every 20 ms, from `pace.py` in a process of its own. N turns run at once, on
uvloop. Prints one JSON line of CPU-ms a turn of this process (user + system): our wire with and without a listener,
beside a bare aiohttp read of the same stream (every chunk as it comes, nothing decoded) as the floor.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import json
import pstats
import resource
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import aiohttp
import uvloop

from stanchion.core.message import USER, Delta, Message, ModelRequest, Text
from stanchion.model.client import Endpoint, Timeouts
from stanchion.model.providers import open_client

SPREAD_S = 3.4
"""Turns begin evenly over the length of one: in step with each other they would share wake-ups as no real load does."""

REQUEST = ModelRequest("paced", (Message("user", (Text("x" * 2000, USER),)),), 1000)


def cpu_s() -> float:
    """User and system time of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def measure(turn: Callable[[], Awaitable[None]], turns: int, rounds: int) -> dict[str, float]:
    """CPU-ms a turn and wall seconds of the slowest round, after a warming round of one turn."""
    await turn()
    began, walls = cpu_s(), [0.0]
    for _ in range(rounds):
        at = time.monotonic()
        await asyncio.gather(*(_after(i * SPREAD_S / turns, turn) for i in range(turns)))
        walls.append(time.monotonic() - at)
    return {"cpu_ms": round((cpu_s() - began) / (turns * rounds) * 1000, 2), "wall_s": round(max(walls), 2)}


async def _after(delay_s: float, turn: Callable[[], Awaitable[None]]) -> None:
    await asyncio.sleep(delay_s)
    await turn()


async def bare(base_url: str, turns: int, rounds: int) -> dict[str, float]:
    """The floor: aiohttp, chunk by chunk, undecoded."""
    body = b"x" * 2000
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def turn() -> None:
            async with session.post(f"{base_url}/chat/completions", data=body) as response:
                async for _ in response.content.iter_any():
                    pass

        return await measure(turn, turns, rounds)


async def wire(base_url: str, turns: int, rounds: int, *, listen: bool) -> dict[str, float]:
    """Our client, each answer checked."""
    client = open_client("vllm", Endpoint(base_url))
    seen = 0

    def on_deltas(deltas: Sequence[Delta]) -> None:
        nonlocal seen
        seen += len(deltas)

    async def turn() -> None:
        response = await client.call(REQUEST, timeouts=Timeouts(), on_deltas=on_deltas if listen else None)
        if response.finish != "stop" or response.usage is None:
            raise SystemExit(f"a turn went wrong: {response}")

    try:
        return await measure(turn, turns, rounds)
    finally:
        await client.aclose()


async def run(base_url: str, turns: int, rounds: int, *, floor: bool) -> dict[str, object]:
    """The readings."""
    out: dict[str, object] = {"turns": turns, "rounds": rounds, "events": 170, "gap_ms": 20}
    out["wire_listening"] = await wire(base_url, turns, rounds, listen=True)
    if floor:
        out["wire_silent"] = await wire(base_url, turns, rounds, listen=False)
        out["bare_aiohttp"] = await bare(base_url, turns, rounds)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    parser.add_argument("--turns", type=int, default=100, help="turns at once")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--profile", action="store_true", help="profile our wire alone, to standard error")
    given = parser.parse_args()
    server = subprocess.Popen(
        [sys.executable, str(Path(__file__).parent / "pace.py")], stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        base_url = f"http://127.0.0.1:{int(server.stdout.readline())}"
        profile = cProfile.Profile()
        if given.profile:
            profile.enable()
        print(json.dumps(uvloop.run(run(base_url, given.turns, given.rounds, floor=not given.profile))))
        if given.profile:
            profile.disable()
            pstats.Stats(profile, stream=sys.stderr).sort_stats("tottime").print_stats(30)
    finally:
        server.kill()
        server.wait()


if __name__ == "__main__":
    main()
