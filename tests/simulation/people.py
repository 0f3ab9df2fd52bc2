"""Whoever is outside: clients that start runs and follow them, a desk that decides truthfully, and those who interrupt."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass, field
from random import Random
from typing import Any

from stanchion.core import event as ev
from stanchion.core.errors import Conflict, JournalError, NotFound
from stanchion.core.message import Text
from stanchion.engine.live import LiveDelta
from stanchion.runtime import RunView
from tests.simulation.cluster import Cluster, Gone
from tests.simulation.faults import Plan
from tests.simulation.world import World

_TRANSIENT = (Gone, TimeoutError, JournalError)


@dataclass(slots=True)
class Request:
    """What a client wants, and how far it is."""

    plan: str
    tenant: str
    session: str
    agent: str
    at_s: float
    dry_run: bool = False
    batch_api: bool = False
    priority: str = "interactive"
    run: str = ""
    refused: str = ""
    over: bool = False
    said: list[str] = field(default_factory=list)
    """Messages that were accepted."""
    tried: dict[str, int] = field(default_factory=dict)


class People:
    """All of them."""

    def __init__(self, plan: Plan, cluster: Cluster, world: World, rng: Random) -> None:
        self.requests: list[Request] = []
        self._plan, self._cluster, self._world, self._rng = plan, cluster, world, rng
        self._fail, self._trace, self._loop = cluster.fail, cluster.trace, cluster.loop
        waits = Random(f"waits {plan.seed}")  # of its own: what other seeds play stays as it was
        for number in range(plan.requests):
            agent = number % plan.sessions % 2
            self.requests.append(
                Request(
                    plan=f"{plan.seed}-{number}",
                    tenant="acme" if number % plan.sessions < 3 else "other",
                    session=f"s{number % plan.sessions}",
                    agent="long" if plan.long else ("plain", "spare")[agent],
                    at_s=rng.random() * plan.fault_s * 0.7,
                    dry_run=rng.random() < 0.04,
                    batch_api=waits.random() < plan.batches,
                    priority="batch" if waits.random() < plan.queue else "interactive",
                )
            )

    def begin(self) -> None:
        """Let all of them come."""
        for request in self.requests:
            self._loop.spawn(self._loop.world, self._client(request))
            if self._plan.people:
                self._loop.spawn(self._loop.world, self._meddle(request))
        self._loop.spawn(self._loop.world, self._desk())

    # --- a client --------------------------------------------------------------------------------------------------------

    async def _client(self, request: Request) -> None:
        await asyncio.sleep(request.at_s)
        while not request.run and not request.refused:
            await self._start(request)
        if request.run:
            await _Reader(self, self._cluster, self._rng, request).read()
        request.over = True

    async def _start(self, request: Request) -> None:
        machine = self._cluster.any()
        if machine is None:
            await asyncio.sleep(0.5)
            return
        busy: Any = self._rng.choice(("queue", "queue", "reject"))
        try:
            started = await machine.ask(
                lambda runtime: runtime.start(
                    request.agent,
                    f"plan:{request.plan}",
                    tenant=request.tenant,
                    session=request.session,
                    user=self._rng.choice(("ann", "bob")),
                    idempotency_key=request.plan,
                    idempotency_digest=request.plan,
                    if_busy=busy,
                    dry_run=request.dry_run,
                    batch_api=request.batch_api,
                    priority=request.priority,
                )
            )
            request.run = started.run
            self._trace("accepted", request.plan, started.run, started.existing)
        except Conflict as error:
            if error.code == "budget_exhausted":
                request.refused = error.code
            await asyncio.sleep(0.5 + self._rng.random())
        except _TRANSIENT:
            await asyncio.sleep(0.2 + self._rng.random())

    # --- those who interrupt ------------------------------------------------------------------------------------------

    async def _meddle(self, request: Request) -> None:
        while self._cluster.faults.on:
            await asyncio.sleep(0.5 + self._rng.random() * 2.0 / self._plan.people)
            machine = self._cluster.any()
            if machine is None or not request.run or not self._cluster.faults.on:
                continue
            text = f"hello {len(request.tried)}"
            try:
                if self._rng.random() < 0.2:
                    await machine.ask(lambda runtime: runtime.cancel(request.run, by="ann", tenant=request.tenant))
                    self._trace("cancelled", request.run)
                else:
                    request.tried[text] = request.tried.get(text, 0) + 1
                    await machine.ask(lambda runtime, text=text: runtime.send(request.run, text, tenant=request.tenant))
                    request.said.append(text)
            except (Conflict, NotFound, *_TRANSIENT):
                continue

    async def _desk(self) -> None:
        while True:
            await asyncio.sleep(0.3 + self._rng.random() * 2.0)
            for tenant, run in list(self._cluster.audit.asking):
                if self._rng.random() < 0.6:
                    await self._sit(tenant, run)

    async def _sit(self, tenant: str, run: str) -> None:
        """Look at a run that waits, and decide what can be decided; the decision may go to a server that sleeps."""
        machine = self._cluster.any()
        if machine is None:
            return
        try:
            view = await machine.ask(lambda runtime: runtime.view(run, tenant=tenant))
            if view.parked:
                await machine.ask(lambda runtime: runtime.revive(run, by="ann", tenant=tenant))
                return
            for waiting in view.waiting:
                given = self._decision(view, waiting)
                if given is not None:
                    self._trace("decide", run, waiting.call, given["decision"])
                    if self._cluster.faults.strikes(0.3):
                        machine = self._cluster.sleeping() or machine
                    await machine.ask(
                        lambda runtime, w=waiting, given=given: runtime.decide(
                            run, w.call, revision=w.revision, by="ann", tenant=tenant, **given
                        )
                    )
        except (Conflict, NotFound, *_TRANSIENT):
            return

    def _decision(self, view: RunView, waiting: Any) -> dict[str, Any] | None:
        """Decide; about a doubt by looking at the world, once nothing is under way any more."""
        rng, place = self._rng, (view.run, waiting.call)
        if waiting.kind == "in_doubt":
            if self._world.flying[place]:
                return None
            if self._world.done[place]:
                return {"decision": "record", "result": "it was done"}
            return {"decision": rng.choice(("retry", "retry", "fail"))}
        choice = rng.choice(("approve", "approve", "approve", "edit", "reject"))
        if choice not in waiting.decisions:
            choice = "reject"
        if choice == "edit":
            return {"decision": "edit", "arguments": {**waiting.arguments, "text": "as edited"}}
        return {"decision": choice}

    # --- at the end ---------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """What was accepted has happened, once; what is said to have been done was done, once."""
        audit = self._cluster.audit
        for request in self.requests:
            run = audit.by_plan.get(request.plan)
            if request.run and (run is None or run.run != request.run):
                self._fail("I1", f"the request {request.plan} was accepted as {request.run}, which is not there")
            if run is None:
                continue
            for text, times in run.messages.items():
                if times > request.tried.get(text, 0):
                    self._fail("I2", f"{run.run}: the message {text!r} was taken in {times} times")
        for run in audit.runs.values():
            self._check_calls(run)

    def _check_calls(self, run: Any) -> None:
        for call, tool in run.tools.items():
            spec = audit_tool(self._cluster.audit, run, tool)
            if spec is None or spec.effect == "read":
                continue
            count, settled = len(self._world.done.get((run.run, call), ())), run.outcomes.get(call)
            outcome = settled.outcome if settled is not None else ""
            if count > 1:
                self._fail("I2", f"{run.run}: call {call} of {tool} was done {count} times ({outcome})")
            if outcome == "ok" and count != 1:
                self._fail("I2", f"{run.run}: call {call} of {tool} is said to be done, and was done {count} times")
            if outcome not in ("ok", "in_doubt") and count:
                self._fail("I2", f"{run.run}: call {call} of {tool} is said to be {outcome!r}, and was done")


def audit_tool(audit: Any, run: Any, tool: str) -> Any:
    """Find a tool of a run's agent."""
    return audit.bundles[run.state.agent].tool(tool)


class _Reader:
    """Follows one run to its end over any number of connections (I10)."""

    def __init__(self, people: People, cluster: Cluster, rng: Random, request: Request) -> None:
        self._cluster, self._rng, self._request = cluster, rng, request
        self._fail = cluster.fail
        self._seen = 0
        self._texts: dict[tuple[int, int, int], str] = defaultdict(str)
        self._attempt = 0, 0
        """Turn and attempt of the call that is under way, as the events say that were read."""

    async def read(self) -> None:
        """Read until the end."""
        while not await self._attach():  # noqa: ASYNC110 - nothing tells of a machine that is back
            await asyncio.sleep(0.1 + self._rng.random())

    async def _attach(self) -> bool:
        machine = self._cluster.any()
        if machine is None:
            return False
        request, line = self._request, asyncio.Queue[Any]()
        self._texts.clear()
        task = machine.follow(request.tenant, request.run, self._seen, line)
        try:
            while True:
                patience_s = 15.0 if self._cluster.faults.on else 60.0
                async with asyncio.timeout(patience_s):
                    item = await line.get()
                if item is None:
                    return True
                if isinstance(item, Exception):
                    return False
                self._take(item)
                if self._cluster.faults.strikes(0.05):
                    return False
        except TimeoutError:
            return False
        finally:
            machine.lines.pop(line, None)
            task.cancel()

    def _take(self, item: ev.Entry | LiveDelta) -> None:
        if isinstance(item, LiveDelta):
            place = (item.turn, item.attempt, item.index)
            if self._attempt != place[:2]:
                self._fail("I10", f"{self._request.run}: a delta of {place} while {self._attempt} is under way")
            if item.offset != len(self._texts[place]):
                have = len(self._texts[place])
                self._fail("I10", f"{self._request.run}: a delta of {place} at {item.offset}, and {have} were had")
            self._texts[place] += item.text
            return
        if item.seq != self._seen + 1:
            self._fail("I10", f"{self._request.run}: event {item.seq} came after {self._seen}")
        self._seen = item.seq
        if isinstance(item.event, ev.ModelCallStarted):
            self._attempt = item.event.turn, item.event.attempt
        elif isinstance(item.event, ev.ModelCallFinished | ev.ModelCallFailed):
            self._attempt = 0, 0
        if isinstance(item.event, ev.ModelCallFinished):
            for (turn, attempt, index), text in self._texts.items():
                if (turn, attempt) == (item.event.turn, item.event.attempt):
                    part = item.event.parts[index] if index < len(item.event.parts) else None
                    if isinstance(part, Text) and not part.text.startswith(text):
                        self._fail("I10", f"{self._request.run}: the deltas of turn {turn} are not of its answer")
