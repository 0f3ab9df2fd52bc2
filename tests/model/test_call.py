"""Calls over real sockets: each way a provider can fail has a name, and keeps what had come."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import pytest

from stanchion.core.errors import ModelError
from stanchion.core.message import USER, Delta, Message, ModelRequest, Text
from stanchion.model.client import Endpoint, Timeouts
from stanchion.model.http import HttpPool
from stanchion.model.providers import open_client

REQUEST = ModelRequest("m", (Message("user", (Text("hi", USER),)),), 10)
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
Script = Callable[[asyncio.StreamWriter], Awaitable[None]]


def event(**fields: object) -> bytes:
    data = b"data: " + json.dumps({"id": "c", "choices": [{"index": 0, **fields}]}).encode() + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(data), data)


HELLO = event(delta={"content": "Hello"})
FINISH = event(delta={}, finish_reason="stop")
DONE = b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"


@asynccontextmanager
async def provider(script: Script) -> AsyncIterator[str]:
    """A server that reads a request, then does as the script says and hangs up."""

    serving: list[asyncio.Task[None] | None] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.append(asyncio.current_task())
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0]))
            await script(writer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in serving:
            assert task is not None
            task.cancel()
            await asyncio.wait([task])


async def call(base_url: str, timeouts: Timeouts | None = None, said: list[Delta] | None = None) -> object:
    client = open_client("vllm", Endpoint(base_url), pool=HttpPool())

    def on_deltas(deltas: Sequence[Delta]) -> None:
        assert said is not None
        said.extend(deltas)

    try:
        return await client.call(
            REQUEST, timeouts=timeouts or Timeouts(), on_deltas=on_deltas if said is not None else None
        )
    finally:
        await client.aclose()


async def failing(script: Script, timeouts: Timeouts | None = None) -> ModelError:
    async with provider(script) as base_url:
        with pytest.raises(ModelError) as caught:
            await call(base_url, timeouts)
    return caught.value


def writes(*pieces: bytes) -> Script:
    async def script(writer: asyncio.StreamWriter) -> None:
        writer.writelines(pieces)

    return script


def writes_then_waits(*pieces: bytes) -> Script:
    async def script(writer: asyncio.StreamWriter) -> None:
        writer.writelines(pieces)
        await writer.drain()
        await asyncio.Event().wait()

    return script


def answers(status: str, body: bytes, *headers: bytes) -> Script:
    lines = [
        f"HTTP/1.1 {status}".encode(),
        b"content-type: application/json",
        b"content-length: %d" % len(body),
        *headers,
    ]
    return writes(b"\r\n".join(lines) + b"\r\n\r\n" + body)


async def test_streams() -> None:
    """A whole stream is a response, and its deltas came as they were said."""
    said: list[Delta] = []
    async with provider(writes(CHUNKED, HELLO, event(delta={"content": " you"}), FINISH, DONE)) as base_url:
        response = await call(base_url, said=said)
    assert "".join(delta.text for delta in said) == "Hello you"
    assert getattr(response, "finish", None) == "stop"


async def test_json_answer_to_a_stream_request() -> None:
    """A server that does not stream is understood."""
    body = json.dumps({"id": "c", "choices": [{"message": {"content": "Hello"}, "finish_reason": "stop"}]}).encode()
    async with provider(answers("200 OK", body)) as base_url:
        assert getattr(await call(base_url), "finish", None) == "stop"


@pytest.mark.parametrize(
    ("pieces", "code"),
    [
        ((CHUNKED, HELLO, b"0\r\n\r\n"), "early_end"),
        ((CHUNKED, HELLO, DONE), "early_end"),
        ((CHUNKED, HELLO), "cut"),
        ((CHUNKED, HELLO, FINISH[:20]), "cut"),
        ((CHUNKED, HELLO, b'1c\r\ndata: {"error":{"code":503}}\r\n2\r\n\n\n\r\n'), "overloaded"),
        ((CHUNKED, HELLO, b"9\r\ndata: }\n\n\r\n"), "garbled"),
    ],
)
async def test_broken_streams(pieces: tuple[bytes, ...], code: str) -> None:
    """Clean early end, cut, error event, garbage: each has its name and keeps the text."""
    error = await failing(writes(*pieces))
    assert (error.code, error.retryable, error.sent) == (code, True, True)
    assert [part.text for part in error.partial if isinstance(part, Text)] == ["Hello"]


async def test_not_sse() -> None:
    """HTML where a stream should be is never an answer."""
    html = b"<html><body>welcome</body></html>"
    error = await failing(writes(b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\nconnection: close\r\n\r\n", html))
    assert error.code == "early_end"
    assert (await failing(writes(b"SSH-2.0-OpenSSH_9.2\r\n"))).code == "garbled"


@pytest.mark.parametrize(
    ("status", "body", "code", "retryable"),
    [
        ("429 Too Many Requests", {"error": {"message": "slow down", "type": "requests"}}, "rate_limited", True),
        ("429 Too Many Requests", {"error": {"message": "x", "code": "insufficient_quota"}}, "quota", False),
        ("529 Overloaded", {"error": {"type": "overloaded_error", "message": "x"}}, "overloaded", True),
        ("503 Unavailable", {}, "overloaded", True),
        ("500 Oops", {"error": {"message": "x"}}, "server_error", True),
        ("400 Bad", {"error": {"message": "x", "code": "context_length_exceeded"}}, "context_overflow", False),
        ("400 Bad", {"error": {"message": "prompt is too long: 9 tokens > 8 maximum"}}, "context_overflow", False),
        ("401 No", {"error": {"message": "bad key"}}, "auth", False),
        ("404 Lost", {"error": {"message": "no such model"}}, "not_found", False),
        ("302 Moved", {}, "bad_request", False),
    ],
)
async def test_statuses(status: str, body: object, code: str, retryable: bool) -> None:
    """Each status has its name; the provider's own word is finer."""
    error = await failing(answers(status, json.dumps(body).encode(), b"retry-after: 7"))
    assert (error.code, error.retryable, error.status) == (code, retryable, int(status[:3]))
    assert error.retry_after_s == 7.0


@pytest.mark.parametrize("wire", ["openai-chat", "openai", "anthropic"])
@pytest.mark.parametrize("long", [0, 1_960])
async def test_a_key_that_is_echoed_is_in_no_error(wire: str, long: int) -> None:
    """A provider or proxy that quotes our key does not bring it into the journal, not even cut in half."""
    key, token = "sk-very-secret-0123456789", "team-token-0123456789"
    echo = {"error": {"type": "auth", "message": f"{'x' * long} Incorrect: Bearer {key}; {token}"}}
    for status in ("401 No", "200 OK"):
        async with provider(answers(status, json.dumps(echo).encode())) as base_url:
            endpoint = Endpoint(base_url, key, (("x-team-token", token),))
            client = open_client(wire, endpoint, pool=HttpPool())
            with pytest.raises(ModelError) as caught:
                await client.call(REQUEST, timeouts=Timeouts(), on_deltas=None)
            await client.aclose()
        assert "sk-very" not in str(caught.value)
        assert "team-token" not in str(caught.value)
        assert long or "Incorrect: Bearer [key]; [key]" in str(caught.value)


async def test_timeouts() -> None:
    """No first byte, a stall, too long in all: each is its own timeout."""
    first = await failing(writes_then_waits(), Timeouts(connect_s=0.05, first_byte_s=0.05))
    assert (first.code, first.partial) == ("timeout_first_byte", ())
    idle = await failing(writes_then_waits(CHUNKED, HELLO), Timeouts(idle_s=0.1))
    assert idle.code == "timeout_idle"
    assert idle.partial
    assert (await failing(writes_then_waits(CHUNKED, HELLO), Timeouts(total_s=0.1))).code == "timeout_total"


async def test_no_connection() -> None:
    """Refused: nothing was sent, so nothing can have been billed."""
    async with provider(writes()) as base_url:
        pass
    with pytest.raises(ModelError) as caught:
        await call(base_url)
    assert (caught.value.code, caught.value.sent, caught.value.retryable) == ("connect", False, True)


async def test_cancelling_passes_through() -> None:
    """A cancelled call is cancelled, not failed."""
    began = asyncio.Event()

    async def script(writer: asyncio.StreamWriter) -> None:
        writer.writelines([CHUNKED, HELLO])
        began.set()
        await asyncio.Event().wait()

    async with provider(script) as base_url:
        task = asyncio.create_task(call(base_url))
        await began.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
