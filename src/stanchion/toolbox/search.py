"""The check of what an agent says of its catalogue, and of the tool that must be called, against its tools."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any, cast

import msgspec

from stanchion.core.bundle import BUILT_IN, ToolSearch, ToolSpec
from stanchion.core.errors import ConfigError

MAX_RESULTS = 50
LEAST_CHARS = 500


def checked_search(agent: str, search: ToolSearch | None, tools: Mapping[str, ToolSpec]) -> ToolSearch | None:
    """Check an agent's `search`. Raises `ConfigError` that names the setting."""
    if search is None:
        return None
    for problem in _problems(search, tools):
        raise ConfigError(f"agent {agent!r}: search.{problem}")
    return msgspec.structs.replace(search, shown=tuple(search.shown))


def check_choice(agent: str, choice: str, tools: Mapping[str, ToolSpec], search: ToolSearch | None) -> None:
    """Check which tool an agent's model must call. Raises `ConfigError`."""
    if choice in ("auto", "required", "none"):
        return
    if choice not in tools:
        raise ConfigError(f"agent {agent!r}: tool_choice {choice!r} is none of its tools")
    if search is not None and choice not in (*BUILT_IN, *search.shown):
        raise ConfigError(f"agent {agent!r}: tool_choice {choice!r} is not shown; add it to search.shown")


def _problems(search: ToolSearch, tools: Mapping[str, ToolSpec]) -> Iterator[str]:
    shown = cast("object", search.shown)
    if isinstance(shown, str) or not isinstance(shown, tuple | list):
        yield f'shown must be names of tools, as in ("look_up",), not {shown!r}'
        return
    own = [name for name in tools if name not in BUILT_IN]
    if not own:
        yield "shown: the agent has no tools to search"
    for name in cast("tuple[Any, ...]", shown):
        if not isinstance(name, str):
            yield f"shown: {name!r} is no name of a tool"
        elif name in BUILT_IN and name in tools:
            yield f"shown: {name!r} is built in, and always shown; leave it out"
        elif name not in tools:
            close = difflib.get_close_matches(name, own, n=1)
            yield f"shown: the agent has no tool {name!r}" + (f"; did you mean {close[0]!r}?" if close else "")
    for name, least, most in (("results", 1, MAX_RESULTS), ("max_chars", LEAST_CHARS, 100_000)):
        value = getattr(search, name)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            yield f"{name} must be a whole number from {least} to {most:,}, not {value!r}"
