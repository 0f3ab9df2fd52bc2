"""Follow runs: their entries gapless from any seq, the call in the making, and the wait until something is needed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from stanchion.core import event as ev
from stanchion.core.errors import Conflict, InputError
from stanchion.core.fold import fold
from stanchion.engine.live import Live, LiveDelta, Watch
from stanchion.journal.store import Store
from stanchion.runtime.runs.finding import row_of

_LOOK_S = 0.25
"""How often a runtime that does not drive looks for events of others."""
_LOOK_SHARED_S = 2.0
"""How often readers of a shared store look though nothing was heard: the one who wrote may have died before he told."""
_PAGE = 256


class Draining(Conflict):
    """The server is shutting down; the run goes on when it is back. Attach again."""

    code = "draining"
    retryable = True


class Follower:
    """Follows runs that are driven here (`driving`), or by another process."""

    def __init__(self, store: Store, live: Live, *, driving: bool, shared: bool = False) -> None:
        self._store = store
        self._live = live
        self._look_s = _LOOK_SHARED_S if shared else None if driving else _LOOK_S

    async def until_needed(self, tenant: str, run: str) -> None:
        """Wait until a run is over, parked, or needs a person. Raises `NotFound`, `Draining`."""
        watch = self._live.watch(tenant, run, deltas=False)
        try:
            while not await self._is_needed(tenant, run):
                if watch.stopped:
                    raise Draining
                await self._woken(watch)
        finally:
            self._live.unwatch(tenant, run, watch)

    async def _is_needed(self, tenant: str, run: str) -> bool:
        row = await row_of(self._store, tenant, run)
        if row.status == "waiting":
            return fold(await self._store.read(tenant, run)).asking
        return row.status in ("ended", "parked")

    async def tail(self, tenant: str, run: str, *, after: int, deltas: bool) -> AsyncGenerator[ev.Entry | LiveDelta]:
        """Follow a run from behind a seq to its end."""
        row = await row_of(self._store, tenant, run)
        if not 0 <= after <= row.seq:
            raise InputError(f"{after} is no event of run {run}, which stands at {row.seq}", field="after")
        if row.status == "ended" and after == row.seq:
            return
        watch = self._live.watch(tenant, run, after=after, deltas=deltas)
        try:
            while True:
                for entry in await self._entries(tenant, run, watch, after):
                    watch.passed(entry)
                    yield entry
                    after = entry.seq
                    if isinstance(entry.event, ev.RunFinished):
                        return
                if watch.look:
                    continue
                if deltas:
                    for delta in watch.deltas(after):
                        yield delta
                if watch.stopped:
                    raise Draining
                await self._woken(watch)
        finally:
            self._live.unwatch(tenant, run, watch)

    async def _entries(self, tenant: str, run: str, watch: Watch, after: int) -> list[ev.Entry]:
        """Give the next entries; `watch.look` is set if there may be more of them."""
        told = watch.entries(after)
        if told is not None:
            return list(told)
        found = await self._store.read(tenant, run, after=after, limit=_PAGE)
        watch.look = watch.look or len(found) == _PAGE
        return list(found)

    async def _woken(self, watch: Watch) -> None:
        """Wait for something to take. What another process does is looked for."""
        try:
            async with asyncio.timeout(self._look_s):
                await watch.wake.wait()
        except TimeoutError:
            watch.look = True
        if self._look_s == _LOOK_S:
            watch.look = True
        watch.wake.clear()
