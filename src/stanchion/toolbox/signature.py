"""Read a function's signature: what the model fills in, and what the runtime does.

    cents: int                   an argument, filled in by the model
    *, key: str                  the idempotency key, keyword-only and of this name
    context: ToolContext         the call's context, under any name
    db: Inject[Db]               a dependency; so is any parameter whose type is in the agent's `deps`
    token: Annotated[Credential, Needs("crm")]   a credential, made for each attempt

What cannot be called by name or has no type is refused where the tool is defined, with the way to mend it.
"""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, cast

from pydantic.fields import FieldInfo

from stanchion.core.credential import Credential, Needs
from stanchion.core.errors import ConfigError
from stanchion.toolbox.answer import Inject, InjectMarker, ToolContext

Kind = Literal["argument", "key", "context", "dependency", "credential"]
EMPTY: Any = inspect.Parameter.empty

_NONE: Mapping[str, Any] = {}
_NOT_BY_NAME = {
    inspect.Parameter.VAR_POSITIONAL: "takes any number of values; take a list instead",
    inspect.Parameter.VAR_KEYWORD: "takes fields without names; name them, or take one dict[str, ...]",
    inspect.Parameter.POSITIONAL_ONLY: "is positional-only; remove the `/`",
}


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a tool. `annotation` of a dependency is the bare type that it is looked up by, of a credential its `Needs`."""

    name: str
    annotation: Any
    default: Any
    kind: Kind


@dataclass(frozen=True, slots=True)
class Signature:
    """A function's parameters in order, and what it says it returns (`EMPTY`: nothing said)."""

    parameters: tuple[Parameter, ...]
    returns: Any


def read_signature(
    function: Callable[..., Any], *, tool: str, names: Mapping[str, Any], known: Mapping[str, Parameter] = _NONE
) -> Signature:
    """Read a function's signature. `names` are the local names its annotations may use besides the module's.

    Parameters in `known` are taken over by name, whatever is said of them here.

    Raises `ConfigError` naming the tool, the parameter and the way to mend it.
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"tool {tool!r}: {function!r} has no signature that can be read: {error}") from error
    hints = _hints(function, tool, names)
    parameters = tuple(_read(found, hints, tool, known) for found in signature.parameters.values())
    return Signature(parameters, hints.get("return", EMPTY))


def _hints(function: Callable[..., Any], tool: str, names: Mapping[str, Any]) -> dict[str, Any]:
    target: Any = function
    while isinstance(target, functools.partial):
        target = target.func
    if not isinstance(target, types.FunctionType | types.MethodType | types.BuiltinFunctionType):
        target = type(target).__call__
    target = inspect.unwrap(target)
    try:
        return typing.get_type_hints(target, localns=dict(names), include_extras=True)
    except NameError as error:
        raise ConfigError(
            f"tool {tool!r}: an annotation cannot be resolved: {error}; import the name at run time (outside "
            f"`if TYPE_CHECKING`), before the tool is defined"
        ) from error
    except TypeError as error:
        raise ConfigError(f"tool {tool!r}: an annotation is not a type: {error}") from error


def _read(found: inspect.Parameter, hints: Mapping[str, Any], tool: str, known: Mapping[str, Parameter]) -> Parameter:
    name = found.name
    wrong = _NOT_BY_NAME.get(found.kind)
    if wrong is not None:
        raise ConfigError(f"tool {tool!r}, parameter {name!r}: {wrong}")
    if name in known:
        return known[name]
    if name not in hints:
        if name in ("self", "cls"):
            raise ConfigError(
                f"tool {tool!r}, parameter {name!r}: make a tool of the bound method: tool(...)(obj.method)"
            )
        raise ConfigError(f"tool {tool!r}, parameter {name!r}: has no type; annotate it, like `{name}: str`")
    annotation = hints[name]
    if isinstance(found.default, FieldInfo):
        raise ConfigError(
            f"tool {tool!r}, parameter {name!r}: write Field(...) in the type, like "
            f"`{name}: Annotated[int, Field(ge=1)] = 5`, and the default after it"
        )
    if found.kind is inspect.Parameter.KEYWORD_ONLY and name == "key":
        if bare(annotation) is not str:
            raise ConfigError(f"tool {tool!r}, parameter 'key': the idempotency key is text; write `key: str`")
        return Parameter(name, str, found.default, "key")
    if bare(annotation) is ToolContext:
        return Parameter(name, ToolContext, found.default, "context")
    if bare(annotation) is Credential:
        return Parameter(name, _needs(annotation, name, tool), found.default, "credential")
    if _is_marked(annotation):
        return Parameter(name, bare(annotation), found.default, "dependency")
    return Parameter(name, annotation, found.default, "argument")


def bare(annotation: Any) -> Any:
    """Take `Annotated` and `| None` off a type."""
    if typing.get_origin(annotation) is Annotated:
        return bare(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        members = [member for member in typing.get_args(annotation) if member is not type(None)]
        if len(members) == 1:
            return bare(members[0])
    return annotation


def _needs(annotation: Any, name: str, tool: str) -> Needs:
    where = f"tool {tool!r}, parameter {name!r}"
    extras = annotation.__metadata__ if typing.get_origin(annotation) is Annotated else ()
    said = [extra for extra in extras if isinstance(extra, Needs)]
    if not said:
        raise ConfigError(f'{where}: say which credential it takes: `{name}: Annotated[Credential, Needs("crm")]`')
    scopes = cast("object", said[0].scopes)
    if not isinstance(scopes, tuple) or not all(
        isinstance(scope, str) and scope for scope in cast("tuple[object, ...]", scopes)
    ):
        raise ConfigError(f'{where}: scopes={scopes!r} must be a tuple of words, like scopes=("contacts.read",)')
    return said[0]


def _is_marked(annotation: Any) -> bool:
    if typing.get_origin(annotation) is not Annotated:
        return False
    return any(extra is Inject or isinstance(extra, InjectMarker) for extra in annotation.__metadata__)
