"""The process: it listens or says why not, and goes within its grace with every stream told."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from stanchion import tool
from stanchion.core.errors import ConfigError
from stanchion.runtime import Runtime
from stanchion.server.serve import serve
from tests.server.serving import QUIET, Event, HeldModel, Served, agent, served, talker
from tests.waiting import until

ROOT = Path(__file__).parents[2]
SLACK_S = 3
"""For a machine that does other things: an idle stream holds a server up for much longer."""


@dataclass
class Child:
    """A server in a process of its own."""

    process: asyncio.subprocess.Process
    url: str

    async def ended(self) -> tuple[int, str]:
        """Wait for its end: the exit code and the log."""
        _, log = await asyncio.wait_for(self.process.communicate(), 20)
        return self.process.returncode or 0, log.decode()


@asynccontextmanager
async def child(data: Path, grace_s: float = 5.0) -> AsyncGenerator[Child]:
    """Start a server process and end it with the block."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(Path(__file__).with_name("process.py")), str(data), str(grace_s),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert process.stdout is not None
    try:
        line = await asyncio.wait_for(process.stdout.readline(), 30)
        if not line:
            _, log = await process.communicate()
            raise AssertionError(log.decode())
        yield Child(process, line.decode().strip())
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


@asynccontextmanager
async def client_of(url: str) -> AsyncGenerator[Served]:
    """Make a client of a server that runs elsewhere."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session:
        nobody: Any = None
        yield Served(nobody, url, session, asyncio.Event(), nobody)


async def test_sigterm_ends_an_idle_stream_with_a_reason_and_the_process_in_time(tmp_path: Path) -> None:
    """The classic trap: a stream without news holds a server up. Here it is told, and the exit code is 0."""
    async with child(tmp_path / "t.db", 5.0) as server, client_of(server.url) as client:
        run = (await client.start())["run"]
        stream = client.events(f"/v1/runs/{run}/events")
        seen = [await anext(stream)]
        while seen[-1].kind != "delta":
            seen.append(await anext(stream))
        waiting = asyncio.create_task(
            client.call("POST", "/v1/runs", {"agent": "support", "input": "Hi", "mode": "wait"})
        )
        async with asyncio.timeout(10):
            while len((await client.call("GET", "/v1/runs")).json["runs"]) < 2:
                pass
        began_s = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        seen += [event async for event in stream]
        told_s = time.monotonic() - began_s
        assert (seen[-1].kind, seen[-1].data["reason"]) == ("end", "draining")
        waited = await waiting
        assert (waited.status, waited.json["outcome"]) == (202, "")
        code, log = await server.ended()
        assert code == 0, log
        assert told_s < 5
        assert time.monotonic() - began_s < 5 + SLACK_S
        assert "Traceback" not in log
        assert [line.split(": ")[1].split(" ")[0] for line in log.splitlines()] == ["serving", "stopping", "stopped"]


async def test_a_stream_goes_on_at_the_next_process_where_it_was(tmp_path: Path) -> None:
    """Stopped, started again: the client attaches with its last id and misses nothing."""
    data = tmp_path / "t.db"
    async with child(data, 0.5) as server, client_of(server.url) as client:
        run = (await client.start())["run"]
        seen: list[str] = []
        last = Event()
        async for event in client.events(f"/v1/runs/{run}/events"):
            seen += [event.id] if event.id else []
            if event.kind == "delta":
                server.process.send_signal(signal.SIGTERM)
            last = event
        assert last.data == {"reason": "draining", "seq": int(seen[-1])}
        await server.ended()
    model = HeldModel()
    model.go_on.set()
    async with served(tmp_path, model, data="t.db") as again:
        async for event in again.events(f"/v1/runs/{run}/events", headers={"last-event-id": seen[-1]}):
            seen += [event.id] if event.id else []
            last = event
        assert last.data["reason"] == "finished"
        assert seen == [str(n) for n in range(1, len(seen) + 1)]


async def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    """Whoever cannot wait for the grace does not have to: the journal is made for that."""
    async with child(tmp_path / "t.db", 60.0) as server, client_of(server.url) as client:
        run = (await client.start())["run"]
        stream = client.events(f"/v1/runs/{run}/events")
        while (await anext(stream)).kind != "delta":
            pass
        server.process.send_signal(signal.SIGTERM)
        ends = [event.kind async for event in stream]
        assert ends[-1] == "end"
        began_s = time.monotonic()
        server.process.send_signal(signal.SIGINT)
        code, _ = await server.ended()
        assert code == 128 + signal.SIGINT
        assert time.monotonic() - began_s < 30


async def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    """`ConfigError` with the port and what to do."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        async with await Runtime.open(data=tmp_path / "t.db") as runtime:
            with pytest.raises(ConfigError, match=f"port {port} of 127.0.0.1 is in use.*--port"):
                await serve(runtime, port=port, settings=QUIET)


@pytest.mark.parametrize(("host", "port"), [("127.0.0.1", 70_000), ("127.0.0.1", -1)])
async def test_a_port_that_cannot_be_is_refused(tmp_path: Path, host: str, port: int) -> None:
    """Not an OverflowError from below."""
    async with await Runtime.open(data=tmp_path / "t.db") as runtime:
        with pytest.raises(ConfigError, match="port"):
            await serve(runtime, host=host, port=port, settings=QUIET)


@pytest.mark.parametrize("host", ["198.51.100.7", "no such host", "a" * 300])
async def test_a_host_that_is_not_ours_is_refused(tmp_path: Path, host: str) -> None:
    """With a key, so that it is not refused for being open."""
    async with await Runtime.open(data=tmp_path / "t.db") as runtime:
        await runtime.keys.add("acme", "k")
        with pytest.raises(ConfigError, match="is not an address of this machine"):
            await serve(runtime, host=host, port=0, settings=QUIET)


async def test_it_listens_on_ipv6(tmp_path: Path) -> None:
    """The address that is printed can be used."""
    settings = msgspec.structs.replace(QUIET, host="::1")
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    async with served(tmp_path, settings=settings) as server:
        assert server.url.startswith("http://[::1]:")
        assert (await server.call("GET", "/ready")).status == 200


async def test_a_draining_server_is_not_ready_and_takes_no_runs(tmp_path: Path) -> None:
    """503 with `draining`, to be tried again elsewhere; the key of the refused start is not consumed."""
    async with served(tmp_path) as server:
        assert (await server.call("GET", "/ready")).json == {"ready": True}
        server.runtime.begin_drain()
        for said in (
            await server.call("GET", "/ready"),
            await server.call(
                "POST", "/v1/runs", {"agent": "support", "input": "Hi"}, headers={"idempotency-key": "k"}
            ),
        ):
            assert (said.status, said.error["code"], said.error["retryable"]) == (503, "draining", True)
        assert (await server.call("GET", "/health")).status == 200


async def test_a_stream_that_is_asked_for_while_it_drains_is_told_at_once(tmp_path: Path) -> None:
    """A connection that was open may still ask; it does not wait for events that will not come from here."""
    model = HeldModel()
    async with served(tmp_path, model) as server:
        run = (await server.start())["run"]
        await model.began.wait()
        server.edge.drain()
        events = [event async for event in server.events(f"/v1/runs/{run}/events?after=1")]
        assert [(event.kind, event.data) for event in events] == [("end", {"reason": "draining", "seq": 1})]
        assert server.edge.streams == 0
        model.go_on.set()


async def test_no_grace_is_none(tmp_path: Path) -> None:
    """With a grace of 0 the server goes at once, and streams are told all the same."""
    model = HeldModel()
    async with served(tmp_path, model, settings=msgspec.structs.replace(QUIET, grace_s=0.0)) as server:
        run = (await server.start())["run"]
        stream = server.events(f"/v1/runs/{run}/events")
        while (await anext(stream)).kind != "delta":
            pass
        server.stop.set()
        assert [event.data["reason"] async for event in stream] == ["draining"]
        await asyncio.wait_for(server.done, SLACK_S)


async def test_health_asks_nothing_of_the_store_and_ready_does(tmp_path: Path) -> None:
    """With a store that does not answer the process is alive and not ready."""
    async with served(tmp_path) as server:
        from stanchion.core.errors import JournalError

        async def broken(*_: object) -> int:
            raise JournalError

        server.runtime.store.now_ms = broken  # type: ignore[method-assign]
        server.runtime.store.api_keys = broken  # type: ignore[method-assign, assignment]
        assert (await server.call("GET", "/health")).json["status"] == "ok"
        said = await server.call("GET", "/ready")
        assert (said.status, said.error["retryable"]) == (503, True)
        assert said.error["id"]


async def test_a_client_that_does_not_read_does_not_hold_the_end_up(tmp_path: Path) -> None:
    """With a full buffer and a client that sleeps, the server still goes within its grace."""
    from tests.server.test_stream import attach_and_never_read

    model = HeldModel()
    settings = msgspec.structs.replace(QUIET, grace_s=4.0)
    async with served(tmp_path, model, settings=settings) as server:
        run = (await server.start())["run"]
        await model.began.wait()
        client = await attach_and_never_read(server, run)
        edge = server.edge
        await until(lambda: edge.streams == 1)
        for _ in range(200):
            model.say("x" * 20_000)
            await asyncio.sleep(0)
        began_s = time.monotonic()
        server.stop.set()
        await server.done
        assert time.monotonic() - began_s < 4 + SLACK_S
        client.close()


async def test_a_tool_that_blocks_the_loop_is_a_line_of_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever wonders why all stood still reads what it was."""
    monkeypatch.setattr("stanchion.server.serve.STALL_S", 0.2)

    @tool(effect="read")
    async def look_up(order: str) -> str:
        """Look an order up."""
        time.sleep(0.6)  # noqa: ASYNC251 - what is tested
        return order

    async with served(tmp_path, talker(), agents=[agent(tools=[look_up])]) as server:
        said = await server.call("POST", "/v1/runs", {"agent": "support", "input": "Where is it?", "mode": "wait"})
        assert said.json["outcome"] == "done"
        await until(lambda: "the event loop stood still for" in caplog.text)
