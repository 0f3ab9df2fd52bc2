"""Where own code plugs in: checks of text, and classifiers that are asked over the network. Hooks observe; they never change anything.

Agent(.., checks=[Slogan(), OpenAIModerations()],
      guard=GuardRules(checks=(CheckRule("slogan", "output", "block"), CheckRule("moderation", "input", "block"))))
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, get_args

import msgspec

from stanchion.core.check import About, Hit, TextCheck
from stanchion.core.errors import ConfigError
from stanchion.core.policy import CheckRule, GuardRules, Where
from stanchion.guard.check import BUILT_IN, settings_problems
from stanchion.model.moderation import Classifier, OpenAIModerations, Score, Unopened, is_classifier

__all__ = [
    "About",
    "CheckRule",
    "Classifier",
    "Hit",
    "OpenAIModerations",
    "Score",
    "TextCheck",
    "bound_rules",
    "pure_checks",
]

Plug = TextCheck | Classifier | Unopened
_ACTIONS: Mapping[str, tuple[str, ...]] = {
    "input": ("flag", "redact", "block"),
    "result": ("flag", "redact", "block"),
    "output": ("flag", "redact", "block"),
    "action": ("flag", "ask", "block"),
}


def pure_checks(checks: Iterable[Any]) -> list[TextCheck]:
    """List those of an agent's checks that are pure."""
    return [check for check in checks if not is_classifier(check)]


def bound_rules(agent: str, rules: GuardRules, checks: Sequence[Any], tools: Iterable[str]) -> GuardRules:
    """Check an agent's rules against what is bound, and say in them what is asked over the network. Raises `ConfigError`."""
    plugs = _by_name(agent, checks)
    for problem in _problems(rules, plugs, list(tools)):
        raise ConfigError(f"agent {agent!r}: guard.checks: {problem}")
    named = {rule.uses or rule.name for rule in rules.checks}
    if unused := [name for name in plugs if name not in named]:
        raise ConfigError(
            f"agent {agent!r}: checks: no rule uses {unused[0]!r}; add CheckRule({unused[0]!r}, where) to guard.checks"
        )
    bound = tuple(_bound(rule, plugs.get(rule.uses or rule.name)) for rule in rules.checks)
    return msgspec.structs.replace(rules, checks=bound)


def _by_name(agent: str, checks: Sequence[Any]) -> dict[str, Any]:
    plugs: dict[str, Any] = {}
    for check in checks:
        name = getattr(check, "name", None)
        if (
            not isinstance(name, str)
            or not name
            or not (is_classifier(check) or callable(getattr(check, "look", None)))
        ):
            raise ConfigError(
                f"agent {agent!r}: checks: {check!r} is no check: it needs a name, and look() or classify()"
            )
        if name in plugs or name in BUILT_IN:
            raise ConfigError(f"agent {agent!r}: checks: there is another check named {name!r}")
        plugs[name] = check
    return plugs


def _bound(rule: CheckRule, plug: Any) -> CheckRule:
    if plug is None or not is_classifier(plug):
        return msgspec.structs.replace(rule, classifier=False, max_nano_usd=0)
    return msgspec.structs.replace(rule, classifier=True, max_nano_usd=plug.max_cost_nano_usd)


def _problems(rules: GuardRules, plugs: Mapping[str, Any], tools: list[str]) -> Iterator[str]:
    if not isinstance(rules.checks, tuple) or not all(isinstance(rule, CheckRule) for rule in rules.checks):  # pyright: ignore[reportUnnecessaryIsInstance]
        yield f"must be a tuple of CheckRule(..), not {rules.checks!r}"
        return
    seen: set[tuple[str, str]] = set()
    for rule in rules.checks:
        if (rule.name, rule.where) in seen:
            yield f"two rules are named {rule.name!r} at {rule.where!r}; name one of them anew, with uses={rule.name!r}"
        seen.add((rule.name, rule.where))
        for problem in _rule_problems(rule, plugs, tools):
            yield f"{rule.name!r}: {problem}"


def _rule_problems(rule: CheckRule, plugs: Mapping[str, Any], tools: list[str]) -> Iterator[str]:
    uses = rule.uses or rule.name
    if rule.where not in get_args(Where):
        yield f"where must be one of {', '.join(get_args(Where))}, not {rule.where!r}"
        return
    if rule.action not in _ACTIONS[rule.where]:
        yield f"action at {rule.where!r} must be one of {', '.join(_ACTIONS[rule.where])}, not {rule.action!r}"
    if uses in BUILT_IN:
        yield from settings_problems(uses, rule.settings)
    elif uses not in plugs:
        yield f"there is no check {uses!r}; there are {', '.join([*BUILT_IN, *plugs])}. Add your own to the agent's checks"
    elif is_classifier(plugs[uses]):
        yield from _classifier_problems(rule, plugs[uses])
    if rule.again and not (rule.where == "output" and rule.action == "block"):
        yield "again means something only of an output that is blocked"
    yield from _tool_problems(rule, tools)


def _classifier_problems(rule: CheckRule, plug: Any) -> Iterator[str]:
    most = getattr(plug, "max_cost_nano_usd", None)
    if not isinstance(most, int) or isinstance(most, bool) or most < 0:
        yield "max_cost_nano_usd must say what asking it once may cost at most, so that it can be reserved; 0 if it is free"
    if rule.action == "redact":
        yield "a classifier names no piece that could be taken out; use flag or block"
    if rule.on_error not in ("block", "pass"):
        yield f"on_error must be block or pass, not {rule.on_error!r}"
    if not 0 < rule.timeout_s < float("inf"):
        yield "timeout_s must be seconds above 0"
    if rule.attempts < 1:
        yield "attempts must be 1 or more"


def _tool_problems(rule: CheckRule, tools: list[str]) -> Iterator[str]:
    if rule.where in ("input", "output") and rule.tools != ("*",):
        yield f"tools mean nothing at {rule.where!r}"
    for pattern in rule.tools:
        if "*" not in pattern and "?" not in pattern and "[" not in pattern and pattern not in tools:
            yield f"there is no tool {pattern!r}; there are {', '.join(tools) or 'none'}"
