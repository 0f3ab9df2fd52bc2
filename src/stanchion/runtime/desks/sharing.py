"""Who may have how much of the workers, as an operator sets it: `Runtime.shares`."""

from __future__ import annotations

from collections.abc import Sequence

from stanchion.engine.taking import LIVE_MS
from stanchion.journal.share import Share, WorkerRow
from stanchion.journal.store import Store
from stanchion.runtime.runs.admission import checked_share

GONE_MS = LIVE_MS
"""A worker that was not heard of for so long counts as gone."""


class Sharing:
    """The shares of one store, and the workers that they are of."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def set(
        self,
        scope: str = "tenant",
        *,
        tenant: str = "",
        weight: int | None = None,
        max_running: int | None = None,
        max_queued: int | None = None,
    ) -> Share:
        """Set what a tenant, agent or user may have of the workers; None takes a value back to its default.

        `scope`: "tenant", "agent:NAME", "user:NAME" or "user:*"; tenant "" is the operator's own, for all tenants.
        Raises `InputError`.
        """
        share = checked_share(scope, tenant, weight, max_running, max_queued)
        await self._store.sharing.set(share)
        return share

    async def list(self) -> Sequence[Share]:
        """List all shares."""
        return await self._store.sharing.rows()

    async def weight_of(self, tenant: str) -> int:
        """Tell a tenant's weight against others."""
        return (await self._store.sharing.shares()).weight_of(tenant)

    async def workers(self) -> Sequence[WorkerRow]:
        """List the worker processes that were heard of within the last day."""
        return await self._store.sharing.workers()
