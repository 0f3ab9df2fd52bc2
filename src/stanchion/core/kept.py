"""What a provider's cache should have of a session's next request, by what was sent before, when, and the rules; and why not. Pure.

It is an estimate before the call; what was read, its usage says after it. Where less was read than the session had sent before, one of
`WORDS` says why.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from stanchion.core.caching import CacheRules, cache_rules
from stanchion.core.event import ModelCallStarted
from stanchion.core.state import State

Unkept = Literal["", "reset", "compaction", "model", "life", "small"]
"""All should be read; what stands first has changed; the conversation was compacted; another model was asked; the life was over; too short to be kept."""
WORDS: dict[str, str] = {
    "reset": "what stands before the conversation changed (another bundle)",
    "compaction": "the conversation was compacted since",
    "model": "another model was asked before",
    "life": "the cache's life was over",
    "small": "too short for the provider to keep",
    "unknown": "the provider did not have it; nothing of ours says why",
}
TOLERANCE = 0.05
"""A provider counts a prefix a little differently as its end moves; less than this is no miss."""


def life_ms(rules: CacheRules, *, long: bool) -> int:
    """Give how long a prefix lives, in milliseconds."""
    return int((rules.long_s if long else rules.short_s) * 1000)


def why_not(state: State, provider: str, model: str, now_ms: int) -> Unkept:
    """Say why what a session sent last cannot be read by its next request; "": it can, or nothing was sent."""
    rules = cache_rules(provider, model)
    if rules is None or not state.kept_tokens:
        return ""
    if state.prompted != state.bundle:
        return "reset"
    if state.kept_by != f"{provider}:{model}":
        return "model"
    if now_ms - max(state.kept_ms, state.refreshed_ms) >= life_ms(rules, long=state.kept_long):
        return "life"
    if state.kept_void:
        return "compaction"
    return "small" if state.kept_tokens < rules.minimum else ""


def expected(state: State, provider: str, model: str, now_ms: int) -> int:
    """Expect how many tokens of a session's next request are read, by what it sent before. An estimate."""
    rules = cache_rules(provider, model)
    if rules is None or why_not(state, provider, model, now_ms):
        return 0
    return state.kept_tokens // rules.step * rules.step


def predicted(started: ModelCallStarted, state: State, now_ms: int) -> ModelCallStarted:
    """Say with a call that is about to leave what should be read of what its session sent before, and else why not."""
    provider, model = started.provider, started.model
    return msgspec.structs.replace(
        started,
        cache_expected=expected(state, provider, model, now_ms),
        cache_sent=state.kept_tokens,
        cache_unkept=why_not(state, provider, model, now_ms),
        cache_refreshed_ms=state.refreshed_ms,
    )
