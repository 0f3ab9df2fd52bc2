"""Redaction: secrets are taken out of all that comes in, once, before it is an event (invariant I6).

    [secret:NAME]       a registered value stood here, in whatever form
    [redacted:KIND]     a credential by its form, or personal data where that is wanted

First the registered values, then what the detectors find in what is left. Both read a text from left to right and look one
character back and one ahead, so that a stream can be redacted piece by piece and gives what the whole text gives: held back
is only what may still become something. What stands in place of something is found by no rule, so that redacting again changes
nothing, but for what stood without a gap beside something else.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from typing import Literal, TypeAlias, TypeVar

import msgspec

from stanchion.core import event as ev
from stanchion.core.message import RUNTIME, Delta, Media, Opaque, Part, Text, Thinking, ToolCall, ToolResult
from stanchion.guard.detector import ASSIGNED, PERSONAL, SECRETS, VERSION
from stanchion.guard.pattern import Pattern, begun, heads
from stanchion.guard.secret import Secrets, Span, joined, lower

E = TypeVar("E", bound=ev.Event)
_SAID = ("by", "model", "response", "code", "reason", "name", "tool")
"""Fields of events that hold what others called something: registered values are taken out of them too."""
_DIGIT = re.compile("[0-9]")
_LEAST = 6
"""Characters of the shortest thing that is found ("a@b.co")."""
_SHORT = 256
"""Characters of a text that is sooner read once for all heads than for each of them."""
_PLACEHOLDER = re.compile(r"\[(?:secret|redacted):[A-Za-z0-9_.-]{1,64}\]")
_JSON = ("{", "[")

Kinds = Literal["secrets", "arguments", "all"]
"""What is looked for: credentials; those without what only stands behind a name; or credentials and personal data."""


class Found(msgspec.Struct, frozen=True):
    """Something that the detectors found, and where."""

    kind: str
    start: int
    end: int


class _Finder:
    """Finds the candidates of one pattern."""

    def __init__(self, pattern: Pattern) -> None:
        self.pattern = pattern
        self.told = f"[redacted:{pattern.kind}]"
        self._regex = pattern.regex()
        found = heads(pattern.pieces)
        self.heads: tuple[str, ...] = tuple({head.lower(): "" for head in found}) if pattern.any_case else found

    def matches(self, text: str, low: str, start: int) -> Iterator[re.Match[str]]:
        """Go through a text (`low`: in lower case) from a place on."""
        hint = self.pattern.hint
        if not self.heads:
            if _DIGIT.search(text) if hint == "0" else hint in text:
                yield from self._regex.finditer(text, start)
            return
        for place in self._places(low if self.pattern.any_case else text, start):
            if place >= start and (match := self._regex.match(text, place)):
                yield match
                start = match.end()

    def _places(self, text: str, start: int) -> list[int]:
        """List where one of the heads stands."""
        places: list[int] = []
        for head in self.heads:
            place = text.find(head, start)
            while place >= 0:
                places.append(place)
                place = text.find(head, place + 1)
        return sorted(places)


class Rules:
    """Patterns that are looked for together."""

    def __init__(self, patterns: Sequence[Pattern]) -> None:
        self._finders = [_Finder(pattern) for pattern in patterns]
        self._headless = [finder for finder in self._finders if not finder.heads]
        headed = {re.escape(head.lower()) for finder in self._finders for head in finder.heads}
        self._head = re.compile("|".join(sorted(headed)))
        self._opening = re.compile("|".join(_openings(patterns)))

    def spans(self, text: str, start: int = 0) -> list[Span]:
        """List candidates from a place on: with something in their place where they passed their check."""
        found: list[Span] = []
        low = lower(text)
        short = len(text) < _SHORT and not self._head.search(low)
        for finder in self._headless if short else self._finders:
            for match in finder.matches(text, low, start):
                group = match.re.groups
                core = match.start(group)
                size = finder.pattern.check(match[group])
                found.append(Span(match.start(), match.end(), (core, core + size), finder.told if size else ""))
        return found

    def look(self, text: str, start: int) -> tuple[list[Span], int]:
        """List them, and find where at the end something has begun that more text could complete; else its length."""
        match = self._opening.search(text, start)
        return self.spans(text, start), len(text) if match is None else match.start()


def _openings(patterns: Sequence[Pattern]) -> Iterator[str]:
    """Write what finds beginnings: those that may follow upon the same together, and of these those that begin alike."""
    groups: dict[str, dict[str, list[str]]] = {}
    for pattern in patterns:
        for char, rest in begun(pattern.pieces, any_case=pattern.any_case):
            groups.setdefault(pattern.before, {}).setdefault(char, []).append(rest)
    for before, chars in groups.items():
        known = "".join(map(re.escape, chars))
        first = f"(?=[{known}])" if all(chars) else ""
        ways = "|".join(f"{re.escape(char)}(?:{'|'.join(rest)})" for char, rest in chars.items())
        yield f"{first}{before}(?:{ways})"


@cache
def _rules(kinds: Kinds) -> Rules:
    match kinds:
        case "secrets":
            return Rules((*SECRETS, *ASSIGNED))
        case "arguments":
            return Rules(SECRETS)
        case "all":
            return Rules((*SECRETS, *ASSIGNED, *PERSONAL))


def found(text: str, *, pii: bool = True) -> tuple[Found, ...]:
    """List what the detectors find in a text, in order."""
    spans = joined(span for span in _rules("all" if pii else "secrets").spans(text) if span.told)
    return tuple(Found(span.told[len("[redacted:") : -1], *span.core) for span in spans)


def is_redacted(text: str) -> bool:
    """Say whether a text is nothing but what stands in place of something."""
    return _PLACEHOLDER.fullmatch(text.strip()) is not None


def holds_redacted(text: str) -> bool:
    """Say whether something was taken out of a text."""
    return "[" in text and _PLACEHOLDER.search(text) is not None


class Redactor:
    """Takes registered secrets, credentials and, where it is wanted, personal data out of texts, parts and events."""

    def __init__(self, secrets: Secrets | None = None, *, pii: bool = False, version: str = VERSION) -> None:
        self.secrets = Secrets() if secrets is None else secrets
        self.version = version
        self._pii = pii

    def text(self, text: str) -> str:
        """Redact a text."""
        return self._redacted(text, self.rules())

    def line(self, text: str) -> str:
        """Redact a line of a log, or a span's attribute: personal data goes as well."""
        return self._redacted(text, _rules("all"))

    def registered(self, text: str) -> str:
        """Take out registered secrets only."""
        return _rendered(text, self.secrets.spans(text))

    def arguments(self, text: str) -> str:
        """Redact a call's arguments, which are JSON as a model wrote it."""
        return self._redacted(text, self.rules(arguments=True))

    def parts(self, parts: tuple[Part, ...]) -> tuple[Part, ...]:
        """Redact parts; the same tuple where there is nothing to redact."""
        made = tuple(map(self.part, parts))
        return parts if all(new is old for new, old in zip(made, parts, strict=True)) else made

    def part(self, part: Part) -> Part:
        """Redact a part; the same where there is nothing to redact."""
        match part:
            case Text():
                return _changed(part, text=_in_json(part.text, self.text(part.text)), data=self.text(part.data))
            case Thinking():
                return self._thinking(part)
            case ToolCall():
                return _changed(
                    part,
                    id=self.registered(part.id),
                    name=self.text(part.name),
                    arguments=self.arguments(part.arguments),
                    data=self.text(part.data),
                )
            case ToolResult():
                return self._result(part)
            case Opaque():
                return _changed(part, kind=self.registered(part.kind), data=self.text(part.data))
            case Media():
                return self._media(part)
            case _:
                return part

    def event(self, event: E) -> E:
        """Redact an event: its parts, and what others called something; the same where there is nothing to redact."""
        changed: dict[str, object] = {}
        if event.parts and (parts := self._parts_of(event)) != event.parts:
            changed["parts"] = parts
        if self.secrets:
            for name in _SAID:
                value = getattr(event, name, "")
                if isinstance(value, str) and len(value) > 7 and (said := self.registered(value)) != value:
                    changed[name] = said
        return msgspec.structs.replace(event, **changed) if changed else event

    def _parts_of(self, event: ev.Event) -> tuple[Part, ...]:
        """Redact an event's parts. Two are JSON that is read by us: what a run may do, and arguments that a reviewer wrote."""
        match event:
            case ev.RunStarted(narrowed=True):
                return (*self.parts(event.parts[:-1]), event.parts[-1])
            case ev.CallDecided(decision="edit", parts=(Text() as edited, *rest)):
                return (_changed(edited, text=self.arguments(edited.text)), *self.parts(tuple(rest)))
            case _:
                return self.parts(event.parts)

    def events(self, events: Iterable[E]) -> list[E]:
        """Redact events."""
        return [self.event(event) for event in events]

    def rules(self, *, arguments: bool = False) -> Rules:
        """Give what is looked for in a text, or in a call's arguments."""
        return _rules("all" if self._pii else "arguments" if arguments else "secrets")

    def _redacted(self, text: str, rules: Rules) -> str:
        if len(text) < _LEAST:
            return text
        text = _rendered(text, self.secrets.spans(text))
        return _rendered(text, rules.spans(text))

    def _thinking(self, part: Thinking) -> Thinking:
        """What was changed is not what its provider signed: without a signature it is not sent back."""
        made = _changed(part, text=self.text(part.text), data=self.text(part.data))
        return made if made is part else msgspec.structs.replace(made, signature="", data="")

    def _result(self, part: ToolResult) -> ToolResult:
        text = _in_json(part.text, self.text(part.text))
        media = tuple(map(self._media, part.media))
        kept = tuple(item for item in media if isinstance(item, Media))
        left_out = "".join(f"\n{item.text}" for item in media if isinstance(item, Text))
        made = _changed(part, id=self.registered(part.id), name=self.registered(part.name), text=text + left_out)
        same = all(new is old for new, old in zip(media, part.media, strict=True))
        return made if same else msgspec.structs.replace(made, media=kept)

    def _media(self, part: Media) -> Media | Text:
        """Leave out a document that holds a secret: nobody can read what is left of one that was cut."""
        if self._is_bad(part.data):
            return Text(f"[{part.name or part.mime} held a secret and was left out]", RUNTIME)
        return _changed(part, name=self.text(part.name), url=self.text(part.url), file_id=self.registered(part.file_id))

    def _is_bad(self, data: str) -> bool:
        if not data:
            return False
        if self.secrets.spans(data):
            return True
        if not data.isascii() or len(data) > _MOST_DECODED:
            return False
        try:
            said = base64.b64decode(data, validate=True).decode()
        except (binascii.Error, ValueError):  # no text
            return False
        return self.text(said) != said


_MOST_DECODED = 1_000_000
"""Characters of a document that is read to look for credentials in it; registered secrets are found in any."""
T = TypeVar("T", Text, Thinking, ToolCall, ToolResult, Opaque, Media)


def _changed(part: T, **fields: str) -> T:
    changed = {name: value for name, value in fields.items() if value != getattr(part, name)}
    return msgspec.structs.replace(part, **changed) if changed else part


def _rendered(text: str, spans: list[Span]) -> str:
    told = joined(span for span in spans if span.told)
    if not told:
        return text
    made: list[str] = []
    at = 0
    for span in told:
        made += (text[at : span.core[0]], span.told)
        at = span.core[1]
    return "".join((*made, text[at:]))


def _in_json(before: str, after: str) -> str:
    """Keep JSON readable where a number was replaced: what stands in its place is a string."""
    if before is after or before == after or before[:1] not in _JSON or _is_json(after) or not _is_json(before):
        return after
    quoted = re.sub(r"(?<=[:,\[\s])(\[(?:secret|redacted):[A-Za-z0-9_.-]{1,64}\])(?=[,}\]\s])", r'"\1"', after)
    return quoted if _is_json(quoted) else after


def _is_json(text: str) -> bool:
    try:
        msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError):
        return False
    return True


Look: TypeAlias = Callable[[str, int], tuple[list[Span], int]]
"""Finds what stands in a text from a place on, and where at its end something has begun; else its length."""


class _Stage:
    """One reading of a stream: gives on what can no longer be part of something. `back`: characters looked back at."""

    def __init__(self, look: Look, *, back: int) -> None:
        self._look = look
        self._back = back
        self._before: str = ""
        self._held: str = ""

    @property
    def holds(self) -> bool:
        """Whether it holds something back."""
        return bool(self._held)

    def feed(self, text: str, *, last: bool = False) -> str:
        """Take in a piece; give what is certain. `last`: nothing more will come."""
        if not text and not (last and self._held):
            return ""
        text, start = self._before + self._held + text, len(self._before)
        spans, end = self._look(text, start)
        if last:
            end = len(text)
        while spans and (cut := [span.start for span in spans if span.start < end < span.end]):
            end = min(cut)
        whole = [span for span in spans if span.end <= end]
        made = _rendered(text[:end], whole)[start:] if whole else text[start:end]
        self._held = text[end:]
        if end > start:
            self._before = text[end - self._back : end]
        return made


class StreamRedactor:
    """Redacts a text that comes in pieces: what it gives, joined, is what `Redactor` makes of the whole."""

    def __init__(self, redactor: Redactor, *, arguments: bool = False) -> None:
        """`arguments`: the text is a call's arguments."""
        rules, secrets = redactor.rules(arguments=arguments), redactor.secrets
        self._secrets = secrets
        self._registered = _Stage(lambda text, _: secrets.look(text), back=0)
        self._detected = _Stage(rules.look, back=1)

    def feed(self, text: str) -> str:
        """Take in a piece; give what is certain."""
        if self._secrets or self._registered.holds:
            text = self._registered.feed(text)
        return self._detected.feed(text)

    def end(self) -> str:
        """Give what was held back."""
        return self._detected.feed(self._registered.feed("", last=True), last=True)


class DeltaRedactor:
    """Redacts the deltas of one model call, part by part."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._streams: dict[int, tuple[Delta, StreamRedactor]] = {}

    def feed(self, deltas: Iterable[Delta]) -> list[Delta]:
        """Take in pieces; give those that are certain, and always a call's first, which names it."""
        made: list[Delta] = []
        for delta in deltas:
            if delta.index not in self._streams:
                stream = StreamRedactor(self._redactor, arguments=delta.kind == "tool_call")
                self._streams[delta.index] = delta, stream
            text = self._streams[delta.index][1].feed(delta.text)
            if text or delta.name:
                made.append(Delta(delta.kind, delta.index, text, self._redactor.text(delta.name)))
        return made

    def end(self) -> list[Delta]:
        """Give what was held back, when the call is over."""
        ended = ((first, stream.end()) for first, stream in self._streams.values())
        return [Delta(first.kind, first.index, text) for first, text in ended if text]
