"""Measure limits that workers share: 16 workers' worth of load on one limit in one PostgreSQL database.

    python -m bench.quota [--short] [--dsn URL]      one JSON line

16 stores and gates in this process, as 16 workers have them; calls come at random (Poisson) and take 0.3 s. `free`: the limit
is never reached, which shows what asking costs. `scarce`: ten times the limit is offered. `tokens`: scarce, and every call
settles its tokens. `asks_per_s` are takes of all workers together, `had_to_ask` is the share of calls that found no permit
here, `wait_ms` is from wanting to having it. `used` is the share of the limit that was handed out, and `over` how
far any window was above it (0). `server_cpu` is of one core.
"""

from __future__ import annotations

import argparse
import asyncio
import heapq
import json
import random
import secrets
import statistics
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench.measure import Size
from bench.postgres import server_cpu_s
from stanchion.core.message import Usage
from stanchion.engine.clock import SystemClock
from stanchion.engine.gate import Gate
from stanchion.engine.permit import Ticket
from stanchion.journal.postgres import PostgresStore
from stanchion.journal.quota import Quota
from stanchion.sim.limits import Meter
from stanchion.testing.postgres import PostgresServer

WORKERS = 16
CALL_S = 0.3
TOKENS = (1_000, 500)
USED = Usage(input_tokens=900, output_tokens=100)


class Load:
    """The calls of all workers, and what the provider would have counted."""

    def __init__(self, gates: list[Gate], window_s: float) -> None:
        self.gates = gates
        self.requests = Meter(window_s)
        self.tokens = Meter(window_s)
        self.waits: list[float] = []
        self.calls = 0

    async def call(self, gate: Gate, tenant: str) -> None:
        """Make a call: wait for its permits, take a while, settle."""
        began = time.perf_counter()
        woken = asyncio.Event()
        ticket = gate.model("openai#bench", "m", TOKENS, tenant=tenant, rank=0, wake=woken.set)
        self.calls += 1
        if ticket is not None:
            await self._granted(gate, ticket, woken)
        self.waits.append(time.perf_counter() - began)
        loop = asyncio.get_running_loop()
        self.requests.add(1, loop.time())
        self.tokens.add(USED.total_input_tokens, loop.time())
        await asyncio.sleep(CALL_S)
        self.tokens.add(USED.output_tokens, loop.time())
        if ticket is not None:
            gate.close(ticket, USED)

    async def _granted(self, gate: Gate, ticket: Ticket, woken: asyncio.Event) -> None:
        while not gate.has_permits(ticket):
            woken.clear()
            await woken.wait()
        await gate.leave(ticket, 2**53)

    async def offer(self, per_s: float, seconds: float) -> list[asyncio.Task[None]]:
        """Offer calls to each gate, `per_s` in all, at random times."""
        draw = random.Random(7)
        times: list[tuple[float, int]] = []
        for number in range(len(self.gates)):
            at = 0.0
            while (at := at + draw.expovariate(per_s / len(self.gates))) < seconds:
                heapq.heappush(times, (at, number))
        began, tasks = time.perf_counter(), list[asyncio.Task[None]]()
        while times:
            at, number = heapq.heappop(times)
            await asyncio.sleep(max(at - (time.perf_counter() - began), 0))
            tasks.append(asyncio.create_task(self.call(self.gates[number], f"t{number % 3}")))
        return tasks


async def measure_load(
    dsn: str, server: PostgresServer | None, quota: Quota, per_s: float, seconds: float
) -> dict[str, Any]:
    """Measure one load on one limit."""
    schema = f"bench_{secrets.token_hex(4)}"
    stores = [await PostgresStore.open(dsn, schema=schema, lanes=1, readers=1) for _ in range(WORKERS)]
    gates = [Gate(store.quotas, f"w{n}", SystemClock(), settings=[quota]) for n, store in enumerate(stores)]
    for gate in gates:
        await gate.open()
    load = Load(gates, quota.window_s)
    wall, cpu, theirs = time.perf_counter(), time.process_time(), server_cpu_s(server)
    tasks = await load.offer(per_s, seconds)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    theirs = server_cpu_s(server) - theirs
    done = len(load.waits)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    lanes = [lane for gate in gates for lane in gate.lanes]
    asks, held = sum(lane.asks for lane in lanes), sum(lane.waits for lane in lanes)
    for gate, store in zip(gates, stores, strict=True):
        await gate.aclose()
        await store.aclose()
    now_s = asyncio.get_running_loop().time()
    limit, meter = (quota.tpm, load.tokens) if quota.tpm else (quota.rpm, load.requests)
    view = meter.view(limit, now_s)
    return {
        "calls_per_s": round(done / wall, 1),
        "asks_per_s": round(asks / wall, 1),
        "had_to_ask": round(held / load.calls, 3),
        "wait_ms_p50": round(statistics.median(load.waits) * 1e3, 2),
        "wait_ms_p95": round(statistics.quantiles(load.waits, n=20)[-1] * 1e3, 2),
        "server_cpu": round(theirs / wall, 4),
        "our_cpu_ms_per_call": round(cpu / max(done, 1) * 1e3, 3),
        "used": round(view.mean / limit, 3),
        "over": max(view.max - limit, 0),
    }


async def measure(dsn: str, server: PostgresServer | None, *, short: bool) -> dict[str, Any]:
    """Measure all of it."""
    seconds, window_s = (15.0, 5.0) if short else (100.0, 60.0)
    minute = window_s / 60
    return {
        "bench": "quota",
        "window_s": window_s,
        "workers": WORKERS,
        "free": await measure_load(dsn, server, Quota("openai", rpm=10**6, window_s=window_s), 400, min(seconds, 30)),
        "scarce": await measure_load(
            dsn, server, Quota("openai", rpm=int(2_400 * minute), window_s=window_s), 400, seconds
        ),
        "tokens": await measure_load(
            dsn, server, Quota("openai", tpm=int(2_400_000 * minute), window_s=window_s), 400, seconds
        ),
    }


async def quota(size: Size, folder: Path) -> dict[str, Any]:
    """Measure as a part of `python -m bench`."""
    del folder
    with PostgresServer(durable=True) as server:
        return await measure(server.dsn(), server, short=size.short)


def main() -> None:
    """Measure what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="windows of 5 s instead of 60")
    parser.add_argument("--dsn", help="a database to be measured (default: a server of its own)")
    given = parser.parse_args()
    with ExitStack() as stack:
        server = None if given.dsn else stack.enter_context(PostgresServer(durable=True))
        dsn = given.dsn or (server.dsn() if server else "")
        print(json.dumps(asyncio.run(measure(dsn, server, short=given.short))))


if __name__ == "__main__":
    main()
