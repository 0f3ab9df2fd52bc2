"""The embedding endpoint of the simulated provider: a text's vector is its words, each hashed to a direction, added up.

    POST /v1/embeddings    {"model": "text-embedding-3-small", "input": "text" or a list of texts, "dimensions": 256}

Texts with words in common are near each other, and the same text always has the same vector. It stands in the bill with its tokens, at
the price of its model.
"""

from __future__ import annotations

import base64
import hashlib
import math
import struct
from typing import Any, Literal

import msgspec

from stanchion.core.bm25 import terms
from stanchion.sim.exchange import Refusal

DIMENSIONS = 1_536
MOST_DIMENSIONS = 4_096


class _Request(msgspec.Struct):
    input: str | list[str]
    model: str = "text-embedding-3-small"
    dimensions: int = DIMENSIONS
    encoding_format: Literal["float", "base64"] = "float"


class Answer(msgspec.Struct):
    """What is answered, and what is billed for it."""

    model: str
    tokens: int
    body: dict[str, Any]


def answer(body: bytes) -> Answer:
    """Answer a request. Raises `Refusal`."""
    try:
        asked = msgspec.json.decode(body, type=_Request)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Refusal(f"this is no embedding request: {error}", status=400) from None
    texts = [asked.input] if isinstance(asked.input, str) else asked.input
    if not texts or not all(texts):
        raise Refusal("input must not be empty", status=400)
    if not 1 <= asked.dimensions <= MOST_DIMENSIONS:
        raise Refusal(f"dimensions must be from 1 to {MOST_DIMENSIONS}", status=400)
    tokens = sum(-(-len(text.encode()) // 4) for text in texts)
    made = [vector(text, asked.dimensions) for text in texts]
    data = [
        {"object": "embedding", "index": place, "embedding": _encoded(one, asked.encoding_format)}
        for place, one in enumerate(made)
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return Answer(asked.model, tokens, {"object": "list", "data": data, "model": asked.model, "usage": usage})


def vector(text: str, dimensions: int) -> list[float]:
    """Embed a text."""
    sums = [0.0] * dimensions
    for term in terms(text):
        digest = hashlib.sha256(term.encode()).digest()
        for at in range(0, 16, 4):  # four places for each, so that two words seldom meet in all of them
            place = int.from_bytes(digest[at : at + 4])
            sums[place % dimensions] += 1.0 if digest[16 + at // 4] & 1 else -1.0
    length = math.sqrt(sum(x * x for x in sums))
    return [x / length for x in sums] if length else [1.0, *sums[1:]]


def _encoded(values: list[float], form: str) -> list[float] | str:
    return base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode() if form == "base64" else values
