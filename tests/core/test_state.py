"""States that only a fold can show: erased parts, waits, sessions, traces."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from stanchion.core import event as ev
from stanchion.core.calls import TRACES, shown_result
from stanchion.core.fold import carry, fold
from stanchion.core.message import DEVELOPER, MODEL, USER, Erased, Label, Media, Text, ToolCall, ToolResult, Usage
from stanchion.core.state import Ran, State, decisions_for


def started(**options: Any) -> ev.RunStarted:
    base = {"run": "r", "tenant": "t", "session": "s", "agent": "a", "bundle": "b", "parts": (Text("hi", USER),)}
    return ev.RunStarted(**{**base, **options})


def entries(*events: ev.Event, every_ms: int = 10) -> list[ev.Entry]:
    return [ev.Entry(seq, seq * every_ms, 1, event) for seq, event in enumerate(events, start=1)]


def asked(**options: Any) -> ev.ModelCallStarted:
    base = {"turn": 1, "attempt": 1, "route": 0, "provider": "p", "model": "m", "messages": 1, "prefix": ""}
    return ev.ModelCallStarted(**{**base, **options})


def answered(*parts: Any, **options: Any) -> ev.ModelCallFinished:
    base = {"turn": 1, "attempt": 1, "finish": "tool_calls", "cost": 7, "parts": parts}
    return ev.ModelCallFinished(**{**base, **options})


def result(call: str, text: str = "ok", **options: Any) -> ev.ToolCallFinished:
    part = ToolResult("c", "look", text, Label("tool", "look"))
    return ev.ToolCallFinished(**{"call": call, "outcome": "ok", "parts": (part,), **options})


CALL = ToolCall("c", "look", "{}", MODEL)
JUDGED = ev.ToolCallJudged(call="3.0", revision=0, action="allow", rule="tier:read", tool="look")


def test_a_run_whose_content_was_erased_folds_to_the_same_run_without_it() -> None:
    """Money, counts, outcomes and the places of calls stay; the words are gone; no call is left without its result."""
    events = [started(), asked(), answered(CALL, Text("x", MODEL)), JUDGED, result("3.0", "secret " * 9, shown=12)]
    events += [asked(), answered(Text("bye", MODEL), finish="stop"), ev.RunFinished(outcome="done", cost=14)]
    whole, gone = fold(entries(*events)), fold(entries(*(erase(event) for event in events)))
    assert (gone.totals.turns, gone.totals.cost, gone.done) == (whole.totals.turns, whole.totals.cost, whole.done)
    assert gone.outcome == "done"
    assert [len(m.parts) for m in gone.messages] == [len(m.parts) for m in whole.messages]
    assert all(isinstance(p, Erased) for m in gone.messages for p in m.parts)
    assert len(gone.held) == len(whole.held) == 1


def erase(event: Any) -> Any:
    parts = tuple(Erased(p.__struct_config__.tag, p.label) for p in event.parts)
    return msgspec.structs.replace(event, parts=parts)


def test_a_result_that_alone_was_erased_still_answers_its_call() -> None:
    """The transcript stays whole."""
    finished = erase(result("3.0", "secret"))
    state = fold(entries(started(), asked(), answered(CALL), JUDGED, finished))
    (part,) = state.messages[-1].parts
    assert isinstance(part, ToolResult)
    assert (part.id, part.text) == ("c", "[erased]")


def test_calls_beside_an_erased_one_keep_their_places() -> None:
    """The second call is "3.1" whatever became of the first."""
    state = fold(entries(started(), asked(), answered(Erased("tool_call", MODEL), CALL)))
    assert [(c.id, c.erased) for c in state.calls] == [("3.0", True), ("3.1", False)]


def test_only_waiting_for_people_is_waiting() -> None:
    """Time in which a call is under way beside the question is the run's own."""
    ask = ev.ToolCallJudged(call="3.0", revision=0, action="ask", rule="x", tool="look")
    both = answered(CALL, CALL)
    other = ev.ToolCallJudged(call="3.1", revision=0, action="allow", rule="x", tool="look")
    run = ev.ToolCallStarted(call="3.1", attempt=1, revision=0)
    decided = ev.CallDecided(call="3.0", revision=0, decision="approve", by="b")
    state = fold(entries(started(), asked(), both, ask, other, run, result("3.1"), decided, every_ms=100))
    assert state.waited_ms == 300  # to the verdict on the other, to its start, and after its result
    assert not state.asking


def test_what_a_session_carries_is_the_conversation_and_nothing_of_the_run() -> None:
    """Limits, traces, outcome begin anew; how it ended is known of the one before."""
    before = fold(
        entries(started(), asked(), answered(Text("x", MODEL), finish="stop"), ev.RunFinished(outcome="done"))
    )
    kept = {n for n in State.__struct_fields__ if getattr(carry(before), n) != getattr(State(), n)}
    conversation = {"messages", "prefix", "content_bytes", "weight", "weight_since"}
    asked_before = {"prompted", "prompted_route", "kept_parts", "kept_by", "kept_ms", "kept_calls", "refreshed"}
    assert kept == conversation | asked_before | {"before"}
    assert carry(before).before == Ran(before.run, before.outcome, before.started_ms, tuple(t for _, t in before.done))
    assert carry(before).messages == before.messages


@pytest.mark.parametrize(("bundle", "known"), [("b", True), ("c", False)])
def test_an_exact_count_holds_for_its_bundle_only(bundle: str, known: bool) -> None:
    """Another identity or other tools may be longer: what was counted before says nothing."""
    usage = Usage(100, output_tokens=5)
    before = fold(entries(started(), asked(), answered(Text("x", MODEL), finish="stop", usage=usage)))
    after = fold(entries(started(bundle=bundle)), carry(before))
    assert (after.exact_tokens == 105) == known


def test_a_count_of_no_input_is_no_count() -> None:
    """Some servers say 0; the bound stays in bytes."""
    state = fold(
        entries(started(), asked(), answered(Text("x", MODEL), finish="stop", usage=Usage(0, output_tokens=9)))
    )
    assert state.exact_tokens == 0
    assert state.weight_since == state.weight


def test_media_weigh_what_they_declare() -> None:
    """Not their bytes; inside a result too; without a declaration the first is named."""
    bare = fold(entries(started(parts=(Text("", USER),))))
    image = Media("image/png", USER, data="A" * 9_000, max_input_tokens=500)
    state = fold(entries(started(parts=(Text("", USER), image))))
    assert 500 < state.weight - bare.weight < 800
    assert state.content_bytes > 9_000
    assert state.unbounded == ""
    shot = Media("image/webp", Label("tool"), data="A" * 9_000)
    held = ToolResult("c", "look", "x", Label("tool"), media=(shot,))
    seen = fold(entries(started(), asked(), answered(CALL), JUDGED, result("3.0", parts=(held,))))
    assert seen.unbounded == "image/webp"
    assert seen.weight < 2_000


def test_traces_are_bounded() -> None:
    """A run of any length keeps the last of them."""
    events: list[ev.Event] = [started()]
    for turn in range(TRACES + 10):
        events += [asked(), answered(CALL)]
        events.append(result(f"{len(events)}.0", f"{turn}"))
    state = fold(entries(*events))
    assert len(state.traces) == TRACES
    assert state.traces[-1].turn == state.totals.turns == TRACES + 10


@pytest.mark.parametrize(("shown", "text"), [(-1, "abcdef"), (6, "abcdef"), (99, "abcdef"), (0, ""), (2, "ab")])
def test_a_result_is_shown_up_to_its_cut(shown: int, text: str) -> None:
    """And says how to read on."""
    cut = shown_result(ToolResult("c", "t", "abcdef", DEVELOPER), shown, 4)
    assert cut.text.startswith(text)
    assert (f'read_result(result="4", offset={shown})' in cut.text) == (0 <= shown < 6)


def test_decisions_are_those_that_mean_something() -> None:
    """By what is asked."""
    ask = ev.ToolCallJudged(call="3.0", revision=0, action="ask", rule="x", tool="look")
    waiting = fold(entries(started(), asked(), answered(CALL), ask)).calls[0]
    replace = msgspec.structs.replace
    assert decisions_for(waiting) == ("approve", "edit", "reject")
    assert decisions_for(replace(waiting, in_doubt=True)) == ("retry", "record", "fail")
    assert decisions_for(replace(waiting, rule="edit_invalid")) == ("edit", "reject")
