"""`Runtime.forecasting`: what a run will cost, before it starts and while it goes on; by the agent's past runs, or by its shape."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from stanchion.context.assemble import preamble
from stanchion.context.forecast import SHAPE_GROWTH, SHAPE_OUTPUT, SHAPE_TURNS, Forecast, Shape, from_shape
from stanchion.core.bundle import Bundle
from stanchion.core.errors import InputError, NotFound
from stanchion.core.money import format_usd
from stanchion.core.progress import Progress, progress_of
from stanchion.core.state import State
from stanchion.engine.bound import BoundAgent
from stanchion.engine.courses import Courses
from stanchion.journal.store import Store
from stanchion.runtime.shape import ForecastView

MOST_TURNS, MOST_TOKENS, MOST_BYTES = 1_000, 10_000_000, 100_000_000
_BYTES_PER_TOKEN = 4
"""For estimates only."""
_WORDS = {
    "": "by nothing but that they went on as long",
    "cost": "by what they had cost by then",
    "tokens": "by the length of their last request",
    "tool_calls": "by how many tools they had called by then",
    "result_bytes": "by how much tools had answered by then",
    "input_bytes": "by how much was said to them",
}


class ForecastQuestion(msgspec.Struct, frozen=True, kw_only=True):
    """Of what a forecast is wanted. With a shape (any of the last four) past runs are not gone by. 0: not said."""

    agent: str
    input_bytes: int = 0
    """Length of the input, as UTF-8."""
    turns: int = 0
    prefix_tokens: int = 0
    """Of the first request."""
    growth_tokens: int = 0
    """By which each request is longer than the one before it."""
    output_tokens: int = 0
    """Of an answer."""


class Forecasting:
    """Forecasts of the runs of a store."""

    def __init__(self, store: Store, courses: Courses, agents: Mapping[str, BoundAgent]) -> None:
        self._store = store
        self._courses = courses
        self._agents = agents

    async def before(self, question: ForecastQuestion, *, tenant: str = "default") -> ForecastView:
        """Say what a run of an agent will cost. Raises `InputError` that names the field, `NotFound` (agent)."""
        asked = question
        for name in ("input_bytes", "turns", "prefix_tokens", "growth_tokens", "output_tokens"):
            most = {"turns": MOST_TURNS, "input_bytes": MOST_BYTES}.get(name, MOST_TOKENS)
            if not 0 <= getattr(asked, name) <= most:
                raise InputError(f"must be 0 to {most:,}, not {getattr(asked, name):,}", field=name)
        bundle = await self._bundle(asked.agent, tenant)
        progress = Progress(input_bytes=asked.input_bytes)
        by_shape = asked.turns or asked.prefix_tokens or asked.growth_tokens or asked.output_tokens
        if not by_shape:
            forecast = await self._courses.told(tenant, asked.agent, progress)
            if forecast is not None:
                return _view(forecast, progress, _by_past(forecast))
        route = bundle.routes[0]
        shown = preamble(bundle, mark=bundle.guard.mark)
        shape = Shape(
            prefix=asked.prefix_tokens or (shown.bytes + asked.input_bytes) // _BYTES_PER_TOKEN,
            turns=asked.turns or SHAPE_TURNS,
            growth=asked.growth_tokens or SHAPE_GROWTH,
            output=asked.output_tokens or SHAPE_OUTPUT,
            most_turns=bundle.caps.turns,
        )
        said = _by_shape(shape, f"{route.provider}:{route.model}", few=not by_shape)
        return _view(from_shape(shape, route.price), Progress(), said)

    async def during(self, state: State, bundle: Bundle | None) -> ForecastView | None:
        """Say what a run that is under way will cost. None: it is over, or nothing can be said."""
        if state.ended or state.parked or state.refreshing or state.remembers or bundle is None or not state.agent:
            return None
        progress = progress_of(state)
        forecast = await self._courses.told(state.tenant, state.agent, progress)
        if forecast is not None:
            return _view(forecast, progress, _by_past(forecast))
        route = bundle.routes[min(state.route, len(bundle.routes) - 1)]
        first = (preamble(bundle, mark=state.mark).bytes + state.content_bytes) // _BYTES_PER_TOKEN
        prefix = max(progress.tokens - SHAPE_GROWTH * (progress.turns - 1), 0) if progress.turns else first
        shape = Shape(prefix=prefix, most_turns=state.caps.turns)
        said = _by_shape(shape, f"{route.provider}:{route.model}", few=True, done=progress.turns)
        return _view(from_shape(shape, route.price, progress), progress, said)

    async def _bundle(self, agent: str, tenant: str) -> Bundle:
        """Find what an agent is: as it is served here, or as its newest run had it."""
        if agent in self._agents:
            return self._agents[agent].bundle
        rows = await self._store.runs(tenant, agent=agent, limit=1)
        body = await self._store.bundle(tenant, rows[0].bundle) if rows else None
        if body is None:
            served = f"; served are: {', '.join(self._agents)}" if self._agents else ""
            raise NotFound(f"there is no agent {agent!r} here, and no run of it{served}", field="agent")
        return msgspec.json.decode(body, type=Bundle)


def _view(forecast: Forecast, progress: Progress, note: str) -> ForecastView:
    return ForecastView(
        usd=_dollars(forecast.expected),
        low_usd=_dollars(forecast.low),
        high_usd=_dollars(forecast.high),
        coverage=forecast.coverage,
        runs=forecast.runs,
        after_turns=progress.turns,
        note=note,
    )


def _dollars(nano: int) -> str:
    """Write an estimate with no more digits than it has: to a hundredth of a cent, or three that count."""
    step = 10 ** max(min(len(str(abs(nano))) - 3, 5), 0)
    return format_usd(round(nano / step) * step)


def _by_past(forecast: Forecast) -> str:
    return f"By {forecast.runs} past runs of the agent that went on after as many turns, and {_WORDS[forecast.by]}."


def _by_shape(shape: Shape, model: str, *, few: bool, done: int = 0) -> str:
    turns = f"as many turns again as the {done} there were" if 2 * done > shape.turns else f"{shape.turns} turns"
    return (
        f"{'Too few past runs to go by. ' if few else ''}Assumed: {turns} on {model}, the first request of "
        f"{shape.prefix:,} tokens, {shape.growth:,} more in each, {shape.output:,} answered, all that was sent before read from the cache."
    )
