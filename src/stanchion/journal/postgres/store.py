"""The scale-out store behind the port: writes go to the lanes, reads to the pool, news over the line.

A store belongs to the event loop that opened it.
"""

from __future__ import annotations

import secrets
import zlib
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any

import asyncpg

from stanchion.core.errors import Conflict
from stanchion.journal.head import check_gapless
from stanchion.journal.ledger import owner_of
from stanchion.journal.postgres import money
from stanchion.journal.postgres.address import (
    COMMAND_TIMEOUT_S,
    CONNECT_TIMEOUT_S,
    Address,
    Connection,
    connect,
    first_connection,
    harden,
    parse,
    server_settings,
)
from stanchion.journal.postgres.alerts import PostgresAlerts
from stanchion.journal.postgres.connections import PostgresConnections
from stanchion.journal.postgres.errors import LOST, refused
from stanchion.journal.postgres.lane import Lane
from stanchion.journal.postgres.line import Line
from stanchion.journal.postgres.memory import PostgresMemories
from stanchion.journal.postgres.moving import PostgresMoving
from stanchion.journal.postgres.outbox import PostgresOutbox
from stanchion.journal.postgres.places import KnownShares
from stanchion.journal.postgres.quota import PostgresQuotas
from stanchion.journal.postgres.read import Reader
from stanchion.journal.postgres.schedules import PostgresSchedules
from stanchion.journal.postgres.schema import lock_number, prepare
from stanchion.journal.postgres.share import PostgresSharing
from stanchion.journal.postgres.tray import PostgresTray
from stanchion.journal.postgres.write import (
    SQL,
    Write,
    WriteAppend,
    WriteClaim,
    WritePost,
    WriteStart,
)
from stanchion.journal.reading import Readings, run_row
from stanchion.journal.record import Cipher, Identity
from stanchion.journal.relay import Overheard, Wire
from stanchion.journal.share import NOBODY, Ahead, Ready
from stanchion.journal.sqlite.packing import pack
from stanchion.journal.store import (
    ApiKey,
    Append,
    Claim,
    Heard,
    Key,
    Ledger,
    Refused,
    RunRow,
    Start,
    StartSaid,
)

LANES = 1
"""Of writers. One is never the limit before the process's CPU is, and its groups are larger: design/postgres.md."""
READERS = 4
_LANE_SETTINGS = {
    # A group's statements find rows by their keys. A plan made while a table was small must not outlive that.
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
}


class PostgresStore(Readings):
    """A `Store` in a PostgreSQL database, for many processes."""

    def __init__(
        self, address: Address, reader: Reader, lanes: Sequence[Lane], line: Line, cipher: Cipher, shares: KnownShares
    ) -> None:
        super().__init__(reader)
        self.sharing = PostgresSharing(reader, shares)
        self._address = address
        self._reader = reader
        self.quotas = PostgresQuotas(reader)
        self.tray = PostgresTray(reader)
        self._lanes = lanes
        self._line = line
        self._sealed = not isinstance(cipher, Identity)
        self.moving = PostgresMoving(reader, cipher, sealed=self._sealed)
        self.schedules = PostgresSchedules(reader)
        self.memories = PostgresMemories(reader, cipher, sealed=self._sealed)
        self.connections = PostgresConnections(reader)
        self.outbox = PostgresOutbox(reader)
        self.alerts = PostgresAlerts(reader, self.outbox.ring)

    @classmethod
    async def open(
        cls,
        dsn: str,
        *,
        cipher: Cipher = Identity(),  # noqa: B008  (it has no state)
        schema: str = "",
        lanes: int = LANES,
        readers: int = READERS,
    ) -> PostgresStore:
        """Open a store and bring its schema to this version. Uses `lanes` + `readers` + 1 connections at most.

        The schema is the one named here, in the URL (`?schema=`) or "stanchion". Raises `ConfigError`, `JournalError`.
        """
        address = parse(dsn, schema)
        connection = await first_connection(address)
        try:
            await prepare(connection, address)
        finally:
            await connection.close()
        try:
            pool = await _pool(address, readers)
            line = Line(
                f"stanchion {address.schema}", lambda: connect(address, role="line", settings=_LAZY, durable=False)
            )
            await line.open()
        except (*LOST, asyncpg.PostgresError) as error:
            raise refused(error, address.name) from error
        shares = KnownShares()
        made = [Lane(address.name, _connector(address), line.tell, shares) for _ in range(lanes)]
        store = cls(address, Reader(address, pool, cipher), made, line, cipher, shares)
        for row in await store._reader.rows("erasing"):
            await store._erase(row[0])
        return store

    async def aclose(self) -> None:
        for lane in self._lanes:
            await lane.aclose()
        await self._line.aclose()
        await self._reader.aclose()

    async def now_ms(self) -> int:
        return (await self._reader.rows("now"))[0][0]

    def clock_ms(self) -> int:
        """Tell the database's time without asking it: as read within the last ten seconds."""
        return self._line.clock.now_ms()

    async def changed_elsewhere(self) -> bool:
        changed, self._line.changed = self._line.changed, False
        return changed

    def listen(self, heard: Heard) -> bool:
        self._line.listen(heard)
        return True

    def relay(self, overheard: Overheard) -> Wire:
        self._line.overhear(overheard)
        return self._line

    async def seize(self, worker: str) -> bool:
        return True

    # --- runs --------------------------------------------------------------------------------------------------------

    async def start(self, start: Start) -> StartSaid:
        if start.first.epoch != int(bool(start.worker and not start.queued)):
            raise ValueError("a run's first append is of epoch 1 where the start names a worker, and else of epoch 0")
        write = WriteStart(start, _packed(start.first))
        said = await self._write(start.tenant, start.run, write, _weight(start.first) + len(start.request))
        if start.first.announce:
            self.outbox.ring()
        return said

    async def append(self, append: Append) -> Refused | None:
        refused = await self._write(append.tenant, append.run, WriteAppend(append, _packed(append)), _weight(append))
        if append.announce:
            self.outbox.ring()
        return refused

    async def claim(self, tenant: str, run: str, *, worker: str, lease_ms: int) -> Claim | None:
        return await self._write(tenant, run, WriteClaim(tenant, run, worker, lease_ms), 256)

    async def renew(self, tenant: str, run: str, *, epoch: int, lease_ms: int) -> bool:
        return bool(await self.renew_all([(tenant, run, epoch)], lease_ms=lease_ms))

    async def renew_all(self, held: Sequence[tuple[str, str, int]], *, lease_ms: int) -> set[tuple[str, str]]:
        if not held:
            return set()
        tenants, runs, epochs = zip(*held, strict=True)
        rows = await self._reader.rows("renew_all", tenants, runs, epochs, lease_ms)
        return {(row[0], row[1]) for row in rows}

    async def post(self, tenant: str, run: str, kind: str, body: bytes, *, key: str = "", digest: str = "") -> int:
        return await self._write(tenant, run, WritePost(tenant, run, kind, body, key, digest), 256 + len(body))

    async def _write(self, tenant: str, run: str, write: Write, weight: int) -> Any:
        lane = self._lanes[zlib.crc32(f"{tenant}/{run}".encode()) % len(self._lanes)]
        return await lane.write(write, weight)

    async def runnable(
        self, *, limit: int, batch: int = -1, agents: Collection[str] | None = None, ahead: Ahead = NOBODY
    ) -> Sequence[Ready]:
        now_ms = await self.now_ms()
        return await self.sharing.runnable(now_ms, limit=limit, batch=batch, agents=agents, ahead=ahead)

    async def next_wake_ms(self) -> int:
        return await self.sharing.next_wake_ms()

    async def orphans(self, *, idle_ms: int, limit: int = 1_000) -> Sequence[RunRow]:
        return [run_row(row) for row in await self._reader.rows("orphans", idle_ms, limit)]

    # --- the rest ----------------------------------------------------------------------------------------------------

    async def key_for(self, tenant: str, subject: str) -> Key:
        while True:
            rows = await self._reader.rows("key_of_subject", tenant, subject)
            if rows:
                return Key(*rows[0])
            secret = secrets.token_bytes(32) if self._sealed else b""
            made = (secrets.token_urlsafe(9), secrets.token_bytes(32), secret)
            await self._reader.rows("insert_key", tenant, subject, *made)

    async def destroy_key(self, tenant: str, subject: str) -> bool:
        ids = [row[0] for row in await self._reader.rows("ids_of_subject", tenant, subject)]
        return any([await self._destroy_key(tenant, subject, key) for key in ids])  # (all of them, not up to the first)

    async def _destroy_key(self, tenant: str, subject: str, key: str) -> bool:
        async def destroy(connection: Connection) -> Any:
            async with connection.transaction():
                await connection.execute(SQL["lock_key"], lock_number(f"{tenant}/{key}"))
                return await connection.fetchval(SQL["destroy_key"], tenant, subject, key)

        no = await self._reader.use(destroy, tries=1)
        if no is not None:
            await self._erase(no)
        return no is not None

    async def _erase(self, no: int) -> None:
        """Delete the contents of a destroyed key, in pieces: nobody else waits for it."""
        while True:
            said = await self._reader.use(lambda connection: connection.execute(SQL["erase_contents"], no))
            if said == "DELETE 0":
                await self._reader.rows("erased", no)
                return

    async def put_bundle(self, tenant: str, digest: str, body: bytes) -> None:
        await self._reader.rows("insert_bundle", tenant, digest, body)

    async def set_limit(self, tenant: str, ledger: str, limit: int) -> Ledger:
        tenant = owner_of(tenant, ledger)

        async def change(connection: Connection) -> Any:
            async with connection.transaction():
                return await money.set_limit(connection, tenant, ledger, limit)

        return await self._reader.use(change)

    async def ledgers(self, tenant: str) -> Sequence[Ledger]:
        return await self._reader.use(lambda connection: money.ledgers(connection, tenant))

    async def add_api_key(self, key: ApiKey) -> None:
        values = (key.id, key.tenant, key.hash, key.name, key.created_ms, key.revoked, key.may_approve)
        if not await self._reader.use(lambda connection: connection.fetch(SQL["insert_api_key"], *values), tries=1):
            raise Conflict(f"there is an API key {key.id!r} already")

    async def revoke_api_key(self, id: str) -> bool:
        return bool(await self._reader.rows("revoke_api_key", id))


_LAZY = {"synchronous_commit": "off"}
"""A ring that is lost in a crash of the database is no loss: all connections are lost with it."""


def _connector(address: Address) -> Callable[[], Awaitable[Connection]]:
    return lambda: connect(address, role="writer", settings=_LANE_SETTINGS)


async def _pool(address: Address, size: int) -> asyncpg.Pool:
    return await asyncpg.create_pool(
        address.dsn,
        min_size=1,
        max_size=size,
        timeout=CONNECT_TIMEOUT_S,
        command_timeout=COMMAND_TIMEOUT_S,
        # As in a lane: what is read has an index, and a plan made by old statistics must not go past it.
        server_settings=server_settings(address, "reader") | {"enable_seqscan": "off"},
        init=harden,
        reset=_as_it_is,
    )


async def _as_it_is(connection: Connection) -> None:
    """Reset nothing: readers leave nothing in a session, and each reset would be a round trip more than the read."""


def _packed(append: Append) -> tuple[bytes, ...]:
    check_gapless(append)
    return tuple(pack(record.envelope) for record in append.records)


def _weight(append: Append) -> int:
    return 512 + sum(
        len(record.envelope) + sum(len(content.blob) for content in record.contents) for record in append.records
    )
