# pyright: basic, reportMissingImports=false
"""Conversations in the OpenAI Agents SDK, with its session store in memory.

Anthropic: through its LiteLLM extension, with LiteLLM's `cache_control_injection_points` on the system prompt and the last message
(openai.github.io/openai-agents-python/models/litellm, docs.litellm.ai/docs/tutorials/prompt_caching). OpenAI: its own Responses
model with `prompt_cache_key`, `prompt_cache_retention` or `prompt_cache_options`
(openai.github.io/openai-agents-python/ref/model_settings); breakpoints on instructions are not among its settings.
"""

from __future__ import annotations

import json
import os
from typing import Any

from agents import Agent, FunctionTool, ModelSettings, RunConfig, Runner, SQLiteSession, set_tracing_disabled
from agents.extensions.models.litellm_model import LitellmModel
from chat import MAX_OUTPUT_TOKENS, Chat
from line import main


def _routed(model: str) -> LitellmModel:
    return LitellmModel(f"anthropic/{model}", base_url=os.environ["ANTHROPIC_BASE_URL"], api_key="sim-key")


class OpenAIAgents(Chat):
    """A session for each conversation."""

    def begin(self, identity: str, cache: str) -> None:
        """Make the agent."""
        set_tracing_disabled(True)
        settings: Any = {"max_tokens": MAX_OUTPUT_TOKENS}
        model: Any = self.model
        if self.provider == "anthropic":
            model = _routed(self.model)
            if cache != "off":
                control = {"type": "ephemeral", "ttl": "1h"} if cache == "long" else {"type": "ephemeral"}
                points: list[dict[str, Any]] = [{"role": "system"}, {"index": -1}]
                injected = [{"location": "message", "control": control, **point} for point in points]
                settings["extra_args"] = {"cache_control_injection_points": injected}
        else:
            settings |= {"extra_args": {"prompt_cache_key": "desk"}, **self.openai_options(cache)}
        tools: list[Any] = [self._tool(tool) for tool in self.tools]
        chosen = ModelSettings(**settings)
        self.agent = Agent(name="desk", instructions=identity, model=model, model_settings=chosen, tools=tools)
        other = _routed(self.cheap) if self.provider == "anthropic" else self.cheap
        self.other = self.agent.clone(model=other)
        self.sessions: dict[str, SQLiteSession] = {}

    def _tool(self, tool: dict[str, Any]) -> FunctionTool:
        """Make a tool of a schema (openai.github.io/openai-agents-python/tools/#custom-function-tools)."""
        run = self.performs(tool)

        async def invoked(_: Any, arguments: str) -> str:
            return await run(**json.loads(arguments or "{}"))

        return FunctionTool(tool["name"], tool["description"], tool["parameters"], invoked, strict_json_schema=False)

    async def say(self, session: str, text: str, *, cheap: bool) -> str:
        """Run in a session; a clone of the agent has the other model (openai.github.io/openai-agents-python/agents)."""
        kept = self.sessions.setdefault(session, SQLiteSession(session))
        config = RunConfig(tracing_disabled=True)
        found = await Runner.run(
            self.other if cheap else self.agent, text, session=kept, run_config=config, max_turns=40
        )
        return str(found.final_output)


if __name__ == "__main__":
    main(OpenAIAgents)
