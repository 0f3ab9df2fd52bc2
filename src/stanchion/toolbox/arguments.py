"""The arguments of a tool: their schema, and the check of what a model wrote. Pure: nothing here does I/O.

Text is untrusted: it may be no JSON, no object, huge, or nested without end. A value of another type is taken only where
that is harmless ("5" for 5, "true" for true; never true for 1). Unknown fields are refused at every depth.
"""

from __future__ import annotations

import copy
import dataclasses
import enum
import json
import typing
import warnings
from collections.abc import Callable, Sequence
from datetime import date, time, timedelta
from decimal import Decimal
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, cast
from uuid import UUID

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError
from pydantic.fields import FieldInfo
from pydantic.warnings import UnsupportedFieldAttributeWarning
from pydantic_core import ErrorDetails, from_json

from stanchion.core.errors import ConfigError
from stanchion.toolbox.answer import Checked, Problem
from stanchion.toolbox.explain import MAX_ERRORS, explain
from stanchion.toolbox.schema import Node, strict, tidy, without_nulls
from stanchion.toolbox.signature import EMPTY, Parameter
from stanchion.toolbox.struct import adapt, adapter_of

MAX_CHARS = 1_000_000
"""Of the arguments' text."""

_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode
_PLAIN = (str, int, float, bool, NoneType)
_IMMUTABLE = (*_PLAIN, bytes, enum.Enum, date, time, timedelta, Decimal, UUID)


class Arguments:
    """What the model fills in of one tool. `schema` is what it is shown."""

    def __init__(self, tool: str, parameters: Sequence[Parameter], descriptions: dict[str, str], *, strict_mode: bool):
        self._tool = tool
        for parameter in parameters:
            if parameter.default is not EMPTY:
                _check_default(tool, parameter)
        fields = [_field(parameter, descriptions.get(parameter.name, "")) for parameter in parameters]
        holder = dataclasses.make_dataclass("Arguments", fields, kw_only=True)
        holder.__pydantic_config__ = ConfigDict(allow_inf_nan=False, title=tool)  # type: ignore[attr-defined]
        try:
            self._adapter: TypeAdapter[Any] = TypeAdapter(holder)
            loose = tidy(self._adapter.json_schema(mode="validation"))
        except PydanticUserError as error:
            raise ConfigError(f"tool {tool!r}: the arguments have no JSON Schema: {_first_line(error)}") from error
        loose.pop("description", None)
        self._loose: Node = loose
        self._strict = strict_mode
        self.schema: Node = strict(loose, tool=tool) if strict_mode else loose
        self._plain = all(_is_plain(parameter.annotation) for parameter in parameters)

    def check(self, text: str) -> Checked | Problem:
        """Check what a model wrote. Never raises."""
        if len(text) > MAX_CHARS:
            return Problem(f"The arguments are too long: {len(text)} characters; at most {MAX_CHARS} are taken.")
        text = text if text.strip() else "{}"
        try:
            given: object = from_json(text, allow_inf_nan=False)
        except (ValueError, TypeError, RecursionError) as error:  # TypeError: half a surrogate pair
            return Problem(
                f"The arguments of {self._tool} are not valid JSON: {error}. Send one JSON object. "
                f"Its schema: {self._shown_schema()}"
            )
        if not isinstance(given, dict):
            return Problem(
                f"The arguments of {self._tool} must be one JSON object, not {_json_kind(given)}. "
                f"Its schema: {self._shown_schema()}"
            )
        return self._check(text, cast("dict[str, Any]", given))

    def _check(self, text: str, given: dict[str, Any]) -> Checked | Problem:
        try:
            if self._strict:
                given = cast("dict[str, Any]", without_nulls(given, self._loose, self._loose))
                text = _encode(given)
            return Checked(self._canonical(self._read(text), given))
        except ValidationError as error:
            return Problem(explain(self._tool, error, self.schema))
        except Exception as error:  # a validator of the user's failed in a way of its own
            return Problem(f"The arguments of {self._tool} could not be checked: {type(error).__name__}: {error}")

    def values(self, arguments: bytes) -> dict[str, Any]:
        """Read checked arguments; raises `pydantic.ValidationError` where the tool has changed since."""
        return cast("dict[str, Any]", vars(self._read(arguments)))

    def _read(self, text: str | bytes) -> Any:
        try:
            return self._adapter.validate_json(text, strict=True, extra="forbid")
        except ValidationError as error:
            if error.error_count() > MAX_ERRORS:
                raise
            if not all(_is_harmless(found) for found in error.errors(include_url=False, include_context=False)):
                raise
        return self._adapter.validate_json(text, strict=False, extra="forbid")

    def _canonical(self, value: Any, given: dict[str, Any]) -> bytes:
        """Encode the values read, or what was given where their JSON does not give the same values again."""
        try:
            dumped = self._adapter.dump_python(value, mode="json", by_alias=True, round_trip=True, warnings=False)
            data = _encode(dumped).encode()
            if self._plain or self._read(data) == value:
                return data
        except Exception:  # a type whose JSON cannot be written, or is not its own, is kept as the model wrote it
            return _encode(given).encode()
        return _encode(given).encode()

    def _shown_schema(self) -> str:
        text = _encode(self.schema)
        return text if len(text) <= 1000 else text[:1000] + ".."


def _is_harmless(error: ErrorDetails) -> bool:
    """Tell whether a value of the wrong JSON type can mean only one thing."""
    given = error["input"]
    match error["type"]:
        case "int_type" | "float_type":
            return isinstance(given, str | int | float) and not isinstance(given, bool)
        case "bool_type":
            return isinstance(given, str) and given.lower() in ("true", "false")
        case _:
            return False


def _field(parameter: Parameter, description: str) -> tuple[str, Any, Any]:
    annotation = adapt(parameter.annotation)
    if description and not _is_described(annotation):
        annotation = Annotated[annotation, Field(description=description)]
    if parameter.default is EMPTY:
        return parameter.name, annotation, dataclasses.field()
    default = parameter.default
    if isinstance(default, _IMMUTABLE):
        return parameter.name, annotation, dataclasses.field(default=default)
    make: Callable[[], Any] = lambda: copy.deepcopy(default)  # noqa: E731 - a def here would have no better name
    shown = _dump_default(parameter)
    annotation = Annotated[annotation, Field(json_schema_extra={"default": shown})]
    return parameter.name, annotation, dataclasses.field(default_factory=make)


def _is_described(annotation: Any) -> bool:
    extras = getattr(annotation, "__metadata__", ())
    return any(isinstance(extra, FieldInfo) and extra.description for extra in extras)


def _adapter_of_one(annotation: Any) -> TypeAdapter[Any]:
    """Make an adapter of one parameter's type alone, where what is said of the field (an alias) has no place."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnsupportedFieldAttributeWarning)
        return adapter_of(annotation)


def _dump_default(parameter: Parameter) -> Any:
    return _adapter_of_one(parameter.annotation).dump_python(
        parameter.default, mode="json", by_alias=True, warnings=False
    )


def _check_default(tool: str, parameter: Parameter) -> None:
    try:
        _adapter_of_one(parameter.annotation).validate_json(_encode(_dump_default(parameter)))
    except Exception as error:
        raise ConfigError(
            f"tool {tool!r}, parameter {parameter.name!r}: the default {parameter.default!r} is no value of its type; "
            f"change the default, or the type (`| None` for None)"
        ) from error


def refuse_unknown_type(tool: str, parameter: Parameter) -> str:
    """Say why pydantic makes no schema of a parameter's type, or "" where it does."""
    try:
        _adapter_of_one(parameter.annotation).json_schema(mode="validation")
    except PydanticUserError as error:
        return _first_line(error)
    except Exception as error:
        raise ConfigError(
            f"tool {tool!r}, parameter {parameter.name!r}: the type {parameter.annotation!r} cannot be used: {error}"
        ) from error
    return ""


def _first_line(error: Exception) -> str:
    return str(error).split("\n", 1)[0]


def _is_plain(annotation: Any) -> bool:
    """Tell whether values of a type are their own JSON."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return all(type(extra) is FieldInfo and not extra.metadata for extra in inner[1:]) and _is_plain(inner[0])
    if origin is Literal:
        return all(isinstance(value, _PLAIN) for value in inner)
    if origin in (list, typing.Union, UnionType):
        return all(_is_plain(member) for member in inner)
    return annotation in _PLAIN


def _json_kind(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case str():
            return "a string"
        case list():
            return "an array"
        case _:
            return "a number"
