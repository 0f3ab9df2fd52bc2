"""Benchmark the pure loop: CPU of `evolve` and `decide` a step, early and late in a run. Prints one JSON line.

    python -m bench.loop [--short]

A step is a model call (300 characters of text and a call of 80) and its tool call (a result of 600): five events and three
or four decisions. `us_per_step` is taken over the last tenth of the run's turns, the best of several runs; a loop whose
cost grew with its history would show it between 10 and 1,000 turns. With `--limits` every limit and a budget are set.
Nothing is encoded for a wire here, and nothing is stored.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import time
from typing import Any

from stanchion.core import event as ev
from stanchion.core.bundle import Bundle, Caps, LoopRules, Route, ToolSpec
from stanchion.core.fold import evolve
from stanchion.core.message import MODEL, USER, Label, Text, ToolCall, ToolResult, Usage
from stanchion.core.money import Price
from stanchion.core.state import State
from stanchion.loop.decide import decide
from stanchion.loop.effect import CallModel, CallTool, Moment, View, view

START_MS = 1_795_000_000_000
PRICE = Price(3_000_000_000, 15_000_000_000, 300_000_000, 3_750_000_000, 6_000_000_000)


class _Check:
    def arguments(self, tool: str, text: str) -> bytes | str:
        return text.encode()

    def output(self, text: str) -> str:
        return ""


class Run:
    """A run in the making, with the CPU that `evolve` and `decide` took."""

    def __init__(self, bundle: Bundle) -> None:
        self.view: View = view(bundle, _Check())
        self.caps = bundle.caps
        self.state = State()
        self.now_ms = START_MS
        self.events = 0
        self.spent_s = 0.0

    def happen(self, *events: ev.Event) -> None:
        self.now_ms += 1_000
        for event in events:
            self.events += 1
            entry = ev.Entry(self.state.seq + 1, self.now_ms, 1, event)
            began = time.thread_time()
            self.state = evolve(self.state, entry)
            self.spent_s += time.thread_time() - began

    def go_on(self) -> list[CallModel | CallTool]:
        effects: list[CallModel | CallTool] = []
        while True:
            began = time.thread_time()
            decision = decide(self.state, self.view, Moment(self.now_ms, 1))
            self.spent_s += time.thread_time() - began
            if not decision.events:
                return effects
            self.happen(*decision.events)
            effects += [e for e in decision.effects if isinstance(e, CallModel | CallTool)]


def bundle(*, limits: bool) -> Bundle:
    """Ten tools of a usual size."""
    parameters = {"type": "object", "properties": {"id": {"type": "string", "description": "Which one."}}}
    tools = tuple(ToolSpec(f"tool_{n}", "What it does. " * 5, parameters, "read") for n in range(10))
    caps = Caps(turns=0)
    if limits:
        caps = Caps(10**15, 10**6, 10**7, 32, 10**12, 10**12, 10**8)
    loop = LoopRules(calls_per_minute=200)
    return Bundle("bench", "identity " * 100, (Route("p", "m", PRICE),), tools, caps=caps, loop=loop)


def play(turns: int, *, limits: bool) -> dict[str, float]:
    """Play a run of so many turns; give the microseconds of its last tenth."""
    chance = random.Random(turns)
    run = Run(bundle(limits=limits))
    ledgers = ("tenant/day", "user:ann/month") if limits else ()
    hello = (Text("hello", USER),)
    run.happen(
        ev.RunStarted(
            run="r", tenant="t", session="s", agent="a", bundle="b", caps=run.caps, ledgers=ledgers, parts=hello
        )
    )
    marks: list[tuple[float, int]] = []
    for turn in range(1, turns + 1):
        marks.append((run.spent_s, run.events))
        (model,) = run.go_on()
        assert isinstance(model, CallModel)
        arguments = json.dumps({"id": f"{chance.getrandbits(256):x}"})
        said = (Text(f"{turn} " * 60, MODEL), ToolCall("c", f"tool_{turn % 10}", arguments, MODEL))
        usage = Usage(300 * turn, output_tokens=100)
        run.happen(ev.ModelCallFinished(turn=turn, attempt=1, finish="tool_calls", cost=1_000, usage=usage, parts=said))
        (tool,) = run.go_on()
        assert isinstance(tool, CallTool)
        result = ToolResult("c", tool.tool, f"{chance.getrandbits(2_000):x}", Label("tool", tool.tool))
        run.happen(ev.ToolCallFinished(call=tool.call, outcome="ok", parts=(result,)))
    marks.append((run.spent_s, run.events))
    tail = max(turns // 10, 5)
    spent_s, events = marks[-1][0] - marks[-1 - tail][0], marks[-1][1] - marks[-1 - tail][1]
    return {"us_per_step": spent_s / tail * 1e6, "us_per_event": spent_s / events * 1e6}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0] if __doc__ else "")
    parser.add_argument("--short", action="store_true", help="fewer repetitions")
    options = parser.parse_args()
    repeat = 2 if options.short else 5
    found: dict[str, Any] = {"bench": "loop", "python": platform.python_version(), "machine": platform.machine()}
    for limits in (False, True):
        for turns in (10, 100, 1_000):
            best = min((play(turns, limits=limits) for _ in range(repeat)), key=lambda one: one["us_per_step"])
            found[f"{'limited' if limits else 'plain'}_{turns}"] = {
                name: round(value, 1) for name, value in best.items()
            }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
