"""The processes of a replay: the real server as `stanchion serve` starts it, which may be killed and comes back.

A killed server is started again on the same data file and a new port; who talks to it asks `url()` each time. A server that
ends without having been killed is a `ServerGone` for all.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

AGENT = Path(__file__).with_name("replay_agent.py")
START_S = 60.0
STOP_S = 15.0
LOST_S = 2.0
LOOK_S = 0.2


class ServerGone(Exception):
    """The server cannot be had; the message says why, with the last of what it wrote."""


class Address(Protocol):
    """Where the server is."""

    async def url(self) -> str:
        """Give the address, waiting while the server is coming back; raise ServerGone."""
        ...

    async def lost(self, url: str) -> None:
        """Take note that a connection to `url` broke; raise ServerGone where it will not come back."""
        ...


class Elsewhere:
    """A server that somebody else started and looks after."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")

    async def url(self) -> str:
        return self._url

    async def lost(self, url: str) -> None:
        """Wait until it accepts connections again."""
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        for _ in range(int(START_S / LOOK_S)):
            if await _accepts(parts.hostname or "", port):
                return
            await asyncio.sleep(LOOK_S)
        raise ServerGone(f"no server at {url} for {START_S:.0f} s")


async def _accepts(host: str, port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    writer.close()
    return True


class ServerProcess:
    """A server in a process of its own. `kills` holds the moments it was killed, in milliseconds since 1970."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.kills: list[int] = []
        self._data = folder / "replay-stanchion.db"
        self._log = folder / "replay-server.log"
        self._environment = {**os.environ, **environment}
        self._process: asyncio.subprocess.Process | None = None
        self._url = ""
        self._up = asyncio.Event()
        self._gone: ServerGone | None = None

    async def url(self) -> str:
        await self._up.wait()
        if self._gone is not None:
            raise self._gone
        return self._url

    async def lost(self, url: str) -> None:
        process = self._process
        if process is None or url != self._url or not self._up.is_set():
            return  # it was killed; `url` waits for the next
        try:
            async with asyncio.timeout(LOST_S):
                code = await process.wait()
        except TimeoutError:
            return  # it lives, and only this connection broke
        if self._process is process and self._up.is_set():
            self._gone = ServerGone(f"the server ended by itself (exit code {code}):{self._said()}")
            raise self._gone

    async def start(self) -> None:
        """Start the server and wait until it listens; raise ServerGone."""
        command = [sys.executable, "-m", "stanchion.cli", "serve", str(AGENT), "--data", str(self._data)]
        with self._log.open("ab") as log:
            process = self._process = await asyncio.create_subprocess_exec(
                *command, "--port", "0", "-o", "json",
                stdout=asyncio.subprocess.PIPE, stderr=log, env=self._environment,
            )  # fmt: skip
        assert process.stdout is not None
        try:
            async with asyncio.timeout(START_S):
                line = await process.stdout.readline()
            self._url = str(json.loads(line)["url"])
        except (TimeoutError, ValueError, KeyError):
            raise ServerGone(f"the server did not start:{self._said()}") from None
        self._up.set()

    async def kill(self) -> None:
        """Kill the server as it stands (SIGKILL) and start it again; nothing if it is down already."""
        process = self._process
        if process is None or not self._up.is_set() or process.returncode is not None:
            return
        self._up.clear()
        self.kills.append(time.time_ns() // 1_000_000)
        process.send_signal(signal.SIGKILL)
        await process.wait()
        try:
            await self.start()
        except ServerGone as error:
            self._gone = error
            self._up.set()

    async def stop(self) -> None:
        """End the server: politely, then not."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()

    def _said(self) -> str:
        text = self._log.read_text(errors="replace") if self._log.exists() else ""
        return "\n  ".join(["", *text.strip().splitlines()[-15:]])
