"""What policies name of a call's context: what no policy names, Cedar need not be told, and most of a decision is its telling."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

import msgspec

Node = Mapping[str, Any]


class Named(msgspec.Struct, frozen=True):
    """Fields of the context, and of its `arguments`. None: any may be meant, for the whole is looked at."""

    context: frozenset[str] | None = frozenset()
    arguments: frozenset[str] | None = frozenset()

    def tells(self, field: str) -> bool:
        """Whether a field of the context is told."""
        return self.context is None or field in self.context

    def tells_argument(self, name: str) -> bool:
        """Whether an argument is told."""
        return self.context is None or self.arguments is None or name in self.arguments


def named_by(policies: Iterable[Node]) -> Named:
    """Collect what policies, as Cedar's JSON, name."""
    fields: set[str] = set()
    arguments: set[str] = set()
    whole = whole_arguments = False
    for policy in policies:
        for path in paths_in(policy.get("conditions", [])):
            if path[0] != "context":
                continue
            whole = whole or len(path) == 1
            fields.update(path[1:2])
            whole_arguments = whole_arguments or path[1:] == ("arguments",)
            if path[1:2] == ("arguments",):
                arguments.update(path[2:3])
    return Named(None if whole else frozenset(fields), None if whole_arguments else frozenset(arguments))


def paths_in(node: Any) -> Iterator[tuple[str, ...]]:
    """Find the paths from a variable that an expression looks at, each as far as it goes ("context", "arguments", "cents").

    `X has name` looks at X.name.
    """
    if isinstance(node, list):
        for inner in cast("list[Any]", node):
            yield from paths_in(inner)
    elif isinstance(node, dict):
        known = cast("dict[str, Any]", node)
        if (path := _path(known)) is not None:
            yield path
            return
        for inner in known.values():
            yield from paths_in(inner)


def asked_in(node: Any) -> Iterator[tuple[str, ...]]:
    """Find the paths that are asked about with `has`."""
    if isinstance(node, list):
        for inner in cast("list[Any]", node):
            yield from asked_in(inner)
    elif isinstance(node, dict):
        known = cast("dict[str, Any]", node)
        if "has" in known and (path := _path(known)) is not None:
            yield path
        for inner in known.values():
            yield from asked_in(inner)


def _path(node: Node) -> tuple[str, ...] | None:
    if "Var" in node:
        return (str(node["Var"]),)
    for word in (".", "has"):
        if word in node:
            before = _path(node[word]["left"])
            return None if before is None else (*before, str(node[word]["attr"]))
    return None
