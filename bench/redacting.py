"""What redaction costs: CPU per KB of new text, whole and as a stream, with few and with many registered secrets.

The text is made up: prose, mail in JSON and a log, a few of them holding what is found. Nothing of it is read twice.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.measure import Size
from stanchion.guard.redact import Redactor, StreamRedactor
from stanchion.guard.secret import Secrets

REGISTERED = (0, 10, 200)
DELTA_CHARS = 20
_WORDS = [
    "the",
    "order",
    "was",
    "shipped",
    "on",
    "Tuesday",
    "and",
    "should",
    "reach",
    "you",
    "before",
    "the",
    "weekend",
    "please",
    "tell",
    "me",
    "the",
    "token",
    "count",
    "or",
    "key",
    "of",
    "the",
    "box",
    "if",
    "it",
    "did",
    "not",
    "because",
    "then",
    "we",
    "look",
    "for",
    "it",
    "with",
    "the",
    "carrier",
    "whose",
    "name",
    "is",
    "on",
    "the",
    "label",
    "of",
    "the",
    "parcel",
]


async def redact(size: Size, _folder: Path) -> dict[str, Any]:
    """Redact texts, and give the CPU per KB in milliseconds."""
    return await asyncio.to_thread(redacted, 400 if size.short else 3_000)


def redacted(count: int) -> dict[str, Any]:
    """Redact so many texts of about 1 KB with each number of secrets."""
    made: dict[str, Any] = {"texts": count}
    for registered in REGISTERED:
        chance = random.Random(registered)
        secrets = Secrets()
        for number in range(registered):
            secrets.add(f"S{number}", f"{chance.getrandbits(256):064x}"[:40] + f"+{number}")
        texts = [_text(chance, number) for number in range(count)]
        for name, redactor in (("", Redactor(secrets)), ("_pii", Redactor(secrets, pii=True))):
            made[f"whole_{registered}{name}"] = _ms_per_kb(texts, redactor.text)
        made[f"stream_{registered}"] = _ms_per_kb(texts, lambda text: _streamed(Redactor(secrets), text))  # noqa: B023
    return made


def _streamed(redactor: Redactor, text: str) -> str:
    stream = StreamRedactor(redactor)
    pieces = [stream.feed(text[at : at + DELTA_CHARS]) for at in range(0, len(text), DELTA_CHARS)]
    return "".join((*pieces, stream.end()))


def _ms_per_kb(texts: list[str], redacted: Callable[[str], str]) -> float:
    redacted("what is compiled at first: " + texts[0])
    began = time.process_time()
    for text in texts:
        redacted(text)
    return round((time.process_time() - began) * 1000 / (sum(map(len, texts)) / 1024), 4)


def _text(chance: random.Random, number: int) -> str:
    prose = " ".join(chance.choices(_WORDS, k=80))
    mails = [
        {
            "id": f"msg_{chance.getrandbits(48):012x}",
            "from": f"user{chance.randrange(999)}@mail.example",
            "size": 7 * number,
        }
        for _ in range(4)
    ]
    line = (
        f"2026-12-01T02:20:{number % 60:02} INFO GET https://shop.example/orders/{number}?page=2 200 {number % 97} ms"
    )
    held = f"password=Tr0ub4dor&{number}xyz" if number % 50 == 0 else ""
    return f"{prose}.\n{json.dumps(mails)}\n{line}\n{held}"
