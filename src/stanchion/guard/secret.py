"""Registered secrets: values that are looked for in whatever comes in, plain and as they are usually written.

A value is found as it is, in JSON, URL-encoded, in hexadecimal, in base64 wherever it begins in what was encoded, and split by
white space, line breaks or characters without width. Text is read once however many values there are: each form is known by
the five characters at four of its places, and every fourth place of the text is looked up.
"""

from __future__ import annotations

import base64
import json
import re
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import quote, quote_plus

from stanchion.core.errors import ConfigError

LEAST = 8
"""Characters of the shortest value: a shorter one is a word, and would be found everywhere."""
MOST_MINTED = 1_000
"""Tokens of single operations that are kept: the oldest goes."""
_WIDTH, _STEP = 5, 4
"""Characters that are looked up, and how far apart. A form of `_WIDTH + _STEP - 1` characters has one of its places looked at."""
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_HEX = re.compile(r"[0-9a-fA-F]{16,}")
_NO_WIDTH = dict.fromkeys(map(ord, "\u00ad\u200b\u200c\u200d\u2060\ufeff"))
_ASCII_LOWER = {ord(upper): upper.lower() for upper in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"}
_ESCAPE = re.compile(r"\\+(?:[nrt]|\Z)")
"""White space as JSON writes it; at the end, what may become one."""


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of a text, and what stands in its place. `core`: the piece of it that is replaced; empty: nothing is."""

    start: int
    end: int
    core: tuple[int, int]
    told: str


@dataclass(frozen=True, slots=True)
class _Form:
    """A value as it may be written, without white space. `low` is it in lower case, `fold` whether case matters not."""

    text: str
    low: str
    fold: bool
    told: str


class _View(NamedTuple):
    """A text without white space, and in lower case. `escapes`: nor what JSON writes for it."""

    text: str
    low: str
    escapes: bool


class Secrets:
    """The registered secrets of a process. Whoever adds one does so before it is used."""

    def __init__(self) -> None:
        self._values: dict[str, tuple[_Form, ...]] = {}
        self._minted: OrderedDict[str, None] = OrderedDict()
        self._places: dict[str, list[tuple[_Form, int]]] = {}
        self._starts: dict[str, int] = {}
        """How many forms begin so, with up to `_WIDTH` characters."""
        self._longest = 0

    def __len__(self) -> int:
        return len(self._values)

    def add(self, name: str, value: str, *, minted: bool = False) -> None:
        """Register a value under the name that stands in its place. A value keeps its first name.

        `minted`: it was made for one operation; only the last `MOST_MINTED` are kept. Raises `ConfigError` (name, too short).
        """
        if not _NAME.fullmatch(name):
            raise ConfigError(f"the secret's name {name!r} cannot be used: 1 to 64 letters, digits, '_', '.' or '-'")
        value = value.strip()
        if value in self._values or (minted and len(_squeezed(value)) < LEAST):
            return
        if len(_squeezed(value)) < LEAST:
            raise ConfigError(f"the secret {name!r} is shorter than {LEAST} characters, and would be found in any text")
        self._values[value] = forms = tuple(_forms(value, f"[secret:{name}]"))
        for form in forms:
            self._enter(form)
        if minted:
            self._minted[value] = None
            while len(self._minted) > MOST_MINTED:
                self.drop(next(iter(self._minted)))

    def drop(self, value: str) -> None:
        """Forget a value, if it is there."""
        value = value.strip()
        self._minted.pop(value, None)
        for form in self._values.pop(value, ()):
            for place in range(_STEP):
                window = form.low[place : place + _WIDTH]
                kept = [entry for entry in self._places[window] if entry[0] is not form]
                self._places[window] = kept
                if not kept:
                    del self._places[window]
            for size in range(1, _WIDTH + 1):
                self._starts[form.low[:size]] -= 1
                if not self._starts[form.low[:size]]:
                    del self._starts[form.low[:size]]

    def names(self) -> frozenset[str]:
        """Tell what the secrets are called."""
        return frozenset(form.told[len("[secret:") : -1] for forms in self._values.values() for form in forms)

    def spans(self, text: str) -> list[Span]:
        """Find where secrets stand in a text, in order, those that overlap joined."""
        return self._spans(text, _views(text)) if self._values and len(text) >= LEAST else []

    def look(self, text: str) -> tuple[list[Span], int]:
        """Find them, and where at the end one has begun that more text could complete; else the text's length."""
        if not self._values:
            return [], len(text)
        views = _views(text)
        return self._spans(text, views), min(self._open_at(text, view) for view in views)

    def _spans(self, text: str, views: Sequence[_View]) -> list[Span]:
        found: list[tuple[int, int, str]] = []
        for view in views:
            if hits := list(self._hits(view)):
                kept = _kept(text, escapes=view.escapes)
                found += [(kept[start], kept[end - 1] + 1, told) for start, end, told in hits]
        return joined(Span(start, end, (start, end), told) for start, end, told in found) if found else []

    def _open_at(self, text: str, view: _View) -> int:
        begun = self._begun(view)
        behind = len(view.text) - begun
        if not behind:
            return len(text)
        if view.escapes:
            return _kept(text, escapes=True)[begun]
        at = len(text)
        while behind:
            at -= 1
            behind -= not text[at].isspace() and ord(text[at]) not in _NO_WIDTH
        return at

    def _enter(self, form: _Form) -> None:
        self._longest = max(self._longest, len(form.text))
        for place in range(_STEP):
            self._places.setdefault(form.low[place : place + _WIDTH], []).append((form, place))
        for size in range(1, _WIDTH + 1):
            start = form.low[:size]
            self._starts[start] = self._starts.get(start, 0) + 1

    def _hits(self, view: _View) -> Iterator[tuple[int, int, str]]:
        low, places = view.low, self._places
        for at in [at for at in range(0, len(low) - _WIDTH + 1, _STEP) if low[at : at + _WIDTH] in places]:
            for form, offset in places[low[at : at + _WIDTH]]:
                start = at - offset
                if start >= 0 and (low if form.fold else view.text).startswith(form.text, start):
                    yield start, start + len(form.text), form.told

    def _begun(self, view: _View) -> int:
        """Find the first place from which on the rest of a text is the beginning of a form."""
        low, starts, size = view.low, self._starts, len(view.low)
        whole = size - _WIDTH + 1
        for at in [at for at in range(max(size - self._longest, 0), whole) if low[at : at + _WIDTH] in starts]:
            rest = low[at:], view.text[at:]
            if any(not place and form.text.startswith(rest[not form.fold]) for form, place in self._at(rest[0])):
                return at
        return next((at for at in range(max(whole, 0), size) if low[at:] in starts), size)

    def _at(self, low: str) -> Sequence[tuple[_Form, int]]:
        return self._places.get(low[:_WIDTH], ())


def joined(spans: Iterable[Span]) -> list[Span]:
    """Join spans that overlap: what stands in their place is said by the one that begins first, or else is longer."""
    made: list[Span] = []
    for span in sorted(spans, key=lambda span: (span.core[0], -span.core[1])):
        if made and span.core[0] < made[-1].core[1]:
            last = made[-1]
            end, core_end = max(last.end, span.end), max(last.core[1], span.core[1])
            made[-1] = Span(min(last.start, span.start), end, (last.core[0], core_end), last.told)
        else:
            made.append(span)
    return made


def _forms(value: str, told: str) -> Iterator[_Form]:
    """Write a value in all the ways in which it is looked for."""
    data = value.encode(errors="surrogatepass")
    exact = {_squeezed(value), *_in_json(value), *_in_url(data), *_in_base64(data)}
    digits = data.hex()
    folded = {digits} if not _HEX.fullmatch(value) else {digits, value.lower()}
    for text in exact - folded:
        if len(text) >= LEAST:
            yield _Form(text, lower(text), fold=False, told=told)
    for text in folded:
        yield _Form(text, text, fold=True, told=told)


def _in_json(value: str) -> Iterator[str]:
    for plain in (json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]):
        for written in (plain, plain.replace("/", "\\/"), json.dumps(plain)[1:-1]):
            yield _squeezed(written, escapes=True)


def _in_url(data: bytes) -> Iterator[str]:
    written = (quote(data, safe=""), quote(data, safe="/"), quote(data, safe="!~*'()"), quote_plus(data))
    for text in (*written, "".join(f"%{byte:02X}" for byte in data)):
        yield text
        yield re.sub("%[0-9A-F]{2}", lambda found: found[0].lower(), text)


def _in_base64(data: bytes) -> Iterator[str]:
    """Encode at each of the three places at which bytes may begin, without the characters that also hold other bytes."""
    for before in range(3):
        first, behind = -(-before * 8 // 6), (before + len(data)) * 8 // 6
        encoded = base64.b64encode(b"\0" * before + data).decode()[first:behind]
        yield encoded
        yield encoded.translate({ord("+"): "-", ord("/"): "_"})


def _views(text: str) -> tuple[_View, ...]:
    """Write a text without white space; where there are backslashes, also without what JSON writes for it."""
    return (_view(text), _view(text, escapes=True)) if "\\" in text else (_view(text),)


def _view(text: str, *, escapes: bool = False) -> _View:
    squeezed = _squeezed(text, escapes=escapes)
    return _View(squeezed, lower(squeezed), escapes)


def _squeezed(text: str, *, escapes: bool = False) -> str:
    """Take white space out, and with `escapes` what JSON writes for it."""
    text = "".join(text.split())
    if not text.isascii() and any(chr(char) in text for char in _NO_WIDTH):
        text = text.translate(_NO_WIDTH)
    return _ESCAPE.sub("", text) if escapes else text


def _kept(text: str, *, escapes: bool) -> list[int]:
    """List the places of the characters that `_squeezed` leaves."""
    kept = [at for at, char in enumerate(text) if not char.isspace() and ord(char) not in _NO_WIDTH]
    if not escapes:
        return kept
    squeezed = "".join(text[at] for at in kept)
    gone = {at for found in _ESCAPE.finditer(squeezed) for at in range(*found.span())}
    return [place for at, place in enumerate(kept) if at not in gone]


def lower(text: str) -> str:
    """Write in lower case without moving a character: of ASCII only, where there is more."""
    return text.lower() if text.isascii() else text.translate(_ASCII_LOWER)
