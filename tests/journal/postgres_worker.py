"""A worker process for the tests of many workers: `python -m tests.journal.postgres_worker DSN WITNESS RUNS`.

Starts so many runs, prints their ids and "ready", and drives whatever there is until it is killed. Every effect is a line
of the witness file: the run, the number, the idempotency key.
"""

from __future__ import annotations

import asyncio
import os
import sys

from stanchion import Agent, Runtime, ToolContext, tool
from stanchion.core.message import ModelRequest, ToolResult
from stanchion.testing import ScriptedModel, call
from stanchion.testing.model import Reply

STEPS = 8
WITNESS = sys.argv[2] if len(sys.argv) > 2 else ""


@tool(effect="write", timeout_s=5)
async def put(n: int, context: ToolContext, *, key: str) -> str:
    """Put a line into the witness file."""
    file = os.open(WITNESS, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, f"{context.run} {n} {key}\n".encode())
    os.close(file)
    await asyncio.sleep(0.15)
    return f"put {n}"


def reply(request: ModelRequest) -> Reply:
    """Call the tool so many times, then end."""
    done = sum(isinstance(part, ToolResult) for message in request.messages for part in message.parts)
    return call("put", n=done) if done < STEPS else "All is put."


async def main(dsn: str, runs: int) -> None:
    """Work."""
    agent = Agent(name="putter", identity="Put.", tools=(put,), model="openai:gpt-5.2")
    async with await Runtime.open(agent, data=dsn, clients={"*": ScriptedModel(reply)}) as runtime:
        for started in await asyncio.gather(*(runtime.start("putter", "Put.") for _ in range(runs))):
            print(started.run, flush=True)
        print("ready", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[3])))
