"""The answer of a quarantined run: what the planner wrote, with its references filled in after it was checked. Pure.

The planner never sees the filled text; those who asked do. An answer that must be JSON stays JSON: a value is filled in as a string
of it, or as a value of its own type.
"""

from __future__ import annotations

import msgspec

from stanchion.core.bundle import Bundle
from stanchion.core.message import Label, Part, Text
from stanchion.core.quarantine import Filled, fill_json, fill_text, levels_of
from stanchion.core.state import State


def fill(state: State, bundle: Bundle, parts: tuple[Part, ...]) -> tuple[Part, ...]:
    """Fill the references of an answer in. A reference that says nothing stays as it is written."""
    if not state.sealed:
        return parts
    return tuple(_filled(state, bundle, part) if isinstance(part, Text) else part for part in parts)


def _filled(state: State, bundle: Bundle, part: Text) -> Text:
    filled = fill_one(state, bundle, part.text)
    if not filled.used:
        return part
    levels = levels_of(state.sealed, filled.used) | ({part.label.secrecy} - {"public"})
    label = Label(part.label.source, part.label.name, "untrusted", "+".join(sorted(levels)) or "public")
    return msgspec.structs.replace(part, text=filled.text, label=label)


def fill_one(state: State, bundle: Bundle, text: str) -> Filled:
    """Fill the references of one text in."""
    return fill_json(text, state.sealed) if bundle.output is not None else fill_text(text, state.sealed)
