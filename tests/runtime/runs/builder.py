"""A process that comes to refresh for a run whose tool is at work, says which, and is then killed: data file, provider and time are its arguments."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from stanchion import Runtime
from stanchion.testing import FakeClock
from tests.runtime.runs.refresher import say
from tests.runtime.runs.test_refresh_working import Site, agent


async def main(data: Path, base_url: str, now_ms: int) -> None:
    """Begin to build, let most of a life pass, and begin to refresh."""
    clock, site = FakeClock(now_ms), Site()
    environment = {"ANTHROPIC_BASE_URL": base_url, "ANTHROPIC_API_KEY": "sim-key"}
    async with await Runtime.open(agent(site), data=data, environment=environment, clock=clock) as runtime:
        started = await runtime.start("desk", "build", session="killed")
        await site.begun.get()
        say(started.run)
        sys.stdin.readline()
        clock.advance(271)
        (refresh,) = await runtime.refresh_caches()
        say(refresh)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
