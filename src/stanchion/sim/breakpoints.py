"""OpenAI's cache breakpoints in a request: where they stand, and that older models do not know them. Source: OpenAI, "Prompt caching"."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stanchion.core.caching import LONG_TTL, cache_rules
from stanchion.sim.body import Field
from stanchion.sim.exchange import Refusal
from stanchion.sim.tokens import Piece

NAME = "prompt_cache_breakpoint"
OPTIONS = "prompt_cache_options"


def breakpoint_of(part: Field) -> str:
    """Read whether a content part ends what is to be kept: a word, or ""."""
    return part.get(NAME).get("mode").one_of("explicit") if part.has(NAME) else ""


def without_breakpoint(part: Field) -> dict[str, Any]:
    """Give a content part as it is without its breakpoint, which is no part of the prompt."""
    return {name: value for name, value in part.object().items() if name != NAME}


def check_breakpoints(top: Field, model: str, pieces: Sequence[Piece]) -> None:
    """Refuse what a model does not know. Raises `Refusal`."""
    if top.has(OPTIONS):
        options = top.get(OPTIONS)
        if options.has("mode"):
            options.get("mode").one_of("implicit", "explicit")
        if options.has("ttl"):
            options.get("ttl").one_of("30m", LONG_TTL)
    elif not any(piece.cache_ttl for piece in pieces):
        return
    rules = cache_rules("openai", model)
    if rules is None or rules.kind != "breakpoints":
        name = OPTIONS if top.has(OPTIONS) else NAME
        raise Refusal(
            f"Unsupported parameter: '{name}' is not supported with this model.",
            param=name,
            code="unsupported_parameter",
        )
