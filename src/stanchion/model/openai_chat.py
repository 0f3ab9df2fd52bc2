"""OpenAI Chat Completions, as OpenAI and the compatible servers speak it: a request encoded, and the wire as a whole.

Reasoning goes back in the field it came in; parts of other wires that only their provider can read are left out. This wire caches prefixes by
itself; of cache marks only the one after the system message is said, to models that take breakpoints. Source: OpenAI API
reference, "Chat Completions"; "Prompt caching".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from stanchion.core.message import (
    Erased,
    Media,
    Message,
    ModelRequest,
    Opaque,
    Part,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
    ToolSchema,
)
from stanchion.model.client import Endpoint
from stanchion.model.failure import unsupported
from stanchion.model.openai_breakpoint import BREAKPOINT, breaks_after_system, broken_after, end_with_breakpoint
from stanchion.model.openai_chat_decode import WIRE, ChatDecoder
from stanchion.model.wire import merge_options

_AUDIO: Final = {"audio/wav": "wav", "audio/x-wav": "wav", "audio/mpeg": "mp3", "audio/mp3": "mp3"}


class OpenAIChat:
    """The wire of Chat Completions. `limit_field`: how the server names the bound of the output."""

    name = WIRE
    path = "/chat/completions"

    def __init__(self, limit_field: str = "max_tokens") -> None:
        self._limit_field = limit_field

    def headers(self, endpoint: Endpoint) -> dict[str, str]:
        return {"authorization": f"Bearer {endpoint.api_key}"} if endpoint.api_key else {}

    def decoder(self, *, listening: bool = True) -> ChatDecoder:
        return ChatDecoder(listening=listening)

    def encode(self, request: ModelRequest, *, stream: bool = True) -> bytes:
        body: dict[str, Any] = {"model": request.model}
        if request.tools:
            body["tools"] = [_tool(schema) for schema in request.tools]
        body["messages"] = messages = _system(request.system, kept=breaks_after_system(request))
        broken = broken_after(request)
        for index, message in enumerate(request.messages):
            added = _messages(message)
            if index == broken:
                end_with_breakpoint(added, "text")
            messages.extend(added)
        _settings(body, request)
        if request.max_output_tokens > 0:
            body[self._limit_field] = request.max_output_tokens
        if stream:
            body["stream"] = True
            body["stream_options"] = {"include_usage": True}
        return merge_options(body, request.options)


def _settings(body: dict[str, Any], request: ModelRequest) -> None:
    if request.tools or request.options.get("tools"):
        if request.tool_choice in ("required", "none"):
            body["tool_choice"] = request.tool_choice
        elif request.tool_choice != "auto":
            body["tool_choice"] = {"type": "function", "function": {"name": request.tool_choice}}
        if not request.parallel_tool_calls:
            body["parallel_tool_calls"] = False
    if request.output is not None:
        schema: dict[str, Any] = {"name": request.output.name, "schema": request.output.schema, "strict": True}
        if request.output.description:
            schema["description"] = request.output.description
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    if request.effort:
        body["reasoning_effort"] = request.effort
    if request.temperature is not None:
        body["temperature"] = request.temperature
    if request.top_p is not None:
        body["top_p"] = request.top_p
    if request.stop:
        body["stop"] = list(request.stop)


def _tool(schema: ToolSchema) -> dict[str, Any]:
    function: dict[str, Any] = {"name": schema.name}
    if schema.description:
        function["description"] = schema.description
    function["parameters"] = schema.parameters
    if schema.strict:
        function["strict"] = True
    return {"type": "function", "function": function}


def _system(system: Sequence[Text], *, kept: bool = False) -> list[dict[str, Any]]:
    """One system message: several compatible servers take no second one. `kept`: with a cache breakpoint at its end."""
    text = "\n\n".join(part.text for part in system if part.text)
    content = [{"type": "text", "text": text, **BREAKPOINT}] if kept else text
    return [{"role": "system", "content": content}] if text else []


def _messages(message: Message) -> list[dict[str, Any]]:
    """A tool result is a message of its own on this wire."""
    if message.role == "assistant":
        said = _assistant(message.parts)
        return [said] if said is not None else []
    results = [part for part in message.parts if isinstance(part, ToolResult)]
    out: list[dict[str, Any]] = [_result(part) for part in results]
    others = [part for part in message.parts if not isinstance(part, ToolResult)]
    if content := _content(others):
        out.append({"role": "user", "content": content})
    return out


def _assistant(parts: Sequence[Part]) -> dict[str, Any] | None:
    texts = [part.text for part in parts if isinstance(part, Text) and part.text]
    calls = [_call(part) for part in parts if isinstance(part, ToolCall)]
    said: dict[str, Any] = {"role": "assistant", "content": "".join(texts) if texts else None}
    for part in parts:
        if isinstance(part, Thinking) and part.wire == WIRE:
            _add_reasoning(said, part)
    if calls:
        said["tool_calls"] = calls
    return said if texts or calls else None


def _add_reasoning(said: dict[str, Any], part: Thinking) -> None:
    data: dict[str, Any] = msgspec.json.decode(part.data) if part.data else {}
    details, field = data.get("details"), data.get("field")
    if field == "thinking":
        text = said["content"]
        thought = {"type": "thinking", "thinking": [{"type": "text", "text": part.text}]}
        said["content"] = [thought, *([{"type": "text", "text": text}] if text else [])]
        return
    if details:
        said["reasoning_details"] = details
    if field and part.text:
        said[field] = part.text


def _call(part: ToolCall) -> dict[str, Any]:
    own: dict[str, Any] = msgspec.json.decode(part.data) if part.data and part.wire == WIRE else {}
    function = {"name": part.name, "arguments": part.arguments or "{}"}
    return {"id": part.id, "type": "function", "function": function, **own}


def _result(part: ToolResult) -> dict[str, Any]:
    if part.media:
        raise unsupported(WIRE, "media in a tool result")
    return {"role": "tool", "tool_call_id": part.id, "content": part.text}


def _content(parts: Sequence[Part]) -> str | list[dict[str, Any]]:
    """A lone text as a string, which every server takes; else a list."""
    match parts:
        case [Text(text=text)]:
            return text
        case _:
            return [block for part in parts if (block := _block(part)) is not None]


def _block(part: Part) -> dict[str, Any] | None:
    match part:
        case Text():
            return {"type": "text", "text": part.text} if part.text else None
        case Media():
            return _media(part)
        case Opaque():
            return msgspec.json.decode(part.data) if part.wire == WIRE else None
        case Erased():
            return {"type": "text", "text": f"[{part.kind} erased]"}
        case _:
            return None


def _media(media: Media) -> dict[str, Any]:
    if media.mime.startswith("image/"):
        if media.file_id:
            raise unsupported(WIRE, "an image by its file id")
        return {"type": "image_url", "image_url": {"url": media.url or f"data:{media.mime};base64,{media.data}"}}
    if media.mime in _AUDIO and media.data:
        return {"type": "input_audio", "input_audio": {"data": media.data, "format": _AUDIO[media.mime]}}
    if media.file_id:
        return {"type": "file", "file": {"file_id": media.file_id}}
    if media.data and not media.mime.startswith(("audio/", "video/")):
        name = {"filename": media.name} if media.name else {}
        return {"type": "file", "file": {"file_data": f"data:{media.mime};base64,{media.data}", **name}}
    raise unsupported(WIRE, f"media of type {media.mime} by {'URL' if media.url else 'data'}")
