"""What a provider's failure means: HTTP statuses, error bodies and error events, as `ModelError` with one taxonomy.

The status is the coarse class; the provider's own word (`type`, `code`) is finer and wins; a few cases are told only by
the message (a prompt that is too long). Facts are from the providers' error pages: Anthropic "Errors", OpenAI "Error
codes", and what compatible servers send.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final, cast

import msgspec

from stanchion.core.errors import ModelError, ModelErrorCode
from stanchion.core.message import MODEL, Part, Text, Usage

RETRYABLE: Final[frozenset[ModelErrorCode]] = frozenset(
    (
        "connect",
        "timeout_connect",
        "timeout_first_byte",
        "timeout_idle",
        "timeout_total",
        "cut",
        "early_end",
        "garbled",
        "rate_limited",
        "overloaded",
        "server_error",
    )
)

UNBILLED: Final[frozenset[ModelErrorCode]] = frozenset(
    (
        "connect",
        "timeout_connect",
        "rate_limited",
        "bad_request",
        "context_overflow",
        "auth",
        "not_found",
        "quota",
        "unsupported",
    )
)
"""Failures for which no provider bills: the request was refused or never left."""
MAX_MESSAGE: Final = 2000
MAX_RETRY_AFTER_S: Final = 86_400.0
"""No wish to wait longer is taken: a wrong clock or a broken proxy would park a run for years."""

_BY_STATUS: Final[Mapping[int, ModelErrorCode]] = {
    401: "auth",
    402: "quota",
    403: "auth",
    404: "not_found",
    408: "server_error",
    409: "server_error",
    425: "server_error",
    429: "rate_limited",
    503: "overloaded",
    529: "overloaded",
}

_BY_WORD: Final[Mapping[str, ModelErrorCode]] = {
    # Anthropic's error types
    "overloaded_error": "overloaded",
    "rate_limit_error": "rate_limited",
    "api_error": "server_error",
    "timeout_error": "server_error",
    "authentication_error": "auth",
    "permission_error": "auth",
    "not_found_error": "not_found",
    "billing_error": "quota",
    "request_too_large": "bad_request",
    # OpenAI's types and codes, and those of compatible servers
    "context_length_exceeded": "context_overflow",
    "string_above_max_length": "context_overflow",
    "insufficient_quota": "quota",
    "billing_hard_limit_reached": "quota",
    "billing_not_active": "quota",
    "insufficient_credits": "quota",
    "model_not_found": "not_found",
    "deploymentnotfound": "not_found",
    "rate_limit_exceeded": "rate_limited",
    "tokens": "rate_limited",
    "requests": "rate_limited",
    "server_error": "server_error",
    "internal_error": "server_error",
    "internal_server_error": "server_error",
    "server_is_overloaded": "overloaded",
    "slow_down": "overloaded",
    "service_unavailable": "overloaded",
    "engine_overloaded": "overloaded",
    "engine_overloaded_error": "overloaded",
    "invalid_api_key": "auth",
    "content_filter": "content_filter",
    "content_policy_violation": "content_filter",
    "responsibleaipolicyviolation": "content_filter",
    "tool_use_failed": "garbled",
    "invalid_prompt": "bad_request",
}

_OVERFLOW: Final = re.compile(
    r"prompt is too long|exceed(?:s|ed)? (?:the )?(?:model'?s? )?(?:maximum )?context|context (?:length|window|limit)"
    r"|maximum context|input is too long|too many (?:input )?tokens|reduce the length of the messages",
    re.IGNORECASE,
)
_QUOTA: Final = re.compile(
    r"exceeded your current quota|credit balance is too low|insufficient (?:credits|balance|funds)", re.IGNORECASE
)


def is_unbilled(error: ModelError) -> bool:
    """Whether a failed call is certainly not billed."""
    return not error.sent or error.code in UNBILLED or (error.code == "overloaded" and error.status >= 400)


def failure(
    code: ModelErrorCode,
    message: str,
    *,
    status: int = 0,
    retry_after_s: float | None = None,
    partial: tuple[Part, ...] = (),
    usage: Usage | None = None,
    sent: bool = True,
) -> ModelError:
    """A `ModelError`, retryable by its code."""
    return ModelError(
        message[:MAX_MESSAGE],
        code=code,
        retryable=code in RETRYABLE,
        status=status,
        retry_after_s=retry_after_s,
        partial=partial,
        usage=usage,
        sent=sent,
    )


def unsupported(wire: str, what: str) -> ModelError:
    """The wire cannot say this; nothing was sent."""
    return failure("unsupported", f"{wire} cannot say {what}; leave it out or choose another model", sent=False)


def garbled(wire: str, what: str) -> ModelError:
    """What came is not of the wire's form."""
    return failure("garbled", f"{wire}: {what}; check that the base URL is that of this API")


def http_failure(wire: str, status: int, headers: Mapping[str, str], body: bytes) -> ModelError:
    """The error of a response whose status is not 200."""
    words, message, held = _read_error_body(body)
    code = _code(status, words, message)
    return failure(
        code,
        f"{wire} answered {status} ({', '.join(words) or code}): {message or 'no message'}",
        status=status,
        retry_after_s=retry_after_s(headers),
        partial=held,
    )


def event_failure(wire: str, error: Any, *, partial: tuple[Part, ...], usage: Usage | None) -> ModelError:
    """The error of an event or a body inside a 200."""
    words, message = _words(error)
    status = next((int(word) for word in words if word.isdecimal() and 400 <= int(word) < 600), 500)
    code = _code(status, words, message)
    text = f"{wire} failed inside a 200 ({', '.join(words) or code}): {message or 'no message'}"
    return failure(code, text, status=200, partial=partial, usage=usage)


def _code(status: int, words: list[str], message: str) -> ModelErrorCode:
    found: ModelErrorCode | None = next((code for word in words if (code := _BY_WORD.get(word.lower()))), None)
    if (found is None or found == "rate_limited") and _QUOTA.search(message):
        return "quota"
    if status < 500 and status != 429 and (found is None or found == "bad_request") and _OVERFLOW.search(message):
        return "context_overflow"
    if found is not None:
        return found
    by_status = _BY_STATUS.get(status)
    if by_status is not None:
        return by_status
    return "server_error" if status >= 500 else "bad_request"


def _read_error_body(body: bytes) -> tuple[list[str], str, tuple[Part, ...]]:
    """Words and message of an error body, and what the model had written (Groq); an unreadable body is quoted."""
    try:
        decoded: Any = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return [], body[:300].decode("utf-8", "replace").strip(), ()
    listed = cast("list[Any]", decoded) if isinstance(decoded, list) else []
    error: Any = listed[0] if listed else cast("Any", decoded)
    if isinstance(error, dict):
        fields = cast("dict[str, Any]", error)
        error = fields.get("error") or fields.get("detail") or fields
    words, message = _words(error)
    held = cast("dict[str, Any]", error).get("failed_generation") if isinstance(error, dict) else None
    return words, message, (Text(held, MODEL),) if isinstance(held, str) and held else ()


def _words(error: Any) -> tuple[list[str], str]:
    """The provider's words for a failure, finest first, and its message."""
    if not isinstance(error, dict):
        return [], str(error) if error else ""
    fields = cast("dict[str, Any]", error)
    nested = fields.get("error")
    if isinstance(nested, dict) and "message" not in fields:
        fields = cast("dict[str, Any]", nested)
    words = [str(fields[key]) for key in ("code", "type", "status") if fields.get(key) not in (None, "", "error")]
    message = fields.get("message") or fields.get("msg") or ""
    metadata = fields.get("metadata")
    if isinstance(metadata, dict) and (raw := cast("dict[str, Any]", metadata).get("raw")):
        message = f"{message}: {raw}"
    return words, message if isinstance(message, str) else msgspec.json.encode(message).decode()


def retry_after_s(headers: Mapping[str, str], *, now: datetime | None = None) -> float | None:
    """Seconds the provider asks to wait: `retry-after-ms`, `retry-after` (seconds or a date), `x-ratelimit-reset-*`."""
    wish_s = _wish_s(headers, now or datetime.now(UTC))
    return None if wish_s is None else min(max(0.0, wish_s), MAX_RETRY_AFTER_S)


def _wish_s(headers: Mapping[str, str], now: datetime) -> float | None:
    if (ms := _number(headers.get("retry-after-ms"))) is not None:
        return ms / 1000
    value = headers.get("retry-after")
    if value is None:
        return _reset_s(headers)
    if (seconds := _number(value)) is not None:
        return seconds
    try:
        at = parsedate_to_datetime(value)
    except ValueError:
        return None
    return (at.replace(tzinfo=at.tzinfo or UTC) - now).total_seconds()


def _reset_s(headers: Mapping[str, str]) -> float | None:
    """The longest reset of a limit that has nothing left (`6m0s`, `230ms`, `12`)."""
    waits: list[float] = []
    for kind in ("requests", "tokens"):
        if _number(headers.get(f"x-ratelimit-remaining-{kind}")) == 0:
            wait = _duration_s(headers.get(f"x-ratelimit-reset-{kind}", ""))
            if wait is not None:
                waits.append(wait)
    return max(waits, default=None)


_UNIT_S: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")


def _duration_s(text: str) -> float | None:
    if (seconds := _number(text)) is not None:
        return seconds
    pieces = _DURATION.findall(text)
    return sum(float(number) * _UNIT_S[unit] for number, unit in pieces) if pieces else None


def _number(text: str | None) -> float | None:
    try:
        number = float(text) if text is not None else None
    except ValueError:
        return None
    return number if number is not None and 0 <= number < 1e9 else None
