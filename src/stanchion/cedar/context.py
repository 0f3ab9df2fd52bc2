"""What a policy may look at of a call beside its arguments: field by field, so that only what is named need be made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from stanchion.cedar.shape import LONG, Unfit
from stanchion.guard.ground import Finding
from stanchion.guard.standing import Standing
from stanchion.guard.values import normal


def domain_of(kind: str, form: str) -> str:
    """Give the domain of an address or a URL in normal form, or "" where it has none."""
    if kind == "email":
        return form.rpartition("@")[2] if "@" in form else ""
    host = form.partition("/")[0].rpartition("@")[2]
    return host if host.startswith("[") else host.partition(":")[0]


def _going(found: list[Finding]) -> list[Finding]:
    return [finding for finding in found if finding.role != "bound"]


def _told(finding: Finding) -> dict[str, str]:
    form = normal(finding.kind, finding.value)
    return {"path": finding.path, "kind": finding.kind, "value": form, "ground": finding.ground}


def _domains(_: Standing, found: list[Finding]) -> list[str]:
    named = (one for one in _going(found) if one.kind in ("email", "url", "link"))
    return list(dict.fromkeys(domain_of(one.kind, normal(one.kind, one.value)) for one in named))


def _now_ms(standing: Standing, _: list[Finding]) -> int:
    if not -LONG <= standing.now_ms < LONG:
        raise Unfit("the time has more than 64 bits")
    return standing.now_ms


CONTEXT: Mapping[str, Callable[[Standing, list[Finding]], Any]] = {
    "destinations": lambda _, found: [_told(finding) for finding in _going(found)],
    "bounds": lambda _, found: [_told(finding) for finding in found if finding.role == "bound"],
    "values": lambda _, found: list(dict.fromkeys(normal(one.kind, one.value) for one in _going(found))),
    "domains": _domains,
    "grounds": lambda _, found: sorted({finding.ground for finding in found}),
    "ungrounded": lambda _, found: [finding.path for finding in found if finding.ground == "none"],
    "secrecy": lambda standing, _: sorted(standing.evidence.secrecy),
    "untrusted": lambda standing, _: standing.evidence.untrusted,
    "granted": lambda standing, _: [
        {"kind": grant.kind, "value": grant.value} for grant in standing.granted if grant.kind
    ],
    "now_ms": _now_ms,
}
"""Each field of the context that `schema` declares, and how it is made."""
