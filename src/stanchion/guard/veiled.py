"""Addresses that are written so that nobody who looks for addresses finds them, and a person or a machine still can.

"www[.]site[.]example", "site . example", "w w w . s i t e", base64 of a link, a name in letters of two alphabets. Each is read as a
person would read it; what is then an address, and was none before, is veiled.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator

from stanchion.guard.values import emails_in, urls_in, words_of

_DOT = re.compile(
    r"\s*(?:\[\s*(?:\.|dot)\s*\]|\(\s*(?:\.|dot)\s*\)|\{\s*(?:\.|dot)\s*\})\s*|\s+(?:dot|\.)\s+", re.IGNORECASE
)
_AT = re.compile(r"\s*(?:\[\s*(?:@|at)\s*\]|\(\s*(?:@|at)\s*\))\s*|\s+@\s+", re.IGNORECASE)
_LETTERED = re.compile(r"(?<!\S)\S(?: \S){6,}(?!\S)")
_TOKEN = re.compile(r"(?<![A-Za-z0-9+/=_-])[A-Za-z0-9+/_-]{16,}={0,2}(?![A-Za-z0-9+/=_-])")
_MIXED = re.compile(r"[A-Za-z][\u0400-\u052f]|[\u0400-\u052f][A-Za-z]")
_ALONE = frozenset({".", "@", *(a + b + c for a in "dD" for b in "oO" for c in "tT")})
_SURE = re.compile(
    r"@|://|^www\.|\.(?:com|org|net|edu|gov|info|biz|app|dev|site|online|shop|store|cloud|xyz|top|club|example|test)(?![\w-])",
    re.IGNORECASE,
)
"""Two letters behind a lone full stop are more often the next word than a country."""


def veiled(text: str) -> tuple[str, str] | None:
    """Name the first way in which a text hides an address, with words for people; None: it hides none."""
    if not text.isascii() and _MIXED.search(text):
        return "mixed_letters", "a word in letters of two alphabets"
    words = words_of(text)
    plain = _as_read(text) if _may_be_broken(text, words) else text
    if plain != text and (new := _new(text, plain)):
        return "broken_address", f"{new!r}, written so that it does not look like an address"
    for found in (found for word in words if len(word) >= 16 for found in _TOKEN.finditer(word)):
        if new := next(_addresses(_decoded(found[0])), ""):
            return "coded_address", f"{new!r}, in base64"
    return None


def _as_read(text: str) -> str:
    """Write a text as a person reads it aloud."""
    plain = _LETTERED.sub(lambda found: found[0].replace(" ", ""), text)
    plain = _AT.sub("@", _DOT.sub(".", plain))
    return re.sub(r"\bhxxp", "http", plain, flags=re.IGNORECASE)


def _may_be_broken(text: str, words: list[str]) -> bool:
    """Whether a text has what `_as_read` looks for: most have not, and looking takes ten times as long."""
    if "[" in text or "(" in text or "{" in text or not _ALONE.isdisjoint(words):
        return True
    return sum(map((1).__eq__, map(len, words))) >= 7 or "hxxp" in text.casefold()


def _new(text: str, plain: str) -> str:
    """Give the first address that is in the plain text alone."""
    known = set(_addresses(text))
    return next((address for address in _addresses(plain) if address not in known and _SURE.search(address)), "")


def _addresses(text: str) -> Iterator[str]:
    yield from (text[start:end] for start, end in emails_in(text))
    yield from (text[start:end] for start, end in urls_in(text))


def _decoded(token: str) -> str:
    """Read base64, of either alphabet; "" where it is none, or no text."""
    padded = token.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        text = base64.b64decode(padded + "=" * (-len(padded) % 4), validate=True).decode()
    except (binascii.Error, ValueError):
        return ""
    return text if text.isprintable() else ""
