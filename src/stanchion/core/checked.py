"""What the checks of a text do to a state: how far each classifier is, and what becomes of the text. Part of the fold: pure, total."""

from __future__ import annotations

import msgspec

from stanchion.core import event as ev
from stanchion.core.check import cut_out
from stanchion.core.message import RUNTIME, Label, Part, Text, ToolResult, text_of
from stanchion.core.state import Checking, State

_OURS = ("lost", "cancelled")
_with = msgspec.structs.replace


def asked(state: State, event: ev.CheckStarted, epoch: int) -> State:
    """A classifier is asked about a text."""
    before = progress(state, event.check, event.where, event.of)
    now = Checking(
        check=event.check,
        where=event.where,
        of=event.of,
        attempt=event.attempt,
        tries=before.tries + 1 if before else 1,
        in_flight=True,
        epoch=epoch,
        deadline_ms=event.deadline_ms,
        reserved=event.reserved,
        ledgers=event.ledgers,
    )
    return _with(state, checks=(*_others(state, now), now), refused=None)


def failed(state: State, event: ev.CheckFailed) -> State:
    """.. and could not be."""
    state = _with(state, totals=_with(state.totals, cost=state.totals.cost + event.cost))
    before = progress(state, event.check, event.where, event.of)
    if before is None:
        return state
    now = _with(
        before,
        in_flight=False,
        tries=before.tries - (event.code in _OURS),
        reserved=0,
        code=event.code,
        retryable=event.retryable,
        retry_at_ms=event.retry_at_ms,
    )
    return _with(state, checks=(*_others(state, now), now))


def answered(state: State, event: ev.ContentChecked) -> State:
    """Note what a check said, and what it cost. A text that is settled is forgotten here, and taken further by the fold."""
    state = _with(state, totals=_with(state.totals, cost=state.totals.cost + event.cost))
    if event.where == "output" and event.settled and event.action == "block":
        state = _with(state, blocked=(*state.blocked, event.check))
    if event.settled:
        kept = tuple(known for known in state.checks if (known.where, known.of) != (event.where, event.of))
        return _with(state, checks=kept)
    before = progress(state, event.check, event.where, event.of)
    if before is None or not event.attempt:
        return state
    action = "pass" if event.action == "pass" else "flag"
    now = _with(before, in_flight=False, reserved=0, action=action, reason=text_of(event.parts))
    return _with(state, checks=(*_others(state, now), now))


def progress(state: State, check: str, where: str, of: str) -> Checking | None:
    """Find how far a classifier is with a text."""
    return next((known for known in state.checks if (known.check, known.where, known.of) == (check, where, of)), None)


def _others(state: State, now: Checking) -> tuple[Checking, ...]:
    name = (now.check, now.where, now.of)
    return tuple(known for known in state.checks if (known.check, known.where, known.of) != name)


def input_let_through(parts: tuple[Part, ...], event: ev.ContentChecked) -> tuple[Part, ...]:
    """What of an input goes on."""
    if event.action == "block":
        return (Text(_withheld("What was said here", event), RUNTIME),)
    return redacted(parts, event) if event.action == "redact" else parts


def redacted(parts: tuple[Part, ...], event: ev.ContentChecked) -> tuple[Part, ...]:
    """Take out of the texts of parts, read as one, what the check names."""
    out: list[Part] = []
    at = 0
    for part in parts:
        if not isinstance(part, Text):
            out.append(part)
            continue
        spans = tuple((start - at, end - at) for start, end in event.spans if end > at and start < at + len(part.text))
        out.append(_with(part, text=cut_out(part.text, spans, _instead(event))) if spans else part)
        at += len(part.text)
    return tuple(out)


def result_let_through(result: ToolResult, event: ev.ContentChecked) -> ToolResult:
    """What of a tool's answer goes on. The whole stays in the journal, for people."""
    if event.action == "block":
        text, label = _withheld("The result of this call", event), Label("runtime", trust="trusted")
        return _with(result, text=text, label=label, error=True, media=())
    if event.action == "redact":
        return _with(result, text=cut_out(result.text, event.spans, _instead(event)))
    return result


def warning(event: ev.ContentChecked) -> str:
    """What the model is told of a result that was flagged."""
    reason = text_of(event.parts)
    return f"(The check {event.check} warns of what follows: {reason}.)\n" if event.action == "flag" else ""


def _instead(event: ev.ContentChecked) -> str:
    return f"[redacted:{event.check}]"


def _withheld(what: str, event: ev.ContentChecked) -> str:
    why = f" by the check {event.check}" if event.check else ""
    reason = text_of(event.parts)
    return f"[runtime] {what} was withheld{why}{f': {reason}' if reason else ''}. Go on without it."
