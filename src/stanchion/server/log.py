"""The log: a record is one line, as text or as JSON. No header, query or body of a request is ever in it."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, Literal

_PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}
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


def configure(form: Literal["text", "json", "off"]) -> None:
    """Send our records and uvicorn's warnings to standard error. A second call replaces the first."""
    if form == "off":
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Line(form))
    handler.addFilter(_is_news)
    for name, level in (("stanchion", logging.INFO), ("uvicorn", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(level)
        logger.propagate = False
