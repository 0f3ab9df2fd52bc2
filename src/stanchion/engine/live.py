"""What is going on now, for those who watch: new entries, and the text of the model call in the making.

Nothing here is journaled and nothing here waits for a reader. A reader who is behind reads entries from the store and
gets the deltas he missed as one piece, so a slow client costs a run nothing.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

import msgspec

from stanchion.core import event as ev
from stanchion.core.message import Delta

RECENT = 64
"""Entries kept of a run that is watched, so that a reader who keeps up never reads the store."""


class LiveDelta(msgspec.Struct, frozen=True, omit_defaults=True):
    """A piece of a model call in the making. Void as soon as its attempt failed (I10)."""

    turn: int
    attempt: int
    index: int
    kind: str
    offset: int
    """Characters of this part (turn, attempt, index) that came before."""
    text: str
    name: str = ""


class _Draft:
    """The text so far of an attempt: pieces, and for each part how long it is."""

    __slots__ = ("attempt", "pieces", "sizes", "turn")

    def __init__(self, turn: int, attempt: int) -> None:
        self.turn = turn
        self.attempt = attempt
        self.pieces: list[LiveDelta] = []
        self.sizes: dict[int, int] = {}

    def add(self, deltas: Sequence[Delta]) -> None:
        for delta in deltas:
            offset = self.sizes.get(delta.index, 0)
            self.sizes[delta.index] = offset + len(delta.text)
            self.pieces.append(
                LiveDelta(self.turn, self.attempt, delta.index, delta.kind, offset, delta.text, delta.name)
            )


class Watch:
    """One reader of one run. `wake` is set when there is something to take."""

    def __init__(self, topic: _Topic, *, deltas: bool) -> None:
        self._topic = topic
        self.wants_deltas = deltas
        self.look = True
        """Whether the store may hold entries that were not told here: at first, and when another process wrote."""
        self._seen: tuple[int, int] = (0, 0)
        self._read = 0
        self.wake = asyncio.Event()
        self.stopped = ""
        """Why there will be nothing more, while the run goes on."""

    def entries(self, after: int) -> Sequence[ev.Entry] | None:
        """Give the entries behind a seq, or None if they must be read from the store."""
        recent = self._topic.recent
        if self.look or (recent and recent[-1].seq > after and recent[0].seq > after + 1):
            self.look = False
            return None
        return [entry for entry in recent if entry.seq > after]

    def deltas(self, after: int) -> list[LiveDelta]:
        """Take the deltas not taken yet, joined per part: of the attempt whose start is at or before `after`."""
        draft = self._topic.draft
        if draft is None or self._topic.draft_seq > after:
            return []
        if self._seen != (draft.turn, draft.attempt):
            self._seen, self._read = (draft.turn, draft.attempt), 0
        pieces = draft.pieces[self._read :]
        self._read += len(pieces)
        return _join(pieces)


def _join(pieces: list[LiveDelta]) -> list[LiveDelta]:
    joined: list[LiveDelta] = []
    start = 0
    while start < len(pieces):
        first, end = pieces[start], start + 1
        while end < len(pieces) and pieces[end].index == first.index:
            end += 1
        if end - start > 1:
            text = "".join(piece.text for piece in pieces[start:end])
            first = msgspec.structs.replace(first, text=text)
        joined.append(first)
        start = end
    return joined


class _Topic:
    """A run that is driven here or watched here."""

    __slots__ = ("draft", "draft_seq", "recent", "watches")

    def __init__(self) -> None:
        self.recent: deque[ev.Entry] = deque(maxlen=RECENT)
        self.draft: _Draft | None = None
        self.draft_seq = 0
        self.watches: list[Watch] = []


class Live:
    """All runs that are driven or watched in this process."""

    def __init__(self) -> None:
        self._topics: dict[tuple[str, str], _Topic] = {}
        self._stopped = ""

    def watch(self, tenant: str, run: str, *, deltas: bool = True) -> Watch:
        """Begin to watch a run; end it with `unwatch`."""
        topic = self._topics.setdefault((tenant, run), _Topic())
        watch = Watch(topic, deltas=deltas)
        watch.stopped = self._stopped
        topic.watches.append(watch)
        return watch

    def unwatch(self, tenant: str, run: str, watch: Watch) -> None:
        """Stop watching."""
        topic = self._topics.get((tenant, run))
        if topic is None:
            return
        topic.watches.remove(watch)
        if not topic.watches and topic.draft is None:
            del self._topics[tenant, run]

    def publish(self, tenant: str, run: str, entries: Sequence[ev.Entry]) -> None:
        """Tell of entries that are durable."""
        topic = self._topics.get((tenant, run))
        for entry in entries:
            event = entry.event
            if isinstance(event, ev.ModelCallStarted):
                topic = topic or self._topics.setdefault((tenant, run), _Topic())
                topic.draft, topic.draft_seq = _Draft(event.turn, event.attempt), entry.seq
            elif isinstance(event, ev.ModelCallFinished | ev.ModelCallFailed) and topic is not None:
                topic.draft = None
        if topic is None:
            return
        if topic.watches:
            if topic.recent and entries and entries[0].seq != topic.recent[-1].seq + 1:
                topic.recent.clear()  # another process drove the run in between
            topic.recent.extend(entries)
            _wake(topic)
        else:
            topic.recent.clear()
            if topic.draft is None:
                del self._topics[tenant, run]

    def delta(self, tenant: str, run: str, turn: int, attempt: int, deltas: Sequence[Delta]) -> None:
        """Tell of a model call in the making."""
        topic = self._topics.get((tenant, run))
        draft = topic.draft if topic is not None else None
        if topic is None or draft is None or (draft.turn, draft.attempt) != (turn, attempt):
            return
        draft.add(deltas)
        for watch in topic.watches:
            if watch.wants_deltas:
                watch.wake.set()

    def close(self, tenant: str, run: str) -> None:
        """Forget the call in the making: its worker let go of the run."""
        topic = self._topics.get((tenant, run))
        if topic is None:
            return
        topic.draft = None
        if not topic.watches:
            del self._topics[tenant, run]

    def stop(self, reason: str) -> None:
        """Tell all readers, those to come as well, that nothing more will come from here."""
        self._stopped = reason
        for topic in self._topics.values():
            for watch in topic.watches:
                watch.stopped = reason
            _wake(topic)

    def look(self, tenant: str, run: str) -> None:
        """Make a run's readers look into the store: another process has written it."""
        topic = self._topics.get((tenant, run))
        if topic is not None:
            for watch in topic.watches:
                watch.look = True
            _wake(topic)

    def nudge(self) -> None:
        """Make all readers look into the store: another process may have written."""
        for topic in self._topics.values():
            for watch in topic.watches:
                watch.look = True
            _wake(topic)


def _wake(topic: _Topic) -> None:
    for watch in topic.watches:
        watch.wake.set()
