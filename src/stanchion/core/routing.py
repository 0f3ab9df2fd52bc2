"""Which model a turn is asked of, as data: a table by the type of step, how types are told apart, and when an answer is passed on. Pure.

Types that are always known: "plan" (the first turn of a run), "act" (after tools' results), "answer" (nothing but an answer can come: the
agent has no tools, or no more calls are allowed). Others an author names by rules, or by a run's label.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

import msgspec

STEP_NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}")
ESCALATE = "[escalate]"
"""How a model says that it cannot answer rightly from what it is shown: its answer begins with this."""
PATTERN_CHARS = 4_000
"""Of what was said that a rule's pattern is looked for in."""
View = Literal["", "brief", "judge"]
"""Of a request: the conversation, from its beginning; a part of it, chosen for this turn; an answer and what it was asked for, to be graded."""
Choice = Literal["", "table", "escalated", "room", "cost", "measured", "down"]
"""Why a turn goes to its model: it has no row; as the table says; a cheaper answer was not taken; what the table says does not fit its
context, would not pay, did not go well of late, or is not to be had, so the agent's own model has it."""


class Rung(msgspec.Struct, frozen=True, omit_defaults=True):
    """One try at a turn: a model with a context of its own."""

    route: int
    context_tokens: int
    """Of its whole request, at most; an estimate of four bytes a token."""
    identity: str = ""
    """What it is told in place of the beginning of the agent's identity."""
    tools: tuple[str, ...] = ()
    """The tools that it may use."""


class StepRule(msgspec.Struct, frozen=True, omit_defaults=True):
    """Turns of a named type: all conditions that are set hold."""

    step: str
    input: str = ""
    """Regular expression, looked for in what the user said last."""
    shorter_than: int = 0
    """Of that: fewer characters; 0: any number."""
    tool: str = ""
    """The last step's results are of this tool."""
    task: str = ""
    """The run's type of task."""


class RouteTable(msgspec.Struct, frozen=True, omit_defaults=True):
    """Type of step -> what is tried in order, before the agent's own model."""

    table: Mapping[str, tuple[Rung, ...]] = {}
    rules: tuple[StepRule, ...] = ()
    """The first that holds names a turn's type."""
    escalate_below: int = 0
    """Percent: an answer that a judge grades lower is not taken; 0: nothing is graded."""
    hand_over_below: int = 0
    """Percent: where the last model's answer is graded lower, a person has the conversation; 0: never."""
    least_success: float = 0.0
    """A model whose answers to a type of step were taken less often is passed over: the lower bound of its share; 0: none is."""

    @property
    def graded(self) -> bool:
        """Whether answers are graded at all."""
        return self.escalate_below > 0 or self.hand_over_below > 0


class Measured(msgspec.Struct, frozen=True):
    """How a model did at a type of step."""

    step: str
    model: str
    """As "provider:model"."""
    good: float
    """Answers that were taken .."""
    all: float
    """.. of so many. Older ones count less."""


ENOUGH = 20
"""Before so many answers nothing is concluded from them."""
Z = 1.645
"""One-sided, 95 %."""


def lower_bound(good: float, total: float) -> float:
    """Bound a share from below by what was counted. Source: Wilson, "Probable Inference", JASA 22 (1927), the score interval."""
    if total <= 0:
        return 0.0
    share, z2 = good / total, Z * Z
    middle = share + z2 / (2 * total)
    width = Z * ((share * (1 - share) + z2 / (4 * total)) / total) ** 0.5
    return max((middle - width) / (1 + z2 / total), 0.0)
