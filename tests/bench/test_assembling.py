"""What a turn costs does not grow with the session: counted in bytes that are encoded, not in time."""

from __future__ import annotations

from typing import Any

import pytest

from bench.assembling import HABIT, _fold, measure, play, size
from stanchion.core import conversation
from stanchion.loop.decide import decide
from stanchion.loop.effect import CallModel, Moment


def test_a_turn_encodes_only_what_is_new_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten times the history, the same bytes; and a request holds the conversation's own messages, not copies."""
    encoded: list[int] = []
    encode = conversation._encode

    def counted(value: Any) -> bytes:
        data = encode(value)
        encoded.append(len(data))
        return data

    sums: list[int] = []
    for turns in (20, 200):
        played = play(turns * 400, turns=turns)
        monkeypatch.setattr(conversation, "_encode", counted)
        encoded.clear()
        _fold(played)
        moment = Moment(played.run.now_ms, 1, habit=HABIT)
        (effect,) = decide(played.run.state, played.run.view, moment).effects
        monkeypatch.setattr(conversation, "_encode", encode)
        assert isinstance(effect, CallModel)
        assert all(
            shown is kept for shown, kept in zip(effect.request.messages, played.run.state.messages, strict=True)
        )
        sums.append(sum(encoded))
    assert sums[0] > 1_000
    assert abs(sums[1] - sums[0]) < 200, "a turn's number has one digit more here and there"


def test_what_is_measured_is_as_long_as_it_says() -> None:
    """80,000 tokens of history in 400 messages."""
    played = play(80_000)
    (effect,) = decide(played.run.state, played.run.view, Moment(played.run.now_ms, 1, habit=HABIT)).effects
    assert isinstance(effect, CallModel)
    messages, length = size(effect.request)
    assert 390 < messages < 410
    assert 300_000 < length < 400_000
    assert set(measure(4_000, 1)) >= {"assembly and accounting", "request as bytes, anthropic"}
