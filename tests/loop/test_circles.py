"""A run that goes in circles (L5): told the first time, ended the second, and left alone once it changes its ways."""

from __future__ import annotations

from typing import Any

import pytest

from stanchion.core import event as ev
from stanchion.core.bundle import LoopRules
from stanchion.core.message import USER, Text
from tests.loop.play import Play
from tests.loop.script import Done, Wrong, bundle, call, tool

LOOK, POLL = tool("look"), tool("poll", repeatable=True)
OFF = {"same_call": 0, "window_repeats": 0, "failures": 0, "calls_per_minute": 0}


def rules(**on: int) -> LoopRules:
    return LoopRules(**{**OFF, **on})


def looks(*numbers: int) -> list[Any]:
    return [call("look", f'{{"n":{n}}}') for n in numbers]


CIRCLES = {
    "same_call": (rules(same_call=3), looks(1), {}, 3),
    "window": (rules(window_repeats=3), looks(1, 2) * 9, {}, 6),
    "failures": (rules(failures=4), looks(*range(20)), {"look": [Wrong()]}, 4),
    "storm": (rules(calls_per_minute=5), looks(*range(20)), {}, 6),
}


@pytest.mark.parametrize("kind", CIRCLES)
def test_a_circle_is_told_and_then_ends_the_run(kind: str) -> None:
    """Each kind fires at its number, names itself, and ends the run one step later."""
    loop, script, tools, at = CIRCLES[kind]
    play = Play(bundle(LOOK, loop=loop), script, tools).play()
    (found,) = play.events(ev.LoopDetected)
    assert (found.kind, found.count) == (kind, 3 if kind == "window" else at)
    assert play.told == [found.parts[0].text]
    assert play.end == ("halted", f"loop:{kind}")
    told_at = play.types.index("loop_detected")
    assert play.types[:told_at].count("tool_call_finished") == at
    assert play.types[told_at:].count("tool_call_finished") >= 1


@pytest.mark.parametrize("kind", CIRCLES)
def test_a_model_that_changes_its_ways_is_left_alone(kind: str) -> None:
    """After being told it does something else, slowly and well: the run ends with its answer."""
    loop, script, tools, at = CIRCLES[kind]
    better: list[Any] = [call("rest", '{"k":1}'), call("rest", '{"k":2}'), "done"]
    calls = (script * 9)[:at]
    play = Play(bundle(LOOK, tool("rest"), loop=loop), [*calls, *better], tools).play()
    assert len(play.events(ev.LoopDetected)) == 1
    assert play.end == ("done", "")


def test_repeatable_tools_may_repeat() -> None:
    """Polling is no circle: neither the same call nor a window of them."""
    script = [*[call("poll")] * 10, "done"]
    assert Play(bundle(POLL, loop=rules(same_call=3, window_repeats=3)), script).play().end == ("done", "")


def test_the_same_call_with_another_result_is_no_circle() -> None:
    """Something changed between."""
    play = Play(bundle(LOOK, loop=rules(same_call=3)), [*looks(1) * 6, "done"])
    texts = iter(range(100))
    play.tools = {"look": _Fresh(texts)}  # type: ignore[dict-item]
    assert play.play().end == ("done", "")


class _Fresh:
    """A script whose every outcome is a new text."""

    def __init__(self, texts: Any) -> None:
        self._texts = texts

    def __len__(self) -> int:
        return 1

    def __getitem__(self, place: int) -> Done:
        return Done(f"text {next(self._texts)}")


def test_a_success_breaks_a_row_of_failures() -> None:
    """Three and three, with a good one between, are not four in a row."""
    script = [*looks(1, 2, 3), call("poll"), *looks(4, 5, 6), "done"]
    play = Play(bundle(LOOK, POLL, loop=rules(failures=4)), script, {"look": [Wrong()]}).play()
    assert play.end == ("done", "")


def test_parallel_calls_of_one_turn_can_be_a_circle() -> None:
    """Three times the same in one turn is three times."""
    play = Play(bundle(LOOK, loop=rules(same_call=3)), [looks(1, 1, 1), "done"]).play()
    assert [f.count for f in play.events(ev.LoopDetected)] == [3]
    assert play.end == ("done", "")


def test_calls_of_one_turn_count_in_the_order_in_which_they_were_made() -> None:
    """Not as they happen to end: a circle is one whatever was slow, or lost with its worker."""
    slow = {"look": [Done(took_ms=200)], "rest": [Done(took_ms=50)]}
    play = Play(bundle(LOOK, tool("rest")), [[call("look"), call("rest")], "done"], slow).play()
    assert [event.call.rpartition(".")[2] for event in play.events(ev.ToolCallFinished)] == ["1", "0"]
    assert [trace.tool for trace in play.state.traces] == ["look", "rest"]


def test_told_is_told_whatever_else_is_said_at_the_boundary() -> None:
    """A message that comes between does not make the same circle be told, or ended, twice."""
    said = ev.MessageAdded(by="ann", parts=(Text("hurry", USER),))
    for after in range(1, 9):
        play = Play(bundle(LOOK, loop=rules(same_call=3)), [*looks(1) * 3, "done"], inject={after: [said]}).play()
        assert len(play.events(ev.LoopDetected)) == 1
        assert play.end == ("done", "")
