"""Decide what a run does next. Pure: the same state, view and moment give the same decision, byte for byte (I4).

    decide -> Decision(events, effects)     events are made durable, then the effects are performed (I2)
              nothing                       something is in flight, a person is waited for, or the run is over

`decide` is asked again after every event, so each function here does one thing and returns. The order in `decide` is the
precedence: what was lost, a cancellation, an answer, the end of time, a compaction, the model call, the tool calls, the next turn.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from stanchion.context import life
from stanchion.context.assemble import (
    assemble,
    bound_alone,
    bound_input_tokens,
    preamble,
    prefix_digest,
    unbounded_parts,
)
from stanchion.core import event as ev
from stanchion.core.bundle import EXTRACT, Bundle, Route
from stanchion.core.kept import predicted
from stanchion.core.message import RUNTIME, ModelRequest, Part, Text, ToolCall, text_of
from stanchion.core.state import ModelCall, State, Trial
from stanchion.loop import answer, cascade, check, compact, embed, honest, limit, remember, step
from stanchion.loop.cascade import Chosen
from stanchion.loop.detect import detect
from stanchion.loop.effect import Abort, CallModel, Decision, HandIn, Moment, View

NOTHING = Decision()
PATIENCE_MS = 60_000
"""A provider that asks to wait longer is left for the next model, if there is one."""
BATCH_MS = 24 * 3_600_000
"""Within this time a provider has answered a batch, or given it up. A run that ends earlier does not use one."""
BATCH_SLACK_MS = 3_600_000
"""How much later a batch is given up by us: it waits to be handed in, and its results to be fetched."""
BYTES_PER_TOKEN = 4
"""For estimates only. What is reserved goes by bounds."""
REFRESH_TOKENS = 16
"""The shortest answer that may be asked for on every wire. Source: OpenAI API reference, "Responses", max_output_tokens."""
BUDGET_POLL_MS = 500
"""How often a refused reservation is tried again, if no money was heard to come free before."""


def decide(state: State, view: View, moment: Moment) -> Decision:
    """Say what to write and what to do now."""
    if state.ended or state.parked:
        return NOTHING
    if moment.refreshed_ms > state.refreshed_ms:  # (the next model call says so)
        state = msgspec.structs.replace(state, refreshed_ms=moment.refreshed_ms)
    if lost := _lost(state, moment):
        return Decision(events=lost)
    if state.cancelled_by:
        return _wind_down(state, view, "cancelled", "cancelled")
    if state.recalling:
        return NOTHING  # the worker puts it in front of what follows
    if state.refreshing:
        return _refresh(state, view, moment)
    if state.remembers:
        return _remember(state, view, moment)
    checked = check.inputs(state, view, moment)
    answered = None if checked.events else _answered(state, view, moment)
    if decision := next((found for found in (checked, answered) if found is not None and found.events), None):
        return decision
    if over := limit.out_of_time(state, moment.now_ms):
        return _wind_down(state, view, "halted", over)
    if answered is not None or (state.unchecked and state.model is None and not state.calls):
        decision = answered or checked  # its checks are under way
    elif state.compacting is not None:
        decision = compact.advance(state, state.compacting, view, moment)
    elif state.model is not None:
        decision = _model(state, state.model, view, moment)
    elif state.trial is not None:
        decision = _weigh(state, state.trial, view, moment)
    elif state.calls:
        decision = step.advance(state, view, moment)
    else:
        decision = _turn(state, view, moment)
    ends = (limit.end_ms(state, moment.now_ms), checked.wake_at_ms)
    return _bounded_wait(decision, min((end for end in ends if end), default=0))


def _refresh(state: State, view: View, moment: Moment) -> Decision:
    """Ask for the session's last request once, as it was sent, for as short an answer as there is, and in time; then it is over."""
    if state.model is not None and state.model.in_flight:
        return NOTHING
    if state.model is not None:
        return _finish(state, view, "failed", f"model:{state.model.code}", parts=())
    if state.totals.turns:
        return _finish(state, view, "done", parts=())
    if state.refused is not None:
        return _finish(state, view, "halted", f"budget:{state.refused.ledger}", parts=())
    if over := limit.out_of_time(state, moment.now_ms):
        return _finish(state, view, "halted", over, parts=())
    if prefix_digest(state, view.preamble(mark=state.mark)) != state.kept_prefix:
        return _finish(state, view, "halted", "erased", parts=())
    decision = _call_model(state, view, moment, Chosen(), route=max(state.prompted_route, 0), turn=1, attempt=1)
    return _bounded_wait(decision, limit.end_ms(state, moment.now_ms))


def _remember(state: State, view: View, moment: Moment) -> Decision:
    """Ask a model what is to be remembered of another run, until it has answered once; then have what was found embedded."""
    model = state.model
    if state.in_flight:
        return NOTHING
    route = min(view.bundle.step_route("remember"), len(view.bundle.every_route) - 1)
    if model is not None and not (model.retryable and model.tries < view.bundle.route(route).retry.attempts):
        return _finish(state, view, "failed", f"model:{model.code}", parts=())
    if model is not None and moment.now_ms < model.retry_at_ms:
        return Decision(wake_at_ms=model.retry_at_ms)
    if not remember.asks(state, view.bundle):
        return _learned(state, view, moment)
    if over := limit.out_of_time(state, moment.now_ms):
        return _finish(state, view, "halted", over, parts=())
    attempt = model.attempt + 1 if model is not None else 1
    return _call_model(state, view, moment, Chosen("remember"), route=route, turn=1, attempt=attempt)


def _learned(state: State, view: View, moment: Moment) -> Decision:
    """End a run that has looked at another, once what it found has its vectors, or can have none."""
    found = remember.found(state, view.bundle)
    if isinstance(found, str):
        return _finish(state, view, "failed", "malformed", parts=())
    embedding = embed.learned(state, found, view.bundle, moment)
    if isinstance(embedding, Decision):
        return embedding
    known = msgspec.structs.replace(state, degraded=honest.lacking(state, embedding)) if embedding else state
    return _finish(known, view, "done", parts=())


def _bounded_wait(decision: Decision, end_ms: int) -> Decision:
    if decision.events or not end_ms or 0 < decision.wake_at_ms <= end_ms:
        return decision
    return msgspec.structs.replace(decision, wake_at_ms=end_ms)


def _lost(state: State, moment: Moment) -> tuple[ev.Event, ...]:
    """Write off the attempts of a worker that is gone: they may have left, so each is in doubt and billed in full."""
    events: list[ev.Event] = []
    model = state.model
    if model is not None and model.in_flight and not model.batch and model.epoch < moment.epoch:
        events.append(
            ev.ModelCallFailed(
                turn=model.turn,
                attempt=model.attempt,
                code="lost",
                retryable=True,
                retry_at_ms=moment.now_ms,
                cost=model.reserved,
            )
        )
    events.extend(
        ev.ToolCallFailed(
            call=call.id,
            attempt=call.attempt,
            code="lost",
            in_doubt=call.mode == "run",
            retryable=True,
            retry_at_ms=moment.now_ms,
            cost=call.reserved,
            parts=(Text("the worker that made this call is gone", RUNTIME),),
        )
        for call in state.calls
        if call.phase == "running" and call.epoch < moment.epoch
    )
    return (*events, *check.lost(state, moment), *compact.lost(state, moment), *embed.lost(state, moment))


def _wind_down(state: State, view: View, outcome: str, reason: str) -> Decision:
    """Stop: no new intents; the model call and reads are aborted; effects in flight are awaited, then told (D3)."""
    reads = tuple(call.id for call in state.calls if call.phase == "running" and not step.doubtful(call, view.bundle))
    model = (state.model is not None and state.model.in_flight) or any(known.in_flight for known in state.checks)
    model = model or any(each is not None and each.in_flight for each in (state.compacting, state.embedding))
    if state.in_flight:
        return Decision(effects=(Abort(reads, model),))
    if state.in_batch:
        return Decision(events=(_given_up(state, "cancelled", moment=None),))
    if events := (*step.abandon(state, view.bundle), *check.abandon(state)):
        return Decision(events=events)
    return _finish(state, view, outcome, reason)


def _finish(
    state: State, view: View, outcome: str, reason: str = "", parts: tuple[Part, ...] | None = None
) -> Decision:
    finished = ev.RunFinished(
        outcome=outcome,  # type: ignore[arg-type]
        reason=reason,
        cost=state.totals.cost,
        done=tuple(call for call, tool in state.done if _has_effect(view.bundle, tool)),
        in_doubt=state.doubtful,
        parts=answer.fill(state, view.bundle, state.best) if parts is None else parts,
        degraded=state.degraded,
    )
    return Decision(events=(finished,))


def _has_effect(bundle: Bundle, tool: str) -> bool:
    spec = bundle.tool(tool)
    return spec is not None and spec.effect != "read"


def _model(state: State, model: ModelCall, view: View, moment: Moment) -> Decision:
    """Go on from a model call that is in flight or has failed: wait, try again, fall back, or give up."""
    if state.in_batch and moment.now_ms >= model.deadline_ms:
        return Decision(events=(_given_up(state, "timeout_total", moment),))
    if model.in_flight:
        return Decision(wake_at_ms=model.deadline_ms) if model.batch else NOTHING
    if model.view:
        return _refused(state, view, moment) or cascade.failed(state, view, moment, model)
    if model.code == "context_overflow" and (decision := compact.after_overflow(state, view, moment)):
        return decision
    routes = view.bundle.routes
    route = min(model.route, len(routes) - 1)  # a changed bundle may have fewer
    others = [number for number in _from(route, routes)[1:] if number not in model.tried]
    other = next((number for number in others if number not in moment.down), next(iter(others), -1))
    chosen = Chosen(model.step, trial=model.trial)
    patient = other < 0 or (route not in moment.down and model.retry_at_ms - moment.now_ms <= PATIENCE_MS)
    if model.retryable and patient and model.tries < routes[route].retry.attempts:
        if moment.now_ms < model.retry_at_ms:
            return Decision(wake_at_ms=model.retry_at_ms)
        return _call_model(state, view, moment, chosen, route=route, turn=model.turn, attempt=model.attempt + 1)
    if other >= 0:
        return _call_model(state, view, moment, chosen, route=other, turn=model.turn, attempt=model.attempt + 1)
    return _without_model(state, model, view)


def _from(route: int, routes: Sequence[Route]) -> list[int]:
    """List the numbers of routes in the order in which they are tried, from one on."""
    return [number % len(routes) for number in range(route, route + len(routes))]


def _up(state: State, bundle: Bundle, moment: Moment, route: int) -> tuple[int, str]:
    """Pass over a route that is left alone for a time, where there is another; and say which model that is."""
    if route not in moment.down or state.batch_api:
        return route, ""
    up = next((number for number in _from(route, bundle.routes) if number not in moment.down), route)
    name = f"{bundle.route(route).provider}:{bundle.route(route).model}"
    return (up, name) if up != route else (route, "")


def _without_model(state: State, model: ModelCall, view: View) -> Decision:
    """End a run that no model answers any more: with what there is, and in plain words."""
    known = msgspec.structs.replace(state, degraded=honest.lacking(state, f"model:{model.name}:{model.code}"))
    parts = (*answer.fill(state, view.bundle, state.best), honest.told(known, view.bundle))
    return _finish(known, view, "failed", f"model:{model.code}", parts=parts)


def _weigh(state: State, trial: Trial, view: View, moment: Moment) -> Decision:
    """Judge an answer that is held back; a person has what even the last model is not sure of."""
    if decision := _refused(state, view, moment):
        return decision
    finished = msgspec.structs.replace(state, finish=trial.finish)
    calls = any(isinstance(part, ToolCall) for part in trial.parts)
    problem = "" if calls else _problem(finished, view, text_of(trial.parts))
    decision = cascade.weigh(state, view, moment, trial, problem)
    if not any(isinstance(event, ev.AnswerJudged) and event.action == "hand_over" for event in decision.events):
        return decision
    said = () if view.bundle.guard.checks else tuple(part for part in trial.parts if isinstance(part, Text))
    return Decision(events=(*decision.events, *_finish(state, view, "escalated", "confidence", parts=said).events))


def _turn(state: State, view: View, moment: Moment) -> Decision:
    """Between two steps: does it go in circles, does a limit forbid another turn; else the next model call."""
    if state.finish == "tool_calls" and (decision := _after_step(state, view)):
        return decision
    if meter := limit.reached(state, moment.now_ms):
        return _finish(state, view, "halted", meter.limit)
    if limit.foreseen_over(state, moment.forecast):
        return _finish(state, view, "halted", "forecast")
    if told := limit.foreseen(state, moment.forecast):
        return Decision(events=(told,))
    route, instead_of = _up(state, view.bundle, moment, min(state.route, len(view.bundle.routes) - 1))
    tokens = bound_input_tokens(state, view.preamble(mark=state.mark), route)
    if warned := limit.warnings(state, view.bundle.route(route), tokens, moment.now_ms):
        return Decision(events=tuple(warned))
    chosen = cascade.choose(state, view, moment, _estimated(state, view))
    if chosen.rung is not None:
        decision = _refused(state, view, moment) or cascade.try_brief(state, view, moment, chosen)
        if decision is not None:
            return decision
        chosen = Chosen(chosen.step, "room", trial=view.bundle.routing.hand_over_below > 0)
    if decision := compact.before_call(state, view, moment, route):
        return decision
    turn, attempt = state.totals.turns + 1, state.attempts + 1
    chosen = msgspec.structs.replace(chosen, instead_of=instead_of)
    return _call_model(state, view, moment, chosen, route=route, turn=turn, attempt=attempt)


def _answered(state: State, view: View, moment: Moment) -> Decision | None:
    """Take the model's answer as the run's, or tell it what is wrong with it. None: it has not answered."""
    if state.model is not None or state.calls or state.unchecked or state.trial is not None:
        return None
    if _too_malformed(state, view):
        return _finish(state, view, "failed", "malformed")
    if state.finish in ("", "tool_calls", "pause"):
        return None
    if state.finish == "refusal":
        return _finish(state, view, "failed", "refusal")
    if state.more and state.finish == "stop":
        return None
    last = state.messages[-1] if state.messages else None
    said = tuple(part for part in last.parts if isinstance(part, Text)) if last and last.role == "assistant" else ()
    text = "".join(part.text for part in said)
    problem = _problem(state, view, text)
    if not problem:
        return _released(state, view, moment, said)
    return Decision(events=(_told_again(problem),))


def _told_again(problem: str) -> ev.NoticeAdded:
    return ev.NoticeAdded(kind="output", parts=(Text(f"[runtime] {problem}", RUNTIME),))


def _released(state: State, view: View, moment: Moment, said: tuple[Text, ...]) -> Decision:
    """End the run with an answer that its checks let go."""
    filled = tuple(part for part in answer.fill(state, view.bundle, said) if isinstance(part, Text))
    if not view.bundle.guard.checks:
        return _finish(state, view, "done", parts=filled)
    found = check.answer(state, view, moment, filled)
    if isinstance(found, Decision):
        return found
    if found.again:
        why = "" if state.sealed else f": {found.reason}"  # (it may quote what the model has not read)
        problem = f"Your answer was withheld by the check {found.blocked}{why}. Answer anew, without that."
        return Decision(events=(*found.events, _told_again(problem)))
    outcome, reason = ("failed", f"check:{found.blocked}") if found.blocked else ("done", "")
    finished = _finish(state, view, outcome, reason, parts=found.parts)
    return Decision(events=(*found.events, *finished.events))


def _too_malformed(state: State, view: View) -> bool:
    most = view.bundle.loop.malformed
    return bool(most) and state.totals.malformed_in_row >= most


def _problem(state: State, view: View, text: str) -> str:
    if state.finish == "length":
        return "Your answer was cut because it was too long. Say the rest, or say it shorter."
    if not text.strip():
        return "Your answer was empty. Answer, or call a tool."
    if view.bundle.tool_choice not in ("auto", "none"):
        return "Prose is not an answer here. Call a tool."
    wrong = view.check.output(text)
    if not wrong and state.sealed:
        filled = answer.fill_one(state, view.bundle, text)
        if filled.missing:
            return f"There is no value {{{{{filled.missing[0]}}}}}. Take it out with {EXTRACT} first, or leave it out."
        if filled.used and view.check.output(filled.text):
            return (
                "With its references filled in, your answer is not of the form it must have. Use values of other types."
            )
    return f"Your answer is not of the form it must have: {wrong}. Answer again, in that form only." if wrong else ""


def _after_step(state: State, view: View) -> Decision | None:
    """After the results of a step: a tool may have ended the run, or the run goes in circles."""
    if any(spec.ends_run for tool in state.worked if (spec := view.bundle.tool(tool)) is not None):
        return _finish(state, view, "escalated", "handed_over")
    if missing := honest.missing(state, view.bundle):
        parts = (*answer.fill(state, view.bundle, state.best), honest.told(state, view.bundle))
        return _finish(state, view, "failed", f"tool:{missing}", parts=parts)
    if state.looped_turn == state.totals.turns:  # told, and the model has not had its turn yet
        return None
    found = detect(state, view.bundle)
    if found is None:
        return None
    if found.kind in state.looped:
        return _finish(state, view, "halted", f"loop:{found.kind}")
    return Decision(events=(found,))


def _call_model(
    state: State, view: View, moment: Moment, why: Chosen, *, route: int, turn: int, attempt: int
) -> Decision:
    """Start an attempt at a model call, within what is left of money and tokens."""
    if decision := _refused(state, view, moment):
        return decision
    asked = remember.request(state, view.bundle, view.bundle.route(route)) if state.remembers else None
    tokens = bound_input_tokens(state, view.preamble(mark=state.mark), route) if asked is None else bound_alone(asked)
    kept, chosen = _kept_for(state, view, moment, view.bundle.route(route))
    batch = attempt == 1 and _may_wait(state, view, moment, route)
    allowed = limit.allow_call(state, chosen, tokens, batch=batch)
    if allowed.limit:
        return _finish(state, view, "halted", allowed.limit)
    if (state.caps.nano_usd or state.ledgers) and (part := unbounded_parts(state, chosen)):
        return _finish(state, view, "halted", f"unbounded:{part}")
    if moment.model_blocked and not batch:
        return NOTHING
    started = ev.ModelCallStarted(
        turn=turn,
        attempt=attempt,
        route=route,
        provider=chosen.provider,
        model=chosen.model,
        messages=len(state.messages),
        prefix=prefix_digest(state, view.preamble(mark=state.mark)),
        reserved=allowed.reserved,
        ledgers=limit.windowed(state.ledgers, moment.now_ms),
        bound_tokens=tokens,
        deadline_ms=moment.now_ms + BATCH_MS + BATCH_SLACK_MS
        if batch
        else limit.deadline_ms(state, chosen, moment.now_ms),
        batch=batch,
        max_output_tokens=allowed.max_output_tokens if batch else 0,
        cache=kept,
        cache_keeps=life.keeps(state, view.bundle.route(route), moment.habit, moment.now_ms, kept),
        dispatch=view.bundle.search is not None,
        step=why.step,
        choice=why.choice,
        instead_of=why.instead_of,
        trial=why.trial,
    )
    if kept != "off":
        started = predicted(started, state, moment.now_ms)
    if batch:
        handed = HandIn(turn, attempt, route, allowed.reserved)
        return Decision(events=(*_resets(state, route), started), effects=(handed,))
    request = msgspec.structs.replace(
        asked or assemble(state, view.bundle, view.preamble(mark=state.mark), chosen, keeps=started.cache_keeps),
        max_output_tokens=allowed.max_output_tokens,
    )
    model = state.model
    tries = model.tries + 1 if model is not None and model.route == route else 1
    call = CallModel(turn, attempt, route, request, started.deadline_ms, allowed.reserved, tries, tokens, why.trial)
    return Decision(events=(*_resets(state, route), started), effects=(call,))


def _kept_for(state: State, view: View, moment: Moment, route: Route) -> tuple[life.Life, Route]:
    """Settle for how long a request is kept; a refresh asks for the shortest answer that its provider takes."""
    if state.remembers:  # it is asked once
        most = min(route.max_output_tokens, remember.MAX_OUTPUT_TOKENS)
        return "off", msgspec.structs.replace(route, cache="off", max_output_tokens=most)
    kept = life.life(state, route, moment.habit, moment.now_ms, _estimated(state, view))
    most = min(route.max_output_tokens, REFRESH_TOKENS) if state.refreshing else route.max_output_tokens
    return kept, msgspec.structs.replace(route, cache=kept, max_output_tokens=most)


def _estimated(state: State, view: View) -> int:
    """Estimate the tokens of the conversation as it would be sent."""
    return state.kept_tokens or (view.preamble(mark=state.mark).bytes + state.content_bytes) // BYTES_PER_TOKEN


def _may_wait(state: State, view: View, moment: Moment, route: int) -> bool:
    """Say whether a call may go through the batch API: it was asked for, there is one, and there is a day left."""
    end = limit.end_ms(state, moment.now_ms)
    return state.batch_api and route in view.batchable and (not end or end - moment.now_ms >= BATCH_MS)


def batched_request(state: State, bundle: Bundle, started: ev.ModelCallStarted) -> ModelRequest:
    """Assemble the request of a call that was handed in, from the state as of its `ModelCallStarted`."""
    route = bundle.route(started.route)
    if started.cache:
        route = msgspec.structs.replace(route, cache=started.cache)
    request = assemble(state, bundle, preamble(bundle, mark=state.mark), route, keeps=started.cache_keeps)
    return msgspec.structs.replace(request, max_output_tokens=started.max_output_tokens)


def _given_up(state: State, code: str, moment: Moment | None) -> ev.ModelCallFailed:
    """Write off a call in a batch whose answer is not awaited any more: it may be billed, so it is, at its bound."""
    model = state.model
    if model is None:
        raise AssertionError("no model call is in flight")
    return ev.ModelCallFailed(
        turn=model.turn,
        attempt=model.attempt,
        code=code,
        retryable=moment is not None,
        retry_at_ms=moment.now_ms if moment is not None else 0,
        cost=model.reserved,
    )


def _resets(state: State, route: int) -> tuple[ev.Event, ...]:
    """Say that the next request does not go on from the one before it (I8)."""
    if state.remembers:  # what it asks goes on from nothing
        return ()
    if state.prompted not in ("", state.bundle):
        return (ev.PrefixReset(reason="bundle"),)
    if state.rewritten:
        return (ev.PrefixReset(reason="compaction"),)
    moved = state.prompted_route not in (-1, route)
    return (ev.PrefixReset(reason="route"),) if moved else ()


def _refused(state: State, view: View, moment: Moment) -> Decision | None:
    """After a refused reservation: give up where the money is spent; else wait for others to give theirs back (I7)."""
    refused = state.refused
    if refused is None:
        return None
    waited_ms = moment.now_ms - refused.since_ms
    if refused.hard or waited_ms >= state.caps.budget_wait_s * 1000:
        return _finish(state, view, "halted", f"budget:{refused.ledger}")
    return None
