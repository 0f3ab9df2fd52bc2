"""Perform an `extract`: ask a model without tools for values, check them by code, and say in events what came of it.

Nothing that the model said beyond the checked values goes further: what is told of a failure is ours.
"""

from __future__ import annotations

import time

import msgspec

from stanchion.core import event as ev
from stanchion.core.bundle import EXTRACT, Route
from stanchion.core.errors import ModelError
from stanchion.core.message import RUNTIME, Label, ModelResponse, Text, ToolCall, ToolResult, text_of
from stanchion.core.money import cost
from stanchion.core.quarantine import Extracted, Value, read_answer
from stanchion.loop.effect import Ask, CallTool, backoff_s
from stanchion.model.client import ModelClient


async def extracted(effect: CallTool, ask: Ask, client: ModelClient, route: Route, left_s: float) -> ModelResponse:
    """Ask the model. Raises `ModelError`, and nothing else of the client's."""
    timeouts = msgspec.structs.replace(route.timeouts, total_s=min(route.timeouts.total_s, max(left_s, 0.001)))
    try:
        return await client.call(ask.request, timeouts=timeouts, on_deltas=None)
    except ModelError:
        raise
    except Exception as error:  # a client that breaks its contract must not take the worker with it
        raise ModelError(f"{effect.tool}: {type(error).__name__}", code="garbled", retryable=False) from error


def finished(effect: CallTool, ask: Ask, route: Route, response: ModelResponse, began_s: float) -> list[ev.Event]:
    """Settle an `extract` by what the model answered."""
    values = _values(ask, response)
    billed = ask.reserved if response.usage is None else cost(route.price, response.usage)
    if isinstance(values, str):
        text, label, outcome = f"Not done: the answer cannot be used: {values}.", RUNTIME, "error"
    else:
        text = msgspec.json.encode(Extracted(ask.wanted.ref, values)).decode()
        label, outcome = Label("tool", EXTRACT, "untrusted", ask.label.secrecy), "ok"
    done = ev.ToolCallFinished(
        call=effect.call,
        outcome=outcome,
        cost=billed,
        took_ms=int((time.monotonic() - began_s) * 1000),
        usage=response.usage,
        parts=(ToolResult(effect.provider_id, effect.tool, text, label, error=outcome == "error"),),
    )
    if billed > ask.reserved:
        return [done, ev.BudgetOverrun(turn=ask.turn, reserved=ask.reserved, cost=billed)]
    return [done]


def _values(ask: Ask, response: ModelResponse) -> dict[str, Value] | str:
    if response.finish != "stop" or any(isinstance(part, ToolCall) for part in response.parts):
        return (
            "it was too long; ask for fewer values" if response.finish == "length" else f"it ended as {response.finish}"
        )
    values = read_answer(text_of(response.parts).strip(), ask.wanted.fields)
    return values if isinstance(values, str) else dict(values)


def failed(
    effect: CallTool, ask: Ask, error: ModelError, draw: float, now_ms: int, *, unbilled: bool
) -> ev.ToolCallFailed:
    """Say that an attempt failed. The provider's words may hold the text that was read, so its code is told and no more."""
    wait_s = backoff_s(effect.retry, effect.attempt, draw, error.retry_after_s)
    return ev.ToolCallFailed(
        call=effect.call,
        attempt=effect.attempt,
        code=error.code,
        retryable=error.retryable,
        retry_at_ms=now_ms + int(wait_s * 1000) if error.retryable else 0,
        cost=0 if unbilled else ask.reserved,
        usage=error.usage,
        parts=(Text(f"Not done: the model that reads the text could not be asked ({error.code}).", RUNTIME),),
    )
