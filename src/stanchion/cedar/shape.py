"""What of a tool's arguments Cedar can be told: strings, whole numbers, truth values, decimals, sets and records.

What has no such type (a map of any keys, a list of mixed values) is left out of the schema, so that no policy can name it.
A value that does not fit its type, or would lose its meaning, is `Unfit`, and the call it belongs to is denied.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation
from typing import Any, Literal, assert_never, cast

import msgspec

LONG = 2**63
DECIMAL_MOST = Decimal("922337203685477.5807")
_PLACES = Decimal("0.0001")
_DEEPEST = 6


class Unfit(ValueError):
    """A value cannot be told to Cedar."""


class Plain(msgspec.Struct, frozen=True):
    """A plain value."""

    type: Literal["String", "Long", "Bool", "decimal"]


class SetOf(msgspec.Struct, frozen=True):
    """A list, without its order."""

    item: Shape


class Field(msgspec.Struct, frozen=True):
    """A field of a record."""

    shape: Shape
    required: bool
    default: Any = None
    """What stands for it where it is not given; None: nothing does."""


class Record(msgspec.Struct, frozen=True):
    """An object with named fields."""

    fields: Mapping[str, Field]


Shape = Plain | SetOf | Record
EMPTY = Record({})
_PLAIN: Mapping[str, Plain] = {
    "string": Plain("String"),
    "integer": Plain("Long"),
    "boolean": Plain("Bool"),
    "number": Plain("decimal"),
}


def arguments_of(schema: Mapping[str, Any]) -> Record:
    """Give the shape of a tool's arguments by their JSON Schema."""
    return _record(schema, 0) or EMPTY


def shape_of(schema: Mapping[str, Any], depth: int = 0) -> Shape | None:
    """Give the shape of what a JSON Schema describes; None: Cedar has none."""
    if depth > _DEEPEST or "$ref" in schema:
        return None
    choices = [choice for choice in _choices(schema) if choice.get("type") != "null"]
    if len(choices) != 1:
        return _common([shape_of(choice, depth + 1) for choice in choices], choices)
    schema = choices[0]
    match _type(schema):
        case "array":
            items = schema.get("items")
            item = shape_of(cast("Mapping[str, Any]", items), depth + 1) if isinstance(items, Mapping) else None
            return None if item is None else SetOf(item)
        case "object":
            return _record(schema, depth)
        case name:
            return _PLAIN.get(name)


def _choices(schema: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    for word in ("anyOf", "oneOf"):
        if word in schema:
            return [inner for choice in schema[word] for inner in _choices(choice)]
    return [schema]


def _common(shapes: list[Shape | None], choices: list[Mapping[str, Any]]) -> Shape | None:
    """Give the shape that all choices have; a number that may be written as text is a decimal."""
    kinds = {shape.type if isinstance(shape, Plain) else "" for shape in shapes}
    written = all("pattern" in choice or _type(choice) != "string" for choice in choices)
    if "decimal" in kinds and kinds <= {"decimal", "Long", "String"} and written:
        return Plain("decimal")
    return shapes[0] if shapes and all(shape == shapes[0] for shape in shapes) else None


def _type(schema: Mapping[str, Any]) -> str:
    said: Any = schema.get("type")
    if isinstance(said, list):
        names = [name for name in cast("list[str]", said) if name != "null"]
        return names[0] if len(names) == 1 else ""
    if isinstance(said, str):
        return said
    values: list[object] = schema.get("enum", [schema["const"]] if "const" in schema else [])
    kinds = {type(value).__name__ for value in values}
    names = {"str": "string", "int": "integer", "bool": "boolean"}
    return names.get(kinds.pop(), "") if len(kinds) == 1 else ""


def _record(schema: Mapping[str, Any], depth: int) -> Record | None:
    properties: Mapping[str, Any] = schema.get("properties", {})
    if depth and not properties:
        return None
    required = set(schema.get("required", ()))
    fields: dict[str, Field] = {}
    for name, inner in properties.items():
        shape = None if name.startswith("__") else shape_of(inner, depth + 1)
        if shape is not None:
            default = inner.get("default")
            sure = (name in required and not _nullable(inner)) or (default is not None and not _nullable(inner))
            fields[name] = Field(shape, sure, default)
    return Record(fields)


def _nullable(schema: Mapping[str, Any]) -> bool:
    said: Any = schema.get("type")
    if isinstance(said, list) and "null" in said:
        return True
    choices = _choices(schema)
    return len(choices) > 1 and any(choice.get("type") == "null" for choice in choices)


def merged(one: Record, other: Record) -> Record:
    """Give what is true of both: of two agents' tools of one name. Where they differ a field is left out."""
    fields: dict[str, Field] = {}
    for name in one.fields.keys() | other.fields.keys():
        a, b = one.fields.get(name), other.fields.get(name)
        if a is None or b is None:
            only = a or b
            if only is not None:
                fields[name] = Field(only.shape, required=False)
        elif a.shape == b.shape:
            fields[name] = Field(a.shape, a.required and b.required)
        elif isinstance(a.shape, Record) and isinstance(b.shape, Record):
            fields[name] = Field(merged(a.shape, b.shape), a.required and b.required)
    return Record(fields)


def declared(shape: Shape) -> dict[str, Any]:
    """Write a shape as Cedar's JSON schema has it."""
    match shape:
        case Plain("decimal"):
            return {"type": "Extension", "name": "decimal"}
        case Plain("Bool"):
            return {"type": "Boolean"}
        case Plain(name):
            return {"type": name}
        case SetOf(item):
            return {"type": "Set", "element": declared(item)}
        case Record(fields):
            attributes = {
                name: {**declared(field.shape), "required": field.required} for name, field in sorted(fields.items())
            }
            return {"type": "Record", "attributes": attributes}
        case _:
            assert_never(shape)


def fitted(shape: Shape, value: Any, path: str) -> Any:
    """Give a value as Cedar is told it. Raises `Unfit`."""
    match shape:
        case Plain(name):
            return _plain(name, value, path)
        case SetOf(item):
            if not isinstance(value, list):
                raise Unfit(f"{path} is no list")
            return [fitted(item, one, f"{path}.{n}") for n, one in enumerate(cast("list[Any]", value))]
        case Record(fields):
            if not isinstance(value, dict):
                raise Unfit(f"{path} is no object")
            return _fitted_record(fields, cast("dict[str, Any]", value), path)
        case _:
            assert_never(shape)


def _fitted_record(fields: Mapping[str, Field], value: dict[str, Any], path: str) -> dict[str, Any]:
    told: dict[str, Any] = {}
    for name, field in fields.items():
        given = value.get(name)
        given = field.default if given is None else given
        where = f"{path}.{name}" if path else name
        if given is not None:
            told[name] = fitted(field.shape, given, where)
        elif field.required:
            raise Unfit(f"{where} is missing")
    return told


def _plain(name: str, value: Any, path: str) -> Any:
    match name:
        case "String" if isinstance(value, str):
            return value
        case "Bool" if isinstance(value, bool):
            return value
        case "Long" if isinstance(value, int) and not isinstance(value, bool):
            if not -LONG <= value < LONG:
                raise Unfit(f"{path} has more than 64 bits")
            return value
        case "decimal" if isinstance(value, int | float | str) and not isinstance(value, bool):
            return {"__extn": {"fn": "decimal", "arg": _decimal(value, path)}}
        case _:
            raise Unfit(f"{path} is not of the type {name}")


def _decimal(value: float | str, path: str) -> str:
    """Write a number with four decimal places, as Cedar keeps them; what is beyond is rounded."""
    try:
        number = Decimal(str(value))
        if not number.is_finite() or abs(number) > DECIMAL_MOST:
            raise Unfit(f"{path} is too large for a decimal")
        return format(number.quantize(_PLACES, ROUND_HALF_EVEN), "f")
    except InvalidOperation:
        raise Unfit(f"{path} is no number") from None
