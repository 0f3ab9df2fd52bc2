"""The embedded store behind the port: writes go to the writer's thread, reads to the reading connections."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from stanchion.journal.head import check_gapless
from stanchion.journal.reading import Readings, run_row
from stanchion.journal.record import Cipher, Identity
from stanchion.journal.relay import Overheard
from stanchion.journal.share import NOBODY, Ahead, Ready
from stanchion.journal.sqlite.alerts import SqliteAlerts
from stanchion.journal.sqlite.connections import SqliteConnections
from stanchion.journal.sqlite.memory import SqliteMemories
from stanchion.journal.sqlite.moving import SqliteMoving
from stanchion.journal.sqlite.outbox import SqliteOutbox
from stanchion.journal.sqlite.packing import pack
from stanchion.journal.sqlite.quota import SqliteQuotas
from stanchion.journal.sqlite.read import Reader
from stanchion.journal.sqlite.schedules import SqliteSchedules
from stanchion.journal.sqlite.schema import connect_reader, connect_writer, prepare
from stanchion.journal.sqlite.seat import Seat
from stanchion.journal.sqlite.share import SqliteSharing
from stanchion.journal.sqlite.tray import SqliteTray
from stanchion.journal.sqlite.unit import Packed
from stanchion.journal.sqlite.writer import Writer
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


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


class SqliteStore(Readings):
    """A `Store` in one SQLite file."""

    def __init__(self, writer: Writer, reader: Reader, seat: Seat, cipher: Cipher, clock: Callable[[], int]) -> None:
        super().__init__(reader)
        self.sharing = SqliteSharing(writer, reader, clock)
        self._writer = writer
        self._seat = seat
        self._reader = reader
        self._sealed = not isinstance(cipher, Identity)
        self._clock = clock
        self.quotas = SqliteQuotas(writer, reader, clock)
        self.tray = SqliteTray(writer, reader, clock)
        self.moving = SqliteMoving(writer, reader, cipher, sealed=self._sealed)
        self.schedules = SqliteSchedules(writer, reader, clock)
        self.memories = SqliteMemories(writer, reader, cipher, clock, sealed=self._sealed)
        self.connections = SqliteConnections(writer, reader)
        self.outbox = SqliteOutbox(writer, reader, clock)
        self.alerts = SqliteAlerts(writer, reader, self.outbox.ring)

    @classmethod
    async def open(
        cls,
        path: str | Path,
        *,
        cipher: Cipher = Identity(),  # noqa: B008  (it has no state)
        clock: Callable[[], int] = _wall_ms,
        vfs: str | None = None,
    ) -> SqliteStore:
        """Open a store, and make it where there is none. Raises `ConfigError`, `JournalError`."""
        return await asyncio.to_thread(cls._open, Path(path), cipher, clock, vfs)

    @classmethod
    def _open(cls, path: Path, cipher: Cipher, clock: Callable[[], int], vfs: str | None) -> SqliteStore:
        file = path.expanduser().absolute()
        prepare(file)
        connection = connect_writer(file, vfs=vfs)
        writer = Writer(str(file), lambda: connect_writer(file, vfs=vfs), clock, connection)
        reader = Reader(str(file), lambda: connect_reader(file, vfs=vfs), cipher)
        return cls(writer, reader, Seat(file.with_name(file.name + "-driver")), cipher, clock)

    async def aclose(self) -> None:
        await self._reader.aclose()
        await self._writer.aclose()
        self._seat.leave()

    async def now_ms(self) -> int:
        return self._clock()

    async def changed_elsewhere(self) -> bool:
        return await self._writer.changed_elsewhere()

    def listen(self, heard: Heard) -> bool:
        return False

    def relay(self, overheard: Overheard) -> None:
        return None

    async def seize(self, worker: str) -> bool:
        if not await asyncio.to_thread(self._seat.take):
            return False
        await self._writer.write(lambda unit: unit.void_leases(worker))
        return True

    # --- runs --------------------------------------------------------------------------------------------------------

    async def start(self, start: Start) -> StartSaid:
        if start.first.epoch != int(bool(start.worker and not start.queued)):
            raise ValueError("a run's first append is of epoch 1 where the start names a worker, and else of epoch 0")
        packed = _packed(start.first)
        weight = _weight(packed) + len(start.request)
        said = await self._writer.write(lambda unit: unit.start(start, packed.envelopes), weight)
        if start.first.announce:
            self.outbox.ring()
        return said

    async def append(self, append: Append) -> Refused | None:
        packed = _packed(append)
        refused = await self._writer.write(lambda unit: unit.append(packed), _weight(packed))
        if append.announce:
            self.outbox.ring()
        return refused

    async def claim(self, tenant: str, run: str, *, worker: str, lease_ms: int) -> Claim | None:
        return await self._writer.write(lambda unit: unit.claim(tenant, run, worker, lease_ms))

    async def renew(self, tenant: str, run: str, *, epoch: int, lease_ms: int) -> bool:
        return await self._writer.write(lambda unit: unit.renew(tenant, run, epoch, lease_ms))

    async def renew_all(self, held: Sequence[tuple[str, str, int]], *, lease_ms: int) -> set[tuple[str, str]]:
        if not held:
            return set()
        return await self._writer.write(
            lambda unit: {(tenant, run) for tenant, run, epoch in held if unit.renew(tenant, run, epoch, lease_ms)},
            64 * len(held),
        )

    async def post(self, tenant: str, run: str, kind: str, body: bytes, *, key: str = "", digest: str = "") -> int:
        return await self._writer.write(lambda unit: unit.post(tenant, run, kind, body, key, digest), 256 + len(body))

    async def runnable(
        self, *, limit: int, batch: int = -1, agents: Collection[str] | None = None, ahead: Ahead = NOBODY
    ) -> Sequence[Ready]:
        return await self.sharing.runnable(limit=limit, batch=batch, agents=agents, ahead=ahead)

    async def next_wake_ms(self) -> int:
        return await self.sharing.next_wake_ms()

    async def orphans(self, *, idle_ms: int, limit: int = 1_000) -> Sequence[RunRow]:
        return [run_row(row) for row in await self._reader.rows("orphans", idle_ms, limit, self._clock())]

    # --- the rest ----------------------------------------------------------------------------------------------------

    async def key_for(self, tenant: str, subject: str) -> Key:
        rows = await self._reader.rows("key_of_subject", tenant, subject)
        if rows:
            return Key(*rows[0])
        return await self._writer.write(lambda unit: unit.key_for(tenant, subject, self._sealed))

    async def destroy_key(self, tenant: str, subject: str) -> bool:
        return await self._writer.write(lambda unit: unit.destroy_key(tenant, subject))

    async def put_bundle(self, tenant: str, digest: str, body: bytes) -> None:
        await self._writer.write(lambda unit: unit.put_bundle(tenant, digest, body), 256 + len(body))

    async def set_limit(self, tenant: str, ledger: str, limit: int) -> Ledger:
        return await self._writer.write(lambda unit: unit.set_limit(tenant, ledger, limit))

    async def ledgers(self, tenant: str) -> Sequence[Ledger]:
        rows = await self._reader.rows("ledgers", tenant)
        return [Ledger(tenant, row[0], row[1], row[2], row[3], bool(row[4])) for row in rows]

    async def add_api_key(self, key: ApiKey) -> None:
        await self._writer.write(lambda unit: unit.add_api_key(key))

    async def revoke_api_key(self, id: str) -> bool:
        return await self._writer.write(lambda unit: unit.revoke_api_key(id))


def _packed(append: Append) -> Packed:
    check_gapless(append)
    return Packed(append, tuple(pack(record.envelope) for record in append.records))


def _weight(packed: Packed) -> int:
    contents = sum(len(content.blob) for record in packed.append.records for content in record.contents)
    return 512 + contents + sum(map(len, packed.envelopes))
