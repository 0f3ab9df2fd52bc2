"""OpenAI's cache breakpoints: on which requests one is said, and how. Source: OpenAI, "Prompt caching"; models before gpt-5.6 refuse them."""

from __future__ import annotations

from typing import Any, Final

from stanchion.core.caching import cache_rules
from stanchion.core.message import ModelRequest

BREAKPOINT: Final[dict[str, Any]] = {"prompt_cache_breakpoint": {"mode": "explicit"}}
"""The field of a content part that ends what is to be kept."""


def breaks_after_system(request: ModelRequest) -> bool:
    """Say whether what stands before the conversation is to be kept apart, and the model takes a breakpoint for that."""
    return any(mark.message < 0 for mark in request.cache_marks) and _takes_breakpoints(request)


def broken_after(request: ModelRequest) -> int:
    """Name the message before the last one after which a breakpoint is to stand; -1: none. The end of a request is kept unasked."""
    marks = [mark.message for mark in request.cache_marks if 0 <= mark.message < len(request.messages) - 1]
    return marks[-1] if marks and _takes_breakpoints(request) else -1


def end_with_breakpoint(items: list[dict[str, Any]], kind: str) -> None:
    """Put a breakpoint at the end of what the user said last among a message's items. `kind`: the type of a text's part."""
    if not items or items[-1].get("role") != "user":
        return
    content = items[-1]["content"]
    parts: list[dict[str, Any]] = [{"type": kind, "text": content}] if isinstance(content, str) else content
    items[-1]["content"] = [*parts[:-1], {**parts[-1], **BREAKPOINT}]


def _takes_breakpoints(request: ModelRequest) -> bool:
    rules = cache_rules("openai", request.model)
    return rules is not None and rules.kind == "breakpoints"
