"""An agent whose memory is searched by meaning and paid for, between it and its provider a door that can be held, and a process to be killed.

python -m tests.memory.paid DATA PROVIDER DOOR WHAT     starts a run that says WHAT, names it, and goes on until it is killed
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from aiohttp import web

from stanchion import Agent, Runtime
from stanchion.memory import Embeddings, Memory
from stanchion.model.client import Endpoint
from stanchion.sim import Reply, ReplyCall, Rule, Script, SimServer, SimSettings, When

LISBON = {
    "do": "set", "subject": "user", "attribute": "home city", "value": "Lisbon", "part": 1, "quote": "I live in Lisbon",
    "since": "", "until": "", "confidence": 0.9,
}  # fmt: skip


def _calls(name: str, /, **arguments: str) -> Reply:
    return Reply(calls=(ReplyCall(name=name, arguments=arguments),))


SCRIPT = Script(
    rules=(
        Rule(
            when=When(contains=("The passages:", "I live in Lisbon")), reply=Reply(text=json.dumps({"facts": [LISBON]}))
        ),
        Rule(when=When(contains="The passages:"), reply=Reply(text='{"facts": []}')),
        Rule(when=When(after="tool"), reply=Reply(text="So it is.")),
        Rule(when=When(user="Where do"), reply=_calls("recall_memory", query="which city is home")),
        Rule(when=When(user="Keep that"), reply=_calls("remember_fact", attribute="plan", value="gold")),
        Rule(when=When(user="Note it"), reply=_calls("write_note", name="todo", text="call her back")),
    ),
    default=Reply(text="Noted."),
)


def desk(door: str, **rules: Any) -> Agent:
    """The agent, whose embeddings go through the door."""
    embeddings = Embeddings(endpoint=Endpoint(f"{door}/v1", "sim-key"))
    memory = Memory(remember=True, notes=True, embeddings=embeddings, **rules)
    return Agent(name="desk", identity="You help.", model="openai:gpt-5-mini", memory=memory)


class Door:
    """Passes embeddings on to the provider. `hold`: one whose text has these words is kept, before it is passed on or behind it."""

    def __init__(self, provider: str) -> None:
        self.provider = provider
        self.url = ""
        self.hold = ""
        self.behind = False
        self.counts = True
        """Whether the provider says how many tokens it was."""
        self.held = asyncio.Event()
        self.asked: list[list[str]] = []

    async def embed(self, request: web.Request) -> web.Response:
        """Pass one on."""
        body = await request.read()
        texts = json.loads(body)["input"]
        self.asked.append(texts)
        held = bool(self.hold) and any(self.hold in text for text in texts)
        if held and not self.behind:
            await self._keep()
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{self.provider}/v1/embeddings", data=body, headers={"x-api-key": "sim-key"}) as answer,
        ):
            said = await answer.json()
        if not self.counts:
            del said["usage"]
        if held:
            await self._keep()
        return web.json_response(said)

    async def _keep(self) -> None:
        self.held.set()
        await asyncio.Event().wait()


@asynccontextmanager
async def provider() -> AsyncGenerator[tuple[SimServer, Door]]:
    """Run a provider, and the door before its embeddings."""
    sim = SimServer(SimSettings(script=SCRIPT))
    await sim.start()
    door = Door(sim.base_url)
    app = web.Application()
    app.router.add_post("/v1/embeddings", door.embed)
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    door.url = "http://{}:{}".format(*runner.addresses[0][:2])
    try:
        yield sim, door
    finally:
        await runner.cleanup()
        await sim.stop()


def environment(base_url: str) -> dict[str, str]:
    """Where the models are."""
    return {"OPENAI_BASE_URL": f"{base_url}/v1", "OPENAI_API_KEY": "sim-key"}


async def main(data: str, base_url: str, door: str, what: str) -> None:
    """Say something, and learn from it."""
    async with await Runtime.open(desk(door), data=data, environment=environment(base_url)) as runtime:
        started = await runtime.start("desk", what, user="ann")
        sys.stdout.write(f"{started.run}\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
