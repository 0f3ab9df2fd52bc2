"""One worker drives, two servers serve: a client of either sees events and deltas. Real processes, through the command line."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest

from stanchion import Runtime
from stanchion.runtime import LiveDelta
from stanchion.testing.postgres import PostgresServer
from tests.engine.rig import HeldModel, agent, over, texts
from tests.journal.proxy import Proxy

AGENT = """
from stanchion import Agent

talker = Agent(name="talker", identity="Talk.", model="anthropic:claude-sonnet-4-5")
"""
TEXT = 'Grüße, 世界! 👩\u200d👩\u200d👧 \x00 \x1f \\u0041 " \\ end. ' * 12
PACED = {"events": 60, "interval_s": 0.03}
SCRIPT = {
    "rules": [
        {"when": {"user": "long"}, "reply": {"text": TEXT, "pacing": PACED}},
        {"when": {"user": "many"}, "reply": {"text": "${user}: " + "on and on " * 20, "pacing": {"events": 15, "interval_s": 0.3}}},
        {
            "when": {"user": "fails"},
            "reply": {"text": "Wrong " * 40, "pacing": {"events": 20, "interval_s": 0.02}, "fault": {"kind": "cut", "times": 1}},
        },
    ]
}  # fmt: skip


@dataclass
class Fleet:
    """A worker and two servers on one database."""

    dsn: str
    urls: list[str]


def _process(folder: Path, *words: str) -> tuple[subprocess.Popen[str], dict[str, Any]]:
    """Start a command, and read the line by which it says that it is ready."""
    process = subprocess.Popen(
        [sys.executable, "-m", "stanchion.cli", *words, "-o", "json"],
        cwd=folder, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONWARNINGS": "default"},
    )  # fmt: skip
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, f"{words[0]} ended with {process.communicate() and process.returncode}"
    return process, json.loads(line)


@pytest.fixture(scope="module")
def fleet(postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Start a worker and two servers."""
    folder = tmp_path_factory.mktemp("relay")
    (folder / "agent.py").write_text(AGENT)
    (folder / "sim.json").write_text(json.dumps(SCRIPT))
    dsn = f"{postgres.dsn()}?schema=relay"
    same = ("agent.py", "--data", dsn)
    processes: list[subprocess.Popen[str]] = []
    try:
        processes.append(_process(folder, "worker", *same, "--simulated", "--sim-script", "sim.json")[0])
        urls: list[str] = []
        for _ in range(2):
            process, said = _process(folder, "api", *same, "--port", "0")
            processes.append(process)
            urls.append(said["url"])
        yield Fleet(dsn, urls)
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.communicate(timeout=20)


@dataclass
class Stream:
    """What a client was sent: entries and deltas in their order."""

    seqs: list[int] = field(default_factory=list[int])
    kinds: list[str] = field(default_factory=list[str])
    texts: dict[tuple[int, int], str] = field(default_factory=dict[tuple[int, int], str])
    """By turn and attempt."""
    answer: str = ""
    pieces: int = 0
    grown: asyncio.Event = field(default_factory=asyncio.Event)

    def take(self, kind: str, data: dict[str, Any]) -> None:
        """Take an event; check that a delta goes on where the last one ended, in an attempt that has begun and not ended."""
        if kind == "delta":
            place = data["turn"], data["attempt"]
            assert self.kinds[-1] == "model_call_started"
            assert data["offset"] == len(self.texts.get(place, ""))
            self.texts[place] = self.texts.get(place, "") + data["text"]
            self.pieces += 1
            self.grown.set()
        elif kind != "end":
            self.seqs.append(data["seq"])
            self.kinds.append(kind)
            if kind == "model_call_finished":
                self.answer = "".join(part["text"] for part in data["parts"])

    async def until(self, characters: int) -> None:
        """Wait until so much text was seen."""
        async with asyncio.timeout(20):
            while sum(map(len, self.texts.values())) < characters:
                self.grown.clear()
                await self.grown.wait()


@asynccontextmanager
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    """Open an HTTP client."""
    timeout, connector = aiohttp.ClientTimeout(total=60), aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
        yield session


async def start(http: aiohttp.ClientSession, url: str, said: str) -> str:
    """Start a run; give its id."""
    async with http.post(f"{url}/v1/runs", json={"agent": "talker", "input": said}) as response:
        assert response.status < 300, await response.text()
        return (await response.json())["run"]


async def follow(http: aiohttp.ClientSession, url: str, run: str, stream: Stream) -> Stream:
    """Follow a run to its end."""
    kind = ""
    async with http.get(f"{url}/v1/runs/{run}/events") as response:
        assert response.status == 200
        async for line in response.content:
            name, _, value = line.decode().rstrip("\n").partition(": ")
            if name == "event":
                kind = value
            elif name == "data":
                stream.take(kind, json.loads(value))
    return stream


def whole(stream: Stream) -> str:
    """Check that a client saw every entry once and nothing of the answer that was not said; give the deltas' text."""
    assert stream.seqs == list(range(1, len(stream.seqs) + 1))
    assert stream.kinds[-1] == "run_finished"
    text = stream.texts[max(stream.texts)] if stream.texts else ""
    assert stream.answer.startswith(text)
    return text


async def test_a_client_of_any_server_sees_it_as_it_is_said(fleet: Fleet) -> None:
    """The client that waits and the one that comes in mid-call on the other server see the same text, once, as it grows."""
    async with client() as http:
        run = await start(http, fleet.urls[0], "long")
        early, late = Stream(), Stream()
        first = asyncio.create_task(follow(http, fleet.urls[0], run, early))
        await early.until(len(TEXT) // 3)
        await asyncio.gather(first, follow(http, fleet.urls[1], run, late))
        for stream in (early, late):
            assert stream.answer == TEXT
            assert len(whole(stream)) > len(TEXT) * 0.8  # the last words may come with the event that ends the call
        assert early.pieces > 5
        assert 2 < late.pieces < early.pieces


async def test_lines_that_are_cut_heal(fleet: Fleet, postgres: PostgresServer) -> None:
    """All lines between the processes are cut in mid-call, twice: no text is lost or comes twice."""
    async with client() as http:
        run = await start(http, fleet.urls[0], "long")
        streams = [Stream(), Stream()]
        tasks = [
            asyncio.create_task(follow(http, url, run, stream)) for url, stream in zip(fleet.urls, streams, strict=True)
        ]
        database = await asyncpg.connect(postgres.dsn())
        for part in (5, 3):
            await streams[0].until(len(TEXT) // part)
            ended = await database.fetch(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'stanchion line'"
            )
            assert len(ended) >= 3
        await database.close()
        await asyncio.gather(*tasks)
        for stream in streams:
            assert stream.answer == TEXT
            assert len(whole(stream)) > len(TEXT) * 0.5


async def test_a_network_that_breaks_heals(dsn: str, postgres: PostgresServer) -> None:
    """All connections of a server are cut at a proxy while the model speaks: its reader misses nothing of what was said."""
    model = HeldModel("One")
    async with Proxy(postgres.port) as proxy:
        there = dsn.replace(f":{postgres.port}/", f":{proxy.port}/")
        async with (
            await Runtime.open(agent(), data=dsn, clients={"*": model}) as worker,
            await Runtime.open(data=there, drive=False) as server,
        ):
            run = (await worker.start("desk", "Count.")).run
            seen: list[LiveDelta] = []
            async with asyncio.timeout(30), aclosing(server.tail(run)) as items:
                async for item in items:
                    if not isinstance(item, LiveDelta):
                        continue
                    assert item.offset == len(texts(seen))
                    seen.append(item)
                    if texts(seen) == "One":
                        model.say(" two")
                        assert proxy.cut_all() >= 2
                        model.say(" three")
                    if texts(seen) == "One two three":
                        break
            model.gate.set()
            await over(worker, run)


async def test_an_attempt_that_fails_is_void_on_the_other_server(fleet: Fleet) -> None:
    """The words of a call that was cut come before the event that says so, and the next attempt's under their own number."""
    async with client() as http:
        run = await start(http, fleet.urls[0], "fails")
        stream = await follow(http, fleet.urls[1], run, Stream())
        assert stream.kinds.count("model_call_failed") == 1
        assert len(stream.texts) == 2
        assert whole(stream)


async def test_two_hundred_streams(fleet: Fleet) -> None:
    """Two hundred runs, each watched on the server that did not take it: all are whole, and seen as they are said."""
    async with client() as http:

        async def watched(number: int) -> Stream:
            run = await start(http, fleet.urls[number % 2], f"many {number}")
            return await follow(http, fleet.urls[1 - number % 2], run, Stream())

        streams = await asyncio.gather(*(watched(number) for number in range(200)))
        for number, stream in enumerate(streams):
            assert stream.answer == f"many {number}: " + "on and on " * 20
            whole(stream)
        assert sum(stream.pieces for stream in streams) > 200 * 3
