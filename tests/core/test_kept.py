"""What should be read of what was sent before, and why not; what a run then says of it."""

from __future__ import annotations

from typing import Any

import pytest

from stanchion.cli.runs import _cached
from stanchion.core import event as ev
from stanchion.core.fold import fold
from stanchion.core.kept import WORDS, expected, why_not
from stanchion.core.message import MODEL, Text, Usage
from stanchion.core.state import State
from tests.core.test_state import answered, asked, entries, started

KEPT = State(
    bundle="b", prompted="b", kept_by="anthropic:claude-sonnet-4-6", kept_tokens=70_000, kept_ms=1_000, kept_calls=3
)


@pytest.mark.parametrize(
    ("changed", "after_s", "why"),
    [
        ({}, 299, ""),
        ({}, 300, "life"),
        ({"kept_long": True}, 3_599, ""),
        ({"kept_long": True}, 3_600, "life"),
        ({"refreshed_ms": 271_000}, 569, ""),
        ({"refreshed_ms": 271_000}, 570, "life"),
        ({"prompted": "another"}, 1, "reset"),
        ({"prompted": ""}, 1, "reset"),
        ({"kept_by": "anthropic:claude-haiku-4-5"}, 1, "model"),
        ({"kept_tokens": 2_047}, 1, "small"),
        ({"kept_tokens": 0}, 1, ""),
    ],
)
def test_why_not(changed: dict[str, Any], after_s: int, why: str) -> None:
    """By the clock, the bundle, the model and the rules; nothing that was sent is no miss."""
    state = State(**{**{name: getattr(KEPT, name) for name in State.__struct_fields__}, **changed})
    now_ms = 1_000 + after_s * 1_000
    assert why_not(state, "anthropic", "claude-sonnet-4-6", now_ms) == why
    read = 0 if why else state.kept_tokens
    assert expected(state, "anthropic", "claude-sonnet-4-6", now_ms) == read


def test_openai_reads_in_steps() -> None:
    """Of 128 tokens."""
    state = State(bundle="b", prompted="b", kept_by="openai:gpt-5.2", kept_tokens=1_500, kept_ms=1)
    assert expected(state, "openai", "gpt-5.2", 2) == 1_408


@pytest.mark.parametrize(
    ("said", "read", "reason"),
    [
        ({"cache_sent": 1_000, "cache_expected": 1_000}, 1_000, None),
        ({"cache_sent": 1_000, "cache_expected": 1_000}, 951, None),
        ({"cache_sent": 1_000, "cache_expected": 1_000}, 900, "unknown"),
        ({"cache_sent": 1_000, "cache_unkept": "life"}, 600, "life"),
        ({"cache_sent": 1_000, "cache_unkept": "life"}, 1_000, None),
        ({}, 0, None),
    ],
)
def test_a_run_says_what_was_missed(said: dict[str, Any], read: int, reason: str | None) -> None:
    """A call that read as much as was sent is no miss, whatever was expected."""
    usage = Usage(2_000 - read, cache_read_tokens=read, output_tokens=1)
    asked_for: ev.Event = asked(cache="short", **said)
    state = fold(entries(started(), asked_for, answered(Text("x", MODEL), finish="stop", usage=usage)))
    assert [miss.reason for miss in state.missed] == ([reason] if reason else [])
    assert state.totals.cache_hit == min(read, said.get("cache_expected", 0))


def test_the_command_line_says_it_in_words() -> None:
    """How much of what was sent, and each miss with its reason."""
    view = {
        "usage": {"cache_expected_tokens": 70_000, "cache_hit_tokens": 69_000},
        "cache_misses": [{"turn": 9, "sent": 71_000, "read": 0, "reason": WORDS["life"]}],
    }
    said = _cached(view)
    assert (
        said == "69,000 of 70,000 tokens read that were sent before; turn 9 read 0 of 71,000: the cache's life was over"
    )
    assert _cached({"usage": {}}) == ""


def test_what_was_not_to_be_kept_is_not_counted_on() -> None:
    """After a request whose end was not kept the next one reads what that one read, or what stands before the conversation."""
    usage = Usage(500, cache_read_tokens=70_000, cache_write_tokens=20, output_tokens=5)
    for keeps, tokens, parts in (("end", 70_520, 1), ("read", 70_020, 0), ("nothing", 70_020, 0)):
        events = [started(), asked(cache="short", cache_keeps=keeps), answered(Text("a", MODEL), usage=usage)]
        state = fold(entries(*events))
        assert (state.kept_tokens, state.kept_parts) == (tokens, parts)
