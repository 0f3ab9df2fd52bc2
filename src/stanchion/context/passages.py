"""Texts cut into passages, and the passages that bear on a question: what a request with a brief context is made of. Pure.

A passage is a paragraph, or so many sentences of one as fit. They are ranked by BM25 (`core.bm25`): those of a fixed text (an identity),
whose index is made once, and those of a conversation. Two indexes weigh the same rare term differently, for one has more texts; so each
one's scores are divided by what it gives to a term that stands in a single text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache

from stanchion.core.bm25 import Index

CHARS = 400
"""Of a passage, about: a hundred tokens."""
MOST = 64
"""Passages that are looked at, best first."""
_PARAGRAPH = re.compile(r"\n\s*\n")
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n")


@lru_cache(maxsize=4_096)
def passages(text: str) -> tuple[str, ...]:
    """Cut a text into passages, at paragraphs and ends of sentences; a sentence that is longer than one is cut anywhere."""
    return tuple(found for paragraph in _PARAGRAPH.split(text) for found in _packed(paragraph.strip()))


def _packed(paragraph: str) -> Iterator[str]:
    if len(paragraph) <= CHARS:
        if paragraph:
            yield paragraph
        return
    packed = ""
    for sentence in _SENTENCE.split(paragraph):
        for at in range(0, max(len(sentence), 1), CHARS):
            piece = sentence[at : at + CHARS]
            if packed and len(packed) + 1 + len(piece) > CHARS:
                yield packed
                packed = ""
            packed = f"{packed} {piece}" if packed else piece
    if packed:
        yield packed


def questions_in(text: str) -> str:
    """Take the questions out of a text: the sentences that end with a question mark. What else stands with them says less of what is asked."""
    return " ".join(found for found in _SENTENCE.split(text) if found.rstrip("\"')]").endswith(("?", "\uff1f")))


@lru_cache(maxsize=64)
def _fixed(text: str) -> Index:
    """The index of a text that many requests have in common."""
    return Index(passages(text))


class Shelf:
    """Passages of a fixed text and of what was said, to be asked for. `said`: cut already."""

    def __init__(self, fixed: str, said: Sequence[str]) -> None:
        self._indexes = (_fixed(fixed), Index(said))

    def ranked(self, query: str) -> list[tuple[int, int]]:
        """Rank passages by how they bear on a question, best first: (0, number) of those of the fixed text, (1, number) of what was said."""
        found: list[tuple[float, int, int]] = []
        for place, index in enumerate(self._indexes):
            unit = math.log(1 + (len(index) - 0.5) / 1.5) if len(index) else 1.0
            found += [(-score / unit, place, number) for number, score in index.search(query, MOST)]
        return [(place, number) for _, place, number in sorted(found)[:MOST]]
