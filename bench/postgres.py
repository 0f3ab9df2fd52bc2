"""Benchmark the scale-out store: events a second, CPU per append, budgets shared by 16 workers, lag. Prints one JSON line.

    python -m bench.postgres [--short] [--dsn URL]

Without a URL a PostgreSQL server of its own is started, durable (fsync on), on the temporary folder's disk. The turns are
those of `bench.journal`. CPU is this process's (recording, packing, the event loop, asyncpg); `server_cpu_ms` is that of
all processes of the server started here. `workers_16` are 16 stores with 8 runs each in this process, as 16 workers
would have it: without money, and with every append reserving or settling on one ledger with a limit. `lag_ms` is from
the call of an append to its being heard in another store, its commit included.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import secrets
import statistics
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from typing import Any, cast

import asyncpg
import psutil

from bench.journal import TENANT, Run, Speech, turn_of
from stanchion.core.event import Event
from stanchion.journal.postgres import PostgresStore
from stanchion.journal.store import Change, Reserve, Settle
from stanchion.testing.postgres import PostgresServer

LEDGER = "tenant/day:2026-11-20"
STORES = 16
RUNS = 8


def server_cpu_s(server: PostgresServer | None) -> float:
    """Read the CPU seconds of a server and all that it has started, ended connections included."""
    if server is None:
        return 0.0
    first = psutil.Process(server.pid)
    gone = first.cpu_times()
    used = gone.children_user + gone.children_system
    for process in (first, *first.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            found = process.cpu_times()
            used += found.user + found.system
    return used


class Spender(Run):
    """A run whose appends reserve and settle in turn."""

    reserved = False

    async def append(self, events: Sequence[Event]) -> None:
        """Append, and move money."""
        append = self._append(events, epoch=1)
        money = {"settle": (Settle(LEDGER, 1_000, 900),)} if self.reserved else {"reserve": (Reserve(LEDGER, 1_000),)}
        fields = {name: getattr(append, name) for name in append.__struct_fields__}
        refused = await self.store.append(type(append)(**{**fields, **money}))
        assert refused is None
        self.reserved = not self.reserved


async def throughput(
    dsn: str,
    server: PostgresServer | None,
    seconds: float,
    *,
    stores: int,
    runs: int,
    lanes: int,
    kind: type[Run] = Run,
) -> dict[str, Any]:
    """Measure runs that append single turns at once, over so many stores on one new schema."""
    schema = f"bench_{secrets.token_hex(4)}"
    opened = [await PostgresStore.open(dsn, schema=schema, lanes=lanes, readers=1) for _ in range(stores)]
    await opened[0].set_limit(TENANT, "tenant/day", 10**15)
    key = await opened[0].key_for(TENANT, "ann")
    drivers = [
        kind(cast(Any, store), key, f"run-{place}-{number}")
        for place, store in enumerate(opened)
        for number in range(runs)
    ]
    await asyncio.gather(*(driver.start() for driver in drivers))
    turns = [turn_of(turn, Speech(turn)) for turn in range(100)]
    took: list[float] = []
    events = 0

    async def drive(driver: Run, turn: int) -> None:
        nonlocal events
        while time.perf_counter() < end:
            for group in turns[turn % len(turns)]:
                began = time.perf_counter()
                await driver.append(group)
                took.append(time.perf_counter() - began)
                events += len(group)
            turn += 1

    wall, cpu, theirs = time.perf_counter(), time.process_time(), server_cpu_s(server)
    end = wall + seconds
    await asyncio.gather(*(drive(driver, number) for number, driver in enumerate(drivers)))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    theirs = server_cpu_s(server) - theirs
    for store in opened:
        await store.aclose()
    return {
        "appends_per_s": round(len(took) / wall),
        "events_per_s": round(events / wall),
        "cpu_ms_per_append": round(cpu / len(took) * 1e3, 3),
        "server_cpu_ms_per_append": round(theirs / len(took) * 1e3, 3),
        "latency_ms_p50": round(statistics.median(took) * 1e3, 2),
        "latency_ms_p95": round(statistics.quantiles(took, n=20)[-1] * 1e3, 2),
    }


async def lag(dsn: str, appends: int) -> dict[str, Any]:
    """Measure how long after its call an append is heard of by another store."""
    schema = f"bench_{secrets.token_hex(4)}"
    mine, other = [await PostgresStore.open(dsn, schema=schema, lanes=1, readers=1) for _ in range(2)]
    heard: dict[int, asyncio.Future[float]] = {}

    def hear(changes: Sequence[Change] | None) -> None:
        for change in changes or ():
            if change.seq in heard and not heard[change.seq].done():
                heard[change.seq].set_result(time.perf_counter())

    other.listen(hear)
    driver = Run(cast(Any, mine), await mine.key_for(TENANT, "ann"), "run")
    await driver.start()
    told: list[float] = []
    written: list[float] = []
    for number in range(appends):
        group = turn_of(number, Speech(number))[0]
        future = heard[driver.recorder.seq + len(group)] = asyncio.get_running_loop().create_future()
        began = time.perf_counter()
        await driver.append(group)
        written.append(time.perf_counter() - began)
        told.append(await future - began)
        await asyncio.sleep(0.002)
    await mine.aclose()
    await other.aclose()
    return {
        "append_ms_p50": round(statistics.median(written) * 1e3, 2),
        "lag_ms_p50": round(statistics.median(told) * 1e3, 2),
        "lag_ms_p95": round(statistics.quantiles(told, n=20)[-1] * 1e3, 2),
    }


async def measure(dsn: str, server: PostgresServer | None, *, short: bool) -> dict[str, Any]:
    """Measure all of it."""
    seconds = 0.5 if short else 4.0
    connection = await asyncpg.connect(dsn)
    version = await connection.fetchval("SHOW server_version")
    await connection.close()
    result: dict[str, Any] = {"bench": "postgres", "python": platform.python_version(), "postgres": version}
    for lanes in (1, 2, 4):
        for runs in (1, 10, 100):
            name = f"lanes_{lanes}_group_{runs}"
            result[name] = await throughput(dsn, server, seconds, stores=1, runs=runs, lanes=lanes)
    for name, kind in (("no_money", Run), ("one_ledger", Spender)):
        found = await throughput(dsn, server, seconds, stores=STORES, runs=RUNS, lanes=1, kind=kind)
        result[f"workers_{STORES}_{name}"] = found
    result["lag"] = await lag(dsn, 50 if short else 500)
    return result


def main() -> None:
    """Measure what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="a quick run, whose figures are rough")
    parser.add_argument("--dsn", help="a database to be measured (default: a server of its own)")
    given = parser.parse_args()
    with ExitStack() as stack:
        server = None if given.dsn else stack.enter_context(PostgresServer(durable=True))
        dsn = given.dsn or (server.dsn() if server else "")
        print(json.dumps(asyncio.run(measure(dsn, server, short=given.short))))


if __name__ == "__main__":
    main()
