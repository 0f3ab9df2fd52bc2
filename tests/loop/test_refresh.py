"""A refresh asks once for what was asked last, and does nothing else: whatever the model says, and whatever becomes of the call."""

from __future__ import annotations

import msgspec
import pytest

from stanchion.context.assemble import assemble, preamble, prefix_digest
from stanchion.core import event as ev
from stanchion.core.bundle import Route
from stanchion.core.fold import carry, fold
from stanchion.core.message import MODEL, USER, Erased, Text, ToolCall, ToolResult, Usage
from stanchion.core.state import State
from stanchion.loop.decide import REFRESH_TOKENS, decide
from stanchion.loop.effect import CallModel, Moment, View, view
from tests.core.test_state import answered, asked, entries, started
from tests.loop.script import PRICE, Checks, bundle, tool

AGENT = bundle(tool("look"), tool("pay", "irreversible"))
ANTHROPIC = bundle(tool("pay", "irreversible"), routes=(Route("anthropic", "claude-sonnet-4-6", PRICE),))
OPENAI = bundle(tool("pay", "irreversible"), routes=(Route("openai", "gpt-5.6", PRICE),))
NOW_MS = 1_000_000


def seen() -> View:
    return view(AGENT, Checks(AGENT))


def session() -> State:
    """A session whose last request was answered, and to which more was said."""
    usage = Usage(500, output_tokens=5)
    digest = prefix_digest(fold(entries(started())), seen().preamble(mark=False))
    said = entries(
        started(), asked(cache="short", prefix=digest), answered(Text("x", MODEL), finish="stop", usage=usage)
    )
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


def test_it_asks_for_nothing_but_that() -> None:
    """Where some of it was erased since, it is another request, and would be written for nobody."""
    first = started(run="k", session="refresh_1", parts=(), refreshes=ev.Base("r", 4, ""))
    before = session()
    (message, *rest) = before.messages
    gone = msgspec.structs.replace(message, parts=(Erased("text", USER), *message.parts[1:]))
    state = fold([ev.Entry(1, NOW_MS, 1, first)], msgspec.structs.replace(before, messages=(gone, *rest)))
    decision = decide(state, seen(), Moment(NOW_MS, 1))
    (finished,) = decision.events
    assert isinstance(finished, ev.RunFinished)
    assert (finished.outcome, finished.reason, decision.effects) == ("halted", "erased", ())


def waits() -> State:
    """A run that waits for a person, whose last request was kept for the short life."""
    call = ToolCall("c", "pay", "{}", MODEL)
    said = answered(Text("x", MODEL), call, usage=Usage(5_000, output_tokens=5))
    judged = ev.ToolCallJudged(call="3.0", revision=0, action="ask", rule="approval", tool="pay")
    sent = asked(cache="short", provider="anthropic", model="claude-sonnet-4-6")
    return fold(entries(started(), sent, said, judged))


def test_a_run_that_waits_is_asked_without_what_waits() -> None:
    """Up to its last request: neither the answer nor the call in it, nor what was said since, which has no place yet."""
    state = waits()
    said = ev.MessageAdded(parts=(Text("be quick", USER),))
    state = fold([ev.Entry(5, 60, 1, said)], state)
    assert (state.asking, state.tail) == (True, said.parts)
    first = started(run="k", session="refresh_1", parts=(), refreshes=ev.Base("r", 5, ""))
    again = fold([ev.Entry(1, NOW_MS, 1, first)], carry(state))
    assert again.messages == fold(entries(started())).messages
    assert (again.calls, again.tail, again.prefix) == ((), (), fold(entries(started())).prefix)


def test_what_was_refreshed_while_a_run_waited_is_said_with_its_next_call() -> None:
    """By the moment in, by the event kept: a second attempt, made by who does not know, predicts the same."""
    kept_ms, refreshed_ms = 20, 280_000
    state = waits()
    assert state.kept_ms == kept_ms
    decided = ev.CallDecided(call="3.0", revision=0, decision="reject", by="ann")
    result = ToolResult("c", "pay", "no", USER)
    told = ev.ToolCallFinished(call="3.0", outcome="rejected", parts=(result,))
    state = fold([ev.Entry(5, 400_000, 1, decided), ev.Entry(6, 400_000, 1, told)], state)
    sees = view(ANTHROPIC, Checks(ANTHROPIC))
    for moment, expected, why in (
        (Moment(400_000, 1), 0, "life"),
        (Moment(400_000, 1, refreshed_ms=refreshed_ms), 5_000, ""),
    ):
        begun = decide(state, sees, moment).events[-1]
        assert isinstance(begun, ev.ModelCallStarted)
        assert (begun.cache_expected, begun.cache_unkept, begun.cache_refreshed_ms) == (
            expected,
            why,
            moment.refreshed_ms,
        )
    begun = decide(state, sees, Moment(400_000, 1, refreshed_ms=refreshed_ms)).events[-1]
    failed = ev.ModelCallFailed(turn=2, attempt=1, code="overloaded", retryable=True)
    state = fold([ev.Entry(7, 400_000, 1, begun), ev.Entry(8, 400_001, 1, failed)], state)
    assert state.refreshed_ms == refreshed_ms
    again = decide(state, sees, Moment(400_002, 1)).events[-1]
    assert isinstance(again, ev.ModelCallStarted)
    assert (again.attempt, again.cache_expected, again.cache_refreshed_ms) == (2, 5_000, refreshed_ms)
    done = fold([ev.Entry(9, 400_003, 1, again), ev.Entry(10, 400_004, 1, answered(usage=Usage(1)))], state)
    assert done.refreshed_ms == 0


def test_a_second_refresh_knows_of_the_first() -> None:
    """Else it would take the prefix for lapsed, and choose its life anew."""
    begins = started(run="k", session="refresh_2", parts=(), refreshes=ev.Base("r", 4, ""), refreshed_ms=NOW_MS - 1_000)
    assert fold([ev.Entry(1, NOW_MS, 1, begins)], session()).refreshed_ms == NOW_MS - 1_000


def test_a_refresh_goes_where_its_session_s_requests_go() -> None:
    """OpenAI brings a request to where its prefix is by a key, which is the session's, not the refresh's own."""
    for name in ("s", "t", "u", "v"):
        went = [
            started(session=name),
            asked(cache="short"),
            answered(Text("x", MODEL), finish="stop", usage=Usage(5_000)),
        ]
        before = fold(entries(*went))
        first = started(run="k", session="refresh_1", parts=(), refreshes=ev.Base("r", 3, ""))
        again = fold([ev.Entry(1, NOW_MS, 1, first)], carry(before))
        keys = [
            assemble(state, OPENAI, preamble(OPENAI), OPENAI.route(0)).options["prompt_cache_key"]
            for state in (before, again)
        ]
        assert keys[0] == keys[1]


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
