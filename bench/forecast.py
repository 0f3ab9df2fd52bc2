"""`python -m bench.forecast --trajectories ..`: how well the cost of recorded conversations is told before they are over.

Each of the airline's conversations is billed turn by turn as its tokens would be (a token for four bytes; Claude Sonnet 4.6; the beginning that
all sessions share and whatever was sent before is read from the cache, the rest is written). Then each task's conversations are told by those of the
*other* tasks alone: which of the things known is gone by, the line, and the range are all learnt there. Beside it the best constant: the
better of the median of the other tasks' costs and of the constant with the least median error on them; and one that nobody could have known, the best
in hindsight. Errors are absolute; money is in dollars. `--runs` does the same for recorded runs of other agents (AgentDojo), which nothing was tried on.
"""

from __future__ import annotations

import argparse
import json
import lzma
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import msgspec

from bench.floor import SHEETS
from examples.airline.agent import make_agent
from examples.airline.recordings import Conversation, read_conversations
from stanchion.context.assemble import preamble
from stanchion.context.forecast import fit
from stanchion.core.message import Usage
from stanchion.core.money import NANO_PER_USD, cost
from stanchion.core.prices import load_prices
from stanchion.core.progress import Course, Progress
from stanchion.sim.tokens import count_text

PRICE = SHEETS["anthropic:claude-sonnet-4-6"]
TURNS = (0, 1, 2, 3, 5)
DOJO_PREFIX = 2_500
"""Tokens of an AgentDojo agent's tools and system prompt, about: they are not in the recordings."""
DOJO_LEAST = 40
"""Runs of a model and suite, to be told by one another."""


class Score(msgspec.Struct, frozen=True):
    """How well runs were told after some turns."""

    turns: int
    runs: int
    error: float
    """Median, dollars."""
    constant: float
    """Of the best constant, chosen by the other tasks."""
    hindsight: float
    """Of the constant that was best in hindsight."""
    better: float
    """By how much the error is below the best constant's."""
    covered: float
    """The part of runs that ended within the range."""
    width: float
    """Of the range, median, dollars; the constants' range would be as wide as .."""
    constant_width: float
    went_by: dict[str, int]
    """What was gone by, and by how many of the tasks."""


def course_of(conversation: Conversation, prefix: int, group: str) -> Course:
    """Bill a conversation turn by turn."""
    return _billed(conversation.messages[1:], prefix, group)


def _billed(messages: Iterable[dict[str, Any]], prefix: int, group: str) -> Course:
    steps: list[Progress] = []
    paid = turns = last = tools = results = said = 0
    kept, context = prefix, prefix
    for message in messages:
        text = _text(message.get("content"))
        if message["role"] == "assistant":
            steps.append(Progress(turns, paid, last, tools, results, said))
            calls = message.get("tool_calls") or ()
            answer = count_text(text) + sum(count_text(json.dumps(_asked(call))) for call in calls)
            usage = Usage(
                input_tokens=0, cache_read_tokens=kept, cache_write_tokens=context - kept, output_tokens=answer
            )
            paid += cost(PRICE, usage)
            turns, last, tools = turns + 1, context, tools + len(calls)
            kept, context = context, context + answer
        else:
            context += count_text(text)
            size = len(text.encode())
            results, said = (results + size, said) if message["role"] == "tool" else (results, said + size)
    return Course(group, paid, tuple(steps))


def _asked(call: dict[str, Any]) -> Any:
    return call.get("function")


def _text(content: Any) -> str:
    if isinstance(content, list):
        return "".join(str(block.get("content") or block.get("text") or "") for block in content)  # type: ignore[union-attr]
    return str(content or "")


def score(courses: Sequence[Course], turns: int) -> Score | None:
    """Tell each group's runs by those of the others. None: too few went on after so many turns."""
    alive = [course for course in courses if len(course.steps) > turns]
    groups: dict[str, list[Course]] = defaultdict(list)
    for course in alive:
        groups[course.group].append(course)
    errors: list[float] = []
    constants: tuple[list[float], list[float]] = ([], [])
    inside: list[bool] = []
    widths: list[float] = []
    constant_widths: list[float] = []
    by: dict[str, int] = defaultdict(int)
    for group, held_out in sorted(groups.items()):
        others = [course for course in alive if course.group != group]
        fitted = fit(others, turns)
        if fitted is None:
            return None
        by[fitted.feature or "nothing"] += 1
        costs = [course.cost for course in others]
        spread = sorted(costs)
        cut = max(int(0.05 * (len(spread) + 1)), 1)
        for course in held_out:
            said = fitted.forecast(course.steps[turns])
            errors.append(abs(said.expected - course.cost))
            inside.append(said.low <= course.cost <= said.high)
            widths.append(said.high - said.low)
            constant_widths.append(spread[-cut] - spread[cut - 1])
            for kept, constant in zip(constants, (median(costs), shortest_half(costs)), strict=True):
                kept.append(abs(constant - course.cost))
    error, constant = median(errors), min(median(kept) for kept in constants)
    whole = [course.cost for course in alive]
    best = shortest_half(whole)
    return Score(
        turns,
        len(errors),
        error / NANO_PER_USD,
        constant / NANO_PER_USD,
        median(abs(each - best) for each in whole) / NANO_PER_USD,
        1 - error / constant,
        sum(inside) / len(inside),
        median(widths) / NANO_PER_USD,
        median(constant_widths) / NANO_PER_USD,
        dict(by),
    )


def shortest_half(values: Sequence[float]) -> float:
    """Find the constant with the least median error: the middle of the shortest half (Rousseeuw, 1984)."""
    ordered = sorted(values)
    half = len(ordered) // 2 + 1
    start = min(range(len(ordered) - half + 1), key=lambda at: ordered[at + half - 1] - ordered[at])
    return (ordered[start] + ordered[start + half - 1]) / 2


def airline_prefix() -> int:
    """Count the tokens that all of the airline's requests begin with."""
    agent = make_agent(model="anthropic:claude-sonnet-4-6", database=lambda: None)  # type: ignore[arg-type,return-value]
    bundle = agent.bundle(agent.registry(), load_prices(), "2026-11-20")
    return preamble(bundle).bytes // 4


def airline(path: str | Path) -> list[Course]:
    """Bill the airline's conversations. Their group is the task."""
    prefix = airline_prefix()
    return [course_of(each, prefix, each.label.split(" trial ")[0]) for each in read_conversations(path)]


def dojo(path: str | Path) -> dict[str, list[Course]]:
    """Bill AgentDojo's runs that nobody attacks, of each model and suite. Their group is the user's task."""
    agents: dict[str, list[Course]] = defaultdict(list)
    for row in _rows(path):
        if row["injection_task_id"] is None and row["messages"]:
            messages = [message for message in row["messages"] if message["role"] != "system"]
            course = _billed(messages, DOJO_PREFIX, str(row["user_task_id"]))
            agents[f"{row['suite_name']} {row['pipeline_name']}"].append(course)
    return {name: courses for name, courses in agents.items() if len(courses) >= DOJO_LEAST}


def _rows(path: str | Path) -> Iterator[dict[str, Any]]:
    opened: Callable[..., Any] = lzma.open if str(path).endswith(".xz") else open
    with opened(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def table(scores: Iterable[Score]) -> Iterator[str]:
    """Write scores as lines of text."""
    yield "turn  runs   error  best constant  (hindsight)  better  within  width  (constant's)  went by"
    for each in scores:
        by = ", ".join(f"{name} {count}" for name, count in sorted(each.went_by.items(), key=lambda item: -item[1]))
        yield (
            f"{each.turns:4}  {each.runs:4}  {each.error:.4f}         {each.constant:.4f}       {each.hindsight:.4f}  "
            f"{100 * each.better:4.0f} %  {100 * each.covered:4.0f} %  {each.width:.3f}         {each.constant_width:.3f}  {by}"
        )


def main() -> None:
    """Measure what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m bench.forecast", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--trajectories", required=True, help="the airline's recorded conversations, as JSON lines")
    parser.add_argument("--runs", help="AgentDojo's recorded runs, as JSON lines, may be packed")
    given = parser.parse_args()
    courses = airline(given.trajectories)
    print("\n".join(table(found for turns in TURNS if (found := score(courses, turns)) is not None)))
    for name, runs in sorted(dojo(given.runs).items()) if given.runs else ():
        print(f"\n{name}")
        print("\n".join(table(found for turns in TURNS if (found := score(runs, turns)) is not None)))


if __name__ == "__main__":
    main()
