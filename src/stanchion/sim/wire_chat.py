"""Write responses of the OpenAI Chat Completions wire: whole, as a stream, and its errors.

Thinking goes out as `reasoning_content`, the field compatible servers use (OpenAI itself shows none).
"""

from __future__ import annotations

from typing import Any

import msgspec

from stanchion.sim.exchange import Answer, Refusal, Stream, Usage, pieces_of
from stanchion.sim.read_chat import PATH, read
from stanchion.sim.tokens import count_bytes, count_text

__all__ = ["ERROR_KINDS", "PATH", "error_body", "error_event", "read", "stream", "unknown_event", "whole"]

_json = msgspec.json.encode
_FINISH = {"stop": "stop", "tool_calls": "tool_calls", "length": "length", "refusal": "content_filter"}
ERROR_KINDS = {
    401: "authentication_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "server_error",
    504: "server_error",
    529: "server_error",
}


def whole(answer: Answer) -> bytes:
    """Encode a response that is not streamed."""
    said = answer.said
    message: dict[str, Any] = {"role": "assistant", "content": said.text or None, "refusal": None, "annotations": []}
    if said.thinking:
        message["reasoning_content"] = said.thinking
    if said.calls:
        message["tool_calls"] = [
            {
                "id": call_id(answer, i),
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for i, call in enumerate(said.calls)
        ]
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _FINISH[said.finish]}
    return _json({**_envelope(answer, "chat.completion"), "choices": [choice], "usage": _usage(answer.usage)})


def stream(answer: Answer) -> Stream:
    """Encode a response as a stream of chunks."""
    chunk = _Chunk(answer)
    parts = pieces_of(answer.said, answer.events)
    beats: list[tuple[bytes, int]] = []
    tokens = size = 0
    for field, pieces in (("reasoning_content", parts[0]), ("content", parts[1])):
        before, size = tokens, 0
        for piece in pieces:
            size += len(piece.encode())
            tokens = before + count_bytes(size)
            beats.append((chunk.delta(b'{"%b":%b}' % (field.encode(), _json(piece))), tokens))
    for i, call in enumerate(answer.said.calls):
        start: dict[str, Any] = {"index": i, "id": call_id(answer, i), "type": "function"}
        start["function"] = {"name": call.name, "arguments": ""}
        opening = chunk.delta(_json({"tool_calls": [start]}))
        before, size = tokens + count_text(call.name), 0
        for piece in parts[2 + i] or [""]:
            size += len(piece.encode())
            tokens = before + count_bytes(size)
            more = b'{"tool_calls":[{"index":%d,"function":{"arguments":%b}}]}' % (i, _json(piece))
            beats.append((opening + chunk.delta(more), tokens))
            opening = b""
    tail = chunk.delta(b"{}", _FINISH[answer.said.finish])
    if answer.ask.usage_in_stream:
        tail += chunk.usage(answer.usage)
    head = chunk.delta(b'{"role":"assistant","content":%b,"refusal":null}' % (b'""' if answer.said.text else b"null"))
    return Stream(head, tuple(beats), tail + b"data: [DONE]\n\n")


def error_body(refusal: Refusal, _seed: str) -> bytes:
    """Encode an error response."""
    kind = ERROR_KINDS.get(refusal.status, refusal.kind) if refusal.kind == "invalid_request_error" else refusal.kind
    error = {"message": refusal.message, "type": kind, "param": refusal.param or None, "code": refusal.code or None}
    return _json({"error": error})


def error_event() -> bytes:
    """Encode the error that may come inside a stream."""
    error = {"message": "The server had an error (simulated)", "type": "server_error", "param": None, "code": None}
    return b"data: %b\n\n" % _json({"error": error})


def unknown_event() -> bytes:
    """Encode what a tolerant client passes over: a comment and a chunk without choices, with a field nobody knows."""
    return b': simulated comment\n\ndata: {"id":"x","object":"chat.completion.chunk","created":0,"model":"sim","choices":[],"sim_future_field":{"a":1}}\n\n'


def call_id(answer: Answer, i: int) -> str:
    """Make the id of a reply's call."""
    return answer.said.calls[i].id or f"call_sim{answer.seed}_{i}"


class _Chunk:
    """Encodes chunks of one response; what they share is encoded once."""

    def __init__(self, answer: Answer) -> None:
        envelope = _json(_envelope(answer, "chat.completion.chunk"))[:-1]
        self._before = b"data: %b,%b" % (envelope, b'"usage":null,' if answer.ask.usage_in_stream else b"")

    def delta(self, delta: bytes, finish: str = "") -> bytes:
        reason = b'"%b"' % finish.encode() if finish else b"null"
        choice = b'"choices":[{"index":0,"delta":%b,"logprobs":null,"finish_reason":%b}]}\n\n' % (delta, reason)
        return self._before + choice

    def usage(self, usage: Usage) -> bytes:
        return self._before.replace(b'"usage":null,', b"") + b'"choices":[],"usage":%b}\n\n' % _json(_usage(usage))


def _envelope(answer: Answer, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-sim{answer.seed}",
        "object": kind,
        "created": answer.created,
        "model": answer.ask.model,
        "service_tier": "default",
        "system_fingerprint": "fp_simulated",
    }


def _usage(usage: Usage) -> dict[str, Any]:
    written = usage.cache_write_tokens + usage.cache_write_long_tokens
    total_input = usage.input_tokens + usage.cache_read_tokens + written
    return {
        "prompt_tokens": total_input,
        "completion_tokens": usage.output_tokens,
        "total_tokens": total_input + usage.output_tokens,
        "prompt_tokens_details": {
            "cached_tokens": usage.cache_read_tokens,
            "cache_write_tokens": written,
            "audio_tokens": 0,
        },
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning_tokens,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }
