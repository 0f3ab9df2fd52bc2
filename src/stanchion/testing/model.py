"""`ScriptedModel`: a model client that says what a test tells it to, without a network.

    model = ScriptedModel([call("lookup_order", order_id="A-17"), "It was shipped on Monday."])
    async with await Runtime.open(agent, data=tmp_path / "t.db", clients={"*": model}) as runtime: ..

The n-th reply answers the request in which the model has spoken n times before: a run that was killed and goes on gets
the same reply again, whoever asks and however often.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from stanchion.core.bundle import Timeouts
from stanchion.core.errors import ModelError
from stanchion.core.message import (
    MODEL,
    Delta,
    Finish,
    ModelRequest,
    ModelResponse,
    Part,
    Text,
    ToolCall,
    Usage,
)
from stanchion.model.client import OnDeltas

Reply = str | ToolCall | ModelError | ModelResponse | Sequence["str | ToolCall"]
Script = Sequence[Reply] | Callable[[ModelRequest], Reply]


def call(name: str, /, **arguments: Any) -> ToolCall:
    """Make a tool call for a reply."""
    return ToolCall("", name, msgspec.json.encode(arguments).decode(), MODEL)


class ScriptedModel:
    """A model client that plays a script. `requests` is what it was asked, in order."""

    def __init__(self, script: Script, *, usage: Usage | None = None) -> None:
        self._script = script
        self._usage = usage
        self.requests: list[ModelRequest] = []

    def encode(self, request: ModelRequest) -> bytes:
        """Encode a request, for what counts its bytes."""
        return msgspec.json.encode(request)

    async def call(self, request: ModelRequest, *, timeouts: Timeouts, on_deltas: OnDeltas | None) -> ModelResponse:
        """Give the next reply."""
        self.requests.append(request)
        await asyncio.sleep(0)
        reply = self._reply(request)
        if isinstance(reply, ModelError):
            raise reply
        if isinstance(reply, ModelResponse):
            return reply
        said = [reply] if isinstance(reply, str | ToolCall) else list(reply)
        parts = tuple(_part(part, index) for index, part in enumerate(said))
        if on_deltas is not None:
            on_deltas([_delta(part, index) for index, part in enumerate(parts)])
        calls = any(isinstance(part, ToolCall) for part in parts)
        finish: Finish = "tool_calls" if calls else "stop"
        return ModelResponse(parts, finish, self._usage or self._counted(request, parts), model=request.model)

    async def aclose(self) -> None:
        """Nothing is open."""

    def _reply(self, request: ModelRequest) -> Reply:
        if callable(self._script):
            return self._script(request)
        turn = sum(message.role == "assistant" for message in request.messages)
        if turn >= len(self._script):
            raise AssertionError(
                f"the script has {len(self._script)} replies, and the model is asked for number {turn + 1}"
            )
        return self._script[turn]

    def _counted(self, request: ModelRequest, parts: tuple[Part, ...]) -> Usage:
        """Count a token for four bytes, rounded up."""
        return Usage(-(-len(self.encode(request)) // 4), output_tokens=-(-len(msgspec.json.encode(parts)) // 4))


def _part(said: str | ToolCall, index: int) -> Part:
    if isinstance(said, str):
        return Text(said, MODEL)
    return said if said.id else msgspec.structs.replace(said, id=f"call_{index}")


def _delta(part: Part, index: int) -> Delta:
    if isinstance(part, ToolCall):
        return Delta("tool_call", index, part.arguments, part.name)
    return Delta("text", index, part.text if isinstance(part, Text) else "")
