"""Read a request of the OpenAI Chat Completions wire, as strictly as the provider documents it.

Refused by name: unknown parameters, tool messages that answer no call and calls without answers, schemas that strict mode
would not take, parameters a reasoning model does not know, more than one choice (the sim gives one).
"""

from __future__ import annotations

import re
from typing import Any

from stanchion.sim.body import Field, openai_refusal, read_body, word_set
from stanchion.sim.breakpoints import breakpoint_of, check_breakpoints, without_breakpoint
from stanchion.sim.exchange import Ask, AskedCall, AskedTool, Refusal, Turn, digest_of
from stanchion.sim.tokens import Piece, json_piece, media_piece, text_piece

PATH = "/v1/chat/completions"
_FIELDS = word_set(
    "model messages stream stream_options tools tool_choice parallel_tool_calls max_tokens max_completion_tokens "
    "temperature top_p n stop seed user safety_identifier prompt_cache_key prompt_cache_options "
    "prompt_cache_retention metadata store reasoning_effort verbosity response_format logprobs top_logprobs logit_bias "
    "presence_penalty frequency_penalty service_tier modalities audio prediction web_search_options moderation "
    "functions function_call"
)
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_REASONING = re.compile(r"(o\d|gpt-5)")
_USER_PARTS = ("text", "image_url", "input_audio", "file")


def read(body: bytes) -> Ask:
    """Read and check a request; raises `Refusal`."""
    top = read_body(body, openai_refusal)
    for name in top.object():
        if name not in _FIELDS:
            raise Refusal(f"Unknown parameter: '{name}'.", param=name, code="unknown_parameter")
    model = _model(top)
    tools = _tools(top)
    pieces = [json_piece("tool", "tool", t.object()) for t in _list(top, "tools")]
    system, turns = _messages(top.get("messages"), pieces)
    check_breakpoints(top, model, pieces)
    stream = top.has("stream") and top.get("stream").boolean()
    return Ask(
        wire="openai_chat",
        model=model,
        stream=stream,
        system=system,
        turns=turns,
        pieces=tuple(pieces),
        tools=tools,
        tool_choice=_tool_choice(top, tools),
        max_tokens=_max_tokens(top, model),
        thinking=not top.has("reasoning_effort") or top.get("reasoning_effort").value != "none",
        usage_in_stream=_usage_in_stream(top, stream),
        stop=_stop(top),
        output_schema=_output_schema(top),
        names=tuple(top.get(n).text() for n in ("safety_identifier", "user") if top.has(n)),
        body=top.object(),
        digest=digest_of(PATH, body),
    )


def _model(top: Field) -> str:
    if not top.has("model"):
        raise Refusal("you must provide a model parameter", param="model")
    return top.get("model").some_text()


def _list(top: Field, name: str) -> list[Field]:
    return list(top.get(name).items()) if top.has(name) else []


def _tools(top: Field) -> tuple[AskedTool, ...]:
    if top.has("tools") and not _list(top, "tools"):
        raise openai_refusal("tools", "Invalid 'tools': empty array. Expected an array with minimum length 1")
    return tuple(
        read_function(tool.get("function"))
        for tool in _list(top, "tools")
        if tool.get("type").one_of("function", "custom") == "function"
    )


def read_function(function: Field) -> AskedTool:
    """Read a function's declaration and, where it is strict, its schema by the rules of strict mode."""
    name = function.get("name")
    if not _NAME.fullmatch(name.some_text()):
        raise name.fail("Invalid value: string does not match pattern. Expected '^[a-zA-Z0-9_-]{1,64}$'")
    if not function.has("parameters"):
        return AskedTool(name.text(), {})
    parameters = function.get("parameters")
    schema = parameters.object()
    if schema and schema.get("type") != "object":
        raise _schema_refusal(parameters, name.text(), "schema must be a JSON Schema of 'type: \"object\"'")
    if function.has("strict") and function.get("strict").boolean():
        check_strict(parameters, name.text())
    return AskedTool(name.text(), schema)


def check_strict(schema: Field, name: str) -> None:
    """Refuse a schema that strict mode would not take: every object is closed and all of its properties required."""
    if not isinstance(schema.value, dict):
        return
    members = schema.object()
    if "properties" in members or members.get("type") == "object":
        if members.get("additionalProperties") is not False:
            raise _schema_refusal(schema, name, "'additionalProperties' is required to be supplied and to be false")
        properties = schema.get("properties").object() if schema.has("properties") else {}
        missing = sorted(set(properties) - set(members.get("required") or ()))
        if missing:
            why = "'required' is required to be supplied and to be an array including every key in properties."
            raise _schema_refusal(schema, name, f"{why} Missing '{missing[0]}'")
    for group in ("properties", "$defs", "definitions"):
        if schema.has(group):
            for key in schema.get(group).object():
                check_strict(schema.get(group).get(key), name)
    if schema.has("items"):
        check_strict(schema.get("items"), name)
    for branch in _list(schema, "anyOf"):
        check_strict(branch, name)


def _schema_refusal(schema: Field, name: str, why: str) -> Refusal:
    return Refusal(f"Invalid schema for '{name}': {why}", param=schema.path, code="invalid_function_parameters")


def _tool_choice(top: Field, tools: tuple[AskedTool, ...]) -> str:
    for name in ("tool_choice", "parallel_tool_calls"):
        if top.has(name) and not top.has("tools") and top.get(name).value != "none":
            raise openai_refusal(
                name, f"Invalid value for '{name}': '{name}' is only allowed when 'tools' are specified."
            )
    if not top.has("tool_choice"):
        return "auto"
    choice = top.get("tool_choice")
    if isinstance(choice.value, str):
        return choice.one_of("auto", "none", "required")
    if choice.get("type").one_of("function", "custom", "allowed_tools") != "function":
        return "auto"
    name = choice.get("function").get("name").text()
    if name not in {t.name for t in tools}:
        raise choice.fail(f"Tool choice '{name}' not found in 'tools' parameter.")
    return name


def _max_tokens(top: Field, model: str) -> int | None:
    if top.has("max_tokens"):
        if top.has("max_completion_tokens"):
            raise openai_refusal(
                "max_tokens", "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported."
            )
        if _REASONING.match(model):
            raise Refusal(
                "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
                param="max_tokens",
                code="unsupported_parameter",
            )
        return top.get("max_tokens").integer(least=1)
    return top.get("max_completion_tokens").integer(least=1) if top.has("max_completion_tokens") else None


def _stop(top: Field) -> tuple[str, ...]:
    if not top.has("stop"):
        return ()
    stop = top.get("stop")
    stops = (stop.text(),) if isinstance(stop.value, str) else tuple(s.text() for s in stop.items())
    if len(stops) > 4:
        raise stop.fail("Invalid value: array too long. Expected an array with maximum length 4")
    return stops


def _usage_in_stream(top: Field, stream: bool) -> bool:
    if top.has("n") and top.get("n").integer(least=1) > 1:
        raise openai_refusal("n", "The simulated provider gives one choice; n must be 1")
    for name in ("temperature", "top_p"):
        if top.has(name):
            top.get(name).number(0, 2 if name == "temperature" else 1)
    if not top.has("stream_options"):
        return False
    if not stream:
        raise openai_refusal(
            "stream_options", "The 'stream_options' parameter is only allowed when 'stream' is enabled."
        )
    options = top.get("stream_options")
    return options.has("include_usage") and options.get("include_usage").boolean()


def _messages(messages: Field, pieces: list[Piece]) -> tuple[str, tuple[Turn, ...]]:
    entries = list(messages.items())
    if not entries:
        raise openai_refusal("messages", "Invalid 'messages': empty array. Expected an array with minimum length 1")
    system: list[str] = []
    turns: list[Turn] = []
    pending: list[str] = []
    for message in entries:
        role = message.get("role").one_of("system", "developer", "user", "assistant", "tool")
        if role == "tool":
            turns.append(_result(message, pending, pieces))
            continue
        if pending:
            raise _unanswered(message.path, pending)
        if role == "assistant":
            turns.append(_assistant(message, pieces))
            pending = [call.id for call in turns[-1].calls]
        elif role == "user":
            turns.append(Turn("user", _content(message, role, pieces, _USER_PARTS)))
        else:
            system.append(_content(message, role, pieces, ("text",)))
    if pending:
        raise _unanswered(entries[-1].path, pending)
    return "\n".join(system), tuple(turns)


def _unanswered(path: str, ids: list[str]) -> Refusal:
    return Refusal(
        "An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'. "
        f"The following tool_call_ids did not have response messages: {', '.join(ids)}",
        param=path,
    )


def _result(message: Field, pending: list[str], pieces: list[Piece]) -> Turn:
    if not message.has("tool_call_id"):
        raise Refusal(f"Missing parameter 'tool_call_id' in '{message.path}'.", param=message.path)
    call_id = message.get("tool_call_id").text()
    if call_id not in pending:
        raise Refusal(
            "Invalid parameter: messages with role 'tool' must be a response to a preceding message with 'tool_calls'"
            f" (no call '{call_id}' waits for one).",
            param=f"{message.path}.role",
        )
    pending.remove(call_id)
    return Turn("tool", _content(message, "tool", pieces, ("text",)), call_id=call_id)


def _assistant(message: Field, pieces: list[Piece]) -> Turn:
    calls: list[AskedCall] = []
    text = ""
    if message.has("content") or not (message.has("tool_calls") or message.has("refusal") or message.has("audio")):
        text = _content(message, "assistant", pieces, ("text", "refusal"))
    if message.has("tool_calls"):
        entries = list(message.get("tool_calls").items())
        if not entries:
            raise message.get("tool_calls").fail("Invalid value: empty array. Expected an array with minimum length 1")
        calls = [_call(entry, pieces) for entry in entries]
    return Turn("assistant", text, tuple(calls))


def _call(call: Field, pieces: list[Piece]) -> AskedCall:
    call_id = call.get("id").some_text()
    if len(call_id) > 40:
        raise call.get("id").fail(
            f"Invalid value: string too long. Expected a string with maximum length 40, got {len(call_id)}"
        )
    if call.get("type").one_of("function", "custom") == "custom":
        pieces.append(json_piece("message", "assistant", call.object()))
        return AskedCall(call_id, call.get("custom").get("name").text(), call.get("custom").get("input").text())
    function = call.get("function")
    name = function.get("name")
    if not _NAME.fullmatch(name.text()):
        raise name.fail("Invalid value: string does not match pattern. Expected '^[a-zA-Z0-9_-]{1,64}$'")
    pieces.append(json_piece("message", "assistant", call.object()))
    return AskedCall(call_id, name.text(), function.get("arguments").text())


def _content(message: Field, role: str, pieces: list[Piece], allowed: tuple[str, ...]) -> str:
    content = message.get("content")
    kind = "system" if role in ("system", "developer") else "message"
    if isinstance(content.value, str):
        pieces.append(text_piece(kind, role, content.value))
        return content.value
    if content.value is None:
        raise openai_refusal(content.path, "Invalid value for 'content': expected a string, got null.")
    texts: list[str] = []
    parts = list(content.items())
    if not parts:
        raise content.fail("Invalid value: empty array. Expected an array with minimum length 1")
    for part in parts:
        name = part.get("type").one_of(*allowed)
        if name in ("text", "refusal"):
            texts.append(part.get(name).text())
            pieces.append(text_piece(kind, role, texts[-1], breakpoint_of(part)))
        else:
            pieces.append(media_piece(role, without_breakpoint(part), breakpoint_of(part)))
    return "\n".join(texts)


def _output_schema(top: Field) -> dict[str, Any] | None:
    if not top.has("response_format"):
        return None
    form = top.get("response_format")
    if form.get("type").one_of("text", "json_object", "json_schema") != "json_schema":
        return None
    spec = form.get("json_schema")
    name = spec.get("name").some_text()
    if spec.has("strict") and spec.get("strict").boolean():
        check_strict(spec.get("schema"), name)
    return spec.get("schema").object() if spec.has("schema") else None
