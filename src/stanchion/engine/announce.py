"""What of a run others may want to hear of: an append's events as announcements, small and without content.

A run that ended, that stands until a person revives it, or that begins to wait for a person's decision. The store writes
the deliveries with the append; `deliver` posts them.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

from stanchion.core import event as ev
from stanchion.core.money import format_usd
from stanchion.core.state import State
from stanchion.journal.outbox import Announcement, EventKind
from stanchion.journal.store import RunRow


def announcements(state: State, entries: Sequence[ev.Entry]) -> tuple[Announcement, ...]:
    """Announce what entries say; `state` is as it is after them. What only refreshes a cache or remembers is nobody's matter."""
    return (
        ()
        if state.refreshing or state.remembers
        else _announced(entries, state.session, state.agent, state.totals.cost)
    )


def parked_by_claim(row: RunRow | None, entries: Sequence[ev.Entry]) -> tuple[Announcement, ...]:
    """Announce what who claimed a run wrote without driving it."""
    return () if row is None else _announced(entries, row.session, row.agent, row.cost)


def _announced(entries: Sequence[ev.Entry], session: str, agent: str, cost: int) -> tuple[Announcement, ...]:
    made: list[Announcement] = []
    for entry in entries:
        said = _said(entry.event)
        if said is not None:
            kind, facts = said
            data = {"session": session, "agent": agent, "seq": entry.seq, "usd": format_usd(cost), **facts}
            body = {"type": kind, "timestamp": timestamp(entry.at_ms), "data": data}
            made.append(Announcement(kind, entry.seq, agent, msgspec.json.encode(body)))
    return tuple(made)


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
