"""Approval rules: which calls an agent's author wants a person to see, by tool, tier, amount, destination and ground."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from stanchion.core.bundle import ApprovalRule, ToolSpec
from stanchion.guard.ground import Finding
from stanchion.guard.values import normal


def applies(rule: ApprovalRule, spec: ToolSpec, arguments: Mapping[str, Any], found: Sequence[Finding]) -> bool:
    """Whether a rule means a call. What it says of tool, tier, amount and destination must all hold."""
    if rule.tool and rule.tool != spec.name:
        return False
    if rule.effect and rule.effect != spec.effect:
        return False
    if rule.to and not any(_goes_to(rule.to, finding) for finding in found):
        return False
    if rule.ground and not any(finding.ground in rule.ground for finding in found):
        return False
    return not rule.above or any(_exceeds(arguments.get(name), bound) for name, bound in rule.above.items())


def _goes_to(patterns: tuple[str, ...], finding: Finding) -> bool:
    form = normal(finding.kind, finding.value)
    return finding.role != "bound" and any(fnmatchcase(form, normal(finding.kind, pattern)) for pattern in patterns)


def _exceeds(value: Any, bound: float) -> bool:
    """A value that is not a plain number cannot be shown to be within the bound."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return True
    return not value <= bound


def why(rule: ApprovalRule, spec: ToolSpec) -> str:
    """Say in words what a rule asks about."""
    what = f"calls of {spec.name if rule.tool else f'the tier {spec.effect}' if rule.effect else spec.name}"
    if rule.above:
        what += " with " + ", ".join(f"{name} above {bound:g}" for name, bound in rule.above.items())
    if rule.to:
        what += f" to {', '.join(rule.to)}"
    people = f"the approval of {rule.quorum} people" if rule.quorum > 1 else "a person's approval"
    return f"{what} need {people}"
