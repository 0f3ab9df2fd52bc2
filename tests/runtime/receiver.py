"""A receiver of webhooks, over real HTTP: it remembers what came, and answers what the test wants."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from stanchion import verify_webhook
from tests.waiting import SOON_S

Answer = Callable[["Message"], Awaitable[web.Response] | web.Response]


class Message:
    """What came."""

    def __init__(self, headers: dict[str, str], body: bytes, path: str) -> None:
        self.headers = headers
        self.body = body
        self.path = path

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    def verified(self, secret: str) -> dict[str, Any]:
        """Check the signature; give what it says."""
        return verify_webhook(self.headers, self.body, secret)


class Receiver:
    """The receiver. `answer` may be changed by the test."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.answer: Answer = lambda _: web.Response(status=204)
        self.url = ""
        self._came = asyncio.Event()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Take a message in."""
        headers = {name.lower(): value for name, value in request.headers.items()}
        message = Message(headers, await request.read(), request.path)
        self.messages.append(message)
        self._came.set()
        said = self.answer(message)
        return await said if isinstance(said, Awaitable) else said

    async def until(self, count: int) -> list[Message]:
        """Wait until so many messages came."""
        async with asyncio.timeout(SOON_S):
            while len(self.messages) < count:
                self._came.clear()
                await self._came.wait()
        return self.messages


@asynccontextmanager
async def receiving(port: int = 0) -> AsyncIterator[Receiver]:
    """Run a receiver."""
    receiver = Receiver()
    app = web.Application()
    app.router.add_post("/{rest:.*}", receiver.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield receiver
    finally:
        await runner.cleanup()
