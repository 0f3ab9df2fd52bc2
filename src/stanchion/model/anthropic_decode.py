"""What Anthropic Messages answers, decoded: event by event, or a whole body.

Blocks we know become parts; every other block (hosted tools, their results, what comes next year) becomes `Opaque` with
its deltas folded in, and goes back as it came. Usage of `message_delta` is cumulative and replaces that of
`message_start`. Source: Anthropic API reference, "Messages" and "Streaming messages".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

import msgspec

from stanchion.core.message import Delta, Finish, ModelResponse, Part, Usage
from stanchion.model.draft import Draft, PartDraft, argument_text, json_text, tokens
from stanchion.model.failure import event_failure
from stanchion.model.wire import decode_failed, early_end

WIRE: Final = "anthropic"

_FINISH: Final[Mapping[str, Finish]] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "refusal",
    "pause_turn": "pause",
}


class _Delta(msgspec.Struct):
    type: str = ""
    text: Any = None
    thinking: Any = None
    signature: Any = None
    partial_json: Any = None
    citation: Any = None
    content: Any = None
    stop_reason: str | None = None


class _Event(msgspec.Struct):
    """Every event and the whole body: the union of their fields, so that one decoder reads any."""

    type: str = ""
    index: int = 0
    delta: _Delta | None = None
    content_block: Any = None
    message: Any = None
    usage: Any = None
    error: Any = None


_decode_event = msgspec.json.Decoder(_Event).decode


class AnthropicDecoder:
    """Decodes one response."""

    def __init__(self, *, listening: bool = True) -> None:
        self.done = False
        self._draft = Draft(WIRE, listening=listening)
        self._blocks: dict[int, PartDraft] = {}
        self._raw_blocks: dict[int, dict[str, Any]] = {}
        self._usage: dict[str, Any] = {}
        self._said_usage = False
        self._stop = ""
        self._id = ""
        self._model = ""

    def event(self, name: bytes, data: bytes) -> None:
        try:
            event = _decode_event(data)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise decode_failed(WIRE, data, error) from error
        match event.type:
            case "content_block_delta":
                if event.delta is not None:
                    self._delta(event.index, event.delta)
            case "content_block_start":
                self._start(event.index, event.content_block)
            case "content_block_stop":
                self._stop_block(event.index)
            case "message_start":
                self._message(event.message)
            case "message_delta":
                if event.delta is not None:
                    self._stop = event.delta.stop_reason or self._stop
                self._add_usage(event.usage)
            case "message_stop":
                self.done = True
            case "error":
                raise event_failure(WIRE, event.error, partial=self.partial(), usage=self.usage())
            case _:
                if name == b"error" or event.error is not None:
                    raise event_failure(WIRE, event.error or data.decode(), partial=self.partial(), usage=self.usage())

    def body(self, data: bytes) -> None:
        try:
            message: Any = msgspec.json.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise decode_failed(WIRE, data, error) from error
        if not isinstance(message, dict):
            raise decode_failed(WIRE, data, ValueError("not an object"))
        fields = cast("dict[str, Any]", message)
        if fields.get("error"):
            raise event_failure(WIRE, fields["error"], partial=(), usage=None)
        if not isinstance(fields.get("content"), list):
            raise decode_failed(WIRE, data, ValueError("no content"))
        self._message(fields)
        for index, block in enumerate(cast("list[Any]", fields["content"])):
            self._start(index, block)
            self._stop_block(index)
        self._stop = _string(fields.get("stop_reason"))
        self.done = True

    def take_deltas(self) -> list[Delta]:
        return self._draft.take_deltas()

    def partial(self) -> tuple[Part, ...]:
        for index in tuple(self._raw_blocks):
            self._stop_block(index)
        return self._draft.finished()

    def usage(self) -> Usage | None:
        return read_usage(self._usage) if self._said_usage else None

    def response(self) -> ModelResponse:
        parts = self.partial()
        if not self._stop:
            raise early_end(WIRE, parts, self.usage())
        finish = _FINISH.get(self._stop) or (
            "tool_calls" if any(p.kind == "tool_call" for p in self._draft.parts) else "stop"
        )
        return ModelResponse(parts, finish, self.usage(), model=self._model, id=self._id, raw_finish=self._stop)

    def _message(self, message: Any) -> None:
        if isinstance(message, dict):
            fields = cast("dict[str, Any]", message)
            self._id = _string(fields.get("id"))
            self._model = _string(fields.get("model"))
            self._add_usage(fields.get("usage"))

    def _add_usage(self, usage: Any) -> None:
        if isinstance(usage, dict):
            self._said_usage = True
            self._usage.update({k: v for k, v in cast("dict[str, Any]", usage).items() if v is not None})

    def _start(self, index: int, block: Any) -> None:
        if not isinstance(block, dict):
            return
        fields = cast("dict[str, Any]", block)
        kind = _string(fields.get("type"))
        match kind:
            case "text":
                part = PartDraft("text")
                if citations := fields.get("citations"):
                    part.data = {"citations": citations}
                if text := _string(fields.get("text")):
                    self._draft.write(part, "text", text)
            case "thinking":
                part = PartDraft("thinking")
                part.signature = _string(fields.get("signature"))
                self._draft.place(part)
                if text := _string(fields.get("thinking")):
                    self._draft.write(part, "thinking", text)
            case "redacted_thinking":
                part = PartDraft("thinking")
                part.data = fields
                self._draft.place(part)
            case "tool_use":
                part = PartDraft("tool_call")
                part.id = _string(fields.get("id"))
                part.name = _string(fields.get("name"))
                part.data = {k: v for k, v in fields.items() if k not in ("type", "id", "name", "input")}
                self._draft.begin_call(part)
                if given := fields.get("input"):
                    self._draft.write(part, "tool_call", argument_text(given))
            case _:
                part = PartDraft(kind or "unknown")
                self._draft.place(part)
                self._raw_blocks[index] = fields
        self._blocks[index] = part

    def _delta(self, index: int, delta: _Delta) -> None:
        part = self._blocks.get(index)
        if part is None:
            return
        if delta.type == "text_delta" and part.kind == "text":
            if delta.text:
                self._draft.write(part, "text", _string(delta.text))
        elif delta.type == "thinking_delta" and part.kind == "thinking":
            self._draft.write(part, "thinking", _string(delta.thinking))
        elif delta.type == "signature_delta":
            part.signature += _string(delta.signature)
        elif delta.type == "input_json_delta":
            self._argument(part, _string(delta.partial_json))
        elif delta.type == "citations_delta" and part.kind == "text":
            held = part.data if isinstance(part.data, dict) else {}
            part.data = {"citations": [*held.get("citations", ()), delta.citation]}
        elif delta.type == "compaction_delta" and index in self._raw_blocks:
            block = self._raw_blocks[index]
            block["content"] = (block.get("content") or "") + _string(delta.content)

    def _argument(self, part: PartDraft, piece: str) -> None:
        if part.kind != "tool_call":
            part.pieces.append(piece)
        elif piece:
            self._draft.write(part, "tool_call", piece)

    def _stop_block(self, index: int) -> None:
        """A block is whole: an unknown one takes the form it would have in a body."""
        part = self._blocks.get(index)
        if part is None:
            return
        if part.kind == "tool_call" and not part.pieces:
            # A call without arguments has no input_json_delta, or an empty one.
            self._draft.write(part, "tool_call", "{}")
        block = self._raw_blocks.pop(index, None)
        if block is not None:
            if part.pieces:
                block["input"] = _object(part.text)
            part.data = json_text(block)


def _object(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return {}


def _string(value: Any) -> str:
    return value if isinstance(value, str) else ""


def read_usage(fields: Mapping[str, Any]) -> Usage:
    """The bill. Compaction runs stand only in `iterations` and are added; other iterations are in the totals."""
    usage = _count(fields)
    iterations = fields.get("iterations")
    if isinstance(iterations, list):
        for run in cast("list[Any]", iterations):
            if isinstance(run, dict) and cast("dict[str, Any]", run).get("type") == "compaction":
                usage = _sum(usage, _count(cast("dict[str, Any]", run)))
    return usage


def _count(fields: Mapping[str, Any]) -> Usage:
    written = tokens(fields, "cache_creation_input_tokens")
    long = min(tokens(fields, "cache_creation", "ephemeral_1h_input_tokens"), written)
    return Usage(
        input_tokens=tokens(fields, "input_tokens"),
        cache_read_tokens=tokens(fields, "cache_read_input_tokens"),
        cache_write_tokens=written - long,
        cache_write_long_tokens=long,
        output_tokens=tokens(fields, "output_tokens"),
        reasoning_tokens=tokens(fields, "output_tokens_details", "thinking_tokens"),
    )


def _sum(one: Usage, other: Usage) -> Usage:
    return Usage(
        one.input_tokens + other.input_tokens,
        one.cache_read_tokens + other.cache_read_tokens,
        one.cache_write_tokens + other.cache_write_tokens,
        one.cache_write_long_tokens + other.cache_write_long_tokens,
        one.output_tokens + other.output_tokens,
        one.reasoning_tokens + other.reasoning_tokens,
    )
