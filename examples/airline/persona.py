"""Simulated customers: what they want, and what they say next. Nothing here talks to a server; `customer.py` does.

A customer is a list of lines, each with a condition on the agent's last answer. Of the lines not yet said, the first whose
condition holds is said; when none does, the conversation is over. So the same customer can talk to the scripted agent
and, loosely, to a real model.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from examples.airline.data import DEMO_BASIC, DEMO_BUSINESS, DEMO_RETURN, DEMO_USER


@dataclass(frozen=True, slots=True)
class Line:
    """Something the customer says when the agent's last answer matches `after` (a regex, searched for, any case)."""

    say: str
    after: str = ""


@dataclass(frozen=True, slots=True)
class Persona:
    """A customer. `approves` is what the airline's colleague says of calls that wait for approval."""

    name: str
    about: str
    lines: tuple[Line, ...]
    approves: bool = True
    reason: str = ""


CANCELS = Persona(
    name="cancels",
    about="Nora Winter cancels her business trip, asks the same for her basic economy one, and looks for a flight.",
    lines=(
        Line(f"Hello, I am {DEMO_USER}."),
        Line(f"My plans have changed. Please cancel my reservation {DEMO_BUSINESS}."),
        Line(f"Yes, cancel {DEMO_BUSINESS}.", after=r"shall I|confirm|would you like|\byes\b"),
        Line(f"Then please cancel {DEMO_BASIC} as well.", after=r"is cancelled|has been cancelled"),
        Line(
            "What a pity. Are there flights from DEN to SEA on 2024-05-22?", after=r"cannot|can't|not (able|possible)"
        ),
        Line("Thank you, that is all."),
    ),
)

REJECTED = Persona(
    name="rejected",
    about="Nora Winter cancels her business trip back, and the colleague who must approve it says no.",
    lines=(
        Line(f"Please cancel my reservation {DEMO_RETURN}. I am {DEMO_USER}."),
        Line(f"Yes, cancel {DEMO_RETURN}.", after=r"shall I|confirm|would you like|\byes\b"),
        Line("Then let me talk to a human."),
    ),
    approves=False,
    reason="the booking is under review",
)

PERSONAS = {persona.name: persona for persona in (CANCELS, REJECTED)}


class Customer:
    """A persona in a conversation: remembers which lines have been said."""

    def __init__(self, persona: Persona) -> None:
        self.persona = persona
        self._left = list(persona.lines)

    def next_line(self, answer: str) -> str | None:
        """Say the next thing to the agent's last answer ("" at the start); None: the conversation is over."""
        line = next((line for line in self._left if re.search(line.after, answer, re.IGNORECASE)), None)
        if line is None:
            return None
        self._left.remove(line)
        return line.say
