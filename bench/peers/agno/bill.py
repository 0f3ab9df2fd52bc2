# pyright: basic, reportMissingImports=false
"""Conversations in Agno, with all of the history in the context and its database in memory.

Anthropic: `cache_system_prompt`, with `extended_cache_time` for an hour, as its page says
(docs.agno.com/models/providers/native/anthropic/usage/prompt-caching): the system prompt is kept, the conversation is not; with
tools `cache_tools`, too. "request_params" is what a user can do beyond that page: it hands Anthropic's own top-level
`cache_control` through. OpenAI: nothing is documented; the provider's fields go through `request_params`.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from agno.agent import Agent
from agno.db.in_memory import InMemoryDb
from agno.models.anthropic import Claude
from agno.models.openai import OpenAIResponses
from agno.tools.function import Function
from chat import MAX_OUTPUT_TOKENS, Chat
from line import main


class Agno(Chat):
    """A session for each conversation."""

    def begin(self, identity: str, cache: str) -> None:
        """Make the agent."""
        long = cache == "long"
        if self.provider == "anthropic":
            kwargs: dict[str, Any] = {}
            if cache != "off":
                kwargs = {"cache_system_prompt": True, "extended_cache_time": long, "cache_tools": bool(self.tools)}
                if self.spec["variant"] == "request_params":
                    control = {"type": "ephemeral", "ttl": "1h" if long else "5m"}
                    kwargs["request_params"] = {"cache_control": control}
            model: Any = Claude(id=self.model, max_tokens=MAX_OUTPUT_TOKENS, **kwargs)
        else:
            params = {"prompt_cache_key": "desk", **self.openai_options(cache)}
            model = OpenAIResponses(
                id=self.model, max_output_tokens=MAX_OUTPUT_TOKENS, store=False, request_params=params
            )
        self.first = model
        self.agent = Agent(
            model=model,
            system_message=identity,
            tools=[self._tool(tool) for tool in self.tools],
            db=InMemoryDb(),
            add_history_to_context=True,
            num_history_runs=1_000,
            telemetry=False,
        )

    def _tool(self, tool: dict[str, Any]) -> Function:
        """Make a tool of a schema."""
        return Function(
            name=tool["name"], description=tool["description"], parameters=tool["parameters"],
            entrypoint=self.performs(tool), skip_entrypoint_processing=True,
        )  # fmt: skip

    async def say(self, session: str, text: str, *, cheap: bool) -> str:
        """Run in a session; another model is another agent on the same database."""
        self.agent.model = dataclasses.replace(self.first, id=self.cheap if cheap else self.model)
        found = await self.agent.arun(text, session_id=session)
        if str(getattr(found.status, "value", found.status)) != "COMPLETED":
            raise RuntimeError(str(found.content))
        return str(found.content)


if __name__ == "__main__":
    main(Agno)
