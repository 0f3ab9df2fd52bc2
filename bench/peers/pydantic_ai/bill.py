# pyright: basic, reportMissingImports=false
"""Conversations in Pydantic AI: the message history is handed on, the caching is set as its pages describe.

Anthropic: `anthropic_cache_instructions`, `anthropic_cache_tool_definitions` and `anthropic_cache` (which marks the end of each
request), "5m" or "1h" (ai.pydantic.dev/models/anthropic/#prompt-caching). OpenAI: `openai_prompt_cache_key` and
`openai_prompt_cache_retention`; for models with breakpoints `openai_cache_instructions` and `openai_prompt_cache_options`
(ai.pydantic.dev/models/openai/#prompt-caching). "found": deferred tools and `ToolSearch(strategy="keywords")`, which is its search at the
client: of the tools, `defer_loading` is sent where the provider has it, and what is found comes as references
(ai.pydantic.dev/tools-advanced/#tool-search).
"""

from __future__ import annotations

from typing import Any

from chat import MAX_OUTPUT_TOKENS, Chat
from line import main
from pydantic_ai import Agent, Tool
from pydantic_ai.capabilities import ToolSearch
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIResponsesModel

RESULTS = 5
"""Tools in an answer of its search: as many as in ours; ten unless it is told."""


class PydanticAI(Chat):
    """A list of messages for each session."""

    def begin(self, identity: str, cache: str) -> None:
        """Make the agent."""
        settings: Any = {"max_tokens": MAX_OUTPUT_TOKENS}
        if self.provider == "anthropic":
            model: Any = AnthropicModel(self.model)
            if cache != "off":
                names = ("anthropic_cache", "anthropic_cache_instructions", "anthropic_cache_tool_definitions")
                settings |= dict.fromkeys(names, "1h" if cache == "long" else "5m")
        else:
            model = OpenAIResponsesModel(self.model)
            settings["openai_prompt_cache_key"] = "desk"
            if self.breakpoints and cache == "off":
                settings["openai_prompt_cache_options"] = {"mode": "explicit"}
            elif self.breakpoints:
                ttl = "12h" if cache == "long" else "30m"
                settings |= {
                    "openai_cache_instructions": True,
                    "openai_prompt_cache_options": {"mode": "implicit", "ttl": ttl},
                }
            elif cache == "long":
                settings["openai_prompt_cache_retention"] = "24h"
        tools: list[Any] = []
        for tool in self.tools:
            made = Tool.from_schema(self.performs(tool), tool["name"], tool["description"], tool["parameters"])
            made.defer_loading = self.how == "found"
            tools.append(made)
        search = [ToolSearch(strategy="keywords", max_results=RESULTS)] if self.how == "found" else []
        self.agent = Agent(model, instructions=identity, model_settings=settings, tools=tools, capabilities=search)
        newer = ("openai_cache_instructions", "openai_prompt_cache_options")
        older: Any = {name: value for name, value in settings.items() if name not in newer}
        other: Any = (AnthropicModel if self.provider == "anthropic" else OpenAIResponsesModel)(self.cheap)
        self.other = Agent(other, instructions=identity, model_settings=older)
        self.histories: dict[str, Any] = {}

    async def say(self, session: str, text: str, *, cheap: bool) -> str:
        """Run with what was said before; another model is another agent, as older models refuse the newer ones' settings."""
        agent = self.other if cheap else self.agent
        found = await agent.run(text, message_history=self.histories.get(session))
        self.histories[session] = found.all_messages()
        return found.output


if __name__ == "__main__":
    main(PydanticAI)
