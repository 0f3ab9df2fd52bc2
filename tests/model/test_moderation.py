"""The moderation client against the simulated provider, and against servers that answer badly."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from stanchion.core.errors import ConfigError, ModelError
from stanchion.model.client import Endpoint
from stanchion.model.moderation import OVERLAP, PIECE, OpenAIModerations, pieces_of
from stanchion.sim import ModerationRule, Script, SimServer, running_sim

KEY = "sim-key-that-nobody-may-read"
RULES = (
    ModerationRule(pattern="kill", categories=("violence",)),
    ModerationRule(pattern="maybe", categories=("hate",), score=0.3),
    ModerationRule(pattern="both", categories=("hate", "sexual")),
    ModerationRule(pattern="away", status=503, times=1),
    ModerationRule(pattern="barred", status=401),
)


@pytest.fixture
async def sim() -> AsyncIterator[SimServer]:
    """A provider that flags by rules."""
    async with running_sim(Script(moderations=RULES)) as server:
        yield server


@asynccontextmanager
async def client(base_url: str, **how: Any) -> AsyncIterator[Any]:
    """A client of an endpoint, closed behind the test."""
    made = OpenAIModerations(endpoint=Endpoint(base_url, KEY), **how).open({})
    try:
        yield made
    finally:
        await made.aclose()


async def test_what_is_flagged_is_named(sim: SimServer) -> None:
    """By category, and nothing is said of a text that is fine."""
    async with client(sim.openai_base_url) as asked:
        assert not (await asked.classify("good morning", "input")).flagged
        said = await asked.classify("I kill, both ways", "input")
        assert (said.flagged, said.categories, said.cost_nano_usd) == (True, ("hate", "sexual", "violence"), 0)


async def test_only_the_categories_that_count_do(sim: SimServer) -> None:
    """Those that are named, or those whose score reaches the author's own threshold."""
    async with client(sim.openai_base_url, categories=["sexual"]) as asked:
        assert not (await asked.classify("kill", "output")).flagged
        assert (await asked.classify("both", "output")).categories == ("sexual",)
    async with client(sim.openai_base_url, thresholds={"hate": 0.25}) as asked:
        assert (await asked.classify("maybe", "output")).categories == ("hate",)


async def test_a_long_text_is_looked_at_to_its_end(sim: SimServer) -> None:
    """In pieces that overlap, over several requests if need be."""
    text = "x " * 200_000 + "kill"
    async with client(sim.openai_base_url) as asked:
        assert (await asked.classify(text, "result")).categories == ("violence",)
    assert sim.moderations.requests == 2


@pytest.mark.parametrize("size", [0, 1, PIECE, PIECE + 1, 3 * PIECE])
def test_no_place_of_a_text_is_left_out(size: int) -> None:
    """Whatever stands within the overlap stands whole in some piece."""
    text = "".join(chr(97 + n % 26) for n in range(size))
    pieces = pieces_of(text)
    assert "".join([pieces[0], *(piece[OVERLAP:] for piece in pieces[1:])]) == text
    assert all(len(piece) <= PIECE for piece in pieces)


@pytest.mark.parametrize(("text", "code", "retryable"), [("away", "server_error", True), ("barred", "auth", False)])
async def test_a_failure_has_the_code_of_its_status(sim: SimServer, text: str, code: str, retryable: bool) -> None:
    """As that of a model call has."""
    async with client(sim.openai_base_url) as asked:
        with pytest.raises(ModelError) as raised:
            await asked.classify(text, "input")
    assert (raised.value.code, raised.value.retryable) == (code, retryable)


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b"[]", b'{"results":[]}', b'{"results":[{"flagged":"x"}]}', b'{"results":[{},{}]}'],
)
async def test_an_answer_that_cannot_be_read_is_a_failure(body: bytes) -> None:
    """Never "not flagged"."""

    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=body, content_type="application/json")

    app = web.Application()
    app.router.add_post("/v1/moderations", answer)
    async with TestServer(app) as server, client(str(server.make_url("/v1"))) as asked:
        with pytest.raises(ModelError) as raised:
            await asked.classify("text", "input")
    assert raised.value.code == "garbled"


async def test_our_key_is_taken_out_of_what_the_endpoint_echoes() -> None:
    """An error is journaled."""

    async def answer(request: web.Request) -> web.Response:
        said = f"no such key {request.headers['authorization']}"
        return web.json_response({"error": {"message": said}}, status=401)

    app = web.Application()
    app.router.add_post("/v1/moderations", answer)
    async with TestServer(app) as server, client(str(server.make_url("/v1"))) as asked:
        with pytest.raises(ModelError) as raised:
            await asked.classify("text", "input")
    assert KEY not in str(raised.value)


def test_without_a_key_it_is_not_opened() -> None:
    """Found when the process starts."""
    with pytest.raises(ConfigError, match="OPENAI_API_KEY"):
        OpenAIModerations().open({})


def test_a_threshold_is_a_score() -> None:
    """Above 0, at most 1."""
    with pytest.raises(ConfigError, match="thresholds"):
        OpenAIModerations(thresholds={"hate": 40})
