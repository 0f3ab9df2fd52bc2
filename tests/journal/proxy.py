"""A TCP proxy between a store and its database, which can cut connections at a chosen moment."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Literal

Cut = Literal["", "before", "after"]


class Proxy:
    """Forwards to a port. `cut` cuts at the next COMMIT: before it is passed on, or after, so that the answer is lost."""

    def __init__(self, target: int) -> None:
        self._target = target
        self.cut: Cut = ""
        self.port = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Proxy:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut_all(self) -> int:
        """Cut all connections now; say how many there were."""
        for task in list(self._tasks):
            task.cancel()
        return len(self._tasks)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        with contextlib.suppress(OSError, asyncio.CancelledError):
            there, out = await asyncio.open_connection("127.0.0.1", self._target)
            back = asyncio.create_task(_pump(there, writer))
            try:
                while data := await reader.read(1 << 16):
                    cut = self.cut if b"COMMIT" in data else ""
                    if cut:
                        self.cut = ""
                    if cut == "before":
                        break
                    if cut == "after":
                        back.cancel()
                    out.write(data)
                    await out.drain()
                    if cut == "after":
                        await there.read(1)  # the answer: it is committed
                        break
            finally:
                back.cancel()
                writer.transport.abort()
                out.transport.abort()
        self._tasks.discard(task)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
        writer.close()
