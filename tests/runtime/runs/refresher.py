"""A process that comes to refresh for a run that waits, says which, and is then killed: data file, provider and time are its arguments."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from stanchion import Runtime
from stanchion.testing import FakeClock
from tests.runtime.runs.test_refresh_waiting import agent
from tests.waiting import until


def say(name: str) -> None:
    """Tell whoever started it."""
    sys.stdout.write(f"{name}\n")
    sys.stdout.flush()


async def main(data: Path, base_url: str, now_ms: int) -> None:
    """Ask, wait for a person, let most of a life pass, and begin to refresh."""
    clock = FakeClock(now_ms)
    environment = {"ANTHROPIC_BASE_URL": base_url, "ANTHROPIC_API_KEY": "sim-key"}
    async with await Runtime.open(agent(), data=data, environment=environment, clock=clock) as runtime:
        started = await runtime.start("desk", "pay", session="killed")
        await runtime.wait(started.run, timeout_s=30)
        await until(lambda: not runtime.active)
        say(started.run)
        sys.stdin.readline()
        clock.advance(271)
        (refresh,) = await runtime.refresh_caches()
        say(refresh)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
