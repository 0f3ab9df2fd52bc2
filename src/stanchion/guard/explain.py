"""Why a call was allowed, asked about or denied, value by value: each value, what it means, its ground, where it came from.

Pure, and for people: a reviewer's first screen and `stanchion policy explain` show the same rows. Nothing here decides.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Any, Literal

import msgspec

from stanchion.core.bundle import Bundle, ToolSpec
from stanchion.core.conversation import count_said, history
from stanchion.core.message import Source, Text, ToolResult
from stanchion.core.path import leaves
from stanchion.core.policy import Content, Destination
from stanchion.core.state import State
from stanchion.guard.dates import Days
from stanchion.guard.evidence import Evidence, read_result
from stanchion.guard.ground import Finding, findings, role_of
from stanchion.guard.standing import Standing
from stanchion.guard.values import DATES, NUMERIC, dense, normal, plain

AROUND = 80
"""Characters shown on either side of a value."""
MOST_ORIGINS = 3
"""Of one value; what grounds it goes first."""
_LONGEST = 400
"""A longer text is content: that it stands somewhere says nothing."""
_TRUSTED = frozenset({"user", "reviewer", "developer"})
_NUMBERS = re.compile(r"[-+]?[€$£¥]?\d(?:[\d,'’.]*\d)?")
_SENTENCE = re.compile(r"[^.!?\n]+(?:[.!?](?=\S)[^.!?\n]*)*")


class Origin(msgspec.Struct, frozen=True):
    """A place where a value stands, and the text around it there."""

    source: Source
    trusted: bool
    """It can ground a value: people's words, and fields that the policy trusts."""
    around: str
    tool: str = ""
    call: str = ""
    """`run/call` whose answer it is."""
    path: str = ""
    """Of the value in that answer."""
    message: int = -1
    """Number of the message; -1: the agent's own instructions."""


class Row(msgspec.Struct, frozen=True):
    """A value of a call."""

    path: str
    """"recipients.0", or a piece of a text: "body[12:40]"."""
    value: Any
    role: Literal["destination", "bound", "content"]
    kind: str = ""
    ground: str = ""
    """"user", "configured", "field", "memory", "allowed", "reviewer", "free", "none"; "" of content, which needs none."""
    origins: tuple[Origin, ...] = ()
    note: str = ""
    """The ground in words."""


_WORDS = {
    "user": "said by the user or the developer",
    "configured": "known to the operator",
    "field": "held by a field that the policy trusts",
    "memory": "the user said it in an earlier session",
    "allowed": "allowed by a person in this session",
    "reviewer": "written by the person who edited the call",
    "free": "needs no ground: the least that can be asked for",
    "none": "said by nobody trusted",
    "": "what is said; nothing in it goes anywhere",
    "holds": "what is said; what in it goes somewhere has rows of its own",
}


def rows(bundle: Bundle, state: State, spec: ToolSpec, arguments: Mapping[str, Any], standing: Standing) -> list[Row]:
    """List the values of a call in the order of its arguments."""
    found = findings(spec, arguments, bundle.guard, standing.evidence, standing.granted, standing.edited)
    at: dict[str, list[Finding]] = {}
    for finding in found:
        at.setdefault(finding.path.partition("[")[0], []).append(finding)
    listed: list[Row] = []
    for path, value in leaves(dict(arguments)):
        here = at.get(path, [])
        if not any(finding.path == path for finding in here):
            listed.append(_plain_row(spec, path, value, holds=bool(here)))
        listed += [_row(bundle, state, finding, standing.evidence) for finding in here]
    return listed


def _plain_row(spec: ToolSpec, path: str, value: Any, *, holds: bool) -> Row:
    """Make the row of a value that is no finding itself. `holds`: there are some inside of it, each with a row."""
    role = role_of(spec, path)
    if isinstance(role, Content):
        note = (
            _WORDS["" if not holds else "holds"]
            if role.links == "ground"
            else "what is said; the links in it are not looked at"
        )
        return Row(path, value, "content", note=note if spec.params else "the tool says of no argument what it means")
    name = "destination" if isinstance(role, Destination) else "bound"
    return Row(path, value, name, role.kind, note="what the tool does when nothing is said")


def _row(bundle: Bundle, state: State, finding: Finding, evidence: Evidence) -> Row:
    places = list(origins(bundle, state, finding.kind, finding.value, evidence.today()))
    if finding.ground == "field":
        tool, call, path = [*finding.source.split(" ", 2), "", ""][:3]
        places.sort(key=lambda place: (place.tool, place.call) != (tool, call))
        if places and (places[0].tool, places[0].call) == (tool, call):
            places[0] = msgspec.structs.replace(places[0], trusted=True, path=path or places[0].path)
    elif finding.ground == "user":
        places.sort(key=lambda place: not place.trusted)
    note = _WORDS[finding.ground]
    if finding.ground == "none" and not places:
        note += "; it stands nowhere in what was said or read: the model made it up"
    kept = tuple(places[:MOST_ORIGINS])
    return Row(finding.path, finding.value, finding.role, finding.kind, finding.ground, kept, note)


def origins(
    bundle: Bundle, state: State, kind: str, value: str, today: AbstractSet[str] = frozenset()
) -> Iterator[Origin]:
    """List the places where a value stands in what was said and read, in order. `today`: what day it is, if known."""
    if not value.strip() or len(value) > _LONGEST:
        return
    for number, source, text in _spoken(bundle, state):
        if around := _around(text, kind, value, today):
            yield Origin(source, source in _TRUSTED, around, message=number)
    for seen in state.seen:
        if around := _around(seen.text, kind, value, today):
            path = _path_of(seen.text, kind, value)
            yield Origin("tool", seen.label.trust == "trusted", around, seen.tool, seen.call, path, seen.messages)


def _spoken(bundle: Bundle, state: State) -> Iterator[tuple[int, Source, str]]:
    yield -1, "developer", bundle.identity
    for number, message in enumerate(history(state)):
        for part in message.parts:
            match part:
                case Text() if part.label.source not in ("model", "runtime"):
                    yield number, part.label.source, part.text
                case ToolResult() if part.label.source == "developer":  # an opened skill
                    yield number, part.label.source, part.text
                case _:
                    pass
    for part in state.tail:
        if isinstance(part, Text) and part.label.source in _TRUSTED:
            yield count_said(state), part.label.source, part.text


def _path_of(text: str, kind: str, value: str) -> str:
    wanted = normal(kind, value)
    value = plain(value)
    inside = ""
    for path, leaf in leaves(read_result(text)):
        if isinstance(leaf, bool) or leaf is None:
            continue
        if wanted and normal(kind, leaf) == wanted:
            return path
        if not inside and value in plain(str(leaf)):
            inside = path
    return inside


def _around(text: str, kind: str, value: str, today: AbstractSet[str]) -> str:
    """Cut the text around a value's first place, or give ""."""
    span = next(iter(_places(text, kind, value, today)), None)
    if span is None:
        return ""
    start, end = max(span[0] - AROUND, 0), min(span[1] + AROUND, len(text))
    cut = " ".join(text[start:end].split())
    return ("… " if start else "") + cut + (" …" if end < len(text) else "")


def _places(text: str, kind: str, value: str, today: AbstractSet[str]) -> Iterable[tuple[int, int]]:
    if kind in NUMERIC:
        form = normal(kind, value)
        return (
            found.span() for found in _NUMBERS.finditer(text) if form and normal("number", found[0].strip("+")) == form
        )
    if kind in DATES:
        return _days(text, value, today)
    if kind in ("account", "phone") and len(dense(value)) > 5:
        pattern = r"[\s\-()/]*".join(map(re.escape, dense(value)))
    else:
        form = normal("url", value) if kind == "url" else value
        pattern = r"\s+".join(map(re.escape, (form or value).split()))
    return (found.span() for found in re.finditer(pattern, text, re.IGNORECASE))


def _days(text: str, value: str, today: AbstractSet[str]) -> Iterator[tuple[int, int]]:
    """Find the sentences that name a day."""
    form = normal("date", value)
    for found in _SENTENCE.finditer(text):
        if form in found[0]:
            at = found.start() + found[0].index(form)
            yield at, at + len(form)
            continue
        said = Days()
        said.add(plain(found[0]))
        if said.ground(form, set(today)):
            yield found.span()
