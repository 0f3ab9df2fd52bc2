"""What it costs a run to be accepted by one process and driven by another: `python -m bench.undriven [RUNS]`.

Time from the request to the run's first event behind its start (the model call's intent), as a client of the accepting
process sees it: driven where it was accepted, and left to a worker on the same PostgreSQL or SQLite store.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path

from stanchion import Agent, Runtime
from stanchion.core import event as ev
from stanchion.testing import ScriptedModel
from stanchion.testing.postgres import PostgresServer

AGENT = Agent(name="echo", identity="Echo.", model="openai:gpt-5.2")


async def first_event_ms(runtime: Runtime) -> tuple[float, float]:
    """Start a run; give the time until it was accepted, and until its first event behind that was seen."""
    began = time.perf_counter()
    run = (await runtime.start("echo", "hello")).run
    accepted = seen = time.perf_counter()
    async for entry in runtime.tail(run, deltas=False):
        if isinstance(entry, ev.Entry) and isinstance(entry.event, ev.ModelCallStarted):
            seen = time.perf_counter()
    return (accepted - began) * 1000, (seen - began) * 1000


async def measure(data: str, runs: int, *, split: bool) -> None:
    """Print medians and 95th percentiles."""
    clients = {"*": ScriptedModel(lambda _: "hello")}
    async with await Runtime.open(AGENT, data=data, clients=clients) as worker:
        api = await Runtime.open(AGENT, data=data, drive=False) if split else worker
        found = [await first_event_ms(api) for _ in range(runs)][runs // 10 :]
        if split:
            await api.aclose()
    columns = [sorted(column) for column in zip(*found, strict=True)]
    said = [f"{statistics.median(column):6.1f} (p95 {column[len(column) * 95 // 100]:.1f})" for column in columns]
    where = data.partition(":")[0] if "://" in data else "sqlite"
    print(f"{where:11}{'API + worker' if split else 'one process':14} accepted {said[0]} ms, first event {said[1]} ms")


def main() -> None:
    """Measure both stores, both ways."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    with PostgresServer(durable=True) as server, tempfile.TemporaryDirectory() as folder:
        for data in (server.dsn(), str(Path(folder) / "bench.db")):
            for split in (False, True):
                asyncio.run(measure(data, runs, split=split))


if __name__ == "__main__":
    main()
