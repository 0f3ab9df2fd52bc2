"""The decoders: any chunking, unknown events, damaged input: a response or a `ModelError`, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stanchion.core.errors import ModelError
from stanchion.core.message import ModelResponse, Opaque, Text, Thinking, ToolCall
from stanchion.model.anthropic import Anthropic
from stanchion.model.openai_chat import OpenAIChat
from stanchion.model.openai_responses import OpenAIResponses
from stanchion.model.sse import SseParser
from stanchion.model.wire import Wire, decode_body, decode_stream


def outcome(decode: Callable[[Wire, bytes], ModelResponse], wire: Wire, data: bytes) -> ModelResponse | ModelError:
    """What decoding gives or raises; any other exception passes through and fails the test."""
    try:
        return decode(wire, data)
    except ModelError as error:
        return error


def sse(*events: object) -> bytes:
    return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)


ANTHROPIC = sse(
    {
        "type": "message_start",
        "message": {"id": "m1", "model": "claude", "usage": {"input_tokens": 5, "output_tokens": 1}},
    },
    {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": "", "signature": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "hm"}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "sig"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "Hello"}},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "novel_delta", "novel": 1}},
    {"type": "novel_event", "delta": {"type": "x"}},
    {"type": "content_block_start", "index": 2, "content_block": {"type": "novel", "a": 1}},
    {"type": "content_block_stop", "index": 2},
    {
        "type": "content_block_start",
        "index": 3,
        "content_block": {"type": "tool_use", "id": "t", "name": "f", "input": {}},
    },
    {"type": "content_block_delta", "index": 3, "delta": {"type": "input_json_delta", "partial_json": '{"a":1}'}},
    {"type": "content_block_stop", "index": 3},
    {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 9}},
    {"type": "message_stop"},
)
CHAT = (
    sse(
        {"id": "c1", "model": "gpt", "choices": [{"index": 0, "delta": {"role": "assistant", "content": None}}]},
        {"id": "c1", "choices": [{"index": 0, "delta": {"reasoning_content": "hm"}}]},
        {"id": "c1", "choices": [{"index": 0, "delta": {"content": "Hello", "novel": {}}}], "novel": 1},
        {
            "id": "c1",
            "choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, "id": "t", "function": {"name": "f"}}]}}],
        },
        {
            "id": "c1",
            "choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, "function": {"arguments": '{"a":1}'}}]}}],
        },
        {"id": "c1", "choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]},
        {"id": "c1", "choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 9}},
    )
    + b"data: [DONE]\n\n"
)
CALL = {"type": "function_call", "id": "fc", "call_id": "t", "name": "f", "arguments": '{"a":1}'}
RESPONSES = sse(
    {"type": "response.created", "response": {"id": "r1", "model": "gpt"}},
    {"type": "response.output_item.added", "output_index": 0, "item": {"type": "reasoning", "id": "rs", "summary": []}},
    {"type": "response.reasoning_summary_text.delta", "output_index": 0, "summary_index": 0, "delta": "hm"},
    {
        "type": "response.output_item.done",
        "output_index": 0,
        "item": {
            "type": "reasoning",
            "id": "rs",
            "summary": [{"type": "summary_text", "text": "hm"}],
            "encrypted_content": "e",
        },
    },
    {"type": "response.output_item.added", "output_index": 1, "item": {"type": "message", "content": []}},
    {"type": "response.output_text.delta", "output_index": 1, "content_index": 0, "delta": "Hello"},
    {"type": "response.novel", "delta": {"x": 1}, "item": 3},
    {
        "type": "response.output_item.done",
        "output_index": 1,
        "item": {"type": "message", "content": [{"type": "output_text", "text": "Hello"}]},
    },
    {"type": "response.output_item.done", "output_index": 2, "item": CALL},
    {
        "type": "response.completed",
        "response": {"id": "r1", "status": "completed", "output": [], "usage": {"input_tokens": 5, "output_tokens": 9}},
    },
)
STREAMS: list[tuple[Wire, bytes]] = [(Anthropic(), ANTHROPIC), (OpenAIChat(), CHAT), (OpenAIResponses(), RESPONSES)]
each_wire = pytest.mark.parametrize(("wire", "stream"), STREAMS, ids=[wire.name for wire, _ in STREAMS])


@each_wire
def test_stream(wire: Wire, stream: bytes) -> None:
    """Text, thinking, tool call, usage and finish come out; unknown events are passed over, unknown blocks kept."""
    response = decode_stream(wire, stream)
    assert [p.text for p in response.parts if isinstance(p, Text)] == ["Hello"]
    assert [p.text for p in response.parts if isinstance(p, Thinking)] == ["hm"]
    assert [(p.id, p.name, p.arguments) for p in response.parts if isinstance(p, ToolCall)] == [("t", "f", '{"a":1}')]
    assert response.usage is not None
    assert (response.usage.total_input_tokens, response.usage.output_tokens) == (5, 9)
    assert response.finish == "tool_calls"
    assert [p.kind for p in response.parts if isinstance(p, Opaque)] == (["novel"] if wire.name == "anthropic" else [])


@each_wire
@given(data=st.data())
@settings(max_examples=40)
def test_any_chunking(wire: Wire, stream: bytes, data: st.DataObject) -> None:
    """However the stream is cut, the response is the same, and the deltas say its text."""
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=20)))
    decoder, parser, said = wire.decoder(), SseParser(), dict[int, str]()
    for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        for event in parser.feed(stream[a:b]):
            decoder.event(*event)
        for delta in decoder.take_deltas():
            said[delta.index] = said.get(delta.index, "") + delta.text
    response = decoder.response()
    assert response == decode_stream(wire, stream)
    for index, part in enumerate(response.parts):
        if isinstance(part, Text | Thinking):
            assert said[index] == part.text
        elif isinstance(part, ToolCall):
            assert said[index] == part.arguments


@each_wire
@given(data=st.data())
@settings(max_examples=80)
def test_damaged(wire: Wire, stream: bytes, data: st.DataObject) -> None:
    """Cut anywhere and with bytes changed: a response or a `ModelError`, and nothing else."""
    kept = bytearray(stream[: data.draw(st.integers(0, len(stream)))])
    for _ in range(data.draw(st.integers(0, 4)) if kept else 0):
        kept[data.draw(st.integers(0, len(kept) - 1))] = data.draw(st.integers(0, 255))
    for decode in (decode_stream, decode_body):
        assert isinstance(outcome(decode, wire, bytes(kept)), ModelResponse | ModelError)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "type",
                    "delta",
                    "choices",
                    "message",
                    "content",
                    "index",
                    "output",
                    "item",
                    "usage",
                    "error",
                    "tool_calls",
                    "function",
                ]
            ),
            inner
            | st.sampled_from(
                ["content_block_start", "content_block_delta", "response.output_item.done", "text", "message"]
            ),
            max_size=5,
        )
    ),
    max_leaves=12,
)


@each_wire
@given(events=st.lists(JSON, max_size=4))
@settings(max_examples=80)
def test_odd_json(wire: Wire, stream: bytes, events: list[object]) -> None:
    """JSON of any other form: a response or a `ModelError`, and nothing else."""
    for given_bytes in (sse(*events), sse(*events) + stream):
        assert isinstance(outcome(decode_stream, wire, given_bytes), ModelResponse | ModelError)
    for event in events:
        assert isinstance(outcome(decode_body, wire, json.dumps(event).encode()), ModelResponse | ModelError)


@each_wire
def test_no_finish_is_no_answer(wire: Wire, stream: bytes) -> None:
    """A stream without its finish reason is early_end, with what had come (I12)."""
    events = stream.split(b"\n\n")
    cut = next(
        i
        for i, e in enumerate(events)
        if b"message_delta" in e or b'_reason": "tool' in e or b"response.completed" in e
    )
    with pytest.raises(ModelError) as caught:
        decode_stream(wire, b"\n\n".join(events[:cut]) + b"\n\n")
    assert caught.value.code == "early_end"
    assert caught.value.retryable
    assert "Hello" in [part.text for part in caught.value.partial if isinstance(part, Text)]


ERRORS = [
    (Anthropic(), {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, "overloaded"),
    (OpenAIChat(), {"error": {"message": "x", "code": 429}}, "rate_limited"),
    (OpenAIChat(), {"error": {"message": "x", "type": "server_error"}}, "server_error"),
    (OpenAIResponses(), {"type": "error", "code": "rate_limit_exceeded", "message": "x"}, "rate_limited"),
    (
        OpenAIResponses(),
        {
            "type": "response.failed",
            "response": {"status": "failed", "error": {"code": "server_error", "message": "x"}},
        },
        "server_error",
    ),
]


@pytest.mark.parametrize(("wire", "event", "code"), ERRORS)
def test_error_inside_a_200(wire: Wire, event: object, code: str) -> None:
    """An error event has a name, and keeps what had come."""
    stream = next(stream for known, stream in STREAMS if known.name == wire.name)
    head = stream.split(b"\n\n")[:3]
    with pytest.raises(ModelError) as caught:
        decode_stream(wire, b"\n\n".join(head) + b"\n\n" + sse(event))
    assert caught.value.code == code
    assert caught.value.partial


def test_several_calls_of_one_index() -> None:
    """Servers that number every call 0 still give two calls."""
    call = {"index": 0, "id": "a", "function": {"name": "f", "arguments": {"x": 1}}}
    chunk = {"id": "c", "choices": [{"delta": {"tool_calls": [call, {**call, "id": "b"}]}, "finish_reason": "stop"}]}
    response = decode_stream(OpenAIChat(), sse(chunk))
    assert [(p.id, p.arguments) for p in response.parts if isinstance(p, ToolCall)] == [
        ("a", '{"x":1}'),
        ("b", '{"x":1}'),
    ]
    assert response.finish == "tool_calls"
