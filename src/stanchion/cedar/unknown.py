"""Names that a policy asks about with `has` and that no call has. Cedar's validator passes these: the policy never matches.

forbid(..) when { context.arguments has amuont && context.arguments.amuont > 100 };
"""

from __future__ import annotations

from collections.abc import Mapping

from stanchion.cedar.named import Node, asked_in


def unknown_names(policy: Node, actions: Mapping[str, Node]) -> list[str]:
    """List them. `policy`: one policy as Cedar's JSON; `actions`: those of the schema by name, as JSON."""
    contexts = [
        action["appliesTo"]["context"]
        for name, action in actions.items()
        if "appliesTo" in action and _meant(policy, name)
    ]
    asked = [path for path in asked_in(policy.get("conditions", [])) if path[0] == "context"]
    bad = (path for path in asked if contexts and not any(_knows(context, path[1:]) for context in contexts))
    return list(dict.fromkeys(map(".".join, bad)))


def _meant(policy: Node, name: str) -> bool:
    """Whether a policy may be about an action, by its scope. Groups are taken to have anybody in them."""
    scope: Node = policy.get("action", {})
    if scope.get("op") == "==":
        return scope["entity"]["id"] == name
    if scope.get("op") == "in":
        named = [one["id"] for one in scope.get("entities", [scope["entity"]] if "entity" in scope else [])]
        return any(one == name or one.startswith("tier:") for one in named)
    return True


def _knows(type_: Node, path: tuple[str, ...]) -> bool:
    for name in path:
        known: Node = type_.get("attributes", {})
        if name not in known:
            return False
        type_ = known[name]
    return True
