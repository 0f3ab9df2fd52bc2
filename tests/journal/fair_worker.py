"""A worker process for the tests of shares: `python -m tests.journal.fair_worker DSN MAX_ACTIVE THINK_S AGENT..`.

Serves agents whose model thinks for so long and then answers; prints "ready", and drives what there is until it is killed.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from stanchion import Agent, Runtime
from stanchion.core.message import ModelRequest, ModelResponse
from stanchion.testing import ScriptedModel


def thinker(name: str) -> Agent:
    """Make an agent without tools."""
    return Agent(name=name, identity="Think.", model="openai:gpt-5.2")


class Thinking(ScriptedModel):
    """Answers after a while."""

    think_s = 0.0

    async def call(self, request: ModelRequest, **more: Any) -> ModelResponse:
        await asyncio.sleep(self.think_s)
        return await super().call(request, **more)


async def main(dsn: str, max_active: int, think_s: float, names: list[str]) -> None:
    """Work."""
    model = Thinking(lambda _: "Thought.")
    model.think_s = think_s
    agents = [thinker(name) for name in names]
    async with await Runtime.open(*agents, data=dsn, clients={"*": model}, max_active=max_active):
        print("ready", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), sys.argv[4:]))
