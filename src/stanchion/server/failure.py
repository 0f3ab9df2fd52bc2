"""Every error in one form: `{"error": {"code", "message", "field", "retryable"}}`, with an `id` where the fault is ours.

A client is told what to correct and never how we are built: no traceback, no class name. What is our fault is logged
under the id that the client was given.
"""

from __future__ import annotations

import difflib
import logging
import secrets
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, cast

import msgspec
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from stanchion.core.errors import (
    Conflict,
    InputError,
    JournalError,
    NotFound,
    QueueFull,
    StanchionError,
    Unauthorized,
)

log = logging.getLogger("stanchion.server")

_BY_CODE = {
    "draining": 503,
    "idempotency_mismatch": 422,
    "forbidden": 403,
    "malformed": 400,
    "bad_query": 400,
    "body_timeout": 408,
    "body_too_large": 413,
    "unsupported_media_type": 415,
    "too_many_streams": 429,
    "budget_exhausted": 429,
    "queue_full": 429,
    "not_driving": 503,
    "credential_refused": 409,
    "credential_unavailable": 503,
}
_NO_FAULT = frozenset({"draining", "not_driving"})


def status_of(error: StanchionError) -> int:
    """Find the HTTP status of an error: by its code, or else by its class."""
    if (status := _BY_CODE.get(error.code)) is not None:
        return status
    match error:
        case Unauthorized():
            return 401
        case NotFound():
            return 404
        case Conflict():
            return 409
        case InputError():
            return 422
        case JournalError():
            return 503
        case _:
            return 500


def failure(
    status: int, code: str, message: str, *, field: str = "", retryable: bool = False, id: str = "",
    headers: Mapping[str, str] | None = None, more: Mapping[str, Any] | None = None,
) -> Response:  # fmt: skip
    """Make the response of an error."""
    said: dict[str, Any] = {"code": code, "message": message, "field": field, "retryable": retryable}
    said |= more or {}
    if id:
        said["id"] = id
    extra = dict(headers or {})
    if status == 401:
        extra["www-authenticate"] = "Bearer"
    if retryable and status in (429, 503):
        extra.setdefault("retry-after", "2")
    return Response(msgspec.json.encode({"error": said}), status, extra, "application/json")


def failure_of(error: Exception, *, at: str) -> Response:
    """Make the response of any exception; one that is our fault is logged under a new id."""
    if isinstance(error, StanchionError):
        status = status_of(error)
        retryable = error.retryable or status == 503
        field = error.field if isinstance(error, InputError) else ""
        known = log_fault(error, at=at) if status >= 500 and error.code not in _NO_FAULT else ""
        said = str(error)
        if isinstance(error, JournalError):  # its own words are the operator's: paths, hosts
            said = f"the store cannot do this now; try again, or ask the operator, whose log says why under {known}"
        if isinstance(error, QueueFull):
            more = {name: getattr(error, name) for name in ("bound", "limit", "position", "retry_after_s")}
            wait = {"retry-after": str(error.retry_after_s)}
            return failure(status, error.code, said, retryable=True, headers=wait, more=more)
        return failure(status, error.code, said, field=field, retryable=retryable, id=known)
    known = log_fault(error, at=at)
    return failure(500, "internal", f"something failed in the server; its log says what, under {known}", id=known)


def log_fault(error: Exception, *, at: str) -> str:
    """Log an exception that is our fault, and return the id it is found by.

    A store that is full or away is no bug, and may fail a thousand requests a second: a line says it, without a traceback.
    """
    name = f"err_{secrets.token_hex(8)}"
    if isinstance(error, JournalError) and error.retryable:
        log.error("%s failed: %s", at, error, extra={"id": name})
    else:
        log.error("%s failed: %s", at, type(error).__name__, exc_info=error, extra={"id": name})
    return name


def place_of(request: Request) -> str:
    """Name a request in a log line: its method and path, without the query."""
    return f"{request.method} {request.url.path}"


# --- what the framework refuses -----------------------------------------------------------------------------------------


def field_path(location: Sequence[str | int], data: object, *, missing: bool = False) -> str:
    """Write where in a document an error is (`input[2].mime`), without the steps that are only in the schema.

    Those are the names of a union's members: what is not in the document, and a part's own type behind its index.
    """
    path, here, before = "", data, None
    for step in location:
        if isinstance(step, int):
            items = cast("list[object]", here) if isinstance(here, list) else []
            path, here = f"{path}[{step}]", items[step] if step < len(items) else None
        elif isinstance(here, dict) and not (isinstance(before, int) and step == cast("Any", here).get("type")):
            inside = cast("dict[str, object]", here)
            if step in inside or missing:
                path, here = f"{path}.{step}", inside.get(step)
        before = step
    return path.lstrip(".")


def refusal(errors: Sequence[Any], data: object, *, known: Sequence[str] = (), code: str = "") -> InputError:
    """Say what is wrong with a document: the first error by its field, and how many more there are."""
    first = min(errors, key=lambda error: error["type"] != "extra_forbidden")  # a misspelt name explains a missing one
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    name = str(first["loc"][-1]) if first["loc"] else ""
    match first["type"]:
        case "extra_forbidden":
            near = difflib.get_close_matches(name, known, 1) if len(first["loc"]) == 1 else []
            message = f"unknown field; did you mean {near[0]!r}?" if near else "unknown field"
            if not near and len(first["loc"]) == 1 and known:
                message = f"unknown field; there are {', '.join(known)}"
        case "missing":
            message = "is required"
        case "value_error":
            message = str(first["ctx"]["error"])
        case _:
            message = str(first["msg"])
            message = message[:1].lower() + message[1:]
    return InputError(
        message + more, field=field_path(first["loc"], data, missing=first["type"] == "missing"), code=code
    )


async def _on_error(request: Request, error: Exception) -> Response:
    return failure_of(error, at=place_of(request))


async def _on_invalid(request: Request, error: Exception) -> Response:
    """A query, path or header parameter that is not of its form."""
    assert isinstance(error, RequestValidationError)
    found = [item | {"loc": item["loc"][1:]} for item in error.errors()]
    names = {str(item["loc"][0]): None for item in found if item["loc"]}
    return failure_of(refusal(found, names, code="bad_query"), at=place_of(request))


async def _on_http(request: Request, error: Exception) -> Response:
    """What the framework answers by itself: no such path, a method that the path does not have."""
    assert isinstance(error, HTTPException)
    status = error.status_code
    if status == 404:
        message = f"there is no {request.url.path}; /openapi.json lists what there is"
    elif status == 405:
        message = f"{request.url.path} does not take {request.method}"
    else:
        message = str(error.detail)
    code = {404: "not_found", 405: "method_not_allowed"}.get(status, HTTPStatus(status).name.lower())
    return failure(status, code, message, headers=error.headers)


def install(app: FastAPI) -> None:
    """Make an application answer its errors in our form."""
    app.add_exception_handler(StanchionError, _on_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)
