"""The processes of a replay as the command line starts them, which may be killed and come back.

One server on a data file (`stanchion serve`), or several servers and workers (`stanchion api`, `stanchion worker`) on one
database. A killed process is started again, a server on a new port; who talks to one asks `url()` each time. A process that ends
without having been killed is a `ServerGone` for all.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, Protocol
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
    """A server or a worker in a process of its own. `kills` holds the moments it was killed, in milliseconds since 1970."""

    def __init__(
        self,
        folder: Path,
        environment: Mapping[str, str],
        *,
        kind: Literal["serve", "api", "worker"] = "serve",
        data: str = "",
        name: str = "server",
    ) -> None:
        self.kills: list[int] = []
        self._kind = kind
        self._data = data or str(folder / "replay-stanchion.db")
        self._log = folder / f"replay-{name}.log"
        self._environment = {**os.environ, **environment}
        self._process: asyncio.subprocess.Process | None = None
        self._url = ""
        self._up = asyncio.Event()
        self._gone: ServerGone | None = None

    @property
    def is_up(self) -> bool:
        """Whether it listens, or has ended for good."""
        return self._up.is_set()

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
        command = [sys.executable, "-m", "stanchion.cli", self._kind, str(AGENT), "--data", self._data, "-o", "json"]
        with self._log.open("ab") as log:
            process = self._process = await asyncio.create_subprocess_exec(
                *command, *([] if self._kind == "worker" else ["--port", "0"]),
                stdout=asyncio.subprocess.PIPE, stderr=log, env=self._environment,
            )  # fmt: skip
        assert process.stdout is not None
        try:
            async with asyncio.timeout(START_S):
                line = await process.stdout.readline()
            said = json.loads(line)
            self._url = "" if self._kind == "worker" else str(said["url"])
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

    def check(self) -> None:
        """Raise ServerGone if it ended without having been killed."""
        if self._process is not None and self._process.returncode is not None and self._up.is_set():
            self._gone = self._gone or ServerGone(
                f"a {self._kind} ended by itself (exit code {self._process.returncode}):{self._said()}"
            )
        if self._gone is not None:
            raise self._gone

    def _said(self) -> str:
        text = self._log.read_text(errors="replace") if self._log.exists() else ""
        return "\n  ".join(["", *text.strip().splitlines()[-15:]])


class Deployment:
    """Servers and workers on one database. Any server answers for any run; a kill takes any process."""

    def __init__(
        self, servers: Sequence[ServerProcess], workers: Sequence[ServerProcess] = (), *, seed: int = 0
    ) -> None:
        self._servers = servers
        self._all = [*servers, *workers]
        self._turn = itertools.cycle(range(len(servers)))
        self._draw = random.Random(seed)

    @property
    def kills(self) -> list[int]:
        """The moments at which a process was killed, in milliseconds since 1970."""
        return [kill for process in self._all for kill in process.kills]

    async def start(self) -> None:
        """Start all; raise ServerGone."""
        await asyncio.gather(*(process.start() for process in self._all))

    async def stop(self) -> None:
        """End all."""
        await asyncio.gather(*(process.stop() for process in self._all))

    async def kill(self) -> None:
        """Kill one of them, whichever."""
        await self._draw.choice(self._all).kill()

    async def url(self) -> str:
        """Give the address of a server that is up, in turn, waiting while none is; raise ServerGone."""
        turn = next(self._turn)
        order = [*self._servers[turn:], *self._servers[:turn]]
        return await next((server for server in order if server.is_up), order[0]).url()

    async def lost(self, url: str) -> None:
        """Take note that a connection to `url` broke: another server may be asked; raise ServerGone."""
        if len(self._servers) == 1:
            await self._servers[0].lost(url)
        for process in self._all:
            process.check()
        await asyncio.sleep(LOOK_S / 4)  # one that is just being killed may still look alive
