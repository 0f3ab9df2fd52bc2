# pyright: basic, reportMissingImports=false
"""Conversations in LangGraph: `create_agent` with a checkpointer in memory and the caching its pages describe.

Anthropic: `AnthropicPromptCachingMiddleware`, which marks tools, system prompt and the end of each request
(docs.langchain.com/oss/python/integrations/middleware/anthropic#prompt-caching). OpenAI: `prompt_cache_key`,
`prompt_cache_retention` or `prompt_cache_options`, and a system message whose content block has a `prompt_cache_breakpoint`
(docs.langchain.com/oss/python/integrations/chat/openai#prompt-caching). "summary-N": `SummarizationMiddleware` beside it, which has a
cheap model sum up all but the last 20 messages when they pass N tokens
(docs.langchain.com/oss/python/langchain/middleware/built-in#summarization). "found": `LLMToolSelectorMiddleware` with the cheap model,
which chooses the tools before each call (same page, #llm-tool-selector).
"""

from __future__ import annotations

from typing import Any

from chat import MAX_OUTPUT_TOKENS, Chat
from langchain.agents import create_agent
from langchain.agents.middleware import LLMToolSelectorMiddleware, SummarizationMiddleware, wrap_model_call
from langchain_anthropic import ChatAnthropic
from langchain_anthropic.middleware import AnthropicPromptCachingMiddleware
from langchain_core.messages import SystemMessage
from langchain_core.tools import StructuredTool
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.memory import InMemorySaver
from line import main

SELECTED = 4
READER = "claude-haiku-4-5"


class LangGraph(Chat):
    """A thread for each session."""

    turned = False

    def begin(self, identity: str, cache: str) -> None:
        """Build the graph."""
        middleware: list[Any] = []
        if self.provider == "anthropic":
            model: Any = ChatAnthropic(model=self.model, max_tokens=MAX_OUTPUT_TOKENS)
            if trigger := self.spec["variant"].removeprefix("summary-"):
                reader = ChatAnthropic(model=READER, max_tokens=MAX_OUTPUT_TOKENS)
                keep = ("messages", 20)
                middleware.append(SummarizationMiddleware(reader, trigger=("tokens", int(trigger)), keep=keep))
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
        other: Any = model.model_copy(update={"model": self.cheap, "model_name": self.cheap})

        @wrap_model_call
        async def chosen(request: Any, handler: Any) -> Any:
            """Choose the model of a turn (docs.langchain.com/oss/python/langchain/models#dynamic-model-selection)."""
            if self.turned:  # without a breakpoint, which older models refuse
                request = request.override(model=other, system_message=SystemMessage(content=identity))
            return await handler(request)

        if self.how == "found":
            plain: Any = other.model_copy(update={"model_kwargs": {}, "max_tokens": MAX_OUTPUT_TOKENS})
            middleware.insert(0, LLMToolSelectorMiddleware(model=plain, max_tools=SELECTED))
        tools = [
            StructuredTool(
                name=tool["name"], description=tool["description"], args_schema=tool["parameters"],
                coroutine=self.performs(tool),
            )
            for tool in self.tools
        ]  # fmt: skip
        middleware = [chosen, *middleware]
        self.agent = create_agent(
            model, tools, system_prompt=system, middleware=middleware, checkpointer=InMemorySaver()
        )

    async def say(self, session: str, text: str, *, cheap: bool) -> str:
        """Invoke the graph on a thread."""
        self.turned = cheap
        config: Any = {"configurable": {"thread_id": session}, "recursion_limit": 200}
        found = await self.agent.ainvoke({"messages": [{"role": "user", "content": text}]}, config)
        return found["messages"][-1].text


if __name__ == "__main__":
    main(LangGraph)
