"""The batch clients against the simulated provider, and against servers that answer badly."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from stanchion.core.errors import ModelError
from stanchion.core.message import USER, Message, ModelRequest, Text, text_of
from stanchion.model.anthropic_batch import AnthropicBatches
from stanchion.model.batch import BatchClient, BatchItem, BatchOutcome
from stanchion.model.client import Endpoint
from stanchion.model.http import HttpPool
from stanchion.model.openai_batch import OpenAIBatches
from stanchion.model.openai_chat import OpenAIChat
from stanchion.model.openai_responses import OpenAIResponses
from stanchion.sim import Reply, Rule, Script, SimServer, SimSettings, When
from stanchion.sim.faults import Fault, FaultPlan
from tests.waiting import until

KEY = "sim-key-that-nobody-may-read"
SCRIPT = Script(
    rules=(
        Rule(when=When(user="fail"), reply=Reply(fault=FaultPlan(kind=Fault.OVERLOADED))),
        Rule(when=When(user="say (?P<what>.+)"), reply=Reply(text="${match.what}")),
    )
)


@pytest.fixture
async def sim() -> AsyncIterator[SimServer]:
    """A provider whose batches end at once."""
    server = SimServer(SimSettings(script=SCRIPT, batch_s=0.0))
    await server.start()
    yield server
    await server.stop()


def client_of(kind: str, base_url: str) -> BatchClient:
    """Make a client."""
    pool, openai = HttpPool(), Endpoint(f"{base_url}/v1", KEY)
    match kind:
        case "anthropic":
            return AnthropicBatches(Endpoint(base_url, KEY), pool)
        case "chat":
            return OpenAIBatches(OpenAIChat(), openai, pool)
        case _:
            return OpenAIBatches(OpenAIResponses(), openai, pool)


KINDS = ("anthropic", "chat", "responses")


def request(text: str) -> ModelRequest:
    """Ask a model for something."""
    return ModelRequest(model="any", messages=(Message("user", (Text(text, USER),)),), max_output_tokens=200_000)


async def outcomes(client: BatchClient, batch: str) -> dict[str, BatchOutcome]:
    """Wait for the end of a batch and read it."""
    await until(lambda: client.state(batch), lambda state: state == "ended")
    return {outcome.id: outcome async for outcome in client.outcomes(batch)}


@pytest.mark.parametrize("kind", KINDS)
async def test_each_request_gets_its_own_answer(sim: SimServer, kind: str) -> None:
    """Two answers and a failure come back by their ids, the answers as the wire itself would have them."""
    client = client_of(kind, sim.base_url)
    long = "x" * 700_000  # longer than any read buffer
    items = [BatchItem(name, client.encode(request(text))) for name, text in (("a", "say one"), ("b", "fail"))]
    items.append(BatchItem("c", client.encode(request(f"say {long}"))))
    batch = await client.submit(items, name="tray-1")
    found = await outcomes(client, batch)
    await client.aclose()
    assert set(found) == {"a", "b", "c"}
    first = found["a"].response
    assert first is not None
    assert text_of(first.parts) == "one"
    assert first.usage is not None
    error = found["b"].error
    assert error is not None
    assert error.code in ("overloaded", "server_error")
    assert error.retryable
    last = found["c"].response
    assert last is not None
    assert text_of(last.parts) == long


@pytest.mark.parametrize("kind", KINDS)
async def test_a_batch_that_is_not_there_is_gone(sim: SimServer, kind: str) -> None:
    """A provider forgets batches; that is an answer, not a failure."""
    client = client_of(kind, sim.base_url)
    assert await client.state("batch_of_long_ago") == "gone"
    await client.aclose()


async def test_openais_batch_is_found_by_our_name(sim: SimServer) -> None:
    """After a hand-in that was cut it can be told whether it had arrived."""
    client = client_of("chat", sim.base_url)
    items = [BatchItem("a", client.encode(request("say one")))]
    batch = await client.submit(items, name="tray-7")
    assert await client.find("tray-7") == batch
    assert await client.find("tray-8") is None
    await client.aclose()


@pytest.fixture
async def rude() -> AsyncIterator[str]:
    """A server that refuses everything and echoes the key."""

    async def refuse(asked: web.Request) -> web.Response:
        key = asked.headers.get("x-api-key", "") + asked.headers.get("authorization", "")
        return web.json_response({"error": {"type": "authentication_error", "message": f"bad key {key}"}}, status=401)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", refuse)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_refusal_is_an_error_without_our_key(rude: str, kind: str) -> None:
    """The error says what the provider said, and not the key that it echoed (I6)."""
    client = client_of(kind, rude)
    with pytest.raises(ModelError, match="bad key") as raised:
        await client.submit([BatchItem("a", client.encode(request("say one")))], name="tray-1")
    await client.aclose()
    assert raised.value.code == "auth"
    assert KEY not in str(raised.value)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_server_that_is_not_there_was_sent_nothing(unused_tcp_port: int, kind: str) -> None:
    """A refused connection is certain: nothing was handed in."""
    client = client_of(kind, f"http://127.0.0.1:{unused_tcp_port}")
    with pytest.raises(ModelError) as raised:
        await client.submit([BatchItem("a", client.encode(request("say one")))], name="tray-1")
    await client.aclose()
    assert not raised.value.sent
