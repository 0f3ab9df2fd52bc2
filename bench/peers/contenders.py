"""Who stands on the bill: each framework with its caching as its pages describe it, and the processes they run in."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from bench.floor import CHEAP
from bench.peers.peers import BY_NAME, HERE, Peer
from bench.peers.world import Running
from stanchion.sim import SimProcess


@dataclass(frozen=True, slots=True)
class Contender:
    """A framework and a way to have it cache."""

    name: str
    title: str
    peer: Peer
    anthropic: str
    """What it is told for Anthropic's models; `bill.py` of its folder has the page."""
    openai: str = ""
    """.. for OpenAI's; "": not measured there, as it would be another's row again."""
    variant: str = ""


CONTENDERS = (
    Contender(
        "langgraph", "LangGraph", BY_NAME["langgraph"],
        "`AnthropicPromptCachingMiddleware`", "`prompt_cache_key`, `prompt_cache_retention` or `prompt_cache_options`",
    ),
    Contender(
        "pydantic-ai", "Pydantic AI", BY_NAME["pydantic-ai"],
        "`anthropic_cache`, `anthropic_cache_instructions`, `anthropic_cache_tool_definitions`",
        "`openai_prompt_cache_key`, `openai_prompt_cache_retention`; gpt-5.6: `openai_cache_instructions`, `openai_prompt_cache_options`",
    ),
    Contender(
        "openai-agents", "OpenAI Agents SDK", BY_NAME["openai-agents"],
        "LiteLLM's `cache_control_injection_points`: system prompt, last message",
        "`prompt_cache_key`, `prompt_cache_retention` or `prompt_cache_options`",
    ),
    Contender(
        "agno", "Agno", BY_NAME["agno"],
        "`cache_system_prompt`, `extended_cache_time`", "the provider's fields through `request_params`",
    ),
    Contender(
        "agno-params", "Agno, with Anthropic's `cache_control` by `request_params`", BY_NAME["agno"],
        "beyond its page: Anthropic's own field, handed through", variant="request_params",
    ),
)  # fmt: skip


COMPACTING = (
    CONTENDERS[0],
    Contender(
        "langgraph-4000", "LangGraph, `SummarizationMiddleware`, 4,000 tokens", BY_NAME["langgraph"],
        "as its page has it: `trigger=(\"tokens\", 4000)`, `keep=(\"messages\", 20)`", variant="summary-4000",
    ),
    Contender(
        "langgraph-30000", "LangGraph, `SummarizationMiddleware`, 30,000 tokens", BY_NAME["langgraph"],
        "set by who knows the task: summed up when it is about as long as ours gets", variant="summary-30000",
    ),
    *CONTENDERS[1:],
)  # fmt: skip
"""Who has the long session of 200 turns: those whose library shortens a conversation at the client, and the others as they are."""


@asynccontextmanager
async def chatting(contender: Contender, model: str, sim: SimProcess) -> AsyncGenerator[Running]:
    """Run a contender's process, which has conversations with a model of the simulated provider."""
    environment = {
        "ANTHROPIC_BASE_URL": sim.base_url, "ANTHROPIC_API_URL": sim.base_url, "ANTHROPIC_API_KEY": "sim-key",
        "OPENAI_BASE_URL": sim.openai_base_url, "OPENAI_API_KEY": "sim-key", "LANGSMITH_TRACING": "false",
        "AGNO_TELEMETRY": "false", "OTEL_SDK_DISABLED": "true", "OPENAI_AGENTS_DISABLE_TRACING": "1",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True", "PYTHONWARNINGS": "ignore", "PYTHONPATH": str(HERE / "shared"),
    }  # fmt: skip
    spec = {"model": model, "cheap": CHEAP[model][0], "variant": contender.variant, "environment": environment}
    errors = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115 - it lives as long as the process
    process = await asyncio.create_subprocess_exec(
        str(contender.peer.python), str(HERE / contender.peer.folder / "bill.py"), json.dumps(spec),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=errors, limit=1 << 24,
        env=os.environ | environment,
    )  # fmt: skip
    running = Running(process, errors)
    try:
        await running.answer(120, f"start of {contender.name}")
        yield running
    finally:
        await running.kill()
