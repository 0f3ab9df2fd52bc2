"""HTTP failures of real clients against a real server: what is definite, what is in doubt, when to try again."""

from __future__ import annotations

import asyncio
import socket
import urllib.request
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from stanchion.toolbox.answer import Failure, ToolContext
from stanchion.toolbox.function import tool
from stanchion.toolbox.registry import Registry

CONTEXT = ToolContext(key="k1")


async def _answer(request: web.Request) -> web.StreamResponse:
    what = request.match_info["what"]
    if what == "cut":
        assert request.transport is not None
        request.transport.close()
        return web.Response()
    headers = {"Retry-After": request.query["after"]} if "after" in request.query else {}
    return web.Response(status=int(what), text="said", headers=headers)


@pytest.fixture
async def address() -> AsyncIterator[str]:
    """A server that answers /503 with 503, and /cut by closing the connection."""
    app = web.Application()
    app.router.add_post("/{what}", _answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


@pytest.fixture
def nowhere() -> str:
    """An address at which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}/x"


@tool(effect="write")
async def by_aiohttp(url: str, *, key: str) -> str:
    async with aiohttp.ClientSession(raise_for_status=True) as session, session.post(url) as response:
        return await response.text()


@tool(effect="write")
async def by_httpx(url: str, *, key: str) -> str:
    httpx: Any = pytest.importorskip("httpx2")
    async with httpx.AsyncClient(trust_env=False) as client:
        return (await client.post(url)).raise_for_status().text


@tool(effect="write")
def by_urllib(url: str, *, key: str) -> str:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(urllib.request.Request(url, method="POST")) as response:
            return response.read().decode()
    except urllib.request.HTTPError as error:
        error.close()
        raise


TOOLS = Registry([by_aiohttp, by_httpx, by_urllib])
NAMES = [spec.name for spec in TOOLS.specs[:-1]]


async def post(name: str, url: str) -> Failure:
    async with Registry([by_aiohttp, by_httpx, by_urllib]) as registry:
        outcome = await registry.run(name, b'{"url":"%s"}' % url.encode(), CONTEXT)
    assert isinstance(outcome, Failure), outcome
    return outcome


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("status", "doubt", "again"),
    [
        (400, False, False),
        (404, False, False),
        (409, False, False),
        (408, False, True),
        (429, False, True),
        (500, True, True),
        (503, True, True),
    ],
)
async def test_a_status_says_what_was_done(address: str, name: str, status: int, doubt: bool, again: bool):
    """The client does not matter, only the status it carries."""
    outcome = await post(name, f"{address}/{status}")
    assert (outcome.code, outcome.in_doubt, outcome.retryable) == (f"http_{status}", doubt, again)
    assert outcome.text.startswith(f"HTTP {status}: ")
    assert outcome.retry_after_s is None


@pytest.mark.parametrize("name", NAMES)
async def test_retry_after_is_read(address: str, name: str):
    """Seconds and dates; a date that has passed is now; nonsense is nothing."""
    assert (await post(name, f"{address}/429?after=7")).retry_after_s == 7
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    found = (await post(name, f"{address}/503?after={soon.replace(' ', '%20')}")).retry_after_s
    assert found is not None
    assert 50 < found <= 60
    assert (await post(name, f"{address}/503?after=Wed,%2021%20Oct%202015%2007:28:00%20GMT")).retry_after_s == 0
    assert (await post(name, f"{address}/503?after=soon")).retry_after_s is None
    assert (await post(name, f"{address}/503?after=99999999999")).retry_after_s == 86_400


@pytest.mark.parametrize("name", NAMES)
async def test_a_cut_connection_is_in_doubt(address: str, name: str):
    """The request had left; its answer did not come."""
    outcome = await post(name, f"{address}/cut")
    assert (outcome.code, outcome.in_doubt, outcome.retryable) == ("tool_cut", True, True)


@pytest.mark.parametrize("name", NAMES)
async def test_a_refused_connection_did_nothing(nowhere: str, name: str):
    """Nothing was sent."""
    outcome = await post(name, nowhere)
    assert (outcome.code, outcome.in_doubt, outcome.retryable) == ("tool_unreachable", False, True)


async def test_a_foreign_exception_with_broken_properties_is_still_an_answer():
    """Whatever hides behind an attribute of an exception cannot hurt the worker."""

    class Broken(Exception):
        @property
        def response(self) -> Any:
            raise RuntimeError("no response")

        @property
        def status_code(self) -> Any:
            raise RuntimeError("no status")

        status = True

    @tool(effect="write")
    async def put() -> None:
        await asyncio.sleep(0)
        raise Broken("x")

    async with Registry([put]) as registry:
        assert await registry.run("put", b"{}", CONTEXT) == Failure("tool_crashed", "Broken: x", in_doubt=True)
