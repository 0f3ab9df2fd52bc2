"""What an OpenAI Chat Completions server answers, decoded: chunk by chunk, or a whole body.

A whole body is read as one chunk whose `message` is the delta. Compatible servers differ: reasoning comes as
`reasoning_content`, `reasoning` or `reasoning_details`; content as a string, null or a list; arguments as text or as an
object; usage in the last chunk, beside the choice, in `x_groq` or within the choice; ids empty or repeated. `<think>`
tags inside content are content. Source: OpenAI API reference, "Chat Completions", and the recordings.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

import msgspec

from stanchion.core.message import Delta, Finish, ModelResponse, Part, Usage
from stanchion.model.draft import Draft, PartDraft, argument_text, tokens
from stanchion.model.failure import event_failure, failure
from stanchion.model.wire import decode_failed, early_end

WIRE: Final = "openai_chat"

_FINISH: Final[Mapping[str, Finish]] = {
    "stop": "stop",
    "eos": "stop",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_calls": "tool_calls",
    "tool_use": "tool_calls",
    "function_call": "tool_calls",
    "length": "length",
    "max_tokens": "length",
    "model_length": "length",
    "content_filter": "refusal",
    "refusal": "refusal",
    "sensitive": "refusal",
    "guardrail_intervened": "refusal",
}


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: Any = None


class _Call(msgspec.Struct):
    index: int | None = None
    id: Any = None
    function: _Function | None = None
    extra_content: Any = None


class _Said(msgspec.Struct):
    """A `delta`, or the `message` of a whole body."""

    content: Any = None
    refusal: Any = None
    reasoning: Any = None
    reasoning_content: Any = None
    reasoning_details: Any = None
    tool_calls: list[_Call] | None = None
    function_call: _Function | None = None


class _Choice(msgspec.Struct):
    index: int | None = 0
    delta: _Said | None = None
    message: _Said | None = None
    finish_reason: Any = None
    usage: Any = None


class _Chunk(msgspec.Struct):
    id: Any = ""
    model: Any = ""
    choices: list[_Choice] | None = None
    usage: Any = None
    error: Any = None
    x_groq: Any = None


_decode_chunk = msgspec.json.Decoder(_Chunk).decode


class ChatDecoder:
    """Decodes one response."""

    def __init__(self, *, listening: bool = True) -> None:
        self.done = False
        self._draft = Draft(WIRE, listening=listening)
        self._text = PartDraft("text")
        self._thinking = PartDraft("thinking")
        self._thinking_field = ""
        self._details: list[dict[str, Any]] = []
        self._calls: dict[int, PartDraft] = {}
        self._last_call = -1
        self._usage: Mapping[str, Any] | None = None
        self._finish = ""
        self._refused = False
        self._id = ""
        self._model = ""

    def event(self, name: bytes, data: bytes) -> None:
        if data == b"[DONE]":
            self.done = True
            return
        try:
            chunk = _decode_chunk(data)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise decode_failed(WIRE, data, error) from error
        if chunk.error or name == b"error":
            raise event_failure(
                WIRE, chunk.error or data.decode("utf-8", "replace"), partial=self.partial(), usage=self.usage()
            )
        self._chunk(chunk)

    def body(self, data: bytes) -> None:
        self.event(b"", data)
        if not self._id and not self._finish and not self._draft.parts:
            raise decode_failed(WIRE, data, ValueError("no choices"))
        self.done = True

    def take_deltas(self) -> list[Delta]:
        return self._draft.take_deltas()

    def partial(self) -> tuple[Part, ...]:
        self._seal_thinking()
        return self._draft.finished()

    def usage(self) -> Usage | None:
        return read_usage(self._usage) if self._usage is not None else None

    def response(self) -> ModelResponse:
        parts = self.partial()
        if not self._finish:
            raise early_end(WIRE, parts, self.usage())
        if self._finish == "error":
            raise failure("server_error", f"{WIRE} ended with an error", partial=parts, usage=self.usage())
        return ModelResponse(
            parts, self._finished(), self.usage(), model=self._model, id=self._id, raw_finish=self._finish
        )

    def _finished(self) -> Finish:
        finish = _FINISH.get(self._finish.lower(), "stop")
        if finish in ("stop", "tool_calls"):
            # Some servers say `stop` beside tool calls, or `tool_calls` without any: the calls decide.
            finish = "tool_calls" if self._calls else "stop"
        return "refusal" if finish == "stop" and self._refused else finish

    def _chunk(self, chunk: _Chunk) -> None:
        if chunk.id and not self._id and isinstance(chunk.id, str):
            self._id = chunk.id
        if chunk.model and not self._model and isinstance(chunk.model, str):
            self._model = chunk.model
        if chunk.usage is not None:
            self._keep_usage(chunk.usage)
        elif chunk.x_groq is not None:
            self._keep_usage(_field(chunk.x_groq, "usage"))
        if not chunk.choices:
            return
        choice = chunk.choices[0]
        if choice.index:
            return
        said = choice.delta or choice.message
        if said is not None:
            self._said(said)
        if choice.finish_reason:
            self._finish = str(choice.finish_reason)
        if choice.usage is not None and chunk.usage is None:
            self._keep_usage(choice.usage)

    def _keep_usage(self, usage: Any) -> None:
        if isinstance(usage, dict):
            self._usage = cast("dict[str, Any]", usage)

    def _said(self, said: _Said) -> None:
        reasoning = said.reasoning_content or said.reasoning
        if reasoning or said.reasoning_details:
            self._reason(said, reasoning)
        content = said.content
        if content:
            if isinstance(content, str):
                self._draft.write(self._text, "text", content)
            elif isinstance(content, list):
                self._listed(cast("list[Any]", content))
        if said.refusal and isinstance(said.refusal, str):
            self._refused = True
            self._draft.write(self._text, "text", said.refusal)
        if said.tool_calls:
            for call in said.tool_calls:
                self._call(call)
        elif said.function_call is not None:
            self._call(_Call(index=0, function=said.function_call))

    def _reason(self, said: _Said, reasoning: Any) -> None:
        if (details := _listed(said.reasoning_details)) is not None:
            self._add_details(details)
            if not reasoning:
                reasoning = "".join(_detail_text(detail) for detail in details)
        if isinstance(reasoning, str) and reasoning:
            self._thinking_field = "reasoning_content" if said.reasoning_content else "reasoning"
            self._draft.write(self._thinking, "thinking", reasoning)
        elif self._details and self._thinking.index < 0:
            self._draft.place(self._thinking)

    def _add_details(self, details: list[Any]) -> None:
        """Details stream in pieces: those of one index and type are one."""
        for detail in details:
            if not isinstance(detail, dict):
                continue
            fields = cast("dict[str, Any]", detail)
            last = self._details[-1] if self._details else None
            key = ("index", "type")
            if last is None or any(last.get(k) != fields.get(k) for k in key) or fields.get("index") is None:
                self._details.append(dict(fields))
                continue
            for name, value in fields.items():
                if name in ("text", "summary", "data") and isinstance(value, str) and isinstance(last.get(name), str):
                    last[name] += value
                elif value is not None:
                    last[name] = value

    def _listed(self, content: list[Any]) -> None:
        """Content as a list of typed pieces (Mistral's reasoning models)."""
        for piece in content:
            if not isinstance(piece, dict):
                continue
            fields = cast("dict[str, Any]", piece)
            if fields.get("type") == "thinking":
                inner = fields.get("thinking")
                pieces: list[Any] = cast("list[Any]", inner) if isinstance(inner, list) else [inner]
                text = "".join(p if isinstance(p, str) else _detail_text(p) for p in pieces)
                self._thinking_field = "thinking"
                self._draft.write(self._thinking, "thinking", text)
            elif isinstance(fields.get("text"), str):
                self._draft.write(self._text, "text", fields["text"])

    def _call(self, call: _Call) -> None:
        function = call.function or _Function()
        index = self._call_index(call, function)
        self._last_call = index
        part = self._calls.get(index)
        if part is None:
            part = self._calls[index] = PartDraft("tool_call")
            part.id = call.id if isinstance(call.id, str) else ""
            part.name = function.name or ""
            self._draft.begin_call(part)
        elif not part.name and function.name:
            part.name = function.name
        if call.extra_content:
            part.data = {"extra_content": call.extra_content}
        if function.arguments:
            self._draft.write(part, "tool_call", argument_text(function.arguments))

    def _call_index(self, call: _Call, function: _Function) -> int:
        """The call a piece belongs to. Some servers send no index, or index 0 for every call: a new id is a new call."""
        index = call.index if call.index is not None else max(self._last_call, 0)
        part = self._calls.get(index)
        if part is None or not call.id or not function.name or part.id == call.id:
            return index if part is not None or call.index is not None else len(self._calls)
        known = next((i for i, other in self._calls.items() if other.id == call.id), None)
        return known if known is not None else max(self._calls) + 1

    def _seal_thinking(self) -> None:
        if self._thinking.index >= 0:
            data: dict[str, Any] = {"field": self._thinking_field} if self._thinking_field else {}
            if self._details:
                data["details"] = self._details
            self._thinking.data = data


def _field(value: Any, name: str) -> Any:
    return cast("dict[str, Any]", value).get(name) if isinstance(value, dict) else None


def _listed(value: Any) -> list[Any] | None:
    return cast("list[Any]", value) if isinstance(value, list) else None


def _detail_text(detail: Any) -> str:
    if not isinstance(detail, dict):
        return ""
    fields = cast("dict[str, Any]", detail)
    text = fields.get("text") or fields.get("summary")
    return text if isinstance(text, str) else ""


def read_usage(fields: Mapping[str, Any]) -> Usage:
    """The bill. `prompt_tokens` includes what was read from a cache and written to one; ours does not.

    Where read and written together exceed the prompt, the same tokens were both, and both were billed (OpenRouter with
    Gemini; its recorded cost is exact with this reading).
    """
    prompt = tokens(fields, "prompt_tokens")
    read = (
        tokens(fields, "prompt_tokens_details", "cached_tokens")
        or tokens(fields, "prompt_cache_hit_tokens")
        or tokens(fields, "num_cached_tokens")
        or tokens(fields, "cached_tokens")
    )
    read = min(read, prompt)
    written = min(tokens(fields, "prompt_tokens_details", "cache_write_tokens"), prompt)
    cached = read + written if read + written <= prompt else max(read, written)
    reasoning = tokens(fields, "completion_tokens_details", "reasoning_tokens")
    return Usage(
        input_tokens=prompt - cached,
        cache_read_tokens=read,
        cache_write_tokens=written,
        output_tokens=tokens(fields, "completion_tokens"),
        reasoning_tokens=reasoning,
    )
