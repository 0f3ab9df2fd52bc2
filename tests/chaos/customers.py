"""Who is outside the fleet: customers who start runs and follow them wherever an answer can be had, and the person who settles
doubts by what the witness shows.

A customer knows the addresses of all servers. What does not answer in time is left, and the same is asked elsewhere: under the
same idempotency key, and behind the last event that came. The person says "it was done" as soon as the account shows it, and
"it was not" only when it cannot be done any more: the attempt's deadline is over, and no process of the fleet stands frozen that
may have released the call.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from tests.chaos.agent import EFFECTS
from tests.chaos.fleet import Fleet, Member
from tests.chaos.rig import repeated_in_doubt

ANSWER_S = 4.0
"""After so long without an answer a customer asks elsewhere."""
SILENT_S = 4.0
"""After so long without an event, too: the server may be cut off from the database."""
PATIENCE_S = 120.0
"""After the last fault; a run that is not over then is lost."""
BROKEN = (aiohttp.ClientError, ConnectionError, TimeoutError, asyncio.IncompleteReadError)


class Refused(Exception):
    """A server said what it should not have said."""


@dataclass(slots=True)
class Case:
    """A run of the fleet, and what came of it."""

    name: str
    run: str = ""
    lines: list[str] = field(default_factory=list[str])
    """The events as they came over the wire, by seq from 1."""
    events: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    problems: list[str] = field(default_factory=list[str])
    attached: int = 0
    asked: int = 0
    """How often the person had to say what became of an effect."""
    revived: int = 0
    late: int = 0
    took_s: float = 0.0


class Customer:
    """One run from its start to its end."""

    def __init__(self, fleet: Fleet, case: Case, chance: random.Random, *, deltas: bool, calm: asyncio.Event) -> None:
        self.case = case
        self._fleet = fleet
        self._chance = chance
        self._deltas = deltas
        self._calm = calm
        """Set when there will be no more faults."""
        self._desk: dict[tuple[str, int], asyncio.Task[None]] = {}

    async def play(self) -> Case:
        """Start the run, follow it to its end, and judge it."""
        case, began_s = self.case, time.monotonic()
        try:
            async with asyncio.timeout(None) as limit:
                patience = asyncio.create_task(self._lose_patience(limit))
                try:
                    await self._start()
                    while not await self._follow():
                        pass
                finally:
                    patience.cancel()
        except TimeoutError:
            case.problems.append(f"lost: not over {PATIENCE_S:.0f} s after the last fault: {case.lines[-1:]}")
        except Refused as refused:
            case.problems.append(str(refused))
        finally:
            for task in self._desk.values():
                task.cancel()
            ended = await asyncio.gather(*self._desk.values(), return_exceptions=True)
            case.problems += [f"at the desk: {each!r}" for each in ended if isinstance(each, Exception)]
        case.took_s = time.monotonic() - began_s
        await self._judge()
        return case

    async def _lose_patience(self, limit: asyncio.Timeout) -> None:
        await self._calm.wait()
        limit.reschedule(asyncio.get_running_loop().time() + PATIENCE_S)

    async def _server(self) -> Member:
        """Choose a server, whatever state it is in."""
        while not (servers := self._fleet.servers()):
            await asyncio.wait([asyncio.create_task(member.up.wait()) for member in self._fleet.members], timeout=0.2)
        return self._chance.choice(servers)

    async def _ask(self, method: str, path: str, *, fine: tuple[int, ...] = (), **more: Any) -> tuple[int, Any]:
        """Ask any server. Raises what BROKEN names where it does not answer, and `Refused`."""
        server = await self._server()
        timeout = aiohttp.ClientTimeout(total=ANSWER_S)
        async with self._fleet.http.request(method, f"{server.url}{path}", timeout=timeout, **more) as answer:
            said = await answer.json()
        if answer.status >= 300 and answer.status not in fine:
            if answer.status == 503:
                await asyncio.sleep(0.2)
                raise aiohttp.ClientConnectionError(str(said))
            raise Refused(f"{method} {path} at {server.name}: {answer.status} {said}")
        return answer.status, said

    async def _start(self) -> None:
        body = {"agent": "victim", "input": "Do it all.", "session": f"s-{self.case.name}"}
        while not self.case.run:
            try:
                _, said = await self._ask("POST", "/v1/runs", json=body, headers={"Idempotency-Key": self.case.name})
                self.case.run = said["run"]
            except BROKEN:
                await asyncio.sleep(0.05)

    async def _follow(self) -> bool:
        """Attach somewhere, behind the last event. True: the run is over."""
        server = await self._server()
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=ANSWER_S, sock_read=ANSWER_S)
        url = f"{server.url}/v1/runs/{self.case.run}/events?deltas={'true' if self._deltas else 'false'}"
        headers = {"Accept": "text/event-stream", "Last-Event-ID": str(len(self.case.lines))}
        self.case.attached += 1
        try:
            async with self._fleet.http.get(url, headers=headers, timeout=timeout) as answer:
                if answer.status == 200:
                    return await self._read(answer.content)
                if answer.status != 503:
                    raise Refused(f"events at {server.name}: {answer.status} {await answer.text()}")
        except BROKEN:
            pass
        await asyncio.sleep(0.05)
        return False

    async def _read(self, content: aiohttp.StreamReader) -> bool:
        name, data = "", ""
        while True:
            async with asyncio.timeout(SILENT_S):
                raw = await content.readline()
            line = raw.decode().rstrip("\n")
            if not raw.endswith(b"\n"):
                return False
            if line.startswith("event:"):
                name = line[6:].strip()
            elif line.startswith("data:"):
                data = line[5:].strip()
            elif not line and data:
                if name == "end":
                    return False
                if name != "delta" and self._take(data):
                    return True
                name, data = "", ""

    def _take(self, data: str) -> bool:
        """Note an event. True: it is the last."""
        event = json.loads(data)
        if event["seq"] != len(self.case.lines) + 1:
            raise Refused(f"event {event['seq']} came after {len(self.case.lines)}")
        self.case.lines.append(data)
        self.case.events.append(event)
        match event["type"]:
            case "tool_call_judged" if event["action"] == "ask":
                doubt = event["rule"] == "in_doubt"
                self._at_the_desk(
                    event["call"], event["seq"], self._settle(event["call"]) if doubt else self._approve(event["call"])
                )
            case "run_parked":
                self.case.revived += 1
                self._at_the_desk("parked", event["seq"], self._revive())
            case _:
                pass
        return event["type"] == "run_finished"

    def _at_the_desk(self, what: str, number: int, work: Any) -> None:
        self._desk[what, number] = asyncio.create_task(work)

    def _attempt_of(self, call: str) -> int:
        return max(
            (e["attempt"] for e in self.case.events if e["type"] == "tool_call_started" and e["call"] == call),
            default=0,
        )

    async def _settle(self, call: str) -> None:
        """Be the person: look at the account, and say what is true and stays true."""
        self.case.asked += 1
        attempts = [e for e in self.case.events if e["type"] == "tool_call_started" and e["call"] == call]
        attempt, deadline_s = attempts[-1]["attempt"], max(e["deadline_ms"] for e in attempts) / 1000
        if not await self._is_done(call):
            await asyncio.sleep(max(deadline_s - time.time(), 0))
            await self._fleet.settled()
        while True:
            done = await self._is_done(call)  # each time anew: an answer that was lost may have been taken
            try:
                if self._attempt_of(call) == attempt:
                    yes: dict[str, Any] = {"decision": "record", "result": "it was done"}
                    await self._decide(call, attempt, yes if done else {"decision": "retry"})
                return
            except BROKEN:
                await asyncio.sleep(0.05)

    async def _is_done(self, call: str) -> bool:
        applied = (await self._fleet.counts(self.case.run))["applied"]
        return any(name.endswith(f":{self.case.run}/{call}") for name in applied)

    async def _approve(self, call: str) -> None:
        while True:
            try:
                await self._decide(call, 0, {"decision": "approve"})
                return
            except BROKEN:
                await asyncio.sleep(0.05)

    async def _decide(self, call: str, attempt: int, decision: dict[str, Any]) -> None:
        """Post a decision on what was shown, if that still waits."""
        _, view = await self._ask("GET", f"/v1/runs/{self.case.run}")
        for shown in view["waiting"]:
            if shown["call"] != call or shown.get("attempt", attempt) != attempt:
                continue
            body: dict[str, Any] = {"call": call, "revision": shown["revision"], "by": "person"} | decision
            body |= {"attempt": attempt} if "attempt" in shown else {}
            await self._ask("POST", f"/v1/runs/{self.case.run}/decisions", json=body, fine=(404, 409))

    async def _revive(self) -> None:
        """Be the operator: a run that was claimed too often without progress is looked at, and set going again."""
        while True:
            try:
                await self._ask("POST", f"/v1/runs/{self.case.run}/revive", fine=(409,))
                return
            except BROKEN:
                await asyncio.sleep(0.05)

    async def _judge(self) -> None:
        case = self.case
        if not case.run:
            return
        counts = await self._fleet.counts(case.run)
        case.late = counts["late"]
        applied: Counter[str] = Counter()
        for call, count in counts["applied"].items():
            applied[call.split(":", 1)[0]] += count
            if count > 1:
                case.problems.append(f"repeated: {call} was applied {count} times")
        last = case.events[-1] if case.events else {}
        if last.get("type") != "run_finished" or last.get("outcome") != "done":
            case.problems.append(f"the run did not finish: {case.lines[-1:]}")
        else:
            case.problems += [f"{tool} was applied {applied[tool]} times" for tool in EFFECTS if applied[tool] != 1]
        case.problems += repeated_in_doubt(case.events)
