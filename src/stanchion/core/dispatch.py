"""`call_tool`: how a model calls a tool that stands in no list. Pure and total.

The list that a provider is shown stays as it is (invariant I8), so a found tool is called by one that is always there. Where the
calls of an answer are read, such a call becomes what it means: a call of the tool itself, with that tool's own arguments. All behind
it (check, verdict, limits, costs, approvals, the journal's `ToolCallJudged`) knows the tool and not the form.
"""

from __future__ import annotations

import msgspec

from stanchion.core.bundle import CALL_TOOL
from stanchion.core.message import ToolCall


class _Asked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    arguments: msgspec.Raw = msgspec.Raw(b"{}")


_asked = msgspec.json.Decoder(_Asked)
_text = msgspec.json.Decoder(str)
_object = msgspec.json.Decoder(dict[str, msgspec.Raw])


def unwrapped(part: ToolCall) -> ToolCall | None:
    """Give the call that a call of `call_tool` means, or None: it is none, or not of its form, and is judged as it stands.

    Arguments that a model wrote as a string of JSON are taken as the object that they spell.
    """
    if part.name != CALL_TOOL:
        return None
    try:
        asked = _asked.decode(part.arguments)
        arguments = bytes(asked.arguments).decode()
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    if asked.name == CALL_TOOL:
        return None
    return msgspec.structs.replace(part, name=asked.name, arguments=_spelled(arguments))


def _spelled(arguments: str) -> str:
    """Give the object that a string of JSON spells, or the arguments as they stand."""
    if not arguments.startswith('"'):
        return arguments
    try:
        inside = _text.decode(arguments)
        _object.decode(inside)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return arguments
    return inside
