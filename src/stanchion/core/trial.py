"""How an answer becomes the turn's: at once, or held back until it is judged; and what a run had to do without. Part of the fold: pure, total."""

from __future__ import annotations

import msgspec

from stanchion.core import event as ev
from stanchion.core import sealing
from stanchion.core.calls import proposed
from stanchion.core.conversation import add, flush
from stanchion.core.message import Finish, Part, Text
from stanchion.core.state import ModelCall, State, Trial

_with = msgspec.structs.replace


def take(state: State, seq: int, parts: tuple[Part, ...], finish: Finish, *, counted: bool, dispatch: bool) -> State:
    """Make a model's answer the turn's. `counted`: its provider has counted it, and the request before it. `dispatch`: cf. `calls.proposed`."""
    said = _said(state, parts)
    calls = tuple(sealing.fill_call(state, call) for call in proposed(seq, parts, dispatch=dispatch))
    state = _with(
        state,
        model=None,
        trial=None,
        rung=0,
        attempts=0,
        more=False,
        finish="stop" if finish == "tool_calls" and not calls else finish,
        totals=_with(state.totals, turns=state.totals.turns + 1),
        best=said or state.best,
    )
    if parts:
        state = add(state, "assistant", parts)
    if counted:
        state = _with(state, weight_since=0)
    return _with(state, calls=calls) if calls else flush(state)


def hold(state: State, seq: int, event: ev.ModelCallFinished, model: ModelCall, *, counted: bool) -> State:
    """Hold an answer back; or note what a judge said of the one that is."""
    if model.view == "judge":
        trial = state.trial
        graded = _with(trial, graded=event.parts, last=event.attempt) if trial is not None else None
        return _with(state, model=None, trial=graded)
    trial = Trial(
        seq=seq,
        turn=event.turn,
        attempt=event.attempt,
        model=model.name,
        step=model.step,
        view=model.view,
        finish=event.finish,
        parts=event.parts,
        rung=model.rung,
        last=event.attempt,
        counted=counted,
        dispatch=model.dispatch,
    )
    return _with(state, model=None, trial=trial)


def judged(state: State, event: ev.AnswerJudged) -> State:
    """Take the answer that was held back, or let the next model have the turn."""
    trial, model = state.trial, state.model
    if event.by == "failed" and event.action != "escalate" and model is not None:
        state = without(state, f"judge:{model.name}:{model.code}")
    if event.action == "escalate" or trial is None:
        best = _said(state, trial.parts) if trial is not None and event.by in ("judge", "form") else ()
        asked = trial.rung if trial is not None else model.rung if model is not None else 0
        state = _with(state, model=None, trial=None, rung=max(asked, state.rung), attempts=event.attempt)
        return flush(_with(state, best=best or state.best))
    return take(state, trial.seq, trial.parts, trial.finish, counted=trial.counted, dispatch=trial.dispatch)


def _said(state: State, parts: tuple[Part, ...]) -> tuple[Text, ...]:
    """What of an answer may be shown as the best there is: what was not checked is nobody's answer."""
    if "output" in state.checked:
        return ()
    return tuple(part for part in parts if isinstance(part, Text) and part.text.strip())


def fell_back(state: State, event: ev.ModelCallStarted) -> State:
    """Note that a model failed for good: the conversation goes to another."""
    before = state.model
    if before is None or before.view or event.view or not before.code or before.route == event.route:
        return state
    return without(state, f"model:{before.name}:{before.code}")


def without(state: State, what: str) -> State:
    """Note what a run has to do without."""
    return state if what in state.degraded else _with(state, degraded=(*state.degraded, what))
