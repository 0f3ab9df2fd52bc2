"""Recorded request bodies, read back into our `ModelRequest`, so that they can be encoded again and compared.

What `ModelRequest` has no word for is refused with `Unsaid` and counts as not equal; only top-level fields without a word
of their own and hosted tools go through `options`, as a user would pass them.
"""

from __future__ import annotations

import json
from typing import Any

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
    Part,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
    ToolSchema,
)

TOOL = Label("tool")


class Unsaid(Exception):
    """`ModelRequest` has no word for this."""


def read(wire: str, body: dict[str, Any]) -> ModelRequest:
    """The request of a recorded body. Raises `Unsaid`."""
    match wire:
        case "anthropic":
            return _anthropic(dict(body))
        case "openai_chat":
            return _chat(dict(body))
        case _:
            return _responses(dict(body))


def _only(kind: str, value: dict[str, Any], *known: str) -> None:
    if odd := sorted(k for k, v in value.items() if k not in known and v is not None):
        raise Unsaid(f"{kind} with {', '.join(odd)}")


def _merge(messages: list[Message], role: Any, parts: list[Part]) -> None:
    messages.append(Message(role, tuple(parts)))


def _tools(body: dict[str, Any], function: Any) -> tuple[tuple[ToolSchema, ...], list[Any]]:
    ours: list[ToolSchema] = []
    hosted: list[Any] = []
    for tool in body.pop("tools", None) or []:
        schema = function(tool)
        if schema is None:
            hosted.append(tool)
        elif hosted:
            raise Unsaid("a hosted tool listed before the agent's own")
        else:
            ours.append(schema)
    return tuple(ours), hosted


def _schema(tool: dict[str, Any], parameters: str) -> ToolSchema:
    return ToolSchema(tool["name"], tool.get("description") or "", tool.get(parameters) or {}, bool(tool.get("strict")))


# --- Anthropic --------------------------------------------------------------------------------------------------------


def _anthropic(body: dict[str, Any]) -> ModelRequest:
    tools, hosted = _tools(body, _anthropic_tool)
    system_marks: list[int] = []
    system = _anthropic_system(body.pop("system", None), system_marks)
    marks: list[int] = []
    messages = tuple(_anthropic_message(m, i, marks) for i, m in enumerate(body.pop("messages")))
    choice: dict[str, Any] = body.pop("tool_choice", None) or {"type": "auto"}
    config: dict[str, Any] = dict(body.pop("output_config", None) or {})
    form = config.pop("format", None)
    thinking = body.get("thinking") or {}
    _only("thinking", thinking, "type", "budget_tokens", "display")
    budget = None
    if set(thinking) == {"type", "budget_tokens"}:
        budget = thinking["budget_tokens"]
        body.pop("thinking")
    effort = config.pop("effort", "")
    if config:
        body["output_config"] = config
    if hosted:
        body["tools"] = hosted
    body.pop("stream", None)
    return ModelRequest(
        body.pop("model"),
        messages,
        body.pop("max_tokens"),
        system=system,
        tools=tools,
        tool_choice={"auto": "auto", "any": "required", "none": "none"}.get(choice["type"]) or choice["name"],
        parallel_tool_calls=not choice.get("disable_parallel_tool_use"),
        output=OutputSchema("", form["schema"]) if form else None,
        temperature=body.pop("temperature", None),
        top_p=body.pop("top_p", None),
        stop=tuple(body.pop("stop_sequences", None) or ()),
        thinking_tokens=budget,
        effort=effort,
        cache_marks=tuple(CacheMark(mark) for mark in system_marks + marks),
        options=body,
    )


def _anthropic_tool(tool: dict[str, Any]) -> ToolSchema | None:
    if tool.get("type") not in (None, "custom"):
        return None
    _only("a tool", tool, "type", "name", "description", "input_schema", "strict")
    return _schema(tool, "input_schema")


def _marked(block: dict[str, Any], last: bool) -> bool:
    mark = block.get("cache_control")
    if mark is None:
        return False
    if mark != {"type": "ephemeral"} or not last:
        raise Unsaid(f"a cache mark {json.dumps(mark)} {'' if last else 'within a message'}")
    return True


def _anthropic_system(system: Any, marks: list[int]) -> tuple[Text, ...]:
    blocks = [{"type": "text", "text": system}] if isinstance(system, str) else system or []
    for place, block in enumerate(blocks):
        _only("a system block", block, "type", "text", "cache_control")
        if _marked(block, place == len(blocks) - 1):
            marks.append(-1)
    return tuple(Text(block["text"], DEVELOPER) for block in blocks)


def _anthropic_message(message: dict[str, Any], index: int, marks: list[int]) -> Message:
    if message["role"] not in ("user", "assistant"):
        raise Unsaid(f"a message of role {message['role']}")
    content = message["content"]
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
    for place, block in enumerate(blocks):
        if _marked(block, place == len(blocks) - 1):
            marks.append(index)
    bare = [{k: v for k, v in block.items() if k != "cache_control"} for block in blocks]
    return Message(message["role"], tuple(_anthropic_block(block, message["role"]) for block in bare))


def _anthropic_block(block: dict[str, Any], role: str) -> Part:
    own = {k: v for k, v in block.items() if k not in ("type", "id", "name", "input", "text")}
    data = json.dumps(own) if own else ""
    match block["type"]:
        case "text":
            return Text(block["text"], MODEL if role == "assistant" else USER, "anthropic" if data else "", data)
        case "thinking":
            return Thinking(block["thinking"], MODEL, block["signature"], wire="anthropic")
        case "redacted_thinking":
            return Thinking("", MODEL, wire="anthropic", data=json.dumps(block))
        case "tool_use":
            arguments = json.dumps(block["input"])
            return ToolCall(block["id"], block["name"], arguments, MODEL, "anthropic" if data else "", data)
        case "tool_result":
            return _anthropic_result(block)
        case "image" | "document":
            return _anthropic_media(block)
        case kind:
            return Opaque("anthropic", kind, json.dumps(block), MODEL if role == "assistant" else USER)


def _anthropic_result(block: dict[str, Any]) -> ToolResult:
    _only("a tool result", block, "type", "tool_use_id", "content", "is_error")
    content = block.get("content")
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content or []
    kinds = [b["type"] for b in blocks]
    if kinds.count("text") > 1 or "text" in kinds[1:] or not set(kinds) <= {"text", "image", "document"}:
        raise Unsaid(f"a tool result of {kinds}")
    text = "".join(b["text"] for b in blocks if b["type"] == "text")
    media = tuple(_anthropic_media(b) for b in blocks if b["type"] != "text")
    return ToolResult(block["tool_use_id"], "", text, TOOL, bool(block.get("is_error")), media)


def _anthropic_media(block: dict[str, Any]) -> Media:
    source, kind = block["source"], block["type"]
    _only("media", block, "type", "source")
    mime = source.get("media_type") or ("image/*" if kind == "image" else "application/pdf")
    match source["type"]:
        case "base64":
            return Media(mime, USER, data=source["data"])
        case "text":
            return Media("text/plain", USER, data=source["data"])
        case "url":
            return Media(mime, USER, url=source["url"])
        case _:
            return Media(mime, USER, file_id=source["file_id"])


# --- OpenAI Chat Completions ------------------------------------------------------------------------------------------


def _chat(body: dict[str, Any]) -> ModelRequest:
    tools, hosted = _tools(body, _chat_tool)
    given: list[dict[str, Any]] = body.pop("messages")
    system: list[Text] = []
    while given and given[0]["role"] == "system":
        system.append(Text(_chat_text(given[0]["content"]), DEVELOPER))
        given = given[1:]
    if len(system) > 1:
        raise Unsaid("several system messages")
    if hosted:
        body["tools"] = hosted
    for field in ("stream", "stream_options"):
        body.pop(field, None)
    form = body.get("response_format") or {}
    output = None
    if form.get("type") == "json_schema" and form["json_schema"].get("strict"):
        schema = body.pop("response_format")["json_schema"]
        output = OutputSchema(schema["name"], schema["schema"], schema.get("description") or "")
    stop = body.pop("stop", None) or ()
    return ModelRequest(
        body.pop("model"),
        _chat_messages(given),
        body.pop("max_completion_tokens", None) or 0,
        system=tuple(system),
        tools=tools,
        tool_choice=_chat_choice(body.pop("tool_choice", None)),
        parallel_tool_calls=body.pop("parallel_tool_calls", None) is not False,
        output=output,
        temperature=body.pop("temperature", None),
        top_p=body.pop("top_p", None),
        stop=(stop,) if isinstance(stop, str) else tuple(stop),
        effort=body.pop("reasoning_effort", None) or "",
        options={k: v for k, v in body.items() if v is not None},
    )


def _chat_choice(choice: Any) -> str:
    if isinstance(choice, dict):
        if "function" not in choice:
            raise Unsaid(f"tool_choice {choice['type']}")
        return choice["function"]["name"]
    if choice not in (None, "auto", "none", "required"):
        raise Unsaid(f"tool_choice {choice!r}")
    return choice or "auto"


def _chat_tool(tool: dict[str, Any]) -> ToolSchema | None:
    if tool.get("type", "function") != "function":
        return None
    _only("a tool", tool, "type", "function")
    _only("a function", tool["function"], "name", "description", "parameters", "strict")
    return _schema(tool["function"], "parameters")


def _chat_text(content: Any) -> str:
    if isinstance(content, str) or content is None:
        return content or ""
    if any(set(piece) != {"type", "text"} for piece in content):
        raise Unsaid("content of more than text")
    return "".join(piece["text"] for piece in content)


def _chat_messages(given: list[dict[str, Any]]) -> tuple[Message, ...]:
    messages: list[Message] = []
    results: list[Part] = []
    for message in [*given, {"role": "end"}]:
        if message["role"] == "tool":
            _only("a tool message", message, "role", "content", "tool_call_id")
            results.append(ToolResult(message["tool_call_id"], "", _chat_text(message["content"]), TOOL))
            continue
        if results:
            _merge(messages, "user", results)
            results = []
        match message["role"]:
            case "user":
                _only("a user message", message, "role", "content")
                _merge(messages, "user", _chat_content(message["content"]))
            case "assistant":
                _merge(messages, "assistant", _chat_said(message))
            case "end":
                break
            case role:
                raise Unsaid(f"a {role} message after the first")
    return tuple(messages)


def _chat_content(content: Any) -> list[Part]:
    if isinstance(content, str):
        return [Text(content, USER)]
    return [_chat_block(block) for block in content]


def _chat_block(block: dict[str, Any]) -> Part:
    match block["type"]:
        case "text":
            _only("a text", block, "type", "text")
            return Text(block["text"], USER)
        case "image_url":
            image = {"url": block["image_url"]} if isinstance(block["image_url"], str) else block["image_url"]
            if image.get("detail") not in (None, "auto"):
                raise Unsaid("an image's detail")
            return _media_url(image["url"], "image/*")
        case "input_audio":
            mime = {"wav": "audio/wav", "mp3": "audio/mpeg"}[block["input_audio"]["format"]]
            return Media(mime, USER, data=block["input_audio"]["data"])
        case "file" if "file_data" in block.get("file", {}):
            return _media_url(block["file"]["file_data"], "application/pdf", block["file"].get("filename") or "")
        case "file" if "file_id" in block.get("file", {}):
            return Media("application/pdf", USER, file_id=block["file"]["file_id"])
        case kind:
            return Opaque("openai_chat", kind, json.dumps(block), USER)


def _media_url(url: str, kind: str, name: str = "") -> Media:
    if url.startswith("data:") and ";base64," in url:
        mime, _, data = url[5:].partition(";base64,")
        return Media(mime, USER, data=data, name=name)
    return Media(kind, USER, url=url, name=name)


def _chat_said(message: dict[str, Any]) -> list[Part]:
    fields = ("reasoning", "reasoning_content", "reasoning_details")
    _only(
        "an assistant message",
        {**message, "prefix": message.get("prefix") or None},
        "role",
        "content",
        "tool_calls",
        *fields,
    )
    parts: list[Part] = []
    if any(message.get(field) for field in fields):
        field = next((f for f in fields[:2] if message.get(f)), "")
        data = {"field": field, **({"details": d} if (d := message.get("reasoning_details")) else {})}
        parts.append(Thinking(message.get(field) or "", MODEL, wire="openai_chat", data=json.dumps(data)))
    if text := _chat_text(message.get("content")):
        parts.append(Text(text, MODEL))
    for call in message.get("tool_calls") or []:
        own = {k: v for k, v in call.items() if k not in ("id", "type", "function", "index")}
        function = call["function"]
        data = json.dumps(own) if own else ""
        parts.append(
            ToolCall(
                call["id"], function["name"], _chat_arguments(function), MODEL, "openai_chat" if data else "", data
            )
        )
    return parts


def _chat_arguments(function: dict[str, Any]) -> str:
    return function["arguments"] if isinstance(function["arguments"], str) else json.dumps(function["arguments"])


# --- OpenAI Responses -------------------------------------------------------------------------------------------------


def _responses(body: dict[str, Any]) -> ModelRequest:
    tools, hosted = _tools(body, _responses_tool)
    if hosted:
        body["tools"] = hosted
    given = body.pop("input")
    messages = _responses_messages([{"role": "user", "content": given}] if isinstance(given, str) else given)
    choice = body.get("tool_choice")
    if isinstance(choice, dict) and choice.get("type") == "function":
        body.pop("tool_choice")
        chosen = str(choice["name"])
    elif choice in (None, "auto", "required", "none"):
        chosen = body.pop("tool_choice", None) or "auto"
    else:
        raise Unsaid(f"tool_choice {choice['type']}")
    text: dict[str, Any] = dict(body.pop("text", None) or {})
    output = None
    if (text.get("format") or {}).get("type") == "json_schema" and text["format"].get("strict"):
        form = text.pop("format")
        output = OutputSchema(form["name"], form["schema"], form.get("description") or "")
    if text:
        body["text"] = text
    reasoning: dict[str, Any] = dict(body.pop("reasoning", None) or {})
    effort = reasoning.pop("effort", None) or ""
    if reasoning:
        body["reasoning"] = reasoning
    body.pop("stream", None)
    # A null option leaves a default of ours out: the recording says no such field.
    body.setdefault("store", None)
    body.setdefault("include", None)
    instructions = body.pop("instructions", None)
    return ModelRequest(
        body.pop("model"),
        messages,
        body.pop("max_output_tokens", None) or 0,
        system=(Text(instructions, DEVELOPER),) if instructions else (),
        tools=tools,
        tool_choice=chosen,
        parallel_tool_calls=body.pop("parallel_tool_calls", None) is not False,
        output=output,
        temperature=body.pop("temperature", None),
        top_p=body.pop("top_p", None),
        effort=effort,
        options=body,
    )


def _responses_tool(tool: dict[str, Any]) -> ToolSchema | None:
    if tool["type"] != "function":
        return None
    _only("a tool", tool, "type", "name", "description", "parameters", "strict")
    return _schema(tool, "parameters")


def _responses_messages(items: list[dict[str, Any]]) -> tuple[Message, ...]:
    messages: list[Message] = []
    for item in items:
        role, parts = _responses_item(item)
        _merge(messages, role, parts)
    return tuple(messages)


def _responses_item(item: dict[str, Any]) -> tuple[str, list[Part]]:
    wire = "openai_responses"
    match item.get("type", "message"):
        case "message":
            return _responses_said(item)
        case "function_call":
            own = {k: v for k, v in item.items() if k not in ("type", "call_id", "name", "arguments") and v is not None}
            data = json.dumps(own) if own else ""
            call = ToolCall(item["call_id"], item["name"], item["arguments"], MODEL, wire if data else "", data)
            return "assistant", [call]
        case "function_call_output":
            output = item["output"]
            blocks = [{"type": "input_text", "text": output}] if isinstance(output, str) else output
            kinds = [b["type"] for b in blocks]
            if "input_text" in kinds[1:]:
                raise Unsaid(f"a tool result of {kinds}")
            text = "".join(b["text"] for b in blocks if b["type"] == "input_text")
            media = tuple(_responses_media(b) for b in blocks if b["type"] != "input_text")
            return "user", [ToolResult(item["call_id"], "", text, TOOL, media=media)]
        case "reasoning":
            return "assistant", [Thinking("", MODEL, wire=wire, data=json.dumps(item))]
        case kind:
            return "assistant", [Opaque(wire, kind, json.dumps(item), MODEL)]


def _responses_said(item: dict[str, Any]) -> tuple[str, list[Part]]:
    role, content = item["role"], item["content"]
    if role not in ("user", "assistant"):
        raise Unsaid(f"a {role} message among the input")
    label = MODEL if role == "assistant" else USER
    if isinstance(content, str):
        return role, [Text(content, label)]
    if role == "assistant":
        own = {k: v for k, v in item.items() if k not in ("type", "role", "content") and v is not None}
        if any(block["type"] != "output_text" or block.get("annotations") for block in content):
            raise Unsaid("an answer of more than text")
        return role, [Text(block["text"], label, "openai_responses", json.dumps(own)) for block in content]
    parts: list[Part] = []
    for block in content:
        if block["type"] == "input_text":
            _only("a text", block, "type", "text")
            parts.append(Text(block["text"], label))
        else:
            parts.append(_responses_media(block))
    return role, parts


def _responses_media(block: dict[str, Any]) -> Media:
    _only("media", {**block, "detail": None}, "type", "image_url", "file_data", "file_url", "file_id", "filename")
    if block.get("detail") not in (None, "auto"):
        raise Unsaid("an image's detail")
    kind = "image/*" if block["type"] == "input_image" else "application/pdf"
    if "file_id" in block:
        return Media(kind, USER, file_id=block["file_id"])
    url = block.get("image_url") or block.get("file_url") or block["file_data"]
    return _media_url(url, kind, block.get("filename") or "")
