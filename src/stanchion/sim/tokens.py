"""Count tokens: one simulated rule, exact and the same on every wire.

The rule, which is *not* any vendor's tokenizer: a text of n UTF-8 bytes is ceil(n / 4) tokens; JSON (a schema, a tool's
arguments, a block that is not text) counts as its canonical form, keys sorted and no blanks; a picture, document or
sound counts `MEDIA_TOKENS` whatever its size. A request is a sequence of `Piece`s in the order providers cache them
(tools, system, messages) and costs the sum of its pieces, so the cost of every prefix is known exactly.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any, Literal

import msgspec

MEDIA_TOKENS = 1_000

PieceKind = Literal["tool", "system", "message"]

_canonical = msgspec.json.Encoder(order="sorted")


class Piece(msgspec.Struct, frozen=True):
    """One block of a request: where it stands, what it costs, and a digest that identifies its content."""

    kind: PieceKind
    tokens: int
    digest: bytes
    cache_ttl: str = ""
    """The life a cache breakpoint after this block asks for ("5m", "1h"), or "": no breakpoint."""


def count_bytes(size: int) -> int:
    """Count the tokens of a text of `size` UTF-8 bytes."""
    return -(-size // 4)


def count_text(text: str) -> int:
    """Count the tokens of a text."""
    return count_bytes(len(text.encode()))


def canonical(value: Any) -> bytes:
    """Encode JSON in its one canonical form."""
    return _canonical.encode(value)


def text_piece(kind: PieceKind, role: str, text: str, cache_ttl: str = "") -> Piece:
    """Make the piece of a text."""
    data = text.encode()
    return Piece(kind, count_bytes(len(data)), _digest(kind, role, data), cache_ttl)


def json_piece(kind: PieceKind, role: str, value: Any, cache_ttl: str = "") -> Piece:
    """Make the piece of a block that is counted as JSON."""
    data = canonical(value)
    return Piece(kind, count_bytes(len(data)), _digest(kind, role, data), cache_ttl)


def media_piece(role: str, value: Any, cache_ttl: str = "") -> Piece:
    """Make the piece of a picture, document or sound."""
    return Piece("message", MEDIA_TOKENS, _digest("message", role, canonical(value)), cache_ttl)


def total(pieces: Iterable[Piece]) -> int:
    """Add up the tokens of pieces."""
    return sum(piece.tokens for piece in pieces)


def _digest(kind: str, role: str, data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16, person=f"{kind[:7]}/{role[:8]}".encode()).digest()
