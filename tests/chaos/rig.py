"""One case: a run over HTTP, its server killed on the way, and the person who answers what waits. Then the count."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from tests.chaos.agent import EFFECTS

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 60.0


@dataclass
class Case:
    """What is done to a run, and what came of it."""

    name: str
    data: Path
    point: str = ""
    at: int = 0
    kill_after_s: float | None = None
    """Kill from outside so long after the run was accepted."""
    problems: list[str] = field(default_factory=list)
    killed: int = 0
    fired: bool = False
    asked: int = 0
    """How often a person had to say what became of an effect."""
    took_s: float = 0.0
    """From the run's acceptance to its end."""
    seqs: list[int] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)


class Victim:
    """The server's process."""

    def __init__(self, process: asyncio.subprocess.Process, address: str) -> None:
        self.process = process
        self.address = address

    @property
    def dead(self) -> bool:
        """Whether it has ended."""
        return self.process.returncode is not None

    def kill(self) -> None:
        """Kill it as the kernel would."""
        if not self.dead:
            self.process.send_signal(signal.SIGKILL)


async def _spawn(case: Case, witness: str, *, fused: bool) -> Victim | None:
    """Start the server. None: it was killed before it was ready."""
    with (case.data.parent / f"{case.name}.err").open("ab") as errors:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.chaos.victim",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            cwd=ROOT,
        )
    assert process.stdin is not None
    assert process.stdout is not None
    said = {
        "data": str(case.data),
        "case": case.name,
        "witness": witness,
        "point": case.point if fused else "",
        "at": case.at if fused else 0,
    }
    process.stdin.write(json.dumps(said).encode() + b"\n")
    await process.stdin.drain()
    line = await process.stdout.readline()
    if not line:
        await process.wait()
        return None
    return Victim(process, json.loads(line)["address"])


@asynccontextmanager
async def start_witness() -> AsyncIterator[str]:
    """Start the witness process; gives its address."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.chaos.witness",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield json.loads(await process.stdout.readline())["address"]
    finally:
        process.stdin.close()
        await process.wait()


async def play(case: Case, witness: str, http: aiohttp.ClientSession) -> Case:
    """Play a case to its end and judge it."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            await _Player(case, witness, http).play()
    except TimeoutError:
        case.problems.append(f"not over after {PATIENCE_S:.0f} s; last event {case.events[-1:]}")
    await _judge(case, witness, http)
    return case


class _Player:
    """The client and the person of one case. Starts the server again whenever it is gone."""

    def __init__(self, case: Case, witness: str, http: aiohttp.ClientSession) -> None:
        self.case = case
        self.witness = witness
        self.http = http
        self.victim: Victim | None = None
        self.run = ""
        self.spawned = 0
        self.tasks: set[asyncio.Task[None]] = set()

    async def play(self) -> None:
        began = time.monotonic()
        try:
            while True:
                victim = await self._alive()
                try:
                    if not self.run:
                        self.run = await self._start(victim)
                        began = time.monotonic()
                        if self.case.kill_after_s is not None and not self.case.killed:
                            self._kill_later(victim, self.case.kill_after_s)
                    if await self._follow(victim):
                        self.case.took_s = time.monotonic() - began
                        return
                except (aiohttp.ClientError, ConnectionError, asyncio.IncompleteReadError):
                    await victim.process.wait()
        finally:
            for task in self.tasks:
                task.cancel()
            if self.victim is not None:
                self.victim.kill()
                await self.victim.process.wait()

    async def _alive(self) -> Victim:
        while self.victim is None or self.victim.dead:
            if self.spawned:
                self.case.killed += 1
            if self.spawned > 5:
                raise AssertionError("the server does not stay up")
            self.victim = await _spawn(self.case, self.witness, fused=self.spawned == 0)
            self.spawned += 1
        return self.victim

    def _kill_later(self, victim: Victim, after_s: float) -> None:
        async def kill() -> None:
            await asyncio.sleep(after_s)  # the random moment is what is tested
            victim.kill()

        task = asyncio.create_task(kill())
        self.tasks.add(task)

    async def _start(self, victim: Victim) -> str:
        body = {"agent": "victim", "input": "Do it all.", "session": f"s-{self.case.name}"}
        headers = {"Idempotency-Key": self.case.name}
        async with self.http.post(f"{victim.address}/v1/runs", json=body, headers=headers) as answer:
            said = await answer.json()
            if answer.status not in (200, 201, 202):
                raise AssertionError(f"start: {answer.status} {said}")
            return said["run"]

    async def _follow(self, victim: Victim) -> bool:
        """Read the stream from where it was left. True: the run is over."""
        after = self.case.seqs[-1] if self.case.seqs else 0
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": str(after)} if after else {})
        url = f"{victim.address}/v1/runs/{self.run}/events"
        async with self.http.get(url, headers=headers) as answer:
            if answer.status != 200:
                raise AssertionError(f"events: {answer.status} {await answer.text()}")
            await self._settle_open(victim)
            name, data = "", ""
            async for raw in answer.content:
                line = raw.decode().rstrip("\n")
                if line.startswith("event:"):
                    name = line[6:].strip()
                elif line.startswith("data:"):
                    data = line[5:].strip()
                elif not line and data:
                    if name not in ("delta", "end"):
                        event = json.loads(data)
                        self.case.seqs.append(event["seq"])
                        self.case.events.append(event)
                        if event["type"] == "run_finished":
                            return True
                        if event["type"] == "tool_call_judged" and event["action"] == "ask":
                            await self._settle_open(victim)
                    name, data = "", ""
        raise aiohttp.ClientPayloadError("the stream ended early")

    async def _settle_open(self, victim: Victim) -> None:
        """Be the person: approve what waits, and for what is in doubt look at the world and say what is true."""
        async with self.http.get(f"{victim.address}/v1/runs/{self.run}") as answer:
            view = await answer.json()
        for waiting in view["waiting"]:
            body: dict[str, Any] = {"call": waiting["call"], "revision": waiting["revision"], "by": "person"}
            if waiting["kind"] == "approval":
                body["decision"] = "approve"
            else:
                self.case.asked += 1
                applied = (await self._counts())["applied"]
                done = applied.get(f"{waiting['tool']}:{self.run}/{waiting['call']}", 0)
                body |= {"decision": "record", "result": "it was done"} if done else {"decision": "retry"}
            url = f"{victim.address}/v1/runs/{self.run}/decisions"
            async with self.http.post(url, json=body) as answer:
                if answer.status not in (200, 202, 204, 409):
                    raise AssertionError(f"decide: {answer.status} {await answer.text()}")

    async def _counts(self) -> dict[str, dict[str, int]]:
        async with self.http.get(f"{self.witness}/counts/{self.case.name}") as answer:
            return await answer.json()


async def _judge(case: Case, witness: str, http: aiohttp.ClientSession) -> None:
    async with http.get(f"{witness}/counts/{case.name}") as answer:
        counts = await answer.json()
    applied: Counter[str] = Counter()
    for call, count in counts["applied"].items():
        applied[call.split(":", 1)[0]] += count
    for tool in EFFECTS:
        if applied[tool] != 1:
            case.problems.append(f"{tool} was applied {applied[tool]} times")
    if case.seqs != list(range(1, len(case.seqs) + 1)):
        case.problems.append(f"the stream has gaps or repeats: {case.seqs}")
    last = case.events[-1] if case.events else {}
    if last.get("type") != "run_finished" or last.get("outcome") != "done":
        case.problems.append(f"the run did not finish: {last}")
    case.problems += repeated_in_doubt(case.events)


def repeated_in_doubt(events: list[dict[str, Any]]) -> list[str]:
    """Find keyless effects that were started again without a person's word or the tool's."""
    problems: list[str] = []
    tools: dict[str, str] = {}
    modes: dict[str, str] = {}
    doubtful: set[str] = set()
    """Calls of which an attempt is under way, or may have been done."""
    for event in events:
        call = event.get("call", "")
        match event["type"]:
            case "tool_call_judged":
                tools[call] = event["tool"]
            case "call_decided" if event["decision"] == "retry":
                doubtful.discard(call)
            case "tool_call_reconciled" if event["answer"] == "not_done":
                doubtful.discard(call)
            case "tool_call_failed" if not event["in_doubt"] and modes[call] == "run":  # the tool itself said so
                doubtful.discard(call)
            case "tool_call_started" if event["mode"] != "run":
                modes[call] = event["mode"]
            case "tool_call_started":
                modes[call] = "run"
                if call in doubtful and tools.get(call) in ("note", "wire", "wire_reconciled", "purge"):
                    problems.append(f"{tools[call]} {call} was started again in doubt")
                doubtful.add(call)
            case _:
                pass
    return problems


def clean(case: Case) -> None:
    """Delete the data of a case that went well."""
    for suffix in ("", "-wal", "-shm", "-driver"):
        path = Path(f"{case.data}{suffix}")
        if path.exists():
            os.unlink(path)
