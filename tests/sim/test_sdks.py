"""The vendors' SDKs run unmodified against the sim, on all three wires."""

from __future__ import annotations

from typing import Any

import anthropic
import openai
import pytest

from stanchion.sim import (
    FaultPlan,
    Reply,
    ReplyCall,
    Rule,
    Script,
    SimServer,
    UsageOverride,
    When,
    running_sim,
)
from stanchion.sim.faults import Fault

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
SCRIPT = Script(
    rules=(
        Rule(
            when=When(user="weather in (?P<a>\\w+) and (?P<b>\\w+)"),
            reply=Reply(
                text="I look.",
                thinking="Two cities, two calls.",
                calls=(
                    ReplyCall(name="weather", arguments={"city": "${match.a}"}),
                    ReplyCall(name="weather", arguments={"city": "${match.b}"}),
                ),
            ),
        ),
        Rule(when=When(after="tool"), reply=Reply(text="They say: ${tool}", thinking="Now I know.")),
    ),
    default=Reply(text="Grüße aus dem Simulator, ${user}", thinking="Let me think."),
)


def claude(sim: SimServer, key: str = "sim-key") -> anthropic.AsyncAnthropic:
    """Make Anthropic's client."""
    return anthropic.AsyncAnthropic(base_url=sim.base_url, api_key=key, max_retries=0)


def gpt(sim: SimServer, key: str = "sim-key") -> openai.AsyncOpenAI:
    """Make OpenAI's client."""
    return openai.AsyncOpenAI(base_url=sim.openai_base_url, api_key=key, max_retries=0)


CLAUDE: dict[str, Any] = {
    "model": "claude-sim",
    "max_tokens": 4096,
    "messages": [{"role": "user", "content": "weather in Rome and Oslo"}],
    "tools": [{"name": "weather", "description": "Weather", "input_schema": SCHEMA}],
    "thinking": {"type": "enabled", "budget_tokens": 1024},
}
CHAT: dict[str, Any] = {
    "model": "gpt-sim",
    "messages": [{"role": "user", "content": "weather in Rome and Oslo"}],
    "tools": [{"type": "function", "function": {"name": "weather", "parameters": SCHEMA, "strict": True}}],
}
RESPONSES: dict[str, Any] = {
    "model": "gpt-sim",
    "input": [{"role": "user", "content": "weather in Rome and Oslo"}],
    "tools": [{"type": "function", "name": "weather", "parameters": SCHEMA, "strict": True}],
    "reasoning": {"effort": "low", "summary": "auto"},
    "include": ["reasoning.encrypted_content"],
    "store": False,
}


@pytest.mark.parametrize("stream", [False, True])
async def test_anthropic_tool_loop(stream: bool) -> None:
    """Thinking, text and parallel calls come whole and streamed, go back, and are answered."""
    async with running_sim(SCRIPT) as sim, claude(sim) as client:

        async def ask(body: dict[str, Any]) -> Any:
            if not stream:
                return await client.messages.create(**body)
            async with client.messages.stream(**body) as events:
                return await events.get_final_message()

        first = await ask(CLAUDE)
        assert [b.type for b in first.content] == ["thinking", "text", "tool_use", "tool_use"]
        assert [b.input for b in first.content[2:]] == [{"city": "Rome"}, {"city": "Oslo"}]
        assert first.content[0].thinking == "Two cities, two calls."
        assert first.stop_reason == "tool_use"
        results = [{"type": "tool_result", "tool_use_id": b.id, "content": "sun"} for b in first.content[2:]]
        history = [
            *CLAUDE["messages"],
            {"role": "assistant", "content": [b.model_dump(exclude_none=True) for b in first.content]},
            {"role": "user", "content": results},
        ]
        second = await ask({**CLAUDE, "messages": history})
        assert second.content[1].text == "They say: sun"
        assert second.stop_reason == "end_turn"
        bill = sim.bill.view().total
        assert bill.input_tokens == first.usage.input_tokens + second.usage.input_tokens
        assert bill.output_tokens == first.usage.output_tokens + second.usage.output_tokens


@pytest.mark.parametrize("stream", [False, True])
async def test_chat_tool_loop(stream: bool) -> None:
    """Text and parallel calls come whole and through the streaming helper, go back, and are answered."""
    async with running_sim(SCRIPT) as sim, gpt(sim) as client:

        async def ask(body: dict[str, Any]) -> Any:
            if not stream:
                return await client.chat.completions.create(**body)
            async with client.chat.completions.stream(**body, stream_options={"include_usage": True}) as events:
                return await events.get_final_completion()

        first = await ask(CHAT)
        message = first.choices[0].message
        assert message.content == "I look."
        assert [c.function.arguments for c in message.tool_calls] == ['{"city":"Rome"}', '{"city":"Oslo"}']
        assert first.choices[0].finish_reason == "tool_calls"
        calls = [
            {"id": c.id, "type": "function", "function": {"name": c.function.name, "arguments": c.function.arguments}}
            for c in message.tool_calls
        ]
        history = [
            *CHAT["messages"],
            {"role": "assistant", "content": message.content, "tool_calls": calls},
            *({"role": "tool", "tool_call_id": c["id"], "content": "rain"} for c in calls),
        ]
        second = await ask({**CHAT, "messages": history})
        assert second.choices[0].message.content == "They say: rain"
        bill = sim.bill.view().total
        assert bill.input_tokens == first.usage.prompt_tokens + second.usage.prompt_tokens
        assert bill.output_tokens == first.usage.completion_tokens + second.usage.completion_tokens


@pytest.mark.parametrize("stream", [False, True])
async def test_responses_tool_loop(stream: bool) -> None:
    """Reasoning, text and parallel calls come whole and through the streaming helper, go back, and are answered."""
    async with running_sim(SCRIPT) as sim, gpt(sim) as client:

        async def ask(body: dict[str, Any]) -> Any:
            if not stream:
                return await client.responses.create(**body)
            async with client.responses.stream(**body) as events:
                return await events.get_final_response()

        first = await ask(RESPONSES)
        assert [i.type for i in first.output] == ["reasoning", "message", "function_call", "function_call"]
        assert first.output[0].summary[0].text == "Two cities, two calls."
        assert first.output_text == "I look."
        assert [i.arguments for i in first.output[2:]] == ['{"city":"Rome"}', '{"city":"Oslo"}']
        sent = [i.to_dict() for i in first.output]
        for item in sent:
            item.pop("parsed_arguments", None)
            for part in item.get("content") or ():
                part.pop("parsed", None)
        outputs = [{"type": "function_call_output", "call_id": i.call_id, "output": "fog"} for i in first.output[2:]]
        second = await ask({**RESPONSES, "input": [*RESPONSES["input"], *sent, *outputs]})
        assert second.output_text == "They say: fog"
        assert second.status == "completed"
        bill = sim.bill.view().total
        assert bill.input_tokens == first.usage.input_tokens + second.usage.input_tokens
        assert bill.output_tokens == first.usage.output_tokens + second.usage.output_tokens
        assert bill.reasoning_tokens == first.usage.output_tokens_details.reasoning_tokens + (
            second.usage.output_tokens_details.reasoning_tokens
        )


async def test_streams_in_pieces(sim: SimServer) -> None:
    """Text comes in several deltas on each wire, and they join to the whole."""
    async with claude(sim) as a, gpt(sim) as o:
        async with a.messages.stream(
            model="m", max_tokens=99, messages=[{"role": "user", "content": "hello there"}]
        ) as events:
            texts = [text async for text in events.text_stream]
        chunks = await o.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "hello there"}], stream=True
        )
        parts = [c.choices[0].delta.content or "" async for c in chunks]
        stream = await o.responses.create(model="m", input="hello there", stream=True)
        deltas = [e.delta async for e in stream if e.type == "response.output_text.delta"]
    assert len(texts) > 5
    assert "".join(texts) == "".join(parts) == "".join(deltas)
    assert "[simulated]" in "".join(texts)


ERRORS: list[tuple[Fault, type[Exception], type[Exception]]] = [
    (Fault.RATE_LIMITED, anthropic.RateLimitError, openai.RateLimitError),
    (Fault.QUOTA, anthropic.RateLimitError, openai.RateLimitError),
    (Fault.OVERLOADED, anthropic.APIStatusError, openai.InternalServerError),
    (Fault.SERVER_ERROR, anthropic.InternalServerError, openai.InternalServerError),
    (Fault.UNAVAILABLE, anthropic.APIStatusError, openai.InternalServerError),
    (Fault.CONTEXT_OVERFLOW, anthropic.BadRequestError, openai.BadRequestError),
    (Fault.AUTH, anthropic.AuthenticationError, openai.AuthenticationError),
    (Fault.CUT_FIRST_BYTE, anthropic.APIConnectionError, openai.APIConnectionError),
]


@pytest.mark.parametrize(("fault", "of_anthropic", "of_openai"), ERRORS)
async def test_errors(fault: Fault, of_anthropic: type[Exception], of_openai: type[Exception]) -> None:
    """A fault is the SDK's own exception, with the provider's body."""
    async with running_sim(faults=[FaultPlan(fault)]) as sim, claude(sim) as a, gpt(sim) as o:
        with pytest.raises(of_anthropic):
            await a.messages.create(model="m", max_tokens=9, messages=[{"role": "user", "content": "x"}])
        with pytest.raises(of_openai):
            await o.chat.completions.create(model="m", messages=[{"role": "user", "content": "x"}])
        with pytest.raises(of_openai):
            await o.responses.create(model="m", input="x")
        assert sim.bill.view().total.input_tokens == 0
        assert sim.bill.view().total.faults == {fault: 3}


async def test_sdk_retries_recover() -> None:
    """The SDKs' own retries get past a fault that strikes twice, as Retry-After tells them."""
    plan = FaultPlan(Fault.RATE_LIMITED, times=2, retry_after_s=0.01)
    async with running_sim(faults=[plan]) as sim:
        async with anthropic.AsyncAnthropic(base_url=sim.base_url, api_key="k", max_retries=2) as a:
            message = await a.messages.create(model="m", max_tokens=99, messages=[{"role": "user", "content": "hello"}])
        assert message.stop_reason == "end_turn"
        assert sim.bill.view().total.refused == 2


async def test_error_inside_a_stream() -> None:
    """An error event inside a 200 raises in each SDK."""
    async with running_sim(faults=[FaultPlan(Fault.ERROR_EVENT)]) as sim, claude(sim) as a, gpt(sim) as o:
        with pytest.raises(anthropic.APIStatusError):
            async with a.messages.stream(
                model="m", max_tokens=99, messages=[{"role": "user", "content": "x"}]
            ) as events:
                await events.get_final_message()
        chunks = await o.chat.completions.create(model="m", messages=[{"role": "user", "content": "x"}], stream=True)
        with pytest.raises(openai.APIError):
            _ = [c async for c in chunks]
        stream = await o.responses.create(model="m", input="x", stream=True)
        kinds = [e.type async for e in stream]
        assert kinds[-1] == "error"


async def test_usage_override_is_reported_and_billed() -> None:
    """A script can set the usage; the bill follows."""
    script = Script(default=Reply(text="x", usage=UsageOverride(input_tokens=1234, output_tokens=56)))
    async with running_sim(script) as sim, gpt(sim) as client:
        made = await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "x"}])
        assert made.usage is not None
        assert (made.usage.prompt_tokens, made.usage.completion_tokens) == (1234, 56)
        total = sim.bill.view().total
        assert (total.input_tokens, total.output_tokens) == (1234, 56)


async def test_output_limit_ends_the_answer(sim: SimServer) -> None:
    """A reply over the request's limit ends with the wire's reason, on all wires."""
    async with claude(sim) as a, gpt(sim) as o:
        said = await a.messages.create(model="m", max_tokens=5, messages=[{"role": "user", "content": "x" * 99}])
        chat = await o.chat.completions.create(
            model="m", max_completion_tokens=5, messages=[{"role": "user", "content": "x" * 99}]
        )
        response = await o.responses.create(model="m", max_output_tokens=16, input="x" * 99)
    assert (said.stop_reason, said.usage.output_tokens) == ("max_tokens", 5)
    assert chat.choices[0].finish_reason == "length"
    assert response.status == "incomplete"
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"


async def test_says_that_it_is_simulated(sim: SimServer) -> None:
    """Models, headers and the answer say what it is."""
    async with claude(sim) as a, gpt(sim) as o:
        assert "simulated-model" in [m.id async for m in o.models.list()]
        assert (await a.models.list()).data[0].display_name.endswith("(simulated)")
        raw = await a.messages.with_raw_response.create(
            model="m", max_tokens=99, messages=[{"role": "user", "content": "hi"}]
        )
    assert raw.headers["x-simulated"] == "true"
    assert "simulated" in raw.headers["server"]


async def test_stop_sequences() -> None:
    """A stop sequence ends the answer before it, and Anthropic's wire says which."""
    async with running_sim(Script(default=Reply(text="one, two; three"))) as sim, claude(sim) as a, gpt(sim) as o:
        message = await a.messages.create(
            model="m", max_tokens=99, messages=[{"role": "user", "content": "x"}], stop_sequences=[";", "two"]
        )
        chat = await o.chat.completions.create(model="m", messages=[{"role": "user", "content": "x"}], stop=";")
    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", "two")
    assert message.content[0].type == "text"
    assert message.content[0].text == "one, "
    assert chat.choices[0].message.content == "one, two"
    assert chat.choices[0].finish_reason == "stop"
