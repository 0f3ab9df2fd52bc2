"""A worker process for the tests of delivery: `python -m tests.journal.delivery_worker DATA RUNS`.

Starts so many runs, prints their ids and "ready", and drives, delivers and starts what schedules say until it is killed.
"""

from __future__ import annotations

import asyncio
import sys

from stanchion import Agent, Runtime
from stanchion.runtime import WebhookSettings
from stanchion.testing import ScriptedModel

HOOKS = WebhookSettings(
    allow_private=True, first_retry_s=0.05, longest_retry_s=0.5, poll_s=0.1, timeout_s=1, settle_s=0.5
)


def agent() -> Agent:
    return Agent(name="desk", identity="Help.", model="openai:gpt-5.2")


async def main(data: str, runs: int) -> None:
    """Work."""
    client = ScriptedModel(lambda _: "Done.")
    async with await Runtime.open(agent(), data=data, clients={"*": client}, webhooks=HOOKS) as runtime:
        for started in await asyncio.gather(*(runtime.start("desk", "Hi.") for _ in range(runs))):
            print(started.run, flush=True)
        print("ready", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
