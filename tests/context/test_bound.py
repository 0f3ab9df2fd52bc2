"""The bound of a request's input tokens, against what real providers counted (I7)."""

from __future__ import annotations

import json
import lzma
from pathlib import Path
from typing import Any

import pytest

from bench.wire.recorded_request import Unsaid, read
from stanchion.context.assemble import REMOTE, WIRE_TOKENS, bound_input_tokens, preamble, unbounded_parts
from stanchion.core.bundle import Bundle, Route, ToolSpec
from stanchion.core.conversation import add
from stanchion.core.errors import ModelError
from stanchion.core.message import Media, Message, ModelRequest, ModelResponse, ToolResult
from stanchion.core.money import Price
from stanchion.core.state import State
from stanchion.model.anthropic import Anthropic
from stanchion.model.openai_chat import OpenAIChat
from stanchion.model.openai_responses import OpenAIResponses
from stanchion.model.wire import decode_body, decode_stream

WIRES = {"anthropic": Anthropic(), "openai_chat": OpenAIChat(), "openai_responses": OpenAIResponses()}
SEARCHES_BY_ITSELF = "compound"
"""In the names of models that have hosted tools built in (Groq): nothing in a request shows it."""


def exchanges(shared_data: Path) -> list[tuple[str, ModelRequest, ModelResponse]]:
    """The recordings that our wires can say, whose usage is known, and that hold nothing but text and own tools."""
    found: list[tuple[str, ModelRequest, ModelResponse]] = []
    with lzma.open(shared_data / "provider-recordings.jsonl.xz") as file:
        for line in file:
            exchange: dict[str, Any] = json.loads(line)
            if exchange["status"] != 200 or exchange["wire"] not in WIRES:
                continue
            try:
                request = read(exchange["wire"], exchange["request"])
                response = _response(exchange)
            except (Unsaid, ModelError, KeyError, TypeError, AttributeError, IndexError):  # a body of another form
                continue
            if response.usage and not _beyond_text(request):
                found.append((exchange["id"], request, response))
    return found


def _response(exchange: dict[str, Any]) -> ModelResponse:
    given = exchange["response"]
    body = given.encode() if isinstance(given, str) else json.dumps(given).encode()
    wire = WIRES[exchange["wire"]]
    return decode_stream(wire, body) if exchange["stream"] else decode_body(wire, body)


def _beyond_text(request: ModelRequest) -> bool:
    media = any(
        isinstance(part, Media) or (isinstance(part, ToolResult) and part.media)
        for message in request.messages
        for part in message.parts
    )
    return media or SEARCHES_BY_ITSELF in request.model or any(request.options.get(name) for name in REMOTE)


def folded(request: ModelRequest) -> tuple[State, Bundle]:
    """The state and bundle that such a request would come from."""
    state = State()
    for message in request.messages:
        state = add(state, message.role, message.parts)
    tools = tuple(ToolSpec(t.name, t.description, t.parameters, "read") for t in request.tools)
    identity = "".join(text.text for text in request.system)
    return state, Bundle("a", identity, (Route("p", "m", Price(0, 0, 0, 0, 0)),), tools, output=request.output)


def test_no_recorded_request_was_billed_above_its_bound(shared_data: Path) -> None:
    """Of requests of text and own tools: framing, hidden prompts of tools and reasoning are within the constant."""
    checked = exchanges(shared_data)
    assert len(checked) > 250
    above: list[tuple[str, int, int]] = []
    for name, request, response in checked:
        assert response.usage
        state, bundle = folded(request)
        bound = bound_input_tokens(state, preamble(bundle), 0)
        if response.usage.total_input_tokens > bound:
            above.append((name, response.usage.total_input_tokens, bound))
    assert above == []


def test_a_bound_after_an_exact_count_holds_for_the_next_recorded_request(shared_data: Path) -> None:
    """Where one recording goes on from another, the count of the first and the weight of the new parts bound the second."""
    checked = exchanges(shared_data)
    pairs = 0
    for _, request, response in checked:
        for name, later, answer in checked:
            if not _goes_on(request, later):
                continue
            assert response.usage
            assert answer.usage
            state = State(exact_tokens=response.usage.total_input_tokens + response.usage.output_tokens, exact_route=0)
            rest = later.messages[len(request.messages) + 1 :]
            for message in rest:
                state = add(state, message.role, message.parts)
            bound = bound_input_tokens(state, preamble(Bundle("a", "", ())), 0)
            assert answer.usage.total_input_tokens <= bound, name
            pairs += 1
    assert pairs > 20


def _goes_on(request: ModelRequest, later: ModelRequest) -> bool:
    shorter: tuple[Message, ...] = request.messages
    return (
        len(later.messages) > len(shorter) + 1
        and later.messages[: len(shorter)] == shorter
        and later.messages[len(shorter)].role == "assistant"
        and (later.tools, later.system, later.model) == (request.tools, request.system, request.model)
    )


@pytest.mark.parametrize("route", [0, 1])
def test_an_exact_count_is_taken_on_its_own_route_only(route: int) -> None:
    """Another model counts otherwise."""
    bundle = Bundle("a", "identity", ())
    state = State(exact_tokens=500, exact_route=0, weight=90_000, weight_since=30)
    shown = preamble(bundle)
    bound = bound_input_tokens(state, shown, route)
    assert bound == (500 + 30 + WIRE_TOKENS if route == 0 else shown.bytes + 90_000 + WIRE_TOKENS)


def test_what_cannot_be_bounded_is_named() -> None:
    """A media part without a declaration; hosted tools without a declared cost."""
    plain = Route("p", "m", Price(0, 0, 0, 0, 0))
    assert unbounded_parts(State(), plain) == ""
    assert "image/png" in unbounded_parts(State(unbounded="image/png"), plain)
    for option in REMOTE:
        hosted = Route("p", "m", Price(0, 0, 0, 0, 0), options={option: [{"type": "x"}]})
        assert unbounded_parts(State(), hosted) == f"{option} in the route's options, without max_cost"
        declared = Route("p", "m", Price(0, 0, 0, 0, 0), options=hosted.options, max_extra_nano_usd=1)
        assert unbounded_parts(State(), declared) == ""
