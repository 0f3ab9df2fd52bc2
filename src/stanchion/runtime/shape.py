"""What a caller is told: a run as it stands, an event as JSON. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from stanchion.core.bundle import Bundle
from stanchion.core.event import Entry
from stanchion.core.kept import WORDS
from stanchion.core.message import Erased, Part, Text
from stanchion.core.money import format_usd
from stanchion.core.state import State
from stanchion.engine.live import LiveDelta
from stanchion.guard.explain import Row
from stanchion.guard.judge import Reason
from stanchion.journal.store import RunRow
from stanchion.loop.honest import sentence


class Started(msgspec.Struct, frozen=True):
    """A run that was accepted, or that was there already under the same idempotency key."""

    run: str
    session: str
    existing: bool = False
    queued: bool = False
    """It waits its turn, or for its session, or is left to another process's worker."""


class Queue(msgspec.Struct, frozen=True):
    """Where a run that has not begun stands at this moment."""

    position: int | None
    """From 1: how many go before it if nothing else comes, and itself. None: it waits for its session's run `behind`."""
    ahead_of_you_in_your_tenant: int
    estimated_wait_s: float | None
    """By the rate at which runs began of late; None: not known."""
    behind: str = ""


class Precedent(msgspec.Struct, frozen=True):
    """A call like one that waits, and what a person decided about it."""

    run: str
    call: str
    tool: str
    decision: str
    by: str
    at_ms: int
    reason: str
    same: str
    """"call": the same tool and arguments. "destination": the same tool, to the same destination."""


class Waiting(msgspec.Struct, frozen=True):
    """A call that waits for a person, in the order in which he needs it."""

    call: str
    tool: str
    revision: int
    """What a decision binds to: an edit makes the next one."""
    attempt: int
    """The last attempt at it; 0: none. A decision about one doubt does not answer the next."""
    kind: str
    """"approval", or "in_doubt": an attempt had no definite answer."""
    why: str
    """What speaks against it, a line each: first the values that nobody trusted said, and where they stand."""
    action: str
    """What would be done, in a sentence."""
    undo: str
    """Whether it can be undone, in words."""
    arguments: Any
    values: list[Row]
    """Each value: what it means, its ground, and where it stands with the text around it."""
    rule: str
    reason: str
    rules: list[Reason]
    """All that asked."""
    claim: str
    """What the model said when it proposed the call. It is the model's word and nothing more."""
    tier: str
    batch: str
    """The calls of one step that wait share it: they are one question."""
    quorum: int
    """How many people must approve."""
    approvals: list[str]
    """Who has."""
    decisions: list[str]
    policy: str
    """Digest of the policies under which it was judged."""
    asked_ms: int
    expires_ms: int
    similar: list[Precedent] = []
    """What was decided about calls like it of late."""


class Approval(msgspec.Struct, frozen=True):
    """A call that waits, and whose it is."""

    run: str
    session: str
    user: str
    agent: str
    waiting: Waiting


class GrantView(msgspec.Struct, frozen=True):
    """What a person allowed for the rest of a session."""

    id: str
    tools: list[str]
    kind: str
    value: str
    by: str
    run: str
    """In which it was allowed."""
    at_ms: int


class RunUsage(msgspec.Struct, frozen=True):
    """What a run has used."""

    turns: int
    tool_calls: int
    input_tokens: int
    output_tokens: int
    cache_expected_tokens: int = 0
    """Input that the session had sent before and the provider's cache should have had, as estimated before each call .."""
    cache_hit_tokens: int = 0
    """.. and how much of it was read."""


class CacheMiss(msgspec.Struct, frozen=True):
    """A model call that read less from the cache than its session had sent before. Tokens."""

    turn: int
    sent: int
    read: int
    reason: str
    """In words."""


class ForecastView(msgspec.Struct, frozen=True):
    """What a run will have cost when it comes to its end. Amounts are US dollars."""

    usd: str
    """Half of the runs like it cost less."""
    low_usd: str
    high_usd: str
    coverage: float
    """The part of runs that end within the range, as far as past runs tell; 0: it is a range of assumptions."""
    runs: int
    """Past runs that it goes by; 0: it goes by the shape."""
    after_turns: int
    """How far the run was."""
    note: str
    """In words: by what it goes, or what was assumed."""


class RunView(msgspec.Struct, frozen=True):
    """A run as it stands."""

    run: str
    session: str
    user: str
    agent: str
    status: str
    """"queued", "runnable", "waiting", "parked" or "ended"."""
    outcome: str
    """"" while it lives; then "done", "halted", "failed", "cancelled" or "escalated"."""
    reason: str
    text: str
    """The answer, or the best that it had when it was stopped."""
    output: Any
    """The answer as JSON, for an agent with an output type."""
    seq: int
    usd: str
    usage: RunUsage
    waiting: list[Waiting]
    done: list[str]
    """Effects that were done, as "call tool"."""
    in_doubt: list[str]
    parked: str
    created_ms: int
    updated_ms: int
    queue: Queue | None = None
    """Where it stands, while it has not begun."""
    cache_misses: list[CacheMiss] = []
    forecast: ForecastView | None = None
    """What it will have cost at its end. None: it has ended, or nothing can be said."""
    degraded: list[str] = []
    """What it had to do without, a sentence each: a model that another stood in for, a tool that was down."""


class VerifiedRun(msgspec.Struct, frozen=True):
    """What the check of a run's chain found. `error` "": all in order."""

    run: str
    events: int
    erased: int
    error: str = ""
    bad_seq: int = 0


def view_of(row: RunRow, state: State, bundle: Bundle | None, waiting: list[Waiting]) -> RunView:
    """Show a run. `waiting`: what waits in it for a person."""
    effects = {spec.name for spec in bundle.tools if spec.effect != "read"} if bundle else set[str]()
    parts = state.answer if state.ended else state.best
    text = "".join(part.text for part in parts if isinstance(part, Text))
    return RunView(
        run=row.run,
        session=row.session,
        user=row.user,
        agent=row.agent,
        status="ended" if state.ended else row.status,  # the row was read first
        outcome=state.outcome,
        reason=state.reason,
        text=text,
        output=_parsed(text) if bundle is not None and bundle.output is not None and state.outcome == "done" else None,
        seq=state.seq,
        usd=format_usd(state.totals.cost),
        usage=RunUsage(
            turns=state.totals.turns,
            tool_calls=state.totals.tool_calls,
            input_tokens=state.totals.input_tokens,
            output_tokens=state.totals.output_tokens,
            cache_expected_tokens=state.totals.cache_expected,
            cache_hit_tokens=state.totals.cache_hit,
        ),
        cache_misses=[CacheMiss(each.turn, each.sent, each.read, WORDS[each.reason]) for each in state.missed],
        waiting=waiting,
        done=[f"{call} {tool}" for call, tool in state.done if tool in effects],
        in_doubt=list(state.doubtful),
        parked=state.parked,
        degraded=[sentence(entry) for entry in state.degraded],
        created_ms=row.created_ms,
        updated_ms=row.updated_ms,
    )


def _parsed(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.MsgspecError:
        return text


_encode = msgspec.json.Encoder().encode


def entry_json(entry: Entry) -> bytes:
    """Encode an entry for a client: one flat JSON object, content inline."""
    event = entry.event
    plain: dict[str, Any] = {"seq": entry.seq, "at_ms": entry.at_ms, "type": event.__struct_config__.tag}
    for name in event.__struct_fields__:
        if name != "parts":
            plain[name] = getattr(event, name)
    plain["parts"] = _parts(event.parts)
    return _encode(plain)


def _parts(parts: Sequence[Part]) -> list[Any]:
    return [
        {"type": "erased", "kind": part.kind, "label": part.label} if isinstance(part, Erased) else part
        for part in parts
    ]


def delta_json(delta: LiveDelta) -> bytes:
    """Encode a delta for a client."""
    return _encode(delta)
