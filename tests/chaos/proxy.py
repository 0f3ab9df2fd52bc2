"""A TCP proxy between one process and its database that can break connections in every way a network does.

Both directions of a connection are pumps of their own: "up" (statements) and "down" (answers). A gate that is shut keeps what
comes, as a network does that has lost its way: nobody is told, no RST, no FIN. When it opens again what was kept goes on,
or (`abort`) the connections turn out to be dead.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from typing import Literal

Way = Literal["up", "down"]
Cut = Literal["", "before_commit", "after_commit", "mid_statement"]
_CHUNK = 1 << 16


class Proxy:
    """Forwards to a port. What breaks connections is counted by whoever calls it."""

    def __init__(self, target: int) -> None:
        self._target = target
        self.port = 0
        self.cut: Cut = ""
        """At the next chance: before a COMMIT is passed on; after it, so that its answer is lost; in the middle of a chunk."""
        self.was_cut = asyncio.Event()
        """Set when `cut` happened."""
        self.delay_s = 0.0
        self._gates: dict[Way, asyncio.Event] = {"up": asyncio.Event(), "down": asyncio.Event()}
        self._server: asyncio.Server | None = None
        self._links: set[_Link] = set()
        self.open()

    async def start(self) -> None:
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def aclose(self) -> None:
        """Stop listening and end all connections."""
        if self._server is not None:
            self._server.close()
        tasks = [link.task for link in self._links]
        self.open()
        self.abort()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def connections(self) -> int:
        """How many there are."""
        return len(self._links)

    def abort(self) -> int:
        """Cut all connections with RST to both sides, wherever they are; how many there were."""
        count = len(self._links)
        for link in list(self._links):
            link.abort()
        return count

    def half_close(self, way: Way) -> None:
        """End one direction of all connections with FIN; the other stays open."""
        for link in list(self._links):
            link.half_close(way)

    def shut(self, *ways: Way) -> None:
        """Let nothing through in these directions, and tell nobody."""
        for way in ways or ("up", "down"):
            self._gates[way].clear()

    def open(self) -> None:
        """Let everything through again."""
        for gate in self._gates.values():
            gate.set()

    async def pass_on(self, way: Way, data: bytes, link: _Link) -> bool:
        """Pass a chunk on, or do to it what was asked for. False: the connection is over."""
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        await self._gates[way].wait()
        cut = self.cut if way == "up" else ""
        if cut == "mid_statement":
            self._cut_now()
            await link.send(way, data[: len(data) // 2])
        elif cut and b"COMMIT" in data:
            self._cut_now()
            if cut == "after_commit":
                link.deaf = True
                await link.send(way, data)
                await link.answered.wait()  # it is committed, and nobody is told
        else:
            await link.send(way, data)
            return True
        link.abort()
        return False

    def _cut_now(self) -> None:
        self.cut = ""
        self.was_cut.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await self._gates["up"].wait()
            there, out = await asyncio.open_connection("127.0.0.1", self._target)
            link = _Link(self, (reader, writer), (there, out))
            self._links.add(link)
            try:
                await link.run()
            finally:
                self._links.discard(link)
                link.abort()
        writer.transport.abort()


class _Link:
    """A connection: the client's side and the database's."""

    def __init__(
        self,
        proxy: Proxy,
        client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        database: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.task = task
        self.deaf = False
        """What the database answers is thrown away."""
        self.answered = asyncio.Event()
        self._proxy = proxy
        self._from: dict[Way, asyncio.StreamReader] = {"up": client[0], "down": database[0]}
        self._to: dict[Way, asyncio.StreamWriter] = {"up": database[1], "down": client[1]}

    async def run(self) -> None:
        """Pump both ways until both have ended."""
        await asyncio.gather(self._pump("up"), self._pump("down"))

    async def send(self, way: Way, data: bytes) -> None:
        """Send to one side."""
        writer = self._to[way]
        writer.write(data)
        await writer.drain()

    def half_close(self, way: Way) -> None:
        """Tell one side that there will be no more."""
        writer = self._to[way]
        with contextlib.suppress(OSError):
            if not writer.is_closing() and writer.can_write_eof():
                writer.write_eof()

    def abort(self) -> None:
        """End it with RST to both sides."""
        self.answered.set()
        for writer in self._to.values():
            found = writer.get_extra_info("socket")
            with contextlib.suppress(OSError, ValueError, AttributeError):  # (it is closed already)
                found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    async def _pump(self, way: Way) -> None:
        reader = self._from[way]
        with contextlib.suppress(OSError, RuntimeError):  # (RuntimeError: written to after its end was told)
            while data := await reader.read(_CHUNK):
                if self.deaf and way == "down":
                    self.answered.set()
                    return
                if not await self._proxy.pass_on(way, data, self):
                    return
        self.half_close(way)
        if way == "down":
            self.answered.set()
            self.abort()  # PostgreSQL ends a connection whole
