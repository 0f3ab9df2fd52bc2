"""The guard by itself: every tier against every kind of rule, and doubt means a person (I5)."""

from __future__ import annotations

from typing import Any

import pytest

from stanchion.core.bundle import READ_RESULT, ApprovalRule, Bundle, EffectTier, Route, ToolSpec
from stanchion.core.money import Price
from stanchion.guard.judge import Verdict, judge

ROUTE = Route("p", "m", Price(0, 0, 0, 0, 0))
TIERS: tuple[EffectTier, ...] = ("read", "write", "irreversible", "destructive")
RULES: dict[str, ApprovalRule | None] = {
    "none": None,
    "this tool": ApprovalRule(tool="act"),
    "another tool": ApprovalRule(tool="other"),
    "everything": ApprovalRule(),
    "above 10": ApprovalRule(tool="act", above={"n": 10}),
}


def verdict(
    tier: EffectTier, *rules: ApprovalRule, arguments: dict[str, Any] | None = None, **options: bool
) -> Verdict:
    bundle = Bundle(
        "a", "", (ROUTE,), (ToolSpec("act", "", {}, tier), ToolSpec(READ_RESULT, "", {}, "read")), approvals=rules
    )
    approved, dry_run = options.get("approved", False), options.get("dry_run", False)
    return judge(bundle, "act", arguments or {"n": 5}, approved=approved, dry_run=dry_run)


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("rule", RULES)
def test_what_waits_for_a_person(tier: EffectTier, rule: str) -> None:
    """What a rule names, and always what is destructive; an approval lets just that through."""
    rules = [r for r in [RULES[rule]] if r is not None]
    waits = tier == "destructive" or rule in ("this tool", "everything")
    assert verdict(tier, *rules).action == ("ask" if waits else "allow")
    assert verdict(tier, *rules, approved=True).action == "allow"


@pytest.mark.parametrize("tier", TIERS)
def test_a_dry_run_asks_for_reads_only(tier: EffectTier) -> None:
    """What is not done needs no approval; a read is done."""
    said = verdict(tier, ApprovalRule(), dry_run=True)
    assert (said.action, said.rule) == (("ask", "approval:any") if tier == "read" else ("allow", "dry_run"))


@pytest.mark.parametrize(
    ("value", "waits"),
    [(10, False), (10.0, False), (10.01, True), (-1, False), (float("nan"), True), ("3", True), (True, True),
     (None, True), ([1], True), (10**400, True)],
)  # fmt: skip
def test_an_amount_that_is_not_shown_to_be_small_waits(value: Any, waits: bool) -> None:
    """Text, truth values, NaN and nothing at all cannot be compared, so a person looks."""
    said = verdict("write", ApprovalRule(tool="act", above={"n": 10}), arguments={"n": value})
    assert said.action == ("ask" if waits else "allow")


def test_the_first_rule_that_applies_names_itself() -> None:
    """With its time to live and words for the person."""
    said = verdict("write", ApprovalRule(tool="other"), ApprovalRule(effect="write", expires_s=9), ApprovalRule())
    assert (said.rule, said.expires_s) == ("approval:write", 9)
    assert "write" in said.reason


def test_a_tool_that_was_not_granted_is_denied() -> None:
    """Approved or not, dry or not."""
    bundle = Bundle("a", "", (ROUTE,))
    assert {judge(bundle, "act", {}, approved=a, dry_run=d).action for a in (True, False) for d in (True, False)} == {
        "deny"
    }


def test_reading_on_is_never_asked_about() -> None:
    """It shows what was shown before."""
    bundle = Bundle("a", "", (ROUTE,), (ToolSpec(READ_RESULT, "", {}, "read"),), approvals=(ApprovalRule(),))
    assert judge(bundle, READ_RESULT, {}, approved=False, dry_run=False).rule == "built_in"
