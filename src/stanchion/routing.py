"""Which turns go to another model first: the words in which an agent's author says it.

from stanchion.routing import Brief, Routing, When

Agent(.., model="anthropic:claude-sonnet-4-6", steps={"judge": "anthropic:claude-haiku-4-5"},
      routing=Routing(
          table={"lookup": Brief("anthropic:claude-haiku-4-5", context_tokens=2000)},
          rules=[When("lookup", input="(?i)where is|status of", shorter_than=400)],
          escalate_below=70,
      ))
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, cast

from stanchion.core.errors import ConfigError
from stanchion.core.routing import STEP_NAME, RouteTable, Rung, StepRule

__all__ = ["Brief", "Routing", "When"]

LEAST_TOKENS = 400
MOST_RUNGS = 4


class Named(Protocol):
    """A `Model(..)`."""

    @property
    def name(self) -> str:
        """Provider and model."""
        ...


@dataclass(frozen=True, slots=True)
class Brief:
    """A model that is shown what was asked last and, of all before, only what bears on it.

    `context_tokens` is the most that its whole request may have, estimated at four bytes a token: what was asked, the tools, and
    passages of identity and conversation. `identity` is what it is told in place of the beginning of the agent's: say there what must
    hold in every answer. `tools` are those that it may use, by name; without any it can only answer, or pass the turn on.
    """

    model: str | Named
    """`provider:model`, or `Model(..)`."""
    context_tokens: int = 2_000
    identity: str = ""
    tools: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class When:
    """Turns of a type that the author names: all conditions that are set hold. The first rule that holds counts.

    `input` is a regular expression, looked for in what the user said last; `shorter_than` counts its characters. `tool`: the last
    step's results are of this tool. `task`: the run was started for this type of task.
    """

    step: str
    input: str = ""
    shorter_than: int = 0
    tool: str = ""
    task: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Routing:
    """A table of types of steps, and what is tried for each before the agent's own model.

    Types that need no rule: "plan" (the first turn of a run), "act" (after tools' results), "answer" (there are no tools). A run that is
    started with `step="lookup"` is of that type in all its turns.

    `escalate_below` and `hand_over_below` are percents: the agent's judge (`steps={"judge": ..}`) grades an answer; one of a cheap
    model that is below the first is passed on; where the agent's own is below the second the run ends as "escalated", for a person.
    `least_success`: the least share of a model's answers to a type of step that must be taken, as its 95 % lower bound over at least 20
    answers; else it is passed over for a while.
    """

    table: Mapping[str, Brief | Sequence[Brief]] = field(default_factory=dict[str, "Brief | Sequence[Brief]"])
    rules: Sequence[When] = ()
    escalate_below: int = 0
    hand_over_below: int = 0
    least_success: float = 0.0

    def rows(self) -> dict[str, tuple[Brief, ...]]:
        """List what is tried for each type of step."""
        return {step: (row,) if isinstance(row, Brief) else tuple(row) for step, row in self.table.items()}

    def briefs(self) -> tuple[Brief, ...]:
        """List all that is tried."""
        return tuple(brief for row in self.rows().values() for brief in row)


def read_table(
    where: str, routing: Routing, number_of: Callable[[object], int], tools: Collection[str], *, judge: bool
) -> RouteTable:
    """Read a table. `number_of` gives a model's route; `judge`: there is one. Raises `ConfigError` that names the setting."""
    for problem in (*_problems(routing, tools), *_graded(routing, judge=judge)):
        raise ConfigError(f"{where}: routing.{problem}")
    return RouteTable(
        table={
            step: tuple(
                Rung(number_of(each.model), each.context_tokens, each.identity, tuple(each.tools)) for each in row
            )
            for step, row in routing.rows().items()
        },
        rules=tuple(StepRule(each.step, each.input, each.shorter_than, each.tool, each.task) for each in routing.rules),
        escalate_below=routing.escalate_below,
        hand_over_below=routing.hand_over_below,
        least_success=float(routing.least_success),
    )


def check_shape(where: str, routing: object) -> None:
    """Check what the type checker would have, for those who use none. Raises `ConfigError`."""
    if not isinstance(routing, Routing):
        raise ConfigError(f"{where}: routing must be Routing(..), not {routing!r}")
    if not isinstance(cast("object", routing.table), Mapping):
        raise ConfigError(f'{where}: routing.table must be a dict, as in {{"lookup": Brief("provider:model")}}')
    for step, row in routing.table.items():
        for brief in (
            (row,)
            if isinstance(cast("object", row), Brief) or not _is_list(row)
            else tuple(cast("Sequence[object]", row))
        ):
            if not isinstance(brief, Brief):
                raise ConfigError(
                    f"{where}: routing.table[{step!r}] must be Brief(..) or a list of them, not {brief!r}"
                )
            if not isinstance(brief.model, str) and not hasattr(brief.model, "route"):
                text = f"must be provider:model, or Model(..), not {brief.model!r}"
                raise ConfigError(f"{where}: routing.table[{step!r}].model {text}")
    if not _is_list(routing.rules) or not all(isinstance(cast("object", rule), When) for rule in routing.rules):
        raise ConfigError(f"{where}: routing.rules must be a list of When(..)")


def _is_list(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _problems(routing: Routing, tools: Collection[str]) -> Iterator[str]:
    for step, row in routing.rows().items():
        if not STEP_NAME.fullmatch(step):
            yield f"table: {step!r} is no name of a type of step: small letters, digits, '_' and '-', at most 32"
        if not 1 <= len(row) <= MOST_RUNGS:
            yield f"table[{step!r}] must have 1 to {MOST_RUNGS} entries, not {len(row)}"
        for brief in row:
            if not _is_whole(brief.context_tokens) or brief.context_tokens < LEAST_TOKENS:
                yield f"table[{step!r}].context_tokens must be {LEAST_TOKENS} or more, not {brief.context_tokens!r}"
            if unknown := [name for name in brief.tools if name not in tools]:
                yield f"table[{step!r}].tools: the agent has no tool {unknown[0]!r}; it has {', '.join(tools) or 'none'}"
    for place, rule in enumerate(routing.rules):
        yield from _rule(f"rules[{place}]", rule, routing, tools)


def _rule(where: str, rule: When, routing: Routing, tools: Collection[str]) -> Iterator[str]:
    if rule.step not in routing.table:
        yield f"{where}.step {rule.step!r} has no row in the table; it has {', '.join(routing.table) or 'none'}"
    if not (rule.input or rule.shorter_than or rule.tool or rule.task):
        yield f"{where} has no condition, so every turn would be {rule.step!r}; set input, shorter_than, tool or task"
    if not _is_whole(rule.shorter_than) or rule.shorter_than < 0:
        yield f"{where}.shorter_than must be a number of characters, not {rule.shorter_than!r}"
    if rule.tool and rule.tool not in tools:
        yield f"{where}.tool: the agent has no tool {rule.tool!r}; it has {', '.join(tools) or 'none'}"
    try:
        re.compile(rule.input)
    except (re.error, TypeError) as error:
        yield f"{where}.input {rule.input!r} is no regular expression: {error}"


def _graded(routing: Routing, *, judge: bool) -> Iterator[str]:
    for name in ("escalate_below", "hand_over_below"):
        percent = getattr(routing, name)
        if not _is_whole(percent) or not 0 <= percent <= 100:
            yield f"{name} must be a whole number of percent, not {percent!r}"
        if percent and not judge:
            yield f'{name} needs a model that grades: give the agent steps={{"judge": "provider:model"}}'
    if not isinstance(cast("object", routing.least_success), int | float) or not 0 <= routing.least_success < 1:
        yield f"least_success must be a share from 0 to below 1, not {routing.least_success!r}"


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
