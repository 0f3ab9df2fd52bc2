"""The checks of what comes in and goes out: which are to be made, what to wait for, and what becomes of the text. Pure.

    input     waits outside of the conversation until its checks are done; blocked, a start fails and a message is left out
    result    waits behind its call; blocked, the model is told so instead of it
    action    a call is judged once its checks are done (`step`)
    output    the answer is the run's once its checks are done (`decide`)

Pure checks are made where something is decided. A classifier is asked by an effect: its intent and its outcome are events, a lost
attempt is made again, and one that fails for good means what its rule says. What a pure check blocks no classifier is asked about.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from stanchion.core import event as ev
from stanchion.core.checked import progress, redacted
from stanchion.core.message import RUNTIME, Part, Text, text_of
from stanchion.core.policy import CheckRule, Where
from stanchion.core.state import Call, State
from stanchion.guard.check import Found, gravest, rules_at, text_of_call
from stanchion.loop import limit
from stanchion.loop.effect import CheckText, Decision, Moment, View

FIRST_INPUT = "1"
"""The seq of `RunStarted`: a run whose own input is blocked has nothing to do."""


class Subject(msgspec.Struct, frozen=True):
    """A text to be checked."""

    where: Where
    of: str
    text: str
    tool: str = ""
    call: str = ""


class Released(msgspec.Struct, frozen=True):
    """A final answer whose checks are done. `blocked`: the check that does not let it go; `again`: the model may try anew."""

    parts: tuple[Part, ...]
    events: tuple[ev.Event, ...] = ()
    blocked: str = ""
    reason: str = ""
    again: bool = False


def lost(state: State, moment: Moment) -> list[ev.Event]:
    """Write off the attempts of a worker that is gone. They may be billed, so they are, at their bound."""
    return [
        ev.CheckFailed(
            check=known.check,
            where=known.where,  # type: ignore[arg-type]  # it came from an event
            of=known.of,
            attempt=known.attempt,
            code="lost",
            retryable=True,
            retry_at_ms=moment.now_ms,
            cost=known.reserved,
        )
        for known in state.checks
        if known.in_flight and known.epoch < moment.epoch
    ]


def abandon(state: State) -> tuple[ev.Event, ...]:
    """Settle what a run that stops has not checked: it does not go on."""
    results = (call for call in state.calls if call.unchecked)
    reason = (Text("the run was stopped before it was checked", RUNTIME),)
    return tuple(
        ev.ContentChecked(
            check="", where="result", action="block", call=call.id, of=call.id, settled=True, parts=reason
        )
        for call in results
    )


def inputs(state: State, view: View, moment: Moment) -> Decision:
    """Check what was said to the run, in order. Not while the model thinks: it has what it was asked with."""
    if not state.unchecked or state.model is not None:
        return Decision()
    waiting = state.unchecked[0]
    subject = Subject("input", waiting.of, text_of(waiting.parts))
    found = _found(state, view, moment, subject)
    if isinstance(found, Decision):
        return found
    events = _settled(subject, found)
    worst = gravest(found)
    if worst is not None and worst.action == "block" and waiting.of == FIRST_INPUT:
        end = ev.RunFinished(outcome="failed", reason=f"check:{worst.check}", cost=state.totals.cost)
        return Decision(events=(*events, end))
    return Decision(events=events)


def result(state: State, call: Call, view: View, moment: Moment) -> Decision:
    """Check what a tool answered."""
    text = call.result.text if call.result is not None else ""
    subject = Subject("result", call.id, text, call.tool, call.id)
    found = _found(state, view, moment, subject)
    return found if isinstance(found, Decision) else Decision(events=_settled(subject, found))


def action(state: State, call: Call, view: View, moment: Moment) -> Decision | None:
    """Ask the classifiers about a proposed call with an effect. None: there are none to be asked (any more)."""
    spec = view.bundle.tool(call.part.name)
    if spec is None or spec.effect == "read" or not any(rule.classifier for rule in view.bundle.guard.checks):
        return None
    checked = view.check.arguments(spec.name, call.part.arguments)
    if isinstance(checked, str):
        return None
    arguments = msgspec.json.decode(checked)
    found = _found(state, view, moment, _action(call, spec.name, arguments), arguments)
    return found if isinstance(found, Decision) else None


def of_action(state: State, call: Call, view: View, now_ms: int, arguments: Mapping[str, Any]) -> tuple[Found, ...]:
    """Give what all checks found about a call that is judged now."""
    spec = view.bundle.tool(call.part.name)
    if spec is None or spec.effect == "read" or not view.bundle.guard.checks:
        return ()
    found = _found(state, view, Moment(now_ms, 0), _action(call, spec.name, arguments), arguments)
    return () if isinstance(found, Decision) else tuple(found)


def told(state: State, call: Call, view: View, now_ms: int, arguments: bytes) -> list[ev.Event]:
    """Say what checks found about a call that is judged now."""
    if not view.bundle.guard.checks:
        return []
    found = of_action(state, call, view, now_ms, msgspec.json.decode(arguments))
    return [_event(_action(call, call.part.name, {}), hit) for hit in found]


def answer(state: State, view: View, moment: Moment, said: tuple[Text, ...]) -> Decision | Released:
    """Check a final answer."""
    subject = Subject("output", f"turn:{state.totals.turns}", text_of(said))
    found = _found(state, view, moment, subject)
    if isinstance(found, Decision):
        return found
    worst = gravest(found)
    if worst is None:
        return Released(said)
    events = _settled(subject, found)
    if worst.action == "block":
        rule = next((rule for rule in view.bundle.guard.checks if rule.name == worst.check), None)
        again = rule is not None and rule.again and worst.check not in state.blocked
        return Released((), events, worst.check, worst.reason, again)
    last = events[-1]
    parts = redacted(said, last) if last.action == "redact" else said
    return Released(parts, events)


def _action(call: Call, tool: str, arguments: Mapping[str, Any]) -> Subject:
    return Subject("action", f"{call.id}/{call.revision}", text_of_call(arguments), tool, call.id)


def _found(
    state: State, view: View, moment: Moment, subject: Subject, arguments: Mapping[str, Any] | None = None
) -> Decision | list[Found]:
    """Give what all checks of a text found; or what is to be done, or waited for, before that is known."""
    rules = rules_at(view.bundle.guard.checks, subject.where, subject.tool)
    if arguments is None:
        found = view.checks.of_text(rules, subject.text, subject.tool)
    else:
        found = view.checks.of_call(rules, subject.tool, arguments)
    asked = [rule for rule in rules if rule.classifier]
    if not asked or not subject.text.strip() or any(hit.action == "block" for hit in found):
        return found
    moves = [_ask(state, rule, subject, moment) for rule in asked]
    if doing := [move for move in moves if isinstance(move, Decision)]:
        return Decision(
            events=tuple(event for move in doing for event in move.events),
            effects=tuple(effect for move in doing for effect in move.effects),
            wake_at_ms=min((move.wake_at_ms for move in doing if move.wake_at_ms), default=0),
        )
    return [*found, *(move for move in moves if isinstance(move, Found))]


def _ask(state: State, rule: CheckRule, subject: Subject, moment: Moment) -> Decision | Found | None:
    """Ask a classifier, wait for it, or give what it said. None: it has nothing against the text."""
    known = progress(state, rule.name, subject.where, subject.of)
    if known is None:
        return _start(state, rule, subject, moment, 1)
    if known.in_flight:
        return Decision()
    if known.action:
        return Found(rule.name, rule.action, known.reason) if known.action == "flag" else None
    if not known.retryable or known.tries >= rule.attempts:
        return _unknown(rule, f"it could not be checked ({known.code})")
    if moment.now_ms < known.retry_at_ms:
        return Decision(wake_at_ms=known.retry_at_ms)
    return _start(state, rule, subject, moment, known.attempt + 1)


def _unknown(rule: CheckRule, reason: str) -> Found:
    """A text that could not be checked: it does not go on, unless the rule says so."""
    return Found(rule.name, "block" if rule.on_error == "block" else "flag", reason)


def _start(state: State, rule: CheckRule, subject: Subject, moment: Moment, attempt: int) -> Decision | Found:
    """Begin an attempt, within what is left of the money."""
    most = rule.max_nano_usd
    if most and (short := _unaffordable(state, most, moment)):
        return _unknown(rule, f"it could not be checked within the budget ({short})")
    started = ev.CheckStarted(
        check=rule.name,
        where=subject.where,
        of=subject.of,
        attempt=attempt,
        deadline_ms=moment.now_ms + int(rule.timeout_s * 1000),
        reserved=most,
        ledgers=limit.windowed(state.ledgers, moment.now_ms) if most else (),
    )
    known = progress(state, rule.name, subject.where, subject.of)
    tries = known.tries + 1 if known is not None else 1
    effect = CheckText(
        check=rule.name,
        uses=rule.uses or rule.name,
        where=subject.where,
        of=subject.of,
        call=subject.call,
        attempt=attempt,
        text=subject.text,
        deadline_ms=started.deadline_ms,
        reserved=most,
        tries=tries,
    )
    return Decision(events=(started,), effects=(effect,))


def _unaffordable(state: State, most: int, moment: Moment) -> str:
    """Name the limit that a check would pass, or "". A budget that others have reserved is waited for, a while (I7)."""
    held = state.reserved + (state.model.reserved if state.model is not None else 0)
    if state.caps.nano_usd and state.totals.cost + held + most > state.caps.nano_usd:
        return "usd"
    refused = state.refused
    if refused is None:
        return ""
    late = moment.now_ms - refused.since_ms >= state.caps.budget_wait_s * 1000
    return f"budget:{refused.ledger}" if refused.hard or late else ""


def _settled(subject: Subject, found: list[Found]) -> tuple[ev.ContentChecked, ...]:
    """Say what was found, the decisive one last: with it the text goes on, or does not."""
    worst = gravest(found)
    if worst is None:
        return (
            ev.ContentChecked(
                check="", where=subject.where, action="pass", call=subject.call, of=subject.of, settled=True
            ),
        )
    others = tuple(_event(subject, hit) for hit in found if hit is not worst)
    last = _event(subject, worst)
    if worst.action == "redact":
        spans = sorted({span for hit in found for span in hit.spans})
        last = msgspec.structs.replace(last, spans=tuple(spans))
    return (*others, msgspec.structs.replace(last, settled=True))


def _event(subject: Subject, hit: Found) -> ev.ContentChecked:
    return ev.ContentChecked(
        check=hit.check,
        where=subject.where,
        action=hit.action,
        call=subject.call,
        of=subject.of,
        spans=hit.spans,
        parts=(Text(hit.reason, RUNTIME),),
    )
