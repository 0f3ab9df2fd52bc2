"""How providers cache the beginning of a request, as data: what the planner goes by, and what the simulated provider bills by.

Sources, read in December 2026. Anthropic, "Prompt caching": breakpoints, minimum, lookback of 20 blocks, lives of 5 minutes and an hour.
OpenAI, "Prompt caching". Before gpt-5.6: automatic from 1,024 tokens on, the longest prefix in steps of 128; `prompt_cache_retention`
is "in_memory" (5 to 10 minutes) or "24h", which is the default of organisations that may be retained for. From gpt-5.6 on: writes
are priced (1.25 times the input; 2.5 times for 12 hours), only what ends at a breakpoint is kept, for `prompt_cache_options.ttl` of 30 minutes
or 12 hours; one breakpoint stands by itself at the latest user or tool message, others where a content part of the input says so.
Google, "Context caching": implicit caching of Gemini 2.5 and later, from 2,048 or 4,096 tokens on; nothing is marked, no write is priced, and for how long
something is kept is not published.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from stanchion.core.message import Usage


class CacheRules(msgspec.Struct, frozen=True):
    """The rules of one family of models."""

    name: str
    kind: Literal["marked", "automatic", "breakpoints"]
    """"marked": what the request marks is kept; "automatic": every request is; "breakpoints": the end of every request is, and what it
    marks besides."""
    minimum: int
    """A prefix of fewer tokens is not kept."""
    marks: int = 0
    """How many marks a request may have."""
    lookback: int = 0
    """How many blocks before a mark are looked at for what was kept; 0: all."""
    step: int = 1
    """What is read is a multiple of so many tokens."""
    short_s: float = 300.0
    """How long something is kept after it was last used."""
    long_s: float = 3600.0
    """.. where the long life is asked for."""
    promised: bool = True
    """The provider says for how long. Else these are guesses, and nothing is read just to prolong them."""


_ANTHROPIC = (
    (re.compile(r"haiku-4|opus-4-[5-9]|opus-5"), 4_096),
    (re.compile(r"sonnet-4-6|haiku-3|3-haiku|3-5-haiku|haiku-5"), 2_048),
    (re.compile(r""), 1_024),
)
_GEMINI = ((re.compile(r"gemini-2-5"), 2_048), (re.compile(r"gemini-([3-9]|[1-9]\d)"), 4_096))
_OPENAI = ("openai", "openai-chat", "azure")
_WRITES_PRICED = re.compile(r"gpt-(5-([6-9]|[1-9]\d)\b|[6-9])")
LONG_TTL = "12h"
"""What asks OpenAI for the long life of what ends at a breakpoint."""


def cache_rules(provider: str, model: str) -> CacheRules | None:
    """Find the rules of a model; None: nothing is known of a cache."""
    name = model.lower().replace(".", "-")
    if provider == "anthropic" or "claude" in name:
        minimum = next(least for pattern, least in _ANTHROPIC if pattern.search(name))
        return CacheRules("anthropic", "marked", minimum, marks=4, lookback=20)
    if "gemini-" in name:
        least = next((least for pattern, least in _GEMINI if pattern.search(name)), 0)
        return CacheRules("gemini", "automatic", least, long_s=300.0, promised=False) if least else None
    if provider in _OPENAI and _WRITES_PRICED.match(name):
        return CacheRules("openai-breakpoints", "breakpoints", 1_024, marks=3, short_s=1_800.0, long_s=43_200.0)
    if provider in _OPENAI or name.startswith(("gpt-", "o1", "o3", "o4")):
        return CacheRules("openai", "automatic", 1_024, step=128, long_s=86_400.0)
    return None


def metered(usage: Usage, options: Mapping[str, Any]) -> Usage:
    """Count what was written as long-lived where a request asked for that by an option: OpenAI's usage has one count for both."""
    asked = options.get("prompt_cache_options")
    if not usage.cache_write_tokens or not isinstance(asked, Mapping) or asked.get("ttl") != LONG_TTL:  # pyright: ignore[reportUnknownMemberType]
        return usage
    return msgspec.structs.replace(usage, cache_write_tokens=0, cache_write_long_tokens=usage.cache_write_tokens)
