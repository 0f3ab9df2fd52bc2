"""Reading: rows through a pool, events in pages, each a statement of its own, so that no snapshot is held for long.

A read that loses its connection is done once more: reads change nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import asyncpg

from stanchion.core.chain import Outline
from stanchion.core.errors import BrokenChain, JournalError
from stanchion.core.event import Entry
from stanchion.journal.postgres.address import Address, Connection
from stanchion.journal.postgres.errors import LOST, translate
from stanchion.journal.postgres.write import SQL
from stanchion.journal.record import Cipher, content_ids, read_entry, read_envelope, read_outline
from stanchion.journal.sqlite.packing import unpack
from stanchion.journal.store import Key, RawRecord

_PAGE = 500
_OUTLINES = 2_000
"""Of them on a page without contents."""
DECODED_HERE = 64
"""Events, or facts, that are decoded in the event loop; more of them in a thread, so that many do not hold it up."""
T = TypeVar("T")


class Reader:
    """The reading connections."""

    def __init__(self, address: Address, pool: asyncpg.Pool, cipher: Cipher) -> None:
        self._where = address.name
        self._pool = pool
        self._cipher = cipher
        self._closed = False

    async def rows(self, name: str, *values: Any) -> list[Any]:
        """Run a named statement."""
        return await self.use(lambda connection: connection.fetch(SQL[name], *values))

    async def use(self, call: Callable[[Connection], Awaitable[T]], *, tries: int = 2) -> T:
        """Run `call` on a connection of the pool."""
        if self._closed:
            raise JournalError(f"the store {self._where} is closed", code="journal_closed")
        while True:
            tries -= 1
            try:
                async with self._pool.acquire() as connection:
                    return await call(connection)  # type: ignore[arg-type]  (the pool's proxy of one)
            except LOST as error:
                if tries <= 0:
                    raise translate(error, self._where) from error
                await self._pool.expire_connections()
            except asyncpg.PostgresError as error:
                raise translate(error, self._where) from error

    async def aclose(self) -> None:
        """Let the reads end and close."""
        self._closed = True
        try:
            async with asyncio.timeout(5.0):
                await self._pool.close()
        except (TimeoutError, *LOST):
            self._pool.terminate()

    async def raw(self, tenant: str, run: str, after: int, limit: int) -> list[RawRecord]:
        """Read records in order."""
        records: list[RawRecord] = []
        while True:
            page = min(_PAGE, limit - len(records)) if limit else _PAGE
            rows = await self.rows("events", tenant, run, after, page)
            records += await self._records(tenant, rows)
            if len(rows) < page or len(records) == limit:
                return records
            after = records[-1].seq

    async def entries(self, tenant: str, run: str, after: int, limit: int) -> list[Entry]:
        """Read events in order."""
        records = await self.raw(tenant, run, after, limit)
        if len(records) <= DECODED_HERE:
            return [read_entry(record) for record in records]
        return await asyncio.to_thread(lambda: [read_entry(record) for record in records])

    async def outlines(self, tenant: str, runs: Sequence[str]) -> dict[str, list[Outline]]:
        """Read events in order without their contents."""
        found: dict[str, list[Outline]] = {run: [] for run in runs}
        left, after = list(found), 0
        while left:
            rows = await self.rows("outlines", tenant, left, after, _OUTLINES)
            for run, outline in await asyncio.to_thread(_outlined, rows):
                found[run].append(outline)
            if len(rows) < _OUTLINES:
                break
            left, after = left[left.index(rows[-1][0]) :], rows[-1][1]
        return found

    async def _records(self, tenant: str, rows: Sequence[Any]) -> list[RawRecord]:
        stored = [(row[0], row[1], unpack(row[2])) for row in rows]
        ids = [_content_ids(envelope) for _, _, envelope in stored]
        wanted = {place for its in ids for place in its}
        contents = await self._contents(tenant, wanted) if wanted else {}
        return [
            RawRecord(seq, envelope, digest, tuple(contents.get(place) for place in its))
            for (seq, digest, envelope), its in zip(stored, ids, strict=True)
        ]

    async def _contents(self, tenant: str, wanted: set[tuple[str, bytes]]) -> dict[tuple[str, bytes], bytes]:
        ids, hashes = zip(*wanted, strict=True)
        rows = await self.rows("contents", tenant, ids, hashes)
        keys = {row[0]: Key(*row) for row in await self.rows("key_of_id", tenant, sorted(set(ids)))}
        return {(row[0], row[1]): self._cipher.open(keys[row[0]], row[2]) for row in rows if row[0] in keys}


def _outlined(rows: Sequence[Any]) -> list[tuple[str, Outline]]:
    return [(run, read_outline(seq, unpack(stored))) for run, seq, stored in rows]


def _content_ids(envelope: bytes) -> list[tuple[str, bytes]]:
    if b'"parts":' not in envelope:
        return []
    try:
        return content_ids(read_envelope(envelope))
    except (BrokenChain, ValueError):  # it was changed; the one who verifies says so, by its hash
        return []
