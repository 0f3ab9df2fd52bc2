"""What a person decides about a call that waits: approve, edit, reject; in doubt: retry, record, fail."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec

from stanchion.core import event as ev
from stanchion.core.errors import Conflict, InputError, NotFound
from stanchion.core.fold import fold
from stanchion.core.message import RUNTIME, Part, Text
from stanchion.core.state import Call, decisions_for
from stanchion.engine.bound import BoundAgent
from stanchion.journal.store import Store
from stanchion.toolbox.answer import Problem


class Decision(msgspec.Struct, frozen=True):
    """A decision as it was asked for."""

    decision: str
    revision: int | None = None
    arguments: Mapping[str, Any] | None = None
    result: str | None = None
    reason: str = ""
    by: str = ""
    attempt: int | None = None


class Desk:
    """Takes decisions on the runs of a store."""

    def __init__(self, store: Store, agents: Mapping[str, BoundAgent]) -> None:
        self._store = store
        self._agents = agents
        self._turn = asyncio.Lock()

    async def decide(self, tenant: str, run: str, agent: str, call: str, asked: Decision) -> None:
        """Post a decision. One at a time, so that of two in this process the second learns that it came too late."""
        async with self._turn:
            found = await self._waiting(tenant, run, call)
            choices = decisions_for(found)
            if asked.decision not in choices:
                text = f"{asked.decision!r} is not possible here; it is one of {', '.join(choices)}"
                raise Conflict(text, field="decision")
            if asked.revision not in (None, found.revision):
                text = f"revision {found.revision} waits, not {asked.revision}; look at it again"
                raise Conflict(text, field="revision")
            if asked.attempt not in (None, found.attempt):
                text = f"this is about attempt {found.attempt}, not {asked.attempt}; look at it again"
                raise Conflict(text, field="attempt")
            event = ev.CallDecided(
                call=call,
                revision=found.revision,
                decision=asked.decision,  # type: ignore[arg-type]  # it is one of the choices
                by=asked.by or "caller",
                note=bool(asked.reason),
                attempt=found.attempt,
                parts=_parts(asked, found.tool, self._agents.get(agent)),
            )
            await self._store.post(tenant, run, "decision", msgspec.json.encode(event))

    async def _waiting(self, tenant: str, run: str, call: str) -> Call:
        """Find the call that waits. The inbox is read first: what leaves it meanwhile stands in the journal then."""
        inbox = await self._store.inbox(tenant, run)
        if any(item.kind == "decision" and msgspec.json.decode(item.body).get("call") == call for item in inbox):
            raise Conflict(f"call {call} was decided already", field="call", code="decided")
        entries = await self._store.read(tenant, run)
        state = fold(entries)
        found = state.call(call)
        if found is not None and found.phase == "asking":
            return found
        if any(isinstance(entry.event, ev.ToolCallJudged) and entry.event.call == call for entry in entries):
            raise Conflict(f"call {call} does not wait for a person (any more)", field="call", code="decided")
        waiting = ", ".join(other.id for other in state.calls if other.phase == "asking") or "none"
        raise NotFound(f"run {run} has no call {call!r} that waits; waiting: {waiting}", field="call")


def _parts(asked: Decision, tool: str, agent: BoundAgent | None) -> tuple[Part, ...]:
    """What a decision brings, then its reason. Raises `InputError`."""
    if asked.arguments is not None and asked.decision != "edit":
        raise InputError('are given only with decision "edit"', field="arguments")
    if asked.result is not None and asked.decision != "record":
        raise InputError('is given only with decision "record"', field="result")
    note = (Text(asked.reason, RUNTIME),) if asked.reason else ()
    match asked.decision:
        case "edit":
            return (Text(_edited(asked.arguments, tool, agent), RUNTIME), *note)
        case "record":
            if asked.result is None:
                raise InputError("is needed to record what was done", field="result")
            return (Text(asked.result, RUNTIME), *note)
        case _:
            return note


def _edited(arguments: Mapping[str, Any] | None, tool: str, agent: BoundAgent | None) -> str:
    """Check edited arguments here if the tool is known here; the loop checks them again."""
    if arguments is None:
        raise InputError("are needed to edit: the whole object", field="arguments")
    text = msgspec.json.encode(arguments).decode()
    wrong = agent.registry.check(tool, text) if agent else None
    if isinstance(wrong, Problem):
        raise InputError(wrong.text, field="arguments")
    return text
