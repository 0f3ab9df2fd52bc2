# pyright: basic, reportMissingImports=false
"""The agent in LangGraph: `create_agent` with a PostgreSQL checkpointer."""

from __future__ import annotations

from typing import Annotated

from langchain.agents import AgentState, create_agent
from langchain.agents.middleware import ModelCallLimitMiddleware
from langchain.tools import tool
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import AIMessage, AIMessageChunk, AnyMessage
from langchain_core.tools import InjectedToolCallId
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.graph.message import _messages_delta_reducer
from line import OnText, Subject, main
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool
from tools import IDENTITY, MAX_OUTPUT_TOKENS, MODEL, look_up, pay_back, write_note


@tool
async def lookup(order: str) -> str:
    """Look an order up."""
    return await look_up(order)


@tool
async def refund(order: str, call: Annotated[str, InjectedToolCallId]) -> str:
    """Pay an order back."""
    return await pay_back(order, f"{order}:{call}")


@tool
async def note(order: str) -> str:
    """Write a note on an order."""
    return await write_note(order)


class Differences(AgentState):
    """Messages are stored as what each step adds (beta)."""

    messages: Annotated[list[AnyMessage], DeltaChannel(_messages_delta_reducer)]


class LangGraph(Subject):
    """A checkpoint after every step: before the next begins ("sync"), or while it runs ("async", the default)."""

    async def open(self) -> None:
        """Open the pool, make the tables, build the graph."""
        kwargs = {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row}
        self.pool = AsyncConnectionPool(self.spec["dsn"], max_size=20, kwargs=kwargs, open=False)
        await self.pool.open()
        saver = AsyncPostgresSaver(self.pool)
        await saver.setup()
        calls = self.spec.get("limit_calls")
        self.agent = create_agent(
            ChatAnthropic(model=MODEL, max_tokens=MAX_OUTPUT_TOKENS),
            [lookup, refund, note],
            system_prompt=IDENTITY,
            checkpointer=saver,
            middleware=[ModelCallLimitMiddleware(run_limit=calls, exit_behavior="error")] if calls else [],
            **self._state_schema(),
        )

    def _state_schema(self) -> dict:
        """Keep messages as their differences, where asked for (beta)."""
        if self.spec["variant"] != "delta":
            return {}
        return {"state_schema": Differences}

    async def run(self, name: str, on_text: OnText) -> None:
        """Stream the graph on a thread of this name."""
        await self._stream({"messages": [{"role": "user", "content": self.spec["prompt"].format(name)}]}, name, on_text)

    async def resume(self, name: str, on_text: OnText) -> None:
        """Go on from the last checkpoint: the same thread, and no input."""
        await self._stream(None, name, on_text)

    async def _stream(self, asked: dict | None, name: str, on_text: OnText) -> None:
        durability = {"durability": "sync"} if self.spec["variant"] else {}
        config = {"configurable": {"thread_id": name}, "recursion_limit": 10_000}
        async for chunk, _ in self.agent.astream(asked, config, stream_mode="messages", **durability):
            if isinstance(chunk, AIMessageChunk) and (text := chunk.text):
                on_text(text)

    async def state(self, name: str) -> str:
        """Look at the thread's last checkpoint: over where nothing is next and the model had the last word."""
        found = await self.agent.aget_state({"configurable": {"thread_id": name}})
        messages = found.values.get("messages")
        last = messages[-1] if messages else None
        over = isinstance(last, AIMessage) and not last.tool_calls  # pyright: ignore[reportOptionalMemberAccess]
        return "done" if over and not found.next else "open"

    async def close(self) -> None:
        """Close the pool."""
        await self.pool.close()


if __name__ == "__main__":
    main(LangGraph)
