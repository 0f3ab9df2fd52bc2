"""What is asked about costs, and what is answered: sums of money, written exactly, and what stands beside them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from stanchion.core.money import format_usd
from stanchion.core.reckon import Reckoner, Sum, WhatIf


class CostQuestion(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked; "" is any."""

    by: Sequence[str] = ("agent",)
    since: str = ""
    """A day, a time with its zone, or how long ago ("7d", "24h"). From then on, .."""
    until: str = ""
    """.. and before then."""
    agent: str = ""
    session: str = ""
    user: str = ""
    on_model: str = ""
    without_cache: bool = False
    batch: bool = False
    route: Sequence[str] = ()
    """Steps that another model is supposed to have done: "answer=anthropic:claude-haiku-4-5@2000", with so many tokens of input at most."""
    top: int = 20


class Period(msgspec.Struct, frozen=True):
    """From a time on, and before another; 0: no bound."""

    since_ms: int
    until_ms: int


class Looked(msgspec.Struct):
    """What runs were looked at."""

    looked_at: int = 0
    complete: bool = True
    reached_ms: int = 0
    """When the last of them was accepted."""
    unreadable: list[str] = msgspec.field(default_factory=list[str])


class CostSum(msgspec.Struct, frozen=True, kw_only=True):
    """What some charges come to. Amounts are exact."""

    usd: str
    runs: int
    calls: int
    """Attempts at model calls."""
    tool_calls: int
    input_tokens: int
    """All input, cached or not."""
    cache_read_tokens: int
    cache_write_tokens: int
    output_tokens: int
    added_tokens: int
    """Input tokens by which tools' results made the next request longer."""
    cache_read_saved_usd: str
    cache_extra_usd: str
    cache_net_usd: str
    """Saved by reads, less what writes cost above plain input and what refreshes cost."""
    unmetered_usd: str
    """Part of `usd`: of calls whose tokens do not say their cost, such as a lost one that was settled at its reservation."""
    what_if_usd: str | None


class CostGroup(CostSum, frozen=True, kw_only=True):
    """What a group's charges come to."""

    key: dict[str, str]


class WhatIfView(msgspec.Struct, frozen=True):
    """What was supposed, and what it comes to."""

    model: str
    price_on: str
    """Of which day the price is."""
    without_cache: bool
    batch: bool
    route: list[str]
    """Steps that another model is supposed to have done."""
    usd: str
    difference_usd: str
    """To what it was; below zero: cheaper."""
    kept_usd: str
    """Part of `usd` that stayed as it was: tools, checks, and calls whose tokens do not say their cost."""
    note: str


class CostReport(msgspec.Struct, frozen=True, kw_only=True):
    """The answer. `total` is the sum of all groups; a run in several groups is counted in each, and once in the total."""

    by: list[str]
    since_ms: int
    until_ms: int
    groups: list[CostGroup]
    """The dearest first."""
    more_groups: int
    """How many there are beside those."""
    rest: CostSum | None
    """.. and what they come to."""
    total: CostSum
    what_if: WhatIfView | None
    looked_at: int
    complete: bool
    """False: only the newest runs were looked at, back to those that were accepted at `reached_ms`."""
    reached_ms: int
    unreadable: list[str]
    """Runs whose journals cannot be read by this program, and are left out: the first of them."""


def report_of(
    question: CostQuestion, period: Period, reckoner: Reckoner, read: Looked, what_if: WhatIf | None, today: str
) -> CostReport:
    """Make the answer."""
    ranked = reckoner.ranked()
    rest, more = Sum(), len(ranked) - question.top
    for _, each in ranked[question.top :]:
        rest.join(each)
    rest.join(reckoner.others)
    supposing = what_if is not None
    return CostReport(
        by=list(question.by),
        since_ms=period.since_ms,
        until_ms=period.until_ms,
        groups=[
            CostGroup(key=dict(zip(question.by, key, strict=True)), **_amounts(each, supposing=supposing))
            for key, each in ranked[: question.top]
        ],
        more_groups=max(more, 0),
        rest=CostSum(**_amounts(rest, supposing=supposing)) if more > 0 or reckoner.others.runs else None,
        total=CostSum(**_amounts(reckoner.total, supposing=supposing)),
        what_if=_supposed(question, what_if, reckoner.total, today),
        looked_at=read.looked_at,
        complete=read.complete,
        reached_ms=0 if read.complete else read.reached_ms,
        unreadable=read.unreadable,
    )


def _amounts(total: Sum, *, supposing: bool) -> dict[str, Any]:
    counted = ("runs", "calls", "tool_calls", "input_tokens", "cache_read_tokens", "cache_write_tokens")
    counts = {name: getattr(total, name) for name in (*counted, "output_tokens", "added_tokens")}
    return counts | {
        "usd": format_usd(total.cost),
        "cache_read_saved_usd": format_usd(total.read_saved),
        "cache_extra_usd": format_usd(total.cache_extra),
        "cache_net_usd": format_usd(total.read_saved - total.cache_extra),
        "unmetered_usd": format_usd(total.unmetered),
        "what_if_usd": format_usd(total.supposed) if supposing else None,
    }


def _supposed(question: CostQuestion, what_if: WhatIf | None, total: Sum, today: str) -> WhatIfView | None:
    if what_if is None:
        return None
    return WhatIfView(
        model=question.on_model,
        price_on=today if question.on_model or question.route else "",
        without_cache=what_if.without_cache,
        batch=what_if.batch,
        route=list(question.route),
        usd=format_usd(total.supposed),
        difference_usd=format_usd(total.supposed - total.cost),
        kept_usd=format_usd(total.kept),
        note=" ".join(_notes(question, today)),
    )


def _notes(question: CostQuestion, today: str) -> Iterator[str]:
    if question.on_model:
        yield f"The same numbers of tokens, and the same hits in the cache, at the price of {question.on_model} on {today}."
        yield "Another model counts the same text as another number of tokens, and answers at another length."
    for each in question.route:
        step, _, target = each.partition("=")
        model, _, most = target.partition("@")
        size = f"at most {int(most):,} tokens of input" if most else "the same input"
        yield f"Each {step} by {model} at its price of {today}, with {size}, none of it from a cache, and an answer of the same length."
    if question.route:
        yield "The other calls as they were, with the same hits in the cache; whether the model would have been good enough is not said."
    if question.without_cache:
        yield "All input at the plain rate."
    if question.batch:
        yield "Every model call at the batch price; an answer may then take a day."
