"""A directory with an agent in it, and the real command line run there in processes of its own."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from stanchion.cli.main import call

AGENT = '''
from pathlib import Path

from stanchion import Agent, Approve, Limits, tool


@tool(effect="read")
async def lookup_order(order_id: str) -> dict[str, int]:
    """Look an order up. Example: lookup_order("A-17")."""
    return {"cents": {"A-17": 1250}[order_id]}


@tool(effect="irreversible", timeout_s=10)
async def refund(order_id: str, cents: int, *, key: str) -> str:
    """Refund an order. Example: refund("A-17", 1250)."""
    with Path("refunds.txt").open("a") as file:
        file.write(f"{order_id} {cents}\\n")
    return f"refunded {cents} cents of {order_id}"


support = Agent(
    name="support", identity="You help with orders.", tools=[lookup_order, refund],
    model="anthropic:claude-sonnet-4-5", limits=Limits(usd="0.50", turns=4), approvals=[Approve(effect="irreversible")],
)
'''
SCRIPT = {
    "rules": [
        {
            "when": {"contains": "circle"},
            "reply": {"calls": [{"name": "lookup_order", "arguments": {"order_id": "A-17"}}]},
        },
        {
            "when": {"user": r"(?i)^refund (\S+)$"},
            "reply": {
                "text": "Let me look.",
                "calls": [{"name": "lookup_order", "arguments": {"order_id": "${match.1}"}}],
            },
        },
        {
            "when": {"tool": "lookup_order"},
            "reply": {"calls": [{"name": "refund", "arguments": {"order_id": "A-17", "cents": "${tool.cents}"}}]},
        },
        {"when": {"tool": "refund"}, "reply": {"text": "It is settled: ${tool}"}},
        {"when": {"user": "slow"}, "reply": {"text": "late", "pacing": {"first_s": 60}}},
        {"when": {"user": "escape"}, "reply": {"text": "\x1b]0;owned\x07 red"}},
    ],
    "default": {"text": "hello there"},
}
SIMULATED = ("--simulated", "--sim-script", "sim.json")


@contextlib.contextmanager
def without_uvloop() -> Generator[None]:
    """Let `import uvloop` fail, as where it is not installed."""
    modules: dict[str, Any] = sys.modules
    kept = modules.get("uvloop")
    modules["uvloop"] = None
    try:
        yield
    finally:
        modules.pop("uvloop")
        if kept is not None:
            modules["uvloop"] = kept


@dataclass
class Cli:
    """The command line in a directory."""

    directory: Path
    env: dict[str, str] = field(default_factory=dict[str, str])

    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("STANCHION_")}
        return kept | {"NO_COLOR": "1", "PYTHONWARNINGS": "error"} | self.env

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "stanchion.cli", *arguments]

    def run(self, *arguments: str, input: str = "", timeout_s: float = 30) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments), cwd=self.directory, env=self.environment(), input=input, capture_output=True,
            text=True, timeout=timeout_s, check=False,
        )  # fmt: skip

    def call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """The same in this process, for what needs no process of its own: a third of the time."""
        out, err = io.StringIO(), io.StringIO()
        before = dict(os.environ)
        # One uvloop after another in a process may hang as it closes (seen under xdist); a process of ours has one.
        streams = contextlib.redirect_stdout(out), contextlib.redirect_stderr(err)
        with contextlib.chdir(self.directory), streams[0], streams[1], without_uvloop():
            os.environ.clear()
            os.environ.update(self.environment())
            try:
                code = call(arguments)
            finally:
                os.environ.clear()
                os.environ.update(before)
        return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())

    def json(self, *arguments: str) -> Any:
        done = self.call(*arguments, "-o", "json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def start(self, *arguments: str, stdin: int = subprocess.DEVNULL) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(*arguments), cwd=self.directory, env=self.environment(), text=True, stdin=stdin,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip


@dataclass
class Served:
    """A running `stanchion serve`."""

    cli: Cli
    process: subprocess.Popen[str]
    said: dict[str, Any]

    @property
    def url(self) -> str:
        return self.said["url"]

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """Signal it, and wait: exit code and what it wrote on stderr."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        _, said = self.process.communicate(timeout=20)
        return self.process.returncode, said


def start_server(cli: Cli, *arguments: str) -> Served:
    """Serve the agent on a free port, and wait until it listens."""
    process = cli.start("serve", "agent.py", "--port", "0", "-o", "json", *SIMULATED, *arguments)
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise AssertionError(process.communicate()[1])
    return Served(cli, process, json.loads(line))


def write_files(directory: Path) -> None:
    (directory / "agent.py").write_text(AGENT)
    (directory / "sim.json").write_text(json.dumps(SCRIPT))


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """The command line in a fresh directory with an agent and a script."""
    write_files(tmp_path)
    return Cli(tmp_path)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server of the agent, for a module."""
    directory = tmp_path_factory.mktemp("served")
    write_files(directory)
    server = start_server(Cli(directory))
    yield server
    server.stop()
    assert server.process.returncode == 0


@pytest.fixture(scope="session")
def sim_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A simulated provider that many tests share."""
    directory = tmp_path_factory.mktemp("sim")
    write_files(directory)
    process = Cli(directory).start("sim", "--port", "0", "-o", "json", "--script", "sim.json")
    assert process.stdout is not None
    yield json.loads(process.stdout.readline())["base_url"]
    process.terminate()
    process.communicate(timeout=10)


@pytest.fixture
def quick(cli: Cli, sim_url: str) -> Cli:
    """The command line with a key and an address in its environment, so that a run needs no process of its own."""
    return Cli(cli.directory, {"ANTHROPIC_BASE_URL": sim_url, "ANTHROPIC_API_KEY": "any"})
