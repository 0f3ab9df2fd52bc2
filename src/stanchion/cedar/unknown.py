"""Names that a policy asks about with `has` and that no call has. Cedar's validator passes these: the policy never matches.

forbid(..) when { context.arguments has amuont && context.arguments.amuont > 100 };
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

Node = Mapping[str, Any]


def unknown_names(policy: Node, actions: Mapping[str, Node]) -> list[str]:
    """List them. `policy`: one policy as Cedar's JSON; `actions`: those of the schema by name, as JSON."""
    contexts = [
        action["appliesTo"]["context"]
        for name, action in actions.items()
        if "appliesTo" in action and _meant(policy, name)
    ]
    asked = [path for path in _asked(policy.get("conditions", [])) if path[0] == "context"]
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


def _asked(node: Any) -> Iterator[list[str]]:
    """Find each `X has name` whose X is a path from a variable."""
    if isinstance(node, list):
        for inner in cast("list[Any]", node):
            yield from _asked(inner)
    elif isinstance(node, dict):
        for word, inner in cast("dict[str, Any]", node).items():
            if word == "has" and (path := _path(inner["left"])) is not None:
                yield [*path, str(inner["attr"])]
            yield from _asked(inner)


def _path(node: Node) -> list[str] | None:
    if "Var" in node:
        return [str(node["Var"])]
    if "." in node:
        before = _path(node["."]["left"])
        return None if before is None else [*before, str(node["."]["attr"])]
    return None


def _knows(type_: Node, path: list[str]) -> bool:
    for name in path:
        known: Node = type_.get("attributes", {})
        if name not in known:
            return False
        type_ = known[name]
    return True
