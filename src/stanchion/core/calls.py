"""What an event does to the tool calls of a step, until they are settled and stand in the conversation. Part of the fold: pure and total."""

from __future__ import annotations

import hashlib
from typing import assert_never

import msgspec

from stanchion.core import event as ev
from stanchion.core import sealing
from stanchion.core.block import marked
from stanchion.core.bundle import BUILT_IN, CALL_TOOL
from stanchion.core.conversation import add, count_said, flush
from stanchion.core.dispatch import unwrapped
from stanchion.core.message import REVIEWER, Erased, Part, Text, ToolCall, ToolResult, text_of
from stanchion.core.path import changed, pick
from stanchion.core.state import Call, Denied, Judgment, Seen, State, Trace, decisions_for

TRACES = 256
"""How many settled calls the loop detection looks back on at most."""
OURS = ("lost", "cancelled")
"""Codes of attempts that say nothing about the other side: the worker died, or stopped them."""
DOWN = (
    "breaker_open", "tool_timeout", "tool_unreachable", "tool_cut", "tool_unavailable", "tool_busy",
    "http_408", "http_429", "http_5",
)  # fmt: skip
"""How the codes of attempts begin whose tool was not to be had, for the moment at least."""
_with = msgspec.structs.replace


def proposed(seq: int, parts: tuple[Part, ...], *, dispatch: bool = False) -> tuple[Call, ...]:
    """Make the calls of a response. One that was erased keeps its place, and so the others keep their names.

    `dispatch`: a call of `call_tool` is one of the tool that it names.
    """
    calls: list[Call] = []
    for part in parts:
        if isinstance(part, ToolCall):
            inner = unwrapped(part) if dispatch else None
            calls.append(Call(f"{seq}.{len(calls)}", inner or part, dispatched=inner is not None))
        elif isinstance(part, Erased) and part.kind == "tool_call":
            calls.append(Call(f"{seq}.{len(calls)}", ToolCall("", "", "", part.label), erased=True))
    return tuple(calls)


def change(state: State, call_id: str, **fields: object) -> State:
    calls = tuple(_with(call, **fields) if call.id == call_id else call for call in state.calls)
    return _with(state, calls=calls)


def judged(state: State, event: ev.ToolCallJudged) -> State:
    phase = {"allow": "ready", "ask": "asking", "deny": "proposed"}[event.action]
    asked = state.at_ms if event.action == "ask" else 0
    if event.rule.startswith("limit:"):
        state = _with(state, over=event.rule.removeprefix("limit:"))
    if event.action == "deny" and event.values and (call := state.call(event.call)) is not None:
        state = _deny(state, call.part.arguments, event.values)
    return change(
        state,
        event.call,
        phase=phase,
        tool=event.tool,
        rule=event.rule,
        revision=event.revision,
        asked_ms=asked,
        expires_ms=event.expires_ms,
        values=event.values,
        policy=event.policy,
        quorum=event.quorum,
        digest=event.digest,
    )


def answers(call: Call, event: ev.CallDecided) -> bool:
    """Say whether a decision answers what is asked about a call now: this revision, this doubt, and one of the choices."""
    if call.phase != "asking" or call.revision != event.revision or event.attempt not in (-1, call.attempt):
        return False
    if event.policy not in ("", call.policy):  # shown under policies that are not in force any more
        return False
    return event.decision in decisions_for(call)


def decided(state: State, event: ev.CallDecided) -> State:
    call = state.call(event.call)
    if call is None or not answers(call, event):
        return state
    asked = "" if call.filled else call.part.arguments  # the model does not know what was filled in
    decision = Judgment(call.tool, event.decision, event.by, asked, count_said(state))
    state = _with(state, judgments=(*state.judgments, decision))
    match event.decision:
        case "approve":
            said = call.approvals if event.by in call.approvals else (*call.approvals, event.by)
            if len(said) < call.quorum:
                return change(state, call.id, approvals=said)
            return change(state, call.id, phase="ready", approved=True, approvals=said)
        case "retry":
            return change(state, call.id, phase="ready", in_doubt=False, retry_at_ms=0)
        case "edit":
            part = _with(call.part, arguments=text_of(event.parts[:1]), label=REVIEWER)
            return change(
                state,
                call.id,
                phase="proposed",
                approved=True,
                part=part,
                revision=call.revision + 1,
                grants=event.grants,
                approvals=(event.by,),
                edited=call.edited | changed(call.part.arguments, part.arguments),
            )
        case "reject" | "record" | "fail":
            said = event.parts[:1] if event.decision == "record" else event.parts
            code = f"decided_{event.decision}"
            if event.decision == "reject":
                state = _deny(state, call.part.arguments, call.values)
                state = _with(state, refused_calls=(*state.refused_calls, Denied(call.digest, count_said(state))))
            return change(state, call.id, phase="failed", code=code, detail=text_of(said), retryable=False)
        case _:
            assert_never(event.decision)


def _deny(state: State, arguments: str, paths: tuple[str, ...]) -> State:
    """Keep the values that were refused: they stay refused in this session."""
    known = {denied.value for denied in state.denied}
    new = (value for value in pick(arguments, paths) if value not in known)
    at = count_said(state)
    return _with(state, denied=(*state.denied, *(Denied(value, at) for value in new)))


def tool_started(state: State, event: ev.ToolCallStarted, epoch: int) -> State:
    call = state.call(event.call)
    if call is None:
        return state
    if call.attempt == 0:
        state = _with(state, totals=_with(state.totals, tool_calls=state.totals.tool_calls + 1))
    if event.model:
        state = _with(state, refused=None)
    return change(
        state,
        event.call,
        phase="running",
        attempt=event.attempt,
        tries=call.tries + (event.mode != "reconcile"),
        checks=call.checks + 1 if event.mode == "reconcile" else 0,
        mode=event.mode,
        epoch=epoch,
        started_ms=state.at_ms,
        deadline_ms=event.deadline_ms,
        reserved=event.reserved,
        ledgers=event.ledgers,
        bound_tokens=event.bound_tokens,
    )


def tool_failed(state: State, event: ev.ToolCallFailed) -> State:
    call = state.call(event.call)
    if call is None:
        return state
    ours = event.code in OURS
    code, detail = event.code, text_of(event.parts)
    if call.mode == "reconcile":  # what matters stays why the attempt itself is in doubt
        code, detail = call.code, call.detail
    return change(
        sealing.billed(state, call, event.cost, event.usage),
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


def reconciled(state: State, event: ev.ToolCallReconciled) -> State:
    code = f"reconciled_{event.answer}"
    if event.answer == "not_done":  # as if the attempt itself had said so
        return change(
            state, event.call, phase="failed", mode="run", code=code, in_doubt=False, retryable=True, retry_at_ms=0
        )
    return change(state, event.call, phase="failed", code=code, retryable=False)


def tool_finished(state: State, event: ev.ToolCallFinished) -> State:
    call = state.call(event.call)
    if call is None:
        return state
    first = event.parts[0] if event.parts else None
    result = first if isinstance(first, ToolResult) else None
    if result is None:
        label = first.label if isinstance(first, Erased) else call.part.label
        result = ToolResult(call.part.id, call.part.name, "[erased]", label, error=event.outcome != "ok")
    hidden = sealing.hides(state, call, event.outcome, result.label)
    answered = event.outcome == "ok" and result.label.source == "tool" and not sealing.is_extract(state, call)
    if answered and isinstance(first, ToolResult):
        place, asked = f"{state.run}/{call.id}", call.part.arguments
        seen = Seen(place, call.tool, asked, result.text, result.label, count_said(state), hidden)
        state = _with(state, seen=(*state.seen, seen))
    state = _lacking(state, call, event)
    done = (*state.done, (call.id, call.tool)) if event.outcome == "ok" and call.tool else state.done
    doubtful = (*state.doubtful, call.id) if event.outcome == "in_doubt" else state.doubtful
    state = _with(
        state,
        done=done,
        doubtful=doubtful,
        traces=_traced(state, call, result, event),
    )
    state = sealing.billed(state, call, event.cost, event.usage)
    if sealing.is_extract(state, call) or event.lacked:  # if there was no money for it, there may be for the model
        state = _with(state, refused=None)
    told = sealing.shown_of(event.parts) if hidden else None
    state = change(state, call.id, phase="settled", outcome=event.outcome, in_doubt=False, told=told)
    if _must_be_checked(state, event, result):
        return change(state, call.id, result=result, shown=event.shown, unchecked=True)
    state = show(state, _with(call, outcome=event.outcome), result, event.shown)
    return settle_step(state) if is_settled(state) else state


def _lacking(state: State, call: Call, event: ev.ToolCallFinished) -> State:
    """Note that a tool was not to be had, until it works again; and what a call that was done went without."""
    outcome = event.outcome
    if event.lacked and event.lacked not in state.degraded:
        state = _with(state, degraded=(*state.degraded, event.lacked))
    if outcome == "error" and call.phase == "failed" and call.code.startswith(DOWN):
        what = f"tool:{call.tool}:{call.code}"
        return state if what in state.degraded else _with(state, degraded=(*state.degraded, what))
    if outcome == "ok" and state.degraded:
        return _with(state, degraded=tuple(e for e in state.degraded if not e.startswith(f"tool:{call.tool}:")))
    return state


def _must_be_checked(state: State, event: ev.ToolCallFinished, result: ToolResult) -> bool:
    """Whether a result waits for checks: what a tool said does; what the runtime or a person did, does not."""
    said = event.outcome in ("ok", "error") and result.label.source == "tool" and result.label.name not in BUILT_IN
    return said and "result" in state.checked


def is_settled(state: State) -> bool:
    """Whether a step is over: each of its calls has its result, and no check is awaited."""
    return bool(state.calls) and all(call.phase == "settled" and not call.unchecked for call in state.calls)


def show(state: State, call: Call, result: ToolResult, shown: int, warning: str = "") -> State:
    """Give a call its result as it stands in the prompt. A long one is held, to be read on; one that is hidden is sealed later."""
    if sealing.is_extract(state, call) or sealing.hides(state, call, call.outcome, result.label):
        return change(state, call.id, result=result, unchecked=False, shown=-1)
    if shown >= 0:  # an erased one keeps its number
        state = _with(state, held=(*state.held, result.text))
    said = shown_result(result, shown, len(state.held), _block(state, call, result), warning)
    return change(state, call.id, result=said, unchecked=False, shown=-1)


def shown_result(result: ToolResult, shown: int, number: int, block: str = "", warning: str = "") -> ToolResult:
    """What of a result stands in the prompt: all of it, or its start and how to read on. `block`: the place of its block.

    `warning` goes before the text, within its block.
    """
    rest = len(result.text) - shown if shown >= 0 else 0
    text = warning + (result.text[:shown] if rest > 0 else result.text)
    if block:
        text = marked(text, block, result.name)
    if rest > 0:
        text += f'\n[{rest} more characters. Read on with read_result(result="{number}", offset={shown}).]'
    return result if text == result.text else _with(result, text=text)


def _block(state: State, call: Call, result: ToolResult) -> str:
    """Name the place of the block in which an untrusted result stands, or "" where it stands in none."""
    untrusted = result.label.source == "tool" and result.label.trust == "untrusted"
    return f"{state.session}/{state.run}/{call.id}" if state.mark and untrusted else ""


def _traced(state: State, call: Call, result: ToolResult, event: ev.ToolCallFinished) -> tuple[Trace, ...]:
    """Note a settled call in the order in which it was made: that in which calls of a step end is chance."""
    asked = hashlib.sha256(f"{call.part.name}\0{call.part.arguments}".encode()).hexdigest()[:16]
    answered = hashlib.sha256(result.text.encode()).hexdigest()[:16]
    failed = event.outcome in ("error", "invalid")
    number = int(call.id.rpartition(".")[2])
    trace = Trace(asked, answered, call.tool, failed, state.at_ms, state.totals.turns, number)
    place = len(state.traces)
    while place and state.traces[place - 1].turn == trace.turn and state.traces[place - 1].number > number:
        place -= 1
    return (*state.traces[:place], trace, *state.traces[place:])[-TRACES:]


def settle_step(state: State) -> State:
    """Put a step's results into the conversation, in call order, and what was said meanwhile behind them."""
    state = sealing.seal(state)
    calls = state.calls
    results = (
        *(_as_said(call) for call in calls),
        *(_edited(call) for call in calls if call.revision and call.attempt),
    )
    invalid = all(call.outcome == "invalid" for call in calls)
    totals = _with(state.totals, malformed_in_row=state.totals.malformed_in_row + 1 if invalid else 0)
    worked = tuple(call.tool for call in calls if call.outcome in ("ok", "pretended"))
    finish = "refusal" if state.finish == "refusal" else "tool_calls"
    checks = tuple(known for known in state.checks if known.where != "action")
    state = _with(state, calls=(), totals=totals, worked=worked, finish=finish, checks=checks)
    return flush(add(state, "user", results))


def _as_said(call: Call) -> Part:
    """Give a settled call's result, under the name that the model called; of a call that was erased nobody can tell it."""
    if call.result is None:
        raise AssertionError("a step is settled when each of its calls has its result")
    if call.erased:
        return Erased("tool_result", call.result.label)
    return _with(call.result, name=CALL_TOOL) if call.dispatched else call.result


def _edited(call: Call) -> Text:
    """Tell the model, which sees its call as it made it, that another was made."""
    if call.filled:  # the model does not know what was filled in
        return Text(f"[runtime] A person changed the arguments of your call of {call.part.name}.", REVIEWER)
    arguments = call.part.arguments or "[erased]"
    return Text(f"[runtime] A person changed the arguments of your call of {call.part.name} to: {arguments}", REVIEWER)
