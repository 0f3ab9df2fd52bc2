"""A run's journal as server-sent events: pre-encoded bytes, one send per event, nothing kept for a slow client.

`id:` is the seq, `event:` the type, `data:` the entry as JSON. Text in the making comes as `event: delta` without an id,
so that `Last-Event-ID` always names a journaled event. The last event is `end`, with the reason. While a client does not
take what was sent, nothing more is taken from the run's tail, which joins the deltas meanwhile: slowness costs the
client detail and the run nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, suppress
from typing import cast

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from stanchion.core.errors import StanchionError
from stanchion.core.event import Entry, ModelCallFailed, ModelCallFinished
from stanchion.core.message import Text, Thinking
from stanchion.runtime import LiveDelta, delta_json, entry_json
from stanchion.server.failure import log_fault

HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache, no-transform",
    "x-accel-buffering": "no",
}
_OPENING = b"retry: 1000\n\n"
_BEAT = b":\n\n"
_LAST_WORD_S = 1.0
"""How long the end event may take to leave when the server wants to go."""

_names: dict[type, bytes] = {}


def encode(item: Entry | LiveDelta) -> bytes:
    """Encode an entry or a delta as one event."""
    if isinstance(item, LiveDelta):
        return b"event: delta\ndata: " + delta_json(item) + b"\n\n"
    kind = type(item.event)
    if isinstance(item.event, ModelCallFinished | ModelCallFailed) and item.event.held:
        item = _held_back(item, item.event)
    if (name := _names.get(kind)) is None:
        name = _names[kind] = str(kind.__struct_config__.tag).encode()
    return b"id: %d\nevent: %b\ndata: %b\n\n" % (item.seq, name, entry_json(item))


def _held_back(item: Entry, event: ModelCallFinished | ModelCallFailed) -> Entry:
    """Leave out what the model said, where checks decide what of it anybody is told. The journal has it, for people."""
    parts = tuple(
        msgspec.structs.replace(part, text="")
        if isinstance(part, Text | Thinking) and part.label.source == "model"
        else part
        for part in event.parts
    )
    return msgspec.structs.replace(item, event=msgspec.structs.replace(event, parts=parts))


async def nothing() -> AsyncIterator[Entry | LiveDelta]:
    """Tail a run that is over, from its last event on."""
    return
    yield


def end(reason: str, seq: int, **more: str) -> bytes:
    """Encode the last event of a stream. `seq` is the last one sent: attach again after it."""
    return b"event: end\ndata: " + msgspec.json.encode({"reason": reason, "seq": seq} | more) + b"\n\n"


class EventStream(Response):
    """The response that streams a tail until it ends, the client goes, or the server stops."""

    def __init__(
        self,
        tail: AsyncIterator[Entry | LiveDelta],
        *,
        after: int,
        heartbeat_s: float,
        send_timeout_s: float,
        closed: Callable[[EventStream], None],
        headers: Mapping[str, str] | None = None,
        at: str = "",
    ) -> None:
        super().__init__(None, 200, HEADERS | dict(headers or {}))
        del self.headers["content-length"]
        self._tail = tail
        self._seq = after
        self._heartbeat_s = heartbeat_s
        self._send_timeout_s = send_timeout_s
        self._closed = closed
        self._at = at
        self._pump: asyncio.Task[None] | None = None
        self._ending = b""
        self._sent = 0
        self._sending = False

    def stop(self, reason: str) -> None:
        """End the stream now, saying why, unless it has just ended by itself."""
        if self._pump is not None and self._pump.done():
            return
        self._ending = end(reason, self._seq)
        if self._pump is not None:
            self._pump.cancel()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stream."""
        gone: asyncio.Task[None] | None = None
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            gone = asyncio.create_task(_disconnected(receive))
            self._pump = asyncio.create_task(self._run(send))
            if self._ending:
                self._pump.cancel()
            if await self._attend(self._pump, gone, send):
                await self._say_end(send)
        finally:
            self._closed(self)
            for task in (self._pump, gone):
                if task is not None:
                    task.cancel()
                    with suppress(asyncio.CancelledError):
                        await task

    async def _attend(self, pump: asyncio.Task[None], gone: asyncio.Task[None], send: Send) -> bool:
        """Wait for the end of either side, with a heartbeat where nothing is sent. False: nobody is there any more."""
        silent_s = 0.0
        while True:
            before = self._sent
            done, _ = await asyncio.wait((pump, gone), timeout=self._heartbeat_s, return_when=asyncio.FIRST_COMPLETED)
            if done:
                return gone not in done
            silent_s = 0.0 if self._sent != before or not self._sending else silent_s + self._heartbeat_s
            if silent_s >= self._send_timeout_s:
                return False
            if self._sent == before and not self._sending:
                await send({"type": "http.response.body", "body": _BEAT, "more_body": True})

    async def _run(self, send: Send) -> None:
        """Send what the tail gives, and note how it ended."""
        try:
            await self._send(send, _OPENING)
            async with aclosing(cast("AsyncGenerator[Entry | LiveDelta]", self._tail)):
                async for item in self._tail:
                    await self._send(send, encode(item))
                    if isinstance(item, Entry):
                        self._seq = item.seq
            self._ending = end("finished", self._seq)
        except StanchionError as error:
            reason = "draining" if error.code == "draining" else "error"
            more = {} if reason == "draining" else {"code": error.code, "id": log_fault(error, at=self._at)}
            self._ending = end(reason, self._seq, **more)
        except Exception as error:
            self._ending = end("error", self._seq, code="internal", id=log_fault(error, at=self._at))

    async def _send(self, send: Send, body: bytes) -> None:
        self._sending = True
        await send({"type": "http.response.body", "body": body, "more_body": True})
        self._sending = False
        self._sent += 1

    async def _say_end(self, send: Send) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(_LAST_WORD_S if self._sending else None):
                await send({"type": "http.response.body", "body": self._ending, "more_body": False})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
