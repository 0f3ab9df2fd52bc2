"""A real server on a real port for a test: the runtime, a scripted model, and a client."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from stanchion import tool
from stanchion.agent import Agent, Approve, Model
from stanchion.core.bundle import Timeouts
from stanchion.core.message import MODEL, Delta, ModelRequest, ModelResponse, Text, Usage
from stanchion.core.money import price_usd
from stanchion.model.client import ModelClient, OnDeltas
from stanchion.runtime import Runtime
from stanchion.server.edge import Edge
from stanchion.server.serve import serve
from stanchion.server.settings import Settings
from stanchion.testing.model import ScriptedModel, call

QUIET = Settings(port=0, grace_s=5.0, log="off")
MODEL_NAME = Model("openai:test-model", price=price_usd(input="1", output="1"))
Json = dict[str, Any]


@tool(effect="read")
async def look_up(order: str) -> str:
    """Look an order up."""
    return f"{order} was shipped"


@tool(effect="irreversible")
async def refund(order: str, cents: int, *, key: str) -> str:
    """Refund an order."""
    return f"refunded {cents} of {order}"


def agent(name: str = "support", **more: Any) -> Agent:
    """Make an agent with a tool that reads and one that waits for a person."""
    settings: Json = {"tools": [look_up, refund], "approvals": [Approve(effect="irreversible")], "identity": "Help."}
    return Agent(name=name, model=MODEL_NAME, **(settings | more))


def talker() -> ScriptedModel:
    """A model that looks an order up and answers, over and over."""
    return ScriptedModel(lambda request: "It was shipped." if _has_result(request) else call("look_up", order="A-17"))


def refunder() -> ScriptedModel:
    """A model that proposes a refund and then says that it is done."""
    return ScriptedModel(lambda request: "Done." if _has_result(request) else call("refund", order="A-17", cents=1250))


def _has_result(request: ModelRequest) -> bool:
    return any(part.__struct_config__.tag == "tool_result" for part in request.messages[-1].parts)


class HeldModel:
    """A model that begins to speak and goes on only when the test lets it. `began` is set at each call."""

    def __init__(self, *, first: str = "One", rest: str = " two.") -> None:
        self.first, self.rest = first, rest
        self.began = asyncio.Event()
        self.go_on = asyncio.Event()
        self.on_deltas: OnDeltas | None = None

    def encode(self, request: ModelRequest) -> bytes:
        return msgspec.json.encode(request)

    async def call(self, request: ModelRequest, *, timeouts: Timeouts, on_deltas: OnDeltas | None) -> ModelResponse:
        self.on_deltas = on_deltas
        self.say(self.first)
        self.began.set()
        await self.go_on.wait()
        self.say(self.rest)
        return ModelResponse((Text(self.first + self.rest, MODEL),), "stop", Usage(10, output_tokens=5))

    def say(self, text: str) -> None:
        """Emit a piece of text."""
        assert self.on_deltas is not None
        self.on_deltas([Delta("text", 0, text)])

    async def aclose(self) -> None: ...


@dataclass
class Reply:
    """An answer of the server."""

    status: int
    headers: Any
    raw: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.raw)

    @property
    def error(self) -> Json:
        """The error of it, which must have our form."""
        said = self.json
        assert set(said) == {"error"}
        assert {"code", "message", "field", "retryable"} <= set(said["error"]), said
        assert "Traceback" not in said["error"]["message"]
        return said["error"]


@dataclass
class Event:
    """A server-sent event."""

    kind: str = ""
    id: str = ""
    data: Any = None


@dataclass
class Served:
    """A running server."""

    runtime: Runtime
    url: str
    session: aiohttp.ClientSession
    stop: asyncio.Event
    done: asyncio.Task[None]
    key: str = ""
    comments: list[str] = field(default_factory=list[str])

    @property
    def edge(self) -> Edge:
        """The server's own state, which `serve` keeps to itself."""
        return next(found for found in gc.get_objects() if isinstance(found, Edge) and found.runtime is self.runtime)

    async def call(self, method: str, path: str, body: Any = None, *, key: str | None = None, **more: Any) -> Reply:
        """Call the server. `body`: JSON, or bytes as they are."""
        headers: Json = {**self._auth(key), **more.pop("headers", {})}
        if body is not None:
            headers = {"content-type": "application/json", **headers}
        data = body if body is None or isinstance(body, bytes) else msgspec.json.encode(body)
        async with self.session.request(method, self.url + path, data=data, headers=headers, **more) as response:
            return Reply(response.status, response.headers, await response.read())

    def _auth(self, key: str | None) -> Json:
        found = self.key if key is None else key
        return {"authorization": f"Bearer {found}"} if found else {}

    async def start(self, **more: Any) -> Json:
        """Start a run."""
        said = await self.call("POST", "/v1/runs", {"agent": "support", "input": "Where is A-17?"} | more)
        assert said.status < 300, said.raw
        return said.json

    async def until(self, run: str, status: str) -> Json:
        """Wait until a run has a status, as its events say so."""
        async with asyncio.timeout(10):
            view = msgspec.to_builtins(await self.runtime.wait(run, timeout_s=10))
        assert view["status"] == status, view
        return view

    async def events(
        self, path: str, *, method: str = "GET", body: Any = None, headers: Json | None = None, key: str | None = None
    ) -> AsyncGenerator[Event]:
        """Read a stream of events to its end."""
        data = None if body is None else msgspec.json.encode(body)
        sent: Json = self._auth(key) | ({} if body is None else {"content-type": "application/json"}) | (headers or {})
        async with self.session.request(method, self.url + path, data=data, headers=sent) as response:
            assert response.status == 200, await response.text()
            assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
            async for event in self.parse(response.content):
                yield event

    async def parse(self, content: aiohttp.StreamReader) -> AsyncGenerator[Event]:
        """Parse server-sent events line by line; comments are kept in `comments`."""
        event = Event()
        async for line in content:
            name, _, value = line.decode().rstrip("\n").partition(": ")
            if not name:
                if event.kind:
                    yield event
                event = Event()
            elif name.startswith(":"):
                self.comments.append(name)
            elif name == "data":
                event.data = msgspec.json.decode(value)
            elif name == "event":
                event.kind = value
            elif name == "id":
                event.id = value


@asynccontextmanager
async def served(
    folder: Path,
    client: ModelClient | None = None,
    *,
    agents: Sequence[Agent] = (),
    settings: Settings = QUIET,
    tenants: Sequence[str] = (),
    data: str = "test.db",
    **options: Any,
) -> AsyncGenerator[Served]:
    """Serve on a free port until the block ends. `tenants`: make a key for each; `served.key` is the first's.

    `data`: a file's name in the folder, or a database's URL. `options`: of `Runtime.open`.
    """
    where = data if "://" in data else folder / data
    options = {"clients": {"*": client or talker()}} | options
    runtime = await Runtime.open(*(agents or [agent()]), data=where, **options)
    keys = [(await runtime.keys.add(tenant, "test"))[1] for tenant in tenants]
    stop, ready = asyncio.Event(), asyncio.Future[str]()
    done = asyncio.create_task(serve(runtime, settings=settings, stop=stop, ready_callback=ready.set_result))
    await asyncio.wait((ready, done), return_when=asyncio.FIRST_COMPLETED)
    if done.done():
        await runtime.aclose()
        done.result()
    try:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session:
            yield Served(runtime, ready.result(), session, stop, done, keys[0] if keys else "")
    finally:
        stop.set()
        await done
