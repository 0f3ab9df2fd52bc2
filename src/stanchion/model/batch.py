"""The port of a provider's batch API: model calls handed in together, answered within a day, at half the price.

A client makes single requests and never retries: what to do about a failure is the engine's. Results come by the ids that
were handed in, in any order. `find` answers after a crash whether a hand-in had arrived, where the provider can tell.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, Literal, Protocol

import aiohttp
import msgspec
from aiohttp.client_exceptions import ClientError

from stanchion.core.errors import ModelError
from stanchion.core.message import ModelRequest, ModelResponse
from stanchion.model.client import Endpoint
from stanchion.model.failure import failure, garbled, http_failure
from stanchion.model.http import HttpPool, translate
from stanchion.model.wire import Wire, decode_body, secrets_of, without

CALL_S: Final = 120.0
"""For a request to the batch API; results are read for as long as they come, with pauses of at most this."""
CONNECT_S: Final = 10.0

State = Literal["running", "ended", "gone"]
"""`gone`: the provider knows no such batch (any more)."""


class BatchItem(msgspec.Struct, frozen=True):
    """A request of a batch. `id`: 1 to 64 letters, digits, "-" and "_"; `body` as `BatchClient.encode` made it."""

    id: str
    body: bytes


class BatchOutcome(msgspec.Struct, frozen=True):
    """What became of a request: a response, or why there is none."""

    id: str
    response: ModelResponse | None = None
    error: ModelError | None = None


class BatchClient(Protocol):
    """A provider's batch API."""

    most_items: int
    most_bytes: int
    finds: bool
    """Whether `find` can tell that there is none."""

    def encode(self, request: ModelRequest) -> bytes:
        """The body of a request: pure. Raises `ModelError` (unsupported)."""
        ...

    async def submit(self, items: Sequence[BatchItem], *, name: str) -> str:
        """Hand requests in and return the batch's id. `name` is ours, to find it again. Raises `ModelError`."""
        ...

    async def find(self, name: str) -> str | None:
        """The id of the batch that was handed in under a name; None: there is none, or (not `finds`) nobody can tell."""
        ...

    async def state(self, batch: str) -> State:
        """How far a batch is. Raises `ModelError`."""
        ...

    def outcomes(self, batch: str) -> AsyncGenerator[BatchOutcome]:
        """What became of each request of a batch that has ended. Raises `ModelError`."""
        ...

    async def aclose(self) -> None:
        """Give back the connections."""
        ...


class BatchApi:
    """What the batch APIs have in common: requests with the endpoint's key, errors translated, lines read as they come."""

    def __init__(self, wire: Wire, endpoint: Endpoint, pool: HttpPool) -> None:
        self._wire = wire
        self._base = endpoint.base_url.rstrip("/")
        self._headers = {**wire.headers(endpoint), **dict(endpoint.headers)}
        self._secrets = secrets_of(endpoint)
        self._pool = pool
        self._lease = pool.lease()

    def encode(self, request: ModelRequest) -> bytes:
        return self._wire.encode(request, stream=False)

    async def aclose(self) -> None:
        await self._lease.aclose()

    async def ask(self, method: str, path: str, *, data: Any = None, headers: Mapping[str, str] | None = None) -> Any:
        """Send a request and decode its JSON. Raises `ModelError`."""
        async with self._open(method, path, data, headers or {}, total_s=CALL_S) as response:
            body = await response.read()
        try:
            return msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise garbled(self._wire.name, f"cannot read {body[:120]!r}") from error

    async def lines(self, path: str) -> AsyncGenerator[Any]:
        """Read a file of JSON lines. A line may be of any length, and the file need not fit into memory."""
        async with self._open("GET", path, None, {}, total_s=None) as response:
            rest = b""
            async for chunk in response.content.iter_any():
                *whole, rest = (rest + chunk).split(b"\n")
                for line in whole:
                    if line.strip():
                        yield self._line(line)
            if rest.strip():
                yield self._line(rest)

    def _line(self, line: bytes) -> Any:
        try:
            return msgspec.json.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise garbled(self._wire.name, f"cannot read a result: {line[:120]!r}") from error

    @asynccontextmanager
    async def _open(
        self, method: str, path: str, data: Any, headers: Mapping[str, str], *, total_s: float | None
    ) -> AsyncGenerator[aiohttp.ClientResponse]:
        session, _ = self._pool.session()
        timeout = aiohttp.ClientTimeout(total=total_s, sock_connect=CONNECT_S, sock_read=CALL_S)
        answered = False
        try:
            async with session.request(
                method, self._base + path, data=data, headers={**self._headers, **headers}, timeout=timeout
            ) as response:
                answered = True
                if response.status != 200:
                    said = without(self._secrets, await response.read())
                    raise http_failure(self._wire.name, response.status, response.headers, said)
                yield response
        except TimeoutError as error:
            raise failure("timeout_total", f"the batch API did not answer within {CALL_S:g} s") from error
        except (ClientError, OSError) as error:
            raise translate(error, answered=answered) from error

    def outcome(self, id: str, status: int, body: Any) -> BatchOutcome:
        """Read the answer to one request, as the wire's own response would be."""
        encoded = without(self._secrets, msgspec.json.encode(body))
        try:
            if status != 200:
                raise http_failure(self._wire.name, status, {}, encoded)
            return BatchOutcome(id, response=decode_body(self._wire, encoded))
        except ModelError as error:
            return BatchOutcome(id, error=error)


def unanswered(id: str, why: str) -> BatchOutcome:
    """A request that the provider gave back unanswered; it billed nothing for it."""
    return BatchOutcome(
        id, error=failure("overloaded", f"the batch {why} before this request was answered", sent=False)
    )
