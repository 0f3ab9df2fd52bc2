"""Patterns of text that can be looked for in a stream: each knows what it matches, and what may still become a match.

A pattern is a sequence of pieces. Of the pieces come two regular expressions: `full` finds whole matches, and `opening` finds
where, at the end of a text, one has begun that more text could complete. Python's `re` has no partial matching, and taking
the text in from the longest possible match back would hold a sentence up for the length of a private key.

A pattern must tell where it ends by one character behind it, and look no further back than one character before it. Its runs
take all they can and give nothing back, so that each text is read once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Lit:
    """These characters."""

    text: str


@dataclass(frozen=True, slots=True)
class Many:
    """So many times: a character class ("[0-9]"), or a sequence. As often as it can, and it gives nothing back."""

    what: str | Seq
    least: int
    most: int


@dataclass(frozen=True, slots=True)
class Either:
    """One of several sequences, the first that fits."""

    of: tuple[Seq, ...]


@dataclass(frozen=True, slots=True)
class Core:
    """The part that is replaced, where it is not the whole."""

    of: Seq


Piece: TypeAlias = Lit | Many | Either | Core
Seq: TypeAlias = tuple[Piece, ...]


def maybe(*pieces: Piece) -> Either:
    """Make pieces that may be there or not."""
    return Either((pieces, ()))


def words(*texts: str) -> Either:
    """Make one of several texts."""
    return Either(tuple((Lit(text),) for text in sorted(texts, key=len, reverse=True)))


def full(pieces: Seq) -> str:
    """Write what matches the whole of a sequence."""
    return "".join(map(_full, pieces))


def _full(piece: Piece) -> str:
    match piece:
        case Lit():
            return re.escape(piece.text)
        case Many():
            return f"{_one(piece)}{{{piece.least},{piece.most}}}+"
        case Either():
            return f"(?:{'|'.join(map(full, piece.of))})"
        case Core():
            return f"({full(piece.of)})"


def _one(piece: Many) -> str:
    return piece.what if isinstance(piece.what, str) else f"(?:{full(piece.what)})"


def opening(pieces: Seq) -> str:
    """Write what matches the beginning of a sequence up to the end of the text: nothing, a part, or all of it."""
    if not pieces:
        return r"\Z"
    first, rest = pieces[0], pieces[1:]
    match first:
        case Lit():
            behind = opening(rest)
            for char in reversed(first.text):
                behind = rf"(?:\Z|{re.escape(char)}{behind})"
            return behind
        case Many():
            one, behind = _one(first), opening(rest)
            if isinstance(first.what, str):
                return rf"(?:{one}{{0,{first.most}}}+\Z|{one}{{{first.least},{first.most}}}+{behind})"
            within = opening(first.what)
            return f"(?:{one}{{0,{first.most - 1}}}+{within}|{one}{{{first.least},{first.most}}}+{behind})"
        case Either():
            begun = "|".join(opening(choice) for choice in first.of if choice)
            return f"(?:{begun}|{_full(first)}{opening(rest)})"
        case Core():
            return opening((*first.of, *rest))


def heads(pieces: Seq) -> tuple[str, ...]:
    """List the texts with one of which a sequence begins; none where it begins with a class of characters."""
    if not pieces:
        return ()
    match pieces[0]:
        case Lit():
            return (pieces[0].text,)
        case Either():
            found = [heads(choice) for choice in pieces[0].of]
            return tuple(head for of in found for head in of) if all(found) else ()
        case Many():
            return ()
        case Core():
            return heads(pieces[0].of)


def begun(pieces: Seq, *, any_case: bool = False) -> Iterator[tuple[str, str]]:
    """List the ways in which a sequence may have begun, up to the end of the text: a first character, and what matches the rest.

    The first is "" where it may be one of a class; then the second matches it too.
    """
    first, rest = pieces[0], pieces[1:]
    match first:
        case Lit():
            behind = opening((Lit(first.text[1:]), *rest)) if first.text[1:] else opening(rest)
            flagged = f"(?{'i' if any_case else '-i'}:{behind})"
            for char in sorted({first.text[0].lower(), first.text[0].upper()} if any_case else {first.text[0]}):
                yield char, flagged
        case Either():
            for choice in first.of:
                yield from begun((*choice, *rest), any_case=any_case)
        case Many():
            one = first.what if isinstance(first.what, str) else opening(first.what)
            yield "", f"(?={one}){opening(pieces)}"
        case Core():
            yield from begun((*first.of, *rest), any_case=any_case)


Check: TypeAlias = Callable[[str], int]
"""How many characters of a candidate are really one; 0: it is none."""


def always(text: str) -> int:
    """Take all of it."""
    return len(text)


@dataclass(frozen=True, slots=True)
class Pattern:
    """Something to find. `hint`: where it begins with no certain text, a character that is in it ("0": any digit)."""

    kind: str
    pieces: Seq
    check: Check = always
    any_case: bool = False
    hint: str = ""
    before: str = "(?<![A-Za-z0-9_])"
    after: str = "(?![A-Za-z0-9_])"

    def regex(self) -> re.Pattern[str]:
        """Compile what finds whole candidates."""
        return re.compile(self.before + full(self.pieces) + self.after, re.IGNORECASE if self.any_case else 0)
