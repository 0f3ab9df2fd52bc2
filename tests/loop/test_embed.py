"""What memory has embedded: reserved in the append of its intent, settled once, and done without where there is no money for it."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from stanchion.core import event as ev
from stanchion.core.bundle import NOTE, RECALL, REMEMBER, Bundle, Caps, ToolSpec
from stanchion.core.chain import Outline
from stanchion.core.charge import charges
from stanchion.core.embedding import EmbeddingModel, bound_tokens, reservation, stored, vector_of
from stanchion.core.message import USER, Text, ToolCall, Usage
from stanchion.core.money import cost, input_price
from stanchion.core.remembered import MemoryRules
from stanchion.loop.remember import embedded, found, happened, with_vectors
from tests.loop.play import Play
from tests.loop.script import Break, Refuse, bundle, call, tool

MODEL = EmbeddingModel("p:vectors", input_price(3_000_000_001))
"""3,000 nano-dollars a token and a little, so that rounding shows."""
LEDGERS = ("tenant/day",)


def agent(model: EmbeddingModel | None = MODEL, **options: Any) -> Bundle:
    """An agent with the tools of memory. Its rules are those of its later options."""
    writes: list[ToolSpec] = [tool(name, "write", keyed=True) for name in (REMEMBER, NOTE)]
    rules = MemoryRules("agent", embeddings=model, **options)
    return bundle(tool(RECALL), *writes, tool("look"), memory=rules)


def recall(query: str = "my plan", id: str = "c") -> ToolCall:
    return call(RECALL, json.dumps({"query": query}), id)


def test_a_call_reserves_with_its_intent_and_is_settled_at_what_it_used() -> None:
    """A bound of bytes beside the text's marks; the bill of the provider's count; no call of another tool does."""
    play = Play(agent(), [[recall("ma carte ü"), call("look", "{}", "d")], "bye"], ledgers=LEDGERS).play()
    look, asked = sorted(play.events(ev.ToolCallStarted), key=lambda e: bool(e.model))
    bound = len("ma carte ü".encode()) + 8
    assert (asked.model, asked.bound_tokens, asked.reserved) == ("p:vectors", bound, reservation(MODEL, bound))
    assert [ledger.partition(":")[0] for ledger in asked.ledgers] == ["tenant/day"]
    assert (look.model, look.reserved, look.ledgers) == ("", 0, ())
    done = next(e for e in play.events(ev.ToolCallFinished) if e.call == asked.call)
    assert (done.usage, done.cost, done.lacked) == (Usage(7), cost(MODEL.price, Usage(7)), "")
    assert done.cost == 21_001
    assert play.state.totals.cost == sum(
        getattr(e, "cost", 0) for e in play.events(ev.ToolCallFinished, ev.ModelCallFinished)
    )
    assert play.state.degraded == ()


def test_what_is_embedded_is_what_is_written() -> None:
    """Of a fact its subject, attribute and value in one form; of a note name and text; nothing of what takes one away."""
    said = [
        call(REMEMBER, json.dumps({"attribute": "home_city", "value": " Lisbon ", "subject": "user"}), "a"),
        call(NOTE, json.dumps({"name": "todo", "text": "call back"}), "b"),
        call(NOTE, json.dumps({"name": "todo", "text": ""}), "c"),
        call(REMEMBER, json.dumps({"attribute": "x@y", "value": "no name"}), "d"),
    ]
    play = Play(agent(), [said, "bye"]).play()
    texts = [effect.embed.text if effect.embed else "" for effect in play.attempts]
    assert sorted(texts) == ["", "", "todo call back", "user home city Lisbon"]


def test_with_no_usage_it_is_settled_at_its_reservation() -> None:
    """And where it may have been billed though it failed; where it was certainly not, at nothing."""
    for said, code in ((None, ""), (Break(billed=True), "overloaded"), (Break(), "overloaded")):
        play = Play(agent(), [recall(), "bye"], vectors=[said]).play()
        (asked,), (done,) = play.events(ev.ToolCallStarted), play.events(ev.ToolCallFinished)
        unbilled = isinstance(said, Break) and not said.billed
        assert done.cost == (0 if unbilled else asked.reserved)
        assert done.outcome == "ok"
        assert play.end == ("done", "")
        assert play.state.degraded == ((f"embedding:p:vectors:{code}",) if code else ())


def test_without_money_it_goes_by_words_at_once() -> None:
    """Refused for good or only by others: the journal says so, nothing is reserved, and the run goes on to its end."""
    for hard in (True, False):
        refuse = [None, Refuse(hard=hard)]
        play = Play(agent(), [[recall(), recall("more", "d")], "bye"], ledgers=LEDGERS, refuse=refuse).play()
        assert len(play.events(ev.BudgetRefused)) == 1
        assert {(e.model, e.reserved, e.bound_tokens) for e in play.events(ev.ToolCallStarted)} == {("", 0, 0)}
        assert [e.lacked for e in play.events(ev.ToolCallFinished)] == ["embedding:p:vectors:budget"] * 2
        assert play.end == ("done", "")
        assert play.state.degraded == ("embedding:p:vectors:budget",)
        assert play.now_ms - play.entries[0].at_ms < 5_000, "a person waits"


def test_calls_of_one_step_do_not_pass_the_run_s_limit_together() -> None:
    """Each is decided by what those before it have reserved; what has no room goes by words. Of tokens as of money."""
    dear, said = EmbeddingModel("p:vectors", input_price(10**12)), [[recall(id=name) for name in "cde"], "bye"]
    tokens = bound_tokens(["my plan"])
    one, whole = reservation(dear, tokens), Play(agent(dear), said).play()
    first, asked = whole.events(ev.ModelCallFinished)[0], whole.events(ev.ModelCallStarted)[0]
    assert asked.reserved < one
    for room in range(4):
        money = Caps(nano_usd=max(first.cost + room * one, asked.reserved), warn_at=1.0)
        read = Caps(input_tokens=max(first.usage.input_tokens + room * tokens, asked.bound_tokens), warn_at=1.0)
        for caps in (money, read):
            play = Play(agent(dear), said, caps=caps).play()
            fits = room if caps is money else min((read.input_tokens - first.usage.input_tokens) // tokens, 3)
            assert sum(bool(e.reserved) for e in play.events(ev.ToolCallStarted)) == fits
            assert play.state.totals.cost <= caps.nano_usd or caps is read
            lacking = [e.lacked for e in play.events(ev.ToolCallFinished) if e.lacked]
            assert lacking == ["embedding:p:vectors:limit"] * (3 - fits)


def test_a_dry_run_embeds_what_it_reads_and_not_what_it_pretends() -> None:
    """Searching is real in it, writing is not."""
    fact = call(REMEMBER, json.dumps({"attribute": "plan", "value": "gold"}), "d")
    play = Play(agent(), [[recall(), fact], "bye"], dry_run=True).play()
    assert [(e.mode, bool(e.model)) for e in play.events(ev.ToolCallStarted)] in (
        [("run", True), ("dry", False)], [("dry", False), ("run", True)],
    )  # fmt: skip


def test_what_costs_nothing_reserves_nothing_and_is_journaled() -> None:
    """An embedder of one's own: no budget is touched, and none refuses it."""
    free = EmbeddingModel("Words", input_price(0))
    play = Play(
        agent(free), [recall(), "bye"], ledgers=LEDGERS, refuse=[None, Refuse(hard=True)], vectors=[None]
    ).play()
    (asked,), (done,) = play.events(ev.ToolCallStarted), play.events(ev.ToolCallFinished)
    assert (asked.model, asked.reserved, asked.ledgers, done.cost) == ("Words", 0, (), 0)


# --- a run that learns ---------------------------------------------------------------------------------------------------


def asked_before() -> Play:
    return Play(agent(), [call("look"), "It is sunny."], user="How is the weather in Porto?").play()


def learning(base: Play, **fields: Any) -> Play:
    """A run that only says what happened."""
    return Play(agent(extract=False), [], base=base, learns=True, ledgers=LEDGERS, **fields)


def test_an_episode_is_embedded_by_a_run() -> None:
    """Start, intent with its reservation, vectors with their bill, end; and they are found again by the text."""
    base = asked_before()
    play = learning(base).play()
    assert play.types == ["run_started", "embedding_started", "embedding_made", "run_finished"]
    started, made = play.events(ev.EmbeddingStarted)[0], play.events(ev.EmbeddingMade)[0]
    ops = found(play.state, play.bundle)
    assert not isinstance(ops, str)
    assert ops == happened(base.state, base.bundle), "read from the run itself, or from the one that looks at it"
    texts = [embedded(op) for op in ops]
    assert texts == ['asked: "How is the weather in Porto?"; ended as done; by look']
    assert (started.texts, started.reserved) == (1, reservation(MODEL, bound_tokens(texts)))
    assert made.cost == play.state.totals.cost == cost(MODEL.price, Usage(7))
    assert play.state.embedding is not None
    (op,) = with_vectors(ops, play.state.embedding.vectors or ())
    assert op.vector == vector_of(texts[0], stored(texts, [[float(len(texts[0])), 1.0]])) != b""
    (told,) = happened(base.state, base.bundle)
    assert told.vector == b""


def test_without_money_it_waits_and_then_goes_without() -> None:
    """Not where money is spent for good. It is done all the same: words find what has no vector."""
    waits = Caps(budget_wait_s=3)
    for refuse, caps, waited in (([Refuse(hard=True)], waits, False), ([Refuse(hard=False)] * 99, waits, True)):
        play = learning(asked_before(), refuse=refuse, caps=caps).play()
        assert play.types == ["run_started", "budget_refused", "run_finished"]
        assert play.end == ("done", "")
        assert play.state.degraded == ("embedding:p:vectors:budget",)
        assert (play.now_ms - play.entries[0].at_ms >= 3_000) is waited
    play = learning(asked_before(), refuse=[Refuse(hard=False)], caps=waits).play()
    assert play.types == ["run_started", "budget_refused", "embedding_started", "embedding_made", "run_finished"]


def test_it_is_tried_again_and_given_up() -> None:
    """As often as others; each attempt that may have been billed is, at its bound."""
    for said, attempts in ((Break(billed=True), 3), (Break("auth", retryable=False), 1)):
        play = learning(asked_before(), vectors=[said]).play()
        assert len(play.events(ev.EmbeddingStarted)) == len(play.events(ev.EmbeddingFailed)) == attempts
        bound = play.events(ev.EmbeddingStarted)[0].reserved
        assert play.state.totals.cost == (attempts * bound if said.billed else 0)
        assert play.state.degraded == (f"embedding:p:vectors:{said.code}",)
        assert play.end == ("done", "")
    play = learning(asked_before(), vectors=[Break(billed=True), Usage(7)]).play()
    assert play.state.degraded == ()
    assert play.state.embedding is not None
    assert play.state.embedding.vectors


@given(
    dies=st.dictionaries(st.integers(1, 8), st.booleans(), max_size=4),
    said=st.lists(st.sampled_from((Usage(7), None, Break(), Break(billed=True))), min_size=1, max_size=4),
)
@settings(max_examples=150, deadline=None)
def test_whatever_dies_all_that_may_be_billed_is_settled(dies: dict[int, bool], said: list[Any]) -> None:
    """A fold of the records gives the same state; an attempt that was lost costs its bound; the charges are the run's cost."""
    play = learning(asked_before(), vectors=said, crashes=dies).play()
    assert play.state.ended
    started = play.events(ev.EmbeddingStarted)
    ended = play.events(ev.EmbeddingMade, ev.EmbeddingFailed)
    assert [e.attempt for e in started] == [e.attempt for e in ended]
    for intent, outcome in zip(started, ended, strict=True):
        if getattr(outcome, "code", "") == "lost":
            assert outcome.cost == intent.reserved
        assert 0 <= outcome.cost <= intent.reserved
    paid = list(charges((Outline(entry.seq, entry.at_ms, entry.event) for entry in play.entries), {}))
    assert sum(charge.cost for charge in paid) == play.state.totals.cost == sum(e.cost for e in ended)
    assert {charge.step for charge in paid} <= {"embed"}
    assert len(play.events(ev.EmbeddingMade)) <= 1, "nothing is paid for that is there already"


def test_a_cancelled_one_ends_and_settles() -> None:
    """What was under way is aborted, and billed at its bound."""
    play = learning(asked_before(), inject={1: [ev.CancelRequested(by="ann", parts=(Text("stop", USER),))]}).play()
    assert play.end == ("cancelled", "cancelled")
    (failed,) = play.events(ev.EmbeddingFailed)
    assert (failed.code, failed.cost) == ("cancelled", play.events(ev.EmbeddingStarted)[0].reserved)


def test_a_text_that_a_tokenizer_writes_out_is_bounded_too() -> None:
    """One sign of three bytes stands for eighteen letters in the normal form that some embedding models read."""
    assert bound_tokens(["\ufdfa"]) > 30
    assert bound_tokens(["a" * 10, ""]) == 26
