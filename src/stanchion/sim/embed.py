"""Run a simulated provider from a test or a tool: in this process, or in one of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

import msgspec

from stanchion.core.errors import ConfigError
from stanchion.sim.faults import FaultPlan
from stanchion.sim.script import Pacing, Script
from stanchion.sim.server import SimServer
from stanchion.sim.settings import SimSettings


@contextlib.asynccontextmanager
async def running_sim(
    script: Script | None = None, *, pacing: Pacing | None = None, faults: Sequence[FaultPlan] = ()
) -> AsyncGenerator[SimServer]:
    """Run a simulated provider on a free port of this process's loop."""
    server = SimServer(SimSettings(script=script or Script(), pacing=pacing, faults=tuple(faults)))
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


class Ready(msgspec.Struct):
    """The line a simulator's process prints when it listens."""

    simulated: bool
    base_url: str
    openai_base_url: str
    pid: int


class SimProcess(msgspec.Struct):
    """A simulated provider in a process of its own."""

    process: asyncio.subprocess.Process
    ready: Ready

    @property
    def base_url(self) -> str:
        """Where it listens, without `/v1`."""
        return self.ready.base_url

    @property
    def openai_base_url(self) -> str:
        """The base URL in the form OpenAI's clients want it."""
        return self.ready.openai_base_url

    async def stop(self) -> None:
        """End the process."""
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
            await self.process.wait()


async def start_sim_process(
    script: Script | None = None, *, pacing: Pacing | None = None, port: int = 0, arguments: Sequence[str] = ()
) -> SimProcess:
    """Start a simulated provider as a process and wait until it listens; raises `ConfigError` where it does not."""
    command = [sys.executable, "-m", "stanchion.sim", "--json", "--port", str(port), *arguments]
    if pacing is not None:
        command += ["--first-s", str(pacing.first_s), "--interval-s", str(pacing.interval_s)]
        command += ["--jitter", str(pacing.jitter)] + (["--events", str(pacing.events)] if pacing.events else [])
    path = _written(script) if script is not None else None
    try:
        process = await asyncio.create_subprocess_exec(
            *command, *(["--script", str(path)] if path else []), stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        line = await process.stdout.readline()
    finally:
        if path is not None:
            path.unlink()
    if not line:
        raise ConfigError(f"the simulated provider did not start (exit code {await process.wait()})")
    return SimProcess(process, msgspec.json.decode(line, type=Ready))


def _written(script: Script) -> Path:
    handle, name = tempfile.mkstemp(suffix=".json", prefix="stanchion-sim-")
    with os.fdopen(handle, "wb") as file:
        file.write(msgspec.json.encode(script))
    return Path(name)
