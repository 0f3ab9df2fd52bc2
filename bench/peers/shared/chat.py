"""An agent that has conversations, for comparing bills: the same in every framework, its model's caching as the framework documents it.

    {"do": "begin", "identity": "..", "cache": "short"}   make the agent; "off", "short" or "long" is how it is told to cache;
      "tools": [..], "how": "shown"                           .. with tools: their names, descriptions and schemas; "found": by the framework's own search
    {"do": "say", "session": "..", "text": "..", "cheap": false}     a user's text in a session; answers with how the model's answer begins;
                                                                     cheap: of the cheap model, on the same conversation

A conversation is kept in memory, as the framework keeps it. Standard library only.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

from line import Subject

MAX_OUTPUT_TOKENS = 1_000


class Chat(Subject):
    """One framework's agent. A subclass fills in `begin` and `say`."""

    provider = model = ""
    tools: tuple[dict[str, Any], ...] = ()
    how = "shown"
    filler = ""
    ran = 0
    """How many tool calls were performed."""

    @property
    def cheap(self) -> str:
        """The provider's name of the cheap model."""
        return self.spec["cheap"].partition(":")[2]

    async def open(self) -> None:
        """Take the model's name apart; the agent is made when its identity is known, which is too long for a command line."""
        self.provider, _, self.model = self.spec["model"].partition(":")

    @property
    def breakpoints(self) -> bool:
        """Whether OpenAI prices what it writes to the cache of this model, and takes breakpoints for it."""
        return self.provider == "openai" and not self.model.startswith(("gpt-4", "gpt-5.1", "gpt-5.2"))

    def openai_options(self, cache: str) -> dict[str, Any]:
        """Give OpenAI's own fields for a life, for frameworks that hand them through."""
        if not self.breakpoints:
            return {"prompt_cache_retention": "24h"} if cache == "long" else {}
        asked: dict[str, Any] = {"short": {}, "long": {"ttl": "12h"}, "off": {"mode": "explicit"}}[cache]
        return {"prompt_cache_options": asked} if asked else {}

    def begin(self, identity: str, cache: str) -> None:
        """Make the agent."""
        raise NotImplementedError

    async def say(self, session: str, text: str, *, cheap: bool) -> str:
        """Say something in a session; give the answer. `cheap`: the caller would have the cheap model answer."""
        raise NotImplementedError

    def performs(self, tool: dict[str, Any]) -> Callable[..., Awaitable[str]]:
        """Give what performs a tool: it says what it was called with, and then the same each time."""

        async def run(**values: Any) -> str:
            self.ran += 1
            given = {name: values.get(name) for name in tool["parameters"]["properties"]}
            return f"{tool['name']}: {json.dumps(given, separators=(',', ':'))} {self.filler}"

        return run

    async def do_begin(
        self, identity: str, cache: str, tools: list[dict[str, Any]] | None = None, how: str = "shown", filler: str = ""
    ) -> dict[str, Any]:
        """Make the agent."""
        self.tools, self.how, self.filler = tuple(tools or ()), how, filler
        self.begin(identity, cache)
        return {"begun": True}

    async def do_say(self, session: str, text: str, cheap: bool = False) -> dict[str, Any]:
        """Have a turn."""
        said = await self.say(session, text, cheap=cheap)
        return {"chars": len(said), "begins": said[:20], "ends": said[-20:].strip(), "ran": self.ran}
