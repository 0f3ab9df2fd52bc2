"""`python -m bench.compaction`: what each turn of a long session costs, with compaction and without, by the simulated provider's own bill.

A session of 200 turns over HTTP against `stanchion sim`: it begins with 10,000 tokens, the user says about 400 in each turn and is answered with 500. Summaries
are billed with the turn before which they are made. At the prices of Sonnet 4.6; Haiku 4.5 sums up, in about 600 tokens.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec

from bench.bill import ANSWER, RULE, Desk, opened, said
from bench.floor import Task
from stanchion.agent import Agent, Limits, Model
from stanchion.compaction import Compaction
from stanchion.core import event as ev
from stanchion.sim import Reply, Rule, Script, When, start_sim_process

SUMMARY = ("The parcel with the blue lid was looked for, and the carrier was asked twice. " * 40)[: 4 * 600]
SCRIPT = Script(
    rules=(Rule(when=When(contains="You sum up the beginning"), reply=Reply(text=SUMMARY)),),
    default=Reply(text=ANSWER),
)
MODEL, READER = "anthropic:claude-sonnet-4-6", "anthropic:claude-haiku-4-5"
EARLY, LATE = (20, 60), (160, 200)
"""Turns whose mean costs are compared, from 1 on, the last one included."""
WINDOW = 20


class Turn(msgspec.Struct):
    """What a turn was billed (nano-dollars), with its summary; its input, in tokens; and how often it was compacted."""

    nano_usd: int
    tokens: int
    compactions: int


def desk(task: Task, compaction: Compaction | None, model: str = MODEL, reader: str = READER) -> Agent:
    """Make the desk, whose identity makes the first request as long as the task says."""
    size = 4 * task.first - 200
    return Agent(
        name="desk",
        identity=(RULE * (size // len(RULE) + 1))[:size],
        model=Model(model, max_output_tokens=1_000),
        steps={"summarise": reader},
        limits=Limits(usd="100", turns=300),
        compaction=compaction,
    )


async def turns(task: Task, compaction: Compaction | None, model: str = MODEL, reader: str = READER) -> list[Turn]:
    """Have the session, and say what each turn was billed."""
    sim = await start_sim_process(SCRIPT)
    try:
        with tempfile.TemporaryDirectory(prefix="stanchion-compaction-") as folder:
            async with opened(desk(task, compaction, model, reader), Path(folder) / "t", sim) as at:
                return [await _turn(at, said(task, number)) for number in range(task.turns)]
    finally:
        await sim.stop()


async def _turn(at: Desk, text: str) -> Turn:
    before = await at.billed()
    answered = await at.ask("long", text)
    row = await at.runtime.session("long")
    assert answered.usage is not None
    assert row.head is not None
    events = [entry.event for entry in await at.runtime.store.read("default", row.head.run)]
    compactions = sum(isinstance(event, ev.Compacted) for event in events)
    return Turn(await at.billed() - before, answered.usage.total_input_tokens, compactions)


def mean(found: Sequence[Turn], window: tuple[int, int]) -> float:
    """Give the mean cost of a turn in a window, in dollars."""
    chosen = found[window[0] - 1 : window[1]]
    return sum(turn.nano_usd for turn in chosen) / len(chosen) / 1e9


def table(rows: dict[str, list[Turn]]) -> str:
    """Make a Markdown table."""
    some = next(iter(rows.values()))
    lines = ["| turns | " + " | ".join(f"{name}: mean cost, longest input, compactions" for name in rows) + " |"]
    lines.append("|---" * (len(rows) + 1) + "|")
    windows = [(first, min(first + WINDOW - 1, len(some))) for first in range(1, len(some) + 1, WINDOW)]
    for first, last in windows:
        cells = [_cell(found, first, last) for found in rows.values()]
        lines.append(f"| {first}-{last} | " + " | ".join(cells) + " |")
    totals = [f"{sum(turn.nano_usd for turn in found) / 1e9:.4f}" for found in rows.values()]
    lines.append("| in all | " + " | ".join(totals) + " |")
    if len(some) >= LATE[1]:
        ratios = [f"{mean(found, LATE) / mean(found, EARLY):.3f}" for found in rows.values()]
        lines.append(f"| {LATE[0]}-{LATE[1]} over {EARLY[0]}-{EARLY[1]} | " + " | ".join(ratios) + " |")
    return "\n".join(lines)


def _cell(found: Sequence[Turn], first: int, last: int) -> str:
    chosen = found[first - 1 : last]
    longest, compactions = max(turn.tokens for turn in chosen), sum(turn.compactions for turn in chosen)
    return f"{mean(found, (first, last)):.4f}, {longest:,}, {compactions}"


def main() -> None:
    """Measure what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m bench.compaction", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--turns", type=int, default=200)
    parser.add_argument("--first", type=int, default=10_000, metavar="TOKENS", help="input of the first turn")
    parser.add_argument(
        "--growth", type=int, default=900, metavar="TOKENS", help="in each turn, with 500 of the answer"
    )
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--reader", default=READER, help="the model that sums up")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    given = parser.parse_args()
    task = Task(turns=given.turns, first=given.first, last=given.first + given.growth * (given.turns - 1))
    rows = {
        name: asyncio.run(turns(task, compaction, given.model, given.reader))
        for name, compaction in (("with", Compaction()), ("without", None))
    }
    print(table(rows))
    if given.json:
        given.json.write_text(json.dumps(msgspec.to_builtins(rows), indent=1) + "\n")


if __name__ == "__main__":
    main()
