"""Fold runs from the store: a run's own entries, on the conversation of the runs of its session before it.

A cache holds what ended runs left, so that the next message of a session does not read the session again. It may be
dropped at any time (invariant I3).
"""

from __future__ import annotations

from collections import OrderedDict

from stanchion.core import event as ev
from stanchion.core.fold import carry, fold
from stanchion.core.state import State
from stanchion.journal.store import Store

CACHED_BYTES = 64_000_000
"""Of ended runs that are kept, at most: their content, and `_STATE_BYTES` for each."""
_STATE_BYTES = 4_000
_Place = tuple[str, str, int]
"""Tenant, run, and the seq of its last event."""
Keys = tuple[tuple[str, str], ...]
"""Subjects, and the ids of the content keys that they had."""


class Loader:
    """Folds runs of one store."""

    def __init__(self, store: Store, *, cached_bytes: int = CACHED_BYTES) -> None:
        self._store = store
        self._left: OrderedDict[_Place, tuple[State, Keys]] = OrderedDict()
        self._size = 0
        self._most = cached_bytes

    async def load(self, tenant: str, run: str) -> State:
        """Fold a run. One without events yet gives the empty state."""
        entries = list(await self._store.read(tenant, run))
        if not entries:
            return State()
        return fold(entries, await self.base(tenant, base_of(entries[0])))

    async def base(self, tenant: str, base: ev.Base | None, *, anew: bool = False) -> State:
        """Fold what a run goes on from: its session up to there, which may be in the midst of a run that is not over.

        `anew`: as the store has it now. Another process may have erased what is kept here.
        """
        behind: list[list[ev.Entry]] = []
        state = State()
        while base is not None:
            kept = None if anew else await self._kept(tenant, base)
            if kept is not None:
                state = kept
                break
            entries = list(await self._store.read(tenant, base.run, limit=base.seq))
            behind.append(entries)
            base = base_of(entries[0]) if entries else None
        for entries in reversed(behind):
            state = carry(fold(entries, state))
        return state

    async def _kept(self, tenant: str, base: ev.Base) -> State | None:
        """Give what is kept of a run, unless what lies under its keys was erased since, by whichever process."""
        place = (tenant, base.run, base.seq)
        state, keys = self._left.get(place, (None, ()))
        for subject, key in keys:
            if (await self._store.key_for(tenant, subject)).id != key:
                self._drop(place)
                return None
        return state

    def keep(self, state: State, keys: Keys) -> None:
        """Keep what a run that ended leaves to the next. `keys`: under which its content lies."""
        if _size(state) > self._most // 4:
            return
        key = (state.tenant, state.run, state.seq)
        self._drop(key)
        self._left[key] = (carry(state), keys)
        self._size += _size(state)
        while self._size > self._most:
            self._drop(next(iter(self._left)))

    def clear(self) -> None:
        """Forget everything: content was erased."""
        self._left.clear()
        self._size = 0

    def _drop(self, key: _Place) -> None:
        left = self._left.pop(key, None)
        if left is not None:
            self._size -= _size(left[0])


def _size(state: State) -> int:
    return state.content_bytes + state.hidden_bytes + _STATE_BYTES


def base_of(first: ev.Entry) -> ev.Base | None:
    """Read what a run goes on from in its first entry."""
    return went_on_from(first.event) if isinstance(first.event, ev.RunStarted) else None


def went_on_from(first: ev.RunStarted) -> ev.Base | None:
    """Say what a run goes on from: its session's head, or that of the session that it refreshes, or that
    of which it remembers."""
    return first.refreshes or first.remembers or first.base
