"""Read a request of the OpenAI Responses wire, as strictly as the provider documents it.

The sim stores no responses: `previous_response_id`, `conversation` and `background` are refused. Refused by name as well:
unknown parameters, outputs without calls and calls without outputs, reasoning parted from what it led to, item ids of the
wrong kind, content parts where they may not stand.
"""

from __future__ import annotations

from typing import Any

from stanchion.sim.body import Field, openai_refusal, read_body, word_set
from stanchion.sim.breakpoints import breakpoint_of, check_breakpoints, without_breakpoint
from stanchion.sim.exchange import Ask, AskedCall, AskedTool, Refusal, Turn, digest_of
from stanchion.sim.read_chat import check_strict, read_function
from stanchion.sim.tokens import Piece, json_piece, media_piece, text_piece

PATH = "/v1/responses"
_FIELDS = word_set(
    "model input instructions stream stream_options tools tool_choice parallel_tool_calls max_output_tokens "
    "max_tool_calls temperature top_p user safety_identifier prompt_cache_key prompt_cache_options "
    "prompt_cache_retention metadata store reasoning text include truncation service_tier top_logprobs "
    "previous_response_id conversation background context_management moderation prompt"
)
_STATEFUL = ("previous_response_id", "conversation", "prompt")
_SEALED = "reasoning.encrypted_content"
_PREFIX = {"function_call": "fc", "reasoning": "rs", "message": "msg"}
_MODEL_MADE = frozenset(("function_call", "reasoning", "custom_tool_call"))


def read(body: bytes) -> Ask:
    """Read and check a request; raises `Refusal`."""
    top = read_body(body, openai_refusal)
    _check_fields(top)
    if not top.has("model"):
        raise Refusal("Missing required parameter: 'model'.", param="model", code="missing_required_parameter")
    tools = _tools(top)
    pieces = [json_piece("tool", "tool", t.object()) for t in _list(top, "tools")]
    system: list[str] = []
    if top.has("instructions"):
        system.append(top.get("instructions").text())
        pieces.append(text_piece("system", "system", system[0]))
    turns = _input(top, system, pieces)
    check_breakpoints(top, top.get("model").some_text(), pieces)
    reasoning = top.get("reasoning") if top.has("reasoning") else None
    return Ask(
        wire="openai_responses",
        model=top.get("model").some_text(),
        stream=top.has("stream") and top.get("stream").boolean(),
        system="\n".join(system),
        turns=turns,
        pieces=tuple(pieces),
        tools=tools,
        tool_choice=_tool_choice(top, tools),
        max_tokens=top.get("max_output_tokens").integer(least=16) if top.has("max_output_tokens") else None,
        thinking=reasoning is None or reasoning.get("effort").value != "none",
        summary=reasoning is not None and reasoning.has("summary"),
        encrypted=_SEALED in [f.text() for f in _list(top, "include")],
        output_schema=_output_schema(top),
        names=tuple(top.get(n).text() for n in ("safety_identifier", "user") if top.has(n)),
        body=top.object(),
        digest=digest_of(PATH, body),
    )


def _list(top: Field, name: str) -> list[Field]:
    return list(top.get(name).items()) if top.has(name) else []


def _check_fields(top: Field) -> None:
    for name in top.object():
        if name not in _FIELDS:
            raise Refusal(f"Unknown parameter: '{name}'.", param=name, code="unknown_parameter")
    for name in _STATEFUL:
        if top.has(name):
            why = "the simulated provider stores nothing between requests; send the whole input"
            code = "previous_response_not_found" if name == "previous_response_id" else "unsupported_parameter"
            raise Refusal(f"'{name}' cannot be resolved: {why}.", param=name, code=code)
    if top.has("background") and top.get("background").boolean():
        raise Refusal(
            "The simulated provider has no background mode.", param="background", code="unsupported_parameter"
        )
    for name in ("temperature", "top_p"):
        if top.has(name):
            top.get(name).number(0, 2 if name == "temperature" else 1)
    if top.has("stream_options") and not (top.has("stream") and top.get("stream").boolean()):
        raise openai_refusal(
            "stream_options", "The 'stream_options' parameter is only allowed when 'stream' is enabled."
        )


def _tools(top: Field) -> tuple[AskedTool, ...]:
    return tuple(read_function(t) for t in _list(top, "tools") if t.get("type").some_text() == "function")


def _tool_choice(top: Field, tools: tuple[AskedTool, ...]) -> str:
    if not top.has("tool_choice"):
        return "auto"
    choice = top.get("tool_choice")
    if isinstance(choice.value, str):
        word = choice.one_of("auto", "none", "required")
        if word == "required" and not _list(top, "tools"):
            raise choice.fail("Tool choice 'required' must be specified with 'tools' parameter.")
        return word
    if choice.get("type").value != "function":
        return "required" if choice.get("mode").value == "required" else "auto"
    name = choice.get("name").text()
    if name not in {t.name for t in tools}:
        raise choice.fail(f"Tool choice '{name}' not found in 'tools' parameter.")
    return name


def _input(top: Field, system: list[str], pieces: list[Piece]) -> tuple[Turn, ...]:
    if not top.has("input"):
        raise Refusal("Missing required parameter: 'input'.", param="input", code="missing_required_parameter")
    source = top.get("input")
    if isinstance(source.value, str):
        pieces.append(text_piece("message", "user", source.value))
        return (Turn("user", source.value),)
    items = list(source.items())
    turns: list[Turn] = []
    calls: dict[str, str] = {}
    answered: set[str] = set()
    others: set[str] = set()
    for item in items:
        _item(item, system, turns, pieces, calls, answered, others)
    for call_id in calls:
        if call_id not in answered:
            raise Refusal(f"No tool output found for function call {call_id}.", param="input")
    _check_reasoning(items, stored=top.get("store").value is not False)
    return _merged(turns)


def _item(
    item: Field,
    system: list[str],
    turns: list[Turn],
    pieces: list[Piece],
    calls: dict[str, str],
    answered: set[str],
    others: set[str],
) -> None:
    kind = item.get("type").text() if item.has("type") else "message"
    _check_id(item, kind)
    if kind == "message":
        _message(item, system, turns, pieces)
        return
    pieces.append(json_piece("message", "user" if kind.endswith("_output") else "assistant", item.object()))
    if kind.endswith("_call") and kind != "function_call" and item.has("call_id"):
        others.add(item.get("call_id").text())
    if kind == "function_call":
        call_id = _call_id(item)
        calls[call_id] = item.get("name").some_text()
        turns.append(Turn("assistant", calls=(AskedCall(call_id, calls[call_id], item.get("arguments").text()),)))
    elif kind == "function_call_output":
        call_id = _call_id(item)
        if call_id not in calls and call_id not in others:
            raise Refusal(f"No tool call found for function call output with call_id {call_id}.", param="input")
        answered.add(call_id)
        turns.append(Turn("tool", _output(item.get("output")), call_id=call_id))
    elif kind == "reasoning":
        for part in item.get("summary").items():
            part.get("type").one_of("summary_text")
        turns.append(Turn("assistant"))


def _call_id(item: Field) -> str:
    call_id = item.get("call_id").some_text()
    if len(call_id) > 64:
        raise item.get("call_id").fail(
            f"Invalid value: string too long. Expected a maximum length of 64, got {len(call_id)}"
        )
    return call_id


def _check_id(item: Field, kind: str) -> None:
    wanted = _PREFIX.get(kind)
    if wanted and item.has("id") and not item.get("id").text().startswith(wanted):
        raise item.get("id").fail(
            f"Invalid value: '{item.get('id').value}'. Expected an ID that begins with '{wanted}'."
        )


def _message(item: Field, system: list[str], turns: list[Turn], pieces: list[Piece]) -> None:
    role = item.get("role").one_of("user", "assistant", "system", "developer")
    if role == "assistant":
        turns.append(Turn("assistant", _content(item, role, pieces, ("output_text", "refusal"))))
        return
    text = _content(item, role, pieces, ("input_text", "input_image", "input_file", "input_audio"))
    if role == "user":
        turns.append(Turn("user", text))
    else:
        system.append(text)


def _content(item: Field, role: str, pieces: list[Piece], allowed: tuple[str, ...]) -> str:
    content = item.get("content")
    kind = "system" if role in ("system", "developer") else "message"
    if isinstance(content.value, str):
        pieces.append(text_piece(kind, role, content.value))
        return content.value
    texts: list[str] = []
    for part in content.items():
        name = part.get("type").one_of(*allowed)
        if name in ("input_text", "output_text", "refusal"):
            texts.append(part.get("refusal" if name == "refusal" else "text").text())
            pieces.append(text_piece(kind, role, texts[-1], breakpoint_of(part)))
        else:
            pieces.append(media_piece(role, without_breakpoint(part), breakpoint_of(part)))
    return "\n".join(texts)


def _output(output: Field) -> str:
    if isinstance(output.value, str):
        return output.value
    return "\n".join(p.get("text").text() for p in output.items() if p.get("type").value == "input_text")


def _check_reasoning(items: list[Field], *, stored: bool) -> None:
    """Refuse reasoning that was parted from the item it led to, in both directions.

    A call that followed reasoning carries it in its id when the sim made it (`fc_simr..`), which stands for the
    provider's own memory of the pair.
    """
    reasoned = {str(i.get("id").value).removeprefix("rs_sim") for i in items if i.get("type").value == "reasoning"}
    for here, after in zip(items, [*items[1:], None], strict=True):
        kind = here.get("type").value
        name = str(here.get("id").value or "")
        if kind == "reasoning":
            if not stored and not here.has("encrypted_content"):
                why = "Items are not persisted when `store` is set to false."
                raise Refusal(f"Item with id '{name}' not found. {why}", status=404, param="input")
            if name and (after is None or not _follows_reasoning(after)):
                raise Refusal(
                    f"Item '{name}' of type 'reasoning' was provided without its required following item.",
                    param="input",
                )
        elif kind == "function_call" and name.startswith("fc_simr"):
            seed = name.removeprefix("fc_simr").partition("_")[0]
            if seed not in reasoned:
                raise Refusal(
                    f"Item '{name}' of type 'function_call' was provided without its required 'reasoning' item: "
                    f"'rs_sim{seed}'.",
                    param="input",
                )


def _follows_reasoning(item: Field) -> bool:
    kind = item.get("type").text() if item.has("type") else "message"
    return item.get("role").value == "assistant" if kind == "message" else not kind.endswith("function_call_output")


def _merged(turns: list[Turn]) -> tuple[Turn, ...]:
    """Join the items of one response into one turn.

    Clients may put each output right after its call. Calls the sim made carry their response's digits in the id, so a
    call of a response that has spoken already does not open another turn.
    """
    merged: list[Turn] = []
    for turn in turns:
        at = _same_response(merged, turn)
        if at is None:
            merged.append(turn)
        else:
            was = merged[at]
            text = "\n".join(filter(None, (was.text, turn.text)))
            merged[at] = Turn("assistant", text, was.calls + turn.calls)
    return tuple(merged)


def _same_response(merged: list[Turn], turn: Turn) -> int | None:
    if turn.role != "assistant" or not merged:
        return None
    if merged[-1].role == "assistant":
        return len(merged) - 1
    if not turn.calls or not turn.calls[0].id.startswith("call_sim"):
        return None
    seed = turn.calls[0].id.rpartition("_")[0]
    for at in range(len(merged) - 1, -1, -1):
        if merged[at].role == "user":
            return None
        if any(call.id.rpartition("_")[0] == seed for call in merged[at].calls):
            return at
    return None


def _output_schema(top: Field) -> dict[str, Any] | None:
    if not top.has("text") or not top.get("text").has("format"):
        return None
    form = top.get("text").get("format")
    if form.get("type").one_of("text", "json_object", "json_schema") != "json_schema":
        return None
    name = form.get("name").some_text()
    if form.get("strict").value is True:
        check_strict(form.get("schema"), name)
    return form.get("schema").object()
