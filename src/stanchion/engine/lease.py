"""The claim that a run is driven under: whether it still stands. It ends with its lease, or when another worker claims the run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from stanchion.core.errors import JournalError, StaleAppend
from stanchion.journal.store import Store


class Lease:
    """One claim of a run. `told` is called when it is lost."""

    def __init__(
        self, store: Store, tenant: str, run: str, *, epoch: int, lease_s: float, told: Callable[[], None]
    ) -> None:
        self._store = store
        self._tenant = tenant
        self._run = run
        self._epoch = epoch
        self._lease_s = lease_s
        self._told = told
        self._held_until_s = asyncio.get_running_loop().time() + lease_s
        self.lost: JournalError | None = None
        """Why this run is not ours any more."""

    def claimed_at(self, sent_s: float) -> None:
        """Say when the claim was asked for, by the loop's clock: from then on it stands for the time of the lease."""
        self._held_until_s = sent_s + self._lease_s

    def lose(self) -> None:
        """Say that another worker has claimed the run: stop, change nothing."""
        self.lost = self.lost or StaleAppend()
        self._told()

    async def holds(self) -> bool:
        """Whether the run is still ours, by its lease; a lease that has ended is renewed first.

        A process that slept through its lease after it wrote an intent must not act on it: another may have taken the
        run over, asked whether it was done, and been told that it was not.
        """
        while asyncio.get_running_loop().time() >= self._held_until_s:
            if not await self._renew():
                return False
        return True

    async def _renew(self) -> bool:
        """Prolong the lease, or learn that it is lost."""
        sent_s = asyncio.get_running_loop().time()
        try:
            lease_ms = int(self._lease_s * 1000)
            if await self._store.renew(self._tenant, self._run, epoch=self._epoch, lease_ms=lease_ms):
                self.claimed_at(sent_s)
                return True
            self.lose()
        except JournalError as error:
            self.lost = error
            self._told()
        return False
