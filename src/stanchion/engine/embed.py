"""Ask for vectors, within what was reserved for them, and say in events what came of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import msgspec

from stanchion.core import event as ev
from stanchion.core.embedding import EmbeddingModel, stored
from stanchion.core.errors import ModelError
from stanchion.core.message import RUNTIME, Text, Usage
from stanchion.core.money import cost
from stanchion.loop.effect import CallTool, Embed, EmbedTexts, backoff_s
from stanchion.loop.embed import lacking
from stanchion.model.embedding import Embedded, Embedder
from stanchion.model.failure import failure, is_unbilled

TOOL_S = 10.0
"""So long does a tool of memory wait for its vector at most, and not to its deadline: without one it goes by words."""


async def embedded(embedder: Embedder | None, texts: Sequence[str], left_s: float) -> Embedded:
    """Ask once, within `left_s` seconds. Raises `ModelError`, whatever the embedder raises."""
    if embedder is None:
        raise failure("unsupported", "no embedder is bound here; give one to the agent's memory", sent=False)
    try:
        async with asyncio.timeout(max(left_s, 0.001)):
            said = await embedder.embed(texts)
        made = said if isinstance(said, Embedded) else Embedded(said)
        vectors = [[float(number) for number in vector] for vector in made.vectors]
    except TimeoutError as error:
        raise failure("timeout_total", f"no vectors came within {left_s:.3g} s") from error
    except ModelError:
        raise
    except Exception as error:  # code of an agent's author
        raise ModelError(f"{type(error).__name__}: {error}", code="garbled", retryable=False) from error
    if len(vectors) != len(texts) or not all(vectors):
        raise ModelError(f"{len(vectors)} vectors for {len(texts)} texts", code="garbled", retryable=False)
    return Embedded(vectors, made.usage)


def bill(model: EmbeddingModel, reserved: int, usage: Usage | None) -> int:
    """What vectors cost (nano-dollars); where it was not said, what was reserved for them."""
    return reserved if usage is None else cost(model.price, usage)


class CallVector:
    """The vector of what a call of a tool of memory looks for or writes, and what it cost."""

    def __init__(self, effect: CallTool, embedder: Embedder | None) -> None:
        self._asked = effect.embed
        self._embedder = embedder
        self.lacked = effect.lacked
        self.cost = 0
        self.usage: Usage | None = None if effect.embed is None else Usage()

    async def get(self, left_s: float) -> Sequence[float]:
        """Ask for it; empty: there is none to be had."""
        asked = self._asked
        if asked is None:
            return ()
        self.cost, self.usage = asked.reserved, None
        try:
            said = await embedded(self._embedder, [asked.text], min(left_s, TOOL_S))
        except ModelError as error:
            self.failed(asked, error)
            return ()
        self.came(asked, said.usage)
        return said.vectors[0]

    def came(self, asked: Embed, usage: Usage | None) -> None:
        """Take what it was billed."""
        self.cost, self.usage = bill(asked.model, asked.reserved, usage), usage

    def failed(self, asked: Embed, error: ModelError) -> None:
        """Take why there is none."""
        self.cost, self.usage = 0 if is_unbilled(error) else asked.reserved, None
        self.lacked = lacking(asked.model, error.code)

    def settled(self, event: ev.ToolCallFinished | ev.ToolCallFailed) -> list[ev.Event]:
        """Say with a call's outcome what its vector cost."""
        told = msgspec.structs.replace(event, cost=self.cost, usage=self.usage)
        if isinstance(told, ev.ToolCallFinished):
            told = msgspec.structs.replace(told, lacked=self.lacked)
        asked = self._asked
        return [told] if asked is None else [told, *_overrun(asked.turn, asked.reserved, self.cost)]


def made(effect: EmbedTexts, said: Embedded, began_s: float) -> list[ev.Event]:
    """Settle an attempt by what the model answered."""
    billed = bill(effect.model, effect.reserved, said.usage)
    done = ev.EmbeddingMade(
        attempt=effect.attempt,
        cost=billed,
        usage=said.usage,
        took_ms=int((time.monotonic() - began_s) * 1000),
        parts=stored(effect.texts, said.vectors),
    )
    return [done, *_overrun(0, effect.reserved, billed)]


def failed(effect: EmbedTexts, error: ModelError, draw: float, now_ms: int) -> list[ev.Event]:
    """Say that an attempt failed. What may have been billed is, at its bound."""
    wait_s = backoff_s(effect.retry, effect.tries, draw, error.retry_after_s)
    return [
        ev.EmbeddingFailed(
            attempt=effect.attempt,
            code=error.code,
            retryable=error.retryable,
            retry_at_ms=now_ms + int(wait_s * 1000) if error.retryable else 0,
            cost=0 if is_unbilled(error) else effect.reserved,
            usage=error.usage,
            status=error.status,
            parts=(Text(str(error)[:2000], RUNTIME),),
        )
    ]


def _overrun(turn: int, reserved: int, billed: int) -> list[ev.Event]:
    return [ev.BudgetOverrun(turn=turn, reserved=reserved, cost=billed)] if billed > reserved else []
