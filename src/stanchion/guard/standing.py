"""What the guard is told of a run when it judges one of its calls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Protocol

import msgspec

from stanchion.core.bundle import ToolSpec
from stanchion.core.policy import Grant
from stanchion.core.quarantine import levels_of
from stanchion.core.state import Call, Denied, State
from stanchion.guard.check import Found
from stanchion.guard.evidence import Evidence
from stanchion.guard.ground import Finding


class Said(msgspec.Struct, frozen=True):
    """What a set of policies says of a call. `rules`: names of the policies that decided."""

    action: Literal["allow", "ask", "deny"]
    rules: tuple[str, ...] = ()
    reason: str = ""


class Policies(Protocol):
    """Policies beside the built-in rules. A set that cannot decide denies (I5)."""

    digest: str

    def decide(
        self, standing: Standing, spec: ToolSpec, arguments: Mapping[str, Any], found: list[Finding]
    ) -> Said: ...


class Standing(msgspec.Struct, frozen=True):
    """A run as far as a verdict goes by it."""

    evidence: Evidence
    now_ms: int = 0
    tenant: str = ""
    user: str = ""
    agent: str = ""
    task: str = ""
    grants: tuple[Grant, ...] | None = None
    """What the run was started with at most."""
    granted: tuple[Grant, ...] = ()
    """What people allowed for this session."""
    denied: tuple[Denied, ...] = ()
    refused_calls: tuple[Denied, ...] = ()
    plan: tuple[str, ...] | None = None
    edited: frozenset[str] = frozenset()
    """Paths of arguments that a reviewer wrote."""
    policies: Policies | None = None
    carried: frozenset[str] = frozenset()
    """Levels of what was filled into this call, which the model has not read."""
    checked: tuple[Found, ...] = ()
    """What checks found about this call."""

    @property
    def secrecy(self) -> frozenset[str]:
        """Levels of all that may be in a call."""
        return self.carried | self.evidence.secrecy


def standing(
    state: State, evidence: Evidence, now_ms: int, policies: Policies | None, call: Call | None = None
) -> Standing:
    """Tell the guard of a run. `call`: the one that is judged, if a person may have edited it."""
    return Standing(
        evidence=evidence.of(state),
        now_ms=now_ms,
        tenant=state.tenant,
        user=state.user,
        agent=state.agent,
        task=state.task,
        grants=state.grants,
        granted=state.granted,
        denied=state.denied,
        refused_calls=state.refused_calls,
        plan=state.plan,
        edited=call.edited if call is not None else frozenset(),
        policies=policies,
        carried=levels_of(state.sealed, call.filled) if call is not None else frozenset(),
    )
