"""The ground of each value by which a call has its effect: where it comes from, or that it has none.

A destination or a bound is grounded when the user said it, the operator configured it, a trusted field holds it, or a person
allowed it. An address, a URL, an account or a command inside content counts as a destination.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any, Literal, assert_never

import msgspec

from stanchion.core.bundle import ToolSpec
from stanchion.core.path import fits, leaves
from stanchion.core.policy import Bound, Content, Destination, Grant, GuardRules, Role
from stanchion.guard.evidence import Evidence
from stanchion.guard.values import accounts_in, commands_in, emails_in, normal, pattern_of, plain, urls_in

Ground = Literal["user", "configured", "field", "memory", "allowed", "reviewer", "free", "none"]
"""Said by the user or the developer; known to the operator; held by a trusted field; said by the user in an earlier
session, where the rules trust memory for that kind; granted by a person in this session; written by
a reviewer; needs none; has none."""


class Finding(msgspec.Struct, frozen=True, omit_defaults=True):
    """A value of a call's arguments, what it means, and its ground."""

    path: str
    """"recipients.0", or a piece of a text: "body[12:40]"."""
    value: str
    role: Literal["destination", "bound", "content"]
    kind: str
    ground: Ground
    source: str = ""
    """Of a field: the tool, the call and the path that hold it."""


def findings(
    spec: ToolSpec,
    arguments: Mapping[str, Any],
    rules: GuardRules,
    evidence: Evidence,
    granted: tuple[Grant, ...] = (),
    edited: frozenset[str] = frozenset(),
) -> list[Finding]:
    """Look at every value of a call that has a meaning to the guard. `edited`: paths of what a reviewer wrote."""
    found: list[Finding] = []
    look = _Look(spec.name, rules, evidence, granted)
    for path, value in leaves(dict(arguments)):
        role = role_of(spec, path)
        if value is None or _is_default(spec, path, value):
            continue
        for finding in look.at(path, value, role):
            written = finding.ground == "none" and path in edited
            found.append(msgspec.structs.replace(finding, ground="reviewer") if written else finding)
    return found


def role_of(spec: ToolSpec, path: str) -> Role:
    """Give what a path of a tool's arguments means. What the author said nothing of is content."""
    role = spec.params.get(path)
    if role is not None:
        return role
    for pattern, role in spec.params.items():
        if fits(pattern, path):
            return role
    return Content()


def _is_default(spec: ToolSpec, path: str, value: Any) -> bool:
    """What the tool does when nothing is said, its author chose."""
    properties = spec.parameters.get("properties", {})
    described: Any = properties.get(path, {})
    return "default" in described and bool(described["default"] == value)


class _Look:
    def __init__(self, tool: str, rules: GuardRules, evidence: Evidence, granted: tuple[Grant, ...]) -> None:
        self._tool = tool
        self._rules = rules
        self._evidence = evidence
        self._granted = granted

    def at(self, path: str, value: Any, role: Role) -> Iterator[Finding]:
        match role:
            case Destination():
                yield self._destination(path, str(value), role.kind, role.known)
            case Bound():
                yield self._bound(path, value, role)
            case Content():
                if role.links == "ground" and isinstance(value, str):
                    yield from self._inside(path, value)
            case _:
                assert_never(role)

    def _destination(
        self,
        path: str,
        value: str,
        kind: str,
        known: tuple[str, ...] = (),
        role: Literal["destination", "content"] = "destination",
    ) -> Finding:
        ground, source = self._ground(kind, value, known)
        return Finding(path, value, role, kind, ground, source)

    def _ground(self, kind: str, value: str, known: tuple[str, ...] = ()) -> tuple[Ground, str]:
        form = normal(kind, value)
        if not form:
            return "none", ""
        if self._is_known(kind, form, known):
            return "configured", ""
        if place := self._evidence.field(kind, value):
            return "field", f"{place.source} {place.call} {place.path}"
        if self._evidence.said(kind, value):
            return "user", ""
        if any(self._allows(grant, kind, form) for grant in self._granted):
            return "allowed", ""
        if kind in self._rules.memory and self._evidence.remembered(kind, value):
            return "memory", ""
        return "none", ""

    def _is_known(self, kind: str, form: str, known: tuple[str, ...]) -> bool:
        patterns = (*known, *(one.pattern for one in self._rules.known if one.kind == kind))
        return any(fnmatchcase(form, pattern_of(kind, pattern)) for pattern in patterns)

    def _allows(self, grant: Grant, kind: str, form: str) -> bool:
        of_tool = any(fnmatchcase(self._tool, pattern) for pattern in grant.tools)
        return bool(grant.kind) and grant.kind == kind and of_tool and normal(kind, grant.value) == form

    def _bound(self, path: str, value: Any, role: Bound) -> Finding:
        form = normal(role.kind, value)
        shown = value if isinstance(value, str) else form or str(value)
        if form in {pattern_of(role.kind, free) for free in role.free} or self._within(value, role):
            return Finding(path, shown, "bound", role.kind, "free")
        if form and (place := self._evidence.field(role.kind, value)):
            return Finding(path, shown, "bound", role.kind, "field", f"{place.source} {place.call} {place.path}")
        words = (form, *(word for key, said in role.words.items() if normal(role.kind, key) == form for word in said))
        if any(word and self._evidence.said(role.kind, word) for word in words[:1]) or any(
            self._evidence.said("text", plain(word)) for word in words[1:]
        ):
            return Finding(path, shown, "bound", role.kind, "user")
        if form and any(self._allows(grant, role.kind, form) for grant in self._granted):
            return Finding(path, shown, "bound", role.kind, "allowed")
        if form and role.kind in self._rules.memory and self._evidence.remembered(role.kind, value):
            return Finding(path, shown, "bound", role.kind, "memory")
        return Finding(path, shown, "bound", role.kind, "none")

    @staticmethod
    def _within(value: Any, role: Bound) -> bool:
        if role.most is None or isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return 0 <= value <= role.most

    def _inside(self, path: str, text: str) -> Iterator[Finding]:
        """Find the destinations that stand inside content."""
        taken: list[tuple[int, int]] = []
        for kind, found in (
            ("email", emails_in(text)),
            ("account", accounts_in(text)),
            ("url", urls_in(text)),
            ("command", commands_in(text)),
        ):
            for start, end in found:
                if any(start < b and a < end for a, b in taken):
                    continue
                taken.append((start, end))
                found = self._destination(f"{path}[{start}:{end}]", text[start:end], kind, role="content")
                yield self._passed_on(found) if found.ground == "none" and kind == "url" else found

    def _passed_on(self, finding: Finding) -> Finding:
        """A URL that stands where the policy trusts links may be told of, though nothing may be written to it."""
        place = self._evidence.field("link", finding.value)
        if place is None:
            return finding
        return msgspec.structs.replace(finding, ground="field", source=f"{place.source} {place.call} {place.path}")
