"""Shares as they lie in the file, and places under caps as the writer's claims and starts take them."""

from __future__ import annotations

from typing import Any

from stanchion.journal.queries import named
from stanchion.journal.share import NoPlace, Share, Shares
from stanchion.journal.sqlite.connection import Connection

SQL = named("sqlite/share.sql")


def read_shares(connection: Connection) -> Shares:
    """Read the shares."""
    return Shares(map(share_of, connection.execute(SQL["shares"])))


def share_of(row: Any) -> Share:
    """Make a share."""
    tenant, scope, weight, max_running, max_queued = row
    return Share(tenant=tenant, scope=scope, weight=weight, max_running=max_running, max_queued=max_queued)


class Places:
    """Places under caps, as the writer's claims and starts take them."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._shares: Shares | None = None

    def forget(self) -> None:
        """Read the shares anew."""
        self._shares = None

    @property
    def shares(self) -> Shares:
        """The shares as they stand."""
        if self._shares is None:
            self._shares = read_shares(self._connection)
        return self._shares

    def met(self, tenant: str, agent: str, user: str) -> NoPlace | None:
        """Say which cap leaves no place. What was changed in memory must have been written."""
        for cap in self.shares.caps(tenant, agent, user):
            name, values = ("count_cap", cap.of) if cap.of[0] else ("count_agent", cap.of[1:2])
            row: Any = self._connection.execute(SQL[name], values).fetchone()
            if row[0] >= cap.limit:
                return NoPlace(cap.scope, cap.limit)
        return None

    def met_by_run(self, no: int, tenant: str) -> NoPlace | None:
        """Say which cap leaves no place to a run that is there."""
        row: Any = self._connection.execute(SQL["subject"], (no,)).fetchone()
        return self.met(tenant, row[0], row[1])

    def set(self, share: Share) -> None:
        """Set a share."""
        if share.says_nothing:
            self._connection.execute(SQL["drop_share"], (share.tenant, share.scope))
        else:
            values = (share.tenant, share.scope, share.weight, share.max_running, share.max_queued)
            self._connection.execute(SQL["set_share"], values)
        self.forget()
