"""OpenAI Responses: a request encoded, and the wire as a whole.

A run must not depend on what a provider keeps: `store` is false, and reasoning comes and goes encrypted
(`include: reasoning.encrypted_content`). Items go back as they came. This wire caches prefixes by itself; of cache marks only the one
after the instructions is said, to models that take breakpoints. These may not stand on `instructions`, so that they go as the
developer message that they are rendered as. Source: OpenAI API reference, "Responses", "Reasoning", "Structured outputs", "Prompt caching".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
from stanchion.model.openai_responses_decode import WIRE, ResponsesDecoder
from stanchion.model.wire import merge_options

ENCRYPTED: Final = "reasoning.encrypted_content"


class OpenAIResponses:
    """The wire of Responses."""

    name = WIRE
    path = "/responses"

    def headers(self, endpoint: Endpoint) -> dict[str, str]:
        return {"authorization": f"Bearer {endpoint.api_key}"} if endpoint.api_key else {}

    def decoder(self, *, listening: bool = True) -> ResponsesDecoder:
        return ResponsesDecoder(listening=listening)

    def encode(self, request: ModelRequest, *, stream: bool = True) -> bytes:
        if request.stop:
            raise unsupported(WIRE, "stop sequences")
        body: dict[str, Any] = {"model": request.model}
        if request.tools:
            body["tools"] = [_tool(schema) for schema in request.tools]
        items: list[dict[str, Any]] = []
        broken = broken_after(request)
        for index, message in enumerate(request.messages):
            added = list(_items(message))
            if index == broken:
                end_with_breakpoint(added, "input_text")
            items += added
        if instructions := "\n\n".join(text.text for text in request.system if text.text):
            if breaks_after_system(request):
                items.insert(
                    0, {"role": "developer", "content": [{"type": "input_text", "text": instructions, **BREAKPOINT}]}
                )
            else:
                body["instructions"] = instructions
        body["input"] = items
        body["store"] = False
        body["include"] = [ENCRYPTED]
        _settings(body, request)
        if request.max_output_tokens > 0:
            body["max_output_tokens"] = request.max_output_tokens
        if stream:
            body["stream"] = True
        return merge_options(body, request.options)


def _settings(body: dict[str, Any], request: ModelRequest) -> None:
    if request.tools or request.options.get("tools"):
        if request.tool_choice in ("required", "none"):
            body["tool_choice"] = request.tool_choice
        elif request.tool_choice != "auto":
            body["tool_choice"] = {"type": "function", "name": request.tool_choice}
        if not request.parallel_tool_calls:
            body["parallel_tool_calls"] = False
    if request.output is not None:
        form: dict[str, Any] = {"type": "json_schema", "name": request.output.name, "schema": request.output.schema}
        if request.output.description:
            form["description"] = request.output.description
        body["text"] = {"format": {**form, "strict": True}}
    if request.effort:
        body["reasoning"] = {"effort": request.effort}
    if request.temperature is not None:
        body["temperature"] = request.temperature
    if request.top_p is not None:
        body["top_p"] = request.top_p


def _tool(schema: ToolSchema) -> dict[str, Any]:
    tool: dict[str, Any] = {"type": "function", "name": schema.name}
    if schema.description:
        tool["description"] = schema.description
    # `strict` is true by default on this wire, and a schema that does not fit it is refused: always said.
    return {**tool, "parameters": schema.parameters, "strict": schema.strict}


def _items(message: Message) -> Iterator[dict[str, Any]]:
    """The input items of a message: runs of text and media are one message item, everything else an item of its own."""
    run: list[Part] = []
    for part in message.parts:
        if isinstance(part, Text | Media | Erased):
            if run and _own(run[-1]) != _own(part):
                yield from _said(message.role, run)
                run = []
            run.append(part)
            continue
        if (item := _item(part)) is not None:
            yield from _said(message.role, run)
            run = []
            yield item
    yield from _said(message.role, run)


def _item(part: Part) -> dict[str, Any] | None:
    match part:
        case ToolCall():
            own: dict[str, Any] = msgspec.json.decode(part.data) if part.data and part.wire == WIRE else {}
            call = {"type": "function_call", "call_id": part.id, "name": part.name, "arguments": part.arguments or "{}"}
            return {**call, **own}
        case ToolResult():
            return {"type": "function_call_output", "call_id": part.id, "output": _output(part)}
        case Thinking() | Opaque():
            return msgspec.json.decode(part.data) if part.data and part.wire == WIRE else None
        case _:
            return None


def _output(part: ToolResult) -> str | list[dict[str, Any]]:
    if not part.media:
        return part.text
    texts = [{"type": "input_text", "text": part.text}] if part.text else []
    return [*texts, *(_media(media) for media in part.media)]


def _said(role: str, parts: Sequence[Part]) -> Iterator[dict[str, Any]]:
    """The message item of a run of parts; plain text as a string."""
    parts = [part for part in parts if not (isinstance(part, Text) and not part.text)]
    match parts:
        case []:
            return
        case [Text(text=text)] if not _own(parts[0]):
            yield {"role": role, "content": text}
        case _ if role == "assistant":
            yield _answered(parts)
        case _:
            yield {"role": role, "content": [_block(part) for part in parts]}


def _own(part: Part) -> str:
    """What a text carries of the item it came in."""
    return part.data if isinstance(part, Text) and part.wire == WIRE else ""


def _answered(parts: Sequence[Part]) -> dict[str, Any]:
    """A message item of the model's, as it came."""
    texts = [part for part in parts if isinstance(part, Text)]
    own: dict[str, Any] = msgspec.json.decode(_own(texts[0])) if texts and _own(texts[0]) else {}
    annotations = own.pop("annotations", [])
    content = [{"type": "output_text", "text": text.text, "annotations": annotations} for text in texts]
    return {"type": "message", "role": "assistant", "content": content, **own}


def _block(part: Part) -> dict[str, Any]:
    match part:
        case Text():
            return {"type": "input_text", "text": part.text}
        case Media():
            return _media(part)
        case _:
            return {"type": "input_text", "text": "[erased]"}


def _media(media: Media) -> dict[str, Any]:
    if media.mime.startswith(("audio/", "video/")):
        raise unsupported(WIRE, f"media of type {media.mime}")
    kind = "image" if media.mime.startswith("image/") else "file"
    if media.file_id:
        return {"type": f"input_{kind}", "file_id": media.file_id}
    inline = f"data:{media.mime};base64,{media.data}"
    if kind == "image":
        return {"type": "input_image", "image_url": media.url or inline}
    if media.url:
        return {"type": "input_file", "file_url": media.url}
    return {"type": "input_file", "file_data": inline, **({"filename": media.name} if media.name else {})}
