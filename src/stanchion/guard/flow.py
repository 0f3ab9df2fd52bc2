"""Secrecy: what the model has read may only go to those who may see it (a lattice of readers; Denning, "A Lattice Model of Secure
Information Flow", CACM 1976). The level of a context is the join of all that stands in it: who may read it may read each part.
"""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

from stanchion.core.policy import GuardRules
from stanchion.guard.ground import Finding
from stanchion.guard.values import normal, pattern_of


def leaks(found: Iterable[Finding], levels: Iterable[str], rules: GuardRules) -> list[tuple[Finding, str]]:
    """List the destinations that may not see a level of what was read. A level that nobody described has no readers."""
    readers = {level.name: level.readers for level in rules.levels}
    bad: list[tuple[Finding, str]] = []
    for finding in found:
        if finding.role == "bound":
            continue
        form = normal(finding.kind, finding.value)
        for level in sorted(levels):
            patterns = readers.get(level, ())
            if not any(_reads(finding.kind, form, pattern) for pattern in patterns):
                bad.append((finding, level))
                break
    return bad


def _reads(kind: str, form: str, pattern: str) -> bool:
    """Whether a pattern of readers means a destination: "*@our.example", or "hotel:*" for those of a kind."""
    named, colon, rest = pattern.partition(":")
    return fnmatchcase(form, pattern_of(kind, rest if colon and named == kind else pattern))
