"""Charges of a journal and their sums, from plain events: nothing paid is left out, and every number is one done by hand."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, get_args

import msgspec
import pytest

from stanchion.core import event as ev
from stanchion.core.chain import Outline, PartRef
from stanchion.core.charge import Charge, Step, bundles_of, charges
from stanchion.core.message import MODEL, RUNTIME, Label, Usage
from stanchion.core.money import cost, price_usd
from stanchion.core.reckon import Dimension, Owner, Reckoner, Routed, Sum, WhatIf

PRICE = price_usd(input="3", output="15", cache_read="0.30", cache_write="3.75", cache_write_long="6")
CHEAP = price_usd(input="1", output="5")
NAME = "anthropic:sonnet"
PRICES = {"b1": ((NAME, PRICE), ("openai:mini", CHEAP)), "b2": ((NAME, CHEAP),)}
DAY_MS = 86_400_000
OWNER = Owner("acme", "r1", "s1", "desk", "ann")


def refs(*sizes: tuple[str, int]) -> tuple[PartRef, ...]:
    return tuple(PartRef(kind, MODEL, "k", "c", size) for kind, size in sizes)


def journal(*events: Any) -> list[Outline]:
    """Place events, a second apart; a pair is an event with its parts."""
    pairs = [each if isinstance(each, tuple) else (each, ()) for each in events]
    return [Outline(seq, seq * 1000, event, parts) for seq, (event, parts) in enumerate(pairs, start=1)]


def started(turn: int = 1, *, route: int = 0, model: str = "sonnet", provider: str = "anthropic", **more: Any) -> Any:
    return ev.ModelCallStarted(
        turn=turn, attempt=1, route=route, provider=provider, model=model, messages=1, prefix="", **more
    )  # fmt: skip


def answered(usage: Usage | None, paid: int, *, calls: int = 0) -> Any:
    finish = "tool_calls" if calls else "stop"
    event = ev.ModelCallFinished(turn=1, attempt=1, finish=finish, cost=paid, usage=usage)
    return event, refs(*[("tool_call", 20)] * calls)


def used(call: str, tool: str, size: int, paid: int = 0, shown: int = -1) -> list[Any]:
    judged = ev.ToolCallJudged(call=call, revision=0, action="allow", rule="", tool=tool)
    done = ev.ToolCallFinished(call=call, outcome="ok", cost=paid, shown=shown)
    return [judged, ev.ToolCallStarted(call=call, attempt=1, revision=0), (done, refs(("tool_result", size)))]


def begun(bundle: str = "b1") -> ev.RunStarted:
    return ev.RunStarted(run="r1", tenant="acme", session="s1", agent="desk", bundle=bundle)


def read(*events: Any) -> list[Charge]:
    return list(charges(journal(begun(), *events), PRICES))


def reckoned(found: Iterable[Charge], *by: Dimension, **more: Any) -> Reckoner:
    reckoner = Reckoner(by or ("agent",), **more)
    reckoner.add(OWNER, found)
    return reckoner


def test_every_event_with_a_cost_is_a_charge() -> None:
    """Whoever adds an event that costs something has to say here what is paid with it."""
    told_again = {ev.RunFinished, ev.BudgetOverrun}  # they repeat what other events have said
    costing = {kind for kind in get_args(ev.Event) if "cost" in kind.__struct_fields__} - told_again
    samples: dict[type[Any], Any] = {
        ev.ModelCallFinished: answered(None, 7),
        ev.ModelCallFailed: ev.ModelCallFailed(turn=1, attempt=1, code="lost", cost=7),
        ev.ToolCallFinished: ev.ToolCallFinished(call="1.0", outcome="ok", cost=7),
        ev.ToolCallFailed: ev.ToolCallFailed(call="1.0", attempt=1, code="lost", cost=7),
        ev.ContentChecked: ev.ContentChecked(check="c", where="input", action="pass", cost=7),
        ev.SummaryWritten: ev.SummaryWritten(attempt=1, cost=7),
        ev.CompactionFailed: ev.CompactionFailed(attempt=1, code="lost", cost=7),
        ev.EmbeddingMade: ev.EmbeddingMade(attempt=1, cost=7),
        ev.EmbeddingFailed: ev.EmbeddingFailed(attempt=1, code="lost", cost=7),
        ev.CheckFailed: ev.CheckFailed(check="c", where="input", of="1", attempt=1, code="lost", cost=7),
    }
    assert set(samples) == costing
    for kind, sample in samples.items():
        assert sum(charge.cost for charge in read(started(), sample)) == 7, kind


def test_steps() -> None:
    """The first answer plans if it asks for tools, later ones act, one without tools answers; failures are retries."""
    found = read(
        started(), ev.ModelCallFailed(turn=1, attempt=1, code="overloaded"), started(), answered(None, 1, calls=1),
        *used("4.0", "look", 10), started(2), answered(None, 1, calls=1), *used("9.0", "look", 10), started(3),
        answered(None, 1),
    )  # fmt: skip
    assert [charge.step for charge in found] == ["retry", "plan", "tool", "act", "tool", "answer"]
    assert [charge.step for charge in read(started(), answered(None, 1))] == ["answer"]
    assert {charge.step for charge in found} <= set(get_args(Step))


def test_the_price_is_that_of_the_route_and_of_the_bundle_in_force() -> None:
    """A call is priced as it was when it left; a route that the bundle does not have has no price."""
    usage = Usage(100, output_tokens=10)
    found = read(
        started(), ev.BundleChanged(bundle="b2"), answered(usage, cost(PRICE, usage)),
        started(), answered(usage, cost(CHEAP, usage)), started(route=1, provider="openai", model="mini"),
        answered(usage, 5),
    )  # fmt: skip
    assert [charge.price for charge in found] == [PRICE, CHEAP, None]
    assert [charge.is_metered for charge in found] == [True, True, False]
    assert bundles_of(journal(begun(), ev.BundleChanged(bundle="b2"))) == {"b1", "b2"}


def test_a_refresh_is_the_cache_s_cost() -> None:
    """It reads much, saves nothing by itself, and would not have been without a cache."""
    usage = Usage(cache_read_tokens=60_000, output_tokens=1)
    begin = msgspec.structs.replace(begun(), refreshes=ev.Base("r0", 9, "h"))
    (charge,) = charges(journal(begin, started(), answered(usage, cost(PRICE, usage))), PRICES)
    assert charge.step == "refresh"
    total = reckoned([charge], what_if=WhatIf(without_cache=True)).total
    assert (total.read_saved, total.cache_extra, total.supposed) == (0, total.cost, 0)
    assert reckoned([charge], what_if=WhatIf(CHEAP)).total.supposed == cost(CHEAP, usage)


def test_an_extract_is_a_model_call_of_its_tool() -> None:
    """What is billed by tokens has its model and its price; its failed attempts are retries."""
    usage = Usage(100, output_tokens=10)
    ask = ev.ToolCallStarted(call="2.0", attempt=1, revision=0, model="openai:mini", reserved=900)
    found = read(
        ev.ToolCallJudged(call="2.0", revision=0, action="allow", rule="", tool="extract"),
        ask, ev.ToolCallFailed(call="2.0", attempt=1, code="lost", cost=900),
        ask, ev.ToolCallFinished(call="2.0", outcome="ok", cost=cost(CHEAP, usage), usage=usage),
    )  # fmt: skip
    assert [(charge.step, charge.model, charge.tool, charge.calls, charge.tool_calls) for charge in found] == [
        ("retry", "openai:mini", "extract", 1, 0),
        ("extract", "openai:mini", "extract", 1, 1),
    ]
    assert [charge.is_metered for charge in found] == [False, True]


def test_an_embedding_is_a_step_of_its_own() -> None:
    """Of a tool of memory and of a run that learns, failed attempts among them; another model of the conversation would not change it."""
    usage, vectors = Usage(50), price_usd(input="0.02", output=0)
    paid = cost(vectors, usage)
    prices = {"b1": (*PRICES["b1"], ("openai:vectors", vectors))}
    call = ev.ToolCallStarted(call="2.0", attempt=1, revision=0, model="openai:vectors", reserved=9_000)
    start = ev.EmbeddingStarted(attempt=1, model="openai:vectors", texts=2, reserved=8_000)
    events = journal(
        begun(), ev.ToolCallJudged(call="2.0", revision=0, action="allow", rule="", tool="recall_memory"),
        call, ev.ToolCallFailed(call="2.0", attempt=1, code="lost", cost=9_000),
        call, ev.ToolCallFinished(call="2.0", outcome="ok", cost=paid, usage=usage),
        start, ev.EmbeddingFailed(attempt=1, code="lost", cost=8_000), start, ev.EmbeddingMade(attempt=2, cost=paid, usage=usage),
    )  # fmt: skip
    found = list(charges(events, prices))
    assert [(charge.step, charge.cost, charge.tool, charge.is_metered) for charge in found] == [
        ("embed", 9_000, "recall_memory", False), ("embed", paid, "recall_memory", True),
        ("embed", 8_000, "", False), ("embed", paid, "", True),
    ]  # fmt: skip
    assert {charge.model for charge in found} == {"openai:vectors"}
    for what_if in (WhatIf(PRICE), WhatIf(without_cache=True), WhatIf(batch=True)):
        total = reckoned(found, what_if=what_if).total
        assert total.supposed == total.kept == total.cost == 17_000 + 2 * paid
    assert reckoned(found).total.unmetered == 17_000


def test_what_results_add_is_what_the_next_request_grew_by() -> None:
    """By the provider's counts, shared out by bytes: of a long result what is shown; what others said is theirs."""
    grown = 1_000
    found = read(
        started(), answered(Usage(500, output_tokens=50), 1, calls=3),
        *used("3.0", "look", 300), *used("3.1", "search", 90_000, shown=500), *used("3.2", "look", 100),
        (ev.MessageAdded(by="ann"), refs(("text", 100))),
        started(2), answered(Usage(550 + grown, output_tokens=50), 1),
        started(3), answered(Usage(9_000, output_tokens=50), 1),
    )  # fmt: skip
    added = [(charge.tool, charge.added_tokens) for charge in found if charge.added_tokens]
    assert added == [("look", 400), ("search", 500)]


@pytest.mark.parametrize(
    "second", [started(2, route=1, provider="openai", model="mini"), started(2)], ids=["another model", "smaller"]
)
def test_counts_that_do_not_compare_say_nothing(second: Any) -> None:
    """Another model counts otherwise; a request that shrank was rewritten."""
    tokens = 9_000 if second.route else 10
    found = read(
        started(), answered(Usage(500, output_tokens=50), 1, calls=1), *used("3.0", "look", 300), second,
        answered(Usage(tokens, output_tokens=1), 1),
    )  # fmt: skip
    assert sum(charge.added_tokens for charge in found) == 0


def test_the_cache_by_hand() -> None:
    """Reads save 2.70 dollars a million, short writes cost 0.75 more and long ones 3; the net is exact."""
    usage = Usage(
        10, cache_read_tokens=100_000, cache_write_tokens=2_000, cache_write_long_tokens=1_000, output_tokens=7
    )
    (charge,) = read(started(), answered(usage, cost(PRICE, usage)))
    total = reckoned([charge]).total
    assert total.read_saved == 100_000 * 2_700
    assert total.cache_extra == 2_000 * 750 + 1_000 * 3_000
    plain = Usage(103_010, output_tokens=7)
    assert total.cost + total.read_saved - total.cache_extra == cost(PRICE, plain)
    assert (total.input_tokens, total.cache_read_tokens, total.cache_write_tokens) == (103_010, 100_000, 3_000)


def test_what_if_by_hand() -> None:
    """Another price, no cache, the batch price, and all at once; what its tokens do not say stays."""
    usage = Usage(1_000, cache_read_tokens=4_000, output_tokens=100)
    found = [
        *read(started(), answered(usage, cost(PRICE, usage))),
        *read(started(), ev.ModelCallFailed(turn=1, attempt=1, code="lost", cost=12_345)),
        *read(*used("1.0", "look", 1, paid=55)),
    ]
    kept = 12_345 + 55
    assert cost(PRICE, usage) == 1_000 * 3_000 + 4_000 * 300 + 100 * 15_000
    by_hand = {
        WhatIf(price=CHEAP): 1_000 * 1_000 + 4_000 * 1_000 + 100 * 5_000,
        WhatIf(without_cache=True): 5_000 * 3_000 + 100 * 15_000,
        WhatIf(batch=True): cost(PRICE, usage) // 2,
        WhatIf(CHEAP, without_cache=True, batch=True): (5_000 * 1_000 + 100 * 5_000) // 2,
    }
    for what_if, expected in by_hand.items():
        total = reckoned(found, what_if=what_if).total
        assert (total.supposed, total.kept) == (expected + kept, kept), what_if
    assert reckoned(found).total.unmetered == 12_345


def test_what_if_a_step_was_done_by_another() -> None:
    """With so much input at most, none of it from a cache; other steps, and what its tokens do not say, stay."""
    usage = Usage(1_000, cache_read_tokens=4_000, output_tokens=100)
    paid = cost(PRICE, usage)
    calls = [started(), answered(usage, paid, calls=1), *used("3.0", "look", 9), started(), answered(usage, paid)]
    found = [*read(*calls), *read(started(), ev.ModelCallFailed(turn=1, attempt=1, code="lost", cost=12_345))]
    short = reckoned(found, what_if=WhatIf(routes=(("answer", Routed(CHEAP, 2_000)),))).total
    assert (short.supposed, short.kept) == (paid + 2_000 * 1_000 + 100 * 5_000 + 12_345, 12_345)
    whole = reckoned(found, what_if=WhatIf(routes=(("answer", Routed(CHEAP)), ("act", Routed(CHEAP, 1))))).total
    assert whole.supposed == paid + 5_000 * 1_000 + 100 * 5_000 + 12_345
    both = reckoned(found, what_if=WhatIf(without_cache=True, routes=(("plan", Routed(CHEAP, 9_000)),))).total
    assert both.supposed == (5_000 * 1_000 + 100 * 5_000) + (5_000 * 3_000 + 100 * 15_000) + 12_345


def test_a_skill_s_costs_are_those_from_where_it_was_opened() -> None:
    """By the label of the answer, which stands in the envelope; the call that asked for it was before. Another one takes over."""
    label = Label("developer", "refunds", trust="trusted")

    def opened(call: str, name: Label, outcome: Any = "ok") -> list[Any]:
        judged = ev.ToolCallJudged(call=call, revision=0, action="allow", rule="built_in", tool="use_skill")
        parts = (PartRef("tool_result", name, "k", "c", 9),)
        return [judged, (ev.ToolCallFinished(call=call, outcome=outcome), parts)]

    usage = Usage(1_000, output_tokens=10)
    one = (started(), answered(usage, 7, calls=1))
    found = read(
        *one,
        *opened("3.0", Label("developer", "gone", trust="trusted"), "error"),
        *one,
        *opened("7.0", label),
        *one,
        *used("11.0", "look", 1, paid=5),
        *opened("12.0", msgspec.structs.replace(RUNTIME, name="returns")),
        *one,
    )
    groups = {key: each.cost for (key,), each in reckoned(found, "skill").ranked()}
    assert groups == {"": 14, "refunds": 12, "returns": 7}


def test_a_batch_stays_one() -> None:
    """A call that was half the price is not halved again; on another model it is half of that."""
    usage = Usage(1_001, output_tokens=1)
    (charge,) = read(started(batch=True), answered(usage, (1_001 * 3_000 + 15_000) // 2))
    assert charge.is_metered
    assert reckoned([charge], what_if=WhatIf(batch=True)).total.supposed == charge.cost
    assert reckoned([charge], what_if=WhatIf(CHEAP)).total.supposed == (1_001 * 1_000 + 5_000) // 2


def test_a_free_model_is_not_free_on_another() -> None:
    """Nothing was paid, and the tokens say what would have been."""
    free = price_usd(input="0", output="0")
    charge = Charge(1, "answer", 0, NAME, usage=Usage(1_000), price=free, calls=1)
    assert reckoned([charge], what_if=WhatIf(CHEAP)).total.supposed == 1_000_000


def test_a_period_holds_its_beginning_and_not_its_end() -> None:
    """By the time of each event, so that a run over midnight is in two days."""
    found = [Charge(at_ms, "answer", 1) for at_ms in (DAY_MS - 1, DAY_MS, 2 * DAY_MS - 1, 2 * DAY_MS)]
    days = {key[0]: (each.cost, each.runs) for key, each in reckoned(found, "day").groups.items()}
    assert days == {"1970-01-01": (1, 1), "1970-01-02": (2, 1), "1970-01-03": (1, 1)}
    within = reckoned(found, since_ms=DAY_MS, until_ms=2 * DAY_MS)
    assert (within.total.cost, within.total.runs) == (2, 1)
    nothing = reckoned(found, since_ms=3 * DAY_MS)
    assert (nothing.groups, nothing.total) == ({}, Sum())


@pytest.mark.parametrize("second", get_args(Dimension))
@pytest.mark.parametrize("first", get_args(Dimension))
def test_groups_add_up_to_the_total(first: Dimension, second: Dimension) -> None:
    """Whatever two things it is grouped by, every number of the total is the groups' sum, runs apart."""
    usage = Usage(10, cache_read_tokens=1_003, cache_write_tokens=77, output_tokens=3)
    found = read(
        started(), answered(usage, cost(PRICE, usage), calls=2), *used("3.0", "look", 7, paid=3),
        *used("3.1", "search", 11, paid=0), started(2), answered(Usage(2_000, output_tokens=9), 99),
    )  # fmt: skip
    reckoner = Reckoner((first, second), what_if=WhatIf(CHEAP))
    for number in range(3):
        reckoner.add(msgspec.structs.replace(OWNER, run=f"r{number}", user=f"u{number % 2}"), found)
    joined = Sum()
    for each in reckoner.groups.values():
        joined.join(each)
    joined.runs = reckoner.total.runs
    assert joined == reckoner.total
    assert reckoner.total.runs == 3


def test_too_many_groups_become_one_and_nothing_is_lost() -> None:
    """Those that were there first are kept apart."""
    reckoner = Reckoner(("run",), most_groups=2)
    for number in range(5):
        reckoner.add(msgspec.structs.replace(OWNER, run=f"r{number}"), [Charge(1, "answer", number)])
    assert [key for key, _ in reckoner.ranked()] == [("r1",), ("r0",)]
    assert (reckoner.others.cost, reckoner.others.runs, reckoner.total.cost) == (9, 3, 10)
