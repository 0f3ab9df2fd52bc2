"""The plan of cache marks, held against the provider's rules: what a conversation costs by its bill is the least it can cost."""

from __future__ import annotations

import msgspec
import pytest

from stanchion.context.cache import Keeps, plan
from stanchion.core.caching import CacheRules, cache_rules
from stanchion.core.message import (
    DEVELOPER,
    MODEL,
    USER,
    CacheMark,
    Label,
    Message,
    ModelRequest,
    Text,
    ToolCall,
    ToolResult,
    Usage,
)
from stanchion.core.money import cost, price_usd
from stanchion.model.anthropic import Anthropic
from stanchion.model.openai_chat import OpenAIChat
from stanchion.model.openai_responses import OpenAIResponses
from stanchion.model.wire import Wire
from stanchion.sim.cache import PrefixCache
from stanchion.sim.read_anthropic import read as read_messages
from stanchion.sim.read_chat import read as read_chat
from stanchion.sim.read_responses import read as read_responses

SONNET = "claude-sonnet-4-6"
PRICE = price_usd(input="3", output="15", cache_read="0.30", cache_write="3.75", cache_write_long="6")
RULES = cache_rules("anthropic", SONNET)


def conversation(turns: int, parts: int, size: int) -> tuple[Message, ...]:
    """Turns of an assistant's calls and their results, with so many parts each."""
    messages: list[Message] = [Message("user", (Text("q" * size, USER),))]
    for turn in range(turns):
        calls = tuple(ToolCall(f"c{turn}_{n}", "f", "{}", MODEL) for n in range(parts))
        results = tuple(
            ToolResult(c.id, "f", f"{turn}.{n} " + "r" * size, Label("tool", "f")) for n, c in enumerate(calls)
        )
        messages += [Message("assistant", calls), Message("user", results)]
    return tuple(messages)


def bills(turns: int, parts: int, size: int, rules: CacheRules | None) -> list[tuple[int, int, int]]:
    """Tokens read, written and plain of each request of a conversation, by the simulated provider."""
    cache, found, sent = PrefixCache(), [], 0
    assert RULES is not None
    for turn in range(turns):
        messages = conversation(turn, parts, size)
        marks = plan(messages, sent, rules, preamble=True)
        request = ModelRequest(SONNET, messages, 10, system=(Text("s" * 40_000, DEVELOPER),), cache_marks=marks)
        asked = read_messages(Anthropic().encode(request))
        used = cache.use("k", asked.pieces, RULES, float(turn))
        found.append((used.read, used.written, used.plain))
        sent = sum(len(message.parts) for message in messages)
    return found


@pytest.mark.parametrize("parts", [1, 5, 9, 10, 11, 15, 24])
def test_each_request_reads_all_of_the_one_before(parts: int) -> None:
    """However many blocks a turn adds: nothing is sent twice at full price, nothing is written twice."""
    found = bills(8, parts, 400, RULES)
    total = 0
    for read, written, plain in found:
        assert (read, plain) == (total, 0)
        total = read + written


def test_what_nobody_goes_on_from_is_read_and_not_written() -> None:
    """The last request of a session reads all of the one before, and what is new in it is plain input; one more reads as much."""
    assert RULES is not None
    cache, found = PrefixCache(), list[tuple[int, int, int]]()
    keeps: tuple[Keeps, ...] = ("end", "read", "read", "nothing")
    for number, kept in enumerate(keeps):
        messages = conversation(1 + number, 3, 400)
        sent = 7 if number else 0
        marks = plan(messages, sent, RULES, preamble=True, keeps=kept)
        request = ModelRequest(SONNET, messages, 10, system=(Text("s" * 40_000, DEVELOPER),), cache_marks=marks)
        used = cache.use("k", read_messages(Anthropic().encode(request)).pieces, RULES, float(number))
        found.append((used.read, used.written, used.plain))
    (_, first, _), last, again, none = found
    assert (last[0], last[1]) == (again[0], again[1]) == (first, 0)
    assert 0 < last[2] < again[2]
    assert none[:2] == (10_000, 0), "but what all sessions begin with"


def test_without_marks_everything_is_paid_again() -> None:
    """What the plan is worth."""
    assert all(read == 0 for read, _, _ in bills(4, 5, 400, None))


def test_the_marks_themselves() -> None:
    """The end, the part that all sessions share, and one in between where a turn is long; never more than four."""
    messages = conversation(1, 3, 10)
    assert plan(messages, 0, RULES, preamble=True) == (CacheMark(-1), CacheMark(2))
    assert plan(messages, 0, RULES, preamble=False, long=True) == (CacheMark(2, long=True),)
    long = conversation(2, 30, 10)
    assert plan(long, 61, RULES, preamble=True) == (CacheMark(-1), CacheMark(3, 18), CacheMark(4))
    assert plan((), 0, RULES, preamble=True) == ()
    assert plan(messages, 0, cache_rules("openai", "gpt-5.2"), preamble=True) == ()
    assert plan(messages, 0, None, preamble=True) == ()


def test_the_floor_of_a_support_task() -> None:
    """15 turns, from a stable prefix of 60,000 tokens to 80,000, 500 tokens out each: $0.7035 by the rules, $3.26 without a cache."""
    assert RULES is not None
    cache, with_cache, without = PrefixCache(), 0, 0
    grown = [Message("user", (Text("", USER),))]
    for turn in range(15):
        tokens = 60_000 + round(turn * 20_000 / 14)
        said = sum(len(part.text) for message in grown for part in message.parts if isinstance(part, Text))
        grown.append(Message("user", (Text("x" * (tokens * 4 - said), USER),)))
        messages = tuple(message for message in grown if message.parts[0].text)  # type: ignore[union-attr]
        marks = plan(messages, len(messages) - 1, RULES, preamble=False)
        pieces = read_messages(Anthropic().encode(ModelRequest(SONNET, messages, 10, cache_marks=marks))).pieces
        used = cache.use("k", pieces, RULES, turn * 10.0)
        usage = Usage(used.plain, used.read, used.written, used.written_long, 500)
        with_cache += cost(PRICE, usage)
        without += cost(PRICE, msgspec.structs.replace(Usage(output_tokens=500), input_tokens=usage.total_input_tokens))
    assert with_cache / 1e9 == pytest.approx(0.7035, rel=0.001)
    assert without / 1e9 == pytest.approx(3.26, rel=0.001)


@pytest.mark.parametrize("wire", [OpenAIResponses(), OpenAIChat("max_completion_tokens")], ids=lambda wire: wire.name)
def test_where_the_end_is_kept_unasked_only_the_beginning_is_marked(wire: Wire) -> None:
    """Each request of a conversation reads all of the one before, and another session's first what all begin with."""
    rules = cache_rules("openai", "gpt-5.6")
    assert rules is not None
    cache, sent = PrefixCache(), 0
    reader = read_responses if wire.name == "openai_responses" else read_chat
    for turn in range(4):
        messages = conversation(turn, 3, 4_000)
        marks = plan(messages, 0, rules, preamble=True)
        request = ModelRequest("gpt-5.6", messages, 100, system=(Text("s" * 40_000, DEVELOPER),), cache_marks=marks)
        asked = reader(wire.encode(request))
        used = cache.use("k", asked.pieces, rules, float(turn))
        assert (used.read, used.plain) == (sent, 0)
        sent = used.read + used.written
    other = (Message("user", (Text("another question", USER),)),)
    request = ModelRequest(
        "gpt-5.6", other, 100, system=(Text("s" * 40_000, DEVELOPER),), cache_marks=plan(other, 0, rules, preamble=True)
    )
    assert cache.use("k", reader(wire.encode(request)).pieces, rules, 5.0).read == 10_000
    older = msgspec.structs.replace(request, model="gpt-5.2")
    assert b"prompt_cache_breakpoint" not in wire.encode(older), "which refuses it"
