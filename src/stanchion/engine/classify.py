"""Ask a classifier about a text, and say in events what came of it."""

from __future__ import annotations

import asyncio

from stanchion.core import event as ev
from stanchion.core.bundle import RetryPolicy
from stanchion.core.errors import ModelError
from stanchion.core.message import RUNTIME, Text
from stanchion.loop.effect import CheckText, backoff_s
from stanchion.model.failure import failure
from stanchion.model.moderation import Classifier, Score

_BACKOFF = RetryPolicy(base_s=0.5, cap_s=8.0)


async def score(effect: CheckText, classifier: Classifier | None, left_s: float) -> Score:
    """Ask once, within `left_s` seconds. Raises `ModelError`, whatever the classifier raises."""
    if classifier is None:
        text = f"no classifier {effect.uses!r} is bound here; add it to the agent's checks"
        raise failure("unsupported", text, sent=False)
    try:
        async with asyncio.timeout(left_s):
            said = await classifier.classify(effect.text, effect.where)
    except TimeoutError as error:
        raise failure("timeout_total", f"{effect.check} did not answer within {left_s:.3g} s") from error
    except ModelError:
        raise
    except Exception as error:  # code of an agent's author
        raise ModelError(f"{type(error).__name__}: {error}", code="garbled", retryable=False) from error
    if not isinstance(said, Score):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ModelError(f"it answered {type(said).__name__}, not a Score", code="garbled", retryable=False)
    return said


def answered(effect: CheckText, said: Score) -> list[ev.Event]:
    """Say what it answered, and what that cost."""
    reason = ", ".join(said.categories) or "it is not allowed"
    found = ev.ContentChecked(
        check=effect.check,
        where=effect.where,
        action="flag" if said.flagged else "pass",
        call=effect.call,
        cost=said.cost_nano_usd,
        of=effect.of,
        attempt=effect.attempt,
        parts=(Text(" ".join(reason.split())[:200], RUNTIME),) if said.flagged else (),
    )
    if said.cost_nano_usd > effect.reserved:
        return [found, ev.BudgetOverrun(turn=0, reserved=effect.reserved, cost=said.cost_nano_usd)]
    return [found]


def failed(effect: CheckText, error: ModelError, draw: float, now_ms: int, *, unbilled: bool) -> list[ev.Event]:
    """Say that it could not be asked. What may have been billed is, at its bound."""
    wait_s = backoff_s(_BACKOFF, effect.tries, draw, error.retry_after_s)
    return [
        ev.CheckFailed(
            check=effect.check,
            where=effect.where,
            of=effect.of,
            attempt=effect.attempt,
            code=error.code,
            retryable=error.retryable,
            retry_at_ms=now_ms + int(wait_s * 1000) if error.retryable else 0,
            cost=0 if unbilled else effect.reserved,
            parts=(Text(str(error)[:2000], RUNTIME),),
        )
    ]
