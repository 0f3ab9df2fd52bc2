"""What all frameworks share: one PostgreSQL, one simulated provider, one witness, each in a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import msgspec
import psutil

from bench.peers.peers import HERE, ROOT, Peer
from bench.peers.work import PROMPT
from stanchion.sim import Script, SimProcess, start_sim_process
from stanchion.testing.postgres import PostgresServer

PRICE = {"input_tokens": 3, "output_tokens": 15, "cache_read_tokens": 0.3, "cache_write_tokens": 3.75}
"""Dollars per million tokens, of the model that all are told they talk to."""
_SIZE = """
SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'm') AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
"""


class SubjectFailed(Exception):
    """A subject did not do what it was told. The message has its last words."""


class Running:
    """A subject's process, and the line to it."""

    def __init__(self, process: asyncio.subprocess.Process, errors: Any) -> None:
        self.process = process
        self._errors = errors

    async def ask(self, do: str, timeout_s: float = 300, **more: Any) -> dict[str, Any]:
        """Have it do something. Raises `SubjectFailed`."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": do, **more}).encode() + b"\n")
        return await self.answer(timeout_s, do)

    async def answer(self, timeout_s: float, what: str) -> dict[str, Any]:
        """Read its next line."""
        assert self.process.stdout is not None
        try:
            async with asyncio.timeout(timeout_s):
                line = await self.process.stdout.readline()
        except TimeoutError:
            raise SubjectFailed(f"{what}: no answer in {timeout_s:g} s") from None
        if not line:
            raise SubjectFailed(f"{what}: it ended; {self.last_words()}")
        answer = json.loads(line)
        if "error" in answer:
            raise SubjectFailed(f"{what}: {answer['error']}")
        return answer

    def last_words(self) -> str:
        """Give the end of what it wrote to standard error."""
        self._errors.flush()
        self._errors.seek(0)
        return self._errors.read()[-1_500:]

    async def kill(self) -> None:
        """SIGKILL."""
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGKILL)
        await self.process.wait()
        self._errors.close()


class World:
    """The shared processes."""

    def __init__(self, server: PostgresServer, sim: SimProcess, witness: str, http: aiohttp.ClientSession) -> None:
        self.server = server
        self.sim = sim
        self.witness = witness
        self.http = http
        self._databases = 0

    async def database(self) -> str:
        """Make an empty database; give its URL."""
        self._databases += 1
        name = f"bench_{self._databases}"
        await self._admin(f"CREATE DATABASE {name}")
        return self.server.dsn(name)

    async def drop(self, dsn: str) -> None:
        """Drop a database, whoever is connected."""
        await self._admin(f"DROP DATABASE IF EXISTS {dsn.rpartition('/')[2]} WITH (FORCE)")

    async def _admin(self, statement: str) -> None:
        connection = await asyncpg.connect(self.server.dsn())
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    async def stored_bytes(self, dsn: str) -> int:
        """Size of all tables with their indexes and their large values, after VACUUM and CHECKPOINT."""
        connection = await asyncpg.connect(dsn)
        try:
            await connection.execute("VACUUM")
            await connection.execute("CHECKPOINT")
            return int(await connection.fetchval(_SIZE))
        finally:
            await connection.close()

    def database_cpu_s(self) -> float:
        """CPU seconds of the server, its children, and those of them that have ended."""
        first = psutil.Process(self.server.pid)
        ended = first.cpu_times()
        total = ended.children_user + ended.children_system
        for process in (first, *first.children(recursive=True)):
            with contextlib.suppress(OSError):  # it ended, and is among its parent's from now on
                total += int(Path(f"/proc/{process.pid}/schedstat").read_text().split()[0]) / 1e9
        return total

    async def play(self, script: Script) -> None:
        """Have the provider play something else, with an empty bill."""
        await self._post(f"{self.sim.base_url}/sim/reset")
        async with self.http.put(f"{self.sim.base_url}/sim/script", data=msgspec.json.encode(script)) as answer:
            answer.raise_for_status()

    async def bill(self) -> dict[str, Any]:
        """Read the provider's bill, once nothing is on its way; with the sum in dollars."""
        while True:
            async with self.http.get(f"{self.sim.base_url}/bill") as answer:
                view = await answer.json()
            if not view["in_flight"]:
                total = view["total"]
                return {**total, "usd": sum(total[name] * rate for name, rate in PRICE.items()) / 1e6}
            await asyncio.sleep(0.02)

    async def ask_witness(self, method: str, path: str, timeout_s: float = 60) -> dict[str, Any]:
        """Ask the witness."""
        timeout = aiohttp.ClientTimeout(total=timeout_s)
        async with self.http.request(method, self.witness + path, timeout=timeout) as answer:
            return await answer.json()

    async def _post(self, url: str) -> None:
        async with self.http.post(url) as answer:
            answer.raise_for_status()

    async def start(self, peer: Peer, dsn: str, **more: Any) -> Running:
        """Start a subject and wait until it is ready."""
        spec = {
            "dsn": dsn, "variant": peer.variant, "prompt": PROMPT, "environment": self._environment(), **more,
        }  # fmt: skip
        errors = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115 - it lives as long as the process
        process = await asyncio.create_subprocess_exec(
            str(peer.python), str(HERE / peer.folder / "subject.py"), json.dumps(spec),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=errors, limit=1 << 24,
            env=os.environ | self._environment() | {"PYTHONPATH": _python_path(peer)},
        )  # fmt: skip
        running = Running(process, errors)
        await running.answer(120, f"start of {peer.name}")
        return running

    def _environment(self) -> dict[str, str]:
        """Point every client at the simulated provider, and turn off what would call a vendor."""
        return {
            "WITNESS": self.witness, "ANTHROPIC_BASE_URL": self.sim.base_url, "ANTHROPIC_API_URL": self.sim.base_url,
            "ANTHROPIC_API_KEY": "sim-key", "OPENAI_BASE_URL": self.sim.openai_base_url, "OPENAI_API_KEY": "sim-key",
            "LANGSMITH_TRACING": "false", "AGNO_TELEMETRY": "false", "OTEL_SDK_DISABLED": "true", "ADK_CAPTURE_MESSAGE_CONTENT_IN_SPANS": "false",
            "OPENAI_AGENTS_DISABLE_TRACING": "1", "PYTHONWARNINGS": "ignore",
        }  # fmt: skip

    @asynccontextmanager
    async def subject(self, peer: Peer, **more: Any) -> AsyncGenerator[tuple[Running, str]]:
        """Run a subject on a database of its own; both are gone afterwards."""
        dsn = await self.database()
        running = await self.start(peer, dsn, **more)
        try:
            yield running, dsn
        finally:
            await running.kill()
            await self.drop(dsn)


@asynccontextmanager
async def world() -> AsyncGenerator[World]:
    """Start what is shared."""
    settings = {"shared_buffers": "256MB", "max_connections": "300", "max_wal_size": "2GB"}
    with PostgresServer(durable=True, settings=settings) as server:
        sim = await start_sim_process(Script())
        witness = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "bench.peers.witness", cwd=ROOT,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert witness.stdout is not None
        address = json.loads(await witness.stdout.readline())["address"]
        try:
            async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
                yield World(server, sim, address, http)
        finally:
            assert witness.stdin is not None
            witness.stdin.close()
            await witness.wait()
            await sim.stop()


def _python_path(peer: Peer) -> str:
    """Put the shared files on a subject's path; what the caller has on it is ours alone."""
    mine = os.environ.get("PYTHONPATH", "") if peer.folder == "stanchion" else ""
    return os.pathsep.join(filter(None, (str(HERE / "shared"), mine)))
