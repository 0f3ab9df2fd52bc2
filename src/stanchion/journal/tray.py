"""The tray's port: model calls that wait to be handed in with a batch, and the batches that are under way.

An item is written in the append that holds its call's intent, so none is ever forgotten. It names the call and holds
nothing of it: the request is assembled from the journal when the batch is handed in. `take` moves items under a batch's
name before the provider hears of it; a batch belongs to whoever holds its lease. Times are spans by the store's clock: no other is asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import msgspec

Stage = Literal["handing_in", "running"]
"""The provider may or may not have heard of it; it has an id there."""


class TrayItem(msgspec.Struct, frozen=True):
    """A model call that goes into a batch. `lane` is the provider whose batch API it goes to."""

    tenant: str
    run: str
    seq: int
    """Of its `ModelCallStarted`."""
    lane: str

    @property
    def id(self) -> str:
        """What the provider is told: letters, digits, "_" and "-", unique for the call."""
        return f"{self.run}-{self.seq}"


class Batch(msgspec.Struct, frozen=True):
    """A batch under way. `name` is ours, `provider_id` is "" until it was handed in."""

    name: str
    lane: str
    stage: Stage
    provider_id: str
    items: int
    age_ms: int
    """Since it was made up."""


class Tray(Protocol):
    """Calls that wait for a batch. Every method may raise `JournalError`."""

    async def waiting(self) -> dict[str, tuple[int, int]]:
        """Count the items in no batch, by lane: how many, and for how long the oldest has waited (milliseconds)."""
        ...

    async def take(self, lane: str, name: str, *, most: int, worker: str, lease_ms: int) -> Sequence[TrayItem]:
        """Move up to `most` items, oldest first, under a new batch `name` in stage "handing_in", leased by `worker`."""
        ...

    async def handed_in(self, name: str, provider_id: str, *, look_in_ms: int) -> None:
        """The provider has it: stage "running"; free of its lease, to be looked at in so long."""
        ...

    async def put_back(self, name: str) -> None:
        """It was certainly not handed in: its items wait again, in their order, and the batch is gone."""
        ...

    async def due(self, *, worker: str, lease_ms: int, limit: int = 20) -> Sequence[Batch]:
        """Lease the batches that are to be looked at: those due, and those whose holder is gone."""
        ...

    async def items(self, name: str) -> Sequence[TrayItem]:
        """List a batch's items."""
        ...

    async def look_again(self, name: str, *, in_ms: int) -> None:
        """Give a batch's lease back; it is due again in so long."""
        ...

    async def drop(self, name: str) -> None:
        """Forget a batch and its items: all outcomes were posted."""
        ...

    async def batches(self) -> Sequence[Batch]:
        """List the batches under way, oldest first."""
        ...
