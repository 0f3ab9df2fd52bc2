"""The world that tools act on: a witness that counts what was really done, and the tools of every tier and key form.

A call that a tool releases becomes a packet, which lands (or not) whatever becomes of the worker that sent it. Keyed
calls are done once per key. The reconciler keeps its contract: whoever is told "not done" can rely on it, because what was
sent before is refused from then on.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass
from random import Random
from typing import Any

from stanchion import (
    Agent,
    Approve,
    Breaker,
    Done,
    Limits,
    LoopRules,
    Model,
    NotDone,
    ToolContext,
    ToolError,
    Undone,
    Unknown,
    price_usd,
    tool,
)
from stanchion.compaction import Compaction
from tests.simulation.audit import Audit
from tests.simulation.faults import Faults
from tests.simulation.loop import SimLoop

NEVER_S = 10_000.0


@dataclass(slots=True)
class Packet:
    """A call on its way."""

    tool: str
    run: str
    call: str
    attempt: int
    key: str
    text: str


class World:
    """What was done, by call."""

    current: World

    def __init__(self, loop: SimLoop, rng: Random, faults: Faults, audit: Audit, fail: Any, trace: Any) -> None:
        self.done: dict[tuple[str, str], list[Packet]] = defaultdict(list)
        """By run and call: each time that it was done."""
        self.keys: dict[str, str] = {}
        self.flying: dict[tuple[str, str], int] = defaultdict(int)
        self._void: dict[tuple[str, str], int] = {}
        """Attempts up to this one are refused."""
        self._loop, self._rng, self._faults = loop, rng, faults
        self._audit, self._fail, self._trace = audit, fail, trace

    async def look(self, context: ToolContext, text: str) -> str:
        """A read: it may fail and be slow, and does nothing."""
        self._released(context, "look")
        fate = self._fate(("slow", "cut", "not_done", "error"))
        await asyncio.sleep(NEVER_S if fate == "slow" else self._faults.latency() * 5)
        self._raise(fate)
        return f"saw {text}"

    async def act(self, tool: str, context: ToolContext, text: str, key: str = "") -> str:
        """An effect."""
        self._released(context, tool, key)
        run, _, call = context.call.partition("/")
        packet = Packet(tool, run, call, context.attempt, key, text)
        bad = ("not_done", "error", "cut_before", "cut_after", "silent", "lost", "late", "slow", "slow")
        fate = self._fate(bad if context.attempt == 1 else ("not_done", "error", "error", "silent", "late"))
        if fate in ("not_done", "error"):
            await asyncio.sleep(self._faults.latency())
            self._raise(fate)
        answer: asyncio.Future[str] = self._loop.create_future()
        if fate not in ("cut_before", "lost"):
            self.flying[run, call] += 1
            way_s = {"late": 12.0, "slow": 3.0}.get(fate, self._faults.latency() * 5)
            self._loop.after(way_s * (0.5 + self._rng.random()), self._land, packet, answer, fate)
        if fate == "cut_before":
            await asyncio.sleep(self._faults.latency())
            raise ConnectionResetError("cut")
        return await answer

    async def settled(self, context: ToolContext) -> Done | Undone | Unknown:
        """What a reconciler says: the truth, unless it cannot tell."""
        fate = self._fate(("unknown", "cut", "slow"))
        await asyncio.sleep(NEVER_S if fate == "slow" else self._faults.latency())
        if fate == "unknown":
            return Unknown("the ledger is being closed")
        self._raise(fate)
        run, _, call = context.call.partition("/")
        if done := self.done.get((run, call)):
            self._trace("reconciled", run, call, "done")
            return Done(_result(done[0]))
        self._void[run, call] = max(self._void.get((run, call), 0), context.attempt)
        self._trace("reconciled", run, call, "undone")
        return Undone("it is not there, and is refused from now on")

    def _land(self, packet: Packet, answer: asyncio.Future[str], fate: str) -> None:
        place = (packet.run, packet.call)
        self.flying[place] -= 1
        if packet.attempt <= self._void.get(place, 0):
            return
        if not packet.key or packet.key not in self.keys:
            self.done[place].append(packet)
            self.keys[packet.key] = _result(packet)
            self._trace("done", packet.tool, packet.run, packet.call, packet.attempt)
        if fate in ("silent", "late") or answer.done():
            return
        if fate == "cut_after":
            answer.set_exception(ConnectionResetError("cut"))
        else:
            self._loop.after(self._faults.latency(), _tell, answer, _result(packet))

    def _fate(self, bad: tuple[str, ...]) -> str:
        return self._rng.choice(bad) if self._faults.strikes(self._faults.plan.tool_fault) else "ok"

    def _raise(self, fate: str) -> None:
        match fate:
            case "cut":
                raise ConnectionResetError("cut")
            case "not_done":
                raise NotDone("busy")
            case "error":
                raise ToolError("this cannot be done")
            case _:
                return

    def _released(self, context: ToolContext, tool: str, key: str = "") -> None:
        """Nothing leaves before its intent is durable (I2)."""
        run, _, call = context.call.partition("/")
        self._trace("released", tool, run, call, context.attempt)
        found = self._audit.runs.get((context.tenant, run))
        attempts = found.attempts.get(call, []) if found is not None else []
        mine = next((one.event for one in attempts if one.event.attempt == context.attempt), None)
        if mine is None or mine.mode != "run":
            self._fail("I2", f"{run}: attempt {context.attempt} of {call} ({tool}) left before it was durable")
        elif mine.key != key:
            self._fail("I2", f"{run}: attempt {context.attempt} of {call} ({tool}) left under another key")


def _result(packet: Packet) -> str:
    return f"{packet.tool} {packet.text}: done"


def _tell(answer: asyncio.Future[str], text: str) -> None:
    if not answer.done():
        answer.set_result(text)


async def _settled(context: ToolContext) -> Done | Undone | Unknown:
    return await World.current.settled(context)


@tool(effect="read", timeout_s=4, concurrency=3, rate="30/min")
async def look(text: str, context: ToolContext) -> str:
    """Look something up."""
    return await World.current.look(context, text)


@tool(effect="write", timeout_s=6)
async def note(text: str, context: ToolContext) -> str:
    """Write something down: no key, no reconciler."""
    return await World.current.act("note", context, text)


@tool(effect="write", timeout_s=6)
async def book(text: str, context: ToolContext, *, key: str) -> str:
    """Book something under a key."""
    return await World.current.act("book", context, text, key)


@tool(effect="irreversible", timeout_s=6, reconcile=_settled)
async def mail(text: str, context: ToolContext) -> str:
    """Send something that can be looked up afterwards."""
    return await World.current.act("mail", context, text)


@tool(effect="irreversible", timeout_s=6, reconcile=_settled, concurrency=1, breaker=Breaker(failures=2, open_s=5))
async def pay(text: str, context: ToolContext, *, key: str) -> str:
    """Pay something, under a key, that can be looked up afterwards."""
    return await World.current.act("pay", context, text, key)


@tool(effect="irreversible", timeout_s=6)
async def shout(text: str, loud: int, context: ToolContext) -> str:
    """Say something that cannot be unsaid; when it is loud a person must approve."""
    return await World.current.act("shout", context, text)


@tool(effect="destructive", timeout_s=6)
async def wipe(text: str, context: ToolContext) -> str:
    """Delete something."""
    return await World.current.act("wipe", context, text)


@tool(effect="write", timeout_s=6, ends_run=True)
async def hand_over(text: str, context: ToolContext) -> str:
    """Give the conversation to a person."""
    return await World.current.act("hand_over", context, text)


TOOLS = (look, note, book, mail, pay, shout, wipe, hand_over)
_PRICE = price_usd(input="1", output="2")


def _agent(name: str, *, room: int = 200_000, **more: Any) -> Agent:
    return Agent(
        name=name,
        identity="You are simulated.",
        tools=TOOLS,
        model=Model("openai:main", price=_PRICE, retries=2, max_output_tokens=1_000, context_tokens=room),
        approvals=[Approve(tool="shout", above={"loud": 5}, expires_s=40)],
        loop=LoopRules(calls_per_minute=0),
        **more,
    )


AGENTS = (
    _agent("plain", limits=Limits(turns=12)),
    _agent(
        "spare",
        limits=Limits(turns=12),
        fallbacks=[Model("openai:spare", price=_PRICE, retries=2, max_output_tokens=1_000)],
        parallel_tool_calls=False,
    ),
    _agent("long", room=2_400, limits=Limits(turns=12), compaction=Compaction(recent=12, when="room")),
)
