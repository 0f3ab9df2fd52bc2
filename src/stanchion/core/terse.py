"""What a model is shown of a tool's parameters: the schema without the words that say nothing to it. Pure.

    "note": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": null}    as it is checked
    "note": {"type": "string"}                                                    as it is shown

A field that is not required may be left out, which is what null by default means; an object with named fields has those; an object
without any is open. What is accepted is decided by the whole schema, as ever: null is, and a field of another name is refused.
A strict tool is shown as it is: the providers hold a model to its schema and refuse one that leaves something open.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from stanchion.core.bundle import ToolSpec
from stanchion.core.message import JsonSchema

Node = Mapping[str, Any]

_LISTED = ("anyOf", "oneOf", "allOf", "prefixItems")
_ONE = ("items", "additionalProperties")
_NULL: Node = {"type": "null"}


def shown_parameters(spec: ToolSpec) -> JsonSchema:
    """Give what a model is shown of a tool's parameters. The same each time, in the order of the whole schema."""
    return spec.parameters if spec.strict else _shown(spec.parameters)


def _shown(node: Node) -> dict[str, Any]:
    """Show one schema and those in it. Values that are data (`default`, `enum`, `const`) are never looked into."""
    named = node.get("required")
    required = cast("Sequence[Any]", named) if isinstance(named, list | tuple) else ()
    shown: dict[str, Any] = {}
    for key, value in node.items():
        if key == "properties" and isinstance(value, Mapping):
            fields = cast("Mapping[str, Any]", value)
            shown[key] = {name: _field(inner, may_lack=name not in required) for name, inner in fields.items()}
        elif key == "$defs" and isinstance(value, Mapping):
            shown[key] = {name: _inner(inner) for name, inner in cast("Mapping[str, Any]", value).items()}
        elif key in _LISTED and isinstance(value, list | tuple):
            shown[key] = [_inner(inner) for inner in cast("Iterable[Any]", value)]
        elif key == "additionalProperties" and _goes_without_saying(node):
            continue
        else:
            shown[key] = _inner(value) if key in _ONE else value
    return shown


def _inner(node: object) -> Any:
    return _shown(cast("Node", node)) if isinstance(node, Mapping) else node


def _goes_without_saying(node: Node) -> bool:
    """Whether an object is closed and has named fields, or open and has none."""
    other = node["additionalProperties"]
    if "patternProperties" in node:
        return False
    return other is False if isinstance(node.get("properties"), Mapping) else other is True


def _field(node: object, *, may_lack: bool) -> Any:
    """Show a field. One that may be left out, and is null then, is shown as what it is when it is there."""
    shown = _inner(node)
    if not (isinstance(node, Mapping) and may_lack and "default" in shown and shown["default"] is None):
        return shown
    said: dict[str, Any] = {key: value for key, value in shown.items() if key != "default"}
    forms: list[Any] = [form for form in said["anyOf"] if form != _NULL] if isinstance(said.get("anyOf"), list) else []
    if not forms:
        return said
    del said["anyOf"]
    alone = cast("Node", forms[0]) if len(forms) == 1 and isinstance(forms[0], Mapping) else None
    if alone is None or alone.keys() & said.keys():  # (where both say something, both are shown)
        return {"anyOf": forms, **said}
    return {**alone, **said}
