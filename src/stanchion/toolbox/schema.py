"""JSON Schema as a model is shown it: closed world, no noise, the same bytes every time.

Every object with named fields refuses others. References are written out where they stand, but for types that contain
themselves. In strict mode every field is required and one that may be left out takes null instead; what the providers'
strict modes do not know is left out (it is checked here anyway) or, where the meaning would be lost, refused.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, cast

from stanchion.core.errors import ConfigError

Node = dict[str, Any]

_DROPPED = ("title", "discriminator")
_DROPPED_IF_STRICT = (
    "default",
    "minLength",
    "maxLength",
    "uniqueItems",
    "minProperties",
    "maxProperties",
    "contentEncoding",
    "contentMediaType",
)
_FORMATS_IF_STRICT = frozenset({"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"})
_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
_REF = "#/$defs/"


def tidy(schema: Mapping[str, Any]) -> Node:
    """Close a schema, drop what says nothing, and write references out."""
    source = copy.deepcopy(dict(schema))
    defs: dict[str, Node] = source.pop("$defs", {})
    kept: dict[str, Node] = {}
    node = _tidy(source, defs, (), kept)
    if kept:
        node["$defs"] = {name: kept[name] for name in sorted(kept)}
    return node


def _tidy(node: Node, defs: dict[str, Node], above: tuple[str, ...], kept: dict[str, Node]) -> Node:
    """Tidy one node; `above` are the definitions it stands in, `kept` those that must stay definitions."""
    reference = node.pop("$ref", None)
    if reference is not None:
        name = str(reference).removeprefix(_REF)
        if name in above or _contains_itself(name, defs):
            if name not in kept:
                kept[name] = {}
                kept[name].update(_tidy(copy.deepcopy(defs[name]), defs, (*above, name), kept))
            return {"$ref": f"{_REF}{name}", **{key: value for key, value in node.items() if key not in _DROPPED}}
        return _tidy({**copy.deepcopy(defs[name]), **node}, defs, (*above, name), kept)
    tidied: Node = {}
    for key, value in node.items():
        if key in _DROPPED:
            continue
        name = "anyOf" if key == "oneOf" else key
        if key == "properties":
            tidied[name] = {field: _tidy(inner, defs, above, kept) for field, inner in value.items()}
        elif key in _LISTS:
            tidied[name] = [_tidy(inner, defs, above, kept) for inner in value]
        elif key in ("items", "additionalProperties") and isinstance(value, dict):
            tidied[name] = _tidy(cast("Node", value), defs, above, kept)
        else:
            tidied[name] = value
    if tidied.get("type") == "object" and ("properties" in tidied or "additionalProperties" not in tidied):
        if "patternProperties" not in tidied:
            tidied["additionalProperties"] = False
    return tidied


def _contains_itself(name: str, defs: dict[str, Node]) -> bool:
    seen: set[str] = set()
    todo: list[Any] = [defs[name]]
    while todo:
        node = todo.pop()
        if isinstance(node, dict):
            found = cast("Node", node)
            reference = found.get("$ref")
            if isinstance(reference, str):
                target = reference.removeprefix(_REF)
                if target == name:
                    return True
                if target not in seen:
                    seen.add(target)
                    todo.append(defs[target])
            todo.extend(found.values())
        elif isinstance(node, list):
            todo.extend(cast("list[Any]", node))
    return False


def strict(schema: Node, *, tool: str) -> Node:
    """Make a tidy schema fit the providers' strict modes, or raise `ConfigError` naming the field that cannot."""
    made = _strict({key: value for key, value in schema.items() if key != "$defs"}, tool, "")
    if "$defs" in schema:
        made["$defs"] = {name: _strict(node, tool, name) for name, node in schema["$defs"].items()}
    return made


def _strict(node: Node, tool: str, path: str) -> Node:
    open_map = node.get("type") == "object" and node.get("additionalProperties") is not False
    if open_map or "prefixItems" in node or not (node.keys() - {"description", "default"}):
        raise ConfigError(
            f"tool {tool!r}: {path or 'the arguments'} cannot be said in strict mode, which knows no free-form values, "
            f"maps or tuples; name the fields (a dataclass), or leave strict=False"
        )
    made = {key: value for key, value in node.items() if key not in _DROPPED_IF_STRICT}
    if made.get("format") not in _FORMATS_IF_STRICT:
        made.pop("format", None)
    for key in _LISTS:
        if key in made:
            made[key] = [_strict(inner, tool, path) for inner in made[key]]
    if isinstance(made.get("items"), dict):
        made["items"] = _strict(made["items"], tool, f"{path}[]")
    if "properties" in made:
        required = set(made.get("required", ()))
        fields: dict[str, Node] = {}
        for name, inner in made["properties"].items():
            field = _strict(inner, tool, f"{path}.{name}" if path else name)
            fields[name] = field if name in required or takes_null(inner) else _or_null(field)
        made["properties"] = fields
        made["required"] = list(fields)
    return made


def takes_null(node: Node) -> bool:
    """Tell whether null fits a node of a tidy schema."""
    if node.get("type") == "null" or ("const" in node and node["const"] is None) or None in node.get("enum", ()):
        return True
    return any(takes_null(inner) for inner in node.get("anyOf", ()))


def _or_null(node: Node) -> Node:
    said = {key: node[key] for key in ("description",) if key in node}
    inner = {key: value for key, value in node.items() if key not in said}
    branches = inner["anyOf"] if inner.keys() == {"anyOf"} else [inner]
    return {"anyOf": [*branches, {"type": "null"}], **said}


def without_nulls(value: Any, node: Node, root: Node) -> Any:
    """Drop the nulls by which a strict mode says "left out": of fields that may be left out and take no null.

    `node` is of the tidy schema `root` before it was made strict.
    """
    node = resolve(node, root)
    if isinstance(value, list):
        items = cast("list[Any]", value)
        inner = next((branch["items"] for branch in _branches(node, root) if "items" in branch), None)
        return items if inner is None else [without_nulls(item, inner, root) for item in items]
    if not isinstance(value, dict):
        return value
    given = cast("dict[str, Any]", value)
    branch = next((b for b in _branches(node, root) if given.keys() <= b.get("properties", {}).keys()), None)
    if branch is None:
        return given
    required = branch.get("required", ())
    fields: Node = branch["properties"]
    return {
        name: without_nulls(inner, fields[name], root)
        for name, inner in given.items()
        if inner is not None or name in required or takes_null(resolve(fields[name], root))
    }


def _branches(node: Node, root: Node) -> list[Node]:
    if "anyOf" not in node:
        return [node]
    return [found for inner in node["anyOf"] for found in _branches(resolve(inner, root), root)]


def resolve(node: Node, root: Node) -> Node:
    """Follow a node's reference into the definitions of its root."""
    reference = node.get("$ref")
    return node if reference is None else root["$defs"][str(reference).removeprefix(_REF)]


def step(node: Node, segment: str | int, root: Node) -> Node | None:
    """Go from a node to a field or an item of it; None where there is none."""
    for branch in _branches(resolve(node, root), root):
        if isinstance(segment, int):
            prefix = branch.get("prefixItems", ())
            found = prefix[segment] if 0 <= segment < len(prefix) else branch.get("items")
        else:
            found = branch.get("properties", {}).get(segment, branch.get("additionalProperties"))
        if isinstance(found, dict):
            return cast("Node", found)
    return None
