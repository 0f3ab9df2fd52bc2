"""Places under caps, as a group of writes takes them: locked and counted, where there are caps at all."""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import Any

from stanchion.journal.postgres.address import Connection
from stanchion.journal.postgres.schema import lock_number
from stanchion.journal.queries import named
from stanchion.journal.share import NoPlace, Running, Share, Shares

_SQL = named("postgres/share.sql")
KNOWN_S = 1.0
"""For how long shares are remembered; another process may change them."""
_Subject = tuple[str, str, str]
"""Tenant, agent and user of a run."""


class KnownShares:
    """The shares as they were read last."""

    def __init__(self) -> None:
        self._shares = Shares()
        self._read_s = 0.0

    async def read(self, connection: Connection) -> Shares:
        """Read them again if they are old."""
        if not self._read_s or time.monotonic() - self._read_s > KNOWN_S:
            began_s = time.monotonic()
            self._shares = Shares(share_of(row) for row in await connection.fetch(_SQL["shares"]))
            self._read_s = began_s
        return self._shares

    def forget(self) -> None:
        """Read them anew the next time."""
        self._read_s = 0.0


def share_of(row: Any) -> Share:
    """Make a share."""
    tenant, scope, weight, max_running, max_queued = row
    return Share(tenant=tenant, scope=scope, weight=weight, max_running=max_running, max_queued=max_queued)


class Places:
    """The places under caps that a group's claims and starts may take: locked and counted, where there are caps."""

    def __init__(self, known: KnownShares) -> None:
        self._known = known
        self._running: Running | None = None
        self._subjects: dict[tuple[str, str], _Subject] = {}

    async def load(
        self, connection: Connection, claims: Collection[tuple[str, str]], starts: Collection[_Subject]
    ) -> None:
        """Lock the caps that these fall under until the transaction ends, then count what runs under them."""
        if not (claims or starts):
            return
        shares = await self._known.read(connection)
        if not shares.capped:
            return
        if claims:
            rows = await connection.fetch(_SQL["caps_of"], *zip(*claims, strict=True))
            self._subjects = {(row[0], row[1]): (row[0], row[2], row[3]) for row in rows}
        caps = {cap.of for subject in {*starts, *self._subjects.values()} for cap in shares.caps(*subject)}
        if not caps:
            return
        await connection.execute(_SQL["lock_caps"], [lock_number("/".join(of)) for of in caps])
        counts = await connection.fetch(_SQL["count_caps"], *zip(*caps, strict=True))
        self._running = Running(shares, {(row[0], row[1], row[2]): row[3] for row in counts})

    def met(self, subject: _Subject) -> NoPlace | None:
        """Say which cap leaves no place to a start."""
        cap = self._running.met(*subject) if self._running else None
        return NoPlace(cap.scope, cap.limit) if cap else None

    def take(self, subject: _Subject) -> None:
        """Take a place for a start that meets no cap."""
        if self._running:
            self._running.take(*subject)

    def taken(self, tenant: str, run: str) -> bool:
        """Take a place for a claim. False: there is none."""
        subject = self._subjects.get((tenant, run))
        return self._running is None or subject is None or self._running.take(*subject)
