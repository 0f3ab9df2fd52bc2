"""Anthropic Messages: a request encoded, and the wire as a whole.

Text, thinking and tool calls go back as they came; parts of other wires that only their provider can read (`Thinking`,
`Opaque`) are left out. Consecutive messages of one role are one turn to the API, which accepts them as they stand.
Source: Anthropic API reference, "Messages", "Structured outputs", "Prompt caching", "Extended thinking".
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

import msgspec

from stanchion.core.loading import references
from stanchion.core.message import (
    CacheMark,
    Media,
    Message,
    ModelRequest,
    Opaque,
    Part,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
)
from stanchion.model.anthropic_decode import WIRE, AnthropicDecoder
from stanchion.model.client import Endpoint
from stanchion.model.failure import unsupported
from stanchion.model.wire import merge_options

VERSION: Final = "2023-06-01"
_SHORT: Final = {"type": "ephemeral"}
_LONG: Final = {"type": "ephemeral", "ttl": "1h"}
_UNCACHEABLE: Final = frozenset(("thinking", "redacted_thinking"))


class Anthropic:
    """The wire of Anthropic Messages."""

    name = WIRE
    path = "/v1/messages"

    def headers(self, endpoint: Endpoint) -> dict[str, str]:
        return {"anthropic-version": VERSION, **({"x-api-key": endpoint.api_key} if endpoint.api_key else {})}

    def decoder(self, *, listening: bool = True) -> AnthropicDecoder:
        return AnthropicDecoder(listening=listening)

    def encode(self, request: ModelRequest, *, stream: bool = True) -> bytes:
        if request.max_output_tokens <= 0:
            raise unsupported(WIRE, "a request without max_output_tokens")
        body: dict[str, Any] = {"model": request.model, "max_tokens": request.max_output_tokens}
        if request.tools:
            body["tools"] = [_tool(schema) for schema in request.tools]
        if request.system:
            body["system"] = [{"type": "text", "text": text.text} for text in request.system]
        loaded = frozenset(schema.name for schema in request.loaded)
        body["messages"] = messages = [_message(message, loaded) for message in request.messages]
        _mark(body, messages, request.cache_marks)
        if request.loaded:
            body["tools"] += [{**_tool(schema), "defer_loading": True} for schema in request.loaded]
        for message in messages:
            message["content"] = [block for block in message["content"] if block is not None]
        messages[:] = [message for message in messages if message["content"]]
        _settings(body, request)
        if stream:
            body["stream"] = True
        return merge_options(body, request.options)


def _settings(body: dict[str, Any], request: ModelRequest) -> None:
    if request.thinking_tokens is not None:
        body["thinking"] = (
            {"type": "enabled", "budget_tokens": request.thinking_tokens}
            if request.thinking_tokens > 0
            else {"type": "disabled"}
        )
    if (choice := _tool_choice(request)) is not None:
        body["tool_choice"] = choice
    config: dict[str, Any] = {}
    if request.effort:
        config["effort"] = request.effort
    if request.output is not None:
        config["format"] = {"type": "json_schema", "schema": request.output.schema}
    if config:
        body["output_config"] = config
    if request.temperature is not None:
        body["temperature"] = request.temperature
    if request.top_p is not None:
        body["top_p"] = request.top_p
    if request.stop:
        body["stop_sequences"] = list(request.stop)


def _tool_choice(request: ModelRequest) -> dict[str, Any] | None:
    """None where the default (auto, in parallel) is meant. With a thinking budget the API refuses a forced choice: auto."""
    choice = request.tool_choice
    if not request.tools and not request.options.get("tools"):
        return None
    if choice == "none":
        return {"type": "none"}
    if choice == "auto" or _thinks(request):
        return None if request.parallel_tool_calls else {"type": "auto", "disable_parallel_tool_use": True}
    forced: dict[str, Any] = {"type": "any"} if choice == "required" else {"type": "tool", "name": choice}
    return forced if request.parallel_tool_calls else {**forced, "disable_parallel_tool_use": True}


def _thinks(request: ModelRequest) -> bool:
    """With a budget. Adaptive thinking takes a forced choice (recorded with claude-opus-4-6)."""
    thinking = request.options.get("thinking")
    if isinstance(thinking, Mapping):
        return cast("Mapping[str, Any]", thinking).get("type") == "enabled"
    return bool(request.thinking_tokens)


def _tool(schema: Any) -> dict[str, Any]:
    tool: dict[str, Any] = {"name": schema.name}
    if schema.description:
        tool["description"] = schema.description
    tool["input_schema"] = schema.parameters
    if schema.strict:
        tool["strict"] = True
    return tool


def _message(message: Message, loaded: frozenset[str]) -> dict[str, Any]:
    """A message with a place for each of its parts: None where this wire has no block for one."""
    return {"role": message.role, "content": [_block(part, loaded) for part in message.parts]}


def _block(part: Part, loaded: frozenset[str]) -> dict[str, Any] | None:
    match part:
        case Text():
            if not part.text:
                return None
            return {"type": "text", "text": part.text, **_own(part.wire, part.data)}
        case Thinking():
            return _thinking(part)
        case ToolCall():
            call = {"type": "tool_use", "id": part.id, "name": part.name, "input": _input(part.arguments)}
            return {**call, **_own(part.wire, part.data)}
        case ToolResult():
            return _result(part, loaded)
        case Media():
            return media_block(part)
        case Opaque():
            return msgspec.json.decode(part.data) if part.wire == WIRE else None
        case _:
            return {"type": "text", "text": f"[{part.kind} erased]"}


def _thinking(part: Thinking) -> dict[str, Any] | None:
    if part.wire != WIRE:
        return None
    if part.data:
        return msgspec.json.decode(part.data)
    # Unsigned thinking (of a stream that was cut) is refused by the API.
    return {"type": "thinking", "thinking": part.text, "signature": part.signature} if part.signature else None


def _own(wire: str, data: str) -> dict[str, Any]:
    return msgspec.json.decode(data) if data and wire == WIRE else {}


def _input(arguments: str) -> dict[str, Any]:
    """The arguments as an object; malformed ones are said in one field, for the API takes no text here."""
    try:
        return msgspec.json.decode(arguments or "{}", type=dict[str, Any])
    except msgspec.DecodeError:
        return {"malformed_arguments": arguments}


def _result(part: ToolResult, loaded: frozenset[str]) -> dict[str, Any]:
    content: Any = part.text
    if names := references(part, loaded):
        content = [{"type": "tool_reference", "tool_name": name} for name in names]
    elif part.media:
        texts = [{"type": "text", "text": part.text}] if part.text else []
        content = [*texts, *(media_block(media) for media in part.media)]
    result: dict[str, Any] = {"type": "tool_result", "tool_use_id": part.id, "content": content}
    if part.error:
        result["is_error"] = True
    return result


def media_block(media: Media) -> dict[str, Any]:
    """An image or document block. Raises `ModelError` (unsupported) for audio and video."""
    image = media.mime.startswith("image/")
    if not image and media.mime.startswith(("audio/", "video/")):
        raise unsupported(WIRE, f"media of type {media.mime}")
    block: dict[str, Any] = {"type": "image" if image else "document", "source": _source(media)}
    if media.name and not image:
        block["title"] = media.name
    return block


def _source(media: Media) -> dict[str, Any]:
    if media.file_id:
        return {"type": "file", "file_id": media.file_id}
    if media.url:
        return {"type": "url", "url": media.url}
    if media.mime == "text/plain":
        return {"type": "text", "media_type": "text/plain", "data": _plain(media.data)}
    return {"type": "base64", "media_type": media.mime, "data": media.data}


def _plain(data: str) -> str:
    try:
        return base64.b64decode(data, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return data


def _mark(body: dict[str, Any], messages: Sequence[dict[str, Any]], marks: Sequence[CacheMark]) -> None:
    """Set the planned breakpoints: each on the last block that takes one, up to its place."""
    for mark in marks:
        if mark.message < 0:
            blocks: list[dict[str, Any] | None] = body.get("system") or body.get("tools") or []
        else:
            blocks = messages[mark.message]["content"] if mark.message < len(messages) else []
        upto = blocks if mark.part < 0 else blocks[: mark.part + 1]
        for block in reversed(upto):
            if block is not None and block.get("type") not in _UNCACHEABLE:
                block["cache_control"] = _LONG if mark.long else _SHORT
                break
