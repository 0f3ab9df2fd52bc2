"""A refresh asks once for what was asked last, and does nothing else: whatever the model says, and whatever becomes of the call."""

from __future__ import annotations

import pytest

from stanchion.core import event as ev
from stanchion.core.fold import carry, fold
from stanchion.core.message import MODEL, Text, ToolCall, Usage
from stanchion.core.state import State
from stanchion.loop.decide import REFRESH_TOKENS, decide
from stanchion.loop.effect import CallModel, Moment, View, view
from tests.core.test_state import answered, asked, entries, started
from tests.loop.play import Checks, bundle, tool

AGENT = bundle(tool("look"), tool("pay", "irreversible"))
NOW_MS = 1_000_000


def seen() -> View:
    return view(AGENT, Checks(AGENT))


def session() -> State:
    """A session whose last request was answered, and to which more was said."""
    usage = Usage(500, output_tokens=5)
    said = entries(started(), asked(cache="short"), answered(Text("x", MODEL), finish="stop", usage=usage))
    return carry(fold([*said, ev.Entry(4, 50, 1, ev.RunFinished(outcome="done"))]))


def refresh(*events: ev.Event, deadline_ms: int = 0, epoch: int = 1) -> State:
    first = started(run="k", session="refresh_1", parts=(), refreshes=ev.Base("r", 4, ""), deadline_ms=deadline_ms)
    made = [ev.Entry(seq, NOW_MS, epoch, event) for seq, event in enumerate((first, *events), start=1)]
    return fold(made, session())


def test_it_asks_for_what_was_asked_last() -> None:
    """The conversation without the answer, for the shortest answer, and a reservation for that."""
    decision = decide(refresh(), seen(), Moment(NOW_MS, 1))
    (call,) = decision.effects
    assert isinstance(call, CallModel)
    assert [message.role for message in call.request.messages] == ["user"]
    assert call.request.max_output_tokens == REFRESH_TOKENS


@pytest.mark.parametrize(
    "ends",
    [
        answered(Text("x", MODEL), ToolCall("c", "pay", "{}", MODEL), usage=Usage(1)),
        answered(Text("x", MODEL), finish="length", usage=Usage(1)),
        answered(finish="refusal", usage=None),
    ],
)
def test_whatever_is_said_it_is_over(ends: ev.Event) -> None:
    """A call that is proposed is not even judged; a cut answer is not asked for again."""
    decision = decide(refresh(asked(), ends), seen(), Moment(NOW_MS, 1))
    (finished,) = decision.events
    assert isinstance(finished, ev.RunFinished)
    assert (finished.outcome, finished.parts, decision.effects) == ("done", (), ())


def test_what_failed_or_was_lost_is_not_tried_again() -> None:
    """It is billed as any attempt that may have left; the prefix lapses."""
    failed = ev.ModelCallFailed(turn=1, attempt=1, code="overloaded", retryable=True)
    decision = decide(refresh(asked(), failed), seen(), Moment(NOW_MS, 1))
    assert [type(event) for event in decision.events] == [ev.RunFinished]
    lost = decide(refresh(asked(reserved=77)), seen(), Moment(NOW_MS, 2))
    (written,) = lost.events
    assert isinstance(written, ev.ModelCallFailed)
    assert (written.code, written.cost) == ("lost", 77)


def test_a_refusal_or_a_late_one_ends_it() -> None:
    """Money that is not there is not waited for, and what has lapsed meanwhile is not written again."""
    refused = ev.BudgetRefused(ledger="user:ann", needed=5, left=1, hard=False)
    late = refresh(deadline_ms=NOW_MS)
    for state, reason in ((refresh(refused), "budget:user:ann"), (late, "deadline")):
        (finished,) = decide(state, seen(), Moment(NOW_MS, 1)).events
        assert isinstance(finished, ev.RunFinished)
        assert (finished.outcome, finished.reason) == ("halted", reason)
