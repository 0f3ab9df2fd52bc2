"""Words between processes: whatever the model said comes out whole, in messages that are short enough."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stanchion.core.message import Delta
from stanchion.engine import letters
from stanchion.engine.letters import Said, Speech, Watched
from stanchion.engine.live import Draft, joined

PLACE = ("default", "run_1")
_text = st.text(st.characters(codec="utf-8"), max_size=300) | st.sampled_from(
    ["\0" * 400, "\u2028é", "👩‍👩‍👧" * 90, '"\\' * 300]
)
_deltas = st.lists(
    st.builds(Delta, st.sampled_from(["text", "thinking", "tool_call"]), st.integers(0, 3), _text, st.sampled_from(["", "look"])),
    max_size=12,
)  # fmt: skip


def over_the_wire(draft: Draft, sent: int, number: int, limit: int) -> tuple[list[Said], int]:
    """Send what is new of a draft; give what arrives and the next number."""
    cut = letters.cut(PLACE, draft, joined(draft.pieces[sent:]), number, limit)
    heard: list[Said] = []
    for text in letters.speech(cut, limit):
        assert len(text.encode()) <= limit
        assert "\0" not in text
        message = letters.decode(text)
        assert isinstance(message, Speech)
        heard += message.said
    return heard, number + len(cut)


def heard_of(draft: Draft) -> list[object]:
    """Give the text in its order, and the name of each part."""
    said = joined([piece for piece in draft.pieces if piece.text])
    names = {piece.index: piece.name for piece in reversed(draft.pieces)}
    return [[(piece.index, piece.offset, piece.text) for piece in said], names]


@given(_deltas, _deltas, st.sampled_from([400, 1_000, 7_900]))
@example(
    [Delta("tool_call", 0, "", "look")], [Delta("tool_call", 0, '{"order":', ""), Delta("tool_call", 1, "", "see")], 400
)
def test_what_is_said_is_heard(before: list[Delta], after: list[Delta], limit: int) -> None:
    """The text so far and what follows it give the same parts, in numbered pieces whose places fit together."""
    draft, there = Draft(3, 1, 2), Draft(3, 1, 2)
    draft.add(before)
    heard, number = over_the_wire(draft, 0, 0, limit)
    sent = len(draft.pieces)
    draft.add(after)
    more, _ = over_the_wire(draft, sent, number, limit)
    assert [said.number for said in heard + more] == list(range(len(heard + more)))
    for said in heard + more:
        there.merge(said.draft().pieces)
    assert heard_of(there) == heard_of(draft)
    assert there.sizes == draft.sizes
    known = list(there.pieces)
    for said in heard:  # the text so far, asked for again, adds nothing
        there.merge(said.draft().pieces)
    assert there.pieces == known


@given(_deltas, st.integers(0, 12))
def test_a_draft_that_is_behind_catches_up(deltas: list[Delta], known: int) -> None:
    """Who has a part of it and hears the whole has each character once."""
    draft, there = Draft(3, 1, 2), Draft(3, 1, 2)
    draft.add(deltas)
    there.add(deltas[:known])
    heard, _ = over_the_wire(draft, 0, 0, 500)
    for said in heard:
        there.merge(said.draft().pieces)
    for index in draft.sizes:
        whole = "".join(piece.text for piece in draft.pieces if piece.index == index)
        assert "".join(piece.text for piece in there.pieces if piece.index == index) == whole


def test_half_a_character_does_not_stop_the_rest() -> None:
    """A lone surrogate, which is no text, becomes one character, and the places after it still fit."""
    draft = Draft(3, 1, 1)
    draft.add([Delta("text", 0, "a\ud83d"), Delta("text", 0, "b")])
    heard, _ = over_the_wire(draft, 0, 0, 500)
    assert [(piece.offset, piece.text) for said in heard for piece in said.pieces] == [(0, "a?b")]


def test_many_watches_take_few_messages() -> None:
    """A thousand runs are named in messages of nearly full size."""
    runs = [("default", f"run_{number:016x}", False) for number in range(1_000)]
    texts = list(letters.watched("me", 1_000, runs, 7_900))
    assert len(texts) <= 6
    assert max(len(text.encode()) for text in texts) <= 7_900
    heard = [letters.decode(text) for text in texts]
    assert [run for message in heard if isinstance(message, Watched) for run in message.runs] == runs


@pytest.mark.parametrize("text", ["", "{}", '["later",1]', '["speech",[["x"]]]', msgspec.json.encode(["who"]).decode()])
def test_messages_of_another_version_are_left_aside(text: str) -> None:
    """What cannot be read is nothing, and no error: old and new processes work side by side."""
    assert letters.decode(text) is None
