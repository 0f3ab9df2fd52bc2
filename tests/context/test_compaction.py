"""When a conversation is compacted, by arithmetic; and what a request looks like after it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from stanchion.context import compaction, history
from stanchion.context.assemble import assemble, preamble
from stanchion.context.facts import declared
from stanchion.context.life import Habit, life
from stanchion.core import event as ev
from stanchion.core.bundle import Bundle, CompactionRules, Route
from stanchion.core.conversation import add
from stanchion.core.fold import carry, evolve, fold
from stanchion.core.kept import expected, why_not
from stanchion.core.message import (
    MODEL,
    RUNTIME,
    USER,
    Erased,
    Label,
    Message,
    Part,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
    Usage,
)
from stanchion.core.money import price_usd
from stanchion.core.state import State
from stanchion.model.openai_responses import OpenAIResponses

SHEET = price_usd(input="3", output="15", cache_read="0.30", cache_write="3.75", cache_write_long="6")
CHEAP = price_usd(input="1", output="5", cache_read="0.10", cache_write="1.25")
ROUTE = Route("anthropic", "claude-sonnet-4-6", SHEET, max_output_tokens=1_000)
READER = Route("anthropic", "claude-haiku-4-5", CHEAP, max_output_tokens=1_000)
RULES = CompactionRules()


def talk(turns: int, size: int = 2_000, calls: int = 0) -> State:
    """A conversation of so many turns, as it is before its next request: counted at four bytes a token."""
    state = State()
    for turn in range(turns):
        state = add(state, "user", (Text(f"question {turn} " + "q" * size, USER),))
        state = add(state, "assistant", (Text(f"answer {turn} " + "a" * size, MODEL),))
    state = add(state, "user", (Text("and now?", USER),))
    tokens = state.weight // 4
    carried = sum(n * size // 2 for n in range(turns))
    return msgspec.structs.replace(
        state,
        exact_tokens=tokens,
        exact_route=0,
        weight_since=0,
        counted_tokens=tokens,
        counted_weight=state.weight,
        base_tokens=size // 4,
        carried_tokens=carried,
        kept_calls=calls or turns,
    )


def planned(state: State, rules: CompactionRules = RULES, **options: Any) -> compaction.Plan | None:
    route = msgspec.structs.replace(ROUTE, **options.pop("route", {}))
    reader = options.pop("reader", READER)
    return compaction.plan(state, rules, route, reader, options.pop("habit", Habit()), 0)


def first(**options: Any) -> int:
    """How many turns there are when it is compacted for the first time."""
    return next(turns for turns in range(2, 300) if planned(talk(turns), **options))


def test_it_is_done_sooner_the_more_a_read_costs_and_later_the_dearer_the_summary() -> None:
    """By the prices alone."""
    usual = first()
    assert 8 < usual < 40
    assert first(route={"cache": "off"}) < usual, "all is paid in full at each turn"
    assert first(reader=ROUTE) > usual
    assert first(route={"price": msgspec.structs.replace(SHEET, cache_read=30_000_000)}) > usual


def test_what_is_measured_counts() -> None:
    """An agent whose sessions are about to end is not compacted; one whose sessions go on is."""
    turns = first()
    ends = Habit(lengths=((turns + 1, 50),))
    goes_on = Habit(lengths=((10 * turns, 50),))
    assert planned(talk(turns), habit=ends) is None
    assert planned(talk(turns), habit=goes_on) is not None
    assert compaction.expected_turns(talk(10), goes_on) == pytest.approx(10 * turns - 10)
    assert compaction.expected_turns(talk(10), Habit()) == 10


def test_reading_must_have_cost_what_compacting_does() -> None:
    """A conversation that goes on for ever is not compacted at each turn."""
    turns = first()
    fresh = msgspec.structs.replace(talk(turns), carried_tokens=1_000)
    assert planned(fresh, habit=Habit(lengths=((10_000, 50),))) is None


def test_long_results_alone_are_left_out_where_that_is_worth_more() -> None:
    """A dear model that sums up, and a few results that are most of it."""
    state = talk(4, size=400)
    last = state.messages[-1]
    state = msgspec.structs.replace(state, messages=state.messages[:-1])
    state = add(state, "user", (Text("look", USER),))
    state = add(state, "assistant", (ToolCall("c", "look", "{}", MODEL),))
    state = add(state, "user", (ToolResult("c", "look", "x" * 60_000, Label("tool", "look")),))
    for turn in range(5):
        state = add(state, "assistant", (Text(f"more {turn}", MODEL),))
        state = add(state, "user", (Text("go on", USER),))
    state = add(state, "user", last.parts)
    counts = {"exact_tokens": state.weight // 4, "weight_since": 0, "counted_tokens": state.weight // 4}
    counts |= {"counted_weight": state.weight, "carried_tokens": 400_000, "kept_calls": 40}
    found = planned(msgspec.structs.replace(state, **counts), reader=ROUTE)
    assert found is not None
    assert (found.kind, found.covers, found.reason) == ("trim", 0, "cost")


@pytest.mark.parametrize(("room", "done"), [(100_000, False), (3_000, True)])
def test_room_is_predicted(room: int, done: bool) -> None:
    """By the last count, what came since, and the longest answer."""
    rules = msgspec.structs.replace(RULES, when="room")
    found = planned(talk(6), rules, route={"context_tokens": room})
    assert (found is not None and found.reason == "room") is done


def test_the_last_turns_stay_with_what_they_were_asked() -> None:
    """The boundary is before a question, or before a call: never before a result."""
    whole = talk(6).messages
    until = compaction.boundary(whole, 2)
    assert whole[until].parts[0] == whole[8].parts[0]
    assert compaction.boundary(whole[:2], 4) == 0
    assert compaction.boundary((), 1) == 0
    assert compaction.boundary(whole[:-1], 2) == 0, "the last message is the model's: it has not been answered"


# --- what a request looks like after it -----------------------------------------------------------------------------------


def compacted(state: State, covers: int, *parts: Part) -> State:
    event = ev.Compacted(reason="cost", covers=covers, parts=parts or (Text("[runtime] head", RUNTIME),))
    return evolve(state, ev.Entry(state.seq + 1, 1, 1, event))


def thinking() -> State:
    """A step under way of a model that thinks."""
    state = add(State(), "user", (Text("go", USER),))
    own = Label("model", "anthropic:claude-sonnet-4-6")
    for number in range(4):
        call = ToolCall(f"c{number}", "look", "{}", MODEL)
        state = add(state, "assistant", (Thinking("hm", own, signature="s", wire="anthropic"), call))
        state = add(state, "user", (ToolResult(f"c{number}", "look", "x", Label("tool", "look")),))
    return state


def test_a_step_that_lost_its_reasoning_goes_on_without_a_budget_of_it() -> None:
    """Anthropic takes a call's result only behind the reasoning that led to it, or with thinking disabled; the next step has it again."""
    route = msgspec.structs.replace(ROUTE, thinking_tokens=2_000)
    bundle = Bundle("a", "x", (route,))
    shown = preamble(bundle)
    state = thinking()
    assert assemble(state, bundle, shown, route).thinking_tokens == 2_000
    state = compacted(state, 5)
    assert not any(isinstance(p, Thinking) for m in state.messages for p in m.parts)
    assert assemble(state, bundle, shown, route).thinking_tokens == 0
    state = add(state, "assistant", (Text("done", MODEL),))
    state = add(state, "user", (Text("and?", USER),))
    assert assemble(state, bundle, shown, route).thinking_tokens == 2_000


def test_openai_s_items_lose_the_ids_that_hang_on_their_reasoning() -> None:
    """A call with the id of an item is refused without the reasoning that came with it; without an id it is taken."""
    own, wire = Label("model", "openai:gpt-5.2"), "openai_responses"
    thought = Thinking("", own, wire=wire, data='{"type":"reasoning","id":"rs_1","summary":[]}')
    state = add(State(), "user", (Text("go", USER),))
    for number in range(3):
        call = ToolCall(f"c{number}", "look", "{}", MODEL, wire=wire, data=f'{{"id":"fc_{number}"}}')
        state = add(state, "assistant", (thought, call))
        state = add(state, "user", (ToolResult(f"c{number}", "look", "x", Label("tool", "look")),))
    route = Route("openai", "gpt-5.2", SHEET)
    bundle = Bundle("a", "x", (route,))

    def sent(state: State) -> str:
        return OpenAIResponses().encode(assemble(state, bundle, preamble(bundle), route)).decode()

    assert "rs_1" in sent(state)
    assert "fc_2" in sent(state)
    assert "rs_1" not in sent(compacted(state, 3))
    assert "fc_2" not in sent(compacted(state, 3))
    assert '"call_id":"c2"' in sent(compacted(state, 3))


def test_nothing_is_expected_of_the_cache_after_it_but_its_life_is_kept() -> None:
    """The miss has its reason; tools and identity are not written for another life."""
    state = msgspec.structs.replace(
        talk(6), kept_tokens=5_000, kept_by="anthropic:claude-sonnet-4-6", kept_ms=1, kept_long=True
    )
    assert expected(state, "anthropic", "claude-sonnet-4-6", 2) == 5_000
    after = compacted(state, 4)
    assert expected(after, "anthropic", "claude-sonnet-4-6", 2) == 0
    assert why_not(after, "anthropic", "claude-sonnet-4-6", 2) == "compaction"
    assert life(after, ROUTE, Habit(), 2, 5_000) == "long"
    assert why_not(after, "anthropic", "claude-sonnet-4-6", 10**9) == "life"


def test_a_refresh_asks_for_the_request_that_was_compacted() -> None:
    """Back to the last request, as it was sent, not to the whole conversation."""
    state = compacted(talk(8), 6)
    asked = state.messages
    started = ev.ModelCallStarted(turn=1, attempt=1, route=0, provider="anthropic", model="m", messages=0, prefix="")
    done = ev.ModelCallFinished(
        turn=1, attempt=1, finish="stop", cost=0, usage=Usage(input_tokens=5_000), parts=(Text("so", MODEL),)
    )
    state = fold([ev.Entry(2, 1, 1, started), ev.Entry(3, 2, 1, done)], state)
    first = ev.RunStarted(
        run="r2", tenant="t", session="refresh_s", agent="a", bundle="b", refreshes=ev.Base("r1", 3, "00")
    )
    refreshing = evolve(carry(state), ev.Entry(1, 3, 1, first))
    assert refreshing.messages == asked


def test_a_head_that_was_erased_is_still_one() -> None:
    """Content may be destroyed at any time: the conversation stays well formed, and the next compaction goes on."""
    state = compacted(talk(8), 6, Erased("text", RUNTIME), Erased("text", MODEL))
    assert state.messages[0].parts[:2] == (Erased("text", RUNTIME), Erased("text", MODEL))
    assert declared(state, RULES, state.messages, 2) == ()
    assert (
        list(
            history.said(
                (Message("assistant", (Erased("tool_call", MODEL),)), Message("user", (Erased("tool_result", MODEL),)))
            )
        )
        == []
    )


def test_a_text_is_cut_where_it_is_best_cut() -> None:
    """At an end of a line or a sentence; nothing of it is lost."""
    text = ". ".join(f"Sentence {n} says something of its own" for n in range(60))
    whole = (Message("user", (Text(text, USER),)), Message("assistant", (Text("ok", MODEL),)))
    found = history.read(whole, 2, "", "1", 1)
    assert found.text.startswith("[turn 1, user] Sentence 0 says")
    pages = "".join(history.read(whole, 2, "", "1", page).text for page in (1, 2, 3))
    assert all(f"Sentence {n} says" in pages for n in range(60))
    assert len(found.text) <= history.PAGE + 200
