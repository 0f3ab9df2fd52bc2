"""What a wire is: an encoder, a decoder and a few headers. And the client that carries any wire over HTTP.

Encoders and decoders are pure; `WireClient.call` is the only place here that awaits.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec

from stanchion.core.caching import metered
from stanchion.core.errors import ModelError
from stanchion.core.message import Delta, ModelRequest, ModelResponse, Part, Usage
from stanchion.model.client import Endpoint, OnDeltas, Timeouts
from stanchion.model.failure import failure, garbled, http_failure
from stanchion.model.http import Answer, HttpPool
from stanchion.model.sse import EventTooLong, SseParser

JSON_OPTIONS_NULL = None
"""A null among a request's options takes the field out of the body."""
LEAST_SECRET = 12
"""Characters of the shortest key that is looked for in errors."""
_SECRET_HEADER = re.compile(r"key|token|auth|secret|cookie", re.IGNORECASE)


class Decoder(Protocol):
    """One response's decoder. `event` and `body` raise `ModelError` for an error the provider says, garbled otherwise."""

    done: bool
    """The wire's last event has come; nothing more is awaited."""

    def event(self, name: bytes, data: bytes) -> None:
        """Take an event of the stream in."""
        ...

    def body(self, data: bytes) -> None:
        """Take in a whole body, not streamed."""
        ...

    def take_deltas(self) -> list[Delta]:
        """What has come since the last time."""
        ...

    def partial(self) -> tuple[Part, ...]:
        """The parts as far as they have come."""
        ...

    def usage(self) -> Usage | None:
        """The bill as far as it was said."""
        ...

    def response(self) -> ModelResponse:
        """The whole response. Raises `ModelError` early_end if no finish reason came (I12)."""
        ...


class Wire(Protocol):
    """A protocol that providers speak."""

    name: str
    path: str

    def encode(self, request: ModelRequest, *, stream: bool = True) -> bytes:
        """The body of the request: pure, deterministic. Raises `ModelError` (unsupported)."""
        ...

    def headers(self, endpoint: Endpoint) -> dict[str, str]:
        """The wire's own headers, the key among them."""
        ...

    def decoder(self, *, listening: bool = True) -> Decoder:
        """A decoder of one response. Without `listening` it keeps no deltas."""
        ...


def merge_options(body: dict[str, Any], options: Mapping[str, Any]) -> bytes:
    """The body as JSON with the request's options merged in last.

    A null takes a field out; `tools` (a provider's hosted tools) are appended to the request's own; an object is merged
    into an object by its keys; anything else replaces.
    """
    for key, value in options.items():
        present = body.get(key)
        if value is None:
            body.pop(key, None)
        elif key == "tools" and isinstance(present, list):
            body[key] = [*present, *value]
        elif isinstance(present, dict) and isinstance(value, Mapping):
            body[key] = {**present, **value}
        else:
            body[key] = value
    return msgspec.json.encode(body)


def decode_body(wire: Wire, data: bytes) -> ModelResponse:
    """The response of a whole body. Raises `ModelError` with what had come."""
    decoder = wire.decoder(listening=False)
    try:
        decoder.body(data)
        return decoder.response()
    except ModelError as error:
        raise _with_partial(error, decoder) from error.__cause__


def decode_stream(wire: Wire, data: bytes) -> ModelResponse:
    """The response of a whole recorded stream. Raises `ModelError` with what had come."""
    decoder = wire.decoder(listening=False)
    parser = SseParser()
    try:
        _take(decoder, parser, data)
        if not decoder.done:
            _take_last(decoder, parser)
        return decoder.response()
    except ModelError as error:
        raise _with_partial(error, decoder) from error.__cause__


class WireClient:
    """A `ModelClient` for one wire at one endpoint."""

    def __init__(self, wire: Wire, endpoint: Endpoint, pool: HttpPool) -> None:
        self.wire = wire
        self._pool = pool
        self._url = endpoint.base_url.rstrip("/") + wire.path
        self._headers = {
            "content-type": "application/json",
            "accept": "text/event-stream",
            **wire.headers(endpoint),
            **dict(endpoint.headers),
        }
        self._secrets = secrets_of(endpoint)
        self._lease = pool.lease()

    def __repr__(self) -> str:
        return f"WireClient({self.wire.name!r}, {self._url!r})"

    def encode(self, request: ModelRequest) -> bytes:
        return self.wire.encode(request)

    async def call(
        self, request: ModelRequest, *, timeouts: Timeouts, on_deltas: OnDeltas | None = None
    ) -> ModelResponse:
        body = self.wire.encode(request)
        decoder = self.wire.decoder(listening=on_deltas is not None)
        try:
            async with self._lease.post(self._url, self._headers, body, timeouts) as answer:
                if answer.status != 200:
                    said = self._without_secrets(await answer.rest())
                    raise http_failure(self.wire.name, answer.status, answer.headers, said)
                if _is_json(answer):
                    decoder.body(self._without_secrets(await answer.rest()))
                else:
                    await self._stream(answer, decoder, on_deltas)
            if on_deltas is not None and (deltas := decoder.take_deltas()):
                on_deltas(deltas)
            return _metered(decoder.response(), request.options)
        except ModelError as error:
            error.args = (self._without_secrets(str(error).encode()).decode(),)
            raise _with_partial(error, decoder) from error.__cause__

    def _without_secrets(self, said: bytes) -> bytes:
        return without(self._secrets, said)

    async def _stream(self, answer: Answer, decoder: Decoder, on_deltas: OnDeltas | None) -> None:
        parser = SseParser()
        while chunk := await answer.read():
            _take(decoder, parser, chunk)
            if on_deltas is not None and (deltas := decoder.take_deltas()):
                on_deltas(deltas)
            if decoder.done:
                return
        _take_last(decoder, parser)

    async def aclose(self) -> None:
        await self._lease.aclose()


def _metered(response: ModelResponse, options: Mapping[str, Any]) -> ModelResponse:
    """Count what was written to a cache by the life that the request asked for."""
    if response.usage is None:
        return response
    usage = metered(response.usage, options)
    return response if usage is response.usage else msgspec.structs.replace(response, usage=usage)


def without(secrets: Sequence[bytes], said: bytes) -> bytes:
    """Take our own key out of what a provider or a proxy echoes: errors are journaled, and shown to callers (I6)."""
    for secret in secrets:
        said = said.replace(secret, b"[key]")
    return said


def secrets_of(endpoint: Endpoint) -> tuple[bytes, ...]:
    """The values of an endpoint that nobody may read. Short ones are words, and in no error by themselves a secret."""
    named = (value.rpartition(" ")[2] for name, value in endpoint.headers if _SECRET_HEADER.search(name))
    return tuple(secret.encode() for secret in (endpoint.api_key, *named) if len(secret) >= LEAST_SECRET)


def _is_json(answer: Answer) -> bool:
    return answer.headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json"


def _take(decoder: Decoder, parser: SseParser, chunk: bytes) -> None:
    try:
        events = parser.feed(chunk)
    except EventTooLong as error:
        raise failure("garbled", f"the stream holds {error}") from error
    for name, data in events:
        decoder.event(name, data)
        if decoder.done:
            return


def _take_last(decoder: Decoder, parser: SseParser) -> None:
    """At the end of the stream: an event without its blank line counts if it is whole."""
    for name, data in parser.close():
        try:
            decoder.event(name, data)
        except ModelError as error:
            if error.code != "garbled":
                raise


def _with_partial(error: ModelError, decoder: Decoder) -> ModelError:
    """The error with what had come, where it does not say so itself."""
    if error.partial or not error.sent:
        return error
    return failure(
        error.code,  # type: ignore[arg-type]  # StanchionError.code is a str; a ModelError's is of the closed set
        str(error),
        status=error.status,
        retry_after_s=error.retry_after_s,
        partial=decoder.partial(),
        usage=error.usage or decoder.usage(),
    )


def early_end(wire: str, partial: tuple[Part, ...], usage: Usage | None) -> ModelError:
    """The stream ended without a finish reason (I12)."""
    return failure(
        "early_end", f"{wire} ended its answer without a finish reason: it is not whole", partial=partial, usage=usage
    )


def decode_failed(wire: str, data: bytes, error: Exception) -> ModelError:
    """What came cannot be decoded; quotes its start."""
    return garbled(wire, f"cannot read {data[:120]!r} ({error})")
