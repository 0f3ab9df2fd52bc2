"""The limits of a run: told when one is near, stopped before the step that would pass it, the best there is returned."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from stanchion.core import event as ev
from stanchion.core.bundle import Caps, LoopRules, Route
from stanchion.core.fold import evolve
from stanchion.core.message import MODEL, USER, Media, Text, Usage
from stanchion.core.state import State
from stanchion.loop.limit import allow_call, out_of_time, windowed
from tests.loop.play import Play
from tests.loop.script import FAST, PRICE, Done, Say, bundle, call, decided, tool

LOOK = tool("look", repeatable=True)
FREE = LoopRules(same_call=0, window_repeats=0, failures=0, calls_per_minute=0, malformed=0)


TURN = Usage(100, output_tokens=50)


def turning(n: int = 40, usage: Usage | None = TURN) -> list[Any]:
    """A model that says where it is and never comes to an end."""
    return [Say((Text(f"so far {k}", MODEL), call("look", f'{{"k":{k}}}')), "tool_calls", usage) for k in range(n)]


LIMITS = {
    "turns": Caps(turns=5),
    "tool_calls": Caps(tool_calls=5),
    "input_tokens": Caps(turns=0, input_tokens=8_000),
    "output_tokens": Caps(output_tokens=250),
    "usd": Caps(turns=0, nano_usd=9_000_000),
    "wall_s": Caps(wall_s=20),
}


@pytest.mark.parametrize("name", LIMITS)
def test_a_limit_warns_then_stops_with_the_best_there_is(name: str) -> None:
    """Each limit is named in the warning and at the end, and the last text stands."""
    play = Play(bundle(LOOK, caps=LIMITS[name], loop=FREE), turning(), {"look": [Done("ok", 100)]}).play()
    assert play.end == ("halted", name)
    assert play.answer.startswith("so far ")
    assert [w.limit for w in play.events(ev.LimitWarned)] == [name]


@pytest.mark.parametrize("name", ["input_tokens", "usd"])
def test_the_model_is_warned_before_a_call_that_may_be_the_last(name: str) -> None:
    """A bound above what is left stops a run before 80 % are used: so it is told while a call is still possible."""
    play = Play(bundle(LOOK, caps=LIMITS[name], loop=FREE), turning(), {"look": [Done("ok", 100)]}).play()
    place = play.types.index("limit_warned")
    assert play.types[place + 1] == "model_call_started"
    (warned,) = play.events(ev.LimitWarned)
    assert warned.used < 0.8 * warned.max


def test_a_deadline_is_a_limit_like_the_others() -> None:
    """Absolute, warned of, named."""
    play = Play(bundle(LOOK, loop=FREE), turning(), deadline_s=10).play()
    assert play.end == ("halted", "deadline")
    assert [w.limit for w in play.events(ev.LimitWarned)] == ["deadline"]
    assert "seconds until the deadline" in play.told[0]


def test_an_answer_that_is_there_counts_though_time_is_over() -> None:
    """The call came back at its deadline, with the answer."""
    play = Play(bundle(), [Say((Text("in time", MODEL),), took_ms=9_000)], deadline_s=9).play()
    assert (play.end, play.answer) == (("done", ""), "in time")


def test_the_wall_clock_stops_what_is_in_flight() -> None:
    """The model call is aborted and billed, an effect is awaited to its end."""
    agent = bundle(LOOK, tool("pay", "irreversible"), caps=Caps(wall_s=3), loop=FREE)
    play = Play(agent, [call("pay")], {"pay": [Done(took_ms=20_000)]}).play()
    assert play.end == ("halted", "wall_s")
    assert [f.outcome for f in play.events(ev.ToolCallFinished)] == ["ok"]
    stuck = Play(agent, [Say((), took_ms=60_000)]).play()
    assert stuck.end == ("halted", "wall_s")
    assert [f.code for f in stuck.events(ev.ModelCallFailed)] == ["timeout_total"]
    assert stuck.now_ms - stuck.entries[0].at_ms == 3_000


def test_waiting_for_a_person_is_not_wall_time() -> None:
    """A day of waiting, and the run still has its seconds."""
    agent = bundle(tool("wipe", "destructive"), caps=Caps(wall_s=5))
    play = Play(
        agent, [call("wipe"), "done"], person=lambda play, c: decided(c, "approve"), person_ms=86_400_000
    ).play()
    assert play.end == ("done", "")
    assert play.state.waited_ms >= 86_400_000


def test_the_wall_clock_of_a_run_begins_when_somebody_drives_it() -> None:
    """A run that was accepted (epoch 0) and lay an hour before its first claim has lost nothing of its wall time."""
    first = ev.RunStarted(
        run="r", tenant="t", session="s", agent="a", bundle="b", caps=Caps(wall_s=20), parts=(Text("hi", USER),)
    )
    state = evolve(State(), ev.Entry(1, 1_000, 0, first, b""))
    hour = 3_600_000
    assert out_of_time(state, hour) == ""
    taken = evolve(state, ev.Entry(2, hour, 1, ev.NoticeAdded(kind="output", parts=()), b""))
    assert out_of_time(taken, hour + 19_000) == ""
    assert out_of_time(taken, hour + 20_000) == "wall_s"


def test_a_deadline_ends_a_wait_for_a_person() -> None:
    """It is absolute."""
    play = Play(bundle(tool("wipe", "destructive")), [call("wipe")], deadline_s=60).play()
    assert play.end == ("halted", "deadline")
    assert [f.outcome for f in play.events(ev.ToolCallFinished)] == ["cancelled"]


def test_calls_above_a_turn_s_number_are_refused_and_the_run_goes_on() -> None:
    """The model reads which limit."""
    calls = [call("look", f'{{"k":{k}}}') for k in range(4)]
    play = Play(bundle(LOOK, caps=Caps(tool_calls_per_turn=2)), [calls, "done"]).play()
    assert [f.outcome for f in play.events(ev.ToolCallFinished)].count("denied") == 2
    assert "tool_calls_per_turn" in play.results[3].text
    assert play.end == ("done", "")


def test_the_run_s_number_of_calls_is_named_before_the_turn_s() -> None:
    """A turn that passes both ends the run by the limit of the run."""
    calls = [call("look", f'{{"k":{k}}}') for k in range(6)]
    play = Play(bundle(LOOK, caps=Caps(tool_calls=2, tool_calls_per_turn=4)), [calls, "done"]).play()
    assert len(play.attempts) == 2
    assert play.end == ("halted", "tool_calls")


def test_after_the_last_call_the_model_may_answer() -> None:
    """The limit forbids another call, not the answer."""
    play = Play(bundle(LOOK, caps=Caps(tool_calls=1)), [call("look"), "done"]).play()
    assert play.end == ("done", "")


def test_a_call_that_waits_for_a_person_holds_its_place() -> None:
    """Two may run; one waits; the third is refused at once."""
    agent = bundle(LOOK, tool("wipe", "destructive"), caps=Caps(tool_calls=2))
    play = Play(
        agent, [[call("wipe"), call("look"), call("look")], "x"], person=lambda p, c: decided(c, "approve")
    ).play()
    assert sorted(a.tool for a in play.attempts) == ["look", "wipe"]


def test_an_answer_is_made_shorter_to_fit_what_is_left() -> None:
    """Output tokens are allowed up to the cap, and money too."""
    play = Play(bundle(LOOK, caps=Caps(output_tokens=120), loop=FREE), turning()).play()
    assert [r.max_output_tokens for _, r in play.requests] == [120, 70, 20]
    assert play.end == ("halted", "output_tokens")


def test_a_short_rest_of_output_tokens_is_not_blamed_on_money() -> None:
    """With a budget besides, the run still goes on into the last tokens, and names them."""
    play = Play(bundle(LOOK, caps=Caps(output_tokens=120, nano_usd=10**12), loop=FREE), turning()).play()
    assert play.end == ("halted", "output_tokens")
    assert len(play.requests) == 3


def test_an_unknown_bill_counts_as_its_bound() -> None:
    """A provider that says no usage is billed at the reservation, and its input at the bound."""
    play = Play(bundle(caps=Caps(nano_usd=10**9)), [Say((Text("x", MODEL),), usage=None)]).play()
    (started,) = play.events(ev.ModelCallStarted)
    assert play.state.totals.cost == started.reserved > 0
    assert play.state.totals.input_tokens == started.bound_tokens


@pytest.mark.parametrize(
    ("part", "bounded"),
    [
        (Media("image/png", USER, data="A" * 50_000), False),
        (Media("image/png", USER, url="https://example.com/a.png"), False),
        (Media("image/png", USER, data="A" * 50_000, max_input_tokens=1_000), True),
    ],
    ids=["inline", "by reference", "declared"],
)
@pytest.mark.parametrize(
    "budget", [{"caps": Caps(nano_usd=20_000_000)}, {"ledgers": ("tenant",)}], ids=["run", "shared"]
)
def test_media_under_a_budget_must_declare_what_they_cost(part: Media, bounded: bool, budget: dict[str, Any]) -> None:
    """What nobody can bound is refused, with its name; a declared bound stands for the bytes."""
    said = ev.MessageAdded(parts=(part,))
    play = Play(bundle(), ["first", "second"], inject={1: [said]}, **budget).play()
    assert play.end == (("done", "") if bounded else ("halted", "unbounded:a image/png part without max_input_tokens"))


def test_hosted_tools_under_a_budget_need_a_declared_cost() -> None:
    """Without `max_cost` they are refused; with it, it is reserved."""
    hosted = {"options": {"tools": [{"type": "web_search"}]}, "retry": FAST, "max_output_tokens": 100}
    bare = Play(bundle(routes=(Route("p", "m", PRICE, **hosted),)), ["x"], ledgers=("tenant",)).play()
    assert bare.end == ("halted", "unbounded:tools in the route's options, without max_cost")
    route = Route("p", "m", PRICE, max_extra_nano_usd=77_000_000, **hosted)
    declared = Play(bundle(routes=(route,)), ["x"], ledgers=("tenant",)).play()
    assert declared.events(ev.ModelCallStarted)[0].reserved > 77_000_000


def test_warnings_and_loops_at_one_boundary_are_both_told_once() -> None:
    """Neither hides or repeats the other."""
    agent = bundle(tool("look"), caps=Caps(turns=4, warn_at=0.7))
    play = Play(agent, [call("look")]).play()
    kinds = [t for t in play.types if t in ("loop_detected", "limit_warned", "model_call_started", "run_finished")]
    assert kinds == [*["model_call_started"] * 3, "loop_detected", "limit_warned", "model_call_started", "run_finished"]
    assert play.end == ("halted", "loop:same_call")


def test_windows_of_budgets_are_in_utc() -> None:
    """Just before and at midnight."""
    names = ("tenant", "user:ann/day", "all/month", "odd/week")
    midnight = 1_796_083_200_000
    assert windowed(names, midnight - 1) == ("tenant", "user:ann/day:2026-11-30", "all/month:2026-11", "odd/week")
    assert windowed(names, midnight) == ("tenant", "user:ann/day:2026-12-01", "all/month:2026-12", "odd/week")


@pytest.mark.parametrize(
    ("left_tokens", "left_usd", "limit", "output"),
    [(1_000, 10**12, "", 400), (100, 10**12, "", 100), (100, 1_240_000, "", 100), (1_000, 1_240_000, "usd", 0),
     (0, 10**12, "output_tokens", 0), (1_000, 1_600_000, "", 300), (1_000, 999_999, "usd", 0)],
)  # fmt: skip
def test_an_answer_is_as_long_as_tokens_and_money_allow(
    left_tokens: int, left_usd: int, limit: str, output: int
) -> None:
    """1,000 tokens of input cost 1,000,000; an answer is worth beginning from 256 tokens on, or what the tokens leave."""
    state = State(caps=Caps(output_tokens=5_000, nano_usd=10**13))
    used = msgspec.structs.replace(state.totals, output_tokens=5_000 - left_tokens, cost=10**13 - left_usd)
    allowed = allow_call(msgspec.structs.replace(state, totals=used), bundle().routes[0], 1_000)
    assert (allowed.limit, allowed.max_output_tokens) == (limit, output)
    assert allowed.reserved <= left_usd
