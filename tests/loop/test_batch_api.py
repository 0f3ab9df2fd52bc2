"""Model calls that may wait for a batch: when they do, what a lost worker or a cancel does to them, and what they reserve."""

from __future__ import annotations

import msgspec
import pytest

from stanchion.core import event as ev
from stanchion.core.bundle import Bundle, Caps
from stanchion.core.fold import evolve
from stanchion.core.message import USER, Text
from stanchion.core.state import State
from stanchion.loop.decide import BATCH_MS, BATCH_SLACK_MS, decide
from stanchion.loop.effect import CallModel, Decision, HandIn, Moment, View, view
from tests.loop.script import START_MS, bundle

HOUR_MS = 3_600_000


class _Anything:
    def arguments(self, tool: str, text: str) -> bytes | str:
        return text.encode()

    def output(self, text: str) -> str:
        return ""


def seen(made: Bundle, *batchable: int) -> View:
    """Make the view of a bundle, some routes of which have a batch API."""
    return view(made, _Anything(), frozenset(batchable))


def started(*, batch_api: bool = True, deadline_ms: int = 0, caps: Caps | None = None) -> State:
    """Fold a run that was just accepted and claimed."""
    first = ev.RunStarted(
        run="r", tenant="t", session="s", agent="agent", bundle="b", caps=caps or Caps(turns=9),
        deadline_ms=deadline_ms, batch_api=batch_api, parts=(Text("hello", USER),),
    )  # fmt: skip
    return evolve(State(), ev.Entry(1, START_MS, 1, first))


def add(state: State, *events: ev.Event, at_ms: int = START_MS, epoch: int = 1) -> State:
    """Fold events."""
    for event in events:
        state = evolve(state, ev.Entry(state.seq + 1, at_ms, epoch, event))
    return state


def asked(decision: Decision) -> ev.ModelCallStarted:
    """Give the model call that a decision starts."""
    (call,) = [event for event in decision.events if isinstance(event, ev.ModelCallStarted)]
    return call


def test_a_call_waits_for_a_batch_where_it_may() -> None:
    """It is handed in, not made; it has a day and an hour; and it reserves half of what a direct one would."""
    made = bundle()
    waits = decide(started(), seen(made, 0), Moment(START_MS, 1))
    direct = decide(started(batch_api=False), seen(made, 0), Moment(START_MS, 1))
    assert [type(effect) for effect in waits.effects] == [HandIn]
    assert [type(effect) for effect in direct.effects] == [CallModel]
    call = asked(waits)
    assert (call.batch, call.deadline_ms) == (True, START_MS + BATCH_MS + BATCH_SLACK_MS)
    assert call.max_output_tokens == 400
    assert call.reserved == -(-asked(direct).reserved // 2)
    assert not asked(direct).batch


@pytest.mark.parametrize(
    ("state", "batchable"),
    [
        (started(), ()),
        (started(batch_api=False), (0,)),
        (started(deadline_ms=START_MS + BATCH_MS - 1), (0,)),
        (started(caps=Caps(turns=9, wall_s=3600)), (0,)),
    ],
    ids=["no batch API", "not asked for", "a deadline too near", "too little time allowed"],
)
def test_a_call_goes_out_at_once_where_it_may_not(state: State, batchable: tuple[int, ...]) -> None:
    """Each condition by itself sends it out directly."""
    decision = decide(state, seen(bundle(), *batchable), Moment(START_MS, 1))
    assert not asked(decision).batch


def test_a_deadline_a_day_away_leaves_time() -> None:
    """The boundary itself is enough."""
    decision = decide(started(deadline_ms=START_MS + BATCH_MS), seen(bundle(), 0), Moment(START_MS, 1))
    assert asked(decision).batch


def test_another_worker_loses_nothing_of_it() -> None:
    """A call in a batch belongs to no worker: under a later epoch it is still awaited, and the run may be let go."""
    made = bundle()
    state = add(started(), asked(decide(started(), seen(made, 0), Moment(START_MS, 1))))
    decision = decide(state, seen(made, 0), Moment(START_MS + HOUR_MS, 7))
    assert (decision.events, decision.effects) == ((), ())
    assert decision.wake_at_ms == START_MS + BATCH_MS + BATCH_SLACK_MS
    assert state.in_batch
    assert not state.in_flight


def test_a_batch_that_says_nothing_is_given_up() -> None:
    """After a day and an hour: billed at its reservation, and made again, directly."""
    made = bundle()
    state = add(started(), asked(decide(started(), seen(made, 0), Moment(START_MS, 1))))
    late_ms = START_MS + BATCH_MS + BATCH_SLACK_MS
    (failed,) = decide(state, seen(made, 0), Moment(late_ms, 2)).events
    assert isinstance(failed, ev.ModelCallFailed)
    assert state.model is not None
    assert (failed.code, failed.cost) == ("timeout_total", state.model.reserved)
    again = decide(add(state, failed, at_ms=late_ms), seen(made, 0), Moment(late_ms, 2))
    assert asked(again).attempt == 2
    assert not asked(again).batch


def test_a_cancel_settles_it_at_its_bound() -> None:
    """Nobody can call it back, so it may be billed: it is, and the run ends at once."""
    made = bundle()
    state = add(started(), asked(decide(started(), seen(made, 0), Moment(START_MS, 1))), ev.CancelRequested(by="ann"))
    moment = Moment(START_MS + 5, 2)
    (failed,) = decide(state, seen(made, 0), moment).events
    assert isinstance(failed, ev.ModelCallFailed)
    (finished,) = decide(add(state, failed), seen(made, 0), moment).events
    assert isinstance(finished, ev.RunFinished)
    assert (finished.outcome, finished.cost) == ("cancelled", failed.cost)
    assert failed.cost > 0


def test_a_budget_must_hold_the_full_price() -> None:
    """A second attempt goes out directly: with money for half of it only, the answer is made shorter at once."""
    made = bundle()
    full = asked(decide(started(batch_api=False), seen(made, 0), Moment(START_MS, 1))).reserved
    caps = Caps(turns=9, nano_usd=full - 100_000)
    call = asked(decide(started(caps=caps), seen(made, 0), Moment(START_MS, 1)))
    assert call.batch
    assert 256 <= call.max_output_tokens < 400


def test_old_journals_know_no_batches() -> None:
    """An event without the field reads as a direct call."""
    body = b'{"type":"model_call_started","turn":1,"attempt":1,"route":0,"provider":"p","model":"m","messages":1,"prefix":"x"}'
    event = msgspec.json.decode(body, type=ev.Event)
    assert isinstance(event, ev.ModelCallStarted)
    assert not event.batch
