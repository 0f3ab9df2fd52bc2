"""The outermost layer of the application: who may call at all, no exception gets out, and the access log.

Plain ASGI, because a middleware that wraps responses would buffer streams.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stanchion.runtime import Draining
from stanchion.server.edge import Edge
from stanchion.server.failure import failure_of

access = logging.getLogger("stanchion.access")

_UNCHECKED = frozenset({"/health"})
"""Never touches the store, which says whether the door is open."""


def _without_secrets(send: Send, redacted: Callable[[str], str]) -> Send:
    """Take secrets out of the bodies of errors: they quote what they refuse (I6). All else comes from the journal."""
    held: Message | None = None

    async def told(message: Message) -> None:
        nonlocal held
        if message["type"] == "http.response.start" and message["status"] >= 400:
            held = message
            return
        if held is None or message.get("more_body"):
            first, held = held, None
            if first is not None:
                await send(first)
            await send(message)
            return
        first, held = held, None
        body = redacted(message.get("body", b"").decode(errors="replace")).encode()
        headers = MutableHeaders(raw=first["headers"])
        if "content-length" in headers:
            headers["content-length"] = str(len(body))
        await send(first)
        await send({**message, "body": body})

    return told


class Guard:
    """Wraps an application."""

    def __init__(self, app: ASGIApp, edge: Edge) -> None:
        self._app = app
        self._edge = edge

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began_s = time.monotonic()
        status = 0

        told = _without_secrets(send, self._edge.runtime.redactor.text)

        async def note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await told(message)

        try:
            if scope["path"] not in _UNCHECKED:
                await self._edge.door.check_browser(scope["method"], Headers(scope=scope))
            await self._app(scope, receive, note)
        except asyncio.CancelledError:
            if status or not self._edge.draining.is_set():
                raise
            # The server goes, and waits no longer for this request (the store may not answer): its client is told.
            await failure_of(Draining(), at="")(scope, receive, note)
        except Exception as error:
            response = failure_of(error, at=f"{scope['method']} {scope['path']}")
            if not status:
                await response(scope, receive, note)
        finally:
            if self._edge.settings.access_log:
                took_ms = round((time.monotonic() - began_s) * 1000)
                facts = {"method": scope["method"], "path": scope["path"], "status": status, "took_ms": took_ms}
                if tenant := scope.get("state", {}).get("tenant"):
                    facts["tenant"] = tenant
                access.info("request", extra=facts)
