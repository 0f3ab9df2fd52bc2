"""A deployment to break: one PostgreSQL, some processes of the real command line, each behind a proxy of its own, the witness
and a simulated provider over HTTP.

A process that ends is started again, as a supervisor would; one that ends without having been killed is a problem.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import aiohttp
import asyncpg

from stanchion.core.message import ToolCall
from stanchion.sim import Pacing, Script, start_sim_process
from stanchion.sim.script import Reply, ReplyCall, Rule, When
from stanchion.testing.postgres import NoPostgres, PostgresServer
from tests.chaos.agent import SCRIPT
from tests.chaos.proxy import Proxy
from tests.chaos.rig import ROOT, start_witness

Restart = Literal["immediate", "fast", "killed"]
PACING = Pacing(first_s=0.03, interval_s=0.012, events=10)
EFFECT_TAKES_S = 0.06
"""How long the witness takes to answer after an effect is done."""
AGENT = "tests/chaos/fleet_agent.py"
READY_S = 30.0
_HELD = "SELECT tenant, run, epoch, seq FROM stanchion.runs WHERE worker = $1 AND status = 'runnable'"
_ROWS = "SELECT run, epoch, seq FROM stanchion.runs WHERE run = ANY($1)"


class Held:
    """A run's place: its epoch and the seq it stood at."""

    __slots__ = ("epoch", "run", "seq")

    def __init__(self, run: str, epoch: int, seq: int) -> None:
        self.run, self.epoch, self.seq = run, epoch, seq


class Database:
    """The database's server, which is stopped and started again; and a look at it past all proxies."""

    def __init__(self, *, durable: bool) -> None:
        self._server = PostgresServer(durable=durable)
        self._look: asyncpg.Connection | None = None
        self._turn = asyncio.Lock()
        self.port = self._server.port

    def dsn(self, port: int = 0) -> str:
        """Its URL; through a proxy at a port."""
        return self._server.dsn(port=port)

    async def restart(self, how: Restart) -> None:
        """Stop it as an administrator in a hurry, as a crash of all of its processes, or as the kernel would; start it."""
        signals = {"immediate": signal.SIGQUIT, "fast": signal.SIGINT, "killed": signal.SIGKILL}
        await asyncio.to_thread(self._server.stop, signals[how])
        for _ in range(100):
            try:
                return await asyncio.to_thread(self._server.start)
            except NoPostgres:  # children of the one that was killed are still there
                await asyncio.sleep(0.1)
        raise AssertionError("the database does not come back")

    async def held_by(self, worker: str) -> list[Held]:
        """List the runs that a worker drives, by their rows. Empty where the database cannot be asked."""
        rows = await self._ask(_HELD, worker) if worker else []
        return [Held(row["run"], row["epoch"], row["seq"]) for row in rows]

    async def rows(self, runs: Sequence[str]) -> dict[str, Held]:
        """Read the rows of runs."""
        return {row["run"]: Held(row["run"], row["epoch"], row["seq"]) for row in await self._ask(_ROWS, list(runs))}

    async def _ask(self, query: str, *values: object) -> list[Any]:
        async with self._turn:
            try:
                if self._look is None or self._look.is_closed():
                    self._look = await asyncpg.connect(self.dsn(), timeout=2, command_timeout=2)
                return await self._look.fetch(query, *values)
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError):
                self._look = None
                return []

    async def aclose(self) -> None:
        """Stop it and delete its files."""
        if self._look is not None:
            self._look.terminate()
        await asyncio.to_thread(self._server.close)


class Member:
    """A place of the fleet: its proxy, and the process that runs there now."""

    def __init__(self, name: str, kind: str, folder: Path, environment: Mapping[str, str], database: Database) -> None:
        self.name = name
        self.kind = kind
        self.proxy = Proxy(database.port)
        self.pid = 0
        self.url = ""
        self.worker = ""
        self.skew_s = 0.0
        self.expected = False
        """It was killed by us: its end is no problem."""
        self.thawed = asyncio.Event()
        """Not frozen, or dead."""
        self.up = asyncio.Event()
        self.gone = asyncio.Event()
        self.burnt = asyncio.Event()
        self.disarmed = asyncio.Event()
        self.starts = 0
        self.code = 0
        """With which the last process ended."""
        self.problems: list[str] = []
        self.log = folder / f"{name}.log"
        self._environment = environment
        self._database = database
        self._process: asyncio.subprocess.Process | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._closing = False

    async def open(self) -> None:
        """Start the proxy and the process."""
        await self.proxy.start()
        self._keeper = asyncio.create_task(self._keep())

    async def aclose(self) -> None:
        """End it politely, then not."""
        self._closing = self.expected = True
        self.proxy.open()
        self.send(signal.SIGCONT)
        self.send(signal.SIGTERM)
        if self._keeper is not None:
            _, late = await asyncio.wait([self._keeper], timeout=15)
            if late:
                self.problems.append(f"{self.name} did not end within 15 s of SIGTERM")
                self.send(signal.SIGKILL)
                await asyncio.wait([self._keeper], timeout=5)
        await self.proxy.aclose()

    def send(self, number: int) -> None:
        """Send the process a signal."""
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)

    def order(self, **what: object) -> None:
        """Have something happen in the process: see `tests.chaos.member`."""
        if self._process is not None and self._process.stdin is not None and self._process.returncode is None:
            self._process.stdin.write(json.dumps(what).encode() + b"\n")

    async def disarm(self) -> bool:
        """Take back what was to happen at a point. True: it has happened before that reached the process."""
        self.disarmed.clear()
        self.order(point="", at=0, signal=0)
        said = [asyncio.create_task(event.wait()) for event in (self.burnt, self.disarmed, self.gone)]
        await asyncio.wait(said, return_when=asyncio.FIRST_COMPLETED)
        for task in said:
            task.cancel()
        return self.burnt.is_set()

    async def _keep(self) -> None:
        while not self._closing:
            await self._live()

    async def _live(self) -> None:
        """Start the process and wait for its end."""
        port = self.proxy.port
        words = [self.kind, AGENT, "--data", self._database.dsn(port), "-o", "json"]
        words += [] if self.kind == "worker" else ["--port", "0"]
        with self.log.open("ab") as log:
            process = self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tests.chaos.member",
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=log, cwd=ROOT,
                env={**os.environ, **self._environment},
            )  # fmt: skip
        self.pid, self.expected = process.pid, False
        self.thawed.set()
        self.starts += 1
        self.order(command=words, skew_s=self.skew_s)
        await self._attend(process)
        code = self.code = await process.wait()
        was_up, self.worker, self.url = self.up.is_set(), "", ""
        self.up.clear()
        self.gone.set()
        self.thawed.set()
        if was_up and not self.expected and not self._closing:
            self.problems.append(f"{self.name} ended by itself with exit code {code}; see {self.log}")
        if not was_up and not self._closing:
            await asyncio.sleep(0.2)  # it could not start without its database; a supervisor tries again

    async def _attend(self, process: asyncio.subprocess.Process) -> None:
        """Read what the process says, to its end."""
        assert process.stdout is not None
        while line := await process.stdout.readline():
            said = json.loads(line)
            if "seat" in said:
                self.worker = said["seat"]
            elif "burnt" in said:
                self.burnt.set()
            elif "disarmed" in said:
                self.disarmed.set()
            else:
                self.url = said.get("url", "")
                self.gone.clear()
                self.up.set()


class Fleet:
    """All of it."""

    def __init__(self, database: Database, members: list[Member], witness: str, http: aiohttp.ClientSession) -> None:
        self.database = database
        self.members = members
        self.witness = witness
        self.http = http

    @property
    def drivers(self) -> list[Member]:
        """The processes that drive runs."""
        return [member for member in self.members if member.kind != "api"]

    def servers(self) -> list[Member]:
        """The processes that answer requests now, frozen ones among them: a client cannot know."""
        return [member for member in self.members if member.url]

    async def counts(self, case: str) -> dict[str, Any]:
        """Ask the witness what was done in a run."""
        async with self.http.get(f"{self.witness}/counts/{case}") as answer:
            return await answer.json()

    async def trap(self, member: Member, point: str, number: int, wait_s: float) -> float:
        """Have the witness send a signal at the next call of a process; when that was, or 0."""
        said = {"pid": member.pid, "point": point, "signal": int(number), "wait_s": wait_s}
        async with self.http.post(f"{self.witness}/trap", json=said) as answer:
            return (await answer.json())["at_s"]

    async def settled(self) -> None:
        """Wait until what any process had released before now has landed: those frozen now thawed a second ago, or dead."""
        await asyncio.gather(*(member.thawed.wait() for member in self.members))
        await asyncio.sleep(1.0)  # a request on its way to the witness is there by then


def script() -> Script:
    """Make the simulated provider's script: the agent's, by how often the model has spoken."""
    rules: list[Rule] = []
    for turn, said in enumerate(SCRIPT):
        parts = [said] if isinstance(said, str | ToolCall) else said
        assert isinstance(parts, list)
        calls = tuple(
            ReplyCall(name=part.name, arguments=json.loads(part.arguments))
            for part in parts
            if isinstance(part, ToolCall)
        )
        text = "".join(part for part in parts if isinstance(part, str))
        rules.append(Rule(when=When(turn=turn, after="any"), reply=Reply(text=text or "Working on it.", calls=calls)))
    return Script(rules=tuple(rules), pacing=PACING)


@asynccontextmanager
async def start_fleet(folder: Path, kinds: Sequence[str], *, durable: bool = True) -> AsyncIterator[Fleet]:
    """Start a deployment with a process of each of these kinds, and end it. Raises `NoPostgres`."""
    async with AsyncExitStack() as stack:
        database = Database(durable=durable)
        stack.push_async_callback(database.aclose)
        witness = await stack.enter_async_context(start_witness())
        sim = await start_sim_process(script())
        stack.push_async_callback(sim.stop)
        environment = {
            "WITNESS": witness,
            "EFFECT_TAKES_S": str(EFFECT_TAKES_S),
            "ANTHROPIC_BASE_URL": sim.base_url,
            "ANTHROPIC_API_KEY": "sim-key",
        }
        members = [
            Member(f"{kind}-{number}", kind, folder, environment, database) for number, kind in enumerate(kinds, 1)
        ]
        http = await stack.enter_async_context(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
        for member in members:
            stack.push_async_callback(member.aclose)
            await member.open()
        await asyncio.wait_for(asyncio.gather(*(member.up.wait() for member in members)), READY_S)
        yield Fleet(database, members, witness, http)
