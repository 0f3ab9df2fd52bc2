"""The state of a run: what its events say, and nothing else (invariant I3).

`evolve` takes a state and one entry and gives the next state; `fold` does so for many. Both are pure and total: any
journal that was ever written folds, for ever. What to do about a state is `loop.decide`'s business, not this file's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Literal, assert_never

import msgspec

from stanchion.core import event as ev
from stanchion.core.bundle import Caps
from stanchion.core.message import (
    REVIEWER,
    Erased,
    Finish,
    Media,
    Message,
    Opaque,
    Part,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
)

Phase = Literal["proposed", "asking", "ready", "running", "failed", "settled"]
"""Of a call: not judged yet; waits for a person; may start; has left; an attempt failed; has its result."""


class ModelCall(msgspec.Struct, frozen=True, omit_defaults=True):
    """The model call that is not answered yet."""

    turn: int
    route: int
    attempt: int
    """Of the turn, over all routes."""
    tries: int
    """On this route; those that we stopped or lost ourselves do not count."""
    in_flight: bool
    epoch: int
    started_ms: int
    deadline_ms: int = 0
    reserved: int = 0
    ledgers: tuple[str, ...] = ()
    bound_tokens: int = 0
    code: str = ""
    """Why the last attempt failed."""
    retryable: bool = False
    retry_at_ms: int = 0


class Call(msgspec.Struct, frozen=True, omit_defaults=True):
    """A tool call of the current step."""

    id: str
    part: ToolCall
    """As proposed; its arguments are replaced when a person edits them."""
    erased: bool = False
    """The proposal's content is gone, so that `part` says nothing."""
    phase: Phase = "proposed"
    revision: int = 0
    tool: str = ""
    """The known tool's name, once judged."""
    rule: str = ""
    """The rule that asked."""
    approved: bool = False
    """A person said yes to this revision."""
    asked_ms: int = 0
    expires_ms: int = 0
    attempt: int = 0
    tries: int = 0
    """Attempts to run it; those that we stopped or lost ourselves do not count."""
    checks: int = 0
    """Attempts to reconcile the last of them, counted likewise."""
    mode: Literal["run", "reconcile", "dry"] = "run"
    epoch: int = 0
    deadline_ms: int = 0
    code: str = ""
    detail: str = ""
    in_doubt: bool = False
    """An attempt may have been done. A later one that was not done does not change that."""
    doubted: int = 0
    """How many of its attempts may have left without a definite answer."""
    retryable: bool = False
    retry_at_ms: int = 0
    outcome: str = ""
    result: ToolResult | None = None
    shown: int = -1


class Trace(msgspec.Struct, frozen=True):
    """A settled call as the loop detection sees it."""

    call: str
    """Digest of tool and arguments."""
    result: str
    tool: str
    failed: bool
    at_ms: int
    turn: int


class Refusal(msgspec.Struct, frozen=True):
    """A reservation that was refused and not made since."""

    ledger: str
    hard: bool
    needed: int
    left: int
    since_ms: int


class Totals(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the run has used."""

    turns: int = 0
    tool_calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: int = 0
    malformed_in_row: int = 0


class State(msgspec.Struct, frozen=True, omit_defaults=True):
    """A run, folded."""

    run: str = ""
    tenant: str = ""
    session: str = ""
    user: str = ""
    agent: str = ""
    bundle: str = ""
    caps: Caps = Caps()
    ledgers: tuple[str, ...] = ()
    dry_run: bool = False
    deadline_ms: int = 0
    seq: int = 0
    hash: bytes = b""
    at_ms: int = 0
    started_ms: int = 0
    waited_ms: int = 0
    """Time spent waiting for people and nothing else."""
    messages: tuple[Message, ...] = ()
    """The conversation: the session's, from its first run on, as the model is shown it."""
    more: bool = False
    """Something was said, or a result came, that the model has not answered."""
    tail: tuple[Part, ...] = ()
    """Said while a step was under way; goes behind the step's results."""
    held: tuple[str, ...] = ()
    """Results too long to show whole; number n is read as result "n"."""
    prefix: bytes = b""
    """Digest over all parts of `messages`, in order (I8)."""
    content_bytes: int = 0
    """Of all parts of `messages`."""
    weight: int = 0
    """Upper bound of the tokens of all parts of `messages`: bytes, and for media what they declare."""
    exact_tokens: int = 0
    """Input and output of the last finished model call, as its provider counted, and for which route."""
    exact_route: int = -1
    weight_since: int = 0
    """Of the parts that came to `messages` after that call."""
    unbounded: str = ""
    """Type of the first media part that declares no bound."""
    prompted: str = ""
    """Digest of the bundle that the last model call was made under."""
    prompted_route: int = -1
    """The route of the session's last model call."""
    reasoners: tuple[str, ...] = ()
    """The models whose reasoning or own blocks stand in `messages`, as "provider:model"."""
    model: ModelCall | None = None
    finish: Finish | Literal[""] = ""
    """How the last answer ended, while it is not dealt with."""
    calls: tuple[Call, ...] = ()
    """Of the current step; empty between steps."""
    route: int = 0
    """The route in use."""
    totals: Totals = Totals()
    traces: tuple[Trace, ...] = ()
    warned: tuple[str, ...] = ()
    looped: tuple[str, ...] = ()
    """Kinds of loops the model was told of."""
    looped_turn: int = 0
    """The turn after which it was told last."""
    refused: Refusal | None = None
    overrun: bool = False
    cancelled_by: str = ""
    parked: str = ""
    done: tuple[tuple[str, str], ...] = ()
    """Call and tool of what ended well."""
    worked: tuple[str, ...] = ()
    """Tools that ended well, or were pretended to, in the last step."""
    doubtful: tuple[str, ...] = ()
    best: tuple[Text, ...] = ()
    """The last text that the model said in this run: what a halted run returns."""
    over: str = ""
    """The limit by which a call of the last step was refused."""
    answer: tuple[Part, ...] = ()
    outcome: str = ""
    reason: str = ""

    @property
    def ended(self) -> bool:
        """Whether the run is over."""
        return self.outcome != ""

    @property
    def asking(self) -> bool:
        """Whether a call waits for a person."""
        return any(call.phase == "asking" for call in self.calls)

    @property
    def in_flight(self) -> bool:
        """Whether an attempt has left and is not answered."""
        return (self.model is not None and self.model.in_flight) or any(c.phase == "running" for c in self.calls)

    def call(self, call_id: str) -> Call | None:
        """Find a call of the current step."""
        return next((call for call in self.calls if call.id == call_id), None)


TRACES = 256
"""How many settled calls the loop detection looks back on at most."""
_OURS = ("lost", "cancelled")
"""Codes of attempts that say nothing about the other side: the worker died, or stopped them."""
_with = msgspec.structs.replace
_encode = msgspec.json.Encoder().encode


def fold(entries: Iterable[ev.Entry], state: State | None = None) -> State:
    """Fold entries onto a state; without one, onto the empty state."""
    state = state or State()
    for entry in entries:
        state = evolve(state, entry)
    return state


def carry(ended: State) -> State:
    """Make the state on which the next run of a session is folded: the conversation, and nothing of the run."""
    return State(
        messages=ended.messages,
        held=ended.held,
        prefix=ended.prefix,
        content_bytes=ended.content_bytes,
        weight=ended.weight,
        exact_tokens=ended.exact_tokens,
        exact_route=ended.exact_route,
        weight_since=ended.weight_since,
        unbounded=ended.unbounded,
        prompted=ended.prompted,
        prompted_route=ended.prompted_route,
        reasoners=ended.reasoners,
    )


def evolve(state: State, entry: ev.Entry) -> State:  # noqa: C901 - one case an event, checked to be all of them
    """Give the state after one more entry."""
    waited = entry.at_ms - state.at_ms if state.asking and not state.in_flight else 0
    state = _with(state, seq=entry.seq, at_ms=entry.at_ms, hash=entry.hash, waited_ms=state.waited_ms + waited)
    event = entry.event
    match event:
        case ev.RunStarted():
            return _run_started(state, event)
        case ev.MessageAdded():
            return _say(state, event.parts)
        case ev.NoticeAdded():
            return _noticed(state, event)
        case ev.PrefixReset():
            return _with(state, prompted="") if event.reason == "bundle" else state
        case ev.ModelCallStarted():
            return _model_started(state, event, entry.epoch)
        case ev.ModelCallFinished():
            return _model_finished(state, event)
        case ev.ModelCallFailed():
            return _model_failed(state, event)
        case ev.ToolCallJudged():
            return _judged(state, event)
        case ev.CallDecided():
            return _decided(state, event)
        case ev.ToolCallStarted():
            return _tool_started(state, event, entry.epoch)
        case ev.ToolCallFailed():
            return _tool_failed(state, event)
        case ev.ToolCallReconciled():
            return _reconciled(state, event)
        case ev.ToolCallFinished():
            return _tool_finished(state, event)
        case ev.BudgetRefused():
            since = state.refused.since_ms if state.refused else entry.at_ms
            return _with(state, refused=Refusal(event.ledger, event.hard, event.needed, event.left, since))
        case ev.BudgetOverrun():
            return _with(state, overrun=True)
        case ev.LimitWarned():
            return _say(_with(state, warned=(*state.warned, event.limit)), event.parts)
        case ev.LoopDetected():
            told = _with(state, looped=(*state.looped, event.kind), looped_turn=state.totals.turns)
            return _say(told, event.parts)
        case ev.CancelRequested():
            return _with(state, cancelled_by=event.by or "unknown", parked="")
        case ev.BundleChanged():
            return _with(state, bundle=event.bundle, exact_tokens=0)
        case ev.RunParked():
            return _with(state, parked=event.reason)
        case ev.RunRevived():
            return _with(state, parked="")
        case ev.RunFinished():
            state = _with(state, outcome=event.outcome, reason=event.reason, answer=event.parts, model=None, calls=())
            return _flush(state)
        case _:
            assert_never(event)


def _run_started(state: State, event: ev.RunStarted) -> State:
    state = _with(
        state,
        run=event.run,
        tenant=event.tenant,
        session=event.session,
        user=event.user,
        agent=event.agent,
        bundle=event.bundle,
        caps=event.caps,
        ledgers=event.ledgers,
        dry_run=event.dry_run,
        deadline_ms=event.deadline_ms,
        started_ms=state.at_ms,
    )
    if event.bundle != state.prompted:  # the session's last count was of another identity, or of other tools
        state = _with(state, exact_tokens=0)
    return _say(state, event.parts)


def _noticed(state: State, event: ev.NoticeAdded) -> State:
    if event.kind == "output":
        totals = _with(state.totals, malformed_in_row=state.totals.malformed_in_row + 1)
        state = _with(state, totals=totals, finish="")
    return _say(state, event.parts)


def _say(state: State, parts: tuple[Part, ...]) -> State:
    """Put parts at the tail of the conversation, or keep them until the step under way is over."""
    if not parts:
        return state
    if state.calls or (state.model is not None):
        return _with(state, tail=state.tail + parts)
    return _add(state, "user", parts)


def _add(state: State, role: Literal["user", "assistant"], parts: tuple[Part, ...]) -> State:
    """Add parts to the conversation: to the last message if it is of the same side, for providers want them in turn."""
    prefix, size, weight, unbounded, reasoners = state.prefix, 0, 0, state.unbounded, state.reasoners
    for part in parts:
        if isinstance(part, Thinking | Opaque) and part.label.name not in reasoners:
            reasoners = (*reasoners, part.label.name)
        encoded = _encode((role, part))
        prefix = hashlib.sha256(prefix + encoded).digest()
        size += len(encoded)
        weight += len(encoded)
        for media in _media(part):
            weight += media.max_input_tokens - len(media.data)
            unbounded = unbounded or ("" if media.max_input_tokens else media.mime)
    messages = state.messages
    if messages and messages[-1].role == role:
        messages = messages[:-1] + (Message(role, messages[-1].parts + parts),)  # noqa: RUF005 - half the copying
    else:
        messages = messages + (Message(role, parts),)  # noqa: RUF005
    return _with(
        state,
        messages=messages,
        more=role == "user" or state.more,
        prefix=prefix,
        content_bytes=state.content_bytes + size,
        weight=state.weight + weight,
        weight_since=state.weight_since + weight,
        unbounded=unbounded,
        reasoners=reasoners,
    )


def _media(part: Part) -> tuple[Media, ...]:
    match part:
        case Media():
            return (part,)
        case ToolResult():
            return part.media
        case _:
            return ()


def _flush(state: State) -> State:
    """Let what was said during the step follow it."""
    tail = state.tail
    return _add(_with(state, tail=()), "user", tail) if tail else state


def _model_started(state: State, event: ev.ModelCallStarted, epoch: int) -> State:
    before = state.model
    tries = before.tries + 1 if before is not None and before.route == event.route else 1
    model = ModelCall(
        turn=event.turn,
        route=event.route,
        attempt=event.attempt,
        tries=tries,
        in_flight=True,
        epoch=epoch,
        started_ms=state.at_ms,
        deadline_ms=event.deadline_ms,
        reserved=event.reserved,
        ledgers=event.ledgers,
        bound_tokens=event.bound_tokens,
    )
    return _with(
        state,
        model=model,
        route=event.route,
        prompted=state.bundle,
        prompted_route=event.route,
        refused=None,
        finish="",
    )


def _model_finished(state: State, event: ev.ModelCallFinished) -> State:
    model, usage = state.model, event.usage
    bound = model.bound_tokens if model is not None else 0
    used_in = usage.total_input_tokens if usage else bound
    used_out = usage.output_tokens if usage else 0
    totals = _with(
        state.totals,
        turns=state.totals.turns + 1,
        input_tokens=state.totals.input_tokens + used_in,
        output_tokens=state.totals.output_tokens + used_out,
        cost=state.totals.cost + event.cost,
    )
    said = tuple(part for part in event.parts if isinstance(part, Text) and part.text.strip())
    calls = _proposed(state.seq, event.parts)
    finish = "stop" if event.finish == "tool_calls" and not calls else event.finish
    state = _with(state, model=None, more=False, finish=finish, totals=totals, best=said or state.best)
    if event.parts:
        state = _add(state, "assistant", event.parts)
    if usage and usage.total_input_tokens:
        state = _with(state, exact_tokens=used_in + used_out, exact_route=state.route, weight_since=0)
    return _with(state, calls=calls) if calls else _flush(state)


def _proposed(seq: int, parts: tuple[Part, ...]) -> tuple[Call, ...]:
    """Make the calls of a response. One that was erased keeps its place, and so the others keep their names."""
    calls: list[Call] = []
    for part in parts:
        if isinstance(part, ToolCall):
            calls.append(Call(f"{seq}.{len(calls)}", part))
        elif isinstance(part, Erased) and part.kind == "tool_call":
            calls.append(Call(f"{seq}.{len(calls)}", ToolCall("", "", "", part.label), erased=True))
    return tuple(calls)


def _model_failed(state: State, event: ev.ModelCallFailed) -> State:
    if state.model is None:
        return state
    usage, totals = event.usage, state.totals
    totals = _with(
        totals,
        cost=totals.cost + event.cost,
        input_tokens=totals.input_tokens + (usage.total_input_tokens if usage else 0),
        output_tokens=totals.output_tokens + (usage.output_tokens if usage else 0),
    )
    model = _with(
        state.model,
        in_flight=False,
        tries=state.model.tries - (event.code in _OURS),
        code=event.code,
        retryable=event.retryable,
        retry_at_ms=event.retry_at_ms,
        reserved=0,
    )
    return _with(state, model=model, totals=totals)


def _change(state: State, call_id: str, **fields: object) -> State:
    calls = tuple(_with(call, **fields) if call.id == call_id else call for call in state.calls)
    return _with(state, calls=calls)


def _judged(state: State, event: ev.ToolCallJudged) -> State:
    phase = {"allow": "ready", "ask": "asking", "deny": "proposed"}[event.action]
    asked = state.at_ms if event.action == "ask" else 0
    if event.rule.startswith("limit:"):
        state = _with(state, over=event.rule.removeprefix("limit:"))
    return _change(
        state,
        event.call,
        phase=phase,
        tool=event.tool,
        rule=event.rule,
        revision=event.revision,
        asked_ms=asked,
        expires_ms=event.expires_ms,
    )


def _decided(state: State, event: ev.CallDecided) -> State:
    call = state.call(event.call)
    if call is None or call.phase != "asking" or call.revision != event.revision:
        return state
    if event.decision not in decisions_for(call):
        return state
    match event.decision:
        case "approve":
            return _change(state, call.id, phase="ready", approved=True)
        case "retry":
            return _change(state, call.id, phase="ready", in_doubt=False, retry_at_ms=0)
        case "edit":
            part = _with(call.part, arguments=text_of(event.parts[:1]), label=REVIEWER)
            return _change(state, call.id, phase="proposed", approved=True, part=part, revision=call.revision + 1)
        case "reject" | "record" | "fail":
            said = event.parts[:1] if event.decision == "record" else event.parts
            code = f"decided_{event.decision}"
            return _change(state, call.id, phase="failed", code=code, detail=text_of(said), retryable=False)
        case _:
            assert_never(event.decision)


EDIT_INVALID = "edit_invalid"
"""The rule that asks again after arguments were edited into what the tool cannot take."""


def decisions_for(call: Call) -> tuple[str, ...]:
    """Say what a person may decide about a call that waits."""
    if call.in_doubt:
        return ("retry", "record", "fail")
    return ("edit", "reject") if call.rule == EDIT_INVALID else ("approve", "edit", "reject")


def _tool_started(state: State, event: ev.ToolCallStarted, epoch: int) -> State:
    call = state.call(event.call)
    if call is None:
        return state
    if call.attempt == 0:
        state = _with(state, totals=_with(state.totals, tool_calls=state.totals.tool_calls + 1))
    return _change(
        state,
        event.call,
        phase="running",
        attempt=event.attempt,
        tries=call.tries + (event.mode != "reconcile"),
        checks=call.checks + 1 if event.mode == "reconcile" else 0,
        mode=event.mode,
        epoch=epoch,
        deadline_ms=event.deadline_ms,
    )


def _tool_failed(state: State, event: ev.ToolCallFailed) -> State:
    call = state.call(event.call)
    if call is None:
        return state
    ours = event.code in _OURS
    code, detail = event.code, text_of(event.parts)
    if call.mode == "reconcile":  # what matters stays why the attempt itself is in doubt
        code, detail = call.code, call.detail
    return _change(
        state,
        call.id,
        phase="failed",
        tries=call.tries - (ours and call.mode != "reconcile"),
        checks=call.checks - (ours and call.mode == "reconcile"),
        code=code,
        detail=detail,
        in_doubt=call.in_doubt or event.in_doubt,
        doubted=call.doubted + event.in_doubt,
        retryable=event.retryable,
        retry_at_ms=event.retry_at_ms,
    )


def _reconciled(state: State, event: ev.ToolCallReconciled) -> State:
    code = f"reconciled_{event.answer}"
    if event.answer == "not_done":  # as if the attempt itself had said so
        return _change(
            state, event.call, phase="failed", mode="run", code=code, in_doubt=False, retryable=True, retry_at_ms=0
        )
    return _change(state, event.call, phase="failed", code=code, retryable=False)


def _tool_finished(state: State, event: ev.ToolCallFinished) -> State:
    call = state.call(event.call)
    if call is None:
        return state
    first = event.parts[0] if event.parts else None
    result = first if isinstance(first, ToolResult) else None
    if result is None:
        label = first.label if isinstance(first, Erased) else call.part.label
        result = ToolResult(call.part.id, call.part.name, "[erased]", label, error=event.outcome != "ok")
    held = state.held
    if event.shown >= 0:  # an erased one keeps its number
        held = (*held, result.text)
    done = (*state.done, (call.id, call.tool)) if event.outcome == "ok" and call.tool else state.done
    doubtful = (*state.doubtful, call.id) if event.outcome == "in_doubt" else state.doubtful
    shown = shown_result(result, event.shown, len(held))
    state = _with(
        state,
        held=held,
        done=done,
        doubtful=doubtful,
        traces=_traced(state, call, result, event),
        totals=_with(state.totals, cost=state.totals.cost + event.cost),
    )
    state = _change(state, call.id, phase="settled", outcome=event.outcome, result=shown, in_doubt=False)
    return _settle_step(state) if all(c.phase == "settled" for c in state.calls) else state


def shown_result(result: ToolResult, shown: int, number: int) -> ToolResult:
    """What of a result stands in the prompt: all of it, or its start and how to read on."""
    rest = len(result.text) - shown
    if shown < 0 or rest <= 0:
        return result
    more = f'\n[{rest} more characters. Read on with read_result(result="{number}", offset={shown}).]'
    return _with(result, text=result.text[:shown] + more)


def _traced(state: State, call: Call, result: ToolResult, event: ev.ToolCallFinished) -> tuple[Trace, ...]:
    asked = hashlib.sha256(f"{call.part.name}\0{call.part.arguments}".encode()).hexdigest()[:16]
    answered = hashlib.sha256(result.text.encode()).hexdigest()[:16]
    failed = event.outcome in ("error", "invalid")
    trace = Trace(asked, answered, call.tool, failed, state.at_ms, state.totals.turns)
    return (*state.traces[-TRACES + 1 :], trace)


def _settle_step(state: State) -> State:
    """Put a step's results into the conversation, in call order, and what was said meanwhile behind them."""
    calls = state.calls
    results = (
        *(_as_said(call) for call in calls),
        *(_edited(call) for call in calls if call.revision and call.attempt),
    )
    invalid = all(call.outcome == "invalid" for call in calls)
    totals = _with(state.totals, malformed_in_row=state.totals.malformed_in_row + 1 if invalid else 0)
    worked = tuple(call.tool for call in calls if call.outcome in ("ok", "pretended"))
    finish = "refusal" if state.finish == "refusal" else "tool_calls"
    return _flush(_add(_with(state, calls=(), totals=totals, worked=worked, finish=finish), "user", results))


def _as_said(call: Call) -> Part:
    """Give a settled call's result; that of a call whose proposal was erased cannot be told of which it is."""
    if call.result is None:
        raise AssertionError("a step is settled when each of its calls has its result")
    return Erased("tool_result", call.result.label) if call.erased else call.result


def _edited(call: Call) -> Text:
    """Tell the model, which sees its call as it made it, that another was made."""
    arguments = call.part.arguments or "[erased]"
    return Text(f"[runtime] A person changed the arguments of your call of {call.part.name} to: {arguments}", REVIEWER)


def text_of(parts: Iterable[Part]) -> str:
    """Join the text of parts."""
    return "".join(part.text for part in parts if isinstance(part, Text))
