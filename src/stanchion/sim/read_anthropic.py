"""Read a request of Anthropic's Messages wire, as strictly as the provider documents it.

Refused by name: unknown fields, tool calls without results in the next message and results without calls, repeated call
ids, blocks where they may not stand, empty texts, changed thinking that we signed, too many cache breakpoints.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any

import msgspec

from stanchion.sim.body import Field, anthropic_refusal, read_body, word_set
from stanchion.sim.exchange import Ask, AskedCall, AskedTool, Turn, digest_of
from stanchion.sim.tokens import Piece, canonical, json_piece, media_piece, text_piece

PATH = "/v1/messages"
COUNT_PATH = "/v1/messages/count_tokens"
_FIELDS = word_set(
    "model messages max_tokens system tools tool_choice stream temperature top_p top_k stop_sequences metadata thinking "
    "service_tier container context_management mcp_servers output_config output_format cache_control speed "
    "inference_geo diagnostics fallbacks user_profile_id workspace_id betas"
)
_ID = re.compile(r"[a-zA-Z0-9_-]+")
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")
_USER_BLOCKS = word_set("text image document tool_result search_result container_upload")
_MEDIA = frozenset(("image", "document", "container_upload"))
_SIGNATURE = "c2ltdWxhdGVk"
"""base64 of "simulated": a signature that begins so is ours and is checked."""


def sign(thinking: str) -> str:
    """Sign thinking, so that a changed copy of it is recognised."""
    return _SIGNATURE + hashlib.blake2b(thinking.encode(), digest_size=24).hexdigest()


def read(body: bytes, *, counting: bool = False) -> Ask:
    """Read and check a request, or a request to count its tokens, which has no output limit; raises `Refusal`."""
    top = read_body(body, anthropic_refusal)
    top.known(_FIELDS, "Extra inputs are not permitted")
    model = top.get("model").some_text()
    max_tokens = 1 << 40 if counting else top.get("max_tokens").integer(least=1)
    tools = _tools(top)
    choice = _tool_choice(top)
    thinking = _thinking(top, max_tokens, choice)
    _sampling(top)
    system, system_pieces = _system(top)
    shown, deferred = _shown(top)
    pieces = shown + system_pieces
    turns = _messages(top.get("messages"), pieces, deferred)
    _breakpoints(top, pieces)
    if thinking == "enabled":
        _thinks_first(top.get("messages"))
    return Ask(
        wire="anthropic",
        model=model,
        stream=top.has("stream") and top.get("stream").boolean(),
        system=system,
        turns=turns,
        pieces=tuple(pieces),
        tools=tools,
        tool_choice=choice,
        max_tokens=max_tokens,
        thinking=thinking in ("enabled", "adaptive"),
        stop=tuple(stop.text() for stop in _list(top, "stop_sequences")),
        output_schema=_output_schema(top),
        names=_names(top),
        digest=digest_of(PATH, body),
    )


def _list(top: Field, name: str) -> list[Field]:
    return list(top.get(name).items()) if top.has(name) else []


def _tools(top: Field) -> tuple[AskedTool, ...]:
    tools: list[AskedTool] = []
    for tool in _list(top, "tools"):
        kind = tool.get("type").text() if tool.has("type") else "custom"
        if kind == "mcp_toolset":
            continue
        name = tool.get("name").some_text()
        if kind != "custom":
            continue
        if not _NAME.fullmatch(name):
            raise tool.get("name").fail("String should match pattern '^[a-zA-Z0-9_-]{1,128}$'")
        schema = tool.get("input_schema")
        if schema.get("type").value != "object":
            raise schema.get("type").fail("Input should be 'object'")
        if name in {t.name for t in tools}:
            raise anthropic_refusal("tools", "Tool names must be unique.")
        tools.append(AskedTool(name, schema.object()))
    return tuple(tools)


def _shown(top: Field) -> tuple[list[Piece], dict[str, Any]]:
    """Part the tools: what stands before the system prompt, and by name those with `defer_loading`, which stand where they are referred to.

    Source: platform.claude.com/docs/en/agents-and-tools/tool-use/tool-search-tool, "Deferred tool loading".
    """
    pieces: list[Piece] = []
    deferred: dict[str, Any] = {}
    for tool in _list(top, "tools"):
        if tool.has("defer_loading") and tool.get("defer_loading").boolean():
            if tool.has("cache_control"):
                raise tool.fail("Tools with defer_loading cannot use prompt caching.")
            deferred[tool.get("name").some_text()] = {k: v for k, v in tool.object().items() if k != "defer_loading"}
        else:
            pieces.append(json_piece("tool", "tool", _bare(tool.object()), _ttl(tool)))
    if deferred and not pieces:
        raise anthropic_refusal("tools", "At least one tool must have defer_loading=false.")
    return pieces, deferred


def _tool_choice(top: Field) -> str:
    if not top.has("tool_choice"):
        return "auto"
    choice = top.get("tool_choice")
    kind = choice.get("type").one_of("auto", "any", "tool", "none")
    if not top.has("tools") and kind != "none":
        raise choice.fail("tool_choice may only be specified while providing tools.")
    if kind != "tool":
        return "required" if kind == "any" else kind
    name = choice.get("name").some_text()
    if name not in {str(t.get("name").value) for t in _list(top, "tools")}:
        raise choice.fail(f"Tool '{name}' not found in provided tools")
    return name


def _thinking(top: Field, max_tokens: int, choice: str) -> str:
    if not top.has("thinking"):
        return "disabled"
    thinking = top.get("thinking")
    kind = thinking.get("type").one_of("enabled", "disabled", "adaptive")
    if kind == "enabled":
        if thinking.get("budget_tokens").integer(least=1024) >= max_tokens:
            raise anthropic_refusal("", "`max_tokens` must be greater than `thinking.budget_tokens`.")
        if top.has("temperature") and top.get("temperature").value != 1:
            raise anthropic_refusal("temperature", "may only be set to 1 when thinking is enabled.")
    if kind == "enabled" and choice not in ("auto", "none"):
        raise anthropic_refusal("", "Thinking may not be enabled when tool_choice forces tool use.")
    return kind


def _sampling(top: Field) -> None:
    for name in ("temperature", "top_p"):
        if top.has(name):
            top.get(name).number(0, 1)
    for stop in _list(top, "stop_sequences"):
        if not stop.text().strip():
            raise stop.fail("each stop sequence must contain non-whitespace")


def _system(top: Field) -> tuple[str, list[Piece]]:
    if not top.has("system"):
        return "", []
    system = top.get("system")
    if isinstance(system.value, str):
        return system.value, [text_piece("system", "system", system.value)]
    texts: list[str] = []
    pieces: list[Piece] = []
    for block in system.items():
        block.get("type").one_of("text")
        texts.append(_text(block))
        pieces.append(text_piece("system", "system", texts[-1], _ttl(block)))
    return "\n".join(texts), pieces


def _text(block: Field) -> str:
    text = block.get("text").text()
    if not text:
        raise block.fail("text content blocks must be non-empty")
    if not text.strip():
        raise block.fail("text content blocks must contain non-whitespace text")
    return text


def _messages(messages: Field, pieces: list[Piece], deferred: dict[str, Any]) -> tuple[Turn, ...]:
    turns: list[Turn] = []
    seen: set[str] = set()
    pending: list[str] = []
    for message, role, blocks in _combined(messages):
        if role == "system":
            pieces.extend(json_piece("message", role, _bare(b.object()), _ttl(b)) for b in blocks)
        elif role == "assistant":
            if pending:
                raise _unanswered(message.path, pending)
            pending = _assistant(blocks, seen, turns, pieces)
        else:
            _answers(message, pending, blocks)
            _user(blocks, pending, turns, pieces, deferred)
            pending = []
    if pending:
        raise _unanswered(messages.path, pending)
    return tuple(turns)


def _combined(messages: Field) -> list[tuple[Field, str, list[Field]]]:
    """Read messages as the first of them, role and blocks; neighbours of one role are one message, as the provider documents."""
    entries = list(messages.items())
    if not entries:
        raise messages.fail("at least one message is required")
    combined: list[tuple[Field, str, list[Field]]] = []
    for i, message in enumerate(entries):
        role = message.get("role").one_of("user", "assistant", "system")
        message.known(frozenset(("role", "content")), "Extra inputs are not permitted")
        if i == 0 and role == "system":
            raise message.get("role").fail('first message must not use the "system" role; use the top-level field')
        blocks = _blocks(message, role, last=i == len(entries) - 1)
        if combined and combined[-1][1] == role:
            combined[-1][2].extend(blocks)
        else:
            combined.append((message, role, blocks))
    return combined


def _blocks(message: Field, role: str, *, last: bool) -> list[Field]:
    content = message.get("content")
    if isinstance(content.value, str):
        if not content.value and not (last and role == "assistant"):
            raise message.fail(
                "all messages must have non-empty content except for the optional final assistant message"
            )
        if last and role == "assistant" and content.value != content.value.rstrip():
            raise message.fail("final assistant content cannot end with trailing whitespace")
        block = {"type": "text", "text": content.value}
        return [Field(block, message.style, message, "content")] if content.value else []
    blocks = list(content.items())
    if not blocks and not (last and role == "assistant"):
        raise message.fail("all messages must have non-empty content except for the optional final assistant message")
    return blocks


def _unanswered(path: str, ids: list[str]) -> Exception:
    return anthropic_refusal(
        path,
        f"`tool_use` ids were found without `tool_result` blocks immediately after: {', '.join(ids)}. Each `tool_use` "
        "block must have a corresponding `tool_result` block in the next message.",
    )


def _answers(message: Field, pending: list[str], blocks: list[Field]) -> None:
    given = [str(b.get("tool_use_id").value) for b in blocks if b.get("type").value == "tool_result"]
    missing = [call for call in pending if call not in given]
    if missing:
        raise _unanswered(message.path, missing)
    if len(given) != len(set(given)):
        raise message.fail("each tool_use must have a single result. Found multiple `tool_result` blocks with one id")


def _user(
    blocks: list[Field], pending: list[str], turns: list[Turn], pieces: list[Piece], deferred: dict[str, Any]
) -> None:
    texts: list[str] = []
    other = False
    for block in blocks:
        kind = block.get("type").one_of(*sorted(_USER_BLOCKS))
        if kind == "tool_result":
            call = block.get("tool_use_id").some_text()
            if call not in pending:
                raise block.fail(
                    f"unexpected `tool_use_id` found in `tool_result` blocks: {call}. Each `tool_result` block must have "
                    "a corresponding `tool_use` block in the previous message."
                )
            if other:
                raise block.fail("`tool_result` blocks must come first in the content of a message")
            loaded = [deferred[name] for name in _referred(block, deferred)]
            read = [_result_text(block), *(msgspec.json.encode(tool).decode() for tool in loaded)]
            turns.append(Turn("tool", "\n".join(filter(None, read)), call_id=call))
            pieces.extend(json_piece("message", "user", tool) for tool in loaded)
            pieces.append(json_piece("message", "user", _bare(block.object()), _ttl(block)))
            continue
        other = True
        if kind == "text":
            texts.append(_text(block))
            pieces.append(text_piece("message", "user", texts[-1], _ttl(block)))
        elif kind in _MEDIA:
            pieces.append(media_piece("user", _bare(block.object()), _ttl(block)))
        else:
            pieces.append(json_piece("message", "user", _bare(block.object()), _ttl(block)))
    if other:
        turns.append(Turn("user", "\n".join(texts)))


def _referred(block: Field, deferred: dict[str, Any]) -> list[str]:
    """List the deferred tools that a result refers to: their definitions stand there."""
    if not block.has("content") or isinstance(block.get("content").value, str):
        return []
    found: list[str] = []
    for part in block.get("content").items():
        if part.get("type").value == "tool_reference":
            found.append(part.get("tool_name").some_text())
            if found[-1] not in deferred:
                raise part.fail(f"Tool reference '{found[-1]}' not found in available tools")
    return found


def _result_text(block: Field) -> str:
    if block.has("is_error"):
        block.get("is_error").boolean()
    if not block.has("content"):
        return ""
    content = block.get("content")
    if isinstance(content.value, str):
        return content.value
    return "\n".join(_text(part) for part in content.items() if part.get("type").value == "text")


def _assistant(blocks: list[Field], seen: set[str], turns: list[Turn], pieces: list[Piece]) -> list[str]:
    texts: list[str] = []
    calls: list[AskedCall] = []
    for block in blocks:
        kind = block.get("type").some_text()
        if kind in _USER_BLOCKS - {"text"}:
            raise block.get("type").fail(f"`{kind}` blocks may not stand in an assistant message")
        if kind == "text":
            texts.append(_text(block))
            pieces.append(text_piece("message", "assistant", texts[-1], _ttl(block)))
            continue
        if kind == "tool_use":
            calls.append(_call(block, seen))
        elif kind == "thinking":
            _check_signature(block)
        pieces.append(json_piece("message", "assistant", _bare(block.object()), _ttl(block)))
    turns.append(Turn("assistant", "\n".join(texts), tuple(calls)))
    return [call.id for call in calls]


def _call(block: Field, seen: set[str]) -> AskedCall:
    call_id = block.get("id").some_text()
    if not _ID.fullmatch(call_id):
        raise block.get("id").fail("String should match pattern '^[a-zA-Z0-9_-]+$'")
    if call_id in seen:
        raise block.get("id").fail("`tool_use` ids must be unique")
    seen.add(call_id)
    name = block.get("name")
    if not _NAME.fullmatch(name.text()):
        raise name.fail("String should match pattern '^[a-zA-Z0-9_-]{1,128}$'")
    return AskedCall(call_id, name.text(), canonical(block.get("input").object()).decode())


def _check_signature(block: Field) -> None:
    signature = block.get("signature").some_text()
    if signature.startswith(_SIGNATURE) and signature != sign(block.get("thinking").text()):
        raise block.fail("Invalid `signature` in `thinking` block")


def _thinks_first(messages: Field) -> None:
    """Demand thinking before the calls that the last message answers, as the provider does while thinking is enabled."""
    entries = list(messages.items())
    if len(entries) < 2 or entries[-2].get("role").value != "assistant":
        return
    blocks = entries[-2].get("content")
    if isinstance(blocks.value, str):
        return
    kinds = [str(b.get("type").value) for b in blocks.items()]
    if "tool_use" in kinds and kinds[0] not in ("thinking", "redacted_thinking"):
        raise anthropic_refusal(
            f"{blocks.path}.0.type",
            f"Expected `thinking` or `redacted_thinking`, but found `{kinds[0]}`. When `thinking` is enabled, a final "
            "`assistant` message must start with a thinking block (preceding the lastmost set of `tool_use` and "
            "`tool_result` blocks).",
        )


def _ttl(block: Field) -> str:
    if not block.has("cache_control"):
        return ""
    mark = block.get("cache_control")
    mark.get("type").one_of("ephemeral")
    if block.get("type").value in ("thinking", "redacted_thinking"):
        raise mark.fail("cache_control cannot be set on thinking blocks")
    return mark.get("ttl").one_of("5m", "1h") if mark.has("ttl") else "5m"


def _breakpoints(top: Field, pieces: list[Piece]) -> None:
    marks = [p.cache_ttl for p in pieces if p.cache_ttl]
    if top.has("cache_control") and pieces and not pieces[-1].cache_ttl:  # automatic: the last block is marked
        pieces[-1] = msgspec.structs.replace(pieces[-1], cache_ttl=_ttl(top))
        marks.append(pieces[-1].cache_ttl)
    if len(marks) > 4:
        raise anthropic_refusal("", f"A maximum of 4 blocks with cache_control may be provided. Found {len(marks)}.")
    if "1h" in marks[marks.index("5m") :] if "5m" in marks else False:
        raise anthropic_refusal(
            "cache_control.ttl", "a ttl='1h' cache_control block must not come after a ttl='5m' cache_control block."
        )


def _bare(block: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in block.items() if k != "cache_control"} if "cache_control" in block else block


def _output_schema(top: Field) -> dict[str, Any] | None:
    if not top.has("output_config") or not top.get("output_config").has("format"):
        return None
    form = top.get("output_config").get("format")
    form.get("type").one_of("json_schema")
    return form.get("schema").object()


def _names(top: Field) -> tuple[str, ...]:
    if not top.has("metadata") or not top.get("metadata").has("user_id"):
        return ()
    return (top.get("metadata").get("user_id").text(),)
