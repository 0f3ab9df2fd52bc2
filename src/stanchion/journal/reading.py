"""The reading half of a store on a database: named statements, which each database words in its own SQL, and the rows that they give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec

from stanchion.core.chain import Outline
from stanchion.core.event import Base, Entry
from stanchion.journal.store import ApiKey, Claimed, InboxItem, Key, RawRecord, RunRow, SessionRow


class Reader(Protocol):
    """What reads a database."""

    async def rows(self, name: str, *values: Any) -> list[Any]:
        """Run a named statement."""
        ...

    async def raw(self, tenant: str, run: str, after: int, limit: int) -> list[RawRecord]:
        """Read records in order; 0: all that there are behind `after`."""
        ...

    async def entries(self, tenant: str, run: str, after: int, limit: int) -> list[Entry]:
        """Read events in order."""
        ...

    async def outlines(self, tenant: str, runs: Sequence[str]) -> dict[str, list[Outline]]:
        """Read events in order without their contents."""
        ...


class Readings:
    """What of a `Store` only reads, where databases do not differ."""

    def __init__(self, reader: Reader) -> None:
        self._read = reader

    async def inbox(self, tenant: str, run: str) -> Sequence[InboxItem]:
        return [InboxItem(*row) for row in await self._read.rows("inbox", tenant, run)]

    async def raw(self, tenant: str, run: str, *, after: int = 0, limit: int = 0) -> Sequence[RawRecord]:
        return await self._read.raw(tenant, run, after, limit)

    async def read(self, tenant: str, run: str, *, after: int = 0, limit: int = 0) -> Sequence[Entry]:
        return await self._read.entries(tenant, run, after, limit)

    async def outlines(self, tenant: str, runs: Sequence[str]) -> Mapping[str, Sequence[Outline]]:
        return await self._read.outlines(tenant, runs)

    async def tenants(self) -> Sequence[str]:
        return [row[0] for row in await self._read.rows("tenants")]

    async def run(self, tenant: str, run: str) -> RunRow | None:
        rows = await self._read.rows("run", tenant, run)
        return run_row(rows[0]) if rows else None

    async def runs(
        self,
        tenant: str,
        *,
        session: str = "",
        agent: str = "",
        user: str = "",
        status: str = "",
        outcome: str = "",
        before: str = "",
        limit: int = 50,
    ) -> Sequence[RunRow]:
        values = (tenant, before, agent, user, status, limit, outcome)
        if session:
            return [run_row(row) for row in await self._read.rows("runs_of_session", *values, session)]
        return [run_row(row) for row in await self._read.rows("runs", *values)]

    async def parked(
        self,
        *,
        tenant: str = "",
        agent: str = "",
        reason: str = "",
        before: tuple[str, str] = ("", ""),
        limit: int = 50,
    ) -> Sequence[RunRow]:
        return [run_row(row) for row in await self._read.rows("parked", tenant, agent, reason, *before, limit)]

    async def claims(self, tenant: str, run: str) -> Sequence[Claimed]:
        return [Claimed(*row) for row in await self._read.rows("claims", tenant, run)]

    async def session(self, tenant: str, session: str) -> SessionRow | None:
        rows = await self._read.rows("session", tenant, session)
        return session_row(rows[0]) if rows else None

    async def sessions(self, tenant: str, *, before: str = "", limit: int = 50) -> Sequence[SessionRow]:
        return [session_row(row) for row in await self._read.rows("sessions", tenant, before, limit)]

    async def keys(self, tenant: str) -> Sequence[Key]:
        return [Key(*row) for row in await self._read.rows("keys", tenant)]

    async def bundle(self, tenant: str, digest: str) -> bytes | None:
        rows = await self._read.rows("bundle", tenant, digest)
        return rows[0][0] if rows else None

    async def api_keys(self) -> Sequence[ApiKey]:
        found = [ApiKey(*row) for row in await self._read.rows("api_keys")]
        return [msgspec.structs.replace(key, revoked=bool(key.revoked)) for key in found]  # (SQLite has no booleans)


def run_row(row: Any) -> RunRow:
    """Make a run's row."""
    return RunRow(*row)


def session_row(row: Any) -> SessionRow:
    """Make a session's row."""
    tenant, session, agent, user, run, seq, digest, *rest = row
    return SessionRow(tenant, session, agent, user, Base(run, seq, digest) if run else None, *rest)
