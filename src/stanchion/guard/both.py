"""The policies that a session began with, and those in force now: a call is allowed only if both allow it.

So what is tightened applies at once, and what is loosened to new sessions. Of two answers the stricter counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stanchion.core.bundle import ToolSpec
from stanchion.guard.ground import Finding
from stanchion.guard.standing import Policies, Said, Standing

_ORDER = {"allow": 0, "ask": 1, "deny": 2}
_JOIN = "+"


class Both:
    """Two sets as one. Implements `Policies`."""

    def __init__(self, began: Policies, active: Policies) -> None:
        self.digest = began.digest + _JOIN + active.digest
        self._sets = (began, active)

    def decide(self, standing: Standing, spec: ToolSpec, arguments: Mapping[str, Any], found: list[Finding]) -> Said:
        """Give the stricter answer; the reasons of both if they are equally strict."""
        one, other = (policies.decide(standing, spec, arguments, found) for policies in self._sets)
        if _ORDER[one.action] != _ORDER[other.action]:
            return max(one, other, key=lambda said: _ORDER[said.action])
        reasons = dict.fromkeys(reason for reason in (one.reason, other.reason) if reason)
        return Said(one.action, tuple(dict.fromkeys(one.rules + other.rules)), "; ".join(reasons))


class Unreadable:
    """Policies that are in force and cannot be read: they allow nothing."""

    def __init__(self, digest: str, why: str) -> None:
        self.digest = digest
        self._why = why

    def decide(self, standing: Standing, spec: ToolSpec, arguments: Mapping[str, Any], found: list[Finding]) -> Said:
        """Deny."""
        return Said("deny", ("unreadable",), self._why)


def in_force(began: Policies | None, active: Policies | None) -> Policies | None:
    """Give what a session's calls are judged by. None: there are no policies."""
    if began is None or active is None:
        return began or active
    return began if began.digest == active.digest else Both(began, active)


def digests_of(digest: str) -> list[str]:
    """Name the sets that a digest in the journal means: the session's, then the one in force if it is another."""
    return digest.split(_JOIN) if digest else []
