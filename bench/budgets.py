"""Benchmark budgets that workers share: 16 workers in several processes, every append moving ledgers with a limit.

    python -m bench.budgets [--short] [--dsn URL] [--processes 4]

Prints one JSON line. Each worker is a store with 8 runs, as a worker has it; workers are spread over processes, because 16
stores in one process share one event loop, whose CPU is then the limit. `no_money` moves no ledger, `one_ledger` one,
`three_ledgers` the tenant's day, its month and the user's day at once; `own_ledgers` a ledger per run. `tight` has a
limit that runs out: it counts the reservations that were accepted and how much of the limit was used. `ours` is the CPU
of all worker processes per append, `server` that of all processes of the database started here.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import platform
import secrets
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from typing import Any, cast

import msgspec

from bench.journal import TENANT, Run, Speech, turn_of
from bench.postgres import server_cpu_s
from stanchion.core.event import Event
from stanchion.journal.postgres import PostgresStore
from stanchion.journal.store import Key, Refused, Reserve, Settle
from stanchion.testing.postgres import PostgresServer

WORKERS = 16
RUNS = 8
RESERVED = 20_000_000
"""A reservation is two cents; what is billed is a tenth of it."""
COST = 2_000_000
LEDGERS = {
    "no_money": (),
    "one_ledger": ("tenant/day:2026-11-20",),
    "three_ledgers": ("tenant/day:2026-11-20", "tenant/month:2026-11", "user:ann/day:2026-11-20"),
}


class Share(msgspec.Struct, frozen=True):
    """One process's part of the load."""

    dsn: str
    schema: str
    place: int
    workers: int
    seconds: float
    ledgers: tuple[str, ...] | None
    """None: each run has its own."""


class Told(msgspec.Struct, frozen=True):
    """What a process measured."""

    took: list[float]
    cpu_s: float
    wall_s: float
    refused: int


class Spender(Run):
    """A run whose appends reserve and settle in turn."""

    ledgers: tuple[str, ...] = ()
    reserved = False
    refused = 0

    def __init__(self, store: PostgresStore, key: Key, name: str, ledgers: tuple[str, ...] | None) -> None:
        super().__init__(cast(Any, store), key, name)
        self.ledgers = (f"session:{name}",) if ledgers is None else ledgers

    async def spend(self, events: Sequence[Event]) -> bool:
        """Append, and move money. False: refused."""
        undo = self.recorder.seq, self.recorder.hash, self.recorder.at_ms
        append = self._append(events, epoch=1)
        money: dict[str, Any] = (
            {"settle": tuple(Settle(ledger, RESERVED, COST) for ledger in self.ledgers)}
            if self.reserved
            else {"reserve": tuple(Reserve(ledger, RESERVED) for ledger in self.ledgers)}
        )
        said = await self.store.append(msgspec.structs.replace(append, **money))
        if isinstance(said, Refused):
            self.recorder.seq, self.recorder.hash, self.recorder.at_ms = undo
            self.refused += 1
            return False
        self.reserved = not self.reserved
        return True


async def drive(share: Share) -> Told:
    """Have this process's workers append until the time is over or the money is."""
    stores = [await PostgresStore.open(share.dsn, schema=share.schema, readers=1) for _ in range(share.workers)]
    key = await stores[0].key_for(TENANT, "ann")
    runs = [
        Spender(store, key, f"run-{share.place}-{place}-{number}", share.ledgers)
        for place, store in enumerate(stores)
        for number in range(RUNS)
    ]
    await asyncio.gather(*(run.start() for run in runs))
    turns = [turn_of(turn, Speech(turn)) for turn in range(50)]
    took: list[float] = []
    end = time.perf_counter() + share.seconds

    async def go(run: Spender, turn: int) -> None:
        while time.perf_counter() < end:
            for group in turns[turn % len(turns)]:
                began = time.perf_counter()
                if not await run.spend(group):
                    return
                took.append(time.perf_counter() - began)
            turn += 1

    wall, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(go(run, number) for number, run in enumerate(runs)))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    for store in stores:
        await store.aclose()
    return Told(took, cpu, wall, sum(run.refused for run in runs))


def member(share: Share) -> Told:
    """Drive in a process of its own."""
    return asyncio.run(drive(share))


async def prepare(dsn: str, schema: str, limit: int) -> None:
    """Make the schema and set the limits."""
    store = await PostgresStore.open(dsn, schema=schema, readers=1)
    for name in ("tenant/day", "tenant/month", "user:ann/day"):
        await store.set_limit(TENANT, name, limit)
    await store.aclose()


async def spent(dsn: str, schema: str) -> int:
    """Read what is settled and reserved on the tenant's day."""
    store = await PostgresStore.open(dsn, schema=schema, readers=1)
    rows = {row.ledger: row for row in await store.ledgers(TENANT)}
    await store.aclose()
    row = rows["tenant/day:2026-11-20"]
    return row.settled + row.reserved


def measure(
    dsn: str,
    server: PostgresServer | None,
    pool: ProcessPoolExecutor,
    *,
    processes: int,
    seconds: float,
    ledgers: tuple[str, ...] | None,
    limit: int = 10**15,
) -> dict[str, Any]:
    """Measure one kind of load."""
    schema = f"bench_{secrets.token_hex(4)}"
    asyncio.run(prepare(dsn, schema, limit))
    shares = [Share(dsn, schema, n, WORKERS // processes, seconds, ledgers) for n in range(processes)]
    theirs = server_cpu_s(server)
    told = list(pool.map(member, shares))
    theirs = server_cpu_s(server) - theirs
    took = [one for each in told for one in each.took]
    found = {
        "appends_per_s": round(len(took) / max(each.wall_s for each in told)),
        "ours_ms_per_append": round(sum(each.cpu_s for each in told) / len(took) * 1e3, 3),
        "server_ms_per_append": round(theirs / len(took) * 1e3, 3),
        "latency_ms_p50": round(statistics.median(took) * 1e3, 1),
        "latency_ms_p95": round(statistics.quantiles(took, n=20)[-1] * 1e3, 1),
    }
    if limit < 10**15:
        found |= {
            "appends": len(took),
            "refused": sum(each.refused for each in told),
            "used_of_limit": round(asyncio.run(spent(dsn, schema)) / limit, 4),
        }
    return found


def main() -> None:
    """Measure what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="a quick run, whose figures are rough")
    parser.add_argument("--dsn", help="a database to be measured (default: a server of its own)")
    parser.add_argument("--processes", type=int, default=4, help=f"over which the {WORKERS} workers are spread")
    given = parser.parse_args()
    result: dict[str, Any] = {"bench": "budgets", "python": platform.python_version(), "processes": given.processes}
    with ExitStack() as stack:
        server = None if given.dsn else stack.enter_context(PostgresServer(durable=True))
        dsn = given.dsn or (server.dsn() if server else "")
        spawn = multiprocessing.get_context("spawn")
        pool = stack.enter_context(ProcessPoolExecutor(given.processes, mp_context=spawn))
        fixed = {"processes": given.processes, "seconds": 2.0 if given.short else 8.0}
        for name, ledgers in LEDGERS.items():
            result[name] = measure(dsn, server, pool, ledgers=ledgers, **fixed)
        result["own_ledgers"] = measure(dsn, server, pool, ledgers=None, **fixed)
        limit = 3_000 * COST
        result["tight"] = measure(dsn, server, pool, ledgers=LEDGERS["one_ledger"], limit=limit, **fixed)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
