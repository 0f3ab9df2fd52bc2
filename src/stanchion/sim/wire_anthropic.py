"""Write responses of Anthropic's Messages wire: whole, as a stream, and its errors."""

from __future__ import annotations

from typing import Any

import msgspec

from stanchion.sim.body import json_object
from stanchion.sim.exchange import Answer, Refusal, Stream, Usage, pieces_of
from stanchion.sim.read_anthropic import PATH, read, sign
from stanchion.sim.tokens import count_bytes, count_text

__all__ = ["ERROR_KINDS", "PATH", "error_body", "error_event", "read", "stream", "unknown_event", "whole"]

_json = msgspec.json.encode
_STOP = {"stop": "end_turn", "tool_calls": "tool_use", "length": "max_tokens", "refusal": "refusal"}
ERROR_KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}


def whole(answer: Answer) -> bytes:
    """Encode a response that is not streamed."""
    return _json({**_message(answer), "content": _content(answer), **_ending(answer), "usage": _usage(answer.usage)})


def stream(answer: Answer) -> Stream:
    """Encode a response as a stream of events."""
    start: dict[str, Any] = {
        **_message(answer),
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "stop_details": None,
    }
    start["usage"] = {**_usage(answer.usage), "output_tokens": 1}
    head = _event("message_start", {"message": start}) + _event("ping", {})
    said = answer.said
    parts = pieces_of(said, answer.events)
    beats: list[tuple[bytes, int]] = []
    index = tokens = 0
    if said.thinking:
        block = {"type": "thinking", "thinking": "", "signature": ""}
        seal = _delta(index, {"type": "signature_delta", "signature": sign(said.thinking)})
        tokens = _block(beats, index, block, ("thinking_delta", "thinking"), parts[0], tokens, seal)
        index += 1
    if said.text:
        tokens = _block(beats, index, {"type": "text", "text": ""}, ("text_delta", "text"), parts[1], tokens)
        index += 1
    for i, call in enumerate(said.calls):
        block: dict[str, Any] = {"type": "tool_use", "id": _call_id(answer, i), "name": call.name, "input": {}}
        tokens += count_text(call.name)
        pieces = parts[2 + i] or [""]
        tokens = _block(beats, index, block, ("input_json_delta", "partial_json"), pieces, tokens)
        index += 1
    tail = _event("message_delta", {"delta": _ending(answer), "usage": _usage(answer.usage)})
    return Stream(head, tuple(beats), tail + _event("message_stop", {}))


def error_body(refusal: Refusal, seed: str) -> bytes:
    """Encode an error response."""
    kind = ERROR_KINDS.get(refusal.status, "api_error") if refusal.kind == "invalid_request_error" else refusal.kind
    error = {"type": kind, "message": refusal.message}
    return _json({"type": "error", "error": error, "request_id": f"req_sim{seed}"})


def error_event() -> bytes:
    """Encode the error event that may come inside a stream."""
    return _event("error", {"error": {"type": "overloaded_error", "message": "Overloaded (simulated)"}})


def unknown_event() -> bytes:
    """Encode an event of a type nobody knows yet; the documentation says that clients must take it."""
    return _event("sim_future_event", {"index": 0, "note": "simulated unknown event"})


def _event(name: str, fields: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), _json({"type": name, **fields}))


def _delta(index: int, delta: dict[str, str]) -> bytes:
    return _event("content_block_delta", {"index": index, "delta": delta})


def _block(
    beats: list[tuple[bytes, int]],
    index: int,
    block: dict[str, Any],
    delta: tuple[str, str],
    pieces: list[str],
    tokens: int,
    seal: bytes = b"",
) -> int:
    """Append the beats of one content block; say the tokens generated after it."""
    kind, field = delta
    before = (
        b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,"delta":{"type":"%b","%b":'
        % (
            index,
            kind.encode(),
            field.encode(),
        )
    )
    size = 0
    first = len(beats)
    for piece in pieces:
        size += len(piece.encode())
        beats.append((b"%b%b}}\n\n" % (before, _json(piece)), tokens + count_bytes(size)))
    start = _event("content_block_start", {"index": index, "content_block": block})
    beats[first] = (start + beats[first][0], beats[first][1])
    last, after = beats[-1]
    beats[-1] = (last + seal + _event("content_block_stop", {"index": index}), after)
    return after


def _message(answer: Answer) -> dict[str, Any]:
    return {"id": f"msg_sim{answer.seed}", "type": "message", "role": "assistant", "model": answer.ask.model}


def _content(answer: Answer) -> list[dict[str, Any]]:
    said = answer.said
    content: list[dict[str, Any]] = []
    if said.thinking:
        content.append({"type": "thinking", "thinking": said.thinking, "signature": sign(said.thinking)})
    if said.text:
        content.append({"type": "text", "text": said.text})
    for i, call in enumerate(said.calls):
        # The wire has no place for text that is not an object; it goes where a validator will find it wrong.
        value = json_object(call.arguments)
        value = {"malformed": call.arguments} if value is None else value
        content.append({"type": "tool_use", "id": _call_id(answer, i), "name": call.name, "input": value})
    return content


def _call_id(answer: Answer, i: int) -> str:
    return answer.said.calls[i].id or f"toolu_sim{answer.seed}_{i}"


def _ending(answer: Answer) -> dict[str, Any]:
    said = answer.said
    reason = "stop_sequence" if said.stopped_by and said.finish == "stop" else _STOP[said.finish]
    return {"stop_reason": reason, "stop_sequence": said.stopped_by or None, "stop_details": None}


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.input_tokens,
        "cache_creation_input_tokens": usage.cache_write_tokens + usage.cache_write_long_tokens,
        "cache_read_input_tokens": usage.cache_read_tokens,
        "cache_creation": {
            "ephemeral_5m_input_tokens": usage.cache_write_tokens,
            "ephemeral_1h_input_tokens": usage.cache_write_long_tokens,
        },
        "output_tokens": usage.output_tokens,
        "service_tier": "standard",
    }
