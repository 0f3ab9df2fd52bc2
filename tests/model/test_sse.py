"""The SSE parser: any chunking of any stream gives the same events."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanchion.model.sse import EventTooLong, SseParser

LINES = st.sampled_from(["data: a", "data:b", "data", "event: x", ": ping", "id: 7", "", "", "data: ü", "odd"])


def parse(*chunks: bytes) -> list[tuple[bytes, bytes]]:
    parser = SseParser()
    return [event for chunk in chunks for event in parser.feed(chunk)] + parser.close()


def test_forms() -> None:
    """Names, several data lines, comments, a mark at the start, every line end."""
    expected = [(b"x", b"1\n2"), (b"", b"3")]
    text = "\ufeffevent: x\ndata: 1\ndata:2\nid: 9\n\n: ping\n\ndata: 3\n\n"
    for end in ("\n", "\r\n", "\r"):
        assert parse(text.replace("\n", end).encode()) == expected


@given(st.lists(LINES, max_size=30), st.sampled_from(["\n", "\r\n", "\r"]), st.data())
def test_any_chunking(lines: list[str], end: str, data: st.DataObject) -> None:
    """However the bytes are cut, the events are those of the whole, and of LF line ends."""
    stream = (end.join(lines) + end).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert parse(*pieces) == parse(stream) == parse(("\n".join(lines) + "\n").encode())
    assert parse(*(bytes([byte]) for byte in stream)) == parse(stream)


def test_broken_last_line_is_dropped() -> None:
    """An event whose last line has not ended is not an event."""
    assert parse(b"data: 1\n\ndata: {") == [(b"", b"1")]


def test_bound() -> None:
    """An event beyond the bound is refused while it comes."""
    parser = SseParser(max_event_bytes=100)
    for _ in range(6):
        parser.feed(b"data: 0123456789")
    with pytest.raises(EventTooLong):
        parser.feed(b"data: 0123456789")
