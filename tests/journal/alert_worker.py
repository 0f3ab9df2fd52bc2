"""A worker process for the tests of alerts: `python -m tests.journal.alert_worker DATA RUNS`.

Starts so many runs of fourteen turns, each with a limit of its own, prints "ready", and drives, looks at budgets and delivers until it
is killed.
"""

from __future__ import annotations

import asyncio
import sys

from stanchion import Agent, Limits, Model, Runtime, tool
from stanchion.core.message import ModelRequest, ToolCall, Usage
from stanchion.runtime.money import watching
from stanchion.testing import ScriptedModel, call
from tests.journal.delivery_worker import HOOKS

TURNS = 14
LIMIT_USD = "0.10"
"""Of a run. It spends $0.084, and its next turn would not fit."""


@tool(effect="read", repeatable=True)
async def look() -> str:
    """Look."""
    return "nothing"


def agent() -> Agent:
    return Agent(
        name="desk",
        model=Model("anthropic:claude-sonnet-4-6", max_output_tokens=256),
        tools=[look],
        limits=Limits(usd=LIMIT_USD),
    )


def reply(request: ModelRequest) -> ToolCall | str:
    turn = sum(message.role == "assistant" for message in request.messages) + 1
    return call("look") if turn < TURNS else "Done."


async def main(data: str, runs: int) -> None:
    """Work."""
    watching.LOOK_S = 0.2
    client = ScriptedModel(reply, usage=Usage(1_000, output_tokens=200))
    async with await Runtime.open(agent(), data=data, clients={"*": client}, webhooks=HOOKS) as runtime:
        for started in await asyncio.gather(*(runtime.start("desk", "Hi.") for _ in range(runs))):
            print(started.run, flush=True)
        print("ready", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
