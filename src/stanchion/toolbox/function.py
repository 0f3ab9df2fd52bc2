"""`@tool`: make a tool of a typed function.

The function stays what it was: calling the `Tool` calls it. Everything about it is read once, where it is defined, and
what cannot work is a `ConfigError` there. Which parameters are dependencies is known in full only at the agent, which has
the `deps`: so a tool is bound to a registry, and what pydantic knows no schema for must be a dependency by then.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Generic, ParamSpec, TypeVar, cast

from stanchion.core.bundle import EffectTier, RetryPolicy, ToolSpec
from stanchion.core.errors import ConfigError
from stanchion.core.policy import ResultField, Role
from stanchion.toolbox.arguments import Arguments, refuse_unknown_type
from stanchion.toolbox.call import Call, Routine
from stanchion.toolbox.docstring import read_docstring
from stanchion.toolbox.meaning import check_fields, check_roles, roles_in
from stanchion.toolbox.options import EFFECTS, Breaker, Options, ToolLimits, read_options
from stanchion.toolbox.result import ResultType
from stanchion.toolbox.signature import EMPTY, Parameter, Signature, bare, read_signature

P = ParamSpec("P")
R = TypeVar("R")
AnyFunction = TypeVar("AnyFunction", bound=Callable[..., Any])

_PYTHON_KINDS = {
    inspect.isgeneratorfunction: "a generator; return the whole result (a list)",
    inspect.isasyncgenfunction: "an async generator; return the whole result (a list)",
}


@dataclass(frozen=True, slots=True)
class Bound:
    """A tool as one registry knows it: with its dependencies told apart from its arguments."""

    spec: ToolSpec
    arguments: Arguments
    call: Call
    reconciler: Routine | None
    dry_run: Routine | None


@dataclass(frozen=True, slots=True)
class _Companion:
    """A function beside the tool's: its reconciler or its dry run."""

    label: str
    function: Callable[..., Any]
    signature: Signature


class Tool(Generic[P, R]):
    """A function that a model may call. Make one with `@tool`."""

    def __init__(self, function: Callable[P, R], options: Options, names: Mapping[str, Any]) -> None:
        self._params: Mapping[str, Role] = {}
        self._result: Mapping[str, ResultField] = {}
        functools.update_wrapper(self, function)
        self.function = function
        self.name = options.name
        self._options = options
        self._reconciler: _Companion | None = None
        self._dry_run: _Companion | None = None
        _check_kind(options.name, function)
        self._signature = read_signature(function, tool=options.name, names=names)
        self._why: dict[str, str] = {}
        self._guessed = self._guess_dependencies()
        self._returns = ResultType(self._signature.returns)
        arguments = [found.name for found in self._signature.parameters if found.kind == "argument"]
        self._description, self._descriptions = read_docstring(
            inspect.getdoc(function), [found.name for found in self._signature.parameters]
        )
        self._descriptions = {name: said for name, said in self._descriptions.items() if name in arguments}
        self._arguments = self._read_arguments(frozenset(self._guessed.values()))

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function itself, as if it were no tool."""
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<Tool {self.name} effect={self._options.effect}>"

    @property
    def spec(self) -> ToolSpec:
        """The tool as the loop knows it; parameters whose type has no schema are taken for dependencies."""
        return self._spec(self._arguments)

    @property
    def limits(self) -> ToolLimits | None:
        """What all workers together may do with it."""
        return self._options.limits

    def reconciler(self, function: AnyFunction) -> AnyFunction:
        """Register the function that answers whether a call in doubt was done: `Done(result)`, `Undone()`, `Unknown()`.

        It takes any of the tool's parameters by name, the key among them. Raising `NotDone` is `Undone()`.
        """
        self.add(function, None, _names_of_caller())
        return function

    def dry_run(self, function: AnyFunction) -> AnyFunction:
        """Register the function that answers in a dry run instead of the tool. It must have no effect."""
        self.add(None, function, _names_of_caller())
        return function

    def add(
        self, reconcile: Callable[..., Any] | None, dry_run: Callable[..., Any] | None, names: Mapping[str, Any]
    ) -> None:
        """Register the functions beside the tool's; `names` are the local names their annotations may use."""
        if reconcile is not None:
            self._reconciler = self._read_companion("reconciler", reconcile, names)
        if dry_run is not None:
            self._dry_run = self._read_companion("dry run", dry_run, names)

    def mean(self, params: Mapping[str, Role], result: Mapping[str, ResultField]) -> None:
        """Say what its parameters and results mean to the guard, besides what their types say."""
        found = [one for one in self._signature.parameters if one.kind == "argument"]
        written = {path: role for one in found for path, role in roles_in(one.annotation, one.name)}
        self._params = written | check_roles(self.name, params, [one.name for one in found])
        self._result = check_fields(self.name, result)

    def bind(self, types: Collection[type]) -> Bound:
        """Bind the tool to the types an agent has dependencies of; raises `ConfigError` for one that it has not."""
        for found in self._signature.parameters:
            wanted = self._dependency(found, types)
            if wanted is not None and wanted not in types:
                raise ConfigError(_no_dependency(self.name, found, wanted, self._why.get(found.name, "")))
        used = frozenset(types) & {bare(found.annotation) for found in self._signature.parameters}
        arguments = self._arguments if used <= set(self._guessed.values()) else self._read_arguments(used)
        spec = self._spec(arguments)
        routine = self._routine(self.function, self._signature, types)
        return Bound(
            spec=spec,
            arguments=arguments,
            call=Call(spec, routine, arguments, self._returns, max_concurrency=self._options.max_concurrency),
            reconciler=self._bind_companion(self._reconciler, types),
            dry_run=self._bind_companion(self._dry_run, types),
        )

    def _guess_dependencies(self) -> dict[str, type]:
        """Take for dependencies what is marked so, and classes that no schema can be made of."""
        guessed: dict[str, type] = {}
        for found in self._signature.parameters:
            wanted = bare(found.annotation)
            if found.kind == "dependency":
                if not isinstance(wanted, type):
                    raise ConfigError(
                        f"tool {self.name!r}, parameter {found.name!r}: a dependency is asked for by a class"
                    )
                guessed[found.name] = wanted
            elif found.kind == "argument":
                why = refuse_unknown_type(self.name, found)
                if why and not isinstance(wanted, type):
                    raise ConfigError(
                        f"tool {self.name!r}, parameter {found.name!r}: a model cannot write a {found.annotation!r}; "
                        f"use plain types, dataclasses, TypedDicts or models ({why})"
                    )
                if why:
                    guessed[found.name], self._why[found.name] = wanted, why
        return guessed

    def _dependency(self, found: Parameter, types: Collection[type]) -> type | None:
        wanted = bare(found.annotation)
        if found.kind == "dependency" or found.name in self._guessed:
            return wanted
        return wanted if found.kind == "argument" and isinstance(wanted, type) and wanted in types else None

    def _read_arguments(self, types: Collection[type]) -> Arguments:
        shown = [
            found
            for found in self._signature.parameters
            if found.kind == "argument" and self._dependency(found, types) is None
        ]
        return Arguments(self.name, shown, self._descriptions, strict_mode=self._options.strict)

    def _spec(self, arguments: Arguments) -> ToolSpec:
        options = self._options
        return ToolSpec(
            name=self.name,
            description=self._description,
            parameters=arguments.schema,
            effect=options.effect,
            timeout_s=options.timeout_s,
            keyed=any(found.kind == "key" for found in self._signature.parameters),
            reconciles=self._reconciler is not None,
            repeatable=options.repeatable,
            retry=options.retry,
            max_result_chars=options.max_result_chars,
            strict=options.strict,
            dry_run=self._dry_run is not None,
            ends_run=options.ends_run,
            version=options.version,
            params=self._params,
            result=self._result,
            essential=options.essential,
            needs={found.name: found.annotation for found in self._signature.parameters if found.kind == "credential"},
            group=options.group,
        )

    def _routine(self, function: Callable[..., Any], signature: Signature, types: Collection[type]) -> Routine:
        dependencies = [(found.name, self._dependency(found, types)) for found in signature.parameters]
        needed = tuple((name, wanted) for name, wanted in dependencies if wanted is not None)
        hidden = {name for name, _ in needed}
        named = {kind: [found.name for found in signature.parameters if found.kind == kind] for kind in _KINDS}
        return Routine(
            function=function,
            is_async=_is_async(function),
            arguments=tuple(name for name in named["argument"] if name not in hidden),
            contexts=tuple(named["context"]),
            dependencies=needed,
            takes_key=bool(named["key"]),
            credentials=tuple(
                (found.name, found.annotation) for found in signature.parameters if found.kind == "credential"
            ),
        )

    def _read_companion(self, what: str, function: Callable[..., Any], names: Mapping[str, Any]) -> _Companion:
        """Read a reconciler or a dry run: it takes the tool's parameters by name, and contexts and dependencies."""
        _check_kind(self.name, function)
        known = {"key": Parameter("key", str, EMPTY, "key")}
        known.update((found.name, found) for found in self._signature.parameters)
        label = f"{self.name} ({what})"
        return _Companion(label, function, read_signature(function, tool=label, names=names, known=known))

    def _bind_companion(self, companion: _Companion | None, types: Collection[type]) -> Routine | None:
        if companion is None:
            return None
        own = {found.name for found in self._signature.parameters}
        for found in companion.signature.parameters:
            wanted = self._dependency(found, types)
            if wanted is not None and wanted not in types:
                raise ConfigError(_no_dependency(companion.label, found, wanted))
            if wanted is None and found.kind == "argument" and found.name not in own:
                raise ConfigError(
                    f"tool {companion.label!r}, parameter {found.name!r}: is no parameter of the tool "
                    f"({', '.join(sorted(own))}) and no dependency of the agent"
                )
        return self._routine(companion.function, companion.signature, types)


def _no_dependency(tool_name: str, found: Parameter, wanted: type, why: str = "") -> str:
    where, add = f"tool {tool_name!r}, parameter {found.name!r}", f"deps={{{wanted.__name__}: ...}}"
    if found.kind == "dependency":
        return f"{where}: the agent has no dependency {wanted.__name__}; add it: {add}"
    return (
        f"{where}: a model cannot write a {wanted.__name__}, and the agent has no such dependency; add it: {add}, "
        f"or use plain types, dataclasses, TypedDicts or models" + (f" ({why})" if why else "")
    )


_KINDS = ("argument", "key", "context", "dependency")


def _is_async(function: Any) -> bool:
    while isinstance(function, functools.partial):
        function = cast("functools.partial[Any]", function).func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004


def _check_kind(name: str, function: Any) -> None:
    if isinstance(function, type) or not callable(function):
        raise ConfigError(f"tool {name!r}: {function!r} is not a function")
    for asked, kind in _PYTHON_KINDS.items():
        if asked(function):
            raise ConfigError(f"tool {name!r}: the function is {kind}")


def tool(
    misplaced: Any = None,
    /,
    *,
    effect: EffectTier | None = None,
    name: str = "",
    timeout_s: float = 30.0,
    retries: int | RetryPolicy = 2,
    repeatable: bool = False,
    max_result_chars: int = 16_000,
    reconcile: Callable[..., Any] | None = None,
    dry_run: Callable[..., Any] | None = None,
    strict: bool = False,
    ends_run: bool = False,
    essential: bool = False,
    version: str = "",
    max_concurrency: int = 0,
    concurrency: int = 0,
    rate: str = "",
    breaker: Breaker | None = None,
    params: Mapping[str, Role] | None = None,
    result: Mapping[str, ResultField] | None = None,
    group: str = "",
) -> Callable[[Callable[P, R]], Tool[P, R]]:
    """Make a tool of a function: `@tool(effect="read")`.

    `effect` is what it does to the world: "read" (nothing), "write" (can be undone), "irreversible", "destructive". It must
    be said: what is taken for a read is run again without asking.
    `retries` come after the first attempt, for what failed for the moment only. `repeatable`: the same call with the same
    result is no sign of a loop. `strict` asks the provider to hold the model to the schema. `ends_run`: a person has the
    conversation afterwards. `essential`: where it is not to be had the run ends and says so; else the run goes on without. `max_concurrency`: calls of it at once in this process; 0: any number.

    All workers of a store together: `concurrency` calls at once, `rate` attempts in a time ("30/min"), and a `breaker`
    that leaves a tool alone which keeps failing. They belong to the tool's name, for all agents and tenants.

    `params` and `result` say what values mean to the guard, by their paths, where the types do not: `{"to.*":
    Destination("email")}`, `{"*.id": ResultField("file", trusted=True)}`.

    `group` is its place in a catalogue of many ("billing/refunds"), for agents that search their tools.
    """

    def decorate(function: Callable[P, R]) -> Tool[P, R]:
        known = name or _name_of(function)
        if effect is None:
            raise ConfigError(_unsaid(known))
        options = read_options(
            name=known,
            effect=effect,
            timeout_s=timeout_s,
            retries=retries,
            repeatable=repeatable,
            max_result_chars=max_result_chars,
            strict=strict,
            ends_run=ends_run,
            essential=essential,
            version=version,
            max_concurrency=max_concurrency,
            concurrency=concurrency,
            rate=rate,
            breaker=breaker,
            group=group,
        )
        made = _make(function, options, _names_of_caller(), reconcile, dry_run)
        made.mean(params or {}, result or {})
        return made

    if misplaced is not None:
        raise ConfigError(_unsaid(_name_of(misplaced)))
    return decorate


def _unsaid(name: str) -> str:
    choices = ", ".join(map(repr, EFFECTS))
    return f"tool {name!r}: say what it does to the world: @tool(effect=..), one of {choices}"


def _make(
    function: Callable[..., Any],
    options: Options,
    names: Mapping[str, Any],
    reconcile: Callable[..., Any] | None,
    dry_run: Callable[..., Any] | None,
) -> Tool[..., Any]:
    made: Tool[..., Any] = Tool(function, options, names)
    made.add(reconcile, dry_run, names)
    return made


def _names_of_caller() -> Mapping[str, Any]:
    """Give the names where `@tool` stands: a tool in a function may use the types defined beside it."""
    frame = inspect.currentframe()
    frame = frame.f_back.f_back if frame and frame.f_back else None
    return frame.f_locals if frame else {}


def _name_of(function: Any) -> str:
    return getattr(function, "__name__", "") if callable(function) else repr(function)
