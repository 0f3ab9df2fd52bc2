"""Have a model sum up what is left out of a prompt, and say in events what came of it. What it is used for, the loop decides."""

from __future__ import annotations

import time

import msgspec

from stanchion.core import event as ev
from stanchion.core.bundle import Route
from stanchion.core.errors import ModelError
from stanchion.core.message import MODEL, RUNTIME, ModelResponse, Text, ToolCall, text_of
from stanchion.core.money import cost
from stanchion.loop.effect import Summarise, backoff_s
from stanchion.model.client import ModelClient


async def summary(effect: Summarise, client: ModelClient, route: Route, left_s: float) -> ModelResponse:
    """Ask once, within `left_s` seconds. Raises `ModelError`, and nothing else of the client's."""
    timeouts = msgspec.structs.replace(route.timeouts, total_s=min(route.timeouts.total_s, max(left_s, 0.001)))
    try:
        return await client.call(effect.request, timeouts=timeouts, on_deltas=None)
    except ModelError:
        raise
    except Exception as error:  # a client that breaks its contract must not take the worker with it
        raise ModelError(f"{type(error).__name__}: {error}", code="garbled", retryable=False) from error


def written(effect: Summarise, route: Route, response: ModelResponse, began_s: float) -> list[ev.Event]:
    """Settle an attempt by what the model answered. One that was cut is as good as it goes; one that refused says nothing."""
    billed = effect.reserved if response.usage is None else cost(route.price, response.usage)
    usable = response.finish in ("stop", "length") and not any(isinstance(p, ToolCall) for p in response.parts)
    text = text_of(response.parts).strip() if usable else ""
    done = ev.SummaryWritten(
        attempt=effect.attempt,
        cost=billed,
        usage=response.usage,
        took_ms=int((time.monotonic() - began_s) * 1000),
        parts=(Text(text, MODEL),) if text else (),
    )
    if billed > effect.reserved:
        return [done, ev.BudgetOverrun(turn=0, reserved=effect.reserved, cost=billed)]
    return [done]


def failed(effect: Summarise, route: Route, error: ModelError, draw: float, now_ms: int, *, unbilled: bool) -> ev.Event:
    """Say that an attempt failed."""
    wait_s = backoff_s(route.retry, effect.tries, draw, error.retry_after_s)
    return ev.CompactionFailed(
        attempt=effect.attempt,
        code=error.code,
        retryable=error.retryable,
        retry_at_ms=now_ms + int(wait_s * 1000) if error.retryable else 0,
        cost=0 if unbilled else effect.reserved,
        usage=error.usage,
        status=error.status,
        parts=(Text(str(error)[:2000], RUNTIME),),
    )
