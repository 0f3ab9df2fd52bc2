"""Tools that were found, where a provider loads them: named by reference in the result, and called like any that is listed. Pure.

The list of tools stays as it is for any model (invariant I8). Elsewhere the result of `find_tools` spells each tool out and the model calls it by
`call_tool`. A provider that loads tools is sent the definitions apart from the list, marked as deferred, and the result refers to them: the model
reads a definition where it is referred to, is held to its form as to any other's, and there is no `call_tool`. What is journaled is the same.

Source: Anthropic, "Tool search tool" (custom implementation; deferred tools and prompt caching), read in December 2026: Claude Opus, Sonnet and
Haiku from 4.5 on.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

import msgspec

from stanchion.core.bundle import CALL_TOOL, FIND_TOOLS
from stanchion.core.message import JsonSchema, Label, Message, ToolResult, ToolSchema

FOUND = Label("developer", FIND_TOOLS, trust="trusted")
"""Of what `find_tools` answers."""
CALLED_BY_FORM = f"; call them with {CALL_TOOL}"
"""In the description of `find_tools`."""
_LOADS = re.compile(r"claude-(?:opus|sonnet|haiku)-(?:4-(?:[5-9]|[1-9]\d)(?!\d)|[5-9](?!\d)|[1-9]\d(?!\d))")


class _Disclosed(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    description: str
    parameters: JsonSchema


_line = msgspec.json.Decoder(_Disclosed)


LOADERS = frozenset({"anthropic"})
"""Providers whose wire has words for it."""


def loads_tools(provider: str, model: str) -> bool:
    """Say whether a model can be referred to tools that its list does not have."""
    return provider in LOADERS and _LOADS.match(model.lower()) is not None


@lru_cache(maxsize=4_096)
def disclosed(text: str) -> tuple[ToolSchema, ...]:
    """Read the tools that an answer of `find_tools` spells out, one in a line."""
    found: list[ToolSchema] = []
    for line in text.split("\n"):
        if line.startswith("{"):
            try:
                said = _line.decode(line)
            except msgspec.MsgspecError:  # (the result was cut there)
                continue
            found.append(ToolSchema(said.name, said.description, said.parameters))
    return tuple(found)


def found_in(messages: Iterable[Message], listed: Iterable[ToolSchema]) -> tuple[ToolSchema, ...]:
    """Give the tools that stand in a conversation because they were found, in that order; of one that was found twice what was said last.

    Those that are listed by now are left out.
    """
    found = {
        tool.name: tool
        for message in messages
        for part in message.parts
        if isinstance(part, ToolResult) and part.label == FOUND
        for tool in disclosed(part.text)
    }
    for tool in listed:
        found.pop(tool.name, None)
    return tuple(found.values())


def references(part: ToolResult, loaded: Iterable[str]) -> tuple[str, ...]:
    """Name the tools that a result stands for, of those that are loaded; none: it is to be read as it stands."""
    if part.label != FOUND:
        return ()
    known = frozenset(loaded)
    return tuple(tool.name for tool in disclosed(part.text) if tool.name in known)


def without_form(tools: Iterable[ToolSchema]) -> tuple[ToolSchema, ...]:
    """Give the list as a model is shown it that calls found tools like others."""
    return tuple(
        msgspec.structs.replace(tool, description=tool.description.replace(CALLED_BY_FORM, ""))
        if tool.name == FIND_TOOLS
        else tool
        for tool in tools
        if tool.name != CALL_TOOL
    )
