"""Bad input: each is an error of our form with the right status and the field's name, and the server goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest
import pytest_asyncio

from tests.server.serving import QUIET, Served, served

OK = {"agent": "support", "input": "Hi"}


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Served]:
    """One server for all: none of what comes may harm it."""
    settings = msgspec.structs.replace(QUIET, body_timeout_s=0.3)
    async with served(tmp_path_factory.mktemp("input"), settings=settings) as server:
        yield server


def media(**more: Any) -> Any:
    return OK | {"input": [{"type": "text", "text": "see"}, {"type": "media", "mime": "image/png"} | more]}


BODIES = {
    "unknown field": (OK | {"inptu": 1}, 422, "inptu", "did you mean 'input'"),
    "unknown field alone": (OK | {"zzz": 1}, 422, "zzz", "there are agent, input"),
    "misspelt for missing": ({"agnet": "support", "input": "Hi"}, 422, "agnet", "did you mean 'agent'"),
    "missing": ({"agent": "support"}, 422, "input", "is required"),
    "wrong type": (OK | {"agent": 5}, 422, "agent", "string"),
    "null": (OK | {"agent": None}, 422, "agent", "string"),
    "empty agent": (OK | {"agent": ""}, 422, "agent", "at least 1"),
    "no such agent": (OK | {"agent": "nobody"}, 404, "agent", "support"),
    "input a number": (OK | {"input": 5}, 422, "input", "a string, or a list"),
    "input empty": (OK | {"input": ""}, 422, "input", "at least 1"),
    "input white": (OK | {"input": "  \n"}, 422, "input", "empty"),
    "no parts": (OK | {"input": []}, 422, "input", "at least 1"),
    "part unknown": (OK | {"input": [{"type": "video", "url": "x"}]}, 422, "input[0]", "text"),
    "part without type": (OK | {"input": [{"text": "x"}]}, 422, "input[0]", "type"),
    "part a string": (OK | {"input": ["hi"]}, 422, "input[0]", ""),
    "part text wrong": (OK | {"input": [{"type": "text", "text": 1}]}, 422, "input[0].text", "string"),
    "part field unknown": (OK | {"input": [{"type": "text", "text": "x", "data": "y"}]}, 422, "input[0].data", "unknown"),
    "media without source": (media(), 422, "input[1]", "exactly one of"),
    "media with two": (media(data="aGk=", file_id="f"), 422, "input[1]", "exactly one of"),
    "media not base64": (media(data="%%%"), 422, "input[1]", "base64"),
    "media bad mime": (media(mime="png", data="aGk="), 422, "input[1].mime", "pattern"),
    "media file url": (media(url="file:///etc/passwd"), 422, "input[1].url", "pattern"),
    "limits a list": (OK | {"limits": []}, 422, "limits", ""),
    "limit unknown": (OK | {"limits": {"dollars": 1}}, 422, "limits.dollars", "unknown field"),
    "usd negative": (OK | {"limits": {"usd": "-1"}}, 422, "limits.usd", "negative"),
    "usd words": (OK | {"limits": {"usd": "much"}}, 422, "limits.usd", "digits"),
    "usd a list": (OK | {"limits": {"usd": [1]}}, 422, "limits.usd", ""),
    "usd true": (OK | {"limits": {"usd": True}}, 422, "limits.usd", ""),
    "usd nothing": (OK | {"limits": {"usd": 0}}, 422, "limits.usd", "above 0"),
    "usd without end": (b'{"agent":"support","input":"Hi","limits":{"usd":1e999}}', 422, "limits.usd", ""),
    "turns zero": (OK | {"limits": {"turns": 0}}, 422, "limits.turns", "greater than or equal to 1"),
    "turns fraction": (OK | {"limits": {"turns": 1.5}}, 422, "limits.turns", "integer"),
    "turns text": (OK | {"limits": {"turns": "5"}}, 422, "limits.turns", "integer"),
    "turns huge": (b'{"agent":"support","input":"Hi","limits":{"turns":%d}}' % 10**40, 422, "limits.turns", ""),
    "wall infinite": (b'{"agent":"support","input":"Hi","limits":{"wall_s":1e999}}', 422, "limits.wall_s", "finite"),
    "mode unknown": (OK | {"mode": "later"}, 422, "mode", "'submit', 'wait' or 'stream'"),
    "wait with stream": (OK | {"mode": "stream", "wait_s": 5}, 422, "wait_s", "wait"),
    "wait too long": (OK | {"wait_s": 100_000}, 422, "wait_s", "at most 600"),
    "wait negative": (OK | {"wait_s": -1}, 422, "wait_s", "greater than 0"),
    "busy unknown": (OK | {"if_busy": "wait"}, 422, "if_busy", "'reject' or 'queue'"),
    "dry run text": (OK | {"dry_run": "yes"}, 422, "dry_run", "boolean"),
    "session with slash": (OK | {"session": "a/b"}, 422, "session", "letters"),
    "user with newline": (OK | {"user": "a\nb"}, 422, "user", "letters"),
    "deadline without zone": (OK | {"deadline": "2030-01-01T00:00:00"}, 422, "deadline", "zone"),
    "deadline a number": (OK | {"deadline": 5}, 422, "deadline", "zone"),
    "deadline past": (OK | {"deadline": "2020-01-01T00:00:00Z"}, 422, "deadline", "future"),
    "deadline nonsense": (OK | {"deadline": "soon"}, 422, "deadline", "zone"),
    "not json": (b"agent=support", 400, "", "line 1 column 1"),
    "cut json": (b'{"agent": "support", ', 400, "", "line 1 column"),
    "comma too many": (b'{"agent": "support",}', 400, "", "trailing comma at line 1 column 21"),
    "empty": (b"", 400, "", "empty"),
    "a list": (b"[]", 400, "", "object"),
    "a string": (b'"hi"', 400, "", "object"),
    "nan": (b'{"agent":"support","input":NaN}', 400, "", "line 1 column 28"),
    "infinity": (b'{"agent":"support","input":"x","limits":{"wall_s":Infinity}}', 400, "", "line 1"),
    "deep": (b'{"agent":' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400, "", "recursion limit"),
    "not utf-8": (b'{"agent":"support","input":"\xff\xfe"}', 400, "", "unicode"),
    "utf-16": ('{"agent":"support"}'.encode("utf-16"), 400, "", "not valid JSON"),
    "lone surrogate": (rb'{"agent":"support","input":"\ud800"}', 400, "", "hex escape"),
    "a number without end": (b'{"agent":"support","input":1' + b"0" * 5000 + b"}", 400, "", "out of range"),
    "too large": (b'{"agent":"support","input":"' + b"x" * 1_000_001 + b'"}', 413, "", "1,000,000 bytes"),
}  # fmt: skip


@pytest.mark.parametrize("name", BODIES)
async def test_a_bad_start_is_refused_by_name(server: Served, name: str) -> None:
    """Right status, the field, a message that helps; and nothing was started."""
    body, status, field, words = BODIES[name]
    before = (await server.call("GET", "/v1/runs")).json
    said = await server.call("POST", "/v1/runs", body)
    assert (said.status, said.error["field"]) == (status, field), said.raw
    assert words in said.error["message"]
    assert "id" not in said.error
    assert (await server.call("GET", "/v1/runs")).json == before


QUERIES = {
    "/v1/runs?limit=0": "limit",
    "/v1/runs?limit=201": "limit",
    "/v1/runs?limit=x": "limit",
    "/v1/runs?limit=99999999999999999999999999": "limit",
    "/v1/runs?status=dead": "status",
    "/v1/runs?sesion=s1": "sesion",
    "/v1/sessions?limit=-1": "limit",
    "/v1/runs/{run}/events?after=-1": "after",
    "/v1/runs/{run}/events?after=x": "after",
    "/v1/runs/{run}/events?after=1.5": "after",
    "/v1/runs/{run}/events?after=10": "after",
    "/v1/runs/{run}/events?after=99999999999999999999999999": "after",
    "/v1/runs/{run}/events?deltas=maybe": "deltas",
    "/v1/runs/{run}/events?format=xml": "format",
    "/v1/runs/{run}/events?format=json&limit=5000": "limit",
    "/v1/runs/{run}/events?form=json": "form",
}


@pytest.mark.parametrize("path", QUERIES)
async def test_a_bad_query_is_refused_by_name(server: Served, path: str) -> None:
    """400 and the parameter's name."""
    run = (await server.start())["run"]
    await server.until(run, "ended")
    said = await server.call("GET", path.format(run=run))
    assert (said.status, said.error["field"]) == (400, QUERIES[path]), said.raw


@pytest.mark.parametrize("value", ["x", "-1", "1.5", "10", "٣", "9" * 30, "0x1"])
async def test_a_bad_last_event_id_is_refused(server: Served, value: str) -> None:
    """What was never an id of this run is not taken for one."""
    run = (await server.start())["run"]
    await server.until(run, "ended")
    said = await server.call("GET", f"/v1/runs/{run}/events", headers={"last-event-id": value})
    assert (said.status, said.error["field"]) == (400, "Last-Event-ID")


@pytest.mark.parametrize("value", ["", "a b", "x" * 256, "ö"])
async def test_a_bad_idempotency_key_is_refused(server: Served, value: str) -> None:
    """An empty or unprintable key would be no key at all."""
    said = await server.call("POST", "/v1/runs", OK, headers={"idempotency-key": value})
    assert (said.status, said.error["field"].lower()) == (400, "idempotency-key")


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "application/json; charset=utf-16", "json", ""]
)
async def test_a_body_that_is_not_json_by_its_type_is_refused(server: Served, kind: str) -> None:
    """415, and what to send. A form post of another site's page would come so."""
    said = await server.call("POST", "/v1/runs", OK, headers={"content-type": kind})
    assert (said.status, said.error["code"]) == (415, "unsupported_media_type")
    assert "application/json" in said.error["message"]


@pytest.mark.parametrize(
    "kind", ["application/json", "Application/JSON; charset=UTF-8", 'application/json;charset="utf-8"']
)
async def test_json_is_taken_however_it_is_written(server: Served, kind: str) -> None:
    """The type is compared as HTTP says."""
    assert (await server.call("POST", "/v1/runs", OK, headers={"content-type": kind})).status == 202


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404), ("GET", "/v2/runs", 404), ("GET", "/v1/runs/", 404), ("GET", "/docs", 404),
        ("DELETE", "/v1/runs", 405), ("PUT", "/v1/runs/x/events", 405), ("POST", "/health", 405),
        ("GET", "/v1/runs/nobody", 404), ("GET", "/v1/runs/nobody/events", 404), ("GET", "/v1/runs/%00", 404),
        ("GET", "/v1/runs/..%2f..%2fetc", 404), ("GET", "/v1/runs/%ff%fe", 404), ("GET", "/v1/runs/" + "x" * 201, 400),
        ("POST", "/v1/runs/nobody/cancel", 404), ("POST", "/v1/runs/nobody/revive", 404),
        ("GET", "/v1/budgets/", 404), ("GET", "/v1/budgets/tenant", 404),
    ],
)  # fmt: skip
async def test_what_is_not_there_is_said_so(server: Served, method: str, path: str, status: int) -> None:
    """No such path, no such method, no such thing: our form, and Allow where it belongs."""
    said = await server.call(method, path)
    assert said.status == status, said.raw
    assert said.error["message"]
    assert status != 405 or "allow" in said.headers


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("decisions", {"call": "3.0"}, "decision"), ("decisions", {"call": "3.0", "decision": "yes"}, "decision"),
        ("decisions", {"call": 3.0, "decision": "approve"}, "call"),
        ("decisions", {"call": "3.0", "decision": "edit", "arguments": "x"}, "arguments"),
        ("decisions", {"call": "3.0", "decision": "approve", "revision": -1}, "revision"),
        ("decisions", {"call": "3.0", "decision": "approve", "revision": True}, "revision"),
        ("decisions", b'{"call": "3.0", "decision": "edit", "arguments": {"a": 1e999}}', ""),
        ("messages", {}, "input"), ("messages", {"text": "Hi"}, "text"), ("messages", {"input": {"a": 1}}, "input"),
        ("cancel", {"why": "x"}, "why"), ("cancel", {"reason": 5}, "reason"), ("revive", {"by": None}, "by"),
    ],
)  # fmt: skip
async def test_bad_words_to_a_run_are_refused_by_name(server: Served, path: str, body: Any, field: str) -> None:
    """The form is checked before the run is looked at."""
    said = await server.call("POST", f"/v1/runs/any/{path}", body)
    assert (said.status in (400, 422), said.error["field"]) == (True, field), said.raw


@pytest.mark.parametrize("usd", ["x", -1, "0.0000000001", "1e3", 1e30, True, [], {}])
async def test_a_bad_budget_is_refused(server: Served, usd: Any) -> None:
    """An amount is exact dollars or null."""
    said = await server.call("PUT", "/v1/budgets/tenant", {"usd": usd})
    assert (said.status, said.error["field"]) == (422, "usd"), said.raw


# --- below JSON ---------------------------------------------------------------------------------------------------------


async def raw(server: Served, request: bytes) -> bytes:
    """Send bytes and read until the server closes or an answer is whole."""
    address = urlsplit(server.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        writer.write(request)
        async with asyncio.timeout(10):
            head = await reader.readuntil(b"\r\n\r\n")
            size = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            return head + await reader.readexactly(size)
    finally:
        writer.close()
        await writer.wait_closed()


POST = b"POST /v1/runs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


async def test_a_large_body_is_refused_before_it_is_sent(server: Served) -> None:
    """By its Content-Length alone."""
    answer = await raw(server, POST + b"Content-Length: 99999999999\r\n\r\n{")
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"body_too_large" in answer


async def test_a_large_body_in_chunks_is_refused_when_it_is_too_large(server: Served) -> None:
    """Without a Content-Length it is counted."""
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    answer = await raw(server, POST + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 20 + b"0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 413")


async def test_a_body_that_does_not_come_is_not_waited_for(server: Served) -> None:
    """408 after `body_timeout_s`."""
    answer = await raw(server, POST + b"Content-Length: 50\r\n\r\n{")
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"body_timeout" in answer


@pytest.mark.parametrize(
    "request_bytes",
    [b"nonsense\r\n\r\n", b"GET /\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n", POST + b"Content-Length: x\r\n\r\n"],
)
async def test_what_is_not_http_is_refused(server: Served, request_bytes: bytes) -> None:
    """400 from the protocol, and the server lives."""
    answer = await raw(server, request_bytes)
    assert answer.startswith(b"HTTP/1.1 400")
    assert b"Traceback" not in answer
    assert (await server.call("GET", "/health")).status == 200


async def test_endless_headers_are_not_kept(server: Served) -> None:
    """64 KB of head, in one header or in many, and no more."""
    for head in (b"X: " + b"x" * 70_000 + b"\r\n", b"".join(b"X%d: y\r\n" % n for n in range(20_000))):
        answer = await raw(server, b"GET /health HTTP/1.1\r\nHost: localhost\r\n" + head + b"\r\n")
        assert answer.startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize("begun", [b"", b"GET /hea"])
async def test_a_head_that_does_not_come_is_not_waited_for(
    server: Served, begun: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that is only held is closed, as the first or as a later request."""
    monkeypatch.setattr("stanchion.server.protocol.HEAD_TIMEOUT_S", 0.1)
    address = urlsplit(server.url)
    for before in (b"", b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n") if begun else (b"",):
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        writer.write(before)
        if before:
            await reader.readuntil(b"}")
        writer.write(begun)
        assert await asyncio.wait_for(reader.read(), 10) == b""
        writer.close()
        await writer.wait_closed()


async def test_a_fault_of_ours_is_logged_under_the_id_that_is_told(
    server: Served, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """500 tells nothing of how we are built; the log has it all."""

    async def broken(*_: object, **__: object) -> None:
        raise RuntimeError("the secret of the house")

    monkeypatch.setattr(server.runtime, "view", broken)
    said = await server.call("GET", "/v1/runs/any")
    assert (said.status, said.error["code"]) == (500, "internal")
    assert "secret of the house" not in said.raw.decode()
    record = next(record for record in caplog.records if getattr(record, "id", "") == said.error["id"])
    assert record.exc_info is not None
    assert "secret of the house" in str(record.exc_info[1])


async def test_a_store_that_fails_is_503_and_may_be_tried_again(
    server: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The store's failures are ours, have an id, and are not for ever; each is a line of the log, and not a page."""
    from stanchion.core.errors import StoreFull

    async def full(*_: object, **__: object) -> None:
        raise StoreFull("/srv/secret/agents.db: no room; free space on it")

    monkeypatch.setattr(server.runtime, "start", full)
    said = await server.call("POST", "/v1/runs", OK)
    assert (said.status, said.error["code"], said.error["retryable"]) == (503, "store_full", True)
    record = next(record for record in caplog.records if getattr(record, "id", "") == said.error["id"])
    assert "/srv/secret/agents.db: no room; free space" in record.getMessage()
    assert "/srv" not in said.raw.decode()
    assert record.exc_info is None
    assert said.headers["retry-after"]
