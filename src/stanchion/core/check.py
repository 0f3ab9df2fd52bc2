"""What a check of text is, for whoever writes one: it is shown a text and says what it found. Hooks never change anything.

    class Slogan:
        name = "slogan"

        def look(self, text: str, about: About) -> Hit | None:
            at = text.find("best in class")
            return Hit("an empty promise", ((at, at + 13),)) if at >= 0 else None

A check is pure: the same text gives the same hit, without a clock, chance or I/O. What a hit means is said by a `CheckRule`. One that
raises counts as a hit that blocks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

from stanchion.core.policy import Where


class About(msgspec.Struct, frozen=True):
    """What is known of a text that is looked at."""

    where: Where
    tool: str = ""
    """Whose result it is, or which call's argument."""
    path: str = ""
    """Of a call: where in its arguments the text stands."""
    settings: Mapping[str, Any] = {}
    """Those of the rule."""


class Hit(msgspec.Struct, frozen=True):
    """What a check found."""

    reason: str
    """A few words for people and for the model. Never the text itself: it may be what must not be shown."""
    spans: tuple[tuple[int, int], ...] = ()
    """Where it stands, start and end in characters: what "redact" takes out. None: all of the text."""


class TextCheck(Protocol):
    """A pure check."""

    @property
    def name(self) -> str: ...

    def look(self, text: str, about: About) -> Hit | None:
        """Say what is wrong with a text, or None."""
        ...


def cut_out(text: str, spans: tuple[tuple[int, int], ...], instead: str) -> str:
    """Replace pieces of a text. Pieces that overlap are one."""
    out: list[str] = []
    at = 0
    for start, end in sorted(spans):
        start, end = max(start, 0), min(end, len(text))
        if end <= max(at, start):
            continue
        if start >= at:
            out += (text[at:start], instead)
        at = end
    return "".join((*out, text[at:]))
