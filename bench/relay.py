"""Measure the relay: how late a reader in another process sees events and deltas, and what that costs.

    worker process (drives runs; its model says the time)  ->  PostgreSQL (fsync on)  ->  reader process (`Runtime.tail`)

The model's text is the monotonic clock, which all processes of a machine share, so a reader knows how old each piece is.
Deltas come every 80 ms, as the model wires hand them on. An event's lag is from the model's last word to the reader's
`model_call_finished`, its commit and sync included; `event_here_ms` is the same for a reader in the worker itself. CPU is
that of one second of one stream: in the worker over a run of the same without a reader, in the reader, and in the database.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import statistics
import sys
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import uvloop

from bench.cost import cpu_s, quantile
from bench.measure import ROOT, Size
from bench.postgres import server_cpu_s
from stanchion import Agent, Model, Runtime
from stanchion.core import event as ev
from stanchion.core.bundle import Timeouts
from stanchion.core.message import MODEL, Delta, ModelRequest, ModelResponse, Text, Usage, text_of
from stanchion.core.money import price_usd
from stanchion.engine.live import Live
from stanchion.engine.relay import Relay
from stanchion.journal.postgres import PostgresStore
from stanchion.journal.relay import Letter
from stanchion.model.client import OnDeltas
from stanchion.runtime import LiveDelta
from stanchion.testing.postgres import NoPostgres, PostgresServer

GAP_S = 0.080
WORDS = " and so on, word by word"


class SaysTheTime:
    """A model client that says what time it is, again and again."""

    def __init__(self, seconds: float) -> None:
        self._count = round(seconds / GAP_S)

    def encode(self, request: ModelRequest) -> bytes:
        """Encode nothing: no request leaves."""
        return b""

    async def call(
        self, request: ModelRequest, *, timeouts: Timeouts, on_deltas: OnDeltas | None = None
    ) -> ModelResponse:
        """Say it."""
        for _ in range(self._count):
            await asyncio.sleep(GAP_S)
            if on_deltas is not None:
                on_deltas([Delta("text", 0, f"{time.monotonic_ns()}{WORDS}|")])
        return ModelResponse((Text(f"{time.monotonic_ns()}", MODEL),), "stop", Usage(10, output_tokens=10))

    async def aclose(self) -> None:
        """Nothing is open."""


class Lags:
    """How late a reader saw things (ms)."""

    def __init__(self) -> None:
        self.deltas: list[float] = []
        self.events: list[float] = []

    async def read(self, runtime: Runtime, run: str) -> None:
        """Follow a run."""
        async for item in runtime.tail(run):
            now = time.monotonic_ns()
            if isinstance(item, LiveDelta):
                self.deltas += [(now - int(said.split(" ")[0])) / 1e6 for said in item.text.split("|")[:-1]]
            elif isinstance(item.event, ev.ModelCallFinished):
                self.events.append((now - int(text_of(item.event.parts))) / 1e6)


async def _work(dsn: str, seconds: float) -> None:
    """Drive runs. A line of input is what to do: start so many runs over one call's time, with or without readers here."""
    agent = Agent(name="clock", identity="Tell.", model=Model("openai:clock", price=price_usd(input="0", output="0")))
    async with await Runtime.open(agent, data=dsn, clients={"*": SaysTheTime(seconds)}) as runtime:
        async for runs, here in _orders():
            lags, began = Lags(), cpu_s()

            async def one(number: int, of: Lags = lags, runs: int = runs, here: bool = bool(here)) -> None:
                await asyncio.sleep(seconds * number / runs)
                run = (await runtime.start("clock", "Go.")).run
                print(json.dumps({"run": run}), flush=True)
                if here:
                    await of.read(runtime, run)
                else:
                    await runtime.wait(run)

            await asyncio.gather(*(one(number) for number in range(runs)))
            _say_lags(lags, cpu_s() - began)


async def _read(dsn: str) -> None:
    """Read runs, each named by a line; an empty line ends it."""
    async with await Runtime.open(data=dsn, drive=False) as runtime:
        lags, began = Lags(), cpu_s()
        tasks: list[asyncio.Task[None]] = []
        print("{}", flush=True)
        async for run in _lines():
            if not run:
                await asyncio.gather(*tasks)
                _say_lags(lags, cpu_s() - began)
                lags, began = Lags(), cpu_s()
                tasks.clear()
            else:
                tasks.append(asyncio.create_task(lags.read(runtime, run)))


def _say_lags(lags: Lags, used_s: float) -> None:
    print(json.dumps({"cpu_s": used_s, "deltas": lags.deltas, "events": lags.events}), flush=True)


async def _orders() -> AsyncGenerator[tuple[int, bool]]:
    print("{}", flush=True)
    async for line in _lines():
        yield json.loads(line)


async def _lines() -> AsyncGenerator[str]:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        yield line.decode().strip()


class _Role:
    """A process of the measurement, spoken to in lines."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def hear(self) -> dict[str, Any]:
        """Read a line."""
        assert self._process.stdout is not None
        return json.loads(await self._process.stdout.readline())

    def say(self, line: str) -> None:
        """Write a line."""
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")

    async def end(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()


@asynccontextmanager
async def _role(*words: str) -> AsyncGenerator[_Role]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.relay", *words, cwd=ROOT, limit=1 << 26,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    role = _Role(process)
    try:
        await role.hear()
        yield role
    finally:
        await role.end()


async def _streams(
    worker: _Role, reader: _Role, server: PostgresServer, runs: int, *, watched: bool, here: bool = False
) -> dict[str, Any]:
    """Have so many runs driven, and read elsewhere if `watched`."""
    theirs = server_cpu_s(server)
    worker.say(json.dumps([runs, here]))
    while "run" in (said := await worker.hear()):
        if watched:
            reader.say(said["run"])
    reader.say("")
    read = await reader.hear()
    return {"worker": said, "reader": read, "server_cpu_s": server_cpu_s(server) - theirs}


def _ms(values: Sequence[float]) -> dict[str, float]:
    return {"p50": round(statistics.median(values), 2), "p99": round(quantile(values, 0.99), 2)}


async def relay(size: Size, _: Path) -> dict[str, Any]:
    """Measure lag and cost with one stream and with many."""
    runs, seconds = (40, 2.0) if size.short else (200, 10.0)
    try:
        started = PostgresServer(durable=True)
    except NoPostgres as error:
        return {"skipped": f"no PostgreSQL can be started here: {error}"}
    with started as server:
        dsn = f"{server.dsn()}?schema=relay"
        async with _role("work", dsn, str(seconds)) as worker, _role("read", dsn) as reader:
            await _streams(worker, reader, server, 2, watched=True)  # warm
            one = await _streams(worker, reader, server, 1, watched=True)
            alone = await _streams(worker, reader, server, runs, watched=False)
            many = await _streams(worker, reader, server, runs, watched=True)
            here = await _streams(worker, reader, server, runs, watched=False, here=True)
        wire = await _wire(server.dsn(), 200 if size.short else 2_000)
    spoken_s = runs * seconds

    def more(of: Callable[[dict[str, Any]], float]) -> float:
        return round((of(many) - of(alone)) / spoken_s * 1e3, 3)

    return {
        "streams": runs,
        "one": {"delta_ms": _ms(one["reader"]["deltas"])},
        "many": {
            "delta_ms": _ms(many["reader"]["deltas"]),
            "event_ms": _ms(many["reader"]["events"]),
            "event_here_ms": _ms(here["worker"]["events"]),
        },
        "cpu_ms_per_stream_s": {
            "worker_unwatched": round(alone["worker"]["cpu_s"] / spoken_s * 1e3, 3),
            "worker_more": more(lambda found: found["worker"]["cpu_s"]),
            "reader": more(lambda found: found["reader"]["cpu_s"]),
            "reader_here": round((here["worker"]["cpu_s"] - alone["worker"]["cpu_s"]) / spoken_s * 1e3, 3),
            "database": more(lambda found: found["server_cpu_s"]),
        },
        "unwatched_ns_per_delta": _unwatched_ns(),
        **wire,
    }


class _NoWire:
    """A store's end of a relay on which nobody is."""

    name, limit_bytes = "me", 7_900

    async def send(self, letters: Sequence[Letter]) -> bool:
        """Never called: nobody watches."""
        raise AssertionError("something was sent that nobody watches")


class _NoStore:
    """What the relay asks of a store."""

    def relay(self, overheard: object) -> _NoWire:
        """Give the end of the wire."""
        return _NoWire()


def _unwatched_ns() -> float:
    """Time what the relay adds to a delta that nobody watches elsewhere."""
    live = Live()
    member: Any = Relay.of(_NoStore(), live)  # type: ignore[arg-type]
    count = 200_000
    began = time.perf_counter_ns()
    for _ in range(count):
        member.grown(("default", "run_0123456789abcdef"))
    return round((time.perf_counter_ns() - began) / count, 1)


async def _wire(dsn: str, count: int) -> dict[str, Any]:
    """Measure single messages of 1 KB: from `send` to heard elsewhere, and what they leave in the log."""
    schema = f"bench_{secrets.token_hex(4)}"
    mine, other = [await PostgresStore.open(dsn, schema=schema, lanes=1, readers=1) for _ in range(2)]
    heard: asyncio.Queue[str | None] = asyncio.Queue()
    there, here = other.relay(heard.put_nowait), mine.relay(lambda _: None)
    database = await asyncpg.connect(dsn)
    lags: list[float] = []
    before = await database.fetchval("SELECT pg_current_wal_insert_lsn()")
    for _ in range(count):
        began = time.perf_counter()
        await here.send([Letter(there.name, "x" * 1_000)])
        await heard.get()
        lags.append((time.perf_counter() - began) * 1e3)
    written = await database.fetchval("SELECT pg_current_wal_insert_lsn() - $1::pg_lsn", before)
    await database.close()
    for store in (mine, other):
        await store.aclose()
    return {"message_ms": _ms(lags), "wal_bytes_per_sending": round(float(written) / count)}


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        role = _work(sys.argv[2], float(sys.argv[3])) if sys.argv[1] == "work" else _read(sys.argv[2])
        runner.run(role)
