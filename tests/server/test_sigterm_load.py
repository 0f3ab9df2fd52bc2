"""SIGTERM while many runs are streamed: nothing is lost, every client is told why, and the runs go on elsewhere without a gap."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from stanchion.sim import Pacing, Script, start_sim_process
from stanchion.sim.script import Reply, ReplyCall, Rule, When
from stanchion.testing.postgres import NoPostgres, PostgresServer
from tests.server.serving import QUIET, served

ROOT = Path(__file__).parents[2]
RUNS = 24
GRACE_S = 6.0
SLACK_S = 3
"""For a machine that does other things."""
SEATS = ("1A", "2B")
SCRIPT = Script(
    rules=(
        Rule(
            when=When(turn=0, after="any"), reply=Reply(calls=(ReplyCall(name="book", arguments={"seat": SEATS[0]}),))
        ),
        Rule(
            when=When(turn=1, after="any"), reply=Reply(calls=(ReplyCall(name="look", arguments={"what": SEATS[1]}),))
        ),
        Rule(
            when=When(turn=2, after="any"), reply=Reply(calls=(ReplyCall(name="book", arguments={"seat": SEATS[1]}),))
        ),
    ),
    default=Reply(text="Both seats are booked, and you will find them in your reservation."),
    pacing=Pacing(first_s=0.1, interval_s=0.02, events=15),
)


@dataclass
class Server:
    """`stanchion serve` in a process of its own."""

    process: asyncio.subprocess.Process
    url: str
    log: Path

    async def stopped(self) -> int:
        """Wait for its end, for as long as it may take after SIGTERM; its exit code."""
        return await asyncio.wait_for(self.process.wait(), GRACE_S + SLACK_S)


@asynccontextmanager
async def serving(data: str, folder: Path, name: str, environment: dict[str, str]) -> AsyncGenerator[Server]:
    """Start a server, and end it with the block."""
    log = folder / f"{name}.log"
    words = ["serve", "tests/server/sigterm_agent.py", "--data", data, "--port", "0", "--grace-s", str(GRACE_S)]
    with log.open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "stanchion.cli", *words, "-o", "json",
            stdout=asyncio.subprocess.PIPE, stderr=errors, cwd=ROOT, env={**os.environ, **environment},
        )  # fmt: skip
    assert process.stdout is not None
    try:
        line = await asyncio.wait_for(process.stdout.readline(), 30)
        assert line, log.read_text()
        yield Server(process, json.loads(line)["url"], log)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@dataclass
class Client:
    """One run, and what its client was sent."""

    http: aiohttp.ClientSession
    run: str
    events: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    ends: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    heard: Callable[[], None] = lambda: None
    """Called when an event came."""

    async def attach(self, url: str) -> None:
        """Read the stream behind the last event, until the server ends it."""
        headers = {"Accept": "text/event-stream", "Last-Event-ID": str(len(self.events))}
        async with self.http.get(f"{url}/v1/runs/{self.run}/events", headers=headers) as answer:
            assert answer.status == 200, await answer.text()
            name = ""
            async for raw in answer.content:
                line = raw.decode().strip()
                if line.startswith("event:"):
                    name = line[6:].strip()
                elif line.startswith("data:") and name == "end":
                    self.ends.append(json.loads(line[5:]))
                elif line.startswith("data:") and name != "delta":
                    self.events.append(json.loads(line[5:]))
                    self.heard()

    @property
    def over(self) -> bool:
        """Whether the last event has come."""
        return bool(self.events) and self.events[-1]["type"] == "run_finished"


@pytest.fixture(params=["sqlite", "postgresql"])
def data(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Name a store of each kind."""
    if request.param == "sqlite":
        yield str(tmp_path / "t.db")
        return
    try:
        server = PostgresServer(durable=True)
    except NoPostgres as error:
        pytest.skip(f"no PostgreSQL can be started here: {error}")
    with server:
        yield server.dsn()


@asynccontextmanager
async def world(folder: Path) -> AsyncGenerator[tuple[dict[str, str], aiohttp.ClientSession]]:
    """Start the simulated provider; give the environment of servers, and a client."""
    sim = await start_sim_process(SCRIPT)
    try:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
            yield (
                {
                    "ANTHROPIC_BASE_URL": sim.base_url,
                    "ANTHROPIC_API_KEY": "sim-key",
                    "WITNESS": str(folder / "witness"),
                },
                http,
            )
    finally:
        await sim.stop()


async def start(http: aiohttp.ClientSession, url: str, number: int) -> Client:
    """Start a run a little after the one before, so that they are in all phases when the signal comes."""
    await asyncio.sleep(number * 0.06)
    async with http.post(f"{url}/v1/runs", json={"agent": "booker", "input": f"Book for {number}."}) as answer:
        return Client(http, (await answer.json())["run"])


@pytest.mark.timeout(120)
async def test_sigterm_under_load_loses_nothing_and_tells_everybody(data: str, tmp_path: Path) -> None:
    """Exit code 0 within the grace, each stream ended with its reason, no gap, no effect twice, no attempt cut off.

    On PostgreSQL another server stands beside it and goes on at once; a data file's runs go on when it is served again.
    """
    async with AsyncExitStack() as stack:
        environment, http = await stack.enter_async_context(world(tmp_path))
        first = await stack.enter_async_context(serving(data, tmp_path, "first", environment))
        shared = data.startswith("postgresql")
        other = serving(data, tmp_path, "other", environment)
        second = await stack.enter_async_context(other) if shared else None
        clients = await asyncio.gather(*(start(http, first.url, number) for number in range(RUNS)))
        some = asyncio.Event()

        def heard() -> None:
            """Say when each is attached and has heard something, and all together are in the middle."""
            if sum(len(each.events) for each in clients) > RUNS * 5 and all(each.events for each in clients):
                some.set()

        for client in clients:
            client.heard = heard
        attached = [asyncio.create_task(client.attach(first.url)) for client in clients]
        await some.wait()  # in the middle, and each run somewhere else
        first.process.send_signal(signal.SIGTERM)
        await asyncio.gather(*attached)
        told = [client.ends[0]["reason"] for client in clients]
        if second is None:
            assert await first.stopped() == 0
            second = await stack.enter_async_context(other)
        await asyncio.gather(*(client.attach(second.url) for client in clients))
        assert await first.stopped() == 0
    assert set(told) <= {"draining", "finished"}
    assert told.count("draining") > RUNS // 2
    _whole(clients, tmp_path)
    assert "Traceback" not in first.log.read_text()


async def test_a_request_that_hangs_is_told_that_the_server_goes(tmp_path: Path) -> None:
    """The store does not answer, and the server waits no longer: 503 `draining`, to be asked again, and no bare 500."""
    async with served(tmp_path, settings=msgspec.structs.replace(QUIET, grace_s=1.0)) as server:
        asked = asyncio.Event()

        async def silent(*_: object) -> None:
            asked.set()
            await asyncio.Event().wait()

        server.runtime.store.run = silent  # type: ignore[method-assign, assignment]
        asking = asyncio.create_task(server.call("GET", "/v1/runs/run_1"))
        await asked.wait()
        server.stop.set()
        said = await asking
        assert (said.status, said.error["code"], said.error["retryable"]) == (503, "draining", True)


def _whole(clients: list[Client], folder: Path) -> None:
    """Look at every run: done, gapless and once, nothing cut off; and at the witness: every seat once, under one key."""
    for client in clients:
        assert [event["seq"] for event in client.events] == list(range(1, len(client.events) + 1))
        assert client.over
        assert client.events[-1]["outcome"] == "done"
        assert not [event for event in client.events if event["type"].endswith("_failed")]
    lines = [line.split() for line in (folder / "witness").read_text().splitlines()]
    assert Counter((run, seat) for run, seat, _ in lines) == {(c.run, seat): 1 for c in clients for seat in SEATS}
