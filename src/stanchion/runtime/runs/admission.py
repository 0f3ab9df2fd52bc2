"""Whether there is room for a run: whether it may start at once, may wait, or is one too many.

An interactive run is driven at once where its worker has a free slot and nobody of its class was seen waiting. Any other
is accepted undriven and waits its turn, as long as fewer of its tenant's runs wait than `max_queued`; else it is refused,
and nothing of it is kept. The bound keeps a tenant from filling the store and is not a promise: processes that accept at
the same moment may pass it by what each of them took in.
"""

from __future__ import annotations

import math
import time
from typing import Literal

from stanchion.core.errors import InputError, QueueFull
from stanchion.engine.worker import Worker
from stanchion.journal.share import BATCH, INTERACTIVE, TENANT, Place, Share
from stanchion.journal.store import RunRow, Store
from stanchion.runtime.shape import Queue

Priority = Literal["interactive", "batch"]
_KNOWN_S = 1.0
"""For how long a count is remembered while it is well below the bound."""
_NEAR = 0.9
"""From this part of the bound on every start counts anew."""
_UNKNOWN_RETRY_S = 10
_MAX_RETRY_S = 3_600
_MOST = 1_000_000


def class_of(priority: str) -> int:
    """Read a run's class. Raises `InputError`."""
    match priority:
        case "interactive":
            return INTERACTIVE
        case "batch":
            return BATCH
        case _:
            raise InputError(f'must be "interactive" or "batch", not {priority!r}', field="priority")


def checked_share(
    scope: str, tenant: str, weight: int | None, max_running: int | None, max_queued: int | None
) -> Share:
    """Check a share as somebody sets it. Raises `InputError`."""
    kind, colon, name = scope.partition(":")
    if scope != TENANT and (kind not in ("agent", "user") or not colon or not name):
        raise InputError(f'must be "tenant", "agent:NAME", "user:NAME" or "user:*", not {scope!r}', field="scope")
    if kind == "user" and not tenant and name != "*":
        raise InputError(f"{scope!r} is a user of one tenant: name the tenant, or set user:* for all", field="tenant")
    for field, value in (("weight", weight), ("max_queued", max_queued)):
        if value is not None and scope != TENANT:
            raise InputError(f"is a tenant's; {scope!r} has max_running alone", field=field)
    for field, value, least in (("weight", weight, 1), ("max_running", max_running, 0), ("max_queued", max_queued, 0)):
        if value is not None and not least <= value <= _MOST:
            raise InputError(f"must be between {least} and {_MOST:,}, not {value}", field=field)
    return Share(
        tenant=tenant,
        scope=scope,
        weight=weight or 0,
        max_running=-1 if max_running is None else max_running,
        max_queued=-1 if max_queued is None else max_queued,
    )


class Admission:
    """Decides on starts, for one process."""

    def __init__(self, store: Store, worker: Worker | None) -> None:
        self._store = store
        self._worker = worker
        self._counts: dict[str, tuple[float, int]] = {}
        """When a tenant's waiting runs were counted, and how many there are with those accepted here since."""

    def may_start(self, priority: int) -> bool:
        """Say whether a run may be driven here at once."""
        worker = self._worker
        return worker is not None and priority >= INTERACTIVE and worker.taking.may_start(worker.active)

    async def may_wait(self, tenant: str) -> bool:
        """Say whether one more of a tenant's runs may wait."""
        limit = (await self._store.sharing.shares()).max_queued(tenant)
        read_s, count = self._counts.get(tenant, (0.0, 0))
        if not read_s or time.monotonic() - read_s > _KNOWN_S or count >= limit * _NEAR:
            read_s, count = time.monotonic(), await self._store.sharing.queued(tenant, limit + 1)
        self._counts[tenant] = (read_s, count + 1)
        return count < limit

    async def refusal(self, tenant: str, priority: int) -> QueueFull:
        """Say why a run may not wait, and when to try again."""
        limit = (await self._store.sharing.shares()).max_queued(tenant)
        place = await self._store.sharing.last(tenant, priority)
        retry_s = retry_after_s(place)
        return QueueFull(
            f"{limit} runs of this tenant wait to begin, and no more may (max_queued); this one would have been number "
            f"{place.position}. Nothing was kept: try again in {retry_s} s",
            bound="tenant.max_queued",
            limit=limit,
            position=place.position,
            retry_after_s=retry_s,
        )

    async def queue(self, row: RunRow) -> Queue | None:
        """Tell where a run stands that has not begun, or for which run of its session it waits. None: it has begun."""
        if row.epoch or row.status not in ("queued", "runnable"):
            return None
        if row.status == "queued":
            session = await self._store.session(row.tenant, row.session)
            return Queue(None, 0, None, session.live) if session else None
        place = await self._store.sharing.place(row.tenant, row.run)
        if place is None:
            return None
        wait_s = round(place.position / place.rate, 1) if place.rate else None
        return Queue(position=place.position, ahead_of_you_in_your_tenant=place.ahead, estimated_wait_s=wait_s)


def retry_after_s(place: Place) -> int:
    """Tell when a place in the tenant's queue comes free, whole seconds: by the rate at which runs began of late."""
    if not place.rate:
        return _UNKNOWN_RETRY_S
    turn_s = place.position / (place.ahead + 1) / place.rate
    return min(max(math.ceil(turn_s), 1), _MAX_RETRY_S)
