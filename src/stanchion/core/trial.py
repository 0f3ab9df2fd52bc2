"""How an answer becomes the turn's: at once, or held back until it is judged; and what a run had to do without. Part of the fold: pure, total."""

from __future__ import annotations

import msgspec

from stanchion.core import event as ev
from stanchion.core import sealing
from stanchion.core.calls import proposed
from stanchion.core.conversation import add, flush
from stanchion.core.message import Part, Text
from stanchion.core.state import ModelCall, State, Trial

_with = msgspec.structs.replace


def answer_of(event: ev.ModelCallFinished, model: ModelCall | None, seq: int, *, counted: bool) -> Trial:
    """Read an answer. `counted`: its provider has counted it with the conversation."""
    return Trial(
        seq=seq,
        turn=event.turn,
        attempt=event.attempt,
        model=model.name if model is not None else "",
        step=model.step if model is not None else "",
        view=model.view if model is not None else "",
        finish=event.finish,
        parts=event.parts,
        rung=model.rung if model is not None else 0,
        last=event.attempt,
        counted=counted,
        dispatch=model is not None and model.dispatch,
    )


def take(state: State, answer: Trial) -> State:
    """Make an answer the turn's."""
    said = _said(state, answer.parts)
    calls = tuple(
        sealing.fill_call(state, call) for call in proposed(answer.seq, answer.parts, dispatch=answer.dispatch)
    )
    known = not answer.step or answer.view or not state.rung or answer.step in state.passed_on
    state = _with(
        state,
        model=None,
        trial=None,
        rung=0,
        attempts=0,
        passed_on=state.passed_on if known else (*state.passed_on, answer.step),
        more=False,
        finish="stop" if answer.finish == "tool_calls" and not calls else answer.finish,
        totals=_with(state.totals, turns=state.totals.turns + 1),
        best=said or state.best,
    )
    if answer.parts:
        state = add(state, "assistant", answer.parts)
    if answer.counted:
        state = _with(state, weight_since=0)
    return _with(state, calls=calls) if calls else flush(state)


def hold(state: State, answer: Trial) -> State:
    """Hold an answer back; or note what a judge said of the one that is."""
    if answer.view == "judge":
        trial = state.trial
        graded = _with(trial, graded=answer.parts, last=answer.attempt) if trial is not None else None
        return _with(state, model=None, trial=graded)
    return _with(state, model=None, trial=answer)


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
    return take(state, trial)


def _said(state: State, parts: tuple[Part, ...]) -> tuple[Text, ...]:
    """What of an answer may be shown as the best there is: what was not checked is nobody's answer."""
    if "output" in state.checked:
        return ()
    return tuple(part for part in parts if isinstance(part, Text) and part.text.strip())


def fell_back(state: State, event: ev.ModelCallStarted) -> State:
    """Note that a model failed for good, or is left alone for a time: the conversation goes to another."""
    if event.instead_of:
        return without(state, f"model:{event.instead_of}:breaker_open")
    before = state.model
    if before is None or before.view or event.view or not before.code or before.route == event.route:
        return state
    return without(state, f"model:{before.name}:{before.code}")


def without(state: State, what: str) -> State:
    """Note what a run has to do without."""
    return state if what in state.degraded else _with(state, degraded=(*state.degraded, what))
