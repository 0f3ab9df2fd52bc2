"""Let msgspec Structs stand where pydantic wants a type: as a dataclass of the same fields, made into the Struct after.

So a Struct has a closed schema, and errors with paths, like any other type. Constraints of `msgspec.Meta` are checked by
msgspec itself once the fields are read.
"""

from __future__ import annotations

import dataclasses
import functools
import typing
from types import UnionType
from typing import Annotated, Any, Union

import msgspec
from pydantic import GetCoreSchemaHandler, TypeAdapter
from pydantic_core import CoreSchema, core_schema


def adapt(annotation: Any) -> Any:
    """Replace the Structs in a type, at any depth of its arguments."""
    if _is_struct(annotation):
        return Annotated[annotation, _AsStruct(annotation)]
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        adapted = adapt(inner[0])
        return annotation if adapted is inner[0] else functools.reduce(_annotate, inner[1:], adapted)
    if origin in (None, typing.Literal) or not inner:
        return annotation
    members = tuple(adapt(member) for member in inner)
    if all(new is old for new, old in zip(members, inner, strict=True)):
        return annotation
    if origin in (typing.Union, UnionType):
        return Union[members]  # noqa: UP007 - of a tuple made here
    return origin[members]


def _is_struct(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, msgspec.Struct)


def _annotate(annotation: Any, extra: Any) -> Any:
    return Annotated[annotation, extra]


class _AsStruct:
    """Tells pydantic how to read and write one Struct type."""

    def __init__(self, struct: type[msgspec.Struct]) -> None:
        self._struct = struct

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        del source
        read = core_schema.no_info_after_validator_function(self._make, handler.generate_schema(_twin(self._struct)))
        return core_schema.json_or_python_schema(
            json_schema=read,
            python_schema=core_schema.union_schema([core_schema.is_instance_schema(self._struct), read]),
            serialization=core_schema.plain_serializer_function_ser_schema(msgspec.to_builtins),
        )

    def _make(self, twin: Any) -> msgspec.Struct:
        try:
            made = self._struct(**vars(twin))
            return msgspec.convert(msgspec.to_builtins(made), self._struct)
        except (msgspec.ValidationError, TypeError) as error:
            raise ValueError(str(error)) from error


@functools.cache
def _twin(struct: type[msgspec.Struct]) -> type:
    fields: list[tuple[str, Any, Any]] = []
    for found in msgspec.structs.fields(struct):
        if found.default is not msgspec.NODEFAULT:
            made = dataclasses.field(default=found.default)
        elif found.default_factory is not msgspec.NODEFAULT:
            made = dataclasses.field(default_factory=found.default_factory)
        else:
            made = dataclasses.field()
        fields.append((found.name, adapt(found.type), made))
    return dataclasses.make_dataclass(struct.__name__, fields, kw_only=True)


def adapter_of(annotation: Any) -> TypeAdapter[Any]:
    """Make a pydantic adapter of a type that may hold Structs."""
    return TypeAdapter(adapt(annotation))
