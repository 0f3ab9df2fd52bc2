"""Waiting for what nothing tells of. Where an event, a task or a stream tells of it, that is awaited instead."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, overload

SOON_S = 20.0
"""How long a test waits for what must happen, on a machine that does other things as well."""
AGAIN_S = 0.02
"""How often it looks."""
T = TypeVar("T")


@overload
async def until(look: Callable[[], Awaitable[T]], met: Callable[[T], object] = ..., *, within_s: float = ...) -> T: ...


@overload
async def until(look: Callable[[], T], met: Callable[[T], object] = ..., *, within_s: float = ...) -> T: ...


async def until(look: Callable[[], Any], met: Callable[[Any], object] = bool, *, within_s: float = SOON_S) -> Any:
    """Look until what is seen will do, and return it. `AssertionError` with what was seen last, if it never does."""
    seen: Any = "nothing: the first look did not end"
    limit = asyncio.timeout(within_s)
    try:
        async with limit:
            while True:
                found = look()
                seen = await found if inspect.isawaitable(found) else found
                if met(seen):
                    return seen
                await asyncio.sleep(AGAIN_S)
    except TimeoutError:
        if not limit.expired():  # the look's own
            raise
        raise AssertionError(f"what was waited for did not come within {within_s:g} s; last seen: {seen!r}") from None
