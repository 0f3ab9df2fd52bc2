"""The least that a task can cost, by arithmetic: what `bench.bill` stands beside. Pure.

A floor knows the pauses beforehand. It is the least over: no cache; the short or the long life; and in each pause a prefix that lapses and
is written again, or is read now and then while nobody asks, so that it lives on. With pauses the last request is not written, for
nothing comes after it. A prefix is kept wholly for one life: one that was read from the short life and is then marked for the long one is not counted on.
"""

from __future__ import annotations

import math

import msgspec

from stanchion.core.money import Price, price_usd

SHEETS = {
    "anthropic:claude-sonnet-4-6": price_usd(
        input="3", output="15", cache_read="0.30", cache_write="3.75", cache_write_long="6"
    ),
    "openai:gpt-5.2": price_usd(input="1.75", output="14", cache_read="0.175"),
    "openai:gpt-5.6": price_usd(input="4", output="20", cache_read="0.40", cache_write="5", cache_write_long="10"),
    "gemini:gemini-3.8-flash": price_usd(input="0.75", output="3.75", cache_read="0.075"),
}
"""In dollars per million tokens, written down here again: a floor does not go by what it measures."""
CHEAP = {
    "anthropic:claude-sonnet-4-6": ("anthropic:claude-haiku-4-5", price_usd(input="1", output="5")),
    "openai:gpt-5.2": ("openai:gpt-5-mini", price_usd(input="0.25", output="2")),
    "openai:gpt-5.6": ("openai:gpt-5-mini", price_usd(input="0.25", output="2")),
    "gemini:gemini-3.8-flash": ("gemini:gemini-2.5-flash", price_usd(input="0.30", output="2.50")),
}
"""What routable turns are asked of."""
BRIEF = 2_000
"""Tokens that a routable turn needs."""
SHORT_S, LONG_S, RETAINED_S = 300.0, 3600.0, 86_400.0
BREAKPOINT_S, BREAKPOINT_LONG_S = 1_800.0, 43_200.0
"""OpenAI's lives where writes are priced."""
LEARNS, CALLS = 4, 8
"""Sessions by which an agent has learnt its pauses, where there are some; and how long a tool takes that each calls once."""


class Task(msgspec.Struct, frozen=True):
    """A session whose input grows evenly. Tokens."""

    turns: int = 15
    first: int = 60_000
    last: int = 80_000
    output: int = 500

    def input(self, turn: int) -> int:
        """Give the input of a turn, from 0 on."""
        return self.first + round((self.last - self.first) * turn / (self.turns - 1))


class Row(msgspec.Struct, frozen=True):
    """A case that is billed."""

    name: str
    warm: bool = False
    pause_s: float = 0.0
    before: int = -1
    """The pause is before this turn, from 0 on; -1: before every one but the first."""
    cache: str = "auto"
    routed: bool = False
    """Every second turn, the first and the last among them, can be answered by a cheap model from `BRIEF` tokens."""
    learns: int = 0
    """Sessions of the same kind that the agent had before, by whose pauses it goes."""
    asked: bool = False
    """The pause is within a run: a person decides on a call, whose result is what the user would have said."""
    worked: bool = False
    """.. or the call itself takes as long."""

    @property
    def inside(self) -> bool:
        """Whether the pause is within a run."""
        return self.asked or self.worked

    def pauses_before(self, turn: int) -> bool:
        """Say whether there is a pause before a turn."""
        return self.pause_s > 0 and turn > 0 and self.before in (-1, turn)

    def at(self, number: int, task: Task) -> Row:
        """Give a case of the same kind whose pause is somewhere else."""
        if self.before < 0:
            return self
        return msgspec.structs.replace(self, before=1 + (5 * number + 2) % (task.turns - 1))


def _rows() -> dict[str, Row]:
    rows = [Row("naive", cache="off"), Row("cold"), Row("warm", warm=True)]
    rows += [Row("routed-cold", routed=True), Row("routed-warm", warm=True, routed=True)]
    for minutes in (6, 70):
        for before, where in ((8, "once"), (-1, "every")):
            for warm in (False, True):
                name = f"{minutes}min-{where}-{'warm' if warm else 'cold'}"
                rows.append(Row(name, warm, minutes * 60.0, before, learns=LEARNS))
    return {row.name: row for row in rows}


ROWS = _rows()
ASKED = {
    f"{minutes}min-asked-{'warm' if warm else 'cold'}": Row(
        f"{minutes}min-asked-{'warm' if warm else 'cold'}", warm, minutes * 60.0, 8, learns=LEARNS, asked=True
    )
    for minutes in (6, 70)
    for warm in (False, True)
}
"""The rows with one pause, which a person needs to decide on a call. Their floors are those of any pause."""
WORKED = {
    f"{minutes}min-tool-{'warm' if warm else 'cold'}": Row(
        f"{minutes}min-tool-{'warm' if warm else 'cold'}", warm, minutes * 60.0, 8, learns=CALLS, worked=True
    )
    for minutes in (6, 20)
    for warm in (False, True)
}
""".. which a tool needs to answer."""


def floor(row: Row, task: Task, model: str) -> int:
    """Give the least that a row can cost, in nano-dollars."""
    price = SHEETS[model]
    if row.routed:
        return _routed(row, task, model)
    plain = _tokens(task, price.input)
    asked = price.cache_write != price.input  # where writes cost nothing nobody is asked whether to keep
    if row.cache == "off" and asked:
        return _nano(plain + _answers(task, price))
    kept = min(_kept(row, task, price, write, life_s, price.input) for write, life_s in _lives(row, model))
    return _nano(min(plain, kept) + _answers(task, price))


def _routed(row: Row, task: Task, model: str) -> int:
    """.. where every second turn is asked of a cheap model, which neither reads nor writes the prefix."""
    price, cheap = SHEETS[model], CHEAP[model][1]
    aside = sum(BRIEF * cheap.input + task.output * cheap.output for turn in range(0, task.turns, 2))
    found, total = task.first if row.warm else 0, 0
    for turn in range(1, task.turns, 2):
        total += found * price.cache_read + (task.input(turn) - found) * price.cache_write + task.output * price.output
        found = task.input(turn)
    return _nano(aside + total)


def _lives(row: Row, model: str) -> list[tuple[int, float]]:
    """List what may be chosen: what a write costs, and how long it lives. OpenAI's free day is no choice: it is asked for, or not."""
    price = SHEETS[model]
    if model.startswith("anthropic"):
        return [(price.cache_write, SHORT_S), (price.cache_write_long, LONG_S)]
    if price.cache_write != price.input:
        return [(price.cache_write, BREAKPOINT_S), (price.cache_write_long, BREAKPOINT_LONG_S)]
    return [(price.cache_write, RETAINED_S if row.cache == "long" else SHORT_S)]


def _kept(row: Row, task: Task, price: Price, write: int, life_s: float, last: int) -> int:
    """Price the input where all of it is kept for a life, in nano-dollars a million times. `last`: what is new in the last request costs."""
    shared = task.first if row.warm else 0
    total = 0
    for turn in range(task.turns):
        found = task.input(turn - 1) if turn else shared
        if row.pauses_before(turn) and row.pause_s > life_s:
            refreshed = math.ceil(row.pause_s / life_s - 1) * found * price.cache_read
            if refreshed <= (found - shared) * (write - price.cache_read):
                total += refreshed
            else:
                found = shared
        ends = row.pause_s > 0 and turn == task.turns - 1
        total += found * price.cache_read + (task.input(turn) - found) * (last if ends else write)
    return total


def _tokens(task: Task, rate: int) -> int:
    return sum(task.input(turn) for turn in range(task.turns)) * rate


def _answers(task: Task, price: Price) -> int:
    return task.turns * task.output * price.output


def _nano(per_million: int) -> int:
    return -(-per_million // 1_000_000)
