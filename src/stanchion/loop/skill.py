"""The built-in `use_skill`: a skill's body is put at the tail of the conversation when the model asks for it, once. Pure.

What it answers is a result like any other: journaled, and never moved (I8). Whether a skill was opened is read from the
conversation itself, so that it is right after a restart, in the session's next run, and when a skill was changed since.
"""

from __future__ import annotations

import difflib

import msgspec

from stanchion.core.bundle import USE_SKILL, Bundle
from stanchion.core.message import RUNTIME, Label, ToolResult
from stanchion.core.skill import Skill, disclosure, label_of_skill
from stanchion.core.state import Call, State


class Opened(msgspec.Struct, frozen=True):
    """What a model is answered that asked for a skill."""

    text: str
    label: Label = RUNTIME
    error: bool = False


def opened(state: State, call: Call, bundle: Bundle, arguments: bytes) -> Opened:
    """Give a skill's body, or say that it stands above, or that there is none of this name."""
    name = str(msgspec.json.decode(arguments)["name"])
    skill = next((one for one in bundle.skills if one.name == name), None)
    if skill is None:
        return Opened(_unknown("" if call.filled else name, bundle), error=True)
    if _stands(state, skill) or _asked_before(state, call, skill):
        return Opened(
            f"The skill {name} stands above already. Go on by it.", msgspec.structs.replace(RUNTIME, name=name)
        )
    return Opened(disclosure(skill), label_of_skill(skill))


def _unknown(name: str, bundle: Bundle) -> str:
    """Say which skills there are. `name` is "" where the model does not know what it asked for."""
    names = [skill.name for skill in bundle.skills]
    close = difflib.get_close_matches(name, names, n=1)
    what = f" {name[:64]!r}" if name else " of this name"
    meant = f" Did you mean {close[0]!r}?" if close else ""
    return f"There is no skill{what}.{meant} The skills are: {', '.join(names) or 'none'}."


def _stands(state: State, skill: Skill) -> bool:
    """Whether the skill, as it is now, stands in the conversation."""
    label, text = label_of_skill(skill), disclosure(skill)
    return any(
        isinstance(part, ToolResult) and part.label == label and part.text == text
        for message in state.messages
        for part in message.parts
    )


def _asked_before(state: State, call: Call, skill: Skill) -> bool:
    """Whether an earlier call of the same step asks for the skill, and so is answered with it in the same breath."""
    for other in state.calls:
        if other.id == call.id:
            return False
        if other.part.name == USE_SKILL and _asks_for(other.part.arguments) == skill.name:
            return True
    return False


def _asks_for(arguments: str) -> str:
    """Read which skill a call means, or "" where its arguments are not taken."""
    try:
        asked = msgspec.json.decode(arguments, type=dict[str, str])
    except (msgspec.MsgspecError, ValueError):
        return ""
    return asked["name"] if asked.keys() == {"name"} else ""
