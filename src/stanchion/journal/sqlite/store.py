"""The embedded store behind the port: writes go to the writer's thread, reads to the reading connections."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from stanchion.core.chain import Outline
from stanchion.core.event import Entry
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
from stanchion.journal.sqlite.read import Reader, run_row, session_row
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
    Claimed,
    Heard,
    InboxItem,
    Key,
    Ledger,
    RawRecord,
    Refused,
    RunRow,
    SessionRow,
    Start,
    StartSaid,
)


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


class SqliteStore:
    """A `Store` in one SQLite file."""

    def __init__(self, writer: Writer, reader: Reader, seat: Seat, cipher: Cipher, clock: Callable[[], int]) -> None:
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

    async def inbox(self, tenant: str, run: str) -> Sequence[InboxItem]:
        return [InboxItem(*row) for row in await self._reader.rows("inbox", tenant, run)]

    async def raw(self, tenant: str, run: str, *, after: int = 0, limit: int = 0) -> Sequence[RawRecord]:
        return await self._reader.raw(tenant, run, after, limit)

    async def read(self, tenant: str, run: str, *, after: int = 0, limit: int = 0) -> Sequence[Entry]:
        return await self._reader.entries(tenant, run, after, limit)

    async def outlines(self, tenant: str, runs: Sequence[str]) -> Mapping[str, Sequence[Outline]]:
        return await self._reader.outlines(tenant, runs)

    async def tenants(self) -> Sequence[str]:
        return [row[0] for row in await self._reader.rows("tenants")]

    async def run(self, tenant: str, run: str) -> RunRow | None:
        rows = await self._reader.rows("run", tenant, run)
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
            return [run_row(row) for row in await self._reader.rows("runs_of_session", *values, session)]
        return [run_row(row) for row in await self._reader.rows("runs", *values)]

    async def parked(
        self,
        *,
        tenant: str = "",
        agent: str = "",
        reason: str = "",
        before: tuple[str, str] = ("", ""),
        limit: int = 50,
    ) -> Sequence[RunRow]:
        return [run_row(row) for row in await self._reader.rows("parked", tenant, agent, reason, *before, limit)]

    async def orphans(self, *, idle_ms: int, limit: int = 1_000) -> Sequence[RunRow]:
        return [run_row(row) for row in await self._reader.rows("orphans", idle_ms, limit, self._clock())]

    async def claims(self, tenant: str, run: str) -> Sequence[Claimed]:
        return [Claimed(*row) for row in await self._reader.rows("claims", tenant, run)]

    async def session(self, tenant: str, session: str) -> SessionRow | None:
        rows = await self._reader.rows("session", tenant, session)
        return session_row(rows[0]) if rows else None

    async def sessions(self, tenant: str, *, before: str = "", limit: int = 50) -> Sequence[SessionRow]:
        return [session_row(row) for row in await self._reader.rows("sessions", tenant, before, limit)]

    # --- the rest ----------------------------------------------------------------------------------------------------

    async def key_for(self, tenant: str, subject: str) -> Key:
        rows = await self._reader.rows("key_of_subject", tenant, subject)
        if rows:
            return Key(*rows[0])
        return await self._writer.write(lambda unit: unit.key_for(tenant, subject, self._sealed))

    async def keys(self, tenant: str) -> Sequence[Key]:
        return [Key(*row) for row in await self._reader.rows("keys", tenant)]

    async def destroy_key(self, tenant: str, subject: str) -> bool:
        return await self._writer.write(lambda unit: unit.destroy_key(tenant, subject))

    async def put_bundle(self, tenant: str, digest: str, body: bytes) -> None:
        await self._writer.write(lambda unit: unit.put_bundle(tenant, digest, body), 256 + len(body))

    async def bundle(self, tenant: str, digest: str) -> bytes | None:
        rows = await self._reader.rows("bundle", tenant, digest)
        return rows[0][0] if rows else None

    async def set_limit(self, tenant: str, ledger: str, limit: int) -> Ledger:
        return await self._writer.write(lambda unit: unit.set_limit(tenant, ledger, limit))

    async def ledgers(self, tenant: str) -> Sequence[Ledger]:
        rows = await self._reader.rows("ledgers", tenant)
        return [Ledger(tenant, row[0], row[1], row[2], row[3], bool(row[4])) for row in rows]

    async def add_api_key(self, key: ApiKey) -> None:
        await self._writer.write(lambda unit: unit.add_api_key(key))

    async def api_keys(self) -> Sequence[ApiKey]:
        rows = await self._reader.rows("api_keys")
        return [ApiKey(row[0], row[1], row[2], row[3], row[4], bool(row[5]), row[6]) for row in rows]

    async def revoke_api_key(self, id: str) -> bool:
        return await self._writer.write(lambda unit: unit.revoke_api_key(id))


def _packed(append: Append) -> Packed:
    for place, record in enumerate(append.records, start=append.expected_seq + 1):
        if record.seq != place:
            raise ValueError(f"records must follow event {append.expected_seq} without gaps, and one is {record.seq}")
    return Packed(append, tuple(pack(record.envelope) for record in append.records))


def _weight(packed: Packed) -> int:
    contents = sum(len(content.blob) for record in packed.append.records for content in record.contents)
    return 512 + contents + sum(map(len, packed.envelopes))
