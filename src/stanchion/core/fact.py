"""What is remembered of a user: facts in two times, and how a new one changes what was known. Pure.

A `Fact` says when it holds (valid time) and from when to when it was believed (recorded time). Neither is ever overwritten: what a
new fact contradicts is closed in recorded time and written again for the span in which it still holds. So "where does she
live", "where did she live in March" and "what did we believe in March" are three readings of the same rows. Source of the two times:
Snodgrass, "Developing Time-Oriented Database Applications in SQL" (1999), chapter 10.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

from stanchion.core.message import Label, Source, Trust

Kind = Literal["fact", "note", "episode", "procedure"]
"""Something that is so; what the agent wrote down for itself; what happened in a run; a sequence of tool calls that worked."""
Change = Literal["set", "add", "end", "correct", "retract"]
"""It is so, and nothing else for this attribute; it is so beside others; it is not so any more. And of a version that is named: another
value is right; it never was so."""
MAX_VALUE_CHARS = 2_000
MAX_NAME_CHARS = 64
_RANKS: dict[str, int] = {"untrusted": 0, "user": 1, "trusted": 2}
_with = msgspec.structs.replace


class Owner(msgspec.Struct, frozen=True):
    """Whose memory it is: a user's, in one space (an agent's, or one that agents share)."""

    tenant: str
    user: str
    space: str


class Fact(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True, gc=False):
    """A version of a fact. Times are milliseconds; an end of 0 is open."""

    id: str
    kind: Kind = "fact"
    subject: str = ""
    attribute: str = ""
    value: str = ""
    confidence: float = 1.0
    """From 0 to 1, as whoever took it out of the text judged."""
    trust: Trust = "untrusted"
    """That of the text in which it stands."""
    source: Source = "model"
    """Who wrote that text: "user", "tool", "reviewer" (a person at the operator's), "model"."""
    name: str = ""
    """Which one, as in labels: the tool's name, the reviewer's."""
    secrecy: str = "public"
    run: str = ""
    """The run in which it was said; "": it was written by hand."""
    place: str = ""
    """Where in that run: the part's number."""
    valid_from_ms: int = 0
    valid_to_ms: int = 0
    recorded_ms: int = 0
    ended_ms: int = 0
    """When it was not believed any more; 0: it is."""
    why: Literal["", "superseded", "ended", "edited", "retracted", "counted"] = ""
    """What ended it."""
    replaced_by: str = ""
    """The version that was written in its place, if one was."""
    by: str = ""
    """What wrote it: the extraction's run, a call, a person."""
    count: int = 1
    """Of a procedure: how often it worked."""
    vector: bytes = b""
    """Its embedding as 32-bit floats; empty: there is none."""
    space: str = ""
    """In which it is remembered, as the store says."""

    @property
    def about(self) -> str:
        """What it is about, as `key_of`."""
        return key_of(self.kind, self.subject, self.attribute)

    @property
    def label(self) -> Label:
        """Provenance of what is told of it: from memory, as far to be trusted as the text it is from, and as secret."""
        return Label("memory", self.name or self.source, self.trust, self.secrecy)

    def holds(self, at_ms: int) -> bool:
        """Whether it says something of a moment."""
        return self.valid_from_ms <= at_ms and (not self.valid_to_ms or at_ms < self.valid_to_ms)

    def believed(self, at_ms: int) -> bool:
        """Whether it was on record at a moment."""
        return self.recorded_ms <= at_ms and (not self.ended_ms or at_ms < self.ended_ms)


class Operation(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A change to what is known. `value` of an "end" may be empty: then all of the attribute ends."""

    do: Change = "set"
    target: str = ""
    """Which version a "correct" or "retract" is about."""
    kind: Kind = "fact"
    subject: str = ""
    attribute: str = ""
    value: str = ""
    confidence: float = 1.0
    trust: Trust = "untrusted"
    source: Source = "model"
    name: str = ""
    secrecy: str = "public"
    run: str = ""
    place: str = ""
    from_ms: int = 0
    """From when on it is so, or of an "end" not so."""
    to_ms: int = 0
    vector: bytes = b""


class Ended(msgspec.Struct, frozen=True):
    """A version that is not believed any more."""

    id: str
    why: Literal["superseded", "ended", "edited", "retracted", "counted"]
    replaced_by: str = ""


class Revision(msgspec.Struct, frozen=True):
    """What an operation does to the rows: these end, these are added."""

    ended: tuple[Ended, ...] = ()
    added: tuple[Fact, ...] = ()


def key_of(kind: str, subject: str, attribute: str) -> str:
    """Name what a fact is about: two of one key and overlapping times contradict each other."""
    return f"{kind}\0{folded(subject)}\0{folded(attribute)}"


def folded(text: str) -> str:
    """Fold a name: "Home City" and "home_city" are one."""
    return re.sub(r"[\s_\-]+", " ", text).strip().casefold()


def revise(known: Iterable[Fact], op: Operation, *, key: str, now_ms: int) -> Revision:
    """Say what an operation does. `known`: rows that are believed, and of its key or its target; `key` names the operation, and makes
    its ids.

    What is less trusted never ends what is more: it stands beside it.
    """
    rows = [row for row in known if _RANKS[row.trust] <= _RANKS[op.trust]]
    now_ms = max((now_ms, *(row.recorded_ms for row in rows)))  # the clock of another process may be behind
    match op.do:
        case "end":
            return _end(rows, op, key, now_ms)
        case "add":
            return _add(rows, op, key, now_ms)
        case "set" if op.kind == "procedure":
            return _count(rows, op, key, now_ms)
        case "set":
            return _set(rows, op, key, now_ms)
        case "correct":
            return _correct(rows, op, key, now_ms)
        case "retract":
            return Revision(tuple(Ended(row.id, "retracted") for row in rows))


def _set(rows: Sequence[Fact], op: Operation, key: str, now_ms: int) -> Revision:
    begins = sorted(row.valid_from_ms for row in rows if row.valid_from_ms > op.from_ms)
    end_ms = op.to_ms or (begins[0] if begins else 0)
    same = [row for row in rows if row.value == op.value and _covers(row, op.from_ms, end_ms)]
    if same:
        return Revision()
    new = _new(op, key, now_ms, end_ms)
    ended: list[Ended] = []
    added: list[Fact] = [new]
    for row in rows:
        if not _overlaps(row, op.from_ms, end_ms):
            continue
        ended.append(Ended(row.id, "superseded", new.id))
        added += _left_of(row, op.from_ms, end_ms, key, now_ms)
    return Revision(tuple(ended), tuple(added))


def _add(rows: Sequence[Fact], op: Operation, key: str, now_ms: int) -> Revision:
    if any(row.value == op.value and _overlaps(row, op.from_ms, op.to_ms) for row in rows):
        return Revision()
    return Revision(added=(_new(op, key, now_ms, op.to_ms),))


def _end(rows: Sequence[Fact], op: Operation, key: str, now_ms: int) -> Revision:
    ended: list[Ended] = []
    added: list[Fact] = []
    for row in rows:
        if (op.value and folded(row.value) != folded(op.value)) or not _overlaps(row, op.from_ms, 0):
            continue
        left = _left_of(row, op.from_ms, 0, key, now_ms)
        ended.append(Ended(row.id, "ended", left[0].id if left else ""))
        added += left
    return Revision(tuple(ended), tuple(added))


def _count(rows: Sequence[Fact], op: Operation, key: str, now_ms: int) -> Revision:
    """A procedure worked once more."""
    new = _new(op, key, now_ms, 0)
    if not rows:
        return Revision(added=(new,))
    first = min(rows, key=lambda row: row.valid_from_ms)
    new = _with(new, count=1 + max(row.count for row in rows), valid_from_ms=first.valid_from_ms)
    return Revision(tuple(Ended(row.id, "counted", new.id) for row in rows), (new,))


def _correct(rows: Sequence[Fact], op: Operation, key: str, now_ms: int) -> Revision:
    """Write another value in place of one that was wrong from the start: by a person, whose word it then is."""
    if not rows or rows[0].value == op.value:
        return Revision()
    new = _with(
        rows[0], id=_id(key, "0"), value=op.value, trust=op.trust, source=op.source, name=op.name, confidence=op.confidence,
        run="", place="", recorded_ms=now_ms, by=key, vector=op.vector,
    )  # fmt: skip
    return Revision((Ended(rows[0].id, "edited", new.id),), (new,))


def _new(op: Operation, key: str, now_ms: int, end_ms: int) -> Fact:
    return Fact(
        id=_id(key, "0"), kind=op.kind, subject=op.subject, attribute=op.attribute, value=op.value, confidence=op.confidence,
        trust=op.trust, source=op.source, name=op.name, secrecy=op.secrecy, run=op.run, place=op.place, valid_from_ms=op.from_ms,
        valid_to_ms=end_ms, recorded_ms=now_ms, by=key, vector=op.vector,
    )  # fmt: skip


def _left_of(row: Fact, from_ms: int, to_ms: int, key: str, now_ms: int) -> list[Fact]:
    """Write what of a row still holds when a span is cut out of it."""
    pieces: list[Fact] = []
    if row.valid_from_ms < from_ms:
        pieces.append(_with(row, id=_id(key, row.id, "before"), valid_to_ms=from_ms, recorded_ms=now_ms, by=key))
    if to_ms and (not row.valid_to_ms or row.valid_to_ms > to_ms):
        pieces.append(_with(row, id=_id(key, row.id, "after"), valid_from_ms=to_ms, recorded_ms=now_ms, by=key))
    return pieces


def _overlaps(row: Fact, from_ms: int, to_ms: int) -> bool:
    return (not to_ms or row.valid_from_ms < to_ms) and (not row.valid_to_ms or row.valid_to_ms > from_ms)


def _covers(row: Fact, from_ms: int, to_ms: int) -> bool:
    return row.valid_from_ms <= from_ms and (not row.valid_to_ms or (bool(to_ms) and to_ms <= row.valid_to_ms))


def _id(*names: str) -> str:
    """Name a version by what made it, so that what is done twice makes the same one."""
    return "fact_" + hashlib.sha256("\0".join(names).encode()).hexdigest()[:20]
