"""How strict the guard may be set, from tiers alone to a yes for every effect. Each variant changes a policy or the rules."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from bench.guard.meaning import STORED, Meaning, Policy
from stanchion.core.policy import Bound, Destination, GuardRules, Role

_replace = msgspec.structs.replace


class Variant(msgspec.Struct, frozen=True):
    """A setting of the guard."""

    name: str
    says: str
    shape: Callable[[Policy], Policy]
    rules: GuardRules


def _same(policy: Policy) -> Policy:
    return policy


def _only(policy: Policy, *roles: type[Role]) -> Policy:
    """Keep roles of these kinds; the rest is content in which nothing is looked for."""
    free: dict[str, Role] = dict.fromkeys(("*", "*.*", "*.*.*", "*.*.*.*"), STORED)

    def shaped(params: Mapping[str, Role]) -> dict[str, Role]:
        kept = {path: role if isinstance(role, roles) else STORED for path, role in params.items()}
        return {**kept, **free} if any(isinstance(role, roles) for role in params.values()) else {}

    tools = {name: _replace(meaning, params=shaped(meaning.params)) for name, meaning in policy.tools.items()}
    return Policy(tools, policy.levels)


def _tiers(policy: Policy) -> Policy:
    return Policy({name: Meaning(meaning.effect) for name, meaning in policy.tools.items()})


_LOOSE = GuardRules(copied_url="allow", composed_url="allow", flow="allow", shape="allow")
_LINKS = GuardRules(copied_url="allow", flow="ask")
DEFAULT = GuardRules(flow="ask")
OFF = GuardRules("allow", "allow", "allow", "allow", "allow", "allow", confirm=())
VARIANTS = (
    Variant("off", "nothing asks", _tiers, OFF),
    Variant("tiers", "destructive calls ask", _tiers, _LOOSE),
    Variant("destinations", "+ destinations need a ground", lambda policy: _only(policy, Destination), _LOOSE),
    Variant("bounds", "+ bounds need a ground", lambda policy: _only(policy, Destination, Bound), _LOOSE),
    Variant("links", "+ so do links in content; secrecy; made-up URLs ask", _same, _LINKS),
    Variant("default", "+ reads of URLs copied from others' text ask", _same, DEFAULT),
    Variant(
        "effects", "every effect asks", _same, _replace(DEFAULT, confirm=("write", "irreversible", "destructive"))
    ),
)  # fmt: skip
BY_NAME = {variant.name: variant for variant in VARIANTS}
