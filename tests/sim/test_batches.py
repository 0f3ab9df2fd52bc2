"""The vendors' SDKs use the simulated batch APIs unmodified, and what they bill is counted apart."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import anthropic
import openai
import pytest

from stanchion.sim import Reply, Rule, Script, SimServer, SimSettings, When
from stanchion.sim.faults import Fault, FaultPlan
from tests.waiting import until

SCRIPT = Script(
    rules=(
        Rule(when=When(user="fail"), reply=Reply(text="never said", fault=FaultPlan(kind=Fault.OVERLOADED))),
        Rule(when=When(user="count to (?P<n>\\d+)"), reply=Reply(text="I counted to ${match.n}.")),
    ),
)


@pytest.fixture
async def sim() -> AsyncIterator[SimServer]:
    """A provider whose batches take a twentieth of a second."""
    server = SimServer(SimSettings(script=SCRIPT, batch_s=0.05))
    await server.start()
    yield server
    await server.stop()


def params(text: str) -> Any:
    """Ask for something, in a form that both vendors take."""
    return {"model": "claude-test", "max_tokens": 200, "messages": [{"role": "user", "content": text}]}


async def ended(look: Any) -> Any:
    """Ask until the batch is over: the API is one to be polled."""

    def is_over(batch: Any) -> bool:
        said = batch.model_dump()
        return bool(said.get("ended_at") or said.get("completed_at"))

    return await until(look, is_over)


async def test_anthropics_sdk_runs_a_batch(sim: SimServer) -> None:
    """Two requests, one of which fails, come back by their custom ids."""
    async with anthropic.AsyncAnthropic(base_url=sim.base_url, api_key="sim-key", max_retries=0) as client:
        batches = client.messages.batches
        asked: Any = [
            {"custom_id": "one", "params": params("count to 7")},
            {"custom_id": "two", "params": params("fail")},
        ]
        batch = await batches.create(requests=asked)
        assert batch.processing_status == "in_progress"
        assert batch.request_counts.processing == 2
        batch = await ended(lambda: batches.retrieve(batch.id))
        assert (batch.request_counts.succeeded, batch.request_counts.errored) == (1, 1)
        results = {line.custom_id: line.result.to_dict() async for line in await batches.results(batch.id)}
        one, two = results["one"], results["two"]
        assert (one["type"], two["type"]) == ("succeeded", "errored")
        assert one["message"]["content"][0]["text"] == "I counted to 7."  # type: ignore[index]
        assert two["error"]["error"]["type"] == "overloaded_error"  # type: ignore[index]
        assert [found.id async for found in batches.list()] == [batch.id]
    total = sim.bill.view().total
    assert (total.requests, total.batch_requests, total.refused) == (1, 1, 1)
    assert total.batch_output_tokens == total.output_tokens > 0


async def test_openais_sdk_runs_a_batch(sim: SimServer) -> None:
    """A file of requests becomes a file of answers, and one of errors."""
    async with openai.AsyncOpenAI(base_url=sim.openai_base_url, api_key="sim-key", max_retries=0) as client:
        lines = [
            {"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": params(text)}
            for name, text in (("one", "count to 3"), ("two", "fail"))
        ]
        data = "\n".join(json.dumps(line) for line in lines).encode()
        sent = await client.files.create(file=("in.jsonl", data), purpose="batch")
        made = await client.batches.create(
            input_file_id=sent.id, endpoint="/v1/chat/completions", completion_window="24h", metadata={"tray": "t1"}
        )
        batch = await ended(lambda: client.batches.retrieve(made.id))
        assert (batch.status, batch.metadata) == ("completed", {"tray": "t1"})
        answers = [json.loads(line) for line in (await client.files.content(batch.output_file_id)).text.splitlines()]
        assert [line["custom_id"] for line in answers] == ["one"]
        assert answers[0]["response"]["body"]["choices"][0]["message"]["content"] == "I counted to 3."
        errors = [json.loads(line) for line in (await client.files.content(batch.error_file_id)).text.splitlines()]
        assert [(line["custom_id"], line["response"]["status_code"]) for line in errors] == [("two", 529)]


async def test_a_cancelled_batch_answers_nothing(sim: SimServer) -> None:
    """What was not answered is `canceled`, and not billed."""
    async with anthropic.AsyncAnthropic(base_url=sim.base_url, api_key="sim-key", max_retries=0) as client:
        asked: Any = [{"custom_id": "one", "params": params("count to 7")}]
        batch = await client.messages.batches.create(requests=asked)
        await client.messages.batches.cancel(batch.id)
        batch = await ended(lambda: client.messages.batches.retrieve(batch.id))
        assert batch.request_counts.canceled == 1
    assert sim.bill.view().total.requests == 0


async def test_bad_batches_are_refused_by_the_field(sim: SimServer) -> None:
    """Twice the same custom id, an unknown endpoint, and another key's batch."""
    async with anthropic.AsyncAnthropic(base_url=sim.base_url, api_key="sim-key", max_retries=0) as client:
        asked: Any = [{"custom_id": "one", "params": params("a")}] * 2
        with pytest.raises(anthropic.BadRequestError, match="unique"):
            await client.messages.batches.create(requests=asked)
        batch = await client.messages.batches.create(requests=asked[:1])
    async with anthropic.AsyncAnthropic(base_url=sim.base_url, api_key="sim-other", max_retries=0) as other:
        with pytest.raises(anthropic.NotFoundError):
            await other.messages.batches.retrieve(batch.id)
    async with openai.AsyncOpenAI(base_url=sim.openai_base_url, api_key="sim-key", max_retries=0) as client:
        with pytest.raises(openai.BadRequestError, match="endpoint"):
            await client.batches.create(input_file_id="x", endpoint="/v1/moderations", completion_window="24h")
