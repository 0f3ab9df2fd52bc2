"""What of a run others may want to hear of: an append's events as announcements, small and without content.

A run that ended, that stands until a person revives it, that begins to wait for a person's decision, or that has come to a line of
its own limit of money. The store writes the deliveries with the append; `deliver` posts them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime

import msgspec

from stanchion.core import event as ev
from stanchion.core.money import format_usd
from stanchion.core.state import State
from stanchion.journal.outbox import Announcement, EventKind
from stanchion.journal.store import RunRow

LINES = (50, 80, 100)
"""Per cent of a limit at which somebody is told."""


def announcements(before: State, state: State, entries: Sequence[ev.Entry]) -> tuple[Announcement, ...]:
    """Announce what entries say that led from one state to another. What only refreshes a cache or remembers is nobody's matter."""
    if state.refreshing or state.remembers:
        return ()
    said = _announced(entries, state.session, state.agent, state.totals.cost)
    return (*_crossed(before, state, entries), *said)


def parked_by_claim(row: RunRow | None, entries: Sequence[ev.Entry]) -> tuple[Announcement, ...]:
    """Announce what who claimed a run wrote without driving it."""
    return () if row is None else _announced(entries, row.session, row.agent, row.cost)


def _announced(entries: Sequence[ev.Entry], session: str, agent: str, cost: int) -> tuple[Announcement, ...]:
    said = ((entry, _said(entry.event)) for entry in entries)
    return tuple(_announcement(found[0], entry, session, agent, cost, found[1]) for entry, found in said if found)


def _announcement(
    kind: EventKind, entry: ev.Entry, session: str, agent: str, cost: int, facts: Mapping[str, object]
) -> Announcement:
    data = {"session": session, "agent": agent, "seq": entry.seq, "usd": format_usd(cost), **facts}
    body = {"type": kind, "timestamp": timestamp(entry.at_ms), "data": data}
    return Announcement(kind, entry.seq, agent, msgspec.json.encode(body))


def _crossed(before: State, state: State, entries: Sequence[ev.Entry]) -> Iterator[Announcement]:
    """Tell the lines of the run's own limit that what is settled has come to, from one state to the other.

    100 % is told as well when the rest was too little for the next step, so that the run was halted.
    """
    limit, cost = state.caps.nano_usd, state.totals.cost
    stopped = state.ended and state.reason == "usd"
    lines = [
        line for line in LINES
        if before.totals.cost * 100 < limit * line and (cost * 100 >= limit * line or (stopped and line == LINES[-1]))
    ]  # fmt: skip
    held = state.reserved + (state.model.reserved if state.model is not None and state.model.in_flight else 0)
    for line in lines if limit and entries else ():
        facts = {
            "ledger": "run", "budget": "run", "percent": line, "limit_usd": format_usd(limit),
            "settled_usd": format_usd(cost), "reserved_usd": format_usd(held), "closed": cost > limit,
            "stopped_a_run": stopped,
        }  # fmt: skip
        said = _announcement("run.budget", entries[-1], state.session, state.agent, cost, facts)
        yield msgspec.structs.replace(said, line=str(line))


def timestamp(at_ms: int) -> str:
    """Write a time as the specification wants it."""
    moment = datetime.fromtimestamp(at_ms / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _said(event: ev.Event) -> tuple[EventKind, dict[str, object]] | None:
    match event:
        case ev.RunFinished():
            said: dict[str, object] = {
                "outcome": event.outcome,
                "reason": event.reason,
                "in_doubt": len(event.in_doubt),
            }
            return "run.finished", said | ({"degraded": list(event.degraded)} if event.degraded else {})
        case ev.RunParked():
            return "run.parked", {"reason": event.reason}
        case ev.ToolCallJudged(action="ask"):
            return "run.asked", {
                "call": event.call, "revision": event.revision, "tool": event.tool, "rule": event.rule,
                "expires": timestamp(event.expires_ms) if event.expires_ms else "",
            }  # fmt: skip
        case _:
            return None
