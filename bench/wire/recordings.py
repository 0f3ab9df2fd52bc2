"""Hold the wires against recorded exchanges: `python bench/wire/recordings.py --recordings FILE [--verbose]`.

Prints one JSON line. Decoding is equal where ours, the vendor's SDK and pydantic-ai agree on text, reasoning, tool calls,
usage and finish (or on the failure). Encoding is equal where our encoder says the same as the recorded body, with the
few normalisations of `normal`; what `ModelRequest` has no word for is counted as `encoded_unsupported`, never as equal.
A line that cannot be judged is counted as `unreadable`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import lzma
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).parent))

from oracle import Reading, arguments, by_pydantic_ai, by_sdk, failed
from recorded_request import Unsaid, read

from stanchion.core.errors import ModelError
from stanchion.core.message import Part, Text, Thinking, ToolCall, Usage
from stanchion.model.anthropic import Anthropic
from stanchion.model.failure import http_failure
from stanchion.model.openai_chat import OpenAIChat
from stanchion.model.openai_responses import OpenAIResponses
from stanchion.model.wire import Wire, decode_body, decode_stream

WIRES: Final[dict[str, Wire]] = {
    "anthropic": Anthropic(),
    "openai_chat": OpenAIChat(limit_field="max_completion_tokens"),
    "openai_responses": OpenAIResponses(),
}

_REASON: Final = {
    "stop": "stop",
    "tool_calls": "tool_call",
    "length": "length",
    "refusal": "content_filter",
    "pause": "stop",
}
_CLASS: Final = {
    400: {"bad_request", "context_overflow", "not_found", "quota", "content_filter", "garbled"},
    401: {"auth"},
    402: {"quota"},
    403: {"auth", "quota", "content_filter"},
    404: {"not_found"},
    408: {"server_error"},
    409: {"server_error"},
    413: {"bad_request", "context_overflow"},
    422: {"bad_request", "context_overflow"},
    429: {"rate_limited", "quota"},
    503: {"overloaded"},
    529: {"overloaded"},
}


def lines(path: Path) -> Iterator[bytes]:
    """The lines of a JSON Lines file, plain or xz."""
    with lzma.open(path) if path.suffix == ".xz" else path.open("rb") as file:
        yield from (line for line in file if line.strip())


def our_reading(exchange: dict[str, Any], body: bytes) -> Reading:
    """What our decoder makes of the exchange."""
    wire = WIRES[exchange["wire"]]
    try:
        if exchange["status"] != 200:
            raise http_failure(wire.name, exchange["status"], exchange.get("response_headers") or {}, body)
        response = decode_stream(wire, body) if exchange["stream"] else decode_body(wire, body)
    except ModelError as error:
        return _failure(error)
    reading = _parts(response.parts, response.usage)
    reading.finish, reading.reason = response.raw_finish, _REASON[response.finish]
    return reading


def _failure(error: ModelError) -> Reading:
    if error.code == "early_end":
        reading = _parts(error.partial, error.usage)
        reading.finish = ""
        return reading
    if error.status >= 400:
        expected = _CLASS.get(error.status, {"server_error"} if error.status >= 500 else {"bad_request"})
        return failed(str(error.status) if error.code in expected else f"{error.status} as {error.code}")
    return failed("invalid" if error.code == "garbled" else error.code)


def _parts(parts: tuple[Part, ...], usage: Usage | None) -> Reading:
    return Reading(
        "".join(part.text for part in parts if isinstance(part, Text)),
        "".join(part.text for part in parts if isinstance(part, Thinking)),
        [(part.id, part.name, arguments(part.arguments)) for part in parts if isinstance(part, ToolCall)],
        {}
        if usage is None
        else {
            "input": usage.total_input_tokens,
            "read": usage.cache_read_tokens,
            "written": usage.cache_write_tokens + usage.cache_write_long_tokens,
            "output": usage.output_tokens,
        },
    )


def compare(ours: Reading, theirs: Reading, *, loose: bool) -> list[str]:
    """The fields in which the two differ. `loose` for pydantic-ai: it keeps no ids and no breaks between summaries."""
    odd: list[str] = []
    if ours.error != theirs.error:
        odd.append(f"error: {ours.error!r} / {theirs.error!r}")
    if theirs.error or ours.error:
        return odd
    for field in ("text", "thinking", "calls", "usage", "finish", "reason"):
        one, other = getattr(ours, field), getattr(theirs, field)
        if other is None or one is None:
            continue
        if loose and field == "calls":
            one = [call[1:] for call in one]
            other = [call[1:] for call in other]
        elif field == "usage":
            one = {key: value for key, value in one.items() if key in other} if other else one
        elif loose and field == "thinking":
            one, other = one.replace("\n\n", ""), other.replace("\n\n", "")
        elif field == "reason" and {one, other} == {"stop", "tool_call"} and ours.calls:
            # Responses has no word for it, and some servers say stop beside calls: with us the calls decide.
            continue
        if one != other:
            odd.append(f"{field}: {one!r:.300} / {other!r:.300}")
    return odd


async def decode(exchange: dict[str, Any]) -> list[str]:
    """How our decoding differs from the libraries'."""
    given = exchange["response"]
    body = given.encode() if isinstance(given, str) else json.dumps(given).encode()
    ours = our_reading(exchange, body)
    odd = [f"sdk {line}" for line in compare(ours, await by_sdk(exchange, body), loose=False)]
    return odd + [f"pydantic-ai {line}" for line in compare(ours, await by_pydantic_ai(exchange, body), loose=True)]


def encode(exchange: dict[str, Any]) -> list[str]:
    """How our encoding differs from the recorded body. Raises `Unsaid`."""
    wire, recorded = exchange["wire"], exchange["request"]
    try:
        request = read(wire, recorded)
        again = json.loads(WIRES[wire].encode(request))
    except ModelError as error:
        raise Unsaid(str(error)) from error
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise Unsaid(f"a body of another form ({type(error).__name__}: {error})") from error
    one, other = normal(wire, again), normal(wire, recorded)
    return [
        f"{key}: {json.dumps(one.get(key))[:300]} / {json.dumps(other.get(key))[:300]}"
        for key in sorted({*one, *other})
        if one.get(key) != other.get(key)
    ]


def normal(wire: str, body: dict[str, Any]) -> dict[str, Any]:
    """A body without the liberties its API gives: nulls for absent fields, said defaults, text as a string or a list.

    Streaming and its usage option are ours to choose and left out; an empty list of tools or description is none.
    """
    body = {k: v for k, v in body.items() if v is not None and k not in ("stream", "stream_options")}
    if body.get("tool_choice") in ("auto", {"type": "auto"}):
        del body["tool_choice"]
    if not body.get("tools", True):
        del body["tools"]
    if "tools" in body:
        body["tools"] = [_tool(wire, tool) for tool in body["tools"]]
    if wire == "anthropic":
        body["messages"] = [{**m, "content": [_plain(b) for b in _blocks(m["content"])]} for m in body["messages"]]
        if "system" in body:
            body["system"] = _blocks(body["system"])
    elif wire == "openai_chat":
        body["messages"] = [_chat_message(m) for m in body["messages"]]
    else:
        given = body["input"]
        items = [{"role": "user", "content": given}] if isinstance(given, str) else given
        body["input"] = [_item(item) for item in items]
        if body.get("instructions") == "":
            del body["instructions"]
        body["reasoning"] = {k: v for k, v in body.get("reasoning", {}).items() if v is not None}
    return body


def _blocks(content: Any) -> list[Any]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _tool(wire: str, tool: dict[str, Any]) -> dict[str, Any]:
    """A tool without an empty description and without a `strict: false` that is the default."""
    if wire == "openai_chat" and "function" in tool:
        return {"type": "function", **tool, "function": _tool("", tool["function"])}
    plain = {k: v for k, v in tool.items() if v is not None and not (k == "description" and not v)}
    if wire != "openai_responses" and plain.get("strict") is False:
        del plain["strict"]
    return plain


def _plain(block: dict[str, Any]) -> dict[str, Any]:
    if block.get("type") == "tool_result":
        block = {**block, "content": _blocks(block.get("content") or [])}
        if not block.get("is_error"):
            block.pop("is_error", None)
    return block


def _chat_message(message: dict[str, Any]) -> dict[str, Any]:
    out = {k: v for k, v in message.items() if v is not None and v != [] and not (k == "prefix" and v is False)}
    content = out.get("content")
    if isinstance(content, list):
        content = [_without_auto(block) for block in content]
        plain = len(content) == 1 and set(content[0]) == {"type", "text"}
        out["content"] = content[0]["text"] if plain else content
    if out["role"] == "assistant" and not out.get("content"):
        out.pop("content", None)
    if "tool_calls" in out:
        out["tool_calls"] = [
            {"type": "function", **{k: v for k, v in call.items() if k != "index"}} for call in out["tool_calls"]
        ]
    return out


def _without_auto(block: dict[str, Any]) -> dict[str, Any]:
    block = {k: v for k, v in block.items() if v is not None and not (k == "detail" and v == "auto")}
    image = block.get("image_url")
    return {**block, "image_url": _without_auto(image)} if isinstance(image, dict) else block


def _item(item: dict[str, Any]) -> dict[str, Any]:
    out = {"type": "message", **{k: v for k, v in item.items() if v is not None or k == "call_id"}}
    for field in ("content", "output"):
        if isinstance(out.get(field), list):
            out[field] = [_without_auto(block) for block in out[field]]
    return out


async def run(path: Path, *, verbose: bool, out: Any = sys.stdout) -> dict[str, Any]:
    """Judge every exchange of the file; the counts."""
    count: Counter[str] = Counter()
    for number, line in enumerate(lines(path), 1):
        count["exchanges"] += 1
        name = f"line {number}"
        try:
            exchange = json.loads(line)
            name = exchange["id"]
            odd = await decode(exchange)
        except Exception as error:  # an odd line is a finding, not the end
            count["unreadable"] += 1
            odd = [f"cannot be judged: {type(error).__name__}: {error}"]
            exchange = {}
        count["decoded_equal"] += not odd
        notes = [f"decode {name}: {line}" for line in odd]
        if isinstance(exchange.get("request"), dict):
            count["requests"] += 1
            notes += _judge_request(exchange, name, count)
        if verbose:
            for note in notes:
                print(note, file=out)
    keys = ("exchanges", "decoded_equal", "requests", "encoded_equal", "encoded_unsupported", "encoded_different")
    return {key: count[key] for key in (*keys, "unreadable")}


def _judge_request(exchange: dict[str, Any], name: str, count: Counter[str]) -> list[str]:
    try:
        odd = encode(exchange)
    except Unsaid as error:
        count["encoded_unsupported"] += 1
        return [f"encode {name}: unsupported: {error}"]
    except Exception as error:  # as above
        count["unreadable"] += 1
        return [f"encode {name}: cannot be judged: {type(error).__name__}: {error}"]
    count["encoded_different" if odd else "encoded_equal"] += 1
    return [f"encode {name}: {line}" for line in odd]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    parser.add_argument("--recordings", type=Path, required=True, help="JSON Lines of exchanges, plain or .xz")
    parser.add_argument("--verbose", action="store_true", help="print each difference (to standard error)")
    given = parser.parse_args()
    if not given.recordings.is_file():
        parser.error(f"--recordings {given.recordings}: no such file")
    print(json.dumps(asyncio.run(run(given.recordings, verbose=given.verbose, out=sys.stderr))))


if __name__ == "__main__":
    main()
