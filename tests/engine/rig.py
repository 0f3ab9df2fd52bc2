"""What the tests of engine and runtime share: agents, tools whose calls are counted, models that wait for the test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from stanchion import Agent, Approve, Model, Runtime, RunView, price_usd, tool
from stanchion.core import event as ev
from stanchion.core.bundle import Timeouts
from stanchion.core.message import MODEL, Delta, ModelRequest, ModelResponse, Text, ToolResult, Usage
from stanchion.model.client import OnDeltas
from stanchion.policy import GuardRules
from stanchion.testing import ScriptedModel, call
from tests.waiting import SOON_S

PRICED = Model("openai:test-model", price=price_usd(input="1", output="2"), retries=3)


class World:
    """What effects are done to. `gate` holds tools back; `began` is set when one has begun."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.keys: list[str] = []
        self.began = asyncio.Event()
        self.gate = asyncio.Event()

    async def hold(self) -> None:
        """Wait for the test."""
        self.began.set()
        await self.gate.wait()


def tools(world: World) -> list[Any]:
    """Make one tool of each kind."""

    @tool(effect="read", repeatable=True)
    async def look(order: str) -> str:
        """Look an order up."""
        return f"{order} was shipped"

    @tool(effect="read", repeatable=True, timeout_s=60)
    async def slow_look(order: str) -> str:
        """Look an order up, slowly."""
        await world.hold()
        world.done.append(f"look {order}")
        return f"{order} was shipped slowly"

    @tool(effect="write", timeout_s=60)
    async def note(text: str) -> str:
        """Write something down."""
        world.done.append(f"note {text}")
        return "noted"

    @tool(effect="write", timeout_s=60)
    async def slow_note(text: str) -> str:
        """Write something down, slowly."""
        await world.hold()
        world.done.append(f"note {text}")
        return "noted"

    @tool(effect="irreversible", timeout_s=60)
    async def refund(order: str, cents: int, *, key: str) -> str:
        """Refund an order."""
        world.done.append(f"refund {order} {cents}")
        world.keys.append(key)
        return f"refunded {cents}"

    return [look, slow_look, note, slow_note, refund]


UNMARKED = GuardRules(mark=False)
"""For tests that compare what a tool said with what the model reads; blocks have tests of their own."""


def agent(world: World | None = None, name: str = "desk", **more: Any) -> Agent:
    """Make an agent with the tools above; refunds wait for a person."""
    given: dict[str, Any] = {
        "identity": "Help.",
        "tools": tools(world or World()),
        "approvals": [Approve(effect="irreversible")],
        "model": PRICED,
        "guard": UNMARKED,
    }
    return Agent(name=name, **(given | more))


def results(request: ModelRequest) -> list[str]:
    """Texts of the tool results in a request."""
    return [part.text for message in request.messages for part in message.parts if isinstance(part, ToolResult)]


def heard(request: ModelRequest) -> str:
    """What the user said last."""
    texts = [p.text for m in request.messages if m.role == "user" for p in m.parts if isinstance(p, Text)]
    return texts[-1]


def echo() -> ScriptedModel:
    """A model that repeats what it heard last."""
    return ScriptedModel(lambda request: f"You said: {heard(request)}")


def once(name: str, **arguments: Any) -> ScriptedModel:
    """A model that makes one call and tells its result."""
    return ScriptedModel(lambda request: results(request)[-1] if results(request) else call(name, **arguments))


class HeldModel:
    """A model that begins to speak, and goes on when the test lets it."""

    def __init__(self, *pieces: str) -> None:
        self.pieces = pieces or ("One", " two.")
        self.began = asyncio.Event()
        self.gate = asyncio.Event()
        self.requests: list[ModelRequest] = []
        self.on_deltas: OnDeltas | None = None

    def encode(self, request: ModelRequest) -> bytes:
        return msgspec.json.encode(request)

    async def call(self, request: ModelRequest, *, timeouts: Timeouts, on_deltas: OnDeltas | None) -> ModelResponse:
        self.requests.append(request)
        self.on_deltas = on_deltas
        self.say(self.pieces[0])
        self.began.set()
        await self.gate.wait()
        for piece in self.pieces[1:]:
            self.say(piece)
        return ModelResponse((Text("".join(self.pieces), MODEL),), "stop", Usage(10, output_tokens=5))

    def say(self, text: str) -> None:
        """Emit a piece of text."""
        assert self.on_deltas is not None
        self.on_deltas([Delta("text", 0, text)])

    async def aclose(self) -> None: ...


@asynccontextmanager
async def running(path: Path, client: Any, *agents: Agent, **more: Any) -> AsyncIterator[Runtime]:
    """Open a runtime on `path / "t.db"`, which is closed without grace."""
    runtime = await Runtime.open(*(agents or [agent()]), data=path / "t.db", clients={"*": client}, **more)
    try:
        yield runtime
    finally:
        await runtime.aclose(grace_s=1.0)


async def over(runtime: Runtime, run: str, **more: Any) -> RunView:
    """Wait until a run has ended."""
    try:
        async with asyncio.timeout(SOON_S):
            async for _ in runtime.tail(run, deltas=False, **more):
                pass
    except TimeoutError:
        raise AssertionError(await runtime.view(run, **more)) from None
    return await runtime.view(run, **more)


async def events(runtime: Runtime, run: str, kind: type[Any] | None = None, tenant: str = "default") -> list[Any]:
    """Read a run's events, of a kind if one is given."""
    found = [entry.event for entry in await runtime.store.read(tenant, run)]
    return [event for event in found if kind is None or isinstance(event, kind)]


async def kinds(runtime: Runtime, run: str) -> list[str]:
    """Names of a run's events."""
    return [str(event.__struct_config__.tag) for event in await events(runtime, run)]


async def until_event(runtime: Runtime, run: str, kind: type[Any], count: int = 1, **more: Any) -> Any:
    """Wait for the n-th event of a kind."""
    async with asyncio.timeout(SOON_S):
        async for item in runtime.tail(run, deltas=False, **more):
            if isinstance(item, ev.Entry) and isinstance(item.event, kind):
                count -= 1
                if not count:
                    return item.event
    raise AssertionError(f"the run ended without {kind.__name__}")


async def unchanged(runtime: Runtime, tenant: str = "default") -> None:
    """Check that every journal verifies."""
    bad = [verified async for verified in runtime.verify(tenant=tenant) if verified.error]
    assert not bad, bad


def texts(items: Sequence[Any]) -> str:
    """Join the texts of deltas."""
    return "".join(item.text for item in items)
