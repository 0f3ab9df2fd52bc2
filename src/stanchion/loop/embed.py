"""What memory has embedded, so that it is searched by meaning: for how much at most, and when without. Pure.

    a tool of memory   reserves for its text in the append of its intent, and is settled with its bill, as an `extract` is
    a run that learns  found --start--> in flight --> made, and it is over
                                           |  ^
                                           v  |  again
                                        failed --> over, without vectors

What has no vector is found by its words. So nothing fails here for want of money or of an answer: a tool goes on without at once, since a
person waits; a run that learns waits for money and tries again first, since what it writes down stays without for good.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from stanchion.core import event as ev
from stanchion.core.bundle import RECALL, Bundle, RetryPolicy
from stanchion.core.embedding import EmbeddingModel, bound_tokens, reservation
from stanchion.core.fact import Operation
from stanchion.core.message import Label
from stanchion.core.state import Embedding, State
from stanchion.loop import limit, remember
from stanchion.loop.effect import Decision, Embed, EmbedTexts, Moment

RETRY = RetryPolicy()
"""Of a run that learns."""
TIMEOUT_MS = 60_000


def lacking(model: EmbeddingModel, code: str) -> str:
    """Say what is done without, as in `RunFinished.degraded`."""
    return f"embedding:{model.name}:{code}"


def of_call(state: State, tool: str, checked: bytes, said: Label | None, bundle: Bundle) -> Embed | str:
    """Say what a call of a tool of memory embeds; or what it lacks for that, "" if there is nothing to embed."""
    model = bundle.memory.embeddings if bundle.memory is not None else None
    text = _text(tool, checked, said) if model is not None and state.user else ""
    if model is None or not text:
        return ""
    tokens = bound_tokens((text,))
    reserved = reservation(model, tokens)
    if state.refused is not None and reserved:
        return lacking(model, "budget")
    if _passes_limit(state, reserved, tokens):
        return lacking(model, "limit")
    return Embed(text, model, state.totals.turns, reserved, tokens)


def reserving(started: ev.ToolCallStarted, asked: Embed, state: State, moment: Moment) -> ev.ToolCallStarted:
    """Reserve with the intent of a call what it may cost."""
    return msgspec.structs.replace(
        started,
        model=asked.model.name,
        reserved=asked.reserved,
        ledgers=limit.windowed(state.ledgers, moment.now_ms) if asked.reserved else (),
        bound_tokens=asked.bound_tokens,
    )


def _text(tool: str, checked: bytes, said: Label | None) -> str:
    asked = msgspec.json.decode(checked, type=dict[str, str])
    if tool == RECALL:
        return asked["query"]
    op = remember.written(tool, asked, said or Label("model"), 0)
    return remember.embedded(op) if op is not None else ""


def _passes_limit(state: State, reserved: int, tokens: int) -> bool:
    """Whether it might pass what is left of the run's own limits."""
    caps, totals = state.caps, state.totals
    under_way = sum(call.bound_tokens for call in state.calls if call.phase == "running")
    if caps.nano_usd and totals.cost + state.reserved + reserved > caps.nano_usd:
        return True
    return bool(caps.input_tokens) and totals.input_tokens + under_way + tokens > caps.input_tokens


def learned(state: State, ops: Sequence[Operation], bundle: Bundle, moment: Moment) -> Decision | str:
    """Have embedded what a run has found; or say what it does without, "" if it has all or needs none."""
    model = bundle.memory.embeddings if bundle.memory is not None else None
    texts = tuple(dict.fromkeys(text for op in ops if (text := remember.embedded(op))))
    known = state.embedding
    if model is None or not texts or (known is not None and known.vectors is not None):
        return ""
    if known is not None and not (known.retryable and known.tries < RETRY.attempts):
        return lacking(model, known.code)
    if known is not None and moment.now_ms < known.retry_at_ms:
        return Decision(wake_at_ms=known.retry_at_ms)
    tokens = bound_tokens(texts)
    reserved = reservation(model, tokens)
    if _refused(state, moment):
        return lacking(model, "budget")
    if _passes_limit(state, reserved, tokens):
        return lacking(model, "limit")
    return _start(state, known, model, texts, reserved, tokens, moment)


def _refused(state: State, moment: Moment) -> bool:
    """Whether a reservation was refused that is not waited for any more."""
    refused = state.refused
    return refused is not None and (refused.hard or moment.now_ms - refused.since_ms >= state.caps.budget_wait_s * 1000)


def _start(
    state: State,
    known: Embedding | None,
    model: EmbeddingModel,
    texts: tuple[str, ...],
    reserved: int,
    tokens: int,
    moment: Moment,
) -> Decision:
    started = ev.EmbeddingStarted(
        attempt=known.attempt + 1 if known is not None else 1,
        model=model.name,
        texts=len(texts),
        reserved=reserved,
        ledgers=limit.windowed(state.ledgers, moment.now_ms) if reserved else (),
        bound_tokens=tokens,
        deadline_ms=moment.now_ms + TIMEOUT_MS,
    )
    tries = known.tries + 1 if known is not None else 1
    effect = EmbedTexts(started.attempt, texts, model, started.deadline_ms, reserved, tries, RETRY)
    return Decision(events=(started,), effects=(effect,))


def lost(state: State, moment: Moment) -> list[ev.Event]:
    """Write off an attempt of a worker that is gone. It may be billed, so it is, at its bound."""
    known = state.embedding
    if known is None or not known.in_flight or known.epoch >= moment.epoch:
        return []
    return [
        ev.EmbeddingFailed(
            attempt=known.attempt, code="lost", retryable=True, retry_at_ms=moment.now_ms, cost=known.reserved
        )
    ]
