"""`python -m bench.assembling`: CPU that assembling requests and accounting for them add to a turn late in a long session.

A run is played in memory up to 80,000 tokens (320 KB) of history in about 400 messages; then the parts of one more turn are timed, each
many times over: what `decide` does to start the call (bound, limits, cache plan, prefix digest, prediction, reservation, assembly), what `evolve` does
with the events of a turn (fold, totals, digest of what is new), and the request as bytes on each wire. Best of several rounds: other work on the
machine only ever adds. Nothing is sent or stored.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import msgspec

from bench.loop import PRICE, START_MS, Run
from stanchion.context.assemble import assemble, bound_input_tokens, prefix_digest
from stanchion.context.life import Gap, Habit
from stanchion.core import event as ev
from stanchion.core.bundle import Bundle, Caps, Route, ToolSpec
from stanchion.core.fold import evolve
from stanchion.core.message import MODEL, USER, Label, ModelRequest, Text, ToolCall, ToolResult, Usage
from stanchion.core.state import State
from stanchion.loop.decide import decide
from stanchion.loop.effect import CallModel, CallTool, Moment
from stanchion.model.anthropic import Anthropic
from stanchion.model.openai_chat import OpenAIChat
from stanchion.model.openai_responses import OpenAIResponses

TOKENS = 80_000
TARGET_MS = 1.0
HABIT = Habit((Gap(2.0, 56), Gap(360.0, 4)), ((15, 4), (200, 4)), 400.0, 0.5)
MODELS = {"anthropic": "claude-sonnet-4-6", "openai": "gpt-5.6"}


class Played(msgspec.Struct):
    """A run at the start of a turn."""

    run: Run
    events: list[ev.Event]
    """Of the turn before."""
    before: State
    """The state before them."""


def play(tokens: int, provider: str = "anthropic", *, turns: int = 200) -> Played:
    """Play a run until its history has so many tokens, with every limit and a budget."""
    parameters = {"type": "object", "properties": {"id": {"type": "string", "description": "Which one."}}}
    tools = tuple(ToolSpec(f"tool_{n}", "What it does. " * 5, parameters, "read") for n in range(10))
    caps = Caps(10**15, 10**6, 10**7, 32, 10**12, 10**12, 10**8)
    route = Route(provider, MODELS[provider], PRICE)
    run = Run(Bundle("bench", "identity " * 100, (route,), tools, caps=caps))
    hello = (Text("hello", USER),)
    run.happen(
        ev.RunStarted(
            run="r", tenant="t", session="s", agent="a", bundle="b", caps=caps, ledgers=("tenant/day",), parts=hello
        )
    )
    size = tokens * 4 // turns - 420
    before, events = run.state, list[ev.Event]()
    for turn in range(1, turns + 1):
        before, events = run.state, []
        events += _go_on(run)
        said = (Text(f"{turn} " * 60, MODEL), ToolCall("c", f"tool_{turn % 10}", json.dumps({"id": str(turn)}), MODEL))
        usage = Usage(0, cache_read_tokens=400 * turn, cache_write_tokens=400, output_tokens=100)
        finished = ev.ModelCallFinished(turn=turn, attempt=1, finish="tool_calls", cost=1_000, usage=usage, parts=said)
        run.happen(finished)
        events += [finished, *_go_on(run)]
        call = next(each.id for each in run.state.calls)
        result = ToolResult("c", f"tool_{turn % 10}", f"{turn}: " + "found " * (size // 6), Label("tool", "x"))
        done = ev.ToolCallFinished(call=call, outcome="ok", parts=(result,))
        run.happen(done)
        events.append(done)
    return Played(run, events, before)


def _go_on(run: Run) -> list[ev.Event]:
    made: list[ev.Event] = []
    while True:
        decision = decide(run.state, run.view, Moment(run.now_ms, 1, habit=HABIT))
        if not decision.events:
            return made
        run.happen(*decision.events)
        made += decision.events
        if any(isinstance(effect, CallModel | CallTool) for effect in decision.effects):
            return made


def best_ms(work: Callable[[], object], rounds: int) -> float:
    """Time work: the least CPU of several rounds of several times, in milliseconds."""
    best = float("inf")
    for _ in range(rounds):
        began = time.thread_time()
        for _ in range(10):
            work()
        best = min(best, (time.thread_time() - began) / 10)
    return best * 1e3


def measure(tokens: int, rounds: int, provider: str = "anthropic") -> dict[str, float]:
    """Measure a turn, part by part, in milliseconds."""
    played = play(tokens, provider)
    run, state = played.run, played.run.state
    route, shown = run.view.bundle.routes[0], run.view.preamble(mark=state.mark)
    moment = Moment(run.now_ms, 1, habit=HABIT)
    request = next(e.request for e in decide(state, run.view, moment).effects if isinstance(e, CallModel))
    found = {
        "decide, to start the call": best_ms(lambda: decide(state, run.view, moment), rounds),
        "- of it assembly and cache plan": best_ms(lambda: assemble(state, run.view.bundle, shown, route), rounds),
        "- of it prefix digest and bound": best_ms(
            lambda: (prefix_digest(state, shown), bound_input_tokens(state, shown, 0)), rounds
        ),
        "fold of the turn's events": best_ms(lambda: _fold(played), rounds),
    }
    found["assembly and accounting"] = sum(value for name, value in found.items() if not name.startswith("-"))
    wires = {"anthropic": Anthropic(), "openai": OpenAIResponses(), "openai-chat": OpenAIChat()}
    for name, wire in wires.items():
        if name.startswith(provider):
            found[f"request as bytes, {name}"] = best_ms(lambda wire=wire: wire.encode(request), rounds)
    return found


def _fold(played: Played) -> State:
    state = played.before
    for event in played.events:
        state = evolve(state, ev.Entry(state.seq + 1, START_MS, 1, event))
    return state


def size(request: ModelRequest) -> tuple[int, int]:
    """Give messages and bytes of a request."""
    return len(request.messages), len(Anthropic().encode(request))


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(prog="python -m bench.assembling", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--tokens", type=int, default=TOKENS, help="of history (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=30, help="the least of so many is shown (default: %(default)s)")
    given = parser.parse_args()
    print("| what | ms CPU |\n|---|---|")
    for provider in MODELS:
        for name, value in measure(given.tokens, given.rounds, provider).items():
            print(f"| {provider}: {name} | {value:.3f} |")


if __name__ == "__main__":
    main()
