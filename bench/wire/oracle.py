"""What the well-kept libraries make of a recorded exchange: the vendors' SDKs, and pydantic-ai on top of them.

Each reading is brought to one small form, `Reading`, so that it can be compared with ours. The exchange is served to the
libraries by a transport of theirs that never opens a socket. Development dependencies only.
"""

from __future__ import annotations

import json
from typing import Any

import anthropic
import httpx2
import msgspec
import openai
from openai.lib.streaming.chat import ChatCompletionStreamState
from pydantic_ai import messages as pm
from pydantic_ai.exceptions import ModelHTTPError, UnexpectedModelBehavior
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.models.openrouter import OpenRouterModel
from pydantic_ai.models.snowflake import SnowflakeModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.providers.openrouter import OpenRouterProvider
from pydantic_ai.providers.snowflake import SnowflakeProvider


class Reading(msgspec.Struct):
    """An exchange as one reader sees it. A reader that cannot say a field leaves it None, which agrees with anything."""

    text: str | None = ""
    thinking: str | None = ""
    calls: list[tuple[str, str, Any]] | None = []
    """Id, name, arguments."""
    usage: dict[str, int] | None = None
    reason: str | None = None
    """The finish in the library's own words, where it has some."""
    finish: str | None = ""
    """The provider's word; "" where it said none, and the response is not finished."""
    error: str = ""
    """Class of the failure: the HTTP status, or "invalid"."""


def failed(error: str) -> Reading:
    """A reading that says only the failure."""
    return Reading(None, None, None, None, None, None, error)


def arguments(value: Any) -> Any:
    """Arguments for comparison: parsed where they are JSON."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value or "{}")
    except ValueError:
        return value


class _Recorded(httpx2.AsyncBaseTransport):
    def __init__(self, exchange: dict[str, Any], body: bytes) -> None:
        self._exchange, self._body = exchange, body

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        kind = "text/event-stream" if self._exchange["stream"] else "application/json"
        return httpx2.Response(self._exchange["status"], headers={"content-type": kind}, content=self._body)


def _clients(exchange: dict[str, Any], body: bytes) -> tuple[anthropic.AsyncAnthropic, openai.AsyncOpenAI]:
    http = httpx2.AsyncClient(transport=_Recorded(exchange, body))
    base = f"https://{exchange['host']}"
    return (
        anthropic.AsyncAnthropic(api_key="k", http_client=http, max_retries=0),
        openai.AsyncOpenAI(api_key="k", base_url=base, http_client=http, max_retries=0),
    )


async def by_sdk(exchange: dict[str, Any], body: bytes) -> Reading:
    """The vendor's SDK."""
    claude, gpt = _clients(exchange, body)
    try:
        match exchange["wire"]:
            case "anthropic":
                return _claude(await _claude_message(claude, exchange["stream"]))
            case "openai_chat":
                return _chat(await _chat_completion(gpt, exchange["stream"]))
            case _:
                return _responses(await _response(gpt, exchange["stream"]))
    except (anthropic.APIStatusError, openai.APIStatusError) as error:
        return failed(str(error.status_code))


async def _claude_message(client: anthropic.AsyncAnthropic, stream: bool) -> Any:
    asked: Any = {"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": "x"}]}
    if not stream:
        return await client.beta.messages.create(**asked, timeout=60)
    async with client.beta.messages.stream(**asked) as events:
        return await events.get_final_message()


async def _chat_completion(client: openai.AsyncOpenAI, stream: bool) -> Any:
    asked: Any = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
    if not stream:
        return await client.chat.completions.create(**asked)
    state: Any = ChatCompletionStreamState()
    groq_usage: Any = None
    async for chunk in await client.chat.completions.create(**asked, stream=True):
        groq_usage = ((chunk.model_extra or {}).get("x_groq") or {}).get("usage") or groq_usage
        state.handle_chunk(chunk)
    completion = state.current_completion_snapshot
    if completion.usage is None and groq_usage:
        completion.usage = openai.types.CompletionUsage.model_validate(groq_usage)
    return completion


async def _response(client: openai.AsyncOpenAI, stream: bool) -> Any:
    if not stream:
        return await client.responses.create(model="m", input="x")
    final: Any = None
    events: Any = await client.responses.create(model="m", input="x", stream=True)
    async for event in events:
        if event.type in ("response.completed", "response.incomplete", "response.failed"):
            final = event.response
    return final


def _claude(message: Any) -> Reading:
    used = message.usage
    iterations = [i for i in (used.iterations or []) if i.type == "compaction"]

    def total(name: str) -> int:
        return sum(getattr(u, name) or 0 for u in (used, *iterations))

    return Reading(
        "".join(block.text for block in message.content if block.type == "text"),
        "".join(block.thinking for block in message.content if block.type == "thinking"),
        [(b.id, b.name, b.input) for b in message.content if b.type == "tool_use"],
        {
            "input": total("input_tokens") + total("cache_read_input_tokens") + total("cache_creation_input_tokens"),
            "read": total("cache_read_input_tokens"),
            "written": total("cache_creation_input_tokens"),
            "output": total("output_tokens"),
        },
        finish=message.stop_reason or "",
    )


def _chat(completion: Any) -> Reading:
    if not getattr(completion, "choices", None):
        return failed("invalid")
    choice: Any = completion.choices[0]
    said: Any = choice.message
    extra: dict[str, Any] = said.model_extra or {}
    reasoning = extra.get("reasoning_content") or extra.get("reasoning") or ""
    details: Any = extra.get("reasoning_details") or []
    return Reading(
        (said.content or "") + (said.refusal or ""),
        reasoning or "".join(d.get("text") or d.get("summary") or "" for d in details),
        [(c.id or "", c.function.name, arguments(c.function.arguments)) for c in said.tool_calls or []],
        _chat_usage(completion.usage),
        finish=choice.finish_reason or "",
    )


def _chat_usage(used: Any) -> dict[str, int] | None:
    if used is None:
        return {}
    details = used.prompt_tokens_details
    extra: dict[str, Any] = used.model_extra or {}
    read = (getattr(details, "cached_tokens", 0) or 0) if details else 0
    written = (getattr(details, "cache_write_tokens", 0) or 0) if details else 0
    return {
        "input": used.prompt_tokens,
        "read": read or extra.get("prompt_cache_hit_tokens") or extra.get("num_cached_tokens") or 0,
        "written": written,
        "output": used.completion_tokens,
    }


def _responses(response: Any) -> Reading:
    items = response.output
    texts = [
        getattr(block, "text", None) or getattr(block, "refusal", "")
        for item in items
        if item.type == "message"
        for block in item.content
    ]
    thoughts = ["\n\n".join(s.text for s in item.summary) for item in items if item.type == "reasoning"]
    used = response.usage
    details = used.input_tokens_details if used else None
    whole = response.status in ("completed", "complete", "incomplete")
    return Reading(
        "".join(texts),
        "".join(thoughts),
        [(i.call_id, i.name, arguments(i.arguments)) for i in items if i.type == "function_call"],
        {}
        if used is None
        else {
            "input": used.input_tokens,
            "read": (details and details.cached_tokens) or 0,
            "written": getattr(details, "cache_write_tokens", 0) or 0,
            "output": used.output_tokens,
        },
        finish=(response.incomplete_details.reason if response.incomplete_details else response.status)
        if whole
        else "",
    )


_NO_TAGS: Any = {"thinking_tags": ("\x00<", "\x00>")}
"""pydantic-ai turns `<think>` tags within content into thinking; we leave content as it is."""


async def by_pydantic_ai(exchange: dict[str, Any], body: bytes) -> Reading:
    """pydantic-ai. Of ids and the provider's finish word it says what it keeps."""
    if "mistral" in exchange["host"]:
        body = _typed_calls(body)
    model = _model(exchange, body)
    said: list[Any] = [pm.ModelRequest(parts=[pm.UserPromptPart("x")])]
    settings: Any = {"max_tokens": 1000} if exchange["wire"] == "anthropic" else None
    parameters = ModelRequestParameters()
    try:
        if not exchange["stream"]:
            return _pydantic(await model.request(said, settings, parameters), exchange["host"])
        async with model.request_stream(said, settings, parameters) as stream:
            async for _ in stream:
                pass
            return _pydantic(stream.get(), exchange["host"])
    except ModelHTTPError as error:
        return failed(str(error.status_code))
    except UnexpectedModelBehavior:
        return failed("invalid")


def _model(exchange: dict[str, Any], body: bytes) -> Any:
    claude, gpt = _clients(exchange, body)
    match exchange["wire"]:
        case "anthropic":
            return AnthropicModel("m", provider=AnthropicProvider(anthropic_client=claude))
        case "openai_responses":
            return OpenAIResponsesModel("m", provider=OpenAIProvider(openai_client=gpt))
        case _ if "openrouter" in exchange["host"]:
            return OpenRouterModel("openai/m", provider=OpenRouterProvider(openai_client=gpt), profile=_NO_TAGS)
        case _ if "snowflake" in exchange["host"]:
            return SnowflakeModel("m", provider=SnowflakeProvider(openai_client=gpt), profile=_NO_TAGS)
        case _:
            return OpenAIChatModel("m", provider=OpenAIProvider(openai_client=gpt), profile=_NO_TAGS)


def _typed_calls(body: bytes) -> bytes:
    """Mistral's tool calls with the `type` that its own SDK fills in and that the model for OpenAI insists on."""
    try:
        completion: Any = json.loads(body)
    except ValueError:
        return body
    for choice in completion.get("choices") or []:
        for call in choice["message"].get("tool_calls") or []:
            call.setdefault("type", "function")
    return json.dumps(completion).encode()


def _pydantic(response: Any, host: str) -> Reading:
    used = response.usage
    details: dict[str, Any] = response.provider_details or {}
    refusal = details.get("refusal")
    finish: str | None = details.get("finish_reason") or ""
    if refusal or "openrouter" in host:
        finish = None  # not kept, or replaced by the native word of the model behind
    elif finish in ("queued", "in_progress"):
        finish = ""  # a background response that is not finished
    measured = bool(used.input_tokens or used.output_tokens)
    return Reading(
        refusal or "".join(p.content for p in response.parts if isinstance(p, pm.TextPart)),
        "".join(p.content for p in response.parts if isinstance(p, pm.ThinkingPart)),
        [("", p.tool_name, arguments(p.args)) for p in response.parts if type(p) is pm.ToolCallPart],
        {
            "input": used.input_tokens,
            # The model for OpenAI does not know Mistral's `num_cached_tokens`; the SDK's reading has it.
            **({} if "mistral" in host else {"read": used.cache_read_tokens}),
            "written": used.cache_write_tokens,
            "output": used.output_tokens,
        }
        if measured
        else None,
        response.finish_reason,
        finish,
    )
