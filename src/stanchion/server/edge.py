"""What every route shares: the runtime, the settings, the door, the open streams, and whether the server is going."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from fastapi import Depends
from starlette.requests import Request
from starlette.responses import Response

from stanchion.core.errors import StanchionError
from stanchion.runtime import Runtime
from stanchion.server.auth import Caller, Door
from stanchion.server.settings import Settings
from stanchion.server.sse import EventStream, nothing


class Edge:
    """The server's own state. One per application."""

    def __init__(self, runtime: Runtime, settings: Settings) -> None:
        self.runtime = runtime
        self.settings = settings
        self.door = Door(runtime, settings.host)
        self.draining = asyncio.Event()
        self._streams: set[EventStream] = set()

    @property
    def streams(self) -> int:
        """How many event streams are open."""
        return len(self._streams)

    def check_room(self) -> None:
        """Refuse one stream more than there may be."""
        if len(self._streams) >= self.settings.max_streams:
            raise StanchionError(
                f"{len(self._streams)} event streams are open, which is the most; try again when some have ended",
                code="too_many_streams", retryable=True,
            )  # fmt: skip

    def stream(
        self,
        run: str,
        *,
        tenant: str,
        after: int = 0,
        deltas: bool = True,
        over: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> EventStream:
        """Stream a run's events behind a seq. `over`: there are none behind it and there will be none."""
        response = EventStream(
            nothing() if over else self.runtime.tail(run, tenant=tenant, after=after, deltas=deltas),
            after=after,
            heartbeat_s=self.settings.heartbeat_s,
            send_timeout_s=self.settings.send_timeout_s,
            closed=self._streams.discard,
            headers=headers,
            at=f"the stream of run {run}",
        )
        self._streams.add(response)
        if self.draining.is_set():
            response.stop("draining")
        return response

    def drain(self) -> None:
        """Take no new runs, and end every stream and every wait."""
        self.runtime.begin_drain()
        self.draining.set()
        for stream in list(self._streams):
            stream.stop("draining")


async def edge_of(request: Request) -> Edge:
    """Find the edge of a request's application. A coroutine: FastAPI would call a plain function in a thread."""
    return request.app.state.edge


async def caller_of(request: Request) -> Caller:
    """Find who sent a request by its API key."""
    caller = await request.app.state.edge.door.caller(request.headers.get("authorization"))
    request.state.tenant = caller.tenant  # for the access log
    return caller


async def tenant_of(request: Request) -> str:
    """Find the tenant of a request by its API key."""
    return (await caller_of(request)).tenant


EdgeOf = Annotated[Edge, Depends(edge_of)]
TenantOf = Annotated[str, Depends(tenant_of)]
CallerOf = Annotated[Caller, Depends(caller_of)]


def reply(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Encode a response."""
    return reply_bytes(msgspec.json.encode(value), status, headers)


def reply_bytes(body: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Make a response of JSON, which nobody between us and the client keeps."""
    return Response(body, status, {"cache-control": "no-store", **(headers or {})}, "application/json")
