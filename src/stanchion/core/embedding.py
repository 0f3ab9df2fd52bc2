"""What gives texts their vectors: at what price, what it may cost at most, and how vectors stand in a journal. Pure.

A vector says most of what its text says, so it is content like the text: sealed under the same key, and erased with it. It is found
again by its text, so that whoever writes a fact down needs to know nothing of the order in which vectors were asked for.
"""

from __future__ import annotations

import base64
import hashlib
import unicodedata
from collections.abc import Iterable, Sequence

import msgspec

from stanchion.core.cosine import packed
from stanchion.core.message import RUNTIME, Media, Part
from stanchion.core.money import Price, bound

TEXT_TOKENS = 8
"""At most so many tokens does a model put around a text."""
MIME = "application/vnd.stanchion.vector"
"""A packed vector, as `core.cosine` packs it."""


class EmbeddingModel(msgspec.Struct, frozen=True, omit_defaults=True):
    """The model that gives memory its vectors. Part of an agent's bundle."""

    name: str
    """As "provider:model"; of an embedder of one's own what it calls itself."""
    price: Price

    @property
    def is_free(self) -> bool:
        """Whether nothing is ever billed."""
        return not self.price.input and not self.price.tiers


def bound_tokens(texts: Iterable[str]) -> int:
    """Bound the tokens of texts: no tokenizer makes two of a byte. Some write a text out first, ligatures as the letters they join."""
    return sum(
        max(len(text.encode()), len(unicodedata.normalize("NFKC", text).encode())) + TEXT_TOKENS for text in texts
    )


def reservation(model: EmbeddingModel, tokens: int) -> int:
    """What texts of so many tokens cost at most (nano-dollars)."""
    return bound(model.price, tokens, 0, cache_writes="none")


def stored(texts: Sequence[str], vectors: Sequence[Sequence[float]]) -> tuple[Part, ...]:
    """Make the parts in which the vectors of texts stand."""
    return tuple(
        Media(MIME, RUNTIME, data=base64.b64encode(packed(vector)).decode(), name=_named(text))
        for text, vector in zip(texts, vectors, strict=True)
    )


def vector_of(text: str, parts: Iterable[Part]) -> bytes:
    """Find the packed vector of a text; empty: it is not there, or was erased."""
    name = _named(text)
    found = (part.data for part in parts if isinstance(part, Media) and part.mime == MIME and part.name == name)
    return base64.b64decode(next(found, ""))


def _named(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
