"""Judge a proposed call: allow it, ask a person, or deny it (invariant I5). Nothing here awaits.

Each rule says what it would do, and why; the strictest wins. A call is allowed when it is granted, *and* every destination and
bound of its effect has a ground, *and* what the model has read may go there, *and* nobody wants it confirmed. A person's yes lifts
what was asked, never what was denied. A rule that cannot be applied asks or denies.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import msgspec

from stanchion.core.bundle import BUILT_IN, ApprovalRule, Bundle, ToolSpec
from stanchion.core.path import leaves
from stanchion.core.policy import Answer, Destination
from stanchion.guard.approval import applies, why
from stanchion.guard.flow import leaks
from stanchion.guard.grant import covered
from stanchion.guard.ground import Finding, findings
from stanchion.guard.redact import holds_redacted, is_redacted
from stanchion.guard.restriction import broken
from stanchion.guard.shape import shapes_in
from stanchion.guard.standing import Standing
from stanchion.guard.values import dense, normal, plain

_ORDER = {"allow": 0, "ask": 1, "deny": 2}


class Reason(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one rule would do with a call."""

    action: Literal["allow", "ask", "deny"]
    rule: str
    text: str = ""
    values: tuple[str, ...] = ()
    """Paths of the arguments that it is about."""
    expires_s: float = 0.0
    quorum: int = 0
    bare: bool = False
    """These values have no ground, or a check found them: a no is about them, and not only about this call."""


class Verdict(msgspec.Struct, frozen=True):
    """What may become of a call, and the name of the rule that said so."""

    action: Literal["allow", "ask", "deny"]
    rule: str
    reason: str = ""
    expires_s: float = 0.0
    values: tuple[str, ...] = ()
    quorum: int = 0
    reasons: tuple[Reason, ...] = ()
    """Of all rules that had something against it."""
    findings: tuple[Finding, ...] = ()


def judge(
    bundle: Bundle,
    tool: str,
    arguments: Mapping[str, Any],
    *,
    approved: bool = False,
    dry_run: bool = False,
    standing: Standing | None = None,
) -> Verdict:
    """Judge a call of validated arguments. `approved`: people have already said yes to just these."""
    spec = bundle.tool(tool)
    if spec is None:
        return Verdict("deny", "not_granted", f"the agent has no tool named {tool!r}")
    if tool in BUILT_IN:
        return Verdict("allow", "built_in")
    if dry_run and spec.effect != "read":
        return Verdict("allow", "dry_run")
    found: list[Finding] = []
    if standing is not None and (spec.params or standing.policies is not None):
        found = findings(spec, arguments, bundle.guard, standing.evidence, standing.granted, standing.edited)
    reasons = list(_reasons(bundle, spec, arguments, found, standing))
    return _verdict(spec, reasons, tuple(found), approved=approved)


def _verdict(spec: ToolSpec, reasons: list[Reason], found: tuple[Finding, ...], *, approved: bool) -> Verdict:
    if not reasons:
        return Verdict("allow", f"tier:{spec.effect}", findings=found)
    worst = max(reasons, key=lambda reason: _ORDER[reason.action])
    same = [reason for reason in reasons if reason.action == worst.action]
    if worst.action == "ask" and approved:
        return Verdict("allow", f"approved:{worst.rule}", reasons=tuple(reasons), findings=found)
    ends = [reason.expires_s for reason in same if reason.expires_s]
    return Verdict(
        action=worst.action,
        rule=worst.rule,
        reason="; ".join(dict.fromkeys(reason.text for reason in same)),
        expires_s=min(ends, default=0.0),
        values=tuple(dict.fromkeys(path for reason in reasons if reason.bare for path in reason.values)),
        quorum=max(reason.quorum for reason in same),
        reasons=tuple(reasons),
        findings=found,
    )


def call_digest(tool: str, arguments: bytes) -> str:
    """Name a call by tool and canonical arguments: what a decision binds to."""
    return hashlib.sha256(tool.encode() + b"\0" + arguments).hexdigest()[:32]


def _reasons(
    bundle: Bundle, spec: ToolSpec, arguments: Mapping[str, Any], found: list[Finding], standing: Standing | None
) -> Iterator[Reason]:
    """List what the rules have against a call, the gravest kinds first."""
    if standing is not None:
        yield from _granted(bundle, spec, arguments, standing)
        yield from _refused(spec, arguments, found, standing)
        if standing.policies is not None:
            said = standing.policies.decide(standing, spec, arguments, found)
            if said.action != "allow":
                name = ",".join(said.rules) or "no_decision"
                yield Reason(said.action, f"policy:{name}", said.reason or f"the policy {name} forbids it")
        if spec.effect == "read":
            yield from _fetched(bundle, found, standing)
        else:
            yield from _withheld(arguments, found)
            yield from _effect(bundle, spec, arguments, found, standing)
            yield from _checked(standing)
    yield from _confirmed(bundle.approvals, bundle.guard.confirm, spec, arguments, found)
    yield from _restricted(bundle, spec, arguments)


def _granted(bundle: Bundle, spec: ToolSpec, arguments: Mapping[str, Any], standing: Standing) -> Iterator[Reason]:
    for grants in (bundle.guard.grants, standing.grants):
        if outside := covered(grants, spec.name, arguments, standing.now_ms):
            yield Reason("deny", "not_granted", outside)
            return


def _refused(
    spec: ToolSpec, arguments: Mapping[str, Any], found: list[Finding], standing: Standing
) -> Iterator[Reason]:
    """What was denied in this session stays denied, however it comes back; unless the user names it since."""
    if standing.refused_calls:
        name = call_digest(spec.name, msgspec.json.encode(arguments, order="sorted"))
        if any(
            past.value == name and not standing.evidence.spoken_since(past.messages) for past in standing.refused_calls
        ):
            yield Reason(
                "deny", "refused_before", "a person rejected this very call, and the user said nothing new since"
            )
    if not standing.denied or (spec.effect == "read" and not found):
        return
    texts = [(path, plain(value), dense(value)) for path, value in leaves(dict(arguments)) if isinstance(value, str)]
    for past in standing.denied:
        wanted = plain(past.value), dense(past.value)
        paths = tuple(path for path, text, packed in texts if _comes_back(*wanted, text, packed))
        if paths and not standing.evidence.said("text", past.value, since=past.messages):
            yield Reason("deny", "denied_before", f"{past.value!r} was refused in this session", paths, bare=True)


def _comes_back(wanted: str, close: str, text: str, packed: str) -> bool:
    """Whether a refused value is, or stands in, an argument. A short word is a refused destination only where it is all."""
    if text == wanted:
        return True
    tells = len(wanted) > 5 and not wanted.isalpha()
    return tells and (wanted in text or close in packed)


def _fetched(bundle: Bundle, found: list[Finding], standing: Standing) -> Iterator[Reason]:
    """A read that goes to a URL tells whoever answers there what the URL holds."""
    rules = bundle.guard
    for finding in found:
        if finding.role != "destination" or finding.kind != "url" or finding.ground != "none":
            continue
        if standing.evidence.field("link", finding.value) is not None:
            continue  # it stands where the policy trusts links
        copied = normal("url", finding.value) in standing.evidence.read_urls
        answer, rule = (rules.copied_url, "copied_url") if copied else (rules.composed_url, "composed_url")
        came = "was copied from what was read" if copied else "is nobody's but the model's"
        if answer != "allow":
            yield Reason(answer, rule, f"the URL {finding.value!r} {came}", (finding.path,), bare=True)
        if not copied and standing.secrecy:
            yield from _leaked([finding], bundle, standing)


def _effect(
    bundle: Bundle, spec: ToolSpec, arguments: Mapping[str, Any], found: list[Finding], standing: Standing
) -> Iterator[Reason]:
    rules = bundle.guard
    hard = spec.effect in ("irreversible", "destructive")
    answer: Answer = rules.ungrounded_irreversible if hard else rules.ungrounded
    bare = [finding for finding in found if finding.ground == "none"]
    if bare and answer != "allow":
        yield Reason(answer, "ungrounded", _unfounded(bare), tuple(one.path for one in bare), bare=True)
    if standing.secrecy:
        yield from _leaked(found, bundle, standing)
    if spec.params and rules.shape != "allow" and any(isinstance(role, Destination) for role in spec.params.values()):
        for path, value in leaves(dict(arguments)):
            if isinstance(value, str) and (shape := shapes_in(value)):
                yield Reason(rules.shape, f"shape:{shape[0]}", f"{path} holds {shape[1]}", (path,))
    if rules.freeze and spec.name not in (standing.plan or ()):
        if standing.evidence.untrusted or standing.plan is not None:
            yield Reason("ask", "plan", f"{spec.name} was not announced before untrusted text was read")


def _checked(standing: Standing) -> Iterator[Reason]:
    for hit in standing.checked:
        if hit.action in ("block", "ask"):
            paths = (hit.path,) if hit.path else ()
            action = "deny" if hit.action == "block" else "ask"
            yield Reason(action, f"check:{hit.check}", f"the check {hit.check} found: {hit.reason}", paths, bare=True)


def _withheld(arguments: Mapping[str, Any], found: list[Finding]) -> Iterator[Reason]:
    """What stands in place of a secret is none: a call that needs the value would be done with something else."""
    whole = [path for path, value in leaves(dict(arguments)) if isinstance(value, str) and is_redacted(value)]
    named = [finding.path for finding in found if finding.role != "content" and holds_redacted(finding.value)]
    if paths := tuple(dict.fromkeys((*whole, *named))):
        text = "was taken out as a secret or as personal data, and the model does not know it"
        yield Reason(
            "deny", "redacted", f"{', '.join(paths[:4])} {text}"
        )  # no value: what is gone is not what is refused


def _unfounded(bare: list[Finding]) -> str:
    said = [f"{finding.path} = {finding.value!r} ({finding.kind})" for finding in bare[:4]]
    more = f" and {len(bare) - 4} more" if len(bare) > 4 else ""
    return f"nobody trusted said {', '.join(said)}{more}"


def _leaked(found: list[Finding], bundle: Bundle, standing: Standing) -> Iterator[Reason]:
    for finding, level in leaks(found, standing.secrecy, bundle.guard):
        text = f"{finding.value!r} may not see what is {level!r}, and the model has read some, or refers to some"
        yield Reason(bundle.guard.flow, f"flow:{level}", text, (finding.path,))


def _confirmed(
    rules: tuple[ApprovalRule, ...],
    confirm: tuple[str, ...],
    spec: ToolSpec,
    arguments: Mapping[str, Any],
    found: list[Finding],
) -> Iterator[Reason]:
    for rule in rules:
        if applies(rule, spec, arguments, found):
            name = "approval:" + (rule.tool or rule.effect or "any")
            yield Reason("ask", name, why(rule, spec), (), rule.expires_s, rule.quorum)
            break
    if spec.effect in confirm:
        yield Reason("ask", f"tier:{spec.effect}", f"{spec.name} is {spec.effect} and always needs a person's approval")


def _restricted(bundle: Bundle, spec: ToolSpec, arguments: Mapping[str, Any]) -> Iterator[Reason]:
    """What a skill forbids is not taken as a value that was refused: another call with it may be right."""
    for one in broken(bundle.skills, spec.name, arguments):
        if one.rule.ask:
            yield Reason("ask", f"skill:{one.skill}", one.text, one.paths, one.rule.expires_s, one.rule.quorum)
        else:
            yield Reason("deny", f"skill:{one.skill}", one.text)
