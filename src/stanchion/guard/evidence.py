"""What a run has been told by whom, indexed: where the guard looks for the ground of a value.

Trust is decided by match to trusted text (the user's, a reviewer's, the developer's) and to typed fields of tools' results that
the policy trusts for that kind of value; never by what the model says. An `Evidence` belongs to one bundle and follows one run
as it grows: the whole conversation, whatever of it was compacted since. It is a memo: `of` gives the same for the same state, whatever it has read before (I4).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from stanchion.core.block import outside
from stanchion.core.bundle import Bundle, ToolSpec
from stanchion.core.conversation import count_said, said_message
from stanchion.core.message import Label, Part, Text, ToolResult
from stanchion.core.path import leaves, select
from stanchion.core.policy import ResultField
from stanchion.core.remembered import values_in
from stanchion.core.skill import disclosure
from stanchion.core.state import Seen, State
from stanchion.guard.dates import Days
from stanchion.guard.values import DATES, NUMERIC, accounts_in, dense, emails_in, normal, numbers_in, plain, urls_in

_SPOKEN = frozenset({"user", "reviewer", "developer"})
_DENSE = frozenset({"account", "phone"})
_ID_WORDS = re.compile(r"(?:\bids?|\bnumber|\bno\.?|\bnr\.?|#)\s*(?:is|of|=|:)?\s*[\"'`]?$")


class Place(msgspec.Struct, frozen=True):
    """Where a ground stands: a tool's answer and a path in it, or what was said."""

    source: str
    call: str = ""
    path: str = ""


class Evidence:
    """The index of one run's evidence."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._specs = bundle.by_name
        self._reset()

    def _reset(self) -> None:
        self._message = 0
        self._parts = 0
        """How many messages, and parts of the next one, were read."""
        self._last: Part | None = None
        self._results = 0
        self._last_seen: Seen | None = None
        self.spoken: list[tuple[int, str]] = []
        """Trusted texts, folded, with the number of the message that they stand in."""
        self._dense: list[str] = []
        self._raw: list[tuple[int, str]] = []
        self.numbers: set[str] = set()
        self.urls: set[str] = set()
        self.emails: set[str] = set()
        self.accounts: set[str] = set()
        self.days = Days()
        self.typed: dict[str, dict[str, Place]] = {}
        self.read_urls: set[str] = set()
        """URLs that stand in what was read from others."""
        self.secrecy: set[str] = set()
        """Levels of what stands in the model's context. What is sealed does not."""
        self.untrusted = False
        """Whether anything was read that is not trusted."""
        self._remembered: Evidence | None = None
        """What the user said in earlier sessions, as memory tells it."""
        if self._bundle.identity:
            self._speak(-1, self._bundle.identity)

    def of(self, state: State) -> Evidence:
        """Read on to a state. One that does not go on from what was read is read from its beginning."""
        if not self._goes_on(state):
            self._reset()
        for index in range(self._message, count_said(state)):
            parts = said_message(state, index).parts
            for part in parts[self._parts if index == self._message else 0 :]:
                self._take(index, part)
            if parts:
                self._message, self._parts = index, len(parts)
        for seen in state.seen[self._results :]:
            self._take_seen(seen)
            self._results, self._last_seen = self._results + 1, seen
        for part in state.tail:  # said while the step is under way: it goes behind the step's results
            if isinstance(part, Text) and part.label.source in _SPOKEN and not self._heard(part.text):
                self._speak(count_said(state), part.text)
        return self

    def _heard(self, text: str) -> bool:
        folded = f" {plain(text)} "
        return any(said == folded for _, said in self.spoken)

    def _goes_on(self, state: State) -> bool:
        if self._results > len(state.seen) or (self._results and state.seen[self._results - 1] is not self._last_seen):
            return False
        if not self._parts:
            return True
        if self._message >= count_said(state):
            return False
        parts = said_message(state, self._message).parts
        return self._parts <= len(parts) and parts[self._parts - 1] is self._last

    def _take(self, index: int, part: Part) -> None:
        self._last = part
        label = part.label
        if label.secrecy != "public":
            self.secrecy.update(label.secrecy.split("+"))
        match part:
            case Text() if label.source in _SPOKEN and label.trust != "untrusted":
                self._speak(index, part.text)
            case Text() | ToolResult() if label.source == "memory":
                self._recall(index, part.text, label)
            case Text() if label.source in ("document", "tool"):
                self._overhear(part.text)
            case ToolResult() if label.source == "developer":
                self._open(label.name, part.text)
            case ToolResult() if label.source == "tool":
                self.untrusted = self.untrusted or label.trust == "untrusted"
                self._overhear(part.text)
            case _:
                pass

    def _open(self, name: str, text: str) -> None:
        """Take an opened skill as the developer's word from before the run, so that opening one says nothing new. Not what it was
        before it was changed, and not what is said of its limits.
        """
        for skill in self._bundle.skills:
            if skill.name == name and disclosure(skill) == text:
                self._speak(-1, skill.body)

    def _speak(self, index: int, text: str) -> None:
        folded = plain(text)
        self.spoken.append((index, f" {folded} "))
        self._raw.append((index, text))
        self._dense.append(dense(text))
        self.numbers |= numbers_in(text)
        self.urls |= {normal("url", text[start:end]) for start, end in urls_in(text)}
        self.accounts |= {dense(text[start:end]) for start, end in accounts_in(text)}
        self.emails |= {normal("email", text[start:end]) for start, end in emails_in(text)}
        self.days.add(folded)

    def _recall(self, index: int, text: str, label: Label) -> None:
        """Take what memory tells: of what stands in no block of others, the values of facts, apart from what was said now."""
        self._overhear(text)
        if label.trust == "untrusted":
            self.untrusted, text = True, outside(text)
        for value in values_in(text):
            self._remembered = self._remembered or Evidence(msgspec.structs.replace(self._bundle, identity=""))
            self._remembered._speak(index, value)

    def remembered(self, kind: str, value: Any) -> bool:
        """Whether the user said a value of a kind in an earlier session, as memory tells it: less than to say it now."""
        return self._remembered is not None and self._remembered.said(kind, value)

    def _overhear(self, text: str) -> None:
        self.read_urls |= {normal("url", text[start:end]) for start, end in urls_in(text)}

    def _take_seen(self, seen: Seen) -> None:
        if seen.sealed:  # a URL of it can come into a call by a reference only
            self._overhear(seen.text)
        spec = self._specs.get(seen.tool)
        if spec is None or not spec.result:
            return
        value = read_result(seen.text)
        for pattern, field in spec.result.items():
            found = list(select(value, pattern))
            if field.secrecy != "public" and found and not seen.sealed:
                self.secrecy.add(field.secrecy)
            if field.trusted and field.kind and (not field.asked or self._asked(spec, seen)):
                self._index(field, found, seen)

    def _index(self, field: ResultField, found: list[tuple[str, Any]], seen: Seen) -> None:
        forms = [
            (form, path) for path, item in found for text in _matches(field, item) if (form := normal(field.kind, text))
        ]
        if field.asked and len({form for form, _ in forms}) > 1:
            return  # which of them was meant, nobody trusted said
        known = self.typed.setdefault(field.kind, {})
        for form, path in forms:
            known.setdefault(form, Place(seen.tool, seen.call, path))

    def _asked(self, spec: ToolSpec, seen: Seen) -> bool:
        """Whether a tool was asked by trusted words, and by some at all."""
        try:
            asked = list(leaves(msgspec.json.decode(seen.arguments)))
        except (msgspec.MsgspecError, ValueError):
            return False
        words = [value for _, value in asked if isinstance(value, str) and value.strip()]
        return bool(words) and all(self._said_before(word, seen.messages) or self.is_typed(word) for word in words)

    def _said_before(self, word: str, messages: int) -> bool:
        """Whether the user said a word before a message, and as a name: "lunch" names nobody."""
        wanted = plain(word)
        said = any(0 <= index < messages and _stands_in(wanted, text) for index, text in self.spoken)
        return said and any(0 <= index < messages and _is_name(word.strip(), raw) for index, raw in self._raw)

    def is_typed(self, value: str) -> bool:
        """Whether a trusted field holds a value, of whatever kind."""
        return any(normal(kind, value) in known for kind, known in self.typed.items())

    def said(self, kind: str, value: Any, *, since: int = -2) -> bool:
        """Whether trusted text has a value of a kind. `since`: only from that message on."""
        form = normal(kind, value)
        if not form:
            return False
        if since > -2:
            wanted = plain(str(value))
            return any(index >= since and _stands_in(wanted, text) for index, text in self.spoken)
        if kind in NUMERIC:
            return form in self.numbers
        if kind in DATES:
            return self.days.ground(form, set(self.typed.get("today", ())))
        if kind == "url":
            return form in self.urls
        if kind == "email":
            return form in self.emails
        if kind in _DENSE and any(map(str.isdigit, form)):
            if len(form) < 6 or not any(form in text for text in self._dense):
                return False
            if any(form in account for account in self.accounts):
                return form in self.accounts  # a piece of another account is another account
            whole = re.compile(r"(?<![^\W_])" + r"[\s\-()/]*".join(map(re.escape, form)) + r"(?![^\W_])")
            return any(whole.search(text) for _, text in self.spoken)
        return any(_stands_in(form, text) for _, text in self.spoken)

    def spoken_since(self, messages: int) -> bool:
        """Whether trusted text was said in or behind a message."""
        return any(index >= messages for index, _ in self.spoken)

    def field(self, kind: str, value: Any) -> Place | None:
        """Find the trusted field that holds a value of a kind."""
        known = self.typed.get(kind)
        return known.get(normal(kind, value)) if known else None

    def today(self) -> set[str]:
        """What day it is, as trusted tools said."""
        return set(self.typed.get("today", ()))


def _stands_in(form: str, text: str) -> bool:
    """Whether a folded value stands in a folded text as words of its own. A bare number must be said to be an id."""
    if len(form) < 2 and not form.isdigit():
        return False
    start = text.find(form)
    while start >= 0:
        end = start + len(form)
        whole = not (_joins(text[start - 1 : start]) or _joins(text[end : end + 1]))
        if whole and (not form.isdigit() or len(form) > 5 or _ID_WORDS.search(text[max(start - 16, 0) : start])):
            return True
        start = text.find(form, start + 1)
    return False


def _is_name(word: str, text: str) -> bool:
    """Whether a word stands in a text as one writes a name, an address or a number: with a capital, a digit or an at sign."""
    start = text.lower().find(word.lower())
    while start >= 0:
        written = text[start : start + len(word)]
        if any(letter.isupper() or letter.isdigit() or letter == "@" for letter in written) or not written.isascii():
            return True
        start = text.lower().find(word.lower(), start + 1)
    return False


def _joins(character: str) -> bool:
    return character.isalnum() or character == "_"


def read_result(text: str) -> Any:
    """Read a tool's answer as JSON, or as the text that it is."""
    if text[:1] in '{["' and text:
        try:
            return msgspec.json.decode(text)
        except (msgspec.MsgspecError, ValueError):
            return text
    return text


def _matches(field: ResultField, item: Any) -> Iterator[str]:
    if isinstance(item, bool) or item is None:
        return
    if not field.match:
        yield str(item)
        return
    for found in re.finditer(field.match, str(item)):
        yield found[1] if found.re.groups else found[0]


def label_of(spec: ToolSpec, text: str) -> Label:
    """Label a tool's answer: trusted if the whole of it is, and as secret as its most secret field."""
    whole = spec.result.get("")
    trust = "trusted" if whole is not None and whole.trusted and not whole.match else "untrusted"
    if not any(field.secrecy != "public" for field in spec.result.values()):
        return Label("tool", spec.name, trust)
    value = read_result(text)
    levels = {field.secrecy for pattern, field in spec.result.items() if any(True for _ in select(value, pattern))}
    secret = sorted(levels - {"public"})
    return Label("tool", spec.name, trust, "+".join(secret) or "public")
