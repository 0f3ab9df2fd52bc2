"""An agent that remembers, a model that is scripted for both of its parts, and time that is moved by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from stanchion import Agent, Runtime
from stanchion.core.message import ModelRequest, Text
from stanchion.engine.clock import Clock
from stanchion.memory import Memory
from stanchion.runtime.shape import RunView
from stanchion.testing import FakeClock, ScriptedModel
from stanchion.testing.model import Reply


def fact(attribute: str, value: str, quote: str, part: int = 1, **fields: Any) -> dict[str, Any]:
    """Make a fact as the model that looks for facts says it."""
    usual: dict[str, Any] = {"do": "set", "subject": "user", "since": "", "until": "", "confidence": 0.9}
    return {**usual, "attribute": attribute, "value": value, "part": part, "quote": quote, **fields}


def text_of_request(request: ModelRequest) -> str:
    """All that a request says."""
    return "\n".join(getattr(part, "text", "") for message in request.messages for part in message.parts)


class Mind:
    """A scripted model: `learned` maps words of a conversation to what is found in it; `chat` answers the rest."""

    def __init__(
        self, learned: Mapping[str, Sequence[Any]] | None = None, chat: Callable[[ModelRequest], Reply] | None = None
    ) -> None:
        self.learned = dict(learned or {})
        self.chat = chat or (lambda _: "Noted.")
        self.looked: list[ModelRequest] = []
        self.asked: list[ModelRequest] = []
        self.look: Callable[[ModelRequest], Sequence[Any]] = self.found
        self.model = ScriptedModel(self._reply)

    def found(self, request: ModelRequest) -> Sequence[Any]:
        """What the table says of the passages of a request."""
        said = text_of_request(request).partition("The passages:")[2]
        return [one for words, facts in self.learned.items() if words in said for one in facts]

    def _reply(self, request: ModelRequest) -> Reply:
        if request.output is None or request.output.name != "facts":
            self.asked.append(request)
            return self.chat(request)
        self.looked.append(request)
        return msgspec.json.encode({"facts": self.look(request)}).decode()


def agent(**fields: Any) -> Agent:
    """An agent that remembers."""
    usual: dict[str, Any] = {"name": "desk", "identity": "You help.", "model": "anthropic:claude-sonnet-4-6"}
    return Agent(**{**usual, "memory": Memory(), **fields})


async def say(runtime: Runtime, text: str, **fields: Any) -> RunView:
    """Say something to the agent and wait for its answer; then let it learn."""
    usual: dict[str, Any] = {"user": "ann"}
    started = await runtime.start("desk", text, **{**usual, **fields})
    view = await runtime.wait(started.run, timeout_s=20)
    await runtime.memory.learn()
    return view


async def known(runtime: Runtime, user: str = "ann", **fields: Any) -> dict[str, str]:
    """What is remembered, by attribute."""
    usual: dict[str, Any] = {"kind": "fact"}
    return {view.attribute: view.value for view in await runtime.memory.ls(user, **{**usual, **fields})}


def memory_in(request: ModelRequest) -> str:
    """What of memory stands in a request."""
    parts = [part for message in request.messages for part in message.parts]
    return "\n".join(part.text for part in parts if isinstance(part, Text) and part.label.source == "memory")


async def opened(mind: Mind, *agents: Agent, clock: Clock | None = None, **fields: Any) -> Runtime:
    """Open a runtime with the scripted model."""
    return await Runtime.open(*agents, clients={"*": mind.model}, clock=clock or FakeClock(), **fields)
