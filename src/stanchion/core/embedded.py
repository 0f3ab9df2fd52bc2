"""What an attempt to have texts embedded does to a state. Part of the fold: pure and total."""

from __future__ import annotations

from typing import assert_never

import msgspec

from stanchion.core import event as ev
from stanchion.core.state import Embedding, State

_OURS = ("lost", "cancelled")
_with = msgspec.structs.replace

EmbeddingEvent = ev.EmbeddingStarted | ev.EmbeddingFailed | ev.EmbeddingMade


def evolve(state: State, event: EmbeddingEvent, epoch: int) -> State:
    """Give the state after one more event of it."""
    match event:
        case ev.EmbeddingStarted():
            return _started(state, event, epoch)
        case ev.EmbeddingFailed():
            return _failed(state, event)
        case ev.EmbeddingMade():
            return _made(state, event)
        case _:
            assert_never(event)


def _started(state: State, event: ev.EmbeddingStarted, epoch: int) -> State:
    before = state.embedding
    now = Embedding(
        model=event.model,
        attempt=event.attempt,
        tries=before.tries + 1 if before is not None else 1,
        in_flight=True,
        epoch=epoch,
        reserved=event.reserved,
        ledgers=event.ledgers,
        bound_tokens=event.bound_tokens,
    )
    return _with(state, embedding=now, refused=None)


def _failed(state: State, event: ev.EmbeddingFailed) -> State:
    before = state.embedding
    state = _billed(state, event)
    if before is None:
        return state
    now = _with(
        before,
        in_flight=False,
        tries=before.tries - (event.code in _OURS),
        reserved=0,
        code=event.code,
        retryable=event.retryable,
        retry_at_ms=event.retry_at_ms,
    )
    return _with(state, embedding=now)


def _made(state: State, event: ev.EmbeddingMade) -> State:
    before = state.embedding
    state = _billed(state, event)
    if before is None:
        return state
    return _with(state, embedding=_with(before, in_flight=False, reserved=0, vectors=event.parts))


def _billed(state: State, event: ev.EmbeddingFailed | ev.EmbeddingMade) -> State:
    """Count what an attempt cost; one that was billed without a count is taken to have used its bound."""
    usage, known = event.usage, state.embedding
    bound = known.bound_tokens if known is not None and known.in_flight and event.cost else 0
    totals = _with(
        state.totals,
        cost=state.totals.cost + event.cost,
        input_tokens=state.totals.input_tokens + (usage.total_input_tokens if usage else bound),
    )
    return _with(state, totals=totals)
