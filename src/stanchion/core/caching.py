"""How providers cache the beginning of a request, as data: what the planner goes by, and what the simulated provider bills by.

Sources: Anthropic, "Prompt caching" (breakpoints, minimum, lookback of 20 blocks, lives of 5 minutes and an hour); OpenAI, "Prompt
caching" (automatic from 1,024 tokens on, in steps of 128, 5 to 10 minutes, 24 hours where it is asked for). Read in December 2026.
"""

from __future__ import annotations

import re
from typing import Literal

import msgspec


class CacheRules(msgspec.Struct, frozen=True):
    """The rules of one family of models."""

    name: str
    kind: Literal["marked", "automatic"]
    """"marked": what the request marks is kept; "automatic": every request is."""
    minimum: int
    """A prefix of fewer tokens is not kept."""
    marks: int = 0
    """How many marks a request may have."""
    lookback: int = 0
    """How many blocks before a mark are looked at for what was kept."""
    step: int = 1
    """What is read is a multiple of so many tokens."""
    short_s: float = 300.0
    """How long something is kept after it was last used."""
    long_s: float = 3600.0
    """.. where the long life is asked for."""


_ANTHROPIC = (
    (re.compile(r"haiku-4|opus-4-[5-9]|opus-5"), 4_096),
    (re.compile(r"sonnet-4-6|haiku-3|3-haiku|3-5-haiku|haiku-5"), 2_048),
    (re.compile(r""), 1_024),
)


def cache_rules(provider: str, model: str) -> CacheRules | None:
    """Find the rules of a model; None: nothing is known of a cache."""
    name = model.lower().replace(".", "-")
    if provider == "anthropic" or "claude" in name:
        minimum = next(least for pattern, least in _ANTHROPIC if pattern.search(name))
        return CacheRules("anthropic", "marked", minimum, marks=4, lookback=20)
    if provider in ("openai", "openai-chat", "azure") or name.startswith(("gpt-", "o1", "o3", "o4")):
        return CacheRules("openai", "automatic", 1_024, step=128, long_s=86_400.0)
    return None
