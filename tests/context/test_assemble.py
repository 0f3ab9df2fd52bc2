"""Requests from state: what they hold, and that each goes on from the one before it (I8)."""

from __future__ import annotations

import msgspec

from stanchion.context.assemble import CACHE_KEYS, assemble, preamble, prefix_digest
from stanchion.core import event as ev
from stanchion.core.block import EXPLANATION
from stanchion.core.bundle import Bundle, Caps, Route
from stanchion.core.message import DEVELOPER, MODEL, USER, Label, Message, ModelRequest, Text, Thinking
from stanchion.core.state import State
from tests.loop.play import Play
from tests.loop.script import bundle, call, tool


def played(**options: object) -> Play:
    agent = bundle(tool("look", parameters={"type": "object", "z": 1, "a": 2}), routes=2, tool_choice="auto")
    return Play(agent, [call("look"), call("look", '{"n":2}'), "done"], **options).play()  # type: ignore[arg-type]


def test_a_request_is_identity_tools_and_conversation() -> None:
    """And what the route says of how to ask."""
    play = played()
    request = assemble(play.state, play.bundle, play.view.shown, play.bundle.routes[0])
    assert request.system == (Text("You are a test.", DEVELOPER),)
    assert [t.name for t in request.tools] == ["look", "read_result"]
    assert request.messages == play.state.messages
    assert (request.model, request.tool_choice) == ("m0", "auto")


def test_the_same_state_gives_the_same_bytes() -> None:
    """Two assemblies of two folds are byte for byte one (I4)."""
    one, other = played(), played()
    assert msgspec.json.encode([r for _, r in one.requests]) == msgspec.json.encode([r for _, r in other.requests])


def test_the_digest_in_the_journal_names_the_prefix() -> None:
    """Equal requests have equal digests, and each step has its own; another identity changes it."""
    play = played()
    digests = [s.prefix for s in play.events(ev.ModelCallStarted)]
    assert len(set(digests)) == 3
    assert [s.prefix for s in played(crashes={2: True}).events(ev.ModelCallStarted)][:2] == digests[:2]
    other = preamble(msgspec.structs.replace(play.bundle, identity="Another."))
    assert prefix_digest(play.state, other) != prefix_digest(play.state, play.view.shown)


def test_what_a_request_does_not_hold_does_not_change_the_digest() -> None:
    """Limits and rules of a bundle are not shown to the model."""
    agent: Bundle = bundle(tool("look"))
    limited = msgspec.structs.replace(agent, caps=Caps(turns=3))
    assert preamble(agent).digest == preamble(limited).digest


def test_a_retry_sends_the_same() -> None:
    """After a death the attempt that follows has the digest of the one that was lost."""
    started = played(crashes={1: True}).events(ev.ModelCallStarted)
    assert started[0].prefix == started[1].prefix


def test_no_model_is_shown_the_reasoning_of_another() -> None:
    """After a fallback, and in the session's next run on the first model again, each sees its own only."""
    thought = Thinking("hm", Label("model", "p:m0"), signature="s", wire="anthropic")
    said = Text("hi", MODEL)
    state = State(
        messages=(Message("user", (Text("q", USER),)), Message("assistant", (thought, said))), reasoners=("p:m0",)
    )
    agent = bundle(routes=2)
    own, other = (assemble(state, agent, preamble(agent), route) for route in agent.routes)
    assert own.messages == state.messages
    assert other.messages[1].parts == (said,)


def _breakpoints(cache: str, **options: object) -> tuple[ModelRequest, ModelRequest]:
    """Two sessions' requests to a model whose cache writes are priced."""
    agent = bundle(tool("look"))
    route = Route("openai", "gpt-5.6", agent.routes[0].price, cache=cache, options=options)  # type: ignore[arg-type]
    one, other = (State(messages=(Message("user", (Text("q", USER),)),), session=name) for name in ("s1", "s2"))
    return assemble(one, agent, preamble(agent), route), assemble(other, agent, preamble(agent), route)


def test_where_writes_are_priced_openai_is_told_what_to_keep_and_where() -> None:
    """The beginning is marked, the end is kept unasked; sessions share few keys; a life and nothing kept are asked for."""
    kept, _ = _breakpoints("short")
    assert kept.cache_marks[0].message == -1
    assert set(kept.options) == {"prompt_cache_key"}
    keys = {_key(f"s{n}") for n in range(500)}
    assert 2 <= len(keys) <= CACHE_KEYS
    assert _key("s1") == _key("s1")
    long, _ = _breakpoints("long")
    assert long.options["prompt_cache_options"] == {"ttl": "12h"}
    off, _ = _breakpoints("off")
    assert off.cache_marks == ()
    assert off.options["prompt_cache_options"] == {"mode": "explicit"}
    assert _breakpoints("short", prompt_cache_key="mine")[0].options["prompt_cache_key"] == "mine"


def _key(session: str) -> object:
    agent = bundle(tool("look"))
    route = Route("openai", "gpt-5.6", agent.routes[0].price)
    state = State(messages=(Message("user", (Text("q", USER),)),), session=session)
    return assemble(state, agent, preamble(agent), route).options["prompt_cache_key"]


def test_who_has_no_tools_is_not_told_of_their_results() -> None:
    """Only results are put into marked blocks, so that only who has tools is told what the blocks are."""
    assert preamble(bundle(tool("look")), mark=True).system[-1].text == EXPLANATION
    bare = msgspec.structs.replace(bundle(), tools=())
    assert preamble(bare, mark=True) == preamble(bare, mark=False)


def test_parameters_are_shown_without_what_says_nothing() -> None:
    """The bundle keeps the whole schema, and what is weighed is what is shown: the bound is one of the request that is sent."""
    note = {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None}
    schema = {"type": "object", "properties": {"note": note}, "additionalProperties": False}
    said = {"type": "object", "properties": {"note": {"type": "string"}}}
    agent = bundle(tool("look", parameters=schema))
    strict = msgspec.structs.replace(agent, tools=tuple(msgspec.structs.replace(t, strict=True) for t in agent.tools))
    assert preamble(agent).tools[0].parameters == said
    assert preamble(strict).tools[0].parameters == agent.tools[0].parameters == schema
    shown = preamble(agent)
    assert shown == preamble(bundle(tool("look", parameters=said)))
    request = assemble(State(messages=(Message("user", (Text("q", USER),)),)), agent, shown, agent.routes[0])
    assert shown.bytes >= len(msgspec.json.encode((request.system, request.tools)))
