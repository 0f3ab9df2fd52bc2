"""Text that a planner is not shown: references to it, the typed values taken out of it, and how they are filled in. Pure.

    r3               an untrusted result, which the planner knows by name, tool and length only
    r3.sender        a value that a model without tools took out of it and that code checked against its type
    {{r3.sender}}    how the planner writes the value; the runtime fills it into a call or an answer, once

Booleans, enums, numbers and dates are shown as they are: nobody can write an instruction in one. Ids and strings are shown as
references only. Filling is one pass: what a filled value says of other references means nothing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from datetime import date
from typing import Any, Literal, cast

import msgspec

from stanchion.core.message import JsonSchema, Label

FieldType = Literal["boolean", "integer", "number", "enum", "date", "id", "string"]
SHOWN = frozenset({"boolean", "integer", "number", "enum", "date"})
"""Types of which the planner sees the values themselves."""
MAX_FIELDS = 16
MAX_OPTIONS = 50
MAX_OPTION_CHARS = 64
MAX_STRING_CHARS = 2_000
EXPLANATION = (
    "You are not shown what others wrote: a tool's answer that may hold such text is a reference, like r3. Have values taken out of it "
    "with extract, decide by those that you are told, and write the others as references, like {{r3.sender}}: they are filled in when "
    "a call is made and when your answer is given."
)
"""Stands in the system prompt of a planner in quarantine."""
_MAX_NUMBER = 10**15
_REFERENCE = re.compile(r"\{\{\s*(r[1-9]\d{0,5})\.(\w{1,32})\s*\}\}", re.ASCII)
_NAME = re.compile(r"[A-Za-z]\w{0,31}", re.ASCII)
_ID = re.compile(r"[\w.@:/+#=~%?&-]{1,128}")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)


class Field(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What a value must be. `options`: of an enum."""

    type: FieldType
    options: tuple[str, ...] = ()


class Wanted(msgspec.Struct, frozen=True, omit_defaults=True):
    """The arguments of `extract`: values that are to be taken out of a result."""

    ref: str
    question: str
    fields: Mapping[str, Field]
    offset: int = 0
    """Character of the result to read from."""


class Value(msgspec.Struct, frozen=True):
    """A value that has its type. None: the text does not say."""

    type: FieldType
    value: bool | int | float | str | None


class Extracted(msgspec.Struct, frozen=True):
    """What was taken out of a result: the text of the `ToolResult` of an `extract`, as JSON."""

    ref: str
    values: Mapping[str, Value]


class Sealed(msgspec.Struct, frozen=True):
    """A result that the planner is not shown."""

    ref: str
    tool: str
    text: str
    label: Label
    values: Mapping[str, Value] = {}
    """What was taken out of it so far; of two of one name, the later."""


class Filled(msgspec.Struct, frozen=True):
    """A text with its references filled in: which were, and which say nothing."""

    text: str
    used: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


def find(sealed: Iterable[Sealed], ref: str) -> Sealed | None:
    """Find a result by its reference."""
    return next((one for one in sealed if one.ref == ref), None)


def reference(ref: str, what: str, tool: str, text: str) -> str:
    """Say to the planner that there is a result, and how to get values out of it."""
    return (
        f"[{what} {ref} of {tool}: untrusted, {len(text):,} characters, not shown. "
        f'Take values out of it with extract(ref="{ref}", question=.., fields=..).]'
    )


def told(extracted: Extracted) -> str:
    """Say to the planner what was taken out: values of harmless types, references to the others."""
    return "\n".join(f"{name} = {_told(extracted.ref, name, value)}" for name, value in extracted.values.items())


def _told(ref: str, name: str, value: Value) -> str:
    if value.value is None:
        return "null (the text does not say)"
    if value.type in SHOWN:
        return msgspec.json.encode(value.value).decode()
    return f"{{{{{ref}.{name}}}}} (write this where the value belongs)"


def read_extracted(text: str) -> Extracted | None:
    """Read the text of an `extract`'s result. None: it was erased."""
    try:
        return msgspec.json.decode(text, type=Extracted)
    except (msgspec.MsgspecError, ValueError):
        return None


def with_values(sealed: tuple[Sealed, ...], extracted: Extracted) -> tuple[Sealed, ...]:
    """Keep what was taken out of a result with it."""
    return tuple(
        msgspec.structs.replace(one, values={**one.values, **extracted.values}) if one.ref == extracted.ref else one
        for one in sealed
    )


def levels_of(sealed: Iterable[Sealed], used: Iterable[str]) -> frozenset[str]:
    """Join the levels of secrecy of the results that references are of."""
    refs = {name.partition(".")[0] for name in used}
    levels = {level for one in sealed if one.ref in refs for level in one.label.secrecy.split("+")}
    return frozenset(levels - {"public"})


def names_in(text: str) -> tuple[str, ...]:
    """List the references in a text."""
    return tuple(dict.fromkeys(f"{ref}.{name}" for ref, name in _REFERENCE.findall(text)))


def fill_text(text: str, sealed: Iterable[Sealed]) -> Filled:
    """Fill references into a text."""
    filling = _Filling(sealed)
    return filling.done(filling.text(text))


def fill_json(text: str, sealed: Iterable[Sealed]) -> Filled:
    """Fill references into JSON: one that is a whole string becomes a value of its type. Names of fields are left alone."""
    if not _REFERENCE.search(text):
        return Filled(text)
    try:
        value = msgspec.json.decode(text)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return Filled(text, missing=names_in(text))  # (it is refused as it is)
    filling = _Filling(sealed)
    return filling.done(msgspec.json.encode(filling.value(value)).decode())


class _Filling:
    """One pass over one text."""

    def __init__(self, sealed: Iterable[Sealed]) -> None:
        self._values = {f"{one.ref}.{name}": value.value for one in sealed for name, value in one.values.items()}
        self._used: dict[str, None] = {}
        self._missing: dict[str, None] = {}

    def done(self, text: str) -> Filled:
        return Filled(text, tuple(self._used), tuple(self._missing))

    def value(self, value: Any) -> Any:
        match value:
            case str():
                whole = _REFERENCE.fullmatch(value.strip())
                return self.text(value) if whole is None else self._get(whole, value)
            case list():
                return [self.value(item) for item in cast("list[Any]", value)]
            case dict():
                known = cast("dict[str, Any]", value)
                self._missing |= dict.fromkeys(name for key in known for name in names_in(key))
                return {key: self.value(item) for key, item in known.items()}
            case _:
                return value

    def text(self, text: str) -> str:
        return _REFERENCE.sub(lambda found: _plain(self._get(found, found[0])), text)

    def _get(self, found: re.Match[str], otherwise: str) -> Any:
        name = f"{found[1]}.{found[2]}"
        value = self._values.get(name)
        (self._missing if value is None else self._used)[name] = None
        return otherwise if value is None else value


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def wrong_with(wanted: Wanted, sealed: Iterable[Sealed]) -> str:
    """Say why values cannot be asked for so, or ""."""
    known = list(sealed)
    one = find(known, wanted.ref)
    if one is None:
        there = ", ".join(each.ref for each in known[-20:]) or "none yet"
        return f"There is no result {wanted.ref[:32]!r}; there are: {there}."
    if not 0 <= wanted.offset <= len(one.text):
        return f"offset: {wanted.ref} has {len(one.text)} characters."
    if not 1 <= len(wanted.fields) <= MAX_FIELDS:
        return f"fields: ask for 1 to {MAX_FIELDS} values."
    for name, field in wanted.fields.items():
        if not _NAME.fullmatch(name):
            return f"fields: {name[:64]!r} is no name; use letters, digits and '_', at most 32."
        if problem := _wrong_options(field):
            return f"fields: {name}: {problem}"
    return ""


def _wrong_options(field: Field) -> str:
    if field.type != "enum":
        return "only an enum has options." if field.options else ""
    distinct = len(set(field.options))
    if not 2 <= distinct <= MAX_OPTIONS or distinct != len(field.options):
        return f"an enum has 2 to {MAX_OPTIONS} options, each once."
    if any(not 0 < len(option) <= MAX_OPTION_CHARS for option in field.options):
        return f"an option has 1 to {MAX_OPTION_CHARS} characters."
    return ""


def schema_of(fields: Mapping[str, Field]) -> JsonSchema:
    """Give the form of an answer with these fields; each may be null."""
    properties = {name: {"anyOf": [_schema(field), {"type": "null"}]} for name, field in fields.items()}
    return {"type": "object", "properties": properties, "required": list(fields), "additionalProperties": False}


def _schema(field: Field) -> dict[str, Any]:
    match field.type:
        case "boolean" | "integer" | "number":
            return {"type": field.type}
        case "enum":
            return {"type": "string", "enum": list(field.options)}
        case "date":
            return {"type": "string", "description": "A day, as YYYY-MM-DD."}
        case "id":
            return {
                "type": "string",
                "description": "An id, address, number or name without spaces, as it stands there.",
            }
        case "string":
            return {"type": "string", "description": f"At most {MAX_STRING_CHARS} characters."}


def read_answer(text: str, fields: Mapping[str, Field]) -> Mapping[str, Value] | str:
    """Check an answer against its form. Gives the values, or in words what is wrong, with nothing of the answer in them."""
    try:
        answer = msgspec.json.decode(text)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return "it was no JSON"
    if not isinstance(answer, dict):
        return "it was no JSON object"
    given = cast("dict[str, Any]", answer)
    if set(given) - set(fields):
        return "it had fields that were not asked for"
    values: dict[str, Value] = {}
    for name, field in fields.items():
        value = given.get(name)
        if value is not None and not _has_type(value, field):
            return f"{name} was no {field.type}" + (" of those given" if field.type == "enum" else "")
        values[name] = Value(field.type, value)
    return values


def _has_type(value: Any, field: Field) -> bool:
    match field.type:
        case "boolean":
            return isinstance(value, bool)
        case "integer":
            return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= _MAX_NUMBER
        case "number":
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            return is_number and math.isfinite(value) and abs(value) <= _MAX_NUMBER
        case "enum":
            return value in field.options
        case "date":
            return isinstance(value, str) and _is_day(value)
        case "id":
            return isinstance(value, str) and _ID.fullmatch(value) is not None
        case "string":
            return isinstance(value, str) and len(value) <= MAX_STRING_CHARS


def _is_day(text: str) -> bool:
    if not _DATE.fullmatch(text):
        return False
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True
