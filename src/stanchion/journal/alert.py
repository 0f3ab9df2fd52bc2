"""The port of alerts: what of money was told to others, once. Part of the store's (`Store.alerts`).

Whoever sees that a line was crossed tells it; the note that it was told and the deliveries of who wants to hear of it are one transaction. So each
is told once, however many processes look, and whichever of them dies. On a store with many writers no single transaction
sees a budget cross a line, because its ledger lies in shards (design/postgres.md): that is why somebody looks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import msgspec

from stanchion.journal.outbox import Announcement, delivery_id

if TYPE_CHECKING:
    from stanchion.journal.store import Ledger


class Alert(msgspec.Struct, frozen=True):
    """Something that was told. Tenant, subject, line and bound name it."""

    tenant: str
    subject: str
    """A ledger with its window ("user:ann/day:2026-11-20"), or what is spent on ("agent:support 2026-11-20T10")."""
    line: str
    """Per cent of the limit ("50"), or "spike"."""
    bound: int
    """The limit that the line is of (nano-dollars): under another limit it is another line. 0: there is none."""
    told_ms: int = 0

    def delivery(self, endpoint: str, kind: str) -> str:
        """Name its delivery to an endpoint."""
        return delivery_id(self.tenant, endpoint, f"{self.subject} {self.line} {self.bound}", 0, kind)


class Alerts(Protocol):
    """Where it is kept what was told. Every method may raise `JournalError`."""

    async def used(self, windows: Sequence[str]) -> Sequence[Ledger]:
        """List the ledgers of all tenants that have a limit above 0 and have settled half of it, or are closed.

        Of those with windows only these ("2026-11-20", "2026-11").
        """
        ...

    async def tell(self, alert: Alert, said: Announcement) -> bool:
        """Note that something is told, and add a delivery for each endpoint of its tenant that wants to hear of it.

        False: it was told before, and nothing is written.
        """
        ...

    async def told(self, tenant: str) -> Sequence[Alert]:
        """List what was told of a tenant's money, the newest first; at most 1,000."""
        ...
