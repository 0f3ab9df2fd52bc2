"""What is known after hundreds of turns and many compactions: what is declared stands in every prompt, the rest is found by its question."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import msgspec

from stanchion.core import event as ev
from stanchion.core.bundle import READ_HISTORY, CompactionRules, Route
from stanchion.core.conversation import history
from stanchion.core.message import ModelRequest, Text, ToolResult
from stanchion.core.money import price_usd
from stanchion.core.state import State
from stanchion.loop.compact import read_back
from tests.loop.planted import Fact, Visit, visits
from tests.loop.play import Play
from tests.loop.script import FAST, Done, bundle, call, tool

VISITS = 130
SHEET = price_usd(input="3", output="15", cache_read="0.30", cache_write="3.75", cache_write_long="6")
RULES = CompactionRules(keep=("get_order.order_id",), patterns=(r"\bCASE-\d+\b",))
TOKENS_IN_TWO_CALLS = 2_000


def desk() -> Any:
    order = {"type": "object", "required": ["item"]}
    tools = (
        tool("get_order", parameters=order, max_result_chars=100_000),
        tool("refund", "irreversible", keyed=True),
        tool(READ_HISTORY, repeatable=True),
    )
    route = Route("anthropic", "claude-sonnet-4-6", SHEET, max_output_tokens=1_000, retry=FAST)
    return bundle(*tools, routes=(route,), compaction=RULES)


def play(visit: Visit, number: int, base: Play | None) -> Play:
    """One run of the session. What its model sums up says nothing: it is the code that is tested."""
    script: list[Any] = [call("get_order", msgspec.json.encode({"item": number}).decode(), f"o{number}")]
    if visit.refund:
        script.append(call("refund", visit.refund, f"r{number}"))
    found = {"get_order": [Done(visit.order)]}
    return Play(
        desk(), [*script, visit.answer], found, base=base, user=visit.user, metered=True, summaries=["They talked."]
    ).play()


@cache
def session() -> tuple[list[Visit], list[Play]]:
    """The whole session, once."""
    made = visits(VISITS)
    plays: list[Play] = []
    for number, visit in enumerate(made):
        plays.append(play(visit, number, plays[-1] if plays else None))
    return made, plays


def texts(request: ModelRequest) -> str:
    return "\n".join(part.text for m in request.messages for part in m.parts if isinstance(part, Text | ToolResult))


def compactions() -> list[tuple[int, ModelRequest]]:
    """After each compaction: how many visits were over, and the next request."""
    found: list[tuple[int, ModelRequest]] = []
    for number, played in enumerate(session()[1]):
        sent = 0
        pending = False
        for kind in played.types:
            pending = pending or kind == "compacted"
            if kind == "model_call_started":
                if pending:
                    found.append((number, played.requests[sent][1]))
                sent, pending = sent + 1, False
    return found


def test_the_session_is_long_and_compacted_often() -> None:
    """Several hundred turns, of which the prompt has a few at the end."""
    _, plays = session()
    assert all(played.end == ("done", "") for played in plays)
    turns = sum(message.role == "assistant" for message in history(plays[-1].state))
    assert turns > 300
    assert len(compactions()) >= 5
    last = plays[-1].requests[-1][1]
    assert len(last.messages) < 100


def test_all_that_is_declared_stands_in_the_prompt_after_every_compaction() -> None:
    """Paths of results and patterns: whatever of it was said before, all of it."""
    made, _ = session()
    for number, request in compactions():
        said = texts(request)
        wanted = [value for visit in made[:number] for value in visit.kept]
        assert [value for value in wanted if value not in said] == []
    assert len([value for visit in made for value in visit.kept]) >= 100


def test_the_rest_is_found_by_its_question_alone() -> None:
    """At least 95 of 100 in two calls with the question as it stands, of at most 2,000 tokens together; of every kind."""
    made, plays = session()
    state = plays[-1].state
    gone = state.covers
    asked = [fact for fact, index in planted(made, state) if index < gone][::6]
    assert len(asked) > 120
    found: dict[str, list[bool]] = {}
    for fact in asked:
        found.setdefault(fact.kind, []).append(finds(state, fact))
    assert set(found) == {"id", "amount", "date", "decision", "address"}
    rates = {kind: sum(hits) / len(hits) for kind, hits in found.items()}
    assert min(rates.values()) >= 0.95, rates


def planted(made: list[Visit], state: State) -> Iterator[tuple[Fact, int]]:
    """List facts with the message of the session that they stand in, at the latest."""
    whole = history(state)
    at = 0
    for visit in made:
        while not any(isinstance(p, Text) and p.text == visit.answer for p in whole[at].parts):
            at += 1
        yield from ((fact, at) for fact in visit.facts)


def finds(state: State, fact: Fact) -> bool:
    """Ask as a model would: the question, and then the next page of it."""
    spent = 0
    for page in (1, 2):
        arguments = msgspec.json.encode({"query": fact.question, "page": page})
        said = read_back(state, arguments)
        spent += -(-len(said.text.encode()) // 4)
        assert spent <= TOKENS_IN_TWO_CALLS
        if fact.answer in said.text:
            return True
    return False


def test_a_turn_that_is_named_is_read() -> None:
    """By its number, as it is said with what was found."""
    state = session()[1][-1].state
    said = read_back(state, b'{"turns":"2-3"}').text
    assert said.startswith("[turn 2, ")
    assert "[turn 3, " in said
    assert read_back(state, b'{"turns":"99999"}').text.startswith("Nothing was said in turns 99999")
    assert read_back(state, b'{"turns":"last"}').error
    assert read_back(state, b"{}").error
    assert read_back(State(), b'{"query":"x"}').text.startswith("Nothing was left out")


def test_the_head_stays_bounded_beside_what_is_declared() -> None:
    """However long the session is: goal, words, what was done and the summary are within their budgets."""
    sizes: list[int] = []
    for _, request in compactions():
        head = [part for part in request.messages[0].parts if isinstance(part, Text)]
        rest = [part for part in head if not part.text.startswith("[kept]")]
        sizes.append(sum(len(part.text) for part in rest))
    assert sizes[-1] <= 4 * (RULES.facts + RULES.summary) + 2_000 + 1_500
    assert sizes[-1] <= 1.2 * max(sizes[: len(sizes) // 2])


def test_what_is_declared_is_written_once() -> None:
    """Each compaction's event holds what is new (I9): all together as much as there is."""
    made, plays = session()
    written = [
        part.text
        for played in plays
        for event in played.events(ev.Compacted)
        for part in event.parts[: event.declared]
        if isinstance(part, Text)
    ]
    lines = [line for text in written for line in text.split("\n") if line.startswith("- ")]
    assert len(lines) == len({line.rpartition(" (turn ")[0] for line in lines})
    assert len(lines) <= 2 * len(made)


def test_it_does_not_hang_on_the_seed() -> None:
    """Another session finds as much."""
    made = visits(50, seed=1)
    base: Play | None = None
    for number, visit in enumerate(made):
        base = play(visit, number, base)
    assert base is not None
    asked = [fact for fact, index in planted(made, base.state) if index < base.state.covers]
    asked = asked[::3]
    assert len(asked) > 50
    assert sum(finds(base.state, fact) for fact in asked) >= 0.95 * len(asked)
