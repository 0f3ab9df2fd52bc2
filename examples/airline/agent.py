"""The airline's support agent.

    stanchion serve examples/airline/agent.py
    stanchion run examples/airline/agent.py "Please cancel my reservation NWBUS7. I am nora_winter_2041."

Its database is the SQLite file AIRLINE_DB (default: airline.db), made up by `data.py` where there is none. Its model is
AIRLINE_MODEL, or one of the provider whose key is set. Booking, cancelling and compensating wait for a person's approval.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # `examples.airline` is found however this was started

from examples.airline import data
from examples.airline.store import AirlineDb
from examples.airline.tools import TOOLS
from stanchion import Agent, Approve, Limits, LoopRules, Model

POLICY = Path(__file__).with_name("policy.md")
ANTHROPIC_MODEL = "anthropic:claude-sonnet-4-6"
OPENAI_MODEL = "openai:gpt-4.1"
LIMITS = Limits(usd="0.50", turns=30, wall_s=300)
LOOP_RULES = LoopRules()


def own_database() -> AirlineDb:
    """Open the airline's database, making it up where there is none."""
    return data.ensure(os.environ.get("AIRLINE_DB") or "airline.db")


def choose_model(environment: Mapping[str, str]) -> str:
    """Name the model to ask: AIRLINE_MODEL, else OpenAI's where only its key is set, else Anthropic's."""
    if environment.get("AIRLINE_MODEL"):
        return environment["AIRLINE_MODEL"]
    openai = environment.get("OPENAI_API_KEY") or environment.get("OPENAI_BASE_URL")
    return OPENAI_MODEL if openai and not environment.get("ANTHROPIC_API_KEY") else ANTHROPIC_MODEL


def make_agent(
    *,
    model: str | Model,
    database: Callable[..., AirlineDb],
    limits: Limits = LIMITS,
    loop: LoopRules = LOOP_RULES,
) -> Agent:
    """Make the agent on a database: a function that gives it for each call, of nothing or of the call's `ToolContext`."""
    return Agent(
        name="airline",
        identity=POLICY.read_text(encoding="utf-8"),
        tools=TOOLS,
        model=model,
        limits=limits,
        approvals=[Approve(effect="irreversible")],
        deps={AirlineDb: database},
        loop=loop,
        parallel_tool_calls=False,
    )


airline = make_agent(model=choose_model(os.environ), database=own_database)
