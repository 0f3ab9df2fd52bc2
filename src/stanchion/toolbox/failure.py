"""What an exception of a tool means: was the effect done, and can it help to try again (invariant I2).

    ToolError                       not done; not again unless it says so           (NotDone: again)
    timeout, or cut in mid-answer   it may have been done; again if that is safe
    HTTP 5xx                        it may have been done; again if that is safe
    HTTP 408, 429, never connected  not done; again if that is safe
    other HTTP 4xx                  not done; not again
    anything else                   it may have been done; not again

"May have been done" is in doubt for whatever is not a read, once the function was called at all. For a non-read without
a key every foreign exception is: it tells of one request, and not what the function did before it. Only `ToolError` and
`NotDone` say that nothing was done.
Exceptions of HTTP clients are known by their form, so that none has to be installed.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from dataclasses import replace
from email.utils import parsedate_to_datetime
from typing import Any, cast

from stanchion.core.bundle import ToolSpec
from stanchion.core.errors import CredentialError, NotDone, ToolError, ToolTimeout
from stanchion.toolbox.answer import Failure

_CLIENTS = ("aiohttp", "httpcore", "httpx", "httpx2", "requests", "urllib3")
_NEVER_SENT = frozenset(
    {
        "ConnectError",  # httpx, httpcore
        "ConnectTimeout",  # httpx, httpcore, requests
        "PoolTimeout",
        "ClientConnectorError",  # aiohttp
        "ConnectionTimeoutError",  # aiohttp
        "NewConnectionError",  # urllib3
        "ConnectTimeoutError",
    }
)
_CUT = frozenset(
    {
        "TransportError",  # httpx
        "NetworkError",  # httpcore
        "ProtocolError",
        "ReadTimeout",
        "WriteTimeout",
        "ClientConnectionError",  # aiohttp
        "ClientPayloadError",
        "ConnectionError",  # requests
        "Timeout",
        "ChunkedEncodingError",
    }
)
_MAX_RETRY_AFTER_S = 86_400.0
_MAX_CHARS = 4_000
"""Of an exception's message: some hold a whole page."""


def timed_out(spec: ToolSpec, *, released: bool) -> Failure:
    """Say that a call did not answer in time. `released`: the function had been called."""
    if not released:
        return Failure("tool_busy", f"{spec.name} could not be started within {spec.timeout_s:g} s.", retryable=True)
    text = f"{spec.name} did not answer within {spec.timeout_s:g} s."
    return Failure("tool_timeout", text, in_doubt=spec.effect != "read", retryable=True)


def failure_of(error: BaseException, spec: ToolSpec, *, released: bool) -> Failure:
    """Say what an exception means. `released`: the function had been called."""
    doubt = spec.effect != "read" and released
    again = spec.effect == "read" or spec.keyed or not released
    error = _sole(error)
    match error:
        case NotDone():
            return Failure(error.code, say(error), retryable=True, retry_after_s=error.retry_after_s)
        case ToolTimeout():
            return Failure(error.code, say(error), in_doubt=doubt, retryable=True)
        case ToolError():
            return Failure(error.code, say(error), retryable=error.retryable)
        case CredentialError() if not released:
            return Failure(error.code, say(error), retryable=error.retryable)
        case _:
            pass
    failure = _foreign_failure(error, doubt=doubt, again=again)
    if doubt and not spec.keyed and not failure.in_doubt:
        return replace(failure, in_doubt=True, retryable=False)
    return failure


def _foreign_failure(error: BaseException, *, doubt: bool, again: bool) -> Failure:
    status = _status_of(error)
    if status is not None:
        return _http_failure(error, status, doubt=doubt, again=again)
    text = f"{type(error).__name__}: {say(error)}"
    if _never_sent(error):
        return Failure("tool_unreachable", text, retryable=again)
    if _is_cut(error):
        return Failure("tool_cut", text, in_doubt=doubt, retryable=True)
    return Failure("tool_crashed", text, in_doubt=doubt)


def _http_failure(error: BaseException, status: int, *, doubt: bool, again: bool) -> Failure:
    text = f"HTTP {status}: {say(error)}"
    if status in (408, 429):
        return Failure(f"http_{status}", text, retryable=again, retry_after_s=_retry_after_s(error))
    if status >= 500:
        return Failure(f"http_{status}", text, in_doubt=doubt, retryable=True, retry_after_s=_retry_after_s(error))
    return Failure(f"http_{status}", text)


def say(error: BaseException) -> str:
    """Say an exception in words: its message, or its type where it has none or cannot say it."""
    try:
        text = str(error) or type(error).__name__
    except Exception:
        return type(error).__name__
    return text if len(text) <= _MAX_CHARS else f"{text[:_MAX_CHARS]}.."


def _sole(error: BaseException) -> BaseException:
    """Take a lone exception out of its groups."""
    while isinstance(error, BaseExceptionGroup):
        inner = cast("tuple[BaseException, ...]", error.exceptions)
        if len(inner) != 1:
            return cast("BaseException", error)
        error = inner[0]
    return error


def _attribute(value: Any, name: str) -> Any:
    try:
        return getattr(value, name, None)
    except Exception:  # a property of a foreign exception may fail
        return None


def _status_of(error: BaseException) -> int | None:
    """Read the HTTP status of an error answer that an exception carries."""
    response = _attribute(error, "response")
    for owner, name in ((error, "status_code"), (error, "status"), (response, "status_code"), (response, "status")):
        status = _attribute(owner, name)
        if isinstance(status, int) and 400 <= status <= 599:
            return int(status)
    return None


def _retry_after_s(error: BaseException) -> float | None:
    for owner in (error, _attribute(error, "response")):
        headers = _attribute(owner, "headers")
        if headers is None:
            continue
        with contextlib.suppress(Exception):
            said = headers.get("Retry-After") or headers.get("retry-after")
            if said:
                return min(max(_seconds(str(said)), 0.0), _MAX_RETRY_AFTER_S)
    return None


def _seconds(said: str) -> float:
    """Read a Retry-After: a number of seconds or a date (RFC 9110, 10.2.3)."""
    if said.strip().isdecimal():
        return float(said)
    return parsedate_to_datetime(said).timestamp() - time.time()


def _client_names(error: BaseException) -> set[str]:
    classes = type(error).__mro__
    return {found.__name__ for found in classes if found.__module__.split(".", 1)[0] in _CLIENTS}


def _never_sent(error: BaseException) -> bool:
    reason = _attribute(error, "reason")  # urllib.error.URLError
    return (
        isinstance(error, ConnectionRefusedError | socket.gaierror)
        or isinstance(reason, ConnectionRefusedError | socket.gaierror)
        or not _NEVER_SENT.isdisjoint(_client_names(error))
    )


def _is_cut(error: BaseException) -> bool:
    reason = _attribute(error, "reason")
    cut = ConnectionError | TimeoutError | asyncio.IncompleteReadError
    return isinstance(error, cut) or isinstance(reason, cut) or not _CUT.isdisjoint(_client_names(error))
