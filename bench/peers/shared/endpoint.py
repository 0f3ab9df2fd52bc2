"""A plain HTTP endpoint for frameworks whose library has none: what a user writes around their stream. Standard library.

`POST /runs/NAME` streams the run's text as server-sent events. Where the client has gone the run is cancelled, as a web
framework's streaming response does; asking again for the same run goes on by `Subject.resume`. There are no ids in
the stream, for the library has none to give. A subject with a stream that can be read from a place (`follow`) gets
`?after=N`, and its events have ids.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from line import Subject

_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"


async def serve(subject: Subject) -> str:
    """Serve; give the address."""
    known: set[str] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        name, _, after = head.split(b" ", 2)[1].decode().rpartition("/")[2].partition("?after=")
        writer.write(_HEAD)

        def on_text(text: str, place: str = "") -> None:
            writer.write(f"{place}data: {json.dumps({'text': text})}\n\n".encode())

        async def follow() -> None:
            if name not in known:
                await subject.do_start([name])
            known.add(name)
            async for place, text in subject.follow(name, int(after or 0)):
                on_text(text, f"id: {place}\n")

        async def drive() -> None:
            work = subject.resume if name in known else subject.run
            known.add(name)
            await work(name, on_text)

        run = asyncio.create_task(follow() if subject.stream_variant else drive())
        gone = asyncio.create_task(reader.read())
        await asyncio.wait((run, gone), return_when=asyncio.FIRST_COMPLETED)
        gone.cancel()
        run.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await run
            writer.write(b"event: end\ndata: {}\n\n")
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()[:2]
    return f"http://{host}:{port}"
