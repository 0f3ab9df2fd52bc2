"""The built-in `find_tools`: tools that are not shown are put at the tail of the conversation when the model looks for them. Pure.

What it answers is a result like any other: journaled, and never moved (I8). It is the developer's text and has no word of the
model's in it. A tool that stands in the conversation already, or in the list, is named and not said again.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from stanchion.core.bundle import FIND_TOOLS, ToolSearch, ToolSpec
from stanchion.core.catalogue import Catalogue, disclosure, line
from stanchion.core.loading import FOUND
from stanchion.core.message import RUNTIME, Label, ToolResult
from stanchion.core.state import Call, State
from stanchion.guard.grant import speaks_of
from stanchion.loop.effect import View

NEAR = 0.75
"""A tool that is described less well than this part of the best one that the model has not read yet is named and not shown: it pays for it in each
turn behind."""
LEAST = 0.5
""".. and so is one that is described less well than this part of the best of all, which the model may have before it."""
_GROUPS = 20
"""How many groups are named where nothing was found."""
_LISTED = 40
"""Of so many tools all are named where one is called that there is not; of more those that are near."""


class Found(msgspec.Struct, frozen=True):
    """What a model is answered that looked for tools."""

    text: str
    label: Label = FOUND


class _Told(msgspec.Struct, frozen=True):
    """Which tools an answer gives whole, which stand somewhere already, and which are left out."""

    whole: tuple[ToolSpec, ...]
    standing: tuple[str, ...]
    more: tuple[str, ...]


class _Search:
    """One look into the catalogue, for a run as it stands: what is granted, what was told already."""

    def __init__(self, state: State, view: View) -> None:
        self.catalogue = view.catalogue
        self.rules = view.bundle.search or ToolSearch()
        self._grants = (view.bundle.guard.grants, state.grants)
        self._shown = {spec.name for spec in view.bundle.shown}
        self.said = _standing(state)

    def may(self, spec: ToolSpec) -> bool:
        """Whether calls of a tool may be allowed at all: what is granted speaks of it."""
        return all(speaks_of(grants, spec.name) for grants in self._grants)

    def group(self, query: str) -> str:
        """Give the group that a query names, or ""."""
        name = query.strip().strip("/").casefold()
        return next((group for group in self.catalogue.groups if group.casefold() == name), "")

    def best(self, query: str) -> _Told:
        """Take the best tools until there are enough; name those that are far behind the best, or for which there is no room."""
        whole: list[ToolSpec] = []
        standing: list[str] = []
        more: list[str] = []
        room, best = self.rules.max_chars, 0.0
        for spec, near in self.catalogue.ranked(query):
            if not self.may(spec):
                continue
            text = disclosure(spec)
            stands = spec.name in self._shown or text in self.said
            taken = len(whole) + len(standing)
            far = near < (NEAR if stands else max(NEAR * best, LEAST))
            if taken >= self.rules.results or (taken and far) or (whole and len(text) > room):
                more.append(spec.name)
            elif stands:
                standing.append(spec.name)
            else:
                whole.append(spec)
                best, room = best or near, room - len(text)
            if len(more) >= self.rules.results:
                break
        self.said |= {disclosure(spec) for spec in whole}
        return _Told(tuple(whole), tuple(standing), tuple(more))


def found(state: State, call: Call, view: View, arguments: bytes) -> Found:
    """Give the tools that a query describes, or the list of a group that it names."""
    search = _Search(state, view)
    for query in _before_in_step(state, call, view):  # they are answered in the same breath
        if not search.group(query):
            search.best(query)
    query = _query(arguments)
    if group := search.group(query):
        return Found(_listed(group, search))
    told = search.best(query)
    return Found(_text(told)) if told.whole or told.standing else Found(_none(search.catalogue), RUNTIME)


def unknown(name: str, view: View) -> str:
    """Say that there is no tool of a name, and which may be meant."""
    specs = view.bundle.shown
    if len(specs) == len(view.bundle.tools) <= _LISTED:
        listed = ", ".join(spec.name for spec in specs) or "none"
        return f"There is no tool named {name[:64]!r}. The tools are: {listed}."
    near = view.catalogue.near(name)
    meant = f" Did you mean {' or '.join(near)}?" if near else ""
    other = f" Look for others with {FIND_TOOLS}." if view.bundle.search is not None else ""
    return f"There is no tool named {name[:64]!r}.{meant}{other}"


def _query(arguments: bytes) -> str:
    return str(msgspec.json.decode(arguments)["query"])


def _before_in_step(state: State, call: Call, view: View) -> Iterator[str]:
    """List what the searches before this one, of the same step, look for."""
    for other in state.calls:
        if other.id == call.id:
            return
        checked = view.check.arguments(FIND_TOOLS, other.part.arguments) if other.part.name == FIND_TOOLS else ""
        if isinstance(checked, bytes):
            yield _query(checked)


def _text(told: _Told) -> str:
    lines = [disclosure(spec) for spec in told.whole]
    if told.standing:
        lines.append(f"You have these before you already: {', '.join(told.standing)}.")
    if told.more:
        lines.append(f"More, found by name: {', '.join(told.more)}.")
    return "\n".join(lines)


def _none(catalogue: Catalogue) -> str:
    groups = ", ".join(list(catalogue.groups)[:_GROUPS])
    where = f" There are groups: {groups}." if groups else ""
    return f"No tool is described by these words. Say it in others: what is to be done, and to what.{where}"


def _listed(group: str, search: _Search) -> str:
    """List a group: the groups in it, then its tools as far as there is room."""
    groups = search.catalogue.groups
    inner = [name for name in groups if name.rpartition("/")[0] == group]
    lines = [f"{group}:", *(f"- {name}/ ({_tools(len(groups[name]))})" for name in inner)]
    room, left = search.rules.max_chars - sum(map(len, lines)), 0
    for spec in groups[group]:
        if (inner and spec.group != group) or not search.may(spec):
            continue
        said = line(spec)
        room -= len(said)
        if room < 0:
            left += 1
        else:
            lines.append(said)
    if left:
        lines.append(f"And {left} more: say what is to be done to find one of them.")
    return "\n".join((*lines, "Search for a name to see its parameters."))


def _tools(count: int) -> str:
    return "1 tool" if count == 1 else f"{count} tools"


def _standing(state: State) -> set[str]:
    """Lines that earlier searches left in the conversation."""
    return {
        said
        for message in state.messages
        for part in message.parts
        if isinstance(part, ToolResult) and part.label == FOUND
        for said in part.text.split("\n")
    }
