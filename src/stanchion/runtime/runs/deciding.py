"""What a person decides about calls that wait: approve, edit, reject; in doubt: retry, record, fail.

A decision binds to the revision, the attempt and the policies that were shown. Several are posted together: all of them or
none. A yes needs the caller's own grants; a no never does. What is allowed beyond the call goes with its decision.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

from stanchion.core import event as ev
from stanchion.core.errors import Conflict, InputError, NotFound, StanchionError, Unauthorized
from stanchion.core.fold import evolve, fold
from stanchion.core.message import RUNTIME, Part, Text
from stanchion.core.policy import Grant
from stanchion.core.state import Call, State, decisions_for
from stanchion.engine.bound import BoundAgent
from stanchion.engine.clock import Clock
from stanchion.engine.stage import read_inbox
from stanchion.guard.grant import covered, lasting
from stanchion.guard.redact import Redactor
from stanchion.journal.store import Store
from stanchion.runtime.capabilities import Reviewer
from stanchion.runtime.name import new_id
from stanchion.toolbox.answer import Problem

Allow = Literal["", "session", "destination"]
Ungrounded = Callable[[str, str, str], Awaitable[Sequence[tuple[str, str, str]]]]
"""Finds the values without a ground of a tenant's run's call: role, kind and value."""
MOST_DECISIONS = 100


class Decision(msgspec.Struct, frozen=True):
    """A decision as it was asked for."""

    call: str
    decision: str
    revision: int | None = None
    arguments: Mapping[str, Any] | None = None
    result: str | None = None
    reason: str = ""
    by: str = ""
    attempt: int | None = None
    policy: str | None = None
    allow: str = ""
    """Also what may be done from now on in this session."""


class Desk:
    """Takes decisions on the runs of a store."""

    def __init__(
        self,
        store: Store,
        agents: Mapping[str, BoundAgent],
        clock: Clock,
        ungrounded: Ungrounded,
        redactor: Redactor | None = None,
    ) -> None:
        self._redactor = redactor or Redactor()
        self._store = store
        self._agents = agents
        self._clock = clock
        self._ungrounded = ungrounded
        self._turn = asyncio.Lock()

    async def decide(
        self, tenant: str, run: str, agent: str, asked: Sequence[Decision], reviewer: Reviewer | None = None
    ) -> None:
        """Post decisions, all or none. One request at a time, so that the second of two learns that it came too late."""
        redactor = found.redactor if (found := self._agents.get(agent)) else self._redactor
        async with self._turn:
            state, entries = await self._standing(tenant, run)
            events: list[ev.Event] = []
            for place, one in enumerate(asked):
                try:
                    made = redactor.events(await self._event(state, entries, agent, one, reviewer))
                except InputError as error:
                    raise _placed(error, place) if len(asked) > 1 else error from None
                events += made
                state = _folded(state, made)
            body = events[0] if len(events) == 1 else events
            await self._store.post(tenant, run, "decision", msgspec.json.encode(body))

    async def _standing(self, tenant: str, run: str) -> tuple[State, Sequence[ev.Entry]]:
        """Fold a run, and what is decided and not taken in. The inbox is read first: what leaves it is journaled then."""
        inbox = await self._store.inbox(tenant, run)
        entries = await self._store.read(tenant, run)
        state = fold(entries)
        for item in inbox:
            if item.kind == "decision":
                try:
                    state = _folded(state, read_inbox(item.body))
                except msgspec.ValidationError:
                    text = "a newer Stanchion has decided something here that this one cannot read; decide there"
                    raise Conflict(text, code="decided") from None
        return state, entries

    async def _event(
        self, state: State, entries: Sequence[ev.Entry], agent: str, asked: Decision, reviewer: Reviewer | None
    ) -> list[ev.Event]:
        call = self._waiting(state, entries, asked.call)
        _check_shown(call, asked)
        by = reviewer.name if reviewer is not None else asked.by or "caller"
        parts = _parts(asked, call.tool, self._agents.get(agent))
        note = _note(asked, by)
        if asked.decision == "approve" and by in call.approvals:
            text = f"{by} has approved this already; {call.quorum} people must"
            raise Conflict(text, field="by", code="decided")
        grants = reviewer.grants if reviewer is not None else None
        self._check_allowed(call, asked, grants)
        decided = ev.CallDecided(
            call=call.id,
            revision=call.revision,
            decision=asked.decision,  # type: ignore[arg-type]  # it is one of the choices
            by=by,
            note=bool(note),
            attempt=call.attempt,
            policy=call.policy,
            grants=grants,
            parts=(*parts, *note),
        )
        return [decided, *(await self._granted(state, call, asked, by) if asked.allow else ())]

    def _waiting(self, state: State, entries: Sequence[ev.Entry], name: str) -> Call:
        """Find the call that waits. Raises `Conflict` (decided, expired), `NotFound`."""
        found = state.call(name)
        if found is not None and found.phase == "asking":
            if found.expires_ms and not found.in_doubt and self._clock.now_ms() >= found.expires_ms:
                raise _expired(name, found.expires_ms)
            return found
        judged = [e.event for e in entries if isinstance(e.event, ev.ToolCallJudged) and e.event.call == name]
        if judged and judged[-1].expires_ms and _ran_out(entries, name):
            raise _expired(name, judged[-1].expires_ms)
        if judged:
            text = f"call {name} was decided already, or does not wait for a person any more"
            raise Conflict(text, field="call", code="decided")
        waiting = ", ".join(other.id for other in state.calls if other.phase == "asking") or "none"
        raise NotFound(f"run {state.run} has no call {name!r} that waits; waiting: {waiting}", field="call")

    def _check_allowed(self, call: Call, asked: Decision, grants: tuple[Grant, ...] | None) -> None:
        """Hold a reviewer to what he may approve. Raises `Unauthorized` (forbidden)."""
        if grants is None or asked.decision in ("reject", "fail"):  # a no is always his
            return
        arguments = asked.arguments if asked.decision == "edit" else arguments_of(call.part.arguments)
        if arguments is None:
            beyond = "its arguments cannot be read"
        else:
            beyond = covered(grants, call.tool, arguments, self._clock.now_ms())
        if beyond:
            text = f"this key may not {asked.decision} call {call.id} of {call.tool}: {beyond}"
            raise Unauthorized(f"{text}; somebody else must, or reject it", field="decision", code="forbidden")
        if asked.allow and not lasting(grants, call.tool):
            text = f"this key may approve {call.tool} within limits only, so it allows one call at a time"
            raise Unauthorized(text, field="allow", code="forbidden")

    async def _granted(self, state: State, call: Call, asked: Decision, by: str) -> list[ev.Event]:
        """Make the grants that a yes brings for the session. Raises `InputError` where they would change nothing."""
        if asked.allow not in ("session", "destination"):
            raise InputError(f'must be "session" or "destination", not {asked.allow!r}', field="allow")
        if asked.decision != "approve" or call.in_doubt:
            raise InputError("goes with an approval only", field="allow")
        if call.quorum > len(call.approvals) + 1:
            text = f"{call.quorum} people must approve this; the last of them can allow more"
            raise Conflict(text, field="allow")
        bare = await self._ungrounded(state.tenant, state.run, call.id)
        wanted = [(kind, value) for role, kind, value in bare if asked.allow == "session" or role != "bound"]
        if not wanted:
            text = f"call {call.id} does not wait because of a value that nobody trusted named ({call.rule}); "
            raise InputError(text + "what else asks is not lifted by a grant", field="allow")
        return [
            ev.GrantAdded(
                grant=Grant(tools=(call.tool,), kind=kind, id=new_id("grant_")), by=by, parts=(Text(value, RUNTIME),)
            )
            for kind, value in dict.fromkeys(wanted)
        ]


def _check_shown(call: Call, asked: Decision) -> None:
    """Refuse a decision on what is not what waits. Raises `Conflict` (field)."""
    choices = decisions_for(call)
    if asked.decision not in choices:
        text = f"{asked.decision!r} is not possible here; it is one of {', '.join(choices)}"
        raise Conflict(text, field="decision")
    if asked.revision not in (None, call.revision):
        text = f"revision {call.revision} waits, not {asked.revision}; look at it again"
        raise Conflict(text, field="revision")
    if asked.attempt not in (None, call.attempt):
        text = f"this is about attempt {call.attempt}, not {asked.attempt}; look at it again"
        raise Conflict(text, field="attempt")
    if asked.policy not in (None, call.policy):
        text = "it was judged by other policies since it was shown; look at it again"
        raise Conflict(text, field="policy")


def _folded(state: State, events: Sequence[ev.Event]) -> State:
    for event in events:
        state = evolve(state, ev.Entry(seq=state.seq, at_ms=state.at_ms, epoch=1, event=event, hash=state.hash))
    return state


def _placed(error: InputError, place: int) -> StanchionError:
    """The same error, about one decision of several."""
    field = f"decisions[{place}]" + (f".{error.field}" if error.field else "")
    said = str(error).removeprefix(f"{error.field}: ")
    return type(error)(said, field=field, code=error.code)


def _ran_out(entries: Sequence[ev.Entry], name: str) -> bool:
    """Whether a call was settled without anybody's decision."""
    decided = any(
        isinstance(e.event, ev.CallDecided) and e.event.call == name and e.event.decision != "approve" for e in entries
    )
    rejected = any(
        isinstance(e.event, ev.ToolCallFinished) and e.event.call == name and e.event.outcome == "rejected"
        for e in entries
    )
    return rejected and not decided


def _expired(name: str, expires_ms: int) -> Conflict:
    at = datetime.fromtimestamp(expires_ms / 1000, UTC).isoformat(timespec="seconds")
    text = f"call {name} expired at {at}: nobody approved it in time, so it counts as rejected and is not done"
    return Conflict(text, field="call", code="expired")


def arguments_of(text: str) -> dict[str, Any] | None:
    """Read a call's arguments. None: they are no JSON object."""
    try:
        return msgspec.json.decode(text.strip() or "{}", type=dict[str, Any])
    except (msgspec.MsgspecError, ValueError):
        return None


def _note(asked: Decision, by: str) -> tuple[Part, ...]:
    """Say why. Whom a key's holder names beside himself stands with the reason: it proves nothing."""
    named = f"[{asked.by}] " if asked.by and asked.by != by else ""
    said = (named + asked.reason).strip()
    return (Text(said, RUNTIME),) if said else ()


def _parts(asked: Decision, tool: str, agent: BoundAgent | None) -> tuple[Part, ...]:
    """What a decision brings. Raises `InputError`."""
    if asked.arguments is not None and asked.decision != "edit":
        raise InputError('are given only with decision "edit"', field="arguments")
    if asked.result is not None and asked.decision != "record":
        raise InputError('is given only with decision "record"', field="result")
    match asked.decision:
        case "edit":
            return (Text(_edited(asked.arguments, tool, agent), RUNTIME),)
        case "record":
            if asked.result is None:
                raise InputError("is needed to record what was done", field="result")
            return (Text(asked.result, RUNTIME),)
        case _:
            return ()


def _edited(arguments: Mapping[str, Any] | None, tool: str, agent: BoundAgent | None) -> str:
    """Check edited arguments here if the tool is known here; the loop checks them again."""
    if arguments is None:
        raise InputError("are needed to edit: the whole object", field="arguments")
    text = msgspec.json.encode(arguments).decode()
    wrong = agent.registry.check(tool, text) if agent else None
    if isinstance(wrong, Problem):
        raise InputError(wrong.text, field="arguments")
    return text
