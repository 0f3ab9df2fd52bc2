"""Find out that a run goes in circles (L5). Pure: looks at the calls that were settled.

Each kind is told to the model the first time and ends the run the second time. All look for what the *last* step was
part of, and a storm is counted anew once it was told, so a model that changes its ways is left alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import Literal

from stanchion.core import event as ev
from stanchion.core.bundle import Bundle, LoopRules
from stanchion.core.message import RUNTIME, Text
from stanchion.core.state import State, Trace

_MINUTE_MS = 60_000

_TOLD = {
    "same_call": "You made the same call with the same result {count} times. Its result will not change: use it, or do something else.",
    "window": "You repeat the same sequence of calls ({count} times now) with the same results. Do something else, or say what is missing.",
    "failures": "{count} tool calls failed in a row. Do not go on in this way: correct the cause, or say what is missing.",
    "storm": "You made {count} tool calls within a minute, more than this run may. Make fewer calls, and only those that matter.",
}


def detect(state: State, bundle: Bundle) -> ev.LoopDetected | None:
    """Find a loop that the last step was part of."""
    rules = bundle.loop
    counted = [trace for trace in state.traces if not _is_repeatable(bundle, trace.tool)]
    made = [(trace.call, trace.result) for trace in counted]
    last = sum(1 for _ in takewhile(lambda trace: trace.turn == state.totals.turns, reversed(counted)))
    if last and (count := _same_call(made, last, rules)):
        return _told("same_call", count)
    if last and (count := _window(made, rules)):
        return _told("window", count)
    if count := _failures(state.traces, rules):
        return _told("failures", count)
    if count := _storm(state, rules):
        return _told("storm", count)
    return None


def _is_repeatable(bundle: Bundle, tool: str) -> bool:
    spec = bundle.tool(tool)
    return spec is not None and spec.repeatable


def _told(kind: Literal["same_call", "window", "failures", "storm"], count: int) -> ev.LoopDetected:
    text = Text(f"[runtime] {_TOLD[kind].format(count=count)}", RUNTIME)
    return ev.LoopDetected(kind=kind, count=count, parts=(text,))


def _same_call(made: list[tuple[str, str]], last: int, rules: LoopRules) -> int:
    """How often one of the `last` calls had been made with the same result; 0 if not too often."""
    most = max(made.count(pair) for pair in set(made[-last:]))
    return most if rules.same_call and most >= rules.same_call else 0


def _window(made: list[tuple[str, str]], rules: LoopRules) -> int:
    """How often the last calls repeat a sequence of two or more; 0 if not too often."""
    if not rules.window_repeats:
        return 0
    for length in range(2, rules.window + 1):
        last, count = made[-length:], 1
        while made[-length * (count + 1) : -length * count] == last:
            count += 1
        if count >= rules.window_repeats and len(set(last)) > 1:
            return count
    return 0


def _failures(traces: Sequence[Trace], rules: LoopRules) -> int:
    """How many calls failed in a row at the end; 0 if not too many."""
    count = sum(1 for _ in takewhile(lambda trace: trace.failed, reversed(traces)))
    return count if rules.failures and count >= rules.failures else 0


def _storm(state: State, rules: LoopRules) -> int:
    """How many calls the last minute saw since the model was last told something; 0 if not too many."""
    if not state.traces or not rules.calls_per_minute:
        return 0
    since, turn = state.traces[-1].at_ms - _MINUTE_MS, state.looped_turn
    recent = takewhile(lambda trace: trace.at_ms > since and trace.turn > turn, reversed(state.traces))
    count = sum(1 for _ in recent)
    return count if count > rules.calls_per_minute else 0
