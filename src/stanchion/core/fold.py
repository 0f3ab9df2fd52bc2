"""What an event does to a state. Pure and total: any journal that was ever written folds, for ever.

`evolve` takes a state and one entry and gives the next state; `fold` does so for many; `carry` is what a session's next run
begins with. What to do about a state is `loop.decide`'s business, not this file's. How the conversation grows is `core.conversation`, what becomes of a step's calls `core.calls`, of checks `core.checked`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import assert_never

import msgspec

from stanchion.core import checked, compacted, embedded, trial
from stanchion.core import event as ev
from stanchion.core.calls import (
    OURS,
    decided,
    is_settled,
    judged,
    reconciled,
    settle_step,
    show,
    tool_failed,
    tool_finished,
    tool_started,
)
from stanchion.core.conversation import add, count_parts, flush, say
from stanchion.core.kept import TOLERANCE
from stanchion.core.message import Message, Part, Usage, text_of
from stanchion.core.policy import Grant
from stanchion.core.progress import result_bytes, said_bytes
from stanchion.core.state import Missed, ModelCall, Ran, Refusal, State, Unchecked

_with = msgspec.structs.replace


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
        past=ended.past,
        seam=ended.seam,
        covers=ended.covers,
        trimmed=ended.trimmed,
        head=ended.head,
        declared=ended.declared,
        summary=ended.summary,
        rewritten=ended.rewritten,
        judgments=ended.judgments,
        held=ended.held,
        prefix=ended.prefix,
        content_bytes=ended.content_bytes,
        hidden_bytes=ended.hidden_bytes,
        weight=ended.weight,
        exact_tokens=ended.exact_tokens,
        exact_route=ended.exact_route,
        weight_since=ended.weight_since,
        counted_tokens=ended.counted_tokens,
        counted_weight=ended.counted_weight,
        base_tokens=ended.base_tokens,
        carried_tokens=ended.carried_tokens,
        kept_parts=ended.kept_parts,
        kept_by=ended.kept_by,
        kept_prefix=ended.kept_prefix,
        kept_tokens=ended.kept_tokens,
        kept_ms=ended.kept_ms,
        kept_long=ended.kept_long,
        kept_void=ended.kept_void,
        kept_calls=ended.kept_calls,
        unbounded=ended.unbounded,
        began_parts=ended.began_parts,
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
        refreshed=ended.session,
        before=ran(ended),
    )


def ran(ended: State) -> Ran:
    """Say how a run has ended."""
    return Ran(ended.run, ended.outcome, ended.started_ms, tuple(tool for _, tool in ended.done))


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
            return _say_checked(_told(state, event.parts), event.parts)
        case ev.MemoryRecalled():
            return _recalled(state, event)
        case ev.NoticeAdded():
            return _noticed(state, event)
        case ev.PrefixReset():
            return _with(state, prompted="") if event.reason == "bundle" else state
        case ev.ModelCallStarted() | ev.ModelCallFinished() | ev.ModelCallFailed() | ev.AnswerJudged():
            return _model_call(state, event, entry.epoch)
        case ev.ToolCallJudged():
            return judged(state, event)
        case ev.CallDecided():
            return decided(state, event)
        case ev.GrantAdded() | ev.GrantRevoked() | ev.PolicyApplied() | ev.PlanDeclared():
            return _guarded(state, event)
        case ev.CheckStarted() | ev.CheckFailed() | ev.ContentChecked():
            return _checked(state, event, entry.epoch)
        case ev.CompactionStarted() | ev.CompactionFailed() | ev.SummaryWritten() | ev.Compacted():
            return compacted.evolve(state, event, entry.epoch)
        case ev.EmbeddingStarted() | ev.EmbeddingFailed() | ev.EmbeddingMade():
            return embedded.evolve(state, event, entry.epoch)
        case ev.CredentialUsed():
            return state
        case ev.ToolCallStarted():
            return tool_started(state, event, entry.epoch)
        case ev.ToolCallFailed():
            return tool_failed(state, event)
        case ev.ToolCallReconciled():
            return reconciled(state, event)
        case ev.ToolCallFinished():
            answered = state.totals.result_bytes + result_bytes(event)
            return tool_finished(_with(state, totals=_with(state.totals, result_bytes=answered)), event)
        case ev.BudgetRefused():
            since = state.refused.since_ms if state.refused else entry.at_ms
            return _with(state, refused=Refusal(event.ledger, event.hard, event.needed, event.left, since))
        case ev.BudgetOverrun():
            return _with(state, overrun=True)
        case ev.LimitWarned():
            foreseen = state.totals.turns if event.limit == "forecast" else state.foreseen_turn
            return say(_with(state, warned=(*state.warned, event.limit), foreseen_turn=foreseen), event.parts)
        case ev.LoopDetected():
            told = _with(state, looped=(*state.looped, event.kind), looped_turn=state.totals.turns)
            return say(told, event.parts)
        case ev.CancelRequested():
            return _with(state, cancelled_by=event.by or "unknown", parked="")
        case ev.BundleChanged():
            return _with(state, bundle=event.bundle, exact_tokens=0)
        case ev.RunParked() | ev.RunRevived():
            return _with(state, parked=event.reason if isinstance(event, ev.RunParked) else "")
        case ev.RunFinished():
            return _run_finished(state, event)
        case _:
            assert_never(event)


def _model_call(
    state: State,
    event: ev.ModelCallStarted | ev.ModelCallFinished | ev.ModelCallFailed | ev.AnswerJudged,
    epoch: int,
) -> State:
    """A model is asked, and what becomes of that."""
    match event:
        case ev.ModelCallStarted():
            return _model_started(state, event, epoch)
        case ev.ModelCallFinished():
            return _model_finished(state, event)
        case ev.ModelCallFailed():
            return _model_failed(state, event)
        case ev.AnswerJudged():
            return trial.judged(state, event)
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
        step=event.step,
        mark=event.mark if event.base is None and event.refreshes is None and event.remembers is None else state.mark,
        quarantine=event.quarantine,
        checked=event.checked,
    )
    parts = event.parts
    if event.narrowed:
        state, parts = _with(state, grants=_grants(parts[-1:])), parts[:-1]
    if event.bundle != state.prompted:  # the session's last count was of another identity, or of other tools
        state = _with(state, exact_tokens=0)
    if event.refreshes is not None:
        return _with(_asked_before(state), refreshed_ms=event.refreshed_ms)
    recalling = event.recalls and event.base is None
    if event.remembers is not None:  # its answer is a message of its own
        said = (*state.messages, Message("user", ()))
        return _with(state, messages=said, remembers=event.remembers.run, said_ms=event.said_ms, recalling=recalling)
    state = _with(_told(state, parts), refreshed_ms=event.refreshed_ms)
    return _say_checked(_with(state, recalling=recalling, began_parts=count_parts(state)), parts)


def _told(state: State, parts: tuple[Part, ...]) -> State:
    """Count what is said to the run."""
    said = state.totals.input_bytes + said_bytes(parts)
    return _with(state, totals=_with(state.totals, input_bytes=said))


def _run_finished(state: State, event: ev.RunFinished) -> State:
    state = _with(state, outcome=event.outcome, reason=event.reason, answer=event.parts, model=None, calls=())
    state = _with(state, checks=(), unchecked=(), recalling=False, unsaid=())
    if state.embedding is not None:
        state = _with(state, embedding=_with(state.embedding, in_flight=False))
    return flush(_with(state, compacting=None, trial=None, degraded=event.degraded))


def _recalled(state: State, event: ev.MemoryRecalled) -> State:
    """Put what is remembered first, and what was said behind it."""
    if state.remembers:
        return _with(state, recalled=event.parts, recalling=False)
    unsaid = state.unsaid
    state = say(_with(state, recalling=False, unsaid=()), event.parts)
    for one in unsaid:
        state = _say_as(state, one.of, one.parts)
    return state


def _asked_before(state: State) -> State:
    """Go back to the conversation as it was last asked about: without the answer, and what came after it."""
    left = state.kept_parts
    before = _with(state, messages=(), prefix=b"", content_bytes=0, weight=0, weight_since=0, refreshing=True)
    before = _with(before, past=(), seam=0)
    for message in state.messages:
        if left > 0:
            before = add(before, message.role, message.parts[:left])
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
    return say(state, event.parts)


def _say_checked(state: State, parts: tuple[Part, ...]) -> State:
    """Say what came from outside, or keep it until its checks are done, or until what is remembered was said."""
    if state.recalling:
        return _with(state, unsaid=(*state.unsaid, Unchecked(str(state.seq), parts)))
    return _say_as(state, str(state.seq), parts)


def _say_as(state: State, of: str, parts: tuple[Part, ...]) -> State:
    if "input" not in state.checked:
        return say(state, parts)
    return _with(state, unchecked=(*state.unchecked, Unchecked(of, parts)))


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
        return say(state, checked.input_let_through(waiting.parts, event))
    call = state.call(event.call) if event.where == "result" else None
    if call is None or call.result is None or not call.unchecked:
        return state
    state = show(state, call, checked.result_let_through(call.result, event), call.shown, checked.warning(event))
    return settle_step(state) if is_settled(state) else state


def _model_started(state: State, event: ev.ModelCallStarted, epoch: int) -> State:
    before = state.model
    same = before is not None and (before.route, before.view) == (event.route, event.view)
    tried = before.tried if before is not None and not before.view else ()
    model = ModelCall(
        turn=event.turn,
        route=event.route,
        attempt=event.attempt,
        tries=before.tries + 1 if before is not None and same else 1,
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
        cache_keeps=event.cache_keeps,
        prefix=event.prefix,
        cache_expected=event.cache_expected,
        sent_before=event.cache_sent,
        unkept=event.cache_unkept,
        dispatch=event.dispatch,
        step=event.step,
        choice=event.choice,
        view=event.view,
        rung=event.rung,
        trial=event.trial,
        tried=tried if event.view or event.route in tried else (*tried, event.route),
    )
    refreshed_ms = max(state.refreshed_ms, event.cache_refreshed_ms)
    state = _with(trial.fell_back(state, event), model=model, refused=None, finish="", refreshed_ms=refreshed_ms)
    if event.view:  # the conversation was not sent
        return state
    return _with(state, route=event.route, prompted=state.bundle, prompted_route=event.route, rewritten=False)


def _model_finished(state: State, event: ev.ModelCallFinished) -> State:
    model, usage = state.model, event.usage
    bound = model.bound_tokens if model is not None else 0
    used_in = usage.total_input_tokens if usage else bound
    used_out = usage.output_tokens if usage else 0
    totals = _with(
        state.totals,
        input_tokens=state.totals.input_tokens + used_in,
        output_tokens=state.totals.output_tokens + used_out,
        cost=state.totals.cost + event.cost,
        cache_expected=state.totals.cache_expected + (model.cache_expected if model is not None else 0),
        cache_hit=state.totals.cache_hit + _hit(model, usage),
        last_tokens=used_in if usage and not (model and model.view) else state.totals.last_tokens,
    )
    state = _with(state, totals=totals)
    counted = bool(usage and usage.total_input_tokens)
    answer = trial.answer_of(event, model, state.seq, counted=counted)
    if answer.view:
        return trial.hold(state, _with(answer, counted=False))
    ends = model is None or model.cache_keeps == "end"
    kept = sum(len(message.parts) for message in state.messages) if ends else state.kept_parts
    prefix = model.prefix if model is not None and ends else state.kept_prefix
    state = _kept(_with(state, kept_parts=kept, kept_prefix=prefix, kept_by=answer.model), model, usage)
    if counted:
        state = _with(state, exact_tokens=used_in + used_out, exact_route=state.route)
        state = compacted.counted(state, used_in)
    return trial.hold(state, answer) if model is not None and model.trial else trial.take(state, answer)


def _kept(state: State, model: ModelCall | None, usage: Usage | None) -> State:
    """Note what the provider may keep of a request that was answered."""
    tokens = 0
    if usage is not None and model is not None and model.cache != "off":
        written = usage.cache_write_tokens + usage.cache_write_long_tokens
        tokens = usage.total_input_tokens if model.cache_keeps == "end" else usage.cache_read_tokens + written
    return _with(
        state,
        kept_tokens=tokens,
        kept_ms=model.started_ms if model is not None else 0,
        kept_long=model is not None and model.cache == "long",
        kept_calls=state.kept_calls + 1,
        kept_void=False,
        squeezed=0,
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
        tries=state.model.tries - (event.code in OURS),
        code=event.code,
        retryable=event.retryable,
        retry_at_ms=event.retry_at_ms,
        reserved=0,
    )
    return _with(state, model=model, totals=totals)
