# pyright: basic, reportMissingImports=false
"""The agent in Pydantic AI, made durable by DBOS: each model call and each tool call is a step of a workflow."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterable, AsyncIterator
from decimal import Decimal
from typing import Any

from anthropic import AsyncAnthropic
from dbos import DBOS, SetWorkflowID
from line import OnText, Subject, main
from pydantic_ai import Agent, PartDeltaEvent, PartStartEvent, RunContext, TextPart, TextPartDelta, UsageLimits
from pydantic_ai.durable_exec.dbos import DBOSDurability
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from tools import IDENTITY, MAX_OUTPUT_TOKENS, MODEL, look_up, pay_back, write_note

LISTENERS: dict[str, OnText] = {}
LIMITS = UsageLimits(request_limit=None)
DURABLE_STREAM = False


async def on_events(ctx: RunContext[str], events: AsyncIterable[Any]) -> None:
    """Hand the text on as it comes; with a durable stream, through the database."""
    async for event in events:
        match event:
            case PartStartEvent(part=TextPart(content=text)) | PartDeltaEvent(delta=TextPartDelta(content_delta=text)):
                if not text:
                    continue
                if DURABLE_STREAM:
                    await DBOS.write_stream_async("text", text)
                elif listener := LISTENERS.get(ctx.deps):
                    listener(text)


agent = Agent(
    AnthropicModel(
        MODEL, provider=AnthropicProvider(anthropic_client=AsyncAnthropic())
    ),  # else each run makes a client
    name="support",
    instructions=IDENTITY,
    deps_type=str,
    model_settings={"max_tokens": MAX_OUTPUT_TOKENS},
    capabilities=[DBOSDurability(event_stream_handler=on_events)],
)


@agent.tool_plain
@DBOS.step()
async def lookup(order: str) -> str:
    """Look an order up."""
    return await look_up(order)


@agent.tool
async def refund(ctx: RunContext[str], order: str) -> str:
    """Pay an order back."""
    return await refund_step(order, f"{order}:{ctx.tool_call_id}")


@DBOS.step()
async def refund_step(order: str, key: str) -> str:
    """Pay an order back, as a step."""
    return await pay_back(order, key)


@agent.tool_plain
@DBOS.step()
async def note(order: str) -> str:
    """Write a note on an order."""
    return await write_note(order)


@DBOS.workflow()
async def support(name: str, prompt: str) -> str:
    """One run of the agent."""
    result = await agent.run(prompt, deps=name, usage_limits=LIMITS)
    return result.output


class PydanticAI(Subject):
    """The output of every step is stored before the next."""

    again = "by itself"

    async def open(self) -> None:
        """Launch DBOS; it goes on with the workflows of this executor that it finds."""
        global LIMITS, DURABLE_STREAM  # a workflow's code is its module's
        if usd := self.spec.get("limit_usd_per_run"):
            LIMITS = UsageLimits(request_limit=None, cost_limit=Decimal(usd))
        DURABLE_STREAM = self.stream_variant = self.spec["variant"] == "durable_stream"
        config: Any = {  # its type differs from version to version
            "name": "bench",
            "system_database_url": self.spec["dsn"].replace("postgresql:", "postgresql+psycopg:"),
            "application_version": "1",
            "executor_id": self.spec.get("worker", "local"),
            "log_level": "ERROR",
            "run_admin_server": False,
            "enable_otlp": False,
        }
        DBOS(config=config)
        DBOS.launch()

    async def run(self, name: str, on_text: OnText) -> None:
        """Start the workflow under its name, and wait for it."""
        LISTENERS[name] = on_text
        with SetWorkflowID(name):
            handle = await DBOS.start_workflow_async(support, name, self.spec["prompt"].format(name))
        await handle.get_result()
        LISTENERS.pop(name)

    async def state(self, name: str) -> str:
        """Look at the workflow's row."""
        found = await DBOS.get_workflow_status_async(name)
        return {"SUCCESS": "done", "ERROR": "failed"}.get(found.status if found else "", "open")

    async def follow(self, name: str, after: int) -> AsyncIterator[tuple[int, str]]:
        """Read the durable stream of the workflow from a place on."""
        while await DBOS.get_workflow_status_async(name) is None:  # noqa: ASYNC110 - it was begun a moment ago
            await asyncio.sleep(0.01)
        async for text in DBOS.read_stream_async(name, "text", offset=after):
            after += 1
            yield after, text

    async def close(self) -> None:
        """Let DBOS go."""
        await asyncio.to_thread(DBOS.destroy)


if __name__ == "__main__":
    os.environ.setdefault("DBOS_DISABLE_APP_VERSION_CHECK", "1")
    main(PydanticAI)
