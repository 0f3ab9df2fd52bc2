"""The encoders: the same request, said on each wire."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from stanchion.core.errors import ModelError
from stanchion.core.loading import FOUND
from stanchion.core.message import (
    DEVELOPER,
    MODEL,
    USER,
    CacheMark,
    Label,
    Media,
    Message,
    ModelRequest,
    Opaque,
    OutputSchema,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
    ToolSchema,
)
from stanchion.model.anthropic import Anthropic
from stanchion.model.openai_chat import OpenAIChat
from stanchion.model.openai_responses import OpenAIResponses
from stanchion.model.wire import Wire

SCHEMA = {"type": "object", "properties": {}, "additionalProperties": False}
ITEM = {"type": "reasoning", "id": "rs", "summary": [], "encrypted_content": "e"}
REQUEST = ModelRequest(
    "m",
    (
        Message("user", (Text("hi", USER),)),
        Message(
            "assistant",
            (
                Thinking("hm", MODEL, signature="s", wire="anthropic"),
                Thinking("hm", MODEL, wire="openai_responses", data=json.dumps(ITEM)),
                Thinking("hm", MODEL, wire="openai_chat", data='{"field":"reasoning_content"}'),
                Opaque("anthropic", "server_tool_use", '{"type":"server_tool_use","id":"x"}', MODEL),
                Text("let me see", MODEL),
                ToolCall("t", "f", '{"a":1}', MODEL),
            ),
        ),
        Message("user", (ToolResult("t", "f", "done", Label("tool")), Text("and?", USER))),
    ),
    100,
    system=(Text("be brief", DEVELOPER),),
    tools=(ToolSchema("f", "does f", SCHEMA, strict=True),),
    cache_marks=(CacheMark(-1, long=True), CacheMark(2)),
)
WIRES: list[Wire] = [Anthropic(), OpenAIChat(), OpenAIResponses()]


def body(wire: Wire, **changes: Any) -> dict[str, Any]:
    return json.loads(wire.encode(msgspec.structs.replace(REQUEST, **changes)))


@pytest.mark.parametrize("wire", WIRES, ids=lambda wire: wire.name)
def test_deterministic(wire: Wire) -> None:
    """The same request is the same bytes, and streams."""
    assert wire.encode(REQUEST) == wire.encode(REQUEST)
    assert body(wire)["stream"] is True


def test_anthropic() -> None:
    """Own thinking and blocks go back, foreign ones do not; cache marks stand on the last blocks."""
    mark = {"type": "ephemeral"}
    said = body(Anthropic())
    assert said["system"] == [{"type": "text", "text": "be brief", "cache_control": {**mark, "ttl": "1h"}}]
    assert said["messages"][1]["content"] == [
        {"type": "thinking", "thinking": "hm", "signature": "s"},
        {"type": "server_tool_use", "id": "x"},
        {"type": "text", "text": "let me see"},
        {"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}},
    ]
    assert said["messages"][2]["content"] == [
        {"type": "tool_result", "tool_use_id": "t", "content": "done"},
        {"type": "text", "text": "and?", "cache_control": mark},
    ]
    assert said["tools"] == [{"name": "f", "description": "does f", "input_schema": SCHEMA, "strict": True}]
    assert said["max_tokens"] == 100


def test_chat() -> None:
    """Tool results are messages of their own, before the text; reasoning goes back in its field."""
    said = body(OpenAIChat())
    assert said["messages"] == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "hi"},
        {
            "role": "assistant",
            "content": "let me see",
            "reasoning_content": "hm",
            "tool_calls": [{"id": "t", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}],
        },
        {"role": "tool", "tool_call_id": "t", "content": "done"},
        {"role": "user", "content": "and?"},
    ]
    assert said["stream_options"] == {"include_usage": True}
    assert said["tools"][0]["function"]["strict"] is True


def test_responses() -> None:
    """Items go back verbatim; nothing depends on what the provider stores."""
    said = body(OpenAIResponses())
    assert said["input"] == [
        {"role": "user", "content": "hi"},
        ITEM,
        {"role": "assistant", "content": "let me see"},
        {"type": "function_call", "call_id": "t", "name": "f", "arguments": '{"a":1}'},
        {"type": "function_call_output", "call_id": "t", "output": "done"},
        {"role": "user", "content": "and?"},
    ]
    assert (said["store"], said["include"]) == (False, ["reasoning.encrypted_content"])
    assert said["instructions"] == "be brief"


def test_forced_choice() -> None:
    """A forced choice is said on each wire, and becomes auto where a thinking budget does not allow it."""
    assert body(Anthropic(), tool_choice="f")["tool_choice"] == {"type": "tool", "name": "f"}
    assert "tool_choice" not in body(Anthropic(), tool_choice="required", thinking_tokens=2000)
    adaptive = {"thinking": {"type": "adaptive"}}
    assert body(Anthropic(), tool_choice="required", options=adaptive)["tool_choice"] == {"type": "any"}
    assert body(OpenAIChat(), tool_choice="f")["tool_choice"] == {"type": "function", "function": {"name": "f"}}
    assert body(OpenAIResponses(), tool_choice="f")["tool_choice"] == {"type": "function", "name": "f"}
    assert body(OpenAIResponses(), parallel_tool_calls=False)["parallel_tool_calls"] is False


def test_loaded_tools() -> None:
    """At Anthropic a search's answer refers to what it found, whose definitions follow the list, deferred and unmarked; elsewhere it is read."""
    found = ToolSchema("g", "does g", SCHEMA)
    text = json.dumps({"name": "g", "description": "does g", "parameters": SCHEMA}) + "\nMore, found by name: h."
    answered = Message("user", (ToolResult("t", "find_tools", text, FOUND),))
    given: dict[str, Any] = {"messages": (*REQUEST.messages[:2], answered), "loaded": (found,), "system": ()}
    said = body(Anthropic(), **given)
    assert said["messages"][2]["content"] == [
        {
            "type": "tool_result",
            "tool_use_id": "t",
            "content": [{"type": "tool_reference", "tool_name": "g"}],
            "cache_control": {"type": "ephemeral"},
        }
    ]
    listed, deferred = said["tools"]
    assert listed["cache_control"] == {"type": "ephemeral", "ttl": "1h"}
    assert deferred == {"name": "g", "description": "does g", "input_schema": SCHEMA, "defer_loading": True}
    assert body(Anthropic(), **{**given, "loaded": ()})["messages"][2]["content"][0]["content"] == text
    assert body(OpenAIChat(), **given)["messages"][-1]["content"] == text


def test_output_schema() -> None:
    """The output's schema is asked for by each provider's strict mode."""
    output = OutputSchema("answer", SCHEMA)
    assert body(Anthropic(), output=output)["output_config"] == {"format": {"type": "json_schema", "schema": SCHEMA}}
    form = {"name": "answer", "schema": SCHEMA, "strict": True}
    assert body(OpenAIChat(), output=output)["response_format"] == {"type": "json_schema", "json_schema": form}
    assert body(OpenAIResponses(), output=output)["text"] == {"format": {"type": "json_schema", **form}}


def test_options_are_merged_last() -> None:
    """They replace, join objects, append hosted tools, and take out with null."""
    said = body(OpenAIResponses(), options={"store": None, "tools": [{"type": "web_search"}], "x": 1}, effort="low")
    assert "store" not in said
    assert [tool["type"] for tool in said["tools"]] == ["function", "web_search"]
    assert said["x"] == 1
    joined = body(OpenAIResponses(), effort="low", options={"reasoning": {"summary": "auto"}})
    assert joined["reasoning"] == {"effort": "low", "summary": "auto"}


def test_unsupported() -> None:
    """What a wire cannot say is refused before anything is sent."""
    audio = Message("user", (Media("audio/mpeg", USER, data="AA=="),))
    for wire, changes in (
        (Anthropic(), {"messages": (audio,)}),
        (OpenAIResponses(), {"messages": (audio,)}),
        (OpenAIResponses(), {"stop": ("x",)}),
        (Anthropic(), {"max_output_tokens": 0}),
    ):
        with pytest.raises(ModelError) as caught:
            body(wire, **changes)
        assert (caught.value.code, caught.value.sent, caught.value.retryable) == ("unsupported", False, False)


def test_malformed_arguments_can_be_replayed() -> None:
    """Arguments that are no JSON still make a body the API takes."""
    said = body(Anthropic(), messages=(Message("assistant", (ToolCall("t", "f", '{"a":', MODEL),)),))
    assert said["messages"][0]["content"][0]["input"] == {"malformed_arguments": '{"a":'}
