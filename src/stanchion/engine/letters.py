"""What processes say to each other about model calls in the making, and how it is cut to the size of a message.

Who watches a run says so to all, again and again while it watches. Whoever drives it answers with what was said so far
and then with what is said, numbered per attempt from 0: a number that is missing is a gap, and 0 begins anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias, TypeVar

import msgspec

from stanchion.engine.live import Draft, LiveDelta, Place


class Watched(msgspec.Struct, frozen=True, array_like=True, tag="watched"):
    """A process watches runs that it does not drive."""

    by: str
    ttl_ms: int
    """For how long this stands if it is not said again."""
    runs: list[tuple[str, str, bool]]
    """Tenant and run; True: the text so far is wanted (again)."""


class Unwatched(msgspec.Struct, frozen=True, array_like=True, tag="unwatched"):
    """A process watches runs no more."""

    by: str
    runs: list[tuple[str, str]]


class WhoWatches(msgspec.Struct, frozen=True, array_like=True, tag="who"):
    """A process does not know who watches: it is new, or its line was lost."""

    by: str


class Piece(msgspec.Struct, frozen=True, array_like=True):
    """A `LiveDelta` without its attempt."""

    index: int
    kind: str
    offset: int
    text: str
    name: str = ""


class Said(msgspec.Struct, frozen=True, array_like=True):
    """What a model said, in an attempt that is not over."""

    tenant: str
    run: str
    seq: int
    """Of the event that started the attempt."""
    head: int
    turn: int
    attempt: int
    number: int
    pieces: list[Piece]

    def draft(self) -> Draft:
        """Give it as the draft of a call."""
        draft = Draft(self.seq, self.turn, self.attempt)
        draft.head = self.head
        draft.pieces = [
            LiveDelta(self.turn, self.attempt, piece.index, piece.kind, piece.offset, piece.text, piece.name)
            for piece in self.pieces
        ]
        return draft


class Speech(msgspec.Struct, frozen=True, array_like=True, tag="speech"):
    """What models said, in any number of runs."""

    said: list[Said]


Message: TypeAlias = Watched | Unwatched | WhoWatches | Speech
_Row = TypeVar("_Row")
_encode = msgspec.json.Encoder().encode
_decoder = msgspec.json.Decoder(Message)
_FRAME_BYTES = 96
"""Of a message around its rows, at most."""


def decode(text: str) -> Message | None:
    """Read a message. None: it is of another version of this program."""
    try:
        return _decoder.decode(text)
    except msgspec.MsgspecError:
        return None


def encode(message: Message) -> str:
    """Write a message."""
    return _encode(message).decode()


def watched(by: str, ttl_ms: int, runs: Sequence[tuple[str, str, bool]], limit: int) -> Iterator[str]:
    """Write who is watched, as few messages as their size allows."""
    for group in _groups(runs, limit):
        yield encode(Watched(by, ttl_ms, group))


def unwatched(by: str, runs: Sequence[Place], limit: int) -> Iterator[str]:
    """Write who is not watched any more."""
    for group in _groups(runs, limit):
        yield encode(Unwatched(by, group))


def speech(said: Iterable[Said], limit: int) -> Iterator[str]:
    """Write what was said; each must be short enough (`cut`)."""
    for group in _groups(said, limit):
        yield encode(Speech(group))


def _groups(rows: Iterable[_Row], limit: int) -> Iterator[list[_Row]]:
    group: list[_Row] = []
    size = _FRAME_BYTES
    for row in rows:
        weight = len(_encode(row)) + 1
        if group and size + weight > limit:
            yield group
            group, size = [], _FRAME_BYTES
        group.append(row)
        size += weight
    if group:
        yield group


def cut(place: Place, draft: Draft, pieces: Sequence[LiveDelta], number: int, limit: int) -> list[Said]:
    """Cut pieces of a draft into numbered parts of which each fits into a message. Characters stay whole."""
    tenant, run = place

    def row(of: list[Piece]) -> Said:
        return Said(tenant, run, draft.seq, draft.head, draft.turn, draft.attempt, number + len(found), of)

    found: list[Said] = []
    bare = len(_encode(row([]))) + _FRAME_BYTES + 8
    group: list[Piece] = []
    size = bare
    for piece in pieces:
        for part in _halved(piece, limit - bare):
            weight = len(_encode(part)) + 1
            if group and size + weight > limit:
                found.append(row(group))
                group, size = [], bare
            group.append(part)
            size += weight
    if group:
        found.append(row(group))
    return found


def _halved(piece: LiveDelta, room: int) -> Iterator[Piece]:
    """Halve a piece until each part fits. What is no Unicode text (half an emoji) is replaced."""
    part = Piece(piece.index, piece.kind, piece.offset, piece.text, piece.name)
    try:
        size = len(_encode(part)) + 1
    except UnicodeEncodeError:
        text = piece.text.encode(errors="replace").decode()
        yield from _halved(msgspec.structs.replace(piece, text=text), room)
        return
    if size <= room or len(piece.text) < 2:
        yield part
        return
    middle = len(piece.text) // 2
    first, rest = piece.text[:middle], piece.text[middle:]
    yield from _halved(msgspec.structs.replace(piece, text=first), room)
    behind = msgspec.structs.replace(piece, text=rest, offset=piece.offset + middle, name="")
    yield from _halved(behind, room)
