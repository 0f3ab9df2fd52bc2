"""What a process has cost: CPU, wall and memory, of this process alone."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

Spec = dict[str, Any]


def cpu_s() -> float:
    """User and system time of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def rss_bytes() -> int:
    """Resident memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Meter:
    """CPU, wall and memory since it was made."""

    def __init__(self) -> None:
        gc.collect()
        self.rss = rss_bytes()
        self.most = self.rss
        self.cpu, self.wall = cpu_s(), time.monotonic()

    def sample(self) -> None:
        """Note the memory, if it is the most so far."""
        self.most = max(self.most, rss_bytes())

    def read(self, turns: int) -> dict[str, Any]:
        """Give what it cost, by turn."""
        cpu, wall = cpu_s() - self.cpu, time.monotonic() - self.wall
        self.sample()
        return {"turns": turns, "cpu_ms": round(cpu / turns * 1e3, 3), "cpu_s": round(cpu, 3), "wall_s": round(wall, 2)}


async def spread(count: int, over_s: float, work: Callable[[int], Awaitable[Any]]) -> list[Any]:
    """Begin so many pieces of work, evenly over a time; wait for all."""

    async def begin(number: int) -> Any:
        await asyncio.sleep(number * over_s / count)
        return await work(number)

    return await asyncio.gather(*(begin(number) for number in range(count)))


def quantile(values: Sequence[float], at: float) -> float:
    """Give the value below which so much of them lies; NaN of none."""
    return round(sorted(values)[min(int(len(values) * at), len(values) - 1)], 4) if values else float("nan")
