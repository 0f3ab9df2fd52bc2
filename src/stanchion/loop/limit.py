"""The limits of a run: how far it is, what it is told when one is near, and what a model call may still cost. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime

import msgspec

from stanchion.context.forecast import COVERAGE, Forecast
from stanchion.core import event as ev
from stanchion.core.bundle import Route
from stanchion.core.message import RUNTIME, Text
from stanchion.core.money import bound, format_usd, in_batch
from stanchion.core.state import State

_UNITS = {
    "usd": "budget",
    "turns": "turns",
    "tool_calls": "tool calls",
    "input_tokens": "input tokens",
    "output_tokens": "output tokens",
    "wall_s": "seconds",
    "deadline": "seconds until the deadline",
}
GRACE_TURNS = 2
"""So many more turns a run has that was told that its money will not be enough."""
LEAST_OUTPUT_TOKENS = 256
"""Below so many output tokens an answer is not worth its input."""


class Meter(msgspec.Struct, frozen=True):
    """A limit and what of it is used. `max` is above 0."""

    limit: str
    used: int
    max: int


def meters(state: State, now_ms: int) -> Iterator[Meter]:
    """List the limits that are set, with what is used of them."""
    caps, totals = state.caps, state.totals
    for name, used, most in (
        ("usd", totals.cost, caps.nano_usd),
        ("turns", totals.turns, caps.turns),
        ("tool_calls", totals.tool_calls, caps.tool_calls),
        ("input_tokens", totals.input_tokens, caps.input_tokens),
        ("output_tokens", totals.output_tokens, caps.output_tokens),
        ("wall_s", _wall_ms(state, now_ms) // 1000, math.ceil(caps.wall_s)),
        ("deadline", (now_ms - state.started_ms) // 1000, _until_deadline_s(state)),
    ):
        if most > 0:
            yield Meter(name, used, most)


def _until_deadline_s(state: State) -> int:
    """Seconds from the start to the deadline, rounded up; 0: there is none."""
    return max(math.ceil((state.deadline_ms - state.started_ms) / 1000), 1) if state.deadline_ms else 0


def _wall_ms(state: State, now_ms: int) -> int:
    waiting = now_ms - state.at_ms if state.unclaimed or (state.asking and not state.in_flight) else 0
    return now_ms - state.started_ms - state.waited_ms - max(waiting, 0)


def out_of_time(state: State, now_ms: int) -> str:
    """Name the limit of time that has passed, or ""."""
    if state.deadline_ms and now_ms >= state.deadline_ms:
        return "deadline"
    end_ms = wall_end_ms(state, now_ms)
    return "wall_s" if end_ms and now_ms >= end_ms else ""


def wall_end_ms(state: State, now_ms: int) -> int:
    """When the wall clock runs out if nobody is waited for from now on; 0: never."""
    return now_ms + int(state.caps.wall_s * 1000) - _wall_ms(state, now_ms) if state.caps.wall_s else 0


def end_ms(state: State, now_ms: int) -> int:
    """When time runs out, whatever limit it is by; 0: never. While a person is waited for only the deadline counts."""
    ends = [state.deadline_ms, 0 if state.asking and not state.in_flight else wall_end_ms(state, now_ms)]
    return min((end for end in ends if end), default=0)


def deadline_ms(state: State, route: Route, now_ms: int) -> int:
    """Until when a model call that leaves now may take."""
    end, latest = end_ms(state, now_ms), now_ms + int(route.timeouts.total_s * 1000)
    return min(latest, end) if end else latest


def reached(state: State, now_ms: int) -> Meter | None:
    """Find a limit that forbids another turn. After the last tool call the model may still answer, but not call again."""
    for meter in meters(state, now_ms):
        if meter.used >= meter.max and (meter.limit != "tool_calls" or state.over == "tool_calls"):
            return meter
    return None


def warnings(state: State, route: Route, bound_tokens: int, now_ms: int) -> list[ev.Event]:
    """Tell the model of limits that are near, each once: most is used, or there is not enough for two more calls."""
    needs = {"input_tokens": bound_tokens, "usd": _reservation(route, bound_tokens, _least_output(route))}
    known = state.exact_tokens > 0  # before the first count the bound is far above what a call takes
    near = (
        meter
        for meter in meters(state, now_ms)
        if meter.limit not in state.warned
        and (
            meter.used >= meter.max * state.caps.warn_at
            or (known and meter.used + 2 * needs.get(meter.limit, 0) > meter.max)
        )
    )
    return [ev.LimitWarned(limit=m.limit, used=m.used, max=m.max, parts=(Text(_warning(m), RUNTIME),)) for m in near]


def foreseen(state: State, forecast: Forecast | None) -> ev.LimitWarned | None:
    """Tell the model, once, that the run is not to be expected to end within its money."""
    caps, totals = state.caps, state.totals
    if forecast is None or not _beyond(state, forecast) or "forecast" in state.warned:
        return None
    each = max(totals.cost // max(totals.turns, 1), 1)
    text = (
        f"[runtime] Nineteen of twenty runs like this one cost more than ${format_usd(forecast.low)}, and this one may cost "
        f"${format_usd(caps.nano_usd)}, of which ${format_usd(totals.cost)} are used: enough for about "
        f"{max(caps.nano_usd - totals.cost, 0) // each} more turns. Come to an end now: say what was done and what is left. "
        f"After {GRACE_TURNS} more turns the run stops, and your last answer stands."
    )
    return ev.LimitWarned(limit="forecast", used=forecast.low, max=caps.nano_usd, parts=(Text(text, RUNTIME),))


def foreseen_over(state: State, forecast: Forecast | None) -> bool:
    """Whether a run that was told so has had its last turns, and it is still so."""
    had_them = "forecast" in state.warned and state.totals.turns - state.foreseen_turn >= GRACE_TURNS
    return had_them and forecast is not None and _beyond(state, forecast)


def _beyond(state: State, forecast: Forecast) -> bool:
    """Whether the low end of the range, which one run of twenty stays below, is above what a run may cost."""
    caps = state.caps
    enough = caps.stop_early and caps.nano_usd > 0 and forecast.coverage >= COVERAGE
    return enough and forecast.low > caps.nano_usd


def _least_output(route: Route) -> int:
    return min(LEAST_OUTPUT_TOKENS, route.max_output_tokens)


def _warning(meter: Meter) -> str:
    used, most = str(meter.used), str(meter.max)
    if meter.limit == "usd":
        used, most = f"${format_usd(meter.used)}", f"${format_usd(meter.max)}"
    return (
        f"[runtime] {used} of at most {most} ({_UNITS[meter.limit]}) of this run are used. Come to an end soon: when the "
        "limit is reached the run stops, and your last answer stands."
    )


class Allowance(msgspec.Struct, frozen=True):
    """What the next model call may use. `limit` names what forbids it."""

    max_output_tokens: int
    reserved: int
    limit: str = ""


def allow_call(state: State, route: Route, bound_tokens: int, *, batch: bool = False) -> Allowance:
    """Fit a model call into what is left of tokens and money, with a shorter answer if need be (I7).

    A call in a batch must fit at the full price, which it pays if the batch fails it and it is made again.
    """
    caps, totals = state.caps, state.totals
    output = route.max_output_tokens
    if caps.input_tokens and totals.input_tokens + bound_tokens > caps.input_tokens:
        return Allowance(0, 0, "input_tokens")
    if caps.output_tokens:
        output = min(output, caps.output_tokens - totals.output_tokens)
    if output < 1:
        return Allowance(0, 0, "output_tokens")
    if caps.nano_usd:
        affordable = _affordable(route, bound_tokens, caps.nano_usd - totals.cost - state.reserved)
        if affordable < min(_least_output(route), output):
            return Allowance(0, 0, "usd")
        output = min(output, affordable)
    reserved = _reservation(route, bound_tokens, output)
    return Allowance(output, in_batch(reserved) if batch else reserved)


def _reservation(route: Route, bound_tokens: int, output: int) -> int:
    # Anthropic writes a cache only where a request marks it; others may write one unasked.
    writes = "long" if route.cache == "long" or "cache_control" in route.options else "short"
    if route.provider == "anthropic" and route.cache == "off" and "cache_control" not in route.options:
        writes = "none"
    return bound(route.price, bound_tokens, output, cache_writes=writes) + route.max_extra_nano_usd


def _affordable(route: Route, bound_tokens: int, left: int) -> int:
    """The longest answer whose bound is within `left` nano-dollars; below 0: not even an empty one."""
    spare = left - _reservation(route, bound_tokens, 0)
    dearest = max(route.price.output, *(tier.output for tier in route.price.tiers), 0)
    if spare < 0:
        return -1
    return route.max_output_tokens if dearest == 0 else spare * 1_000_000 // dearest


def windowed(ledgers: tuple[str, ...], now_ms: int) -> tuple[str, ...]:
    """Name the present windows (UTC) of ledgers: "user:ann/day" is "user:ann/day:2026-11-20"."""
    now = datetime.fromtimestamp(now_ms / 1000, UTC)
    windows = {"day": now.strftime("%Y-%m-%d"), "month": now.strftime("%Y-%m")}
    named: list[str] = []
    for ledger in ledgers:
        _, slash, period = ledger.rpartition("/")
        named.append(f"{ledger}:{windows[period]}" if slash and period in windows else ledger)
    return tuple(named)
