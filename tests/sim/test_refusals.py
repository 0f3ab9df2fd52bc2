"""Requests a provider would refuse are refused, with the offending field named in the wire's own form."""

from __future__ import annotations

import json
import lzma
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from stanchion.sim import SimServer, running_sim
from stanchion.sim.deliver import WIRES
from stanchion.sim.exchange import Refusal, WireName
from tests.sim.raw import PATHS, body_of, client, post
from tests.sim.raw import WIRES as WIRE_NAMES

USER = {"role": "user", "content": "x"}
SCHEMA = {"type": "object", "properties": {}, "additionalProperties": False}
TOOL = {"name": "f", "input_schema": SCHEMA}
USE = {"type": "tool_use", "id": "t1", "name": "f", "input": {}}
RESULT = {"type": "tool_result", "tool_use_id": "t1", "content": "y"}


DEFERRED = {"name": "g", "input_schema": SCHEMA, "defer_loading": True}
NAMES_ONE = {**RESULT, "content": [{"type": "tool_reference", "tool_name": "h"}]}


def use(**more: Any) -> dict[str, Any]:
    """Make an assistant message with a call."""
    return {"role": "assistant", "content": [{**USE, **more}]}


ANTHROPIC: list[tuple[dict[str, Any], str]] = [
    ({"max_tokens": None}, "max_tokens: "),
    ({"max_tokens": 0}, "max_tokens: "),
    ({"max_tokens": "9"}, "max_tokens: "),
    ({"model": ""}, "model: "),
    ({"messages": []}, "messages: at least one message"),
    ({"messages": "hi"}, "messages: "),
    ({"messages": [{"role": "user", "content": ""}]}, "messages.0: all messages must have non-empty content"),
    ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role: "),
    ({"messages": [{"role": "system", "content": "x"}]}, "messages.0.role: "),
    ({"messages": [{"role": "user", "content": [{"type": "text", "text": ""}]}]}, "messages.0.content.0: text"),
    ({"messages": [{"role": "user", "content": [{"type": "txt", "text": "a"}]}]}, "messages.0.content.0.type: "),
    ({"messages": [USER, {"role": "assistant", "content": "so "}]}, "trailing whitespace"),
    ({"messages": [USER, use()], "tools": [TOOL]}, "`tool_use` ids were found without `tool_result` blocks"),
    ({"messages": [USER, use(), USER], "tools": [TOOL]}, "messages.2: `tool_use` ids were found without"),
    ({"messages": [{"role": "user", "content": [RESULT]}]}, "unexpected `tool_use_id` found in `tool_result`"),
    (
        {"messages": [USER, use(), {"role": "user", "content": [{"type": "text", "text": "a"}, RESULT]}]},
        "must come first",
    ),
    ({"messages": [USER, use(), {"role": "user", "content": [RESULT, RESULT]}]}, "single result"),
    (
        {"messages": [USER, *[use(), {"role": "user", "content": [RESULT]}] * 2]},
        "messages.3.content.0.id: `tool_use` ids must be unique",
    ),
    ({"messages": [USER, use(id="a b"), {"role": "user", "content": [RESULT]}]}, "messages.1.content.0.id: "),
    ({"messages": [USER, use(input="{}"), {"role": "user", "content": [RESULT]}]}, "messages.1.content.0.input: "),
    ({"tools": [{"name": "a b", "input_schema": SCHEMA}]}, "tools.0.name: "),
    ({"tools": [{"name": "f", "input_schema": {}}]}, "tools.0.input_schema.type: "),
    ({"tools": [TOOL, TOOL]}, "tools: Tool names must be unique."),
    ({"tools": [TOOL], "tool_choice": {"type": "tool", "name": "g"}}, "Tool 'g' not found"),
    ({"tools": [DEFERRED]}, "tools: At least one tool must have defer_loading=false."),
    ({"tools": [TOOL, {**DEFERRED, "defer_loading": 1}]}, "tools.1.defer_loading: "),
    ({"tools": [TOOL, {**DEFERRED, "cache_control": {"type": "ephemeral"}}]}, "tools.1: Tools with defer_loading"),
    (
        {"tools": [TOOL, DEFERRED], "messages": [USER, use(), {"role": "user", "content": [NAMES_ONE]}]},
        "messages.2.content.0.content.0: Tool reference 'h' not found",
    ),
    ({"tool_choice": {"type": "any"}}, "tool_choice: "),
    ({"temperature": 1.5}, "temperature: "),
    ({"n": 2}, "n: Extra inputs are not permitted"),
    ({"stop_sequences": [" "]}, "stop_sequences.0: "),
    ({"system": [{"type": "text", "text": ""}]}, "system.0: text content blocks must be non-empty"),
    ({"thinking": {"type": "enabled", "budget_tokens": 10}}, "thinking.budget_tokens: "),
    ({"thinking": {"type": "enabled", "budget_tokens": 5000}}, "`max_tokens` must be greater"),
    (
        {
            "thinking": {"type": "enabled", "budget_tokens": 1024},
            "tools": [TOOL],
            "tool_choice": {"type": "any"},
        },
        "Thinking may not be enabled",
    ),
    (
        {
            "thinking": {"type": "enabled", "budget_tokens": 1024},
            "messages": [USER, use(), {"role": "user", "content": [RESULT]}],
        },
        "Expected `thinking` or `redacted_thinking`, but found `tool_use`",
    ),
    (
        {
            "system": [
                {"type": "text", "text": "s", "cache_control": {"type": "ephemeral", "ttl": ttl}}
                for ttl in ("5m", "1h")
            ]
        },
        "ttl='1h'",
    ),
    (
        {"system": [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}] * 5},
        "A maximum of 4 blocks with cache_control may be provided. Found 5.",
    ),
]


@pytest.mark.parametrize(("change", "message"), ANTHROPIC)
async def test_anthropic_refuses(sim: SimServer, change: dict[str, Any], message: str) -> None:
    """Anthropic's wire refuses with 400 and names the field before the message."""
    status, body = await post(sim, "anthropic", {**body_of("anthropic"), **change})
    assert (status, body["type"], body["error"]["type"]) == (400, "error", "invalid_request_error")
    assert message in body["error"]["message"]
    assert sim.bill.view().total.input_tokens == 0


CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
FUNCTION = {"type": "function", "function": {"name": "f", "parameters": SCHEMA}}


def calls(**more: Any) -> dict[str, Any]:
    """Make an assistant message with a call."""
    return {"role": "assistant", "content": None, "tool_calls": [{**CALL, **more}]}


def answer(call_id: str = "c1") -> dict[str, Any]:
    """Make a tool message."""
    return {"role": "tool", "tool_call_id": call_id, "content": "y"}


def strict(**schema: Any) -> dict[str, Any]:
    """Make a strict function of some schema."""
    return {"type": "function", "function": {"name": "f", "strict": True, "parameters": {"type": "object", **schema}}}


CHAT: list[tuple[dict[str, Any], str, str]] = [
    ({"model": None}, "model", "you must provide a model"),
    ({"messages": []}, "messages", "empty array"),
    ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role", "Supported values are"),
    ({"messages": [{"role": "user", "content": None}]}, "messages[0].content", "got null"),
    ({"messages": [{"role": "user", "content": []}]}, "messages[0].content", "empty array"),
    ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "messages[0].content[0].type", "image_url"),
    ({"messages": [USER, answer()]}, "messages[1].role", "must be a response to a preceding message"),
    ({"messages": [USER, calls(), answer("c2")]}, "messages[2].role", "preceding message"),
    ({"messages": [USER, calls(), answer(), answer()]}, "messages[3].role", "preceding message"),
    ({"messages": [USER, calls()]}, "messages[1]", "did not have response messages: c1"),
    ({"messages": [USER, calls(), USER]}, "messages[2]", "did not have response messages: c1"),
    ({"messages": [USER, calls(id="c" * 41), answer()]}, "messages[1].tool_calls[0].id", "maximum length 40"),
    (
        {"messages": [USER, calls(function={"name": "f", "arguments": {}}), answer()]},
        "messages[1].tool_calls[0].function.arguments",
        "expected a string, but got object",
    ),
    ({"messages": [USER, {"role": "assistant", "content": None}]}, "messages[1].content", "got null"),
    ({"tools": []}, "tools", "empty array"),
    ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name", "pattern"),
    ({"tools": [strict()]}, "tools[0].function.parameters", "'additionalProperties' is required"),
    (
        {"tools": [strict(properties={"a": {"type": "string"}}, additionalProperties=False)]},
        "tools[0].function.parameters",
        "Missing 'a'",
    ),
    (
        {"tools": [strict(properties={"a": {"type": "object"}}, required=["a"], additionalProperties=False)]},
        "tools[0].function.parameters.properties.a",
        "'additionalProperties' is required",
    ),
    ({"tool_choice": "auto"}, "tool_choice", "only allowed when 'tools'"),
    ({"parallel_tool_calls": True}, "parallel_tool_calls", "only allowed when 'tools'"),
    (
        {"tools": [FUNCTION], "tool_choice": {"type": "function", "function": {"name": "g"}}},
        "tool_choice",
        "'g' not found",
    ),
    ({"stream_options": {"include_usage": True}}, "stream_options", "only allowed when 'stream'"),
    ({"max_output_tokens": 5}, "max_output_tokens", "Unknown parameter"),
    ({"model": "gpt-5.2", "max_tokens": 5}, "max_tokens", "Use 'max_completion_tokens' instead"),
    ({"max_tokens": 5, "max_completion_tokens": 5}, "max_tokens", "at the same time"),
    ({"temperature": 3}, "temperature", "between 0 and 2"),
    ({"n": 2}, "n", "n must be 1"),
    ({"response_format": {"type": "json_schema", "json_schema": {}}}, "response_format.json_schema.name", "expected"),
]


@pytest.mark.parametrize(("change", "param", "message"), CHAT)
async def test_chat_refuses(sim: SimServer, change: dict[str, Any], param: str, message: str) -> None:
    """The chat wire refuses with 400 and names the field in `param`."""
    status, body = await post(sim, "openai_chat", {**body_of("openai_chat"), **change})
    assert (status, body["error"]["type"], body["error"]["param"]) == (400, "invalid_request_error", param)
    assert message in body["error"]["message"]


FC = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"}
FCO = {"type": "function_call_output", "call_id": "c1", "output": "y"}
RS: dict[str, Any] = {"type": "reasoning", "id": "rs_1", "summary": []}

RESPONSES: list[tuple[dict[str, Any], str, str]] = [
    ({"model": None}, "model", "Missing required parameter"),
    ({"input": None}, "input", "Missing required parameter"),
    ({"messages": []}, "messages", "Unknown parameter"),
    ({"input": [USER, FC]}, "input", "No tool output found for function call c1."),
    ({"input": [USER, FCO]}, "input", "No tool call found for function call output with call_id c1."),
    ({"input": [USER, {**FC, "id": "call_1"}, FCO]}, "input[1].id", "begins with 'fc'"),
    ({"input": [USER, {**FC, "call_id": "c" * 65}]}, "input[1].call_id", "64"),
    ({"input": [USER, {**FC, "arguments": {}}, FCO]}, "input[1].arguments", "expected a string"),
    ({"input": [USER, RS]}, "input", "without its required following item"),
    ({"input": [USER, RS, USER]}, "input", "without its required following item"),
    (
        {"input": [USER, {**FC, "id": "fc_simrabc_0"}, FCO]},
        "input",
        "without its required 'reasoning' item: 'rs_simabc'",
    ),
    (
        {"input": [{"role": "assistant", "content": [{"type": "input_text", "text": "x"}]}]},
        "input[0].content[0].type",
        "'output_text'",
    ),
    (
        {"input": [{"role": "user", "content": [{"type": "text", "text": "x"}]}]},
        "input[0].content[0].type",
        "input_text",
    ),
    ({"max_output_tokens": 5}, "max_output_tokens", ">= 16"),
    ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools[0].name", "expected a string"),
    ({"tool_choice": "required"}, "tool_choice", "with 'tools'"),
    ({"previous_response_id": "resp_1"}, "previous_response_id", "send the whole input"),
    ({"background": True}, "background", "no background mode"),
]


@pytest.mark.parametrize(("change", "param", "message"), RESPONSES)
async def test_responses_refuses(sim: SimServer, change: dict[str, Any], param: str, message: str) -> None:
    """The Responses wire refuses with 400 and names the field in `param`."""
    status, body = await post(sim, "openai_responses", {**body_of("openai_responses"), **change})
    assert (status, body["error"]["type"], body["error"]["param"]) == (400, "invalid_request_error", param)
    assert message in body["error"]["message"]


async def test_unsealed_reasoning_is_not_found_without_a_store(sim: SimServer) -> None:
    """Reasoning without its sealed content cannot come back where nothing is stored."""
    body = body_of("openai_responses", store=False)
    status, answer = await post(sim, "openai_responses", {**body, "input": [USER, RS, FC, FCO]})
    assert status == 404
    assert "not persisted" in answer["error"]["message"]


@pytest.mark.parametrize("wire", WIRE_NAMES)
@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b"null", b"\xff\xfe", b"[" * 100_000])
async def test_bodies_that_are_no_object(sim: SimServer, wire: WireName, body: bytes) -> None:
    """What is no JSON object is a 400 in the wire's form, never a traceback."""
    async with client(sim) as session, session.post(PATHS[wire], data=body) as response:
        assert response.status == 400
        assert "error" in await response.json()


async def test_a_key_is_needed(sim: SimServer) -> None:
    """No key is a 401 in each wire's form; any key is taken."""
    async with aiohttp.ClientSession(sim.base_url) as session:
        for wire, path in PATHS.items():
            async with session.post(path, json=body_of(wire), headers={"anthropic-version": "x"}) as response:
                assert response.status == 401
                assert "error" in await response.json()
            async with session.post(
                path, json=body_of(wire), headers={"authorization": "Bearer any", "anthropic-version": "x"}
            ) as response:
                assert response.status == 200


async def test_version_header_and_paths(sim: SimServer) -> None:
    """Anthropic's version header is demanded; unknown paths and methods are errors in form."""
    async with aiohttp.ClientSession(sim.base_url, headers={"x-api-key": "k"}) as session:
        async with session.post(PATHS["anthropic"], json=body_of("anthropic")) as response:
            assert response.status == 400
            assert "anthropic-version" in (await response.json())["error"]["message"]
        async with session.post("/v1/nothing", json={}) as response:
            assert response.status == 404
            assert "simulated" in (await response.json())["error"]["message"]
        async with session.get(PATHS["openai_chat"]) as response:
            assert response.status == 405


async def test_changed_thinking_is_refused(sim: SimServer) -> None:
    """Thinking that we signed must come back as it was."""
    thinking = {"type": "enabled", "budget_tokens": 1024}
    _, body = await post(sim, "anthropic", body_of("anthropic", thinking=thinking))
    block = body["content"][0]
    assert block["type"] == "thinking"
    for text, status in ((block["thinking"], 200), ("other", 400)):
        messages = [USER, {"role": "assistant", "content": [{**block, "thinking": text}, body["content"][1]]}, USER]
        got, _ = await post(sim, "anthropic", body_of("anthropic", thinking=thinking, messages=messages))
        assert got == status


async def test_neighbours_of_one_role_are_one_message() -> None:
    """Anthropic joins neighbouring messages of a role, so their calls and results are checked together."""
    async with running_sim() as sim:
        messages = [
            USER,
            use(),
            use(id="t2"),
            {"role": "user", "content": [RESULT, {**RESULT, "tool_use_id": "t2"}]},
        ]
        status, _ = await post(sim, "anthropic", body_of("anthropic", messages=messages))
        assert status == 200


def test_takes_every_recorded_request(shared_data: Path) -> None:
    """What the vendors took is taken, but for Responses that need a store, which the sim has not."""
    refused: list[str] = []
    taken = 0
    with lzma.open(shared_data / "provider-recordings.jsonl.xz", "rt") as lines:
        for line in lines:
            exchange = json.loads(line)
            if exchange["status"] != 200 or exchange["host"] not in ("api.anthropic.com", "api.openai.com"):
                continue
            if not isinstance(exchange["request"], dict):
                continue
            try:
                WIRES[exchange["wire"]].read(json.dumps(exchange["request"]).encode())
                taken += 1
            except Refusal as refusal:
                if refusal.param not in ("previous_response_id", "conversation", "background"):
                    refused.append(f"{exchange['id']}: {refusal.message}")
    assert refused == []
    assert taken > 300
