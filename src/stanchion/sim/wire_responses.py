"""Write responses of the OpenAI Responses wire: whole, as a stream, and its errors."""

from __future__ import annotations

import base64
from typing import Any

import msgspec

from stanchion.sim.exchange import Answer, Stream, Usage, pieces_of
from stanchion.sim.read_responses import PATH, read
from stanchion.sim.tokens import count_bytes, count_text
from stanchion.sim.wire_chat import ERROR_KINDS, call_id, error_body

__all__ = ["ERROR_KINDS", "PATH", "error_body", "error_event", "read", "stream", "unknown_event", "whole"]

_json = msgspec.json.encode
_ECHOED: dict[str, Any] = {
    "background": False,
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "reasoning": {"effort": None, "summary": None},
    "safety_identifier": None,
    "service_tier": "default",
    "store": True,
    "temperature": 1.0,
    "text": {"format": {"type": "text"}, "verbosity": "medium"},
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
}


def whole(answer: Answer) -> bytes:
    """Encode a response that is not streamed."""
    return _json(_final(answer))


def stream(answer: Answer) -> Stream:
    """Encode a response as a stream of events."""
    events = _Events()
    begun = _response(answer, "in_progress", [])
    head = events.make("response.created", response=begun) + events.make("response.in_progress", response=begun)
    said = answer.said
    parts = pieces_of(said, answer.events)
    output = _output(answer)
    beats: list[tuple[bytes, int]] = []
    tokens = at = 0
    if said.thinking:
        _reasoning(events, beats, at, output[at], said.thinking, parts[0], shown=answer.ask.summary)
        tokens, at = count_text(said.thinking), at + 1
    if said.text:
        _message(events, beats, at, output[at], said.text, parts[1], tokens)
        tokens, at = tokens + count_text(said.text), at + 1
    for i, call in enumerate(said.calls):
        tokens += count_text(call.name)
        _call(events, beats, at, output[at], parts[2 + i] or [""], tokens)
        tokens, at = tokens + count_text(call.arguments), at + 1
    final = _final(answer)
    name = "response.incomplete" if final["status"] == "incomplete" else "response.completed"
    return Stream(head, tuple(beats), events.make(name, response=final))


def error_event() -> bytes:
    """Encode the error event that may come inside a stream."""
    fields = {"code": "server_error", "message": "The server had an error (simulated)", "param": None}
    return b"event: error\ndata: %b\n\n" % _json({"type": "error", "sequence_number": 0, **fields})


def unknown_event() -> bytes:
    """Encode an event of a type nobody knows yet."""
    return b'event: response.sim_future\ndata: {"type":"response.sim_future","sequence_number":0,"item_id":"x"}\n\n'


class _Events:
    """Numbers and encodes the events of one stream."""

    def __init__(self) -> None:
        self._next = 0

    def make(self, name: str, /, **fields: Any) -> bytes:
        data = _json({"type": name, "sequence_number": self._next, **fields})
        self._next += 1
        return b"event: %b\ndata: %b\n\n" % (name.encode(), data)

    def delta(self, name: bytes, where: bytes, text: str) -> bytes:
        """Encode a delta: what its part shares with its neighbours comes encoded in `where`."""
        data = b'{"type":"%b","sequence_number":%d,%b,"delta":%b}' % (name, self._next, where, _json(text))
        self._next += 1
        return b"event: %b\ndata: %b\n\n" % (name, data)


def _item_pair(events: _Events, at: int, item: dict[str, Any], **empty: Any) -> bytes:
    return events.make("response.output_item.added", output_index=at, item={**item, "status": "in_progress", **empty})


def _spread(
    events: _Events,
    beats: list[tuple[bytes, int]],
    opening: bytes,
    pieces: list[str],
    tokens: int,
    delta: tuple[str, dict[str, Any]],
) -> None:
    """Append a beat for every piece, the first with the opening events before it."""
    name, where = delta
    shared = _json(where)[1:-1]
    size = 0
    for piece in pieces:
        size += len(piece.encode())
        beats.append((opening + events.delta(name.encode(), shared, piece), tokens + count_bytes(size)))
        opening = b""


def _close(beats: list[tuple[bytes, int]], closing: bytes) -> None:
    last, tokens = beats[-1]
    beats[-1] = (last + closing, tokens)


def _reasoning(
    events: _Events,
    beats: list[tuple[bytes, int]],
    at: int,
    item: dict[str, Any],
    text: str,
    pieces: list[str],
    *,
    shown: bool,
) -> None:
    opening = _item_pair(events, at, item, summary=[])
    if not shown:
        beats.append((opening + events.make("response.output_item.done", output_index=at, item=item), count_text(text)))
        return
    where = {"item_id": item["id"], "output_index": at, "summary_index": 0}
    empty, full = {"type": "summary_text", "text": ""}, {"type": "summary_text", "text": text}
    opening += events.make("response.reasoning_summary_part.added", **where, part=empty)
    _spread(events, beats, opening, pieces, 0, ("response.reasoning_summary_text.delta", where))
    closing = events.make("response.reasoning_summary_text.done", **where, text=text)
    closing += events.make("response.reasoning_summary_part.done", **where, part=full)
    _close(beats, closing + events.make("response.output_item.done", output_index=at, item=item))


def _message(
    events: _Events,
    beats: list[tuple[bytes, int]],
    at: int,
    item: dict[str, Any],
    text: str,
    pieces: list[str],
    tokens: int,
) -> None:
    where = {"item_id": item["id"], "output_index": at, "content_index": 0}
    part = item["content"][0]
    opening = _item_pair(events, at, item, content=[])
    opening += events.make("response.content_part.added", **where, part={**part, "text": ""})
    _spread(events, beats, opening, pieces, tokens, ("response.output_text.delta", {**where, "logprobs": []}))
    closing = events.make("response.output_text.done", **where, text=text, logprobs=[])
    closing += events.make("response.content_part.done", **where, part=part)
    _close(beats, closing + events.make("response.output_item.done", output_index=at, item=item))


def _call(
    events: _Events, beats: list[tuple[bytes, int]], at: int, item: dict[str, Any], pieces: list[str], tokens: int
) -> None:
    where = {"item_id": item["id"], "output_index": at}
    opening = _item_pair(events, at, item, arguments="")
    _spread(events, beats, opening, pieces, tokens, ("response.function_call_arguments.delta", where))
    done = "response.function_call_arguments.done"
    closing = events.make(done, **where, name=item["name"], arguments=item["arguments"])
    _close(beats, closing + events.make("response.output_item.done", output_index=at, item=item))


def _final(answer: Answer) -> dict[str, Any]:
    finish = answer.said.finish
    status = "incomplete" if finish in ("length", "refusal") else "completed"
    response = _response(answer, status, _output(answer))
    response["usage"] = _usage(answer.usage)
    if status == "incomplete":
        reason = "max_output_tokens" if finish == "length" else "content_filter"
        response["incomplete_details"] = {"reason": reason}
    else:
        response["completed_at"] = answer.created
    return response


def _response(answer: Answer, status: str, output: list[dict[str, Any]]) -> dict[str, Any]:
    asked = answer.ask.body
    echoed = {name: asked[name] if asked.get(name) is not None else value for name, value in _ECHOED.items()}
    return {
        "id": f"resp_sim{answer.seed}",
        "object": "response",
        "created_at": answer.created,
        "status": status,
        "completed_at": None,
        "error": None,
        "incomplete_details": None,
        "model": answer.ask.model,
        "output": output,
        "usage": None,
        **echoed,
    }


def _output(answer: Answer) -> list[dict[str, Any]]:
    said, seed = answer.said, answer.seed
    output: list[dict[str, Any]] = []
    if said.thinking:
        summary = [{"type": "summary_text", "text": said.thinking}] if answer.ask.summary else []
        item: dict[str, Any] = {"id": f"rs_sim{seed}", "type": "reasoning", "status": "completed", "summary": summary}
        if answer.ask.encrypted:
            item["encrypted_content"] = base64.b64encode(b"simulated:" + said.thinking.encode()).decode()
        output.append(item)
    if said.text:
        part: dict[str, Any] = {"type": "output_text", "text": said.text, "annotations": [], "logprobs": []}
        item = {"id": f"msg_sim{seed}", "type": "message", "role": "assistant", "status": "completed"}
        output.append({**item, "content": [part]})
    # The id says whether reasoning came before, so that a request which drops it can be refused without any memory.
    mark = "fc_simr" if said.thinking else "fc_sim"
    for i, call in enumerate(said.calls):
        item = {"id": f"{mark}{seed}_{i}", "type": "function_call", "status": "completed", "name": call.name}
        output.append({**item, "call_id": call_id(answer, i), "arguments": call.arguments})
    return output


def _usage(usage: Usage) -> dict[str, Any]:
    written = usage.cache_write_tokens + usage.cache_write_long_tokens
    total_input = usage.input_tokens + usage.cache_read_tokens + written
    details = {"cached_tokens": usage.cache_read_tokens, "cache_write_tokens": written}
    return {
        "input_tokens": total_input,
        "input_tokens_details": details,
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": total_input + usage.output_tokens,
    }
