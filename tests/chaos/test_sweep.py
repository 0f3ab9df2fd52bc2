"""A short form of the kill sweep; `make chaos` has the long one."""

from __future__ import annotations

from typing import Any, TypeAlias

import pytest

from tests.chaos.rig import repeated_in_doubt
from tests.chaos.sweep import sweep

Event: TypeAlias = dict[str, Any]
START: Event = {"type": "tool_call_started", "call": "3.0", "mode": "run"}
ASKED: Event = {"type": "tool_call_started", "call": "3.0", "mode": "reconcile"}
CUT: Event = {"type": "tool_call_failed", "call": "3.0", "in_doubt": True}
REFUSED: Event = {"type": "tool_call_failed", "call": "3.0", "in_doubt": False}
RETRY: Event = {"type": "call_decided", "call": "3.0", "decision": "retry"}
NOT_DONE: Event = {"type": "tool_call_reconciled", "call": "3.0", "answer": "not_done"}


@pytest.mark.parametrize(
    ("events", "bad"),
    [
        ([START, CUT, RETRY, START], 0),
        ([START, CUT, ASKED, NOT_DONE, START], 0),
        ([START, REFUSED, START], 0),
        ([START, CUT, START], 1),
        ([START, START], 1),
        ([START, CUT, ASKED, REFUSED, START], 1),
        ([START, CUT, RETRY, START, CUT, START], 1),
    ],
)
def test_a_keyless_effect_that_is_started_again_is_seen(events: list[Event], bad: int) -> None:
    """The judge of the sweeps: only a person's word, the tool's own or a reconciler's makes it free."""
    judged: Event = {"type": "tool_call_judged", "call": "3.0", "tool": "wire"}
    assert len(repeated_in_doubt([judged, *events])) == bad


@pytest.mark.timeout(300)
async def test_kills_lose_nothing_and_repeat_nothing() -> None:
    """A kill at a few boundaries of each kind, and at random: nothing lost, nothing done twice, streams without gaps."""
    report = await sweep(appends=3, syncs=3, effects=3, random_kills=3, seed=7, parallel=2)
    assert report["bad"] == 0, report["problems"]
    assert report["killed"] >= 15
