"""A provider that only paces: any POST gets `--events` Chat Completions chunks, one every `--gap-ms`, in its own process.

Raw asyncio and bytes made beforehand, so that a thousand streams cost it little. Prints its port on one line.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """One HTTP chunk with one event."""
    event = b"data: " + data + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(event), event)


def chunks(events: int) -> list[bytes]:
    """The chunks of a turn: `events` of text, then finish and usage."""
    head = (
        b'{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"paced",'
        b'"system_fingerprint":"fp_0","choices":['
    )
    texts = [head + b'{"index":0,"delta":{"content":" word%d"},"finish_reason":null}]}' % i for i in range(events)]
    finish = head + b'{"index":0,"delta":{},"finish_reason":"stop"}]}'
    usage = head + b'],"usage":{"prompt_tokens":1000,"completion_tokens":%d}}' % events
    return [*map(chunk, texts), chunk(finish) + chunk(usage) + chunk(b"[DONE]") + b"0\r\n\r\n"]


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, paced: list[bytes], gap_s: float) -> None:
    """Serve a connection until it closes."""
    loop = asyncio.get_running_loop()
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0] or 0)
            await reader.readexactly(length)
            writer.write(HEAD)
            due = loop.time()
            for piece in paced:
                due += gap_s
                await asyncio.sleep(max(0.0, due - loop.time()))
                writer.write(piece)
    writer.close()


async def serve(events: int, gap_s: float) -> None:
    """Serve until killed."""
    paced = chunks(events)
    server = await asyncio.start_server(lambda r, w: answer(r, w, paced, gap_s), "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    parser.add_argument("--events", type=int, default=170)
    parser.add_argument("--gap-ms", type=float, default=20.0)
    given = parser.parse_args()
    try:
        import uvloop

        uvloop.run(serve(given.events, given.gap_ms / 1000))
    except ImportError:
        asyncio.run(serve(given.events, given.gap_ms / 1000))
