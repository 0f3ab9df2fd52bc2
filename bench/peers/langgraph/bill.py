# pyright: basic, reportMissingImports=false
"""Conversations in LangGraph: `create_agent` with a checkpointer in memory and the caching its pages describe.

Anthropic: `AnthropicPromptCachingMiddleware`, which marks tools, system prompt and the end of each request
(docs.langchain.com/oss/python/integrations/middleware/anthropic#prompt-caching). OpenAI: `prompt_cache_key`,
`prompt_cache_retention` or `prompt_cache_options`, and a system message whose content block has a `prompt_cache_breakpoint`
(docs.langchain.com/oss/python/integrations/chat/openai#prompt-caching).
"""

from __future__ import annotations

from typing import Any

from chat import MAX_OUTPUT_TOKENS, Chat
from langchain.agents import create_agent
from langchain_anthropic import ChatAnthropic
from langchain_anthropic.middleware import AnthropicPromptCachingMiddleware
from langchain_core.messages import SystemMessage
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.memory import InMemorySaver
from line import main


class LangGraph(Chat):
    """A thread for each session."""

    def begin(self, identity: str, cache: str) -> None:
        """Build the graph."""
        middleware: list[Any] = []
        if self.provider == "anthropic":
            model: Any = ChatAnthropic(model=self.model, max_tokens=MAX_OUTPUT_TOKENS)
            if cache != "off":
                middleware.append(AnthropicPromptCachingMiddleware(ttl="1h" if cache == "long" else "5m"))
        else:
            kwargs = {"prompt_cache_key": "desk", **self.openai_options(cache)}
            model = ChatOpenAI(
                model=self.model, max_tokens=MAX_OUTPUT_TOKENS, use_responses_api=True, model_kwargs=kwargs
            )
        system: Any = identity
        if self.breakpoints and cache != "off":
            block = {"type": "text", "text": identity, "prompt_cache_breakpoint": {"mode": "explicit"}}
            system = SystemMessage(content=[block])
        self.agent = create_agent(model, [], system_prompt=system, middleware=middleware, checkpointer=InMemorySaver())

    async def say(self, session: str, text: str) -> str:
        """Invoke the graph on a thread."""
        config: Any = {"configurable": {"thread_id": session}}
        found = await self.agent.ainvoke({"messages": [{"role": "user", "content": text}]}, config)
        return found["messages"][-1].text


if __name__ == "__main__":
    main(LangGraph)
