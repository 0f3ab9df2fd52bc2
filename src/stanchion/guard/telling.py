"""What of an untrusted result a quarantined planner is shown: the values of fields that the policy trusts. Nothing here awaits."""

from __future__ import annotations

from typing import Any

import msgspec

from stanchion.core.bundle import ToolSpec
from stanchion.core.message import Label, Text
from stanchion.core.path import select
from stanchion.core.policy import ResultField
from stanchion.guard.evidence import read_result

MAX_VALUES = 40
"""Of one field."""
MAX_CHARS = 64
"""Of a value; a longer one is no id and no name."""


def told_of(spec: ToolSpec, text: str) -> Text | None:
    """Give the ids, names and numbers that trusted fields hold, as lines, with their secrecy. None: there are none.

    A field that is trusted only for who asked well (`asked`), or of which only a part is (`match`), is not shown.
    """
    fields = {path: field for path, field in spec.result.items() if path and _is_shown(field)}
    if not fields:
        return None
    value = read_result(text)
    lines: list[str] = []
    levels: set[str] = set()
    for path, field in fields.items():
        if found := [item for _, item in select(value, path) if _is_short(item)][:MAX_VALUES]:
            lines.append(f"{path}: {msgspec.json.encode(found).decode()}")
            levels.add(field.secrecy)
    if not lines:
        return None
    secrecy = "+".join(sorted(levels - {"public"})) or "public"
    return Text("\n".join(lines), Label("tool", spec.name, trust="trusted", secrecy=secrecy))


def _is_shown(field: ResultField) -> bool:
    return field.trusted and not field.asked and not field.match


def _is_short(item: Any) -> bool:
    if isinstance(item, str):
        return 0 < len(item) <= MAX_CHARS and item.isprintable()
    return isinstance(item, bool | int | float)
