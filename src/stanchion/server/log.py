"""The log: a record is one line, as text or as JSON. No header, query or body of a request is ever in it.

While a database is away each of a worker's loops says so twice a second; of such a line one in `AGAIN_S` is let through.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, Literal

from stanchion.core.errors import JournalError

_PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}
AGAIN_S = 10.0
"""For how long a line about a store that failed is not said again; the next says how often it was left out."""
_MOST_KEPT = 1_000
_LEVELS = (
    ("stanchion", logging.INFO),
    ("uvicorn", logging.WARNING),
    ("asyncpg", logging.CRITICAL + 1),  # a traceback for each connection that fails: our lines say that it did
)
_UNFINISHED = "ASGI callable returned without completing response."


class Line(logging.Formatter):
    """Writes a record as one line; what was given as `extra` stands behind the message."""

    def __init__(self, form: Literal["text", "json"]) -> None:
        super().__init__()
        self._form = form

    def format(self, record: logging.LogRecord) -> str:
        """Write a record."""
        extra = {name: value for name, value in vars(record).items() if name not in _PLAIN}
        if record.exc_info and record.exc_info[0] is not None:
            extra["trace"] = self.formatException(record.exc_info)
        elif record.exc_text:
            extra["trace"] = record.exc_text
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        message = record.getMessage()
        if self._form == "json":
            facts: dict[str, Any] = {"at": at, "level": record.levelname.lower(), "logger": record.name}
            return json.dumps(facts | {"message": message} | extra, default=str)
        said = "".join(f" {name}={_short(value)}" for name, value in extra.items())
        return f"{at} {record.levelname:<7} {record.name}: {_one_line(message)}{said}"


def _short(value: object) -> str:
    text = str(value)
    return json.dumps(text) if not text.isprintable() or " " in text or not text else text


def _one_line(text: str) -> str:
    return text if text.isprintable() else json.dumps(text)[1:-1]


def _is_news(record: logging.LogRecord) -> bool:
    """Drop what uvicorn says of requests that were ended on purpose: a client that takes nothing, the end of the grace."""
    cancelled = record.exc_info is not None and isinstance(record.exc_info[1], asyncio.CancelledError)
    return not cancelled and record.getMessage() != _UNFINISHED


class Again(logging.Filter):
    """Leaves out a line about a store's failure that was said just now; a request's, which has an id, is always said."""

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[tuple[str, ...], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether it is news; what was left out since is counted in the next, as `left_out`."""
        words = record.args if isinstance(record.args, tuple) else ()
        if hasattr(record, "id") or not any(isinstance(word, JournalError) for word in words):
            return True
        key = (record.name, str(record.msg), *(word for word in words if isinstance(word, str)))
        at, left_out = self._said.get(key, (0.0, 0))
        if 0 <= record.created - at < AGAIN_S:
            self._said[key] = (at, left_out + 1)
            return False
        if len(self._said) >= _MOST_KEPT:
            self._said.clear()
        self._said[key] = (record.created, 0)
        if left_out:
            record.left_out = left_out
        return True


def configure(form: Literal["text", "json", "off"]) -> None:
    """Send our records and uvicorn's warnings to standard error, asyncpg's nowhere. A second call replaces the first."""
    if form == "off":
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Line(form))
    handler.addFilter(_is_news)
    handler.addFilter(Again())
    for name, level in _LEVELS:
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(level)
        logger.propagate = False
