# pyright: basic, reportMissingImports=false
"""The agent in the OpenAI Agents SDK, with the session store that keeps conversations in PostgreSQL."""

from __future__ import annotations

from agents import Agent, ModelSettings, RunConfig, Runner, function_tool, set_tracing_disabled
from agents.extensions.memory import SQLAlchemySession
from agents.tool_context import ToolContext
from line import OnText, Subject, main
from openai.types.responses import ResponseTextDeltaEvent
from sqlalchemy.ext.asyncio import create_async_engine
from tools import IDENTITY, MAX_OUTPUT_TOKENS, MODEL, look_up, pay_back, write_note


@function_tool
async def lookup(order: str) -> str:
    """Look an order up."""
    return await look_up(order)


@function_tool
async def refund(ctx: ToolContext, order: str) -> str:
    """Pay an order back."""
    return await pay_back(order, f"{order}:{ctx.tool_call_id}")


@function_tool
async def note(order: str) -> str:
    """Write a note on an order."""
    return await write_note(order)


class OpenAIAgents(Subject):
    """A session store: the items of a turn are stored when the turn is over."""

    async def open(self) -> None:
        """Make the engine, the tables, the agent."""
        set_tracing_disabled(True)  # its traces go to a service of the vendor's
        url = self.spec["dsn"].replace("postgresql:", "postgresql+asyncpg:")
        self.engine = create_async_engine(url, pool_size=20, pool_timeout=300)
        await SQLAlchemySession("tables", engine=self.engine, create_tables=True).get_items()
        self.agent = Agent(
            name="support",
            instructions=IDENTITY,
            tools=[lookup, refund, note],
            model=MODEL,
            model_settings=ModelSettings(max_tokens=MAX_OUTPUT_TOKENS),
        )

    async def run(self, name: str, on_text: OnText) -> None:
        """Stream a run in a session of this name."""
        session = SQLAlchemySession(name, engine=self.engine)
        turns = self.spec.get("limit_calls") or 10_000
        prompt = self.spec["prompt"].format(name)
        config = RunConfig(tracing_disabled=True)
        result = Runner.run_streamed(self.agent, prompt, session=session, max_turns=turns, run_config=config)
        async for event in result.stream_events():
            if event.type == "raw_response_event" and isinstance(event.data, ResponseTextDeltaEvent):
                on_text(event.data.delta)

    async def state(self, name: str) -> str:
        """Look at the session's last item: there is nothing else that tells how a run stands."""
        items = await SQLAlchemySession(name, engine=self.engine).get_items()
        return (
            "done" if items and items[-1].get("type") == "message" and items[-1].get("role") == "assistant" else "open"
        )

    async def close(self) -> None:
        """Close the pool."""
        await self.engine.dispose()


if __name__ == "__main__":
    main(OpenAIAgents)
