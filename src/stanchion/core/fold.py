"""What an event does to a state. Pure and total: any journal that was ever written folds, for ever.

`evolve` takes a state and one entry and gives the next state; `fold` does so for many; `carry` is what a session's next run
begins with. What to do about a state is `loop.decide`'s business, not this file's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Literal, assert_never

import msgspec

from stanchion.core import checked, sealing
from stanchion.core import event as ev
from stanchion.core.block import marked
from stanchion.core.bundle import BUILT_IN
from stanchion.core.kept import TOLERANCE
from stanchion.core.message import (
    REVIEWER,
    Erased,
    Media,
    Message,
    Opaque,
    Part,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
    Usage,
    text_of,
)
from stanchion.core.path import changed, pick
from stanchion.core.policy import Grant
from stanchion.core.state import Call, Denied, Missed, ModelCall, Refusal, Seen, State, Trace, Unchecked, decisions_for

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
        kept_parts=ended.kept_parts,
        kept_by=ended.kept_by,
        kept_tokens=ended.kept_tokens,
        kept_ms=ended.kept_ms,
        kept_long=ended.kept_long,
        kept_calls=ended.kept_calls,
        unbounded=ended.unbounded,
        prompted=ended.prompted,
        prompted_route=ended.prompted_route,
        reasoners=ended.reasoners,
        mark=ended.mark,
        sealed=ended.sealed,
        granted=ended.granted,
        denied=ended.denied,
        refused_calls=ended.refused_calls,
        pinned=ended.pinned or ended.policy.partition("+")[0],
        seen=ended.seen,
    )


def evolve(state: State, entry: ev.Entry) -> State:  # noqa: C901 - one case an event, checked to be all of them
    """Give the state after one more entry."""
    waited = entry.at_ms - state.at_ms if state.unclaimed or (state.asking and not state.in_flight) else 0
    state = _with(
        state,
        seq=entry.seq,
        at_ms=entry.at_ms,
        hash=entry.hash,
        waited_ms=state.waited_ms + waited,
        unclaimed=entry.epoch == 0,
    )
    event = entry.event
    match event:
        case ev.RunStarted():
            return _run_started(state, event)
        case ev.MessageAdded():
            return _say_checked(state, event.parts)
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
        case ev.GrantAdded() | ev.GrantRevoked() | ev.PolicyApplied() | ev.PlanDeclared():
            return _guarded(state, event)
        case ev.CheckStarted() | ev.CheckFailed() | ev.ContentChecked():
            return _checked(state, event, entry.epoch)
        case ev.CredentialUsed():
            return state
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
            return _flush(_with(state, checks=(), unchecked=()))
        case _:
            assert_never(event)


def _guarded(state: State, event: ev.GrantAdded | ev.GrantRevoked | ev.PolicyApplied | ev.PlanDeclared) -> State:
    """What people and policies changed of what the run may do."""
    match event:
        case ev.GrantAdded():
            grant = _with(event.grant, value=text_of(event.parts[:1])) if event.grant.kind else event.grant
            return _with(state, granted=(*state.granted, grant))
        case ev.GrantRevoked():
            return _with(state, granted=tuple(grant for grant in state.granted if grant.id != event.id))
        case ev.PolicyApplied():
            return _with(state, policy=event.policy)
        case ev.PlanDeclared():
            return _with(state, plan=event.tools)
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
        batch_api=event.batch_api,
        started_ms=state.at_ms,
        task=event.task,
        mark=event.mark if event.base is None and event.refreshes is None else state.mark,
        quarantine=event.quarantine,
        checked=event.checked,
    )
    parts = event.parts
    if event.narrowed:
        state, parts = _with(state, grants=_grants(parts[-1:])), parts[:-1]
    if event.bundle != state.prompted:  # the session's last count was of another identity, or of other tools
        state = _with(state, exact_tokens=0)
    if event.refreshes is not None:
        return _asked_before(state)
    state = _with(state, refreshed_ms=event.refreshed_ms)
    return _say_checked(state, parts)


def _asked_before(state: State) -> State:
    """Go back to the conversation as it was last asked about: without the answer, and what came after it."""
    left = state.kept_parts
    before = _with(state, messages=(), prefix=b"", content_bytes=0, weight=0, weight_since=0, refreshing=True)
    for message in state.messages:
        if left > 0:
            before = _add(before, message.role, message.parts[:left])
        left -= len(message.parts)
    return _with(before, weight_since=0)


def _grants(parts: tuple[Part, ...]) -> tuple[Grant, ...]:
    """Read what a run may do at most. What was erased grants nothing."""
    try:
        return msgspec.json.decode(text_of(parts), type=tuple[Grant, ...])
    except (msgspec.MsgspecError, ValueError):
        return ()


def _noticed(state: State, event: ev.NoticeAdded) -> State:
    if event.kind == "output":
        totals = _with(state.totals, malformed_in_row=state.totals.malformed_in_row + 1)
        state = _with(state, totals=totals, finish="")
    return _say(state, event.parts)


def _say_checked(state: State, parts: tuple[Part, ...]) -> State:
    """Say what came from outside, or keep it until its checks are done."""
    if "input" not in state.checked:
        return _say(state, parts)
    return _with(state, unchecked=(*state.unchecked, Unchecked(str(state.seq), parts)))


def _checked(state: State, event: ev.CheckStarted | ev.CheckFailed | ev.ContentChecked, epoch: int) -> State:
    """Note how far the checks of a text are."""
    match event:
        case ev.CheckStarted():
            return checked.asked(state, event, epoch)
        case ev.CheckFailed():
            return checked.failed(state, event)
        case ev.ContentChecked():
            return _go_on(checked.answered(state, event), event)
        case _:
            assert_never(event)


def _go_on(state: State, event: ev.ContentChecked) -> State:
    """Let a text go on whose checks are done: as it is, in part, or not at all."""
    if not event.settled:
        return state
    if event.where == "input":
        waiting = next((said for said in state.unchecked if said.of == event.of), None)
        if waiting is None:
            return state
        state = _with(state, unchecked=tuple(said for said in state.unchecked if said is not waiting))
        return _say(state, checked.input_let_through(waiting.parts, event))
    call = state.call(event.call) if event.where == "result" else None
    if call is None or call.result is None or not call.unchecked:
        return state
    state = _show(state, call, checked.result_let_through(call.result, event), call.shown, checked.warning(event))
    return _settle_step(state) if _is_settled(state) else state


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
        batch=event.batch,
        name=f"{event.provider}:{event.model}",
        cache=event.cache,
        cache_expected=event.cache_expected,
        sent_before=event.cache_sent,
        unkept=event.cache_unkept,
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
        cache_expected=state.totals.cache_expected + (model.cache_expected if model is not None else 0),
        cache_hit=state.totals.cache_hit + _hit(model, usage),
    )
    said = tuple(part for part in event.parts if isinstance(part, Text) and part.text.strip())
    said = () if "output" in state.checked else said  # what was not checked is nobody's answer, not even the best
    calls = tuple(sealing.fill_call(state, call) for call in _proposed(state.seq, event.parts))
    finish = "stop" if event.finish == "tool_calls" and not calls else event.finish
    kept = sum(len(message.parts) for message in state.messages)
    state = _kept(_with(state, kept_parts=kept, kept_by=model.name if model is not None else ""), model, usage)
    state = _with(state, model=None, more=False, finish=finish, totals=totals, best=said or state.best)
    if event.parts:
        state = _add(state, "assistant", event.parts)
    if usage and usage.total_input_tokens:
        state = _with(state, exact_tokens=used_in + used_out, exact_route=state.route, weight_since=0)
    return _with(state, calls=calls) if calls else _flush(state)


def _kept(state: State, model: ModelCall | None, usage: Usage | None) -> State:
    """Note what the provider may keep of a request that was answered."""
    asked = model is not None and model.cache != "off"
    return _with(
        state,
        kept_tokens=usage.total_input_tokens if usage is not None and asked else 0,
        kept_ms=model.started_ms if model is not None else 0,
        kept_long=model is not None and model.cache == "long",
        kept_calls=state.kept_calls + 1,
        refreshed_ms=0,
        missed=state.missed + _missed(model, usage),
    )


def _hit(model: ModelCall | None, usage: Usage | None) -> int:
    return min(model.cache_expected, usage.cache_read_tokens) if model is not None and usage is not None else 0


def _missed(model: ModelCall | None, usage: Usage | None) -> tuple[Missed, ...]:
    """Note a call that read less than its session had sent before, and why."""
    if model is None or usage is None or usage.cache_read_tokens >= model.sent_before * (1 - TOLERANCE):
        return ()
    return (Missed(model.turn, model.sent_before, usage.cache_read_tokens, model.unkept or "unknown"),)


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
    if event.action == "deny" and event.values and (call := state.call(event.call)) is not None:
        state = _deny(state, call.part.arguments, event.values)
    return _change(
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


def _decided(state: State, event: ev.CallDecided) -> State:
    call = state.call(event.call)
    if call is None or not answers(call, event):
        return state
    match event.decision:
        case "approve":
            said = call.approvals if event.by in call.approvals else (*call.approvals, event.by)
            if len(said) < call.quorum:
                return _change(state, call.id, approvals=said)
            return _change(state, call.id, phase="ready", approved=True, approvals=said)
        case "retry":
            return _change(state, call.id, phase="ready", in_doubt=False, retry_at_ms=0)
        case "edit":
            part = _with(call.part, arguments=text_of(event.parts[:1]), label=REVIEWER)
            return _change(
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
                state = _with(state, refused_calls=(*state.refused_calls, Denied(call.digest, len(state.messages))))
            return _change(state, call.id, phase="failed", code=code, detail=text_of(said), retryable=False)
        case _:
            assert_never(event.decision)


def _deny(state: State, arguments: str, paths: tuple[str, ...]) -> State:
    """Keep the values that were refused: they stay refused in this session."""
    known = {denied.value for denied in state.denied}
    new = (value for value in pick(arguments, paths) if value not in known)
    at = len(state.messages)
    return _with(state, denied=(*state.denied, *(Denied(value, at) for value in new)))


def _tool_started(state: State, event: ev.ToolCallStarted, epoch: int) -> State:
    call = state.call(event.call)
    if call is None:
        return state
    if call.attempt == 0:
        state = _with(state, totals=_with(state.totals, tool_calls=state.totals.tool_calls + 1))
    if event.model:
        state = _with(state, refused=None)
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
        reserved=event.reserved,
        ledgers=event.ledgers,
        bound_tokens=event.bound_tokens,
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
    hidden = sealing.hides(state, call, event.outcome, result.label)
    answered = event.outcome == "ok" and result.label.source == "tool" and not sealing.is_extract(state, call)
    if answered and isinstance(first, ToolResult):
        place, asked = f"{state.run}/{call.id}", call.part.arguments
        seen = Seen(place, call.tool, asked, result.text, result.label, len(state.messages), hidden)
        state = _with(state, seen=(*state.seen, seen))
    done = (*state.done, (call.id, call.tool)) if event.outcome == "ok" and call.tool else state.done
    doubtful = (*state.doubtful, call.id) if event.outcome == "in_doubt" else state.doubtful
    state = _with(
        state,
        done=done,
        doubtful=doubtful,
        traces=_traced(state, call, result, event),
    )
    state = sealing.billed(state, call, event.cost, event.usage)
    if sealing.is_extract(state, call):  # if there was no money for it, there may be for the model
        state = _with(state, refused=None)
    told = sealing.shown_of(event.parts) if hidden else None
    state = _change(state, call.id, phase="settled", outcome=event.outcome, in_doubt=False, told=told)
    if _must_be_checked(state, event, result):
        return _change(state, call.id, result=result, shown=event.shown, unchecked=True)
    state = _show(state, _with(call, outcome=event.outcome), result, event.shown)
    return _settle_step(state) if _is_settled(state) else state


def _must_be_checked(state: State, event: ev.ToolCallFinished, result: ToolResult) -> bool:
    """Whether a result waits for checks: what a tool said does; what the runtime or a person did, does not."""
    said = event.outcome in ("ok", "error") and result.label.source == "tool" and result.label.name not in BUILT_IN
    return said and "result" in state.checked


def _is_settled(state: State) -> bool:
    """Whether a step is over: each of its calls has its result, and no check is awaited."""
    return bool(state.calls) and all(call.phase == "settled" and not call.unchecked for call in state.calls)


def _show(state: State, call: Call, result: ToolResult, shown: int, warning: str = "") -> State:
    """Give a call its result as it stands in the prompt. A long one is held, to be read on; one that is hidden is sealed later."""
    if sealing.is_extract(state, call) or sealing.hides(state, call, call.outcome, result.label):
        return _change(state, call.id, result=result, unchecked=False, shown=-1)
    if shown >= 0:  # an erased one keeps its number
        state = _with(state, held=(*state.held, result.text))
    said = shown_result(result, shown, len(state.held), _block(state, call, result), warning)
    return _change(state, call.id, result=said, unchecked=False, shown=-1)


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
    asked = hashlib.sha256(f"{call.part.name}\0{call.part.arguments}".encode()).hexdigest()[:16]
    answered = hashlib.sha256(result.text.encode()).hexdigest()[:16]
    failed = event.outcome in ("error", "invalid")
    trace = Trace(asked, answered, call.tool, failed, state.at_ms, state.totals.turns)
    return (*state.traces[-TRACES + 1 :], trace)


def _settle_step(state: State) -> State:
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
    return _flush(_add(state, "user", results))


def _as_said(call: Call) -> Part:
    """Give a settled call's result; that of a call whose proposal was erased cannot be told of which it is."""
    if call.result is None:
        raise AssertionError("a step is settled when each of its calls has its result")
    return Erased("tool_result", call.result.label) if call.erased else call.result


def _edited(call: Call) -> Text:
    """Tell the model, which sees its call as it made it, that another was made."""
    if call.filled:  # the model does not know what was filled in
        return Text(f"[runtime] A person changed the arguments of your call of {call.part.name}.", REVIEWER)
    arguments = call.part.arguments or "[erased]"
    return Text(f"[runtime] A person changed the arguments of your call of {call.part.name} to: {arguments}", REVIEWER)
