"""The check of an agent's guard rules against its tools: a wrong rule is found where it is written, not when it should have held."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any, cast, get_args

from stanchion.core.bundle import EffectTier, ToolSpec
from stanchion.core.errors import ConfigError
from stanchion.core.policy import Answer, Grant, GuardRules, Known, Level
from stanchion.guard.values import normal

GROUNDS = ("user", "configured", "field", "memory", "allowed", "reviewer", "free", "none")
_ANSWERS: tuple[str, ...] = get_args(Answer)
_ANSWERED = ("ungrounded", "ungrounded_irreversible", "copied_url", "composed_url", "flow", "shape")


def checked_rules(agent: str, rules: GuardRules, tools: Mapping[str, ToolSpec]) -> GuardRules:
    """Check an agent's rules. Raises `ConfigError` that names the setting."""
    for problem in _problems(rules, tools):
        raise ConfigError(f"agent {agent!r}: guard.{problem}")
    return rules


def _problems(rules: GuardRules, tools: Mapping[str, ToolSpec]) -> Iterator[str]:
    for name in _ANSWERED:
        if getattr(rules, name) not in _ANSWERS:
            yield f"{name} must be one of {', '.join(_ANSWERS)}, not {getattr(rules, name)!r}"
    for name in ("mark", "freeze", "quarantine"):
        if not isinstance(getattr(rules, name), bool):
            yield f"{name} must be True or False"
    if isinstance(rules.memory, str) or not all(isinstance(kind, str) and kind for kind in rules.memory):  # pyright: ignore[reportUnnecessaryIsInstance]
        yield f'memory must be a list of kinds of values, as in ("email",), not {rules.memory!r}'
    if rules.pii not in ("keep", "redact"):
        yield f'pii must be "keep" or "redact", not {rules.pii!r}'
    for tier in rules.confirm:
        if tier not in get_args(EffectTier):
            yield f"confirm: {tier!r} is no tier; there are {', '.join(get_args(EffectTier))}"
    yield from _of_type(rules.known, Known, "known")
    yield from _of_type(rules.levels, Level, "levels")
    yield from _of_type(rules.grants or (), Grant, "grants")
    levels = {level.name for level in rules.levels} | {"public"}
    for spec in tools.values():
        for path, field in spec.result.items():
            if field.secrecy not in levels:
                yield (
                    f"levels: result[{path!r}] of the tool {spec.name!r} is {field.secrecy!r}, of which nothing is said; "
                    f"add Level({field.secrecy!r}, readers=(..,))"
                )
    for grant in rules.grants or ():
        yield from _grant(grant, tools)


def _grant(grant: Grant, tools: Mapping[str, ToolSpec]) -> Iterator[str]:
    for pattern in grant.tools:
        meant = [spec for name, spec in tools.items() if fnmatchcase(name, pattern)]
        if tools and not meant:
            yield f"grants: no tool is like {pattern!r}; there are {', '.join(tools)}"
        for param in grant.params:
            for name in ("most", "least"):
                if (bound := getattr(param, name)) and not normal("number", bound):
                    yield f"grants: {name}={bound!r} of {param.path!r} is no number"
            named = param.path.partition(".")[0]
            if meant and not any(named in spec.parameters.get("properties", {}) for spec in meant):
                yield f"grants: no tool like {pattern!r} has an argument {named!r}"


def _of_type(items: Any, kind: type, name: str) -> Iterator[str]:
    if not isinstance(items, tuple):
        yield f"{name} must be a tuple, not {items!r}"
        return
    for item in cast("tuple[Any, ...]", items):
        if not isinstance(item, kind):
            yield f"{name}: {item!r} is no {kind.__name__}(..)"
