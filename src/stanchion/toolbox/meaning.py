"""What a tool's parameters and results mean to the guard, as its author writes it in the types.

to: list[Annotated[str, Destination("email")]]          -> {"to.*": Destination("email")}
amount: Annotated[float, Bound("money")]                -> {"amount": Bound("money")}
@tool(.., result={"*.id": ResultField("file", trusted=True)})
"""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Collection, Iterator, Mapping
from typing import Annotated, Any, Union, get_args, get_origin

from stanchion.core.errors import ConfigError
from stanchion.core.policy import Bound, Content, Destination, ResultField, Role

_DEEPEST = 6


def roles_in(annotation: Any, path: str = "", depth: int = 0) -> Iterator[tuple[str, Role]]:
    """List the roles in a type, with the paths of the values that have them."""
    if depth > _DEEPEST:
        return
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        found = [said for said in annotation.__metadata__ if isinstance(said, Destination | Bound | Content)]
        if found:
            yield path, found[-1]
        else:
            yield from roles_in(inner[0], path, depth)
    elif origin is Union or origin is types.UnionType:
        for option in inner:
            yield from roles_in(option, path, depth + 1)
    elif origin in (list, set, frozenset, tuple, typing.cast("Any", Collection)) or (
        isinstance(origin, type) and issubclass(origin, Collection) and not issubclass(origin, Mapping)
    ):
        for item in inner:
            if item is not Ellipsis:
                yield from roles_in(item, _join(path, "*"), depth + 1)
    elif isinstance(origin, type) and issubclass(origin, Mapping):
        yield from roles_in(inner[-1], _join(path, "*"), depth + 1)
    else:
        for name, kind in _fields(annotation).items():
            yield from roles_in(kind, _join(path, name), depth + 1)


def _join(path: str, step: str) -> str:
    return f"{path}.{step}" if path else step


def _fields(annotation: Any) -> Mapping[str, Any]:
    is_record = (
        dataclasses.is_dataclass(annotation) or hasattr(annotation, "model_fields") or typing.is_typeddict(annotation)
    )
    if not is_record:
        return {}
    try:
        return typing.get_type_hints(annotation, include_extras=True)
    except (NameError, TypeError):
        return {}


def check_roles(tool: str, params: Mapping[str, Any], names: Collection[str]) -> dict[str, Role]:
    """Check what was said of parameters; raises `ConfigError`."""
    for path, role in params.items():
        where = f"tool {tool!r}: params[{path!r}]"
        if not isinstance(role, Destination | Bound | Content):
            raise ConfigError(f"{where} must be Destination(..), Bound(..) or Content(..), not {role!r}")
        if path.partition(".")[0] not in names:
            raise ConfigError(f"{where}: it has no parameter {path.partition('.')[0]!r}; there are: {', '.join(names)}")
    return dict(params)


def check_fields(tool: str, result: Mapping[str, Any]) -> dict[str, ResultField]:
    """Check what was said of a result; raises `ConfigError`."""
    for path, field in result.items():
        where = f"tool {tool!r}: result[{path!r}]"
        if not isinstance(field, ResultField):
            raise ConfigError(f"{where} must be ResultField(..), not {field!r}")
        try:
            re.compile(field.match)
        except re.error as error:
            raise ConfigError(f"{where}: match={field.match!r} is no regular expression: {error}") from error
        if field.trusted and not field.kind and path:
            raise ConfigError(f'{where}: say of which kind the values are, like ResultField("file", trusted=True)')
    return dict(result)
