"""Lines of a run's own limit: told by the append that crosses them, each once, however what was spent is cut into appends."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from stanchion.core import event as ev
from stanchion.core.bundle import Caps
from stanchion.core.state import State, Totals
from stanchion.engine.announce import LINES, announcements
from stanchion.journal.outbox import Announcement, Endpoint

LIMIT = 1_000_000_000
ENTRIES = (ev.Entry(7, 1_000, 0, ev.RunFinished(outcome="halted", reason="usd", cost=0), b""),)


def spent(cost: int, limit: int = LIMIT, **more: Any) -> State:
    """A run that has spent so much."""
    return State(run="r", session="s", agent="desk", caps=Caps(nano_usd=limit), totals=Totals(cost=cost), **more)


def told(costs: Sequence[int], limit: int = LIMIT) -> list[int]:
    """What is told of a run whose appends leave it at such costs."""
    states = [spent(cost, limit) for cost in (0, *costs)]
    said = [each for before, after in pairwise(states) for each in announcements(before, after, ENTRIES) if each.line]
    return [json.loads(each.body)["data"]["percent"] for each in said]


@given(st.lists(st.integers(0, LIMIT), max_size=20), st.integers(1, LIMIT))
def test_each_line_once_whatever_the_appends_are(costs: list[int], limit: int) -> None:
    """Those that the cost has come to in the end; in their order."""
    past = sorted(costs)
    end = past[-1] if past else 0
    assert told(past, limit) == [line for line in LINES if end * 100 >= limit * line]


def test_what_is_told_of_a_line() -> None:
    """Two lines by one append are two messages, of ids of their own; in front of the end that the same append tells."""
    before, after = spent(LIMIT * 4 // 10), spent(LIMIT * 85 // 100, outcome="halted", reason="usd")
    said = announcements(before, after, ENTRIES)
    assert [(each.kind, each.line, each.seq) for each in said] == [
        ("run.budget", "50", 7), ("run.budget", "80", 7), ("run.budget", "100", 7), ("run.finished", "", 7),
    ]  # fmt: skip
    assert len({each.delivery("t", "hook", "r") for each in said}) == 4
    assert json.loads(said[1].body)["data"] == {
        "session": "s", "agent": "desk", "seq": 7, "usd": "0.85", "ledger": "run", "budget": "run", "percent": 80,
        "limit_usd": "1.00", "settled_usd": "0.85", "reserved_usd": "0.00", "closed": False, "stopped_a_run": True,
    }  # fmt: skip


def test_what_is_not_told() -> None:
    """A run without a limit, one that ended of something else, and what refreshes a cache or learns."""
    assert told([LIMIT], limit=0) == []
    done = spent(10, outcome="done")
    assert [each.kind for each in announcements(spent(0), done, ENTRIES)] == ["run.finished"]
    for more in ({"refreshing": True}, {"remembers": "run_1"}):
        after = msgspec.structs.replace(spent(LIMIT), **more)
        assert announcements(spent(0), after, ENTRIES) == ()


def test_who_hears_of_it() -> None:
    """Who names it; who names nothing hears of all else."""
    said = Announcement("run.budget", 7, "desk", b"{}", "50")
    endpoint = Endpoint(tenant="t", id="e", url="", lane="")
    assert not endpoint.wants("r", said)
    assert endpoint.wants("r", Announcement("budget.alert", 0, "", b"{}"))
    named = msgspec.structs.replace(endpoint, events=("run.budget",))
    assert named.wants("r", said)
    assert not msgspec.structs.replace(named, agents=("other",)).wants("r", said)
