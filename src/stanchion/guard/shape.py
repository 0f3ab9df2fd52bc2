"""The shapes of exfiltration inside what is sent: text that was encoded so that nobody reads it, and images that call home."""

from __future__ import annotations

import re

from stanchion.guard.values import words_of
from stanchion.guard.veiled import veiled

_BASE64 = re.compile(r"(?<![A-Za-z0-9+/=_-])[A-Za-z0-9+/_-]{48,}={0,2}(?![A-Za-z0-9+/=_-])")
_HEX = re.compile(r"(?<![0-9A-Fa-f])(?:[0-9A-Fa-f]{2}){32,}(?![0-9A-Fa-f])")
_PERCENT = re.compile(r"(?:%[0-9A-Fa-f]{2}){12,}")
_IMAGE = re.compile(
    r"!\[[^\]]*\]\(\s*<?[^)\s>]+[?&][^)\s>]*>?[^)]*\)|<img\b[^>]*\bsrc\s*=\s*[\"']?[^\"'\s>]+\?[^>]*>", re.IGNORECASE
)
_HIDDEN = re.compile("[\U000e0000-\U000e007f\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]{4,}")


def shapes_in(text: str) -> tuple[str, str] | None:
    """Name the first shape that a text has, with words for people; None: it has none."""
    if len(text) < 8:
        return None
    if ("](" in text or "<img" in text.casefold()) and _IMAGE.search(text):
        return "image_query", "an image whose address carries data"
    if not text.isascii() and _HIDDEN.search(text):
        return "hidden", "characters that nobody sees"
    long = [word for word in words_of(text) if len(word) >= 36]  # none of these holds a space
    if any(map(_PERCENT.search, long)):
        return "percent", "a long text in URL encoding"
    if any(map(_HEX.search, long)):
        return "hex", "a long text in hexadecimal"
    if any(_mixed(found[0]) for word in long for found in _BASE64.finditer(word)):
        return "base64", "a long text in base64"
    return veiled(text)


def _mixed(text: str) -> bool:
    """Prose and names have one case or few digits; encoded bytes have all kinds of characters."""
    upper = sum(map(str.isupper, text))
    digits = sum(map(str.isdigit, text))
    return upper > len(text) / 8 and upper < len(text) * 7 / 8 and digits > len(text) / 24
