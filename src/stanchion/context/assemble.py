"""Assemble the request of the next model call, and bound what it can be billed as. Nothing here awaits.

The prompt is identity, skills (a line each), tools (those that are shown), conversation, in this order, and each request's parts begin with all of the one before
(invariant I8), because the conversation in the state only grows at its end.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from stanchion.context.cache import Keeps, plan
from stanchion.core.block import EXPLANATION
from stanchion.core.bundle import CALL_TOOL, Bundle, Route
from stanchion.core.caching import LONG_TTL, cache_rules
from stanchion.core.loading import found_in, without_form
from stanchion.core.message import (
    DEVELOPER,
    RUNTIME,
    CacheMark,
    Message,
    ModelRequest,
    Part,
    Text,
    Thinking,
    ToolCall,
    ToolSchema,
    is_own,
)
from stanchion.core.quarantine import EXPLANATION as QUARANTINED
from stanchion.core.skill import index
from stanchion.core.state import State
from stanchion.core.terse import shown_parameters

WIRE_TOKENS = 2_000
"""What a provider may add to a request that is not in its bytes: the hidden prompt of tool use, framing."""

CACHE_KEYS = 16
"""Over so many keys an agent's sessions are spread: few enough that others keep each one's beginning, enough for 240 requests a minute."""

REMOTE = frozenset(
    {
        "container",
        "conversation",
        "mcp_servers",
        "plugins",
        "previous_response_id",
        "prompt",
        "search_parameters",
        "search_settings",
        "tools",
        "web_search_options",
    }
)
"""Options by which a provider bills what is not in the request. A model that searches by itself shows none: it, too, must
declare `max_cost` to be bounded, or is found out as a `BudgetOverrun`."""


class Preamble(msgspec.Struct, frozen=True):
    """What of a request a bundle alone decides. Made once per bundle."""

    system: tuple[Text, ...]
    tools: tuple[ToolSchema, ...]
    digest: bytes
    bytes: int


def preamble(bundle: Bundle, *, mark: bool = False) -> Preamble:
    """Make a bundle's part of every request. `mark`: untrusted results stand in marked blocks, which are explained to who has tools."""
    system = (Text(bundle.identity, DEVELOPER),) if bundle.identity else ()
    if bundle.skills:
        system = (*system, Text(index(bundle.skills), DEVELOPER))
    if mark and bundle.tools:
        system = (*system, Text(EXPLANATION, RUNTIME))
    if bundle.guard.quarantine:
        system = (*system, Text(QUARANTINED, RUNTIME))
    tools = tuple(ToolSchema(t.name, t.description, shown_parameters(t), t.strict) for t in bundle.shown)
    encoded = msgspec.json.encode((system, tools, bundle.output), order="deterministic")
    return Preamble(system, tools, hashlib.sha256(encoded).digest(), len(encoded))


def assemble(state: State, bundle: Bundle, shown: Preamble, route: Route, *, keeps: Keeps = "end") -> ModelRequest:
    """Make the request that goes on from a state. `keeps`: what of it the provider is asked to keep."""
    name = f"{route.provider}:{route.model}"
    messages = readable_by(name, state.reasoners, state.messages)
    marks = _marks(messages, state.kept_parts if state.kept_by == name else 0, bundle, shown, route, keeps)
    loads = route.loads_tools and bundle.tool_choice != CALL_TOOL
    return ModelRequest(
        model=route.model,
        messages=messages,
        max_output_tokens=route.max_output_tokens,
        system=shown.system,
        tools=without_form(shown.tools) if loads else shown.tools,
        tool_choice=bundle.tool_choice,
        parallel_tool_calls=bundle.parallel_tool_calls,
        output=bundle.output,
        temperature=route.temperature,
        top_p=route.top_p,
        thinking_tokens=0 if route.thinking_tokens and _is_unthought(state) else route.thinking_tokens,
        effort=route.effort,
        options=_retained(route, _ends(marks, messages), f"{shown.digest.hex()[:24]}-{_shard(_keeper(state))}"),
        cache_marks=marks,
        loaded=found_in(messages, shown.tools) if loads else (),
    )


def _marks(
    messages: tuple[Message, ...], kept: int, bundle: Bundle, shown: Preamble, route: Route, keeps: Keeps
) -> tuple[CacheMark, ...]:
    """Plan the cache marks. What one request alone would read is not kept: a first question whose answer is to be of a form, without tools."""
    rules = cache_rules(route.provider, route.model) if route.cache != "off" else None
    goes_on = bool(bundle.tools) or len(messages) > 1 or bundle.output is None
    begins = bool(shown.system or shown.tools)
    marks = plan(messages, kept, rules, preamble=begins, long=route.cache == "long", keeps=keeps)
    return marks if goes_on else tuple(mark for mark in marks if mark.message < 0)


def _ends(marks: tuple[CacheMark, ...], messages: tuple[Message, ...]) -> bool:
    """Say whether the end of a request is to be kept."""
    return bool(marks) and marks[-1].message == len(messages) - 1


def _retained(route: Route, ends: bool, key: str) -> Mapping[str, Any]:
    """Say by options what marks do not: OpenAI's lives, that a request's end is not to be kept, and which requests begin alike.

    Source: OpenAI, "Prompt caching": a key brings requests to where their prefix is, and is to carry about 15 a minute.
    """
    rules = cache_rules(route.provider, route.model)
    if rules is None or rules.kind == "marked":
        return route.options
    if not rules.promised:
        return route.options
    if rules.kind == "automatic":
        return {"prompt_cache_retention": "24h", **route.options} if route.cache == "long" else route.options
    asked = {} if ends else {"mode": "explicit"}
    if route.cache == "long":
        asked["ttl"] = LONG_TTL
    return {"prompt_cache_key": key, **({"prompt_cache_options": asked} if asked else {}), **route.options}


def unkept(route: Route) -> Mapping[str, Any]:
    """Give the options of a request that no other goes on from: where an end is kept, and billed, unless it is said, it is not to be."""
    rules = cache_rules(route.provider, route.model)
    if rules is None or rules.kind != "breakpoints":
        return route.options
    return {"prompt_cache_options": {"mode": "explicit"}, **route.options}


def _keeper(state: State) -> str:
    """Name the session whose requests are kept: that which is refreshed, or the run's own."""
    return state.refreshed if state.refreshing else state.session


def _shard(session: str) -> int:
    """Spread an agent's sessions over a few keys; a session keeps its own."""
    return zlib.crc32(session.encode()) % CACHE_KEYS


def readable_by(model: str, reasoners: tuple[str, ...], messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """Leave out what only other models can read, reasoning and blocks of a provider's own; of text and calls the fields that are another's.

    None can read another's, and some refuse it: two providers that speak one wire do not know each other's ids and signatures.
    `reasoners`: whose there are.
    """
    if all(name in ("", model) for name in reasoners):
        return messages
    shown = (Message(message.role, tuple(_readable(message.parts, model))) for message in messages)
    return tuple(message for message in shown if message.parts)


def _readable(parts: tuple[Part, ...], model: str) -> Iterator[Part]:
    for part in parts:
        if part.label.name in ("", model) or part.label.source != "model" or not is_own(part):
            yield part
        elif isinstance(part, Text | ToolCall):
            yield msgspec.structs.replace(part, wire="", data="")


def _is_unthought(state: State) -> bool:
    """Whether the step under way lost its reasoning to a compaction. Until it is over its model cannot think by a budget: Anthropic takes a
    call's results only behind the reasoning that led to it, or with thinking disabled ("Extended thinking", tool use).
    """
    if not state.past or len(state.messages) < 2 or state.messages[-2].role != "assistant":
        return False
    asked = state.messages[-2].parts
    return any(isinstance(part, ToolCall) for part in asked) and not any(isinstance(part, Thinking) for part in asked)


def prefix_digest(state: State, shown: Preamble) -> str:
    """Digest over tools, system and all message parts of the next request, cache marks left out."""
    return hashlib.sha256(shown.digest + state.prefix).hexdigest()[:32]


def bound_input_tokens(state: State, shown: Preamble, route: int) -> int:
    """Bound the input tokens of the next request from above.

    A token is at least one byte of the request, and a part's own form here is longer than its framing on any wire. Of
    what the same model has counted before, its exact count is taken instead; only what came since is weighed. Media are
    billed by rules of their own and declare their bound.
    """
    if state.exact_route == route and state.exact_tokens:
        return state.exact_tokens + state.weight_since + WIRE_TOKENS
    return shown.bytes + state.weight + WIRE_TOKENS


def bound_alone(request: ModelRequest) -> int:
    """Bound the input tokens of a request that goes on from none."""
    return len(msgspec.json.encode(request)) + WIRE_TOKENS


def unbounded_parts(state: State, route: Route) -> str:
    """Name what cannot be bounded in the request under a budget, or ""."""
    if state.unbounded:
        return f"a {state.unbounded} part without max_input_tokens"
    remote = sorted(option for option in REMOTE if route.options.get(option))
    if remote and not route.max_extra_nano_usd:
        return f"{', '.join(remote)} in the route's options, without max_cost"
    return ""
