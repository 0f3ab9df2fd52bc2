"""Compare the engines: what it costs to bring a hint to a worker. `python -m bench.engines [--short] [--json FILE]`

Runs that wait for a person are decided about; each decision is a hint, an activation (claim, fold, a tool, a model call)
and the run's end. The same on each engine, on PostgreSQL and on SQLite, each in a process of its own. DBOS is measured
where it is installed (`pip install "stanchion[dbos]"`), on the same kind of database as the store.

    cpu_ms          of this process, per activation; `database_cpu_ms` of the PostgreSQL server
    hint_ms         from a hint to `activate`, one at a time
    decided_ms      from a decision to the run's end, at one a 50 ms
    idle            CPU and transactions while nothing happens, and threads
    takeover_ms     from the end of a dead worker's lease to the claim
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import threading
import time
from importlib import util
from pathlib import Path
from typing import Any

import asyncpg
import uvloop

from bench.cost import cpu_s, quantile, spread
from bench.measure import ROOT
from bench.postgres import server_cpu_s
from stanchion import Agent, Approve, Model, Runtime, price_usd, tool
from stanchion.core.message import ModelRequest, ToolResult
from stanchion.engine.clock import Clock
from stanchion.engine.dbos import dbos_engine
from stanchion.engine.port import Driver, Engine, MakeEngine
from stanchion.engine.rows import RowsEngine
from stanchion.journal.store import Store
from stanchion.testing.model import Reply, ScriptedModel, call
from stanchion.testing.postgres import PostgresServer

TENANT = "default"


@tool(effect="irreversible")
async def refund(order: str) -> str:
    """Refund an order."""
    return f"refunded {order}"


def _reply(request: ModelRequest) -> Reply:
    done = any(isinstance(part, ToolResult) for part in request.messages[-1].parts)
    return "Done." if done else call("refund", order="A-1")


class Timed:
    """A driver between an engine and the worker, which takes the time of activations."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self.activated: dict[str, asyncio.Future[float]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._driver, name)

    def activate(self, tenant: str, run: str) -> asyncio.Event:
        """Take the time, and activate."""
        future = self.activated.pop(run, None)
        if future is not None:
            future.set_result(time.perf_counter())
        return self._driver.activate(tenant, run)


class Under:
    """An engine under measurement."""

    def __init__(self, make: MakeEngine) -> None:
        self._make = make
        self.engine: Engine | None = None
        self.driver: Timed | None = None

    def made(self, store: Store, clock: Clock) -> Engine:
        """Make the engine."""
        engine = self.engine = self._make(store, clock)
        began = engine.open

        async def opened(driver: Driver) -> None:
            self.driver = Timed(driver)
            timed: Any = self.driver
            await began(timed)

        engine.open = opened  # type: ignore[method-assign]
        return engine


async def _one(name: str, data: str, url: str, runs: int, idle_s: float, server_pid: int) -> dict[str, Any]:
    """Measure an engine in this process."""
    statements = _count_statements() if name == "dbos" else [0]
    under = Under(RowsEngine if name == "rows" else dbos_engine(url))
    agent = Agent(
        name="desk", identity="Help.", tools=(refund,), approvals=(Approve(effect="irreversible"),),
        model=Model("openai:test-model", price=price_usd(input="1", output="1")),
    )  # fmt: skip
    client = ScriptedModel(_reply)
    async with await Runtime.open(agent, data=data, clients={"*": client}, engine=under.made) as runtime:
        waiting = [await _waiting(runtime) for _ in range(runs + 40)]
        found: dict[str, Any] = {"engine": name, "hint_ms": await _hints(under, waiting[:20])}
        found["takeover_ms"] = await _takeovers(runtime, waiting[20:40])
        counts, began, theirs = statements[0], cpu_s(), server_cpu_s_of(server_pid)
        tasks = waiting[40:]
        before = await _database(data)
        decided = await spread(runs, runs * 0.05, lambda number: _decided(runtime, tasks[number]))
        after = await _database(data)
        found["cpu_ms"] = round((cpu_s() - began) / runs * 1e3, 2)
        found["database_cpu_ms"] = round((server_cpu_s_of(server_pid) - theirs) / runs * 1e3, 2)
        found["decided_ms"] = _ms(decided)
        found["engine_statements"] = round((statements[0] - counts) / runs, 1)
        found["log_bytes"] = round((after["wal"] - before["wal"]) / runs)
        found["transactions"] = round((after["xacts"] - before["xacts"]) / runs, 1)
        await asyncio.sleep(11)  # the database's own counts are so late
        began, theirs, before = cpu_s(), server_cpu_s_of(server_pid), await _database(data)
        await asyncio.sleep(idle_s)
        after = await _database(data)
        found["idle"] = {
            "cpu_percent": round((cpu_s() - began) / idle_s * 100, 2),
            "database_cpu_percent": round((server_cpu_s_of(server_pid) - theirs) / idle_s * 100, 2),
            "transactions_per_s": round((after["xacts"] - before["xacts"]) / idle_s, 1),
            "threads": threading.active_count(),
        }
    return found


def _ms(values: list[float]) -> dict[str, float]:
    return {"p50": round(statistics.median(values) * 1e3, 2), "p99": round(quantile(values, 0.99) * 1e3, 2)}


def server_cpu_s_of(pid: int) -> float:
    """Read the CPU seconds of a server by its process id; 0: there is none."""

    class Found:
        pass

    found: Any = Found()
    found.pid = pid
    return server_cpu_s(found) if pid else 0.0


def _count_statements() -> list[int]:
    """Count the statements of SQLAlchemy, which DBOS uses."""
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    count = [0]

    def executed(*_: object) -> None:
        count[0] += 1

    event.listen(Engine, "before_cursor_execute", executed)
    return count


async def _database(data: str) -> dict[str, float]:
    """Read how much was logged and how many transactions there were; of SQLite nothing."""
    if not data.startswith("postgresql"):
        return {"wal": 0, "xacts": 0}
    connection = await asyncpg.connect(data.partition("?")[0])
    row = await connection.fetchrow(
        "SELECT pg_current_wal_insert_lsn() - '0/0' AS wal, sum(xact_commit) AS xacts FROM pg_stat_database"
    )
    await connection.close()
    return {name: float(value) for name, value in dict(row or {}).items()}


async def _waiting(runtime: Runtime) -> str:
    """Start a run, and wait until it waits for a person and nobody drives it."""
    run = (await runtime.start("desk", "Refund A-1.")).run
    await runtime.wait(run)
    while True:
        row = await runtime.store.run(TENANT, run)
        if row is not None and row.status == "waiting" and not runtime.active:
            return run
        await asyncio.sleep(0.002)


async def _hints(under: Under, runs: list[str]) -> dict[str, float]:
    """Time hints, one after the other, to runs that have nothing to do."""
    took: list[float] = []
    assert under.engine is not None
    assert under.driver is not None
    for run in runs * 3:
        future = under.driver.activated[run] = asyncio.get_running_loop().create_future()
        began = time.perf_counter()
        under.engine.hint(TENANT, run)
        took.append(await future - began)
        await asyncio.sleep(0.02)
    return _ms(took)


async def _takeovers(runtime: Runtime, runs: list[str]) -> dict[str, float]:
    """Time how long after the end of its lease a run is claimed that a dead worker had."""
    lease_ms = 300

    async def one(run: str) -> float:
        claim = await runtime.store.claim(TENANT, run, worker="dead", lease_ms=lease_ms)
        ends = time.perf_counter() + lease_ms / 1000
        assert claim is not None
        await runtime.decide(run, (await runtime.view(run)).waiting[0].call, "approve")
        while True:
            row = await runtime.store.run(TENANT, run)
            if row is not None and row.epoch > claim.epoch:
                break
            await asyncio.sleep(0.002)
        return max(time.perf_counter() - ends, 0.0)

    return _ms(await spread(len(runs), 2.0, lambda number: one(runs[number])))


async def _decided(runtime: Runtime, run: str) -> float:
    """Decide about a run; give how long it took until its end."""
    call_id = (await runtime.view(run)).waiting[0].call
    began = time.perf_counter()
    await runtime.decide(run, call_id, "approve")
    async for _ in runtime.tail(run, after=1, deltas=False):
        pass
    return time.perf_counter() - began


async def _measured(*words: str) -> dict[str, Any]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.engines", "--one", *words, cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    if process.returncode:
        raise SystemExit(f"bench: {' '.join(words)} ended with exit code {process.returncode}")
    return json.loads(out.splitlines()[-1])


async def measure(*, short: bool) -> list[dict[str, Any]]:
    """Measure each engine on each kind of database."""
    size = ("40", "4") if short else ("200", "20")
    names = ["rows", "dbos"] if util.find_spec("dbos") else ["rows"]
    results: list[dict[str, Any]] = []
    for name in names:
        with tempfile.TemporaryDirectory(prefix="stanchion-bench-") as folder:
            file, beside = str(Path(folder) / "runs.db"), f"sqlite:///{folder}/dbos.db"
            results.append({"store": "sqlite", **await _measured(name, file, beside, *size, "0")})
        with PostgresServer(durable=True) as server:
            dsn = server.dsn()
            found = await _measured(name, f"{dsn}?schema=bench", dsn, *size, str(server.pid))
            tables = await _tables(dsn)
            results.append({"store": "postgres", **found, "tables": tables})
    return results


async def _tables(dsn: str) -> int:
    """Count the tables that are not the store's."""
    connection = await asyncpg.connect(dsn)
    count = await connection.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'stanchion_dbos'")
    await connection.close()
    return int(count)


def main() -> None:
    """Measure what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="a quick run, whose figures are rough")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument("--one", nargs=6, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        name, data, url, runs, idle_s, pid = given.one
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            print(json.dumps(runner.run(_one(name, data, url, int(runs), float(idle_s), int(pid)))))
        return
    results = asyncio.run(measure(short=given.short))
    for result in results:
        print(json.dumps(result), flush=True)
    if given.json:
        given.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
