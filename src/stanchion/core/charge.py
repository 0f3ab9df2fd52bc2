"""What a run's journal says was paid: a charge for each thing that was billed. Outlines go in, charges come out; pure.

Every event with a cost makes one charge with that cost, so that the charges of a run add up to the run's cost. Content is not
needed, so an erasure changes nothing. What a tool's results added to the requests is measured by the provider's own counts: the
input by which a request grew over all that the one before it held, shared out among what was said in between by its bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Literal

import msgspec

from stanchion.core import event as ev
from stanchion.core.bundle import MEMORY_TOOLS, USE_SKILL
from stanchion.core.chain import Outline
from stanchion.core.message import Usage
from stanchion.core.money import Price, cost, in_batch

Step = Literal[
    "plan", "act", "answer", "extract", "retry", "check", "tool", "summary", "refresh", "judge", "remember", "embed"
]  # fmt: skip
"""A run's first answer, if it asked for tools; a later one that did; one that did not; values taken out of a sealed result; an
attempt that failed; a classifier; a tool; what was said before, summed up; a request that was made again so that the provider's cache
keeps it; the grade of an answer; what is worth remembering of a run; vectors for memory, attempts that failed among them."""
PriceLists = Mapping[str, tuple[tuple[str, Price], ...]]
"""Digest of a bundle -> its routes in order, and its embedding model: "provider:model", and the price by which its calls are billed."""


class Charge(msgspec.Struct, frozen=True, omit_defaults=True):
    """What was paid for one thing (nano-dollars)."""

    at_ms: int
    step: Step
    cost: int = 0
    model: str = ""
    """As "provider:model", of what called one."""
    tool: str = ""
    usage: Usage | None = None
    price: Price | None = None
    """By which it was billed, where its bundle says so."""
    batch: bool = False
    """It went through the provider's batch API."""
    calls: int = 0
    """Attempts at a model call."""
    tool_calls: int = 0
    added_tokens: int = 0
    """Input tokens that a tool's results added to the next request. Such a note costs nothing by itself."""
    skill: str = ""
    """The skill that was opened last in the run until then."""

    @property
    def is_metered(self) -> bool:
        """Whether its tokens say its cost. Not so: settled at a reservation, or said by a tool."""
        return (
            self.price is not None
            and self.usage is not None
            and bill(self.price, self.usage, batch=self.batch) == self.cost
        )


def bill(price: Price, usage: Usage, *, batch: bool) -> int:
    """Bill a call in nano-dollars as the runtime does."""
    return in_batch(cost(price, usage)) if batch else cost(price, usage)


def charges(outlines: Iterable[Outline], prices: PriceLists) -> Iterator[Charge]:
    """Read a run's charges from its events, which are given in order and from the first on."""
    walk = _Walk(prices)
    for outline in outlines:
        yield from walk.take(outline)


def bundles_of(outlines: Iterable[Outline]) -> set[str]:
    """Name the bundles under which a run was driven."""
    return {each.event.bundle for each in outlines if isinstance(each.event, ev.RunStarted | ev.BundleChanged)}


_ASIDE = ""
"""In the place of a call: the summary of what was said before, or the embedding of what was learned."""


def _asked(event: ev.CompactionStarted | ev.EmbeddingStarted) -> str:
    return event.model if isinstance(event, ev.EmbeddingStarted) else f"{event.provider}:{event.model}"


@dataclass(slots=True)
class _Walk:
    """How far a run's journal is read."""

    prices: PriceLists
    bundle: str = ""
    model: str = ""
    """Of the model call under way; with its price, and whether it went into a batch."""
    price: Price | None = None
    batch: bool = False
    answered: bool = False
    view: str = ""
    """What its request is: "" for the conversation."""
    refreshing: bool = False
    skill: str = ""
    remembering: bool = False
    tools: dict[str, str] = field(default_factory=dict[str, str])
    """Call -> tool."""
    asked: dict[str, str] = field(default_factory=dict[str, str])
    """Call -> the model that its attempt calls."""
    held: tuple[str, int] = ("", 0)
    """The model that answered last, and the tokens that the conversation had with its answer."""
    since: dict[str, int] = field(default_factory=dict[str, int])
    """Tool ("": others) -> bytes that were said after that answer."""

    def take(self, outline: Outline) -> Iterator[Charge]:
        """Read one more event."""
        if isinstance(outline.event, ev.ToolCallFinished):
            self.skill = self._opened(outline, outline.event) or self.skill
        for charge in self._take(outline):
            yield msgspec.structs.replace(charge, skill=self.skill) if self.skill else charge

    def _opened(self, outline: Outline, event: ev.ToolCallFinished) -> str:
        """Name the skill that a call has opened, or asked for again: the label of the answer says it."""
        asked = self.tools.get(event.call) == USE_SKILL and event.outcome == "ok"
        return outline.parts[0].label.name if asked and outline.parts else ""

    def _take(self, outline: Outline) -> Iterator[Charge]:
        event, at_ms = outline.event, outline.at_ms
        match event:
            case ev.RunStarted():
                self.bundle, self.refreshing = event.bundle, event.refreshes is not None
                self.remembering = event.remembers is not None
            case ev.BundleChanged():
                self.bundle = event.bundle
            case ev.ModelCallStarted():
                self.model, self.batch = f"{event.provider}:{event.model}", event.batch
                self.price = self._price(self.model, event.route)
                self.view = event.view
            case ev.ModelCallFinished():
                yield self._paid(at_ms, self._step(outline), event.cost, event.usage)
                if not self.view:  # (others hold no conversation that could have grown)
                    yield from self._added(at_ms, event.usage)
            case ev.ModelCallFailed():
                yield self._paid(at_ms, "retry", event.cost, event.usage)
            case ev.ToolCallJudged():
                self.tools[event.call] = event.tool
            case ev.ToolCallStarted():
                self.asked[event.call] = event.model
            case ev.ToolCallFinished() | ev.ToolCallFailed():
                yield from self._used(outline, event)
            case ev.ContentChecked() | ev.CheckFailed() if event.cost:
                yield Charge(at_ms, "check", event.cost)
            case ev.CompactionStarted() | ev.EmbeddingStarted():
                self.asked[_ASIDE] = _asked(event)
            case ev.SummaryWritten() | ev.CompactionFailed() | ev.EmbeddingMade() | ev.EmbeddingFailed():
                yield self._aside(at_ms, event)
            case ev.Compacted():
                self.held, self.since = ("", 0), {}
            case ev.MessageAdded() | ev.NoticeAdded() | ev.LimitWarned() | ev.LoopDetected() | ev.CallDecided():
                self._said("", sum(ref.size for ref in outline.parts))
            case _:
                pass

    def _aside(
        self, at_ms: int, event: ev.SummaryWritten | ev.CompactionFailed | ev.EmbeddingMade | ev.EmbeddingFailed
    ) -> Charge:
        step: Step = "embed" if isinstance(event, ev.EmbeddingMade | ev.EmbeddingFailed) else "summary"
        model = self.asked.pop(_ASIDE, "")
        return Charge(at_ms, step, event.cost, model, usage=event.usage, price=self._price(model), calls=1)

    def _price(self, model: str, route: int = -1) -> Price | None:
        """Find by what a call is billed: its route's price, or that of the first route of this name."""
        routes = self.prices.get(self.bundle, ())
        wanted = routes[route : route + 1] if route >= 0 else ()
        return next((price for name, price in (*wanted, *routes) if name == model), None)

    def _paid(self, at_ms: int, step: Step, paid: int, usage: Usage | None) -> Charge:
        return Charge(
            at_ms, step, paid, model=self.model, usage=usage, price=self.price, batch=self.batch, calls=1
        )  # fmt: skip

    def _step(self, outline: Outline) -> Step:
        if self.refreshing or self.remembering:
            return "refresh" if self.refreshing else "remember"
        if self.view == "judge":
            return "judge"
        first, self.answered = not self.answered, True
        if not any(ref.kind == "tool_call" for ref in outline.parts):
            return "answer"
        return "plan" if first else "act"

    def _used(self, outline: Outline, event: ev.ToolCallFinished | ev.ToolCallFailed) -> Iterator[Charge]:
        """Charge an attempt at a tool call that costs, or a call that is settled; the attempt may have called a model."""
        settled = isinstance(event, ev.ToolCallFinished)
        tool, model = self.tools.get(event.call, ""), self.asked.pop(event.call, "")
        step: Step = ("extract" if model else "tool") if settled else "retry"
        step = "embed" if model and tool in MEMORY_TOOLS else step
        if settled or event.cost:
            yield Charge(
                outline.at_ms, step, event.cost, model, tool, event.usage, self._price(model),
                calls=int(bool(model)), tool_calls=int(settled),
            )  # fmt: skip
        if settled:
            size = sum(ref.size for ref in outline.parts)
            self._said(tool, size if event.shown < 0 else min(size, event.shown))

    def _said(self, tool: str, size: int) -> None:
        if size:
            self.since[tool] = self.since.get(tool, 0) + size

    def _added(self, at_ms: int, usage: Usage | None) -> Iterator[Charge]:
        """Share out what the request had grown by among what was said since the one before it."""
        model, tokens = self.held
        since, self.since = self.since, {}
        if usage is None:
            self.held = ("", 0)
            return
        self.held = (self.model, usage.total_input_tokens + usage.output_tokens)
        grown = max(usage.total_input_tokens - tokens, 0) if model == self.model else 0
        whole, shared = sum(since.values()), 0
        for tool, until in zip(since, accumulate(since.values()), strict=True):
            part, shared = grown * until // whole - shared, grown * until // whole
            if tool and part:
                yield Charge(at_ms, "tool", tool=tool, added_tokens=part)
