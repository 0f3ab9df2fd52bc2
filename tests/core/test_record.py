"""Records: every part and event comes back as it went; any change to what is stored is found; erasure is told, not hidden."""

from __future__ import annotations

import random
from functools import cache
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stanchion.core import chain, upcast
from stanchion.core import event as ev
from stanchion.core.errors import BrokenChain, UnknownEvent
from stanchion.core.fold import fold
from stanchion.core.message import Erased, Label, Media, Opaque, Part, Text, Thinking, ToolCall, ToolResult
from stanchion.journal.record import Identity, Recorder, kind_of, pack, read_entry, unpack, verify
from stanchion.journal.store import Key, RawRecord
from tests.loop.play import Play, truthful
from tests.loop.random_runs import agent
from tests.loop.script import KEY, Doubt, call

labels = st.builds(
    Label,
    st.sampled_from(("developer", "user", "tool", "model", "runtime")),
    name=st.text(max_size=5),
    trust=st.sampled_from(("trusted", "user", "untrusted")),
    secrecy=st.sampled_from(("public", "internal")),
)
words = st.text(max_size=30)
media = st.builds(Media, words, labels, words, words, words, words, st.integers(0, 10**6))
parts: st.SearchStrategy[Any] = st.one_of(
    st.builds(Text, words, labels, words, words),
    st.builds(Text, words, labels),
    st.builds(Thinking, words, labels, words, words, words),
    st.builds(ToolCall, words, words, words, labels, words, words),
    st.builds(ToolResult, words, words, words, labels, st.booleans(), st.lists(media, max_size=2).map(tuple)),
    media,
    st.builds(Opaque, words, words, words, labels),
)


@given(part=parts)
@settings(max_examples=300)
def test_every_part_comes_back_as_it_went(part: Part) -> None:
    """Provider fields, media of results and empty strings too."""
    assert unpack(kind_of(part), part.label, pack(part)) == part


def test_every_kind_of_part_is_tried_above() -> None:
    """A new kind has to be added; an erased one has nothing to store."""
    tried = {Text, Thinking, ToolCall, ToolResult, Media, Opaque}
    assert tried | {Erased} == set(get_args(Part))
    with pytest.raises(ValueError, match="no content"):
        pack(Erased("text", Label("user")))


def raw(records: Any) -> list[RawRecord]:
    return [RawRecord(r.seq, r.envelope, r.hash, tuple(c.blob for c in r.contents)) for r in records]


def recorder() -> Recorder:
    return Recorder(KEY, Identity(), seq=0, hash=chain.genesis("t", "r1"), at_ms=0)


def fields(cls: type[Any]) -> st.SearchStrategy[Any]:
    return st.fixed_dictionaries(
        {
            field.name: st.lists(parts, max_size=2).map(tuple)
            if field.name == "parts"
            else st.from_type(field.type).filter(lambda value: not isinstance(value, int) or abs(value) < 2**63)
            for field in msgspec.structs.fields(cls)
        }
    ).map(lambda given: cls(**given))


st.register_type_strategy(ev.Caps, st.builds(ev.Caps, st.integers(0, 10**12), wall_s=st.floats(0, 1e9)))
st.register_type_strategy(ev.Base, st.builds(ev.Base, words, st.integers(0, 10**6), words))
st.register_type_strategy(ev.Usage, st.builds(ev.Usage, *[st.integers(0, 10**9)] * 6))


@pytest.mark.parametrize("cls", get_args(ev.Event), ids=lambda cls: cls.__name__)
@given(data=st.data())
@settings(max_examples=15)
def test_every_event_comes_back_as_it_went(cls: type[Any], data: Any) -> None:
    """Through envelope, contents and chain."""
    event = data.draw(fields(cls))
    entries, records = recorder().record([event], now_ms=5, epoch=3)
    assert [read_entry(record) for record in raw(records)] == entries
    assert entries[0].event == event
    assert (entries[0].seq, entries[0].at_ms, entries[0].epoch) == (1, 5, 3)


@cache
def journal() -> tuple[RawRecord, ...]:
    """The records of a run with something of everything."""
    script = [[call("look", '{"n":1}'), call("send"), call("pay")], [call("wipe"), call("nope")], "done"]
    return tuple(Play(agent(), script, {"send": [Doubt(done=True)]}, person=truthful, crashes={5: True}).play().records)


SALTS = {KEY.id: KEY.salt}


def test_an_untouched_journal_verifies() -> None:
    """All events, nothing erased, and the head of the chain."""
    found = verify("t", "r1", journal(), SALTS)
    assert (found.events, found.erased, found.head) == (len(journal()), 0, journal()[-1].hash)


@given(data=st.data())
@settings(max_examples=300)
def test_any_changed_byte_is_found_where_it_is(data: Any) -> None:
    """In an envelope, a hash or a content: the first bad event is named."""
    records = list(journal())
    place = data.draw(st.integers(0, len(records) - 1))
    record = records[place]
    whole = [record.envelope, record.hash, *record.contents]
    which = data.draw(st.sampled_from([n for n, piece in enumerate(whole) if piece]))
    piece = bytearray(whole[which] or b"")
    at, flip = data.draw(st.integers(0, len(piece) - 1)), data.draw(st.integers(1, 255))
    piece[at] ^= flip
    whole[which] = bytes(piece)
    records[place] = RawRecord(record.seq, bytes(whole[0] or b""), bytes(whole[1] or b""), tuple(whole[2:]))
    with pytest.raises(BrokenChain) as broken:
        verify("t", "r1", records, SALTS)
    assert broken.value.seq == place + 1


@pytest.mark.parametrize("place", [0, 1, 5])
def test_a_missing_doubled_or_moved_event_is_found(place: int) -> None:
    """At the first event that is not in its place."""
    records = list(journal())
    damaged = {
        "missing": records[:place] + records[place + 1 :],
        "doubled": [*records[: place + 1], *records[place:]],
        "swapped": [*records[:place], records[place + 1], records[place], *records[place + 2 :]],
    }
    for how, changed in damaged.items():
        with pytest.raises(BrokenChain) as broken:
            verify("t", "r1", changed, SALTS)
        assert broken.value.seq == place + 1 + (how == "doubled")


def test_a_cut_off_end_shows_in_head_and_count() -> None:
    """What is left verifies, which is why the run's row holds the head that it is compared with."""
    found = verify("t", "r1", journal()[:-1], SALTS)
    assert (found.events, found.head) == (len(journal()) - 1, journal()[-2].hash)
    assert found.head != journal()[-1].hash


@pytest.mark.parametrize("of", [("u", "r1"), ("t", "r2")])
def test_a_journal_of_another_run_or_tenant_is_none(of: tuple[str, str]) -> None:
    """A chain begins with its run."""
    with pytest.raises(BrokenChain) as broken:
        verify(*of, journal(), SALTS)
    assert broken.value.seq == 1


def erased() -> list[RawRecord]:
    return [RawRecord(r.seq, r.envelope, r.hash, (None,) * len(r.contents)) for r in journal()]


def test_after_erasure_the_chain_verifies_and_says_so() -> None:
    """The key is destroyed and the contents are gone: all events stand, each part is counted as erased (I13)."""
    found = verify("t", "r1", erased(), {})
    assert found.erased == sum(len(r.contents) for r in journal()) > 5
    assert found.head == journal()[-1].hash
    state = fold(read_entry(r) for r in erased())
    assert state.outcome == fold(read_entry(r) for r in journal()).outcome == "done"


def test_content_that_is_gone_without_its_key_and_content_that_came_back_are_found() -> None:
    """Erasing is done by destroying keys, and by nothing else."""
    with pytest.raises(BrokenChain, match="missing though its key"):
        verify("t", "r1", erased(), SALTS)
    with pytest.raises(BrokenChain, match="though its key was destroyed"):
        verify("t", "r1", journal(), {})


def test_a_content_too_few_or_too_many_is_found() -> None:
    """The envelope says how many there are."""
    records = list(journal())
    for contents in ((), (*records[0].contents, b"x")):
        records[0] = RawRecord(1, records[0].envelope, records[0].hash, contents)
        with pytest.raises(BrokenChain, match="content parts of 1"):
            verify("t", "r1", records, SALTS)


def refusal(record: RawRecord) -> BrokenChain | UnknownEvent | None:
    try:
        read_entry(record)
    except (BrokenChain, UnknownEvent) as error:  # a type that was damaged is one that nobody knows
        return error
    return None


def test_a_record_that_cannot_be_read_is_a_broken_chain() -> None:
    """Whoever reads gets an error of ours with the place, whatever the damage; `verify` tells it from a newer event."""
    good = journal()[2]
    chance = random.Random(7)
    found = set[type[Exception]]()
    for _ in range(300):
        pieces = [good.envelope, *(c or b"" for c in good.contents)]
        which = chance.randrange(len(pieces))
        piece = bytearray(pieces[which])
        for _ in range(3):
            piece[chance.randrange(len(piece))] = chance.randrange(256)
        pieces[which] = bytes(piece)
        damaged = RawRecord(good.seq, pieces[0], good.hash, tuple(pieces[1:]))
        if error := refusal(damaged):
            found.add(type(error))
            assert error.seq == good.seq
            with pytest.raises(BrokenChain) as broken:
                verify("t", "r1", [*journal()[:2], damaged, *journal()[3:]], SALTS)
            assert broken.value.seq == good.seq
    assert found == {BrokenChain, UnknownEvent}


def test_equal_content_is_committed_alike_under_one_key_only() -> None:
    """Two keys do not show that they hold the same."""
    part = Text("the same", Label("user"))
    commits = set[str]()
    for key in (KEY, KEY, Key("k2", b"another salt")):
        made = Recorder(key, Identity(), seq=0, hash=b"", at_ms=0).record(
            [ev.MessageAdded(parts=(part,))], now_ms=0, epoch=1
        )
        commits.add(made[1][0].contents[0].commit.hex())
    assert len(commits) == 2


def test_no_text_of_a_part_stands_in_an_envelope() -> None:
    """Envelopes are kept for ever: what may be erased is not in them (I13)."""
    secret = "the secret words"
    event = ev.ToolCallJudged(call="3.0", revision=0, action="ask", rule="r", parts=(Text(secret, Label("user")),))
    _, records = recorder().record([event], now_ms=1, epoch=1)
    assert secret.encode() not in records[0].envelope


def test_time_never_runs_backwards() -> None:
    """A clock that was set back does not break the order."""
    made = recorder()
    times = [made.record([ev.MessageAdded()], now_ms=now, epoch=1)[0][0].at_ms for now in (5, 9, 3, 10)]
    assert times == [5, 9, 9, 10]


def test_an_event_of_a_newer_version_is_refused_with_the_way_out() -> None:
    """An older program does not guess what a newer one wrote."""
    body = chain.encode_event(ev.RunRevived(by="ann"))
    assert upcast.decode_event(body) == ev.RunRevived(by="ann")
    with pytest.raises(UnknownEvent, match="upgrade"):
        upcast.decode_event(body, 2)
    with pytest.raises(UnknownEvent, match="'remarked' was written by a newer"):
        upcast.decode_event(b'{"type":"remarked"}')


def test_an_event_of_an_older_version_is_brought_up_to_date(monkeypatch: pytest.MonkeyPatch) -> None:
    """Step by step, from the version it was written in."""
    monkeypatch.setattr(upcast, "VERSIONS", {"run_revived": 3})
    steps = {
        ("run_revived", 1): lambda plain: {**plain, "who": plain.pop("name")},
        ("run_revived", 2): lambda plain: {**plain, "by": plain.pop("who")},
    }
    monkeypatch.setattr(upcast, "UPCASTS", steps)
    assert upcast.decode_event(b'{"type":"run_revived","name":"ann"}', 1) == ev.RunRevived(by="ann")
    assert upcast.decode_event(b'{"type":"run_revived","who":"ann"}', 2) == ev.RunRevived(by="ann")
    assert upcast.decode_event(b'{"type":"run_revived","by":"ann"}', 3) == ev.RunRevived(by="ann")
    assert upcast.decode_event(b'{"type":"message_added"}', 1) == ev.MessageAdded()


@pytest.mark.parametrize(
    ("field", "value", "why"), [("at_ms", 1, "its time is before"), ("seq", 5, "it says that it is event 7")]
)
def test_a_chain_that_was_forged_anew_is_still_no_journal(field: str, value: int, why: str) -> None:
    """Whoever hashes it all again cannot leave a gap or turn time back."""
    made = recorder()
    records = made.record([ev.MessageAdded()], now_ms=50, epoch=1)[1]
    setattr(made, field, value if field == "at_ms" else made.seq + value)
    records += made.record([ev.MessageAdded()], now_ms=2, epoch=1)[1]
    with pytest.raises(BrokenChain, match=why):
        verify("t", "r1", raw(records), SALTS)
