"""What is going on now, for those who watch: new entries, and the text of the model call in the making.

Nothing here is journaled and nothing here waits for a reader. A reader who is behind reads entries from the store and
gets the deltas he missed as one piece, so a slow client costs a run nothing.

A run that is watched here and driven by another process gets its deltas over the relay (`engine/relay.py`), which is told
here who is interested in what; for the reader there is no difference.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

import msgspec

from stanchion.core import event as ev
from stanchion.core.message import Delta

RECENT = 64
"""Entries kept of a run that is watched, so that a reader who keeps up never reads the store."""


Place: TypeAlias = tuple[str, str]
"""Tenant and run."""


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


class Draft:
    """The text so far of an attempt: pieces, and for each part how long it is."""

    __slots__ = ("attempt", "head", "pieces", "seq", "sizes", "turn")

    def __init__(self, seq: int, turn: int, attempt: int) -> None:
        self.seq = seq
        """Of the event that started the attempt."""
        self.head = seq
        """Up to which event its driver knew that the attempt was not over."""
        self.turn = turn
        self.attempt = attempt
        self.pieces: list[LiveDelta] = []
        self.sizes: dict[int, int] = {}

    def add(self, deltas: Sequence[Delta]) -> None:
        """Add what the model said."""
        for delta in deltas:
            self._add(delta.index, delta.kind, self.sizes.get(delta.index, 0), delta.text, delta.name)

    def merge(self, pieces: Sequence[LiveDelta]) -> None:
        """Add what is new of pieces, each of which begins at or before the end of its part."""
        for piece in pieces:
            at = self.sizes.get(piece.index, 0)
            new = at < piece.offset + len(piece.text) or piece.index not in self.sizes
            if new and piece.offset <= at:
                self._add(piece.index, piece.kind, at, piece.text[at - piece.offset :], piece.name)

    def _add(self, index: int, kind: str, offset: int, text: str, name: str) -> None:
        self.sizes[index] = offset + len(text)
        self.pieces.append(LiveDelta(self.turn, self.attempt, index, kind, offset, text, name))


class Outlet(Protocol):
    """Where the deltas of runs go to, and come from, that are driven by one process and watched in another."""

    def want(self, place: Place) -> None:
        """Ask whoever drives a run for its deltas from now on, and for the text so far."""
        ...

    def unwant(self, place: Place) -> None:
        """Take that back."""
        ...

    def grown(self, place: Place) -> None:
        """Hear that there is more of a run that is driven here. Called for every delta: cheap."""
        ...


class Watch:
    """One reader of one run. `wake` is set when there is something to take."""

    def __init__(self, topic: _Topic, *, deltas: bool, after: int, keen: Callable[[], None]) -> None:
        self._topic = topic
        self.wants_deltas = deltas
        self.look = True
        """Whether the store may hold entries that were not told here: at first, and when another process wrote."""
        self.caught_up = False
        """It has read what there was, and waits for deltas."""
        self._keen = keen
        self._began = after
        self._seen = 0
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

    def passed(self, entry: ev.Entry) -> None:
        """Take note of an entry that was read: an attempt that it ends is void here as well."""
        draft = self._topic.draft
        if isinstance(entry.event, ev.ModelCallFinished | ev.ModelCallFailed):
            self._topic.void = max(self._topic.void, entry.seq)
            if draft is not None and draft.seq < entry.seq:
                self._topic.draft = None

    def deltas(self, after: int) -> list[LiveDelta]:
        """Take the deltas not taken yet, joined per part: of the attempt whose start is at or before `after`.

        Who began to read behind its start takes them only if the attempt was not over there.
        """
        if not self.caught_up:
            self.caught_up = True
            self._keen()
        draft = self._topic.draft
        if draft is None or draft.seq > after or draft.head < self._began:
            return []
        if self._seen != draft.seq:
            self._seen, self._read = draft.seq, 0
        pieces = draft.pieces[self._read :]
        self._read += len(pieces)
        return joined(pieces)


def joined(pieces: list[LiveDelta]) -> list[LiveDelta]:
    """Join neighbours of one part."""
    found: list[LiveDelta] = []
    start = 0
    while start < len(pieces):
        first, end = pieces[start], start + 1
        while end < len(pieces) and pieces[end].index == first.index:
            end += 1
        if end - start > 1:
            text = "".join(piece.text for piece in pieces[start:end])
            first = msgspec.structs.replace(first, text=text)
        found.append(first)
        start = end
    return found


class _Topic:
    """A run that is driven here or watched here."""

    __slots__ = ("draft", "recent", "void", "watches")

    def __init__(self) -> None:
        self.recent: deque[ev.Entry] = deque(maxlen=RECENT)
        self.draft: Draft | None = None
        self.void = 0
        """Attempts that began before this seq are over, as readers here know."""
        self.watches: list[Watch] = []

    @property
    def awaited(self) -> bool:
        """Whether somebody here waits for deltas."""
        return any(watch.caught_up for watch in self.watches)


class Live:
    """All runs that are driven or watched in this process."""

    def __init__(self) -> None:
        self.outlet: Outlet | None = None
        """To other processes; None: there are none that could watch or drive."""
        self._topics: dict[Place, _Topic] = {}
        self._driven: set[Place] = set()
        self._stopped = ""

    def watch(self, tenant: str, run: str, *, after: int = 0, deltas: bool = True) -> Watch:
        """Begin to watch a run behind a seq; end it with `unwatch`."""
        place = tenant, run
        topic = self._topics.setdefault(place, _Topic())
        watch = Watch(topic, deltas=deltas, after=after, keen=lambda: self._want(place))
        watch.stopped = self._stopped
        topic.watches.append(watch)
        return watch

    def unwatch(self, tenant: str, run: str, watch: Watch) -> None:
        """Stop watching."""
        place = tenant, run
        topic = self._topics.get(place)
        if topic is None:
            return
        topic.watches.remove(watch)
        if self.outlet is not None and watch.caught_up and not topic.awaited:
            self.outlet.unwant(place)
        if not topic.watches and (topic.draft is None or place not in self._driven):
            del self._topics[place]

    def _want(self, place: Place) -> None:
        """Ask for the deltas of a run that others drive, if somebody here waits for them."""
        topic = self._topics.get(place)
        if self.outlet is None or place in self._driven or topic is None or not topic.awaited:
            return
        if not (topic.recent and isinstance(topic.recent[-1].event, ev.RunFinished)):
            self.outlet.want(place)

    def open(self, tenant: str, run: str) -> None:
        """Say that a run is driven here from now on."""
        place = tenant, run
        self._driven.add(place)
        if self.outlet is not None and place in self._topics:
            self.outlet.unwant(place)

    def publish(self, tenant: str, run: str, entries: Sequence[ev.Entry]) -> None:
        """Tell of entries that are durable."""
        topic = self._topics.get((tenant, run))
        for entry in entries:
            event = entry.event
            if isinstance(event, ev.ModelCallStarted):
                topic = topic or self._topics.setdefault((tenant, run), _Topic())
                topic.draft = Draft(entry.seq, event.turn, event.attempt)
            elif topic is not None and topic.draft is not None:
                if isinstance(event, ev.ModelCallFinished | ev.ModelCallFailed):
                    topic.draft = None
                else:
                    topic.draft.head = entry.seq
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
        _wake_for_deltas(topic)
        if self.outlet is not None:
            self.outlet.grown((tenant, run))

    def draft(self, place: Place) -> Draft | None:
        """Give the call in the making of a run that is driven here."""
        topic = self._topics.get(place)
        return topic.draft if topic is not None and place in self._driven else None

    def told(self, place: Place, draft: Draft) -> None:
        """Take what another process said of the call in the making: pieces without a gap, perhaps known already."""
        topic = self._topics.get(place)
        if topic is None or place in self._driven or draft.seq < topic.void:
            return
        if topic.draft is None or topic.draft.seq < draft.seq:
            topic.draft = Draft(draft.seq, draft.turn, draft.attempt)
        if topic.draft.seq == draft.seq:
            topic.draft.head = max(topic.draft.head, draft.head)
            topic.draft.merge(draft.pieces)
            _wake_for_deltas(topic)

    def close(self, tenant: str, run: str) -> None:
        """Forget the call in the making: its worker let go of the run."""
        place = tenant, run
        self._driven.discard(place)
        topic = self._topics.get(place)
        if topic is None:
            return
        topic.draft = None
        if topic.watches:
            self._want(place)  # another may drive it next
        else:
            del self._topics[place]

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


def _wake_for_deltas(topic: _Topic) -> None:
    for watch in topic.watches:
        if watch.wants_deltas:
            watch.wake.set()
