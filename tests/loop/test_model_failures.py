"""Model calls that fail: tried again, then another route, then given up; each attempt is in the journal."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from stanchion.core import event as ev
from stanchion.core.bundle import Caps, RetryPolicy, Route
from stanchion.core.fold import evolve
from stanchion.core.message import USER, Text
from stanchion.loop.decide import decide
from stanchion.loop.effect import CallModel, Moment, backoff_s, view
from tests.loop.play import Play
from tests.loop.script import PRICE, Break, Checks, bundle, call, tool


def test_what_may_pass_is_tried_again_after_a_wait() -> None:
    """The attempts count up within the turn, the second leaves no sooner than it may."""
    play = Play(bundle(), [Break(), Break(), "hi"]).play()
    started = play.events(ev.ModelCallStarted)
    assert [(s.turn, s.attempt) for s in started] == [(1, 1), (1, 2), (1, 3)]
    failed = [e for e in play.entries if isinstance(e.event, ev.ModelCallFailed)]
    again = [e for e in play.entries if isinstance(e.event, ev.ModelCallStarted)][1:]
    assert all(a.at_ms >= f.event.retry_at_ms > f.at_ms for a, f in zip(again, failed, strict=True))  # type: ignore[union-attr]
    assert play.end == ("done", "")


def test_the_provider_s_wish_to_wait_is_kept() -> None:
    """Retry-After is a lower bound."""
    play = Play(bundle(), [Break("rate_limited", after_s=40), "hi"]).play()
    first, second = (e.at_ms for e in play.entries if isinstance(e.event, ev.ModelCallStarted))
    assert second - first >= 41_000


def test_a_long_wait_is_left_for_the_next_model() -> None:
    """A provider that asks for an hour has lost the call to the fallback; for a minute it is waited for."""
    play = Play(bundle(routes=2), [Break("rate_limited", after_s=3600), "hi"]).play()
    assert [s.route for s in play.events(ev.ModelCallStarted)] == [0, 1]
    first, second = (e.at_ms for e in play.entries if isinstance(e.event, ev.ModelCallStarted))
    assert second - first < 60_000
    play = Play(bundle(routes=2), [Break("rate_limited", after_s=40), "hi"]).play()
    assert [s.route for s in play.events(ev.ModelCallStarted)] == [0, 0]
    play = Play(bundle(), [Break("rate_limited", after_s=3600), "hi"]).play()
    assert play.end == ("done", "")


@pytest.mark.parametrize(
    ("tries", "draw", "after_s", "low", "high"),
    [(1, 0.0, None, 0, 0), (1, 1.0, None, 1, 1), (4, 1.0, None, 8, 8), (60, 1.0, None, 8, 8), (2, 0.5, 30.0, 31, 31)],
)
def test_backoff_is_full_jitter_under_a_cap(tries: int, draw: float, after_s: Any, low: float, high: float) -> None:
    """From nothing to the cap, doubled each time, on top of what the other side asks."""
    assert low <= backoff_s(RetryPolicy(base_s=1, cap_s=8), tries, draw, after_s) <= high


def test_what_will_not_pass_falls_back_at_once() -> None:
    """The other route is used from then on, and the change of prefix is said once."""
    play = Play(bundle(tool("look"), routes=2), [Break("auth", retryable=False), call("look"), "hi"]).play()
    assert [s.route for s in play.events(ev.ModelCallStarted)] == [0, 1, 1]
    assert [r.reason for r in play.events(ev.PrefixReset)] == ["route"]
    place = play.types.index("prefix_reset")
    assert play.types[place + 1] == "model_call_started"
    assert play.end == ("done", "")


def test_a_route_that_is_tried_out_falls_back() -> None:
    """Three attempts on the first, the fourth on the second."""
    play = Play(bundle(routes=2), [*[Break()] * 3, "hi"]).play()
    assert [s.route for s in play.events(ev.ModelCallStarted)] == [0, 0, 0, 1]


def test_without_another_route_the_run_fails_and_says_why() -> None:
    """Code and outcome; the number of attempts is the policy's."""
    play = Play(bundle(), [Break("server_error")]).play()
    assert play.end == ("failed", "model:server_error")
    assert len(play.events(ev.ModelCallStarted)) == 3
    assert Play(bundle(), [Break("bad_request", retryable=False)]).play().end == ("failed", "model:bad_request")


def test_attempts_that_were_billed_count_against_the_budget() -> None:
    """Each settles at its reservation, until there is none left to make."""
    agent = bundle(routes=(Route("p", "m", PRICE, max_output_tokens=400, retry=RetryPolicy(attempts=99)),))
    play = Play(agent, [Break(billed=True)], caps=Caps(nano_usd=10_000_000)).play()
    assert play.end == ("halted", "usd")
    assert 0 < play.state.totals.cost <= 10_000_000


def test_a_message_during_a_retry_does_not_change_the_request() -> None:
    """The attempts of one call send the same; the message follows the answer (I8)."""
    said = ev.MessageAdded(by="ann", parts=(Text("hm", USER),))
    play = Play(bundle(), [Break(), "hi", "yes"], inject={2: [said]}).play()
    assert play.requests[0][1].messages == play.requests[1][1].messages
    assert play.answer == "yes"


def test_a_model_that_is_left_alone_is_not_asked() -> None:
    """The next one has the turn from the beginning, the run says so, and stays with it; where all are left alone the first is asked."""
    play = Play(bundle(tool("look"), routes=3), [call("look"), "hi"], down=frozenset({0, 1})).play()
    first, second = play.events(ev.ModelCallStarted)
    assert [(s.route, s.instead_of) for s in (first, second)] == [(2, "p:m0"), (2, "")]
    assert play.end == ("done", "")
    assert play.state.degraded == ("model:p:m0:breaker_open",)
    assert not play.events(ev.PrefixReset)
    play = Play(bundle(routes=2), ["hi"], down=frozenset({0, 1})).play()
    assert [(s.route, s.instead_of) for s in play.events(ev.ModelCallStarted)] == [(0, "")]
    assert play.state.degraded == ()


def test_a_model_that_is_left_alone_meanwhile_is_not_tried_again() -> None:
    """Of three attempts one is made; a run with one model makes them all. One that is left alone is still the last resort."""
    down = frozenset({0})
    play = Play(bundle(routes=2), [Break("server_error"), "hi"])
    play.on_refold = lambda state: None
    while not play.events(ev.ModelCallFailed):
        play._round()
    play.down = down
    assert [s.route for s in play.play().events(ev.ModelCallStarted)] == [0, 1]
    assert play.state.degraded == ("model:p:m0:server_error",)
    assert [
        s.route for s in Play(bundle(), [Break(), Break(), "hi"], down=down).play().events(ev.ModelCallStarted)
    ] == [0] * 3
    last = Play(bundle(routes=2), [*[Break()] * 3, "hi"], down=down).play()
    assert [s.route for s in last.events(ev.ModelCallStarted)] == [1, 1, 1, 0]
    assert last.end == ("done", "")


@pytest.mark.parametrize("attempts", [1, 2])
def test_a_lost_attempt_is_nobody_s_fault(attempts: int) -> None:
    """However often the worker dies, the call is made again on its route, and billed each time it may have been."""
    routes = tuple(Route("p", f"m{n}", PRICE, retry=RetryPolicy(attempts=attempts)) for n in range(2))
    play = Play(bundle(routes=routes), ["hi"], crashes=dict.fromkeys((1, 2, 3, 4), True)).play()
    assert play.end == ("done", "")
    assert [s.route for s in play.events(ev.ModelCallStarted)] == [0] * 5
    lost = play.events(ev.ModelCallFailed)
    assert [f.code for f in lost] == ["lost"] * 4
    assert all(f.cost == s.reserved for f, s in zip(lost, play.events(ev.ModelCallStarted), strict=False))


def test_an_attempt_that_we_stopped_does_not_count() -> None:
    """A drain cuts a call; the policy still allows its full number."""
    routes = (Route("p", "m", PRICE, retry=RetryPolicy(attempts=1)),)
    play = Play(bundle(routes=routes), [Break("cancelled"), Break("cancelled"), "hi"]).play()
    assert play.end == ("done", "")


def test_a_bundle_with_fewer_routes_goes_on_with_what_it_has() -> None:
    """The run was on the second of two; now there is one."""
    two = Play(bundle(routes=2), [Break("auth", retryable=False), Break()], crashes={})
    two._outcomes.append(two._started())
    while not (two.state.model and two.state.model.route == 1 and two.state.model.code):
        two._round()
    one = bundle()
    state = evolve(two.state, ev.Entry(two.state.seq + 1, two.now_ms, 2, ev.BundleChanged(bundle="other")))
    decision = decide(state, view(one, Checks(one)), Moment(two.now_ms + 60_000, 2))
    (effect,) = decision.effects
    assert isinstance(effect, CallModel)
    assert effect.route == 0
    assert [e.reason for e in decision.events if isinstance(e, ev.PrefixReset)] == ["bundle"]


def test_a_change_of_bundle_is_said_once() -> None:
    """If the worker said it already, the loop does not."""
    play = Play(bundle(tool("look")), [call("look"), "hi"], inject={1: [ev.BundleChanged(bundle="b2")]})
    assert [r.reason for r in play.play().events(ev.PrefixReset)] == ["bundle"]
    both = [ev.BundleChanged(bundle="b2"), ev.PrefixReset(reason="bundle")]
    told = Play(bundle(tool("look")), [call("look"), "hi"], inject={1: both}).play()
    assert [r.reason for r in told.events(ev.PrefixReset)] == ["bundle"]
    assert told.end == ("done", "")


def test_a_wait_is_no_busy_loop() -> None:
    """Between failure and retry the decision names when to ask again."""
    play = Play(bundle(), [Break(after_s=5), "hi"]).play()
    waits = [d for d in play.decisions if d.wake_at_ms and not d.events]
    assert any(d.wake_at_ms == play.events(ev.ModelCallFailed)[0].retry_at_ms for d in waits)
    assert msgspec.json.encode(play.types)
