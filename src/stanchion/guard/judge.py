"""Judge a proposed call: allow it, ask a person, or deny it (invariant I5). Nothing here awaits.

What an agent may do is what its bundle lists; the tier of the tool and the agent's approval rules say what of it waits
for a person. Destructive calls always do. A rule that cannot be applied asks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from stanchion.core.bundle import READ_RESULT, ApprovalRule, Bundle, ToolSpec


class Verdict(msgspec.Struct, frozen=True):
    """What may become of a call, and the name of the rule that said so."""

    action: Literal["allow", "ask", "deny"]
    rule: str
    reason: str = ""
    expires_s: float = 0.0


def judge(bundle: Bundle, tool: str, arguments: Mapping[str, Any], *, approved: bool, dry_run: bool) -> Verdict:
    """Judge a call of validated arguments. `approved`: a person has already said yes to just these."""
    spec = bundle.tool(tool)
    if spec is None:
        return Verdict("deny", "not_granted", f"the agent has no tool named {tool!r}")
    if tool == READ_RESULT:
        return Verdict("allow", "built_in")
    if dry_run and spec.effect != "read":
        return Verdict("allow", "dry_run")
    verdict = _by_rules(bundle.approvals, spec, arguments)
    if verdict.action == "ask" and approved:
        return Verdict("allow", f"approved:{verdict.rule}")
    return verdict


def _by_rules(rules: tuple[ApprovalRule, ...], spec: ToolSpec, arguments: Mapping[str, Any]) -> Verdict:
    for rule in rules:
        if _applies(rule, spec, arguments):
            name = "approval:" + (rule.tool or rule.effect or "any")
            return Verdict("ask", name, _why(rule, spec), rule.expires_s)
    if spec.effect == "destructive":
        return Verdict("ask", "tier:destructive", f"{spec.name} is destructive and always needs a person's approval")
    return Verdict("allow", f"tier:{spec.effect}")


def _applies(rule: ApprovalRule, spec: ToolSpec, arguments: Mapping[str, Any]) -> bool:
    if rule.tool and rule.tool != spec.name:
        return False
    if rule.effect and rule.effect != spec.effect:
        return False
    return not rule.above or any(_exceeds(arguments.get(name), bound) for name, bound in rule.above.items())


def _exceeds(value: Any, bound: float) -> bool:
    """A value that is not a plain number cannot be shown to be within the bound."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return True
    return not value <= bound


def _why(rule: ApprovalRule, spec: ToolSpec) -> str:
    if rule.above:
        bounds = ", ".join(f"{name} above {bound:g}" for name, bound in rule.above.items())
        return f"calls of {spec.name} with {bounds} need a person's approval"
    return f"calls of {'the tier ' + spec.effect if not rule.tool else spec.name} need a person's approval"
