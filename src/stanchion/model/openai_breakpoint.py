"""OpenAI's cache breakpoints: on which requests one is said, and how. Source: OpenAI, "Prompt caching"; models before gpt-5.6 refuse them."""

from __future__ import annotations

from typing import Any, Final

from stanchion.core.caching import cache_rules
from stanchion.core.message import ModelRequest

BREAKPOINT: Final[dict[str, Any]] = {"prompt_cache_breakpoint": {"mode": "explicit"}}
"""The field of a content part that ends what is to be kept."""


def breaks_after_system(request: ModelRequest) -> bool:
    """Say whether what stands before the conversation is to be kept apart, and the model takes a breakpoint for that."""
    if not any(mark.message < 0 for mark in request.cache_marks):
        return False
    rules = cache_rules("openai", request.model)
    return rules is not None and rules.kind == "breakpoints"
