"""uvicorn's HTTP protocol with two bounds it lacks: how large a request's head may be, and how long it may take to come.

Without them one client could hold memory or a connection for ever, before there is a request that could be refused.
"""

from __future__ import annotations

import asyncio
from typing import cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from stanchion.core.errors import InputError

MAX_HEAD_BYTES = 65_536
HEAD_TIMEOUT_S = 30.0
"""From the connection, or from the first byte of a later request on it, to the end of its headers."""


class BoundedHttp(HttpToolsProtocol):
    """Refuses a head that is too large with 400, and closes a connection whose head does not come."""

    _head_bytes = 0
    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Begin to wait for the first head."""
        super().connection_made(cast("asyncio.Transport", transport))
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_is_there()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head_bytes = 0
        if self._late is None:
            self._wait_for_head()

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._head_is_there()
        super().on_headers_complete()

    def _count(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > MAX_HEAD_BYTES:
            raise InputError(f"the headers are larger than {MAX_HEAD_BYTES:,} bytes")

    def _wait_for_head(self) -> None:
        self._late = self.loop.call_later(HEAD_TIMEOUT_S, self._close)

    def _head_is_there(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _close(self) -> None:
        self._late = None
        if not self.transport.is_closing():
            self.transport.close()
