"""Reading: a few connections of their own, which never keep the writer waiting.

Events are read in pages, each a statement of its own: no snapshot is held for long, so the WAL can be cut.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

import apsw

from stanchion.core.chain import Outline
from stanchion.core.errors import BrokenChain, JournalError
from stanchion.core.event import Entry
from stanchion.journal.queries import named
from stanchion.journal.record import Cipher, content_ids, read_entry, read_envelope, read_outline
from stanchion.journal.sqlite.connection import Connection, Value
from stanchion.journal.sqlite.errors import translate
from stanchion.journal.sqlite.packing import unpack
from stanchion.journal.store import Key, RawRecord

_SQL = named("sqlite/journal.sql")
_PAGE = 500
READERS = 2
_POINTS = frozenset({"session", "key_of_subject", "run", "bundle"})
"""Single rows by their primary key, read on the loop: 20 us, where a thread would cost it 300. No writer blocks them."""
T = TypeVar("T")


class Reader:
    """The reading connections, and the threads that use them."""

    def __init__(self, path: str, connect: Callable[[], Connection], cipher: Cipher) -> None:
        self._path = path
        self._connect = connect
        self._cipher = cipher
        self._idle: SimpleQueue[Connection] = SimpleQueue()
        self._threads = ThreadPoolExecutor(READERS, "stanchion-reader")
        self._closed = False

    async def rows(self, name: str, *values: Value) -> list[Any]:
        """Run a named statement."""
        if name in _POINTS and not self._closed:
            return self._use(lambda connection: connection.execute(_SQL[name], values).fetchall())
        return await self.use(lambda connection: connection.execute(_SQL[name], values).fetchall())

    async def use(self, call: Callable[[Connection], T]) -> T:
        """Run `call` on a reading connection."""
        if self._closed:
            raise JournalError(f"the store {self._path} is closed", code="journal_closed")
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._use, call)

    async def aclose(self) -> None:
        """Let the reads end and close."""
        self._closed = True
        await asyncio.to_thread(self._threads.shutdown)
        while not self._idle.empty():
            self._idle.get().close()

    async def raw(self, tenant: str, run: str, after: int, limit: int) -> list[RawRecord]:
        """Read records in order."""
        return await self.use(lambda connection: self._raw(connection, tenant, run, after, limit))

    async def entries(self, tenant: str, run: str, after: int, limit: int) -> list[Entry]:
        """Read events in order. They are decoded in the reading thread: a long run would hold up the loop."""
        return await self.use(
            lambda connection: [read_entry(record) for record in self._raw(connection, tenant, run, after, limit)]
        )

    async def outlines(self, tenant: str, runs: Sequence[str]) -> dict[str, list[Outline]]:
        """Read events in order without their contents, decoded in the reading thread."""
        return await self.use(lambda connection: {run: _outlines(connection, tenant, run) for run in runs})

    def _use(self, call: Callable[[Connection], T]) -> T:
        connection = None
        try:
            connection = self._take()
            result = call(connection)
        except apsw.Error as error:
            if connection is not None:
                connection.close(True)
            raise translate(error, self._path) from error
        except BaseException:
            if connection is not None:
                self._idle.put(connection)
            raise
        self._idle.put(connection)
        return result

    def _take(self) -> Connection:
        try:
            return self._idle.get_nowait()
        except Empty:
            return self._connect()

    def _raw(self, connection: Connection, tenant: str, run: str, after: int, limit: int) -> list[RawRecord]:
        row: Any = connection.execute(_SQL["run_no"], (tenant, run)).fetchone()
        records: list[RawRecord] = []
        if row is None:
            return records
        keys: dict[str, tuple[int, Key] | None] = {}
        while True:
            page = min(_PAGE, limit - len(records)) if limit else _PAGE
            rows: list[Any] = connection.execute(_SQL["events"], (row[0], after, page)).fetchall()
            for seq, digest, stored in rows:
                envelope = unpack(stored)
                contents = self._contents(connection, tenant, envelope, keys)
                records.append(RawRecord(seq, envelope, digest, contents))
                after = seq
            if len(rows) < page or len(records) == limit:
                return records

    def _contents(
        self, connection: Connection, tenant: str, envelope: bytes, keys: dict[str, tuple[int, Key] | None]
    ) -> tuple[bytes | None, ...]:
        if b'"parts":' not in envelope:
            return ()
        contents: list[bytes | None] = []
        try:
            ids = content_ids(read_envelope(envelope))
        except (BrokenChain, ValueError):  # it was changed; the one who verifies says so, by its hash
            return ()
        for key_id, commit in ids:
            if key_id not in keys:
                keys[key_id] = _key(connection, tenant, key_id)
            key = keys[key_id]
            row: Any = key and connection.execute(_SQL["content"], (key[0], commit)).fetchone()
            contents.append(self._cipher.open(key[1], row[0]) if key and row else None)
        return tuple(contents)


def _outlines(connection: Connection, tenant: str, run: str) -> list[Outline]:
    row: Any = connection.execute(_SQL["run_no"], (tenant, run)).fetchone()
    found: list[Outline] = []
    while row is not None:
        after = found[-1].seq if found else 0
        rows: list[Any] = connection.execute(_SQL["events"], (row[0], after, _PAGE)).fetchall()
        found += [read_outline(seq, unpack(stored)) for seq, _, stored in rows]
        if len(rows) < _PAGE:
            break
    return found


def _key(connection: Connection, tenant: str, id: str) -> tuple[int, Key] | None:
    row: Any = connection.execute(_SQL["key"], (tenant, id)).fetchone()
    return row and (row[0], Key(id, row[1], row[2]))
