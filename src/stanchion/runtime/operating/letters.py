"""Parked runs with their whole context: why they stand, whom they cost, what is open, and how they go on. Reads only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from stanchion.core import event as ev
from stanchion.core.errors import Conflict, JournalError
from stanchion.core.fold import fold
from stanchion.core.message import Part, Text
from stanchion.core.money import format_usd
from stanchion.core.state import Call, State
from stanchion.journal.store import RunRow, Store
from stanchion.runtime.runs.finding import row_of
from stanchion.runtime.shape import entry_json

ParkReason = Literal["dead_letter", "bundle_changed", "agent_missing"]
TAIL = 12
"""Events that are read of a run to show what happened last."""
_TEXT_CHARS = 4_000


class Letter(msgspec.Struct, frozen=True):
    """A parked run in a listing."""

    tenant: str
    run: str
    session: str
    user: str
    agent: str
    reason: str
    """"dead_letter": claimed again and again without progress; else "bundle_changed" or "agent_missing"."""
    attempts: int
    """Claims without progress until it was parked."""
    seq: int
    usd: str
    created_ms: int
    since_ms: int
    error: str
    """The last thing that went wrong in it, in short."""


class VainClaim(msgspec.Struct, frozen=True):
    """A claim that made no progress."""

    epoch: int
    worker: str
    """"" if it gave the run back."""
    ended_ms: int


class OpenCall(msgspec.Struct, frozen=True):
    """A call that is not settled."""

    call: str
    tool: str
    phase: str
    attempt: int
    epoch: int
    in_doubt: bool
    """An attempt may have been done: it had left when its worker died, or it had no definite answer."""


class LetterView(msgspec.Struct, frozen=True):
    """A parked run with all that is known of it."""

    letter: Letter
    why: str
    """What it was parked for, and what to do, in words."""
    claims: list[VainClaim]
    calls: list[OpenCall]
    events: list[Any]
    """The last ones, as the event API gives them."""
    input: str


async def letters(
    store: Store,
    *,
    tenant: str = "",
    agent: str = "",
    reason: str = "",
    before: tuple[str, str] = ("", ""),
    limit: int = 50,
) -> Sequence[Letter]:
    """List parked runs, newest first; of all tenants where none is named."""
    rows = await store.parked(tenant=tenant, agent=agent, reason=reason, before=before, limit=limit)
    return [_letter(row, await _tail(store, row)) for row in rows]


async def letter(store: Store, tenant: str, run: str) -> LetterView:
    """Show a parked run. Raises `NotFound`, and `Conflict` if it is not parked."""
    row = await row_of(store, tenant, run)
    if row.status != "parked":
        raise Conflict(f"run {run} is not parked but {row.status}; look at it with: stanchion runs show {run}")
    claims = [VainClaim(found.epoch, found.worker, found.ended_ms) for found in await store.claims(tenant, run)]
    try:
        entries = list(await store.read(tenant, run))
    except JournalError as error:  # (damaged, or written by a newer program: what the row says is shown all the same)
        return LetterView(_letter(row, []), str(error), claims, [], [], "")
    state = fold(entries)
    first = entries[0].event if entries else None
    last = entries[-TAIL:]
    why = next((entry.event.parts for entry in reversed(entries) if isinstance(entry.event, ev.RunParked)), ())
    return LetterView(
        letter=_letter(row, last),
        why=_words(why),
        claims=claims,
        calls=_open(state),
        events=[msgspec.json.decode(entry_json(entry)) for entry in last],
        input=_input(first),
    )


async def _tail(store: Store, row: RunRow) -> list[ev.Entry]:
    try:
        return list(await store.read(row.tenant, row.run, after=max(row.seq - TAIL, 0)))
    except JournalError:
        return []


def _letter(row: RunRow, last: Sequence[ev.Entry]) -> Letter:
    parked = next((entry.event for entry in reversed(last) if isinstance(entry.event, ev.RunParked)), None)
    return Letter(
        tenant=row.tenant,
        run=row.run,
        session=row.session,
        user=row.user,
        agent=row.agent,
        reason=row.outcome or (parked.reason if parked else ""),  # (rows of earlier versions do not say)
        attempts=max(row.attempts - 1, 0) if row.outcome == "dead_letter" else row.attempts,
        seq=row.seq,
        usd=format_usd(row.cost),
        created_ms=row.created_ms,
        since_ms=row.updated_ms,
        error=_error(last),
    )


def _error(last: Sequence[ev.Entry]) -> str:
    """Say what went wrong last."""
    for entry in reversed(last):
        match entry.event:
            case ev.ModelCallFailed():
                return _short(f"model: {entry.event.code}", entry.event.parts)
            case ev.ToolCallFailed():
                return _short(f"call {entry.event.call}: {entry.event.code}", entry.event.parts)
            case ev.RunFinished() | ev.ModelCallFinished() | ev.ToolCallFinished():
                return ""
            case ev.ModelCallStarted():
                return "model call: no answer, its worker was gone"
            case ev.ToolCallStarted():
                return f"call {entry.event.call}: no answer, its worker was gone"
            case _:
                pass
    return ""


def _input(first: ev.Event | None) -> str:
    """Give what a run was started with, without what it was narrowed to."""
    narrowed = isinstance(first, ev.RunStarted) and first.narrowed
    return _words(first.parts[:-1] if narrowed else first.parts) if first else ""


def _short(what: str, parts: Sequence[Part]) -> str:
    text = " ".join(_words(parts).split())
    return f"{what}: {text[:200]}" if text else what


def _words(parts: Sequence[Part]) -> str:
    return "\n".join(part.text for part in parts if isinstance(part, Text))[:_TEXT_CHARS]


def _open(state: State) -> list[OpenCall]:
    return [_open_call(call) for call in state.calls if call.result is None]


def _open_call(call: Call) -> OpenCall:
    doubt = call.in_doubt or call.phase == "running"
    return OpenCall(call.id, call.tool or call.part.name, call.phase, call.attempt, call.epoch, doubt)
