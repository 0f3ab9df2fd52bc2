"""A worker process for the tests of shared limits: `python -m tests.journal.quota_worker CONFIG` (JSON).

Prints "ready" and drives whatever there is until its stdin is closed; then it lets go in order. Its tools call the
test's witness over HTTP, which counts how many are at work at once and answers as the test says.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys

import aiohttp
import msgspec

from stanchion import Agent, Breaker, Model, NotDone, Runtime, tool
from stanchion.core.bundle import RetryPolicy


class Config(msgspec.Struct):
    """What a worker is started with."""

    dsn: str
    sim: str
    quotas: list[str] = []
    witness: str = ""
    max_output_tokens: int = 32
    max_active: int = 0


def agents(config: Config) -> tuple[Agent, ...]:
    """Make the agents."""

    async def ask(path: str) -> str:
        async with (
            aiohttp.ClientSession() as client,
            client.post(f"{config.witness}/{path}", json={"pid": os.getpid()}) as said,
        ):
            if said.status >= 500:
                raise NotDone(f"the service answered {said.status}")
            return await said.text()

    @tool(effect="read", concurrency=2, repeatable=True, timeout_s=20, retries=0)
    async def work(n: int) -> str:
        """Work a little."""
        return await ask("do")

    @tool(effect="read", repeatable=True, retries=0, breaker=Breaker(failures=3, open_s=1.0))
    async def flaky(n: int) -> str:
        """Ask a service that fails."""
        return await ask("flaky")

    model = Model(
        "anthropic:claude-sonnet-4-6",
        max_output_tokens=config.max_output_tokens,
        retries=RetryPolicy(attempts=8, base_s=0.05, cap_s=0.2),
    )
    common = {"identity": "Help.", "model": model}
    return Agent(name="talker", **common), Agent(name="doer", tools=(work, flaky), **common)


async def main(config: Config) -> None:
    """Work."""
    environment = {"ANTHROPIC_BASE_URL": config.sim, "ANTHROPIC_API_KEY": "sim-shared"}
    async with await Runtime.open(
        *agents(config),
        data=config.dsn,
        environment=environment,
        quotas=config.quotas,
        max_active=config.max_active,
    ) as runtime:
        print(f"ready {os.getpid()}", flush=True)
        closed = asyncio.Event()
        asyncio.get_running_loop().add_reader(0, lambda: None if os.read(0, 4096) else closed.set())
        await closed.wait()
        asyncio.get_running_loop().remove_reader(0)
        assert runtime.ready


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(msgspec.json.decode(sys.argv[1], type=Config)))
