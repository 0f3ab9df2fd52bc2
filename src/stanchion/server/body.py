"""Reading request bodies: within a size and a time, as strict JSON, into a pydantic model whose errors name the field.

FastAPI would read a body whole, take NaN for a number and answer in a form of its own; here a body is refused as soon as
it is known to be bad. The digest of a body is over what the client sent, with keys in order and without white space.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

import msgspec
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json
from starlette.requests import ClientDisconnect, Request

from stanchion.core.errors import InputError
from stanchion.server.failure import refusal
from stanchion.server.settings import Settings

M = TypeVar("M", bound=BaseModel)
REFERENCE = "#/components/schemas/{model}"


class Given(msgspec.Struct, Generic[M], frozen=True):
    """A body that was read: checked, and the digest of what it was."""

    body: M
    digest: str = ""


def json_body(model: type[M], *, optional: bool = False) -> Callable[[Request], Awaitable[Given[M]]]:
    """Make a dependency that reads a body. Optional: nothing at all stands for `{}`."""

    async def read(request: Request) -> Given[M]:
        raw = await read_body(request, request.app.state.edge.settings)
        if not raw and optional:
            return Given(model())
        check_type(request)
        document = parse(raw)
        return Given(check(model, document), digest_of(document))

    return read


def described(model: type[BaseModel], *, optional: bool = False) -> dict[str, Any]:
    """Describe a body to OpenAPI, which sees only the bodies that FastAPI reads itself."""
    schema = {"$ref": REFERENCE.format(model=model.__name__)}
    return {"requestBody": {"required": not optional, "content": {"application/json": {"schema": schema}}}}


async def read_body(request: Request, settings: Settings) -> bytes:
    """Read a body whole. Raises `InputError` (`body_too_large`, `body_timeout`)."""
    limit = settings.max_body_bytes
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared[:20]) > limit:
        raise _too_large(limit)
    body = bytearray()
    try:
        async with asyncio.timeout(settings.body_timeout_s):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limit:
                    raise _too_large(limit)
    except TimeoutError:
        raise InputError(f"the body did not come within {settings.body_timeout_s:g} s", code="body_timeout") from None
    except ClientDisconnect:
        raise InputError("the connection ended within the body", code="malformed") from None
    return bytes(body)


def _too_large(limit: int) -> InputError:
    return InputError(
        f"the body is larger than {limit:,} bytes; give media by `url` or `file_id`", code="body_too_large"
    )


def check_type(request: Request) -> None:
    """Refuse a body that is not said to be JSON. Raises `InputError` (`unsupported_media_type`)."""
    given = request.headers.get("content-type", "")
    kind, _, parameters = given.partition(";")
    charset = parameters.strip().lower().removeprefix("charset=").strip('"')
    if kind.strip().lower() != "application/json" or charset not in ("", "utf-8", "utf8"):
        said = repr(given) if given else "none"
        raise InputError(
            f"the body must be JSON: send `Content-Type: application/json`, not {said}", code="unsupported_media_type"
        )


def parse(raw: bytes) -> dict[str, Any]:
    """Parse a JSON object strictly: UTF-8, no NaN, no endless nesting. Raises `InputError` (`malformed`) saying where."""
    try:
        document: object = from_json(raw, allow_inf_nan=False)
    except ValueError as error:
        what = "the body is empty" if not raw else f"the body is not valid JSON: {error}"
        raise InputError(what, code="malformed") from None
    if not isinstance(document, dict):
        raise InputError("the body must be a JSON object, like {}", code="malformed")
    return document  # pyright: ignore[reportUnknownVariableType]


def check(model: type[M], document: dict[str, Any]) -> M:
    """Check a document against a model. Raises `InputError` naming the first field that is wrong."""
    try:
        return model.model_validate(document)
    except ValidationError as error:
        found = error.errors(include_url=False)
        raise refusal(found, document, known=list(model.model_fields)) from None


def digest_of(document: dict[str, Any]) -> str:
    """Hash a document: the same for the same members in any order. Raises `InputError` for a number out of range."""
    try:
        text = json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except ValueError:
        raise InputError("the body holds a number that is out of range", code="malformed") from None
    return hashlib.sha256(text.encode()).hexdigest()
