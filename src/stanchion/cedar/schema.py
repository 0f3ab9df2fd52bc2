"""The Cedar schema of a server's tools: what a policy may name, made from the bundles it serves.

principal  User::"tenant/user"   tenant, user, agent, task
action     Action::"tool"        in Action::"tier:write" (its tier), and in Action::"tier:effect" if it is no read
resource   Tool::"tool"          name, tier
context    arguments             the tool's own
           destinations, bounds  path, kind, value, ground of each value that says where to and how much
           values, domains       of the destinations; the domain of an address or a URL ("" where it has none)
           grounds, ungrounded   grounds there are; paths of what nobody trusted said
           secrecy, untrusted    levels of what the model has read; whether it has read anything untrusted
           granted               kind and value of what people allowed in this session for this tool
           now_ms                milliseconds since 1970 UTC
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from stanchion.cedar.shape import EMPTY, Record, arguments_of, declared, merged
from stanchion.core.bundle import BUILT_IN, Bundle, ToolSpec

TIERS = ("read", "write", "irreversible", "destructive")
EFFECT = "tier:effect"
_STRING: dict[str, Any] = {"type": "String"}
_STRINGS: dict[str, Any] = {"type": "Set", "element": _STRING}


def _record(*names: str) -> dict[str, Any]:
    return {"type": "Record", "attributes": dict.fromkeys(names, _STRING)}


_VALUE = {"type": "Set", "element": _record("path", "kind", "value", "ground")}
_CONTEXT: dict[str, Any] = {
    "destinations": _VALUE,
    "bounds": _VALUE,
    "values": _STRINGS,
    "domains": _STRINGS,
    "grounds": _STRINGS,
    "ungrounded": _STRINGS,
    "secrecy": _STRINGS,
    "untrusted": {"type": "Boolean"},
    "granted": {"type": "Set", "element": _record("kind", "value")},
    "now_ms": {"type": "Long"},
}


def groups_of(spec: ToolSpec) -> list[str]:
    """Name the groups that a tool's action is in."""
    return [f"tier:{spec.effect}", *([] if spec.effect == "read" else [EFFECT])]


def actions_of(bundles: Iterable[Bundle]) -> dict[str, dict[str, Any]]:
    """Give the actions of all tools of some bundles as Cedar's JSON. Tools of one name are taken together."""
    tools: dict[str, tuple[Record, set[str]]] = {}
    for bundle in bundles:
        for spec in bundle.tools:
            if spec.name in BUILT_IN:
                continue
            shape, groups = arguments_of(spec.parameters), set(groups_of(spec))
            known = tools.get(spec.name)
            tools[spec.name] = (merged(known[0], shape), known[1] | groups) if known else (shape, groups)
    taken = {group for _, groups in tools.values() for group in groups}
    actions: dict[str, dict[str, Any]] = {
        name: {} if name in taken else _action(EMPTY, set())  # a rule about a tier that no tool has now is no mistake
        for name in (*(f"tier:{tier}" for tier in TIERS), EFFECT)
    }
    return actions | {name: _action(shape, groups) for name, (shape, groups) in sorted(tools.items())}


def schema_of(actions: dict[str, dict[str, Any]]) -> str:
    """Write the schema with some actions as Cedar's JSON."""
    types = {"User": {"shape": _record("tenant", "user", "agent", "task")}, "Tool": {"shape": _record("name", "tier")}}
    return msgspec.json.encode({"": {"entityTypes": types, "actions": actions}}).decode()


def _action(shape: Record, groups: set[str]) -> dict[str, Any]:
    context = {"type": "Record", "attributes": {"arguments": declared(shape), **_CONTEXT}}
    applies = {"principalTypes": ["User"], "resourceTypes": ["Tool"], "context": context}
    return {"memberOf": [{"id": group} for group in sorted(groups)], "appliesTo": applies}
