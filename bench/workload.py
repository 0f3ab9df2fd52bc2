"""What the benchmarks run: an agent with one tool a turn, and the simulated provider that streams its turns.

A turn is a model call of 170 events (one every 20 ms unless said otherwise) that ends in a tool call, and that tool
call. The last turn's tool ends the run, so a run of N turns is N model calls and N tool calls.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from stanchion.agent import Agent, Approve, Limits, Model
from stanchion.core.bundle import Timeouts
from stanchion.core.message import MODEL, ModelRequest, ModelResponse, Text, ToolCall, Usage
from stanchion.core.money import price_usd
from stanchion.model.client import OnDeltas
from stanchion.sim import Pacing, Reply, ReplyCall, Rule, Script, SimProcess, When, start_sim_process
from stanchion.toolbox.function import tool

EVENTS = 170
GAP_S = 0.020
TURN_S = EVENTS * GAP_S
WARM = "warming up"
"""An input that says this is answered without pauses."""

_WORDS = "the order was packed on monday and left our house by truck before noon "
TEXT = (_WORDS * 20)[:800]
_RESULT = {"lines": [{"sku": f"SKU-{n:05}", "title": "A thing of good make", "qty": n % 4 + 1} for n in range(9)]}


def agent(*, tool_s: float = 0.0, limits: Limits | None = None) -> Agent:
    """Make the agent whose tools take `tool_s` each."""

    @tool(effect="read", name="lookup")
    async def lookup(order: str) -> dict[str, Any]:
        """Look an order up."""
        await asyncio.sleep(tool_s)
        return {"order": order, **_RESULT}

    @tool(effect="read", name="hand_over", ends_run=True)
    async def hand_over(order: str) -> dict[str, Any]:
        """Give the conversation to a person."""
        await asyncio.sleep(tool_s)
        return {"order": order, **_RESULT}

    return Agent(
        name="support",
        identity="You support customers. " + _WORDS * 10,
        tools=[lookup, hand_over],
        model=Model("anthropic:bench", price=price_usd(input="1", output="5"), max_output_tokens=400),
        limits=limits or Limits(turns=1_000, usd="100"),
    )


def asking_agent() -> Agent:
    """Make the agent whose only tool waits for a person."""

    @tool(effect="irreversible", name="refund")
    async def refund(order: str) -> str:
        """Pay an order back."""
        return f"paid {order} back"

    return Agent(
        name="support",
        identity="You support customers. " + _WORDS * 10,
        tools=[refund],
        model=Model("anthropic:bench", price=price_usd(input="1", output="5"), max_output_tokens=1_000),
        approvals=[Approve(effect="irreversible")],
    )


class ProposesRefund:
    """A model client that proposes a refund at once, and keeps nothing."""

    def encode(self, request: ModelRequest) -> bytes:
        """Encode nothing: no request leaves."""
        return b""

    async def call(
        self, request: ModelRequest, *, timeouts: Timeouts, on_deltas: OnDeltas | None = None
    ) -> ModelResponse:
        """Propose it."""
        parts = (Text(TEXT, MODEL), ToolCall("call_1", "refund", '{"order":"A-1"}', MODEL))
        return ModelResponse(parts, "tool_calls", Usage(500, output_tokens=220), model=request.model)

    async def aclose(self) -> None:
        """Nothing is open."""


def script(turns: int, *, gap_s: float = GAP_S) -> Script:
    """Make the script of runs of so many turns."""
    paced = Pacing(events=EVENTS, interval_s=gap_s)
    rules: list[Rule] = []
    for pacing, contains in ((Pacing(events=EVENTS), WARM), (paced, "")):
        for name, when in (("lookup", tuple(range(turns - 1))), ("hand_over", None)):
            call = ReplyCall(name=name, arguments={"order": "A-${turn}"})
            rules.append(
                Rule(when=When(turn=when, contains=contains), reply=Reply(text=TEXT, calls=(call,), pacing=pacing))
            )
    return Script(rules=tuple(rules))


@asynccontextmanager
async def provider(played: Script) -> AsyncGenerator[SimProcess]:
    """Run the simulated provider in a process of its own."""
    process = await start_sim_process(played)
    try:
        yield process
    finally:
        await process.stop()


def environment(base_url: str) -> Mapping[str, str]:
    """Point the agent's provider at the simulated one."""
    return {"ANTHROPIC_BASE_URL": base_url, "ANTHROPIC_API_KEY": "sim-key"}
