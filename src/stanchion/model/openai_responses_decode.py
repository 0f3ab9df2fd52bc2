"""What OpenAI Responses answers, decoded: event by event, or a whole body.

The items of `response.output_item.done` are what counts; deltas before it make the stream and the partial content of a
broken one. Messages become text, function calls tool calls, reasoning items `Thinking` that holds the item verbatim;
every other item (hosted tools, compaction, what comes next year) becomes `Opaque`. A failure comes as an event inside a
200. Source: OpenAI API reference, "Responses" and "Streaming events".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

import msgspec

from stanchion.core.message import Delta, Finish, ModelResponse, Part, Usage
from stanchion.model.draft import DeltaKind, Draft, PartDraft, argument_text, json_text, tokens
from stanchion.model.failure import event_failure
from stanchion.model.wire import decode_failed, early_end

WIRE: Final = "openai_responses"

_WHOLE: Final = frozenset(("completed", "complete"))
_INCOMPLETE: Final[Mapping[str, Finish]] = {"max_output_tokens": "length", "content_filter": "refusal"}
_CALL_OWN: Final = frozenset(("type", "call_id", "name", "arguments"))
_MESSAGE_OWN: Final = frozenset(("type", "role", "content"))


class _Event(msgspec.Struct):
    """Every event: the union of the fields that are read."""

    type: str = ""
    output_index: int = 0
    content_index: int = 0
    summary_index: int = 0
    delta: Any = None
    item: Any = None
    response: Any = None
    error: Any = None
    code: Any = None
    message: Any = None


_decode_event = msgspec.json.Decoder(_Event).decode


class ResponsesDecoder:
    """Decodes one response."""

    def __init__(self, *, listening: bool = True) -> None:
        self.done = False
        self._draft = Draft(WIRE, listening=listening)
        self._texts: dict[tuple[int, int], PartDraft] = {}
        self._items: dict[int, PartDraft] = {}
        self._summary: dict[int, int] = {}
        self._finished: set[int] = set()
        self._refused = False
        self._usage: dict[str, Any] | None = None
        self._status = ""
        self._reason = ""
        self._id = ""
        self._model = ""

    def event(self, name: bytes, data: bytes) -> None:
        if data == b"[DONE]":
            self.done = True
            return
        try:
            event = _decode_event(data)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise decode_failed(WIRE, data, error) from error
        match event.type:
            case "response.output_text.delta":
                self._text(event, _string(event.delta))
            case "response.refusal.delta":
                self._refused = True
                self._text(event, _string(event.delta))
            case "response.function_call_arguments.delta":
                self._piece(event.output_index, "tool_call", _string(event.delta))
            case "response.reasoning_summary_text.delta":
                self._thought(event.output_index, event.summary_index, _string(event.delta))
            case "response.reasoning_text.delta":
                self._thought(event.output_index, event.content_index, _string(event.delta))
            case "response.output_item.added":
                self._begin(event.output_index, event.item)
            case "response.output_item.done":
                self._finish_item(event.output_index, event.item)
            case "response.completed" | "response.incomplete":
                self._whole(event.response)
                self.done = True
            case "response.failed" | "response.cancelled":
                self._whole(event.response)
                raise self._failed(event.response)
            case "error":
                said = event.error or {"code": event.code, "message": event.message}
                raise event_failure(WIRE, said, partial=self.partial(), usage=self.usage())
            case "response.created" | "response.in_progress" | "response.queued":
                self._head(event.response)
            case _:
                if name == b"error" or (event.error and not event.type):
                    said = event.error or data.decode("utf-8", "replace")
                    raise event_failure(WIRE, said, partial=self.partial(), usage=self.usage())

    def body(self, data: bytes) -> None:
        try:
            body: Any = msgspec.json.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise decode_failed(WIRE, data, error) from error
        if not isinstance(body, dict):
            raise decode_failed(WIRE, data, ValueError("not an object"))
        fields = cast("dict[str, Any]", body)
        if not isinstance(fields.get("output"), list):
            if fields.get("error"):
                raise event_failure(WIRE, fields["error"], partial=(), usage=None)
            raise decode_failed(WIRE, data, ValueError("no output"))
        self._whole(fields)
        if self._status in ("failed", "cancelled"):
            raise self._failed(fields)
        self.done = True

    def take_deltas(self) -> list[Delta]:
        return self._draft.take_deltas()

    def partial(self) -> tuple[Part, ...]:
        return self._draft.finished()

    def usage(self) -> Usage | None:
        return read_usage(self._usage) if self._usage is not None else None

    def response(self) -> ModelResponse:
        parts = self.partial()
        finish = self._finish()
        if finish is None:
            raise early_end(WIRE, parts, self.usage())
        return ModelResponse(
            parts, finish, self.usage(), model=self._model, id=self._id, raw_finish=self._reason or self._status
        )

    def _finish(self) -> Finish | None:
        if self._status == "incomplete":
            return _INCOMPLETE.get(self._reason, "length")
        if self._status not in _WHOLE:
            return None
        if any(part.kind == "tool_call" for part in self._draft.parts):
            return "tool_calls"
        return "refusal" if self._refused else "stop"

    def _failed(self, response: Any) -> Exception:
        error: Any = cast("dict[str, Any]", response).get("error") if isinstance(response, dict) else None
        return event_failure(
            WIRE,
            error or {"code": "server_error", "message": f"status {self._status or 'failed'}"},
            partial=self.partial(),
            usage=self.usage(),
        )

    def _head(self, response: Any) -> dict[str, Any]:
        if not isinstance(response, dict):
            return {}
        fields = cast("dict[str, Any]", response)
        self._id = _string(fields.get("id")) or self._id
        self._model = _string(fields.get("model")) or self._model
        return fields

    def _whole(self, response: Any) -> None:
        """The response object at the end: status and bill, and the items whose own events did not come."""
        fields = self._head(response)
        self._status = _string(fields.get("status"))
        details = fields.get("incomplete_details")
        if isinstance(details, dict):
            self._reason = _string(cast("dict[str, Any]", details).get("reason"))
        usage = fields.get("usage")
        self._usage = cast("dict[str, Any]", usage) if isinstance(usage, dict) else None
        output = fields.get("output")
        if isinstance(output, list):
            for index, item in enumerate(cast("list[Any]", output)):
                if index not in self._finished:
                    self._finish_item(index, item)

    def _text(self, event: _Event, piece: str) -> None:
        key = (event.output_index, event.content_index)
        part = self._texts.get(key)
        if part is None:
            part = self._texts[key] = PartDraft("text")
        if piece:
            self._draft.write(part, "text", piece)

    def _thought(self, index: int, paragraph: int, piece: str) -> None:
        """A piece of reasoning; summaries are paragraphs."""
        if index not in self._items:
            self._begin(index, {"type": "reasoning"})
        if self._summary.get(index, paragraph) != paragraph:
            piece = "\n\n" + piece
        self._summary[index] = paragraph
        self._piece(index, "thinking", piece)

    def _piece(self, index: int, kind: DeltaKind, piece: str) -> None:
        part = self._items.get(index)
        if part is not None and part.kind == kind and piece:
            self._draft.write(part, kind, piece)

    def _begin(self, index: int, item: Any) -> None:
        """An item begins. Messages take their place with their first text."""
        if not isinstance(item, dict) or index in self._items:
            return
        fields = cast("dict[str, Any]", item)
        kind = _string(fields.get("type"))
        match kind:
            case "message":
                return
            case "function_call":
                part = PartDraft("tool_call")
                part.id, part.name = _string(fields.get("call_id")), _string(fields.get("name"))
                self._draft.begin_call(part)
            case "reasoning":
                part = PartDraft("thinking")
                self._draft.place(part)
            case _:
                part = PartDraft(kind or "unknown")
                part.data = json_text(fields)
                self._draft.place(part)
        self._items[index] = part

    def _finish_item(self, index: int, item: Any) -> None:
        """An item is whole: what it says replaces what its deltas said."""
        if not isinstance(item, dict):
            return
        self._finished.add(index)
        fields = cast("dict[str, Any]", item)
        kind = _string(fields.get("type"))
        if kind == "message":
            self._finish_message(index, fields)
            return
        self._begin(index, fields)
        part = self._items[index]
        match part.kind:
            case "tool_call":
                part.id, part.name = _string(fields.get("call_id")) or part.id, _string(fields.get("name")) or part.name
                part.data = {k: v for k, v in fields.items() if k not in _CALL_OWN and v is not None}
                self._settle(part, "tool_call", argument_text(fields.get("arguments")))
            case "thinking":
                part.data = json_text(fields)
                self._settle(part, "thinking", _thought_text(fields))
            case _:
                part.data = json_text(fields)

    def _finish_message(self, index: int, fields: dict[str, Any]) -> None:
        content = fields.get("content")
        own = {k: v for k, v in fields.items() if k not in _MESSAGE_OWN and v is not None}
        for place, block in enumerate(cast("list[Any]", content) if isinstance(content, list) else []):
            if not isinstance(block, dict):
                continue
            said = cast("dict[str, Any]", block)
            if said.get("type") == "refusal":
                self._refused = True
            text = _string(said.get("text")) or _string(said.get("refusal"))
            part = self._texts.setdefault((index, place), PartDraft("text"))
            if text:
                self._settle(part, "text", text)
            part.data = {**own, "annotations": said["annotations"]} if said.get("annotations") else own

    def _settle(self, part: PartDraft, kind: DeltaKind, text: str) -> None:
        """The part's text is this: as a rule what the deltas said, else the missing end of it."""
        had = part.text
        if text == had:
            return
        if text.startswith(had):
            self._draft.write(part, kind, text[len(had) :])
        elif text:
            part.pieces[:] = [text]


def _thought_text(fields: Mapping[str, Any]) -> str:
    """What may be read of a reasoning item: its summary, or the reasoning itself where a server shows it."""
    for key in ("summary", "content"):
        blocks = fields.get(key)
        if isinstance(blocks, list):
            known = [cast("dict[str, Any]", block) for block in cast("list[Any]", blocks) if isinstance(block, dict)]
            if text := "\n\n".join(_string(block.get("text")) for block in known):
                return text
    return ""


def _string(value: Any) -> str:
    return value if isinstance(value, str) else ""


def read_usage(fields: Mapping[str, Any]) -> Usage:
    """The bill. `input_tokens` includes what was read from a cache and written to one; ours does not."""
    total = tokens(fields, "input_tokens")
    read = min(tokens(fields, "input_tokens_details", "cached_tokens"), total)
    written = min(tokens(fields, "input_tokens_details", "cache_write_tokens"), total - read)
    return Usage(
        input_tokens=total - read - written,
        cache_read_tokens=read,
        cache_write_tokens=written,
        output_tokens=tokens(fields, "output_tokens"),
        reasoning_tokens=tokens(fields, "output_tokens_details", "reasoning_tokens"),
    )
