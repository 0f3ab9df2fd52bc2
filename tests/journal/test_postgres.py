"""What is particular to the scale-out store: its schema, many processes, lost connections, erasure, news of each other."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import asyncpg
import pytest

from stanchion.core.errors import CommitUnknown, ConfigError, InputError, JournalError, StaleAppend, StoreFull
from stanchion.journal.postgres import PostgresStore, lane
from stanchion.journal.postgres.address import connect, parse
from stanchion.journal.postgres.errors import translate
from stanchion.journal.postgres.line import Line
from stanchion.journal.record import verify
from stanchion.journal.store import Change, Reserve, Settle, Started
from stanchion.testing.postgres import PostgresServer
from stanchion.testing.store_driver import TENANT, Driver, said, words
from tests.journal.proxy import Cut, Proxy


@asynccontextmanager
async def opened(*dsns: str) -> AsyncIterator[list[PostgresStore]]:
    """Open stores, and close them."""
    stores = [await PostgresStore.open(dsn) for dsn in dsns]
    try:
        yield stores
    finally:
        for store in stores:
            await store.aclose()


@asynccontextmanager
async def directly(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    """Connect past the store, in its schema."""
    address = parse(dsn)
    connection = await asyncpg.connect(address.dsn, server_settings={"search_path": address.schema})
    try:
        yield connection
    finally:
        await connection.close()


async def cut(dsn: str, role: str) -> int:
    """Have the server end all connections of a role."""
    async with directly(dsn) as connection:
        ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1"
        return len(await connection.fetch(ended, f"stanchion {role}"))


def twin(driver: Driver, store: PostgresStore) -> Driver:
    """Make another worker's driver of the same run, which knows as much."""
    other = Driver(store, driver.recorder, driver.tenant, driver.run, driver.session)
    other.epoch = driver.epoch
    return other


# --- the schema -----------------------------------------------------------------------------------------------------------


async def test_opened_by_many_at_once(dsn: str) -> None:
    """A new schema is made once, whoever comes first."""
    stores = await asyncio.gather(*(PostgresStore.open(dsn) for _ in range(6)))
    for number, store in enumerate(stores):
        await Driver.driving(store, f"r{number}")
    assert len(await stores[0].runs(TENANT)) == 6
    for store in stores:
        await store.aclose()


async def test_a_newer_schema_is_left_alone(dsn: str) -> None:
    """A schema of a newer version is refused with both versions and what to do."""
    async with opened(dsn):
        pass
    async with directly(dsn) as connection:
        await connection.execute("UPDATE meta SET value = 99")
        with pytest.raises(ConfigError, match=r"schema 99 .* from schema 99 on can use; this one knows \d+: upgrade"):
            await PostgresStore.open(dsn)
        assert await connection.fetchval("SELECT value FROM meta") == 99


async def test_a_newer_schema_that_only_adds_is_used(dsn: str) -> None:
    """A newer program's schema that says that this version may still use it is used, and keeps its version."""
    async with opened(dsn):
        pass
    async with directly(dsn) as connection:
        await connection.execute(
            "UPDATE meta SET value = 99 WHERE name = 'schema_version'; CREATE TABLE theirs (a int)"
        )
        async with opened(dsn) as (store, *_):
            await (await Driver.driving(store, "r1")).end()
        assert await connection.fetchval("SELECT value FROM meta WHERE name = 'schema_version'") == 99


async def test_another_program_s_schema_is_left_alone(dsn: str) -> None:
    """A schema with tables that are not ours is refused."""
    async with directly(dsn) as connection:
        await connection.execute(f"CREATE SCHEMA {parse(dsn).schema}; CREATE TABLE theirs (a int)")
        with pytest.raises(ConfigError, match="another program's"):
            await PostgresStore.open(dsn)


async def test_databases_that_cannot_be(postgres: PostgresServer) -> None:
    """Each is an error that names host and database, and never the password."""
    places = [
        ("postgresql://ann:hunter2@127.0.0.1:1/db", r"127\.0\.0\.1:1/db cannot be reached"),
        (f"postgresql://ann:hunter2@127.0.0.1:{postgres.port}/postgres", r"/postgres refuses the user"),
        (f"postgresql://postgres:hunter2@127.0.0.1:{postgres.port}/none", r"/none: there is no such database"),
        (f"postgresql://postgres@127.0.0.1:{postgres.port}/postgres?foo=1", r"does not know what the URL sets"),
        ("postgresql://ann:hunter2@127.0.0.1:port/db", "cannot be read"),
        ("mysql://ann:hunter2@host/db", "no PostgreSQL URL"),
        ("postgresql://ann:hunter2@host/db?schema=a-b", "schema 'a-b'"),
    ]
    for dsn, what in places:
        with pytest.raises(ConfigError, match=what) as caught:
            await PostgresStore.open(dsn)
        assert "hunter2" not in str(caught.value) + repr(caught.value)
    assert "hunter2" not in repr(parse(places[0][0]))


# --- many processes -------------------------------------------------------------------------------------------------------


async def test_a_limit_holds_across_processes(dsn: str) -> None:
    """Three stores reserve and settle at once on two ledgers: what is accepted is exactly what fits, at every moment."""
    async with opened(dsn, dsn, dsn) as stores, directly(dsn) as connection:
        await stores[0].set_limit(TENANT, "tenant/day", 1_000)
        name = "tenant/day:2026-11-20"
        drivers = [await Driver.driving(stores[number % 3], f"r{number:02}") for number in range(60)]

        async def spend(driver: Driver) -> int:
            spent = 0
            for _ in range(5):
                wishes = (Reserve("tenant", 10), Reserve(name, 10))
                if await driver.append(said("x"), reserve=wishes) is None:
                    row = await connection_lock(connection, name)
                    assert row[0] + row[1] <= 1_000
                    await driver.append(settle=(Settle(name, 10, 7), Settle("tenant", 10, 7)))
                    spent += 7
            return spent

        lock = asyncio.Lock()

        async def connection_lock(connection: asyncpg.Connection, ledger: str) -> tuple[int, int]:
            async with lock:
                row = await connection.fetchrow("SELECT settled, reserved FROM ledgers WHERE ledger = $1", ledger)
            assert row is not None
            return row[0], row[1]

        spent = sum(await asyncio.gather(*(spend(driver) for driver in drivers)))
        ledger = {ledger.ledger: ledger for ledger in await stores[1].ledgers(TENANT)}[name]
        assert (ledger.settled, ledger.reserved, ledger.closed) == (spent, 0, False)
        assert 990 < spent <= 1_000


async def test_one_of_many_processes_wins(dsn: str) -> None:
    """Racing starts in one session, racing starts under one key, racing claims: one process each."""
    async with opened(dsn, dsn, dsn) as stores:
        drivers = [await Driver.make(store, f"r{n}", session="s") for n, store in enumerate(stores * 4)]
        results = await asyncio.gather(*(driver.start() for driver in drivers))
        assert sum(isinstance(result, Started) for result in results) == 1
        drivers = [await Driver.make(store, f"k{n}", session=f"k{n}") for n, store in enumerate(stores * 4)]
        calls = (driver.start(idempotency_key="k", idempotency_digest="d") for driver in drivers)
        results = await asyncio.gather(*calls)
        assert len({result.run for result in results}) == 1
        assert sum(not result.existing for result in results) == 1
        driver = await Driver.started(stores[0], "claimed")
        claims = (store.claim(TENANT, "claimed", worker=f"w{n}", lease_ms=9_000) for n, store in enumerate(stores * 4))
        won = [claim for claim in await asyncio.gather(*claims) if claim]
        assert [claim.epoch for claim in won] == [1]
        assert (await driver.row()).worker in {f"w{n}" for n in range(12)}


async def test_two_drivers_of_one_run_leave_one_chain(dsn: str) -> None:
    """Workers that claim the run from each other and append at once leave a gapless chain that verifies."""
    async with opened(dsn, dsn) as stores:
        first = await Driver.started(stores[0], "r1")
        written = stale = 0

        async def drive(store: PostgresStore) -> None:
            nonlocal written, stale
            for _ in range(30):
                entries = await store.read(TENANT, "r1")
                mine = await Driver.make(store, "r1")
                mine.recorder.seq, mine.recorder.hash, mine.recorder.at_ms = len(entries), entries[-1].hash, 0
                claim = await store.claim(TENANT, "r1", worker="both", lease_ms=1_000)
                assert claim is not None
                mine.epoch = claim.epoch
                try:
                    await mine.append(said("a"), said("b"))
                    written += 1
                except StaleAppend:
                    stale += 1

        await asyncio.gather(*(drive(store) for store in stores))
        salts = {key.id: key.salt for key in await stores[0].keys(TENANT)}
        records = await stores[0].raw(TENANT, "r1")
        assert verify(TENANT, "r1", records, salts).events == 1 + 2 * written == (await first.row()).seq
        assert written + stale == 60
        assert written


async def test_crossing_groups_all_end(dsn: str) -> None:
    """Sessions, queues and ledgers crossed between processes: nobody fails, whatever order the locks were taken in."""
    async with opened(dsn, dsn) as stores:
        chance = random.Random(7)

        async def live(store: PostgresStore, run: str, session: str) -> None:
            driver = await Driver.make(store, run, session=session)
            await driver.start(queued=True, request=b"{}")
            await store.post(TENANT, run, "message", b"x")
            names = chance.sample(["tenant", "user:ann", "all"], 3)
            while await store.claim(TENANT, run, worker="w", lease_ms=60_000) is None:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
            driver.epoch = 1
            await driver.append(said("x"), reserve=tuple(Reserve(name, 1) for name in names))
            read = tuple(item.id for item in await store.inbox(TENANT, run))
            await driver.end(settle=tuple(Settle(name, 1, 1) for name in names), inbox_done=read)

        lives = [live(stores[n % 2], f"r{n}", f"s{n % 5}") for n in range(60)]
        await asyncio.gather(*lives)
        rows = await stores[0].runs(TENANT, limit=100)
        assert {row.status for row in rows} == {"ended"}
        assert {ledger.settled for ledger in await stores[0].ledgers(TENANT)} == {60}
        sessions = await stores[0].sessions(TENANT)
        assert {(session.live, session.runs) for session in sessions} == {("", 12)}


# --- news -----------------------------------------------------------------------------------------------------------------


class Ears:
    """Hears what others wrote."""

    def __init__(self, store: PostgresStore) -> None:
        self.heard: list[Sequence[Change] | None] = []
        self._some = asyncio.Event()
        assert store.listen(self._hear)

    def _hear(self, changes: Sequence[Change] | None) -> None:
        self.heard.append(changes)
        self._some.set()

    async def until(self, run: str | None) -> Change | None:
        """Wait until a run was heard of (None: that anything may have changed); forget it all."""
        async with asyncio.timeout(10):
            while True:
                for changes in self.heard:
                    if changes is None:
                        if run is None:
                            self.heard.clear()
                            return None
                        continue
                    for change in changes:
                        if change.run == run:
                            self.heard.clear()
                            return change
                self._some.clear()
                await self._some.wait()


async def test_others_hear_of_it(dsn: str) -> None:
    """Every append and post is heard of by the others, with its seq and whether a driver is wanted; never by oneself."""
    async with opened(dsn, dsn) as (mine, other):
        ears, own = Ears(other), Ears(mine)
        driver = await Driver.started(mine, "r1")
        assert await ears.until("r1") == Change(TENANT, "r1", 1, wanted=True)
        await driver.claim()
        await driver.append(said("x"), said("y"), status="waiting", release=True)
        assert await ears.until("r1") == Change(TENANT, "r1", 3, wanted=False)
        await mine.post(TENANT, "r1", "message", b"x")
        assert await ears.until("r1") == Change(TENANT, "r1", 3, wanted=True)
        assert await other.changed_elsewhere()
        assert (await other.changed_elsewhere(), await mine.changed_elsewhere(), own.heard) == (False, False, [])


async def test_many_runs_are_heard_of(dsn: str) -> None:
    """More runs than one ring holds, with names of any kind, are all heard of."""
    async with opened(dsn, dsn) as (mine, other):
        ears = Ears(other)
        drivers = [await Driver.make(mine, f'"{number}\\ä' * 20) for number in range(100)]
        await asyncio.gather(*(driver.start() for driver in drivers))
        heard: set[str] = set()
        async with asyncio.timeout(10):
            while len(heard) < 100:
                heard |= {change.run for changes in ears.heard for change in changes or ()}
                await asyncio.sleep(0.01)
        assert heard == {driver.run for driver in drivers}


async def test_a_lost_line_is_set_up_again(dsn: str) -> None:
    """After its connection was cut a listener is told that anything may have changed, and hears again."""
    async with opened(dsn, dsn) as (mine, other):
        ears = Ears(other)
        assert await cut(dsn, "line") >= 2
        await ears.until(None)
        await Driver.started(mine, "r1")
        while (await asyncio.wait_for(ears.until("r1"), 5)) is None:
            pass
        assert abs(mine.clock_ms() - await mine.now_ms()) < 100


# --- lost connections -----------------------------------------------------------------------------------------------------


async def test_a_connection_cut_between_groups_is_opened_anew(dsn: str) -> None:
    """Writers and readers whose connections were cut go on as if nothing had been."""
    async with opened(dsn) as (store,):
        driver = await Driver.driving(store, "r1")
        for number in range(3):
            assert await cut(dsn, "writer") >= 1
            await driver.append(said(f"{number}"))
            assert await cut(dsn, "reader") >= 1
            assert len(await store.read(TENANT, "r1")) == number + 2


@pytest.mark.parametrize(("moment", "written"), [("before", 0), ("after", 1)])
async def test_a_connection_cut_in_a_commit_is_unknown(
    dsn: str, postgres: PostgresServer, moment: Cut, written: int
) -> None:
    """Nobody says that it was or was not written; after reading again it goes on from what is there."""
    async with Proxy(postgres.port) as proxy, opened(dsn.replace(f":{postgres.port}/", f":{proxy.port}/")) as (store,):
        driver = await Driver.driving(store, "r1")
        proxy.cut = moment
        with pytest.raises(CommitUnknown, match="known after reading again"):
            await driver.append(said("perhaps"))
        entries = await store.read(TENANT, "r1")
        assert words(entries)[1:] == ["perhaps"] * written
        driver.recorder.seq, driver.recorder.hash = len(entries), entries[-1].hash
        await driver.append(said("on"))
        assert words(await store.read(TENANT, "r1"))[-1] == "on"


async def test_a_writer_frozen_in_its_transaction_does_not_keep_its_runs(dsn: str) -> None:
    """A process stopped between two statements holds rows; the database lets go of them before its leases end."""
    async with opened(dsn) as (store,):
        await Driver.driving(store, "r1")
        address = parse(dsn)
        frozen = await connect(address, role="writer")
        try:
            await frozen.execute("BEGIN")
            await frozen.execute("SELECT 1 FROM runs WHERE run = 'r1' FOR UPDATE")
            async with asyncio.timeout(2.5):
                await store.post(TENANT, "r1", "message", b"x")
            with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)):
                await frozen.execute("COMMIT")
        finally:
            await frozen.close()


async def test_a_restarted_database_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that meets a crashed database is made when it is back; one that waits too long says so, and none is lost."""
    with PostgresServer() as server:
        async with opened(server.dsn()) as (store,):
            driver = await Driver.driving(store, "r1")
            await driver.append(said("kept"))
            await asyncio.to_thread(server.stop, signal.SIGQUIT)
            key, now_ms = driver.recorder.key, store.clock_ms()
            append = driver.of(driver.recorder.record([said("later")], now_ms=now_ms, epoch=1)[1], 2, 1)
            write = asyncio.create_task(store.append(append))
            await asyncio.sleep(0.2)
            assert not write.done()
            await asyncio.to_thread(server.start)
            assert await write is None
            assert words(await store.read(TENANT, "r1")) == ["hello", "kept", "later"]
            monkeypatch.setattr(lane, "PATIENCE_S", 0.2)
            await asyncio.to_thread(server.stop, signal.SIGQUIT)
            with pytest.raises(JournalError, match=r"was lost .* can be reached") as caught:
                await store.append(driver.of([], 3, 1))
            assert caught.value.retryable
            with pytest.raises(JournalError):
                await store.key_for(TENANT, "bob")
            await asyncio.to_thread(server.start)
            assert await store.key_for(TENANT, "ann") == key


class Dying:
    """A connection that is lost at its n-th use."""

    def __init__(self, left: int) -> None:
        self.left = left
        self.ended = False

    async def _use(self, *_: object, **__: object) -> int:
        self.left -= 1
        if self.left < 0:
            raise asyncpg.ConnectionDoesNotExistError("the database went away")
        return 0

    execute = add_listener = fetch = fetchval = _use

    def terminate(self) -> None:
        self.ended = True


async def test_a_connection_that_is_lost_while_it_is_set_up_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is nobody's yet, and would hold a place at the server until it is collected."""
    dying = Dying(0)

    async def asked(*_: object, **__: object) -> Dying:
        return dying

    monkeypatch.setattr(asyncpg, "connect", asked)
    with pytest.raises(asyncpg.ConnectionDoesNotExistError):
        await connect(parse("postgresql://nobody@localhost/x"), role="writer")
    assert dying.ended
    for left in range(4):  # three channels, and the clock
        dying = Dying(left)
        with pytest.raises(asyncpg.ConnectionDoesNotExistError):
            await Line("stanchion x", asked).open()  # type: ignore[arg-type]
        assert dying.ended, left


# --- what a write may be --------------------------------------------------------------------------------------------------


async def test_a_write_that_cannot_be_fails_alone(dsn: str) -> None:
    """A name that PostgreSQL will not take fails its own write, and the others of its group are made."""
    async with opened(dsn) as (store,):
        drivers = [await Driver.driving(store, f"r{number}") for number in range(5)]
        bad = store.post(TENANT, "nul \x00", "message", b"x")
        results = await asyncio.gather(bad, *(driver.append(said("x")) for driver in drivers), return_exceptions=True)
        assert isinstance(results[0], InputError)
        assert results[1:] == [None] * 5


def test_errors_say_what_to_do() -> None:
    """The failures of a database that callers act on are told apart."""
    assert isinstance(translate(asyncpg.DiskFullError("could not extend file"), "db"), StoreFull)
    for error, text, retryable in (
        (asyncpg.TooManyConnectionsError("sorry"), "no connection left", True),
        (asyncpg.QueryCanceledError("statement timeout"), "waited too long", True),
        (asyncpg.ReadOnlySQLTransactionError("read-only"), "takes no writes", True),
        (asyncpg.DataCorruptedError("bad page"), "is damaged", False),
        (ConnectionResetError("reset"), "was lost", True),
        (asyncpg.SyntaxOrAccessError("?"), "the store failed", False),
    ):
        said = translate(error, "db")
        assert (text in str(said), said.retryable) == (True, retryable), said


# --- erasure --------------------------------------------------------------------------------------------------------------


async def test_no_content_outlives_its_key(dsn: str) -> None:
    """Keys are destroyed while drivers go on to write under them: nothing of theirs is left in the database."""
    async with opened(dsn, dsn) as stores, directly(dsn) as connection:
        drivers = [await Driver.driving(stores[n % 2], f"r{n}", subject=f"user {n % 4}") for n in range(12)]

        async def write(driver: Driver) -> None:
            for number in range(12):
                await driver.append(said(f"{driver.run} {number}"))

        async def erase() -> None:
            for number in range(3):
                await asyncio.sleep(0.01)
                assert await stores[1].destroy_key(TENANT, f"user {number}")

        await asyncio.gather(erase(), *(write(driver) for driver in drivers))
        left = "SELECT count(*) FROM contents c WHERE NOT EXISTS (SELECT FROM keys k WHERE k.no = c.key)"
        assert await connection.fetchval(left) == 0
        assert await connection.fetchval("SELECT count(*) FROM erasing") == 0
        assert len(words(await stores[0].read(TENANT, "r3"))) == 13
        assert words(await stores[0].read(TENANT, "r0")) == []


async def test_an_erasure_cut_short_is_finished(dsn: str) -> None:
    """A process that died between destroying a key and deleting its content leaves the rest to the next that starts."""
    async with opened(dsn) as (store,), directly(dsn) as connection:
        await Driver.driving(store, "r1")
        await connection.execute("WITH gone AS (DELETE FROM keys RETURNING no) INSERT INTO erasing SELECT no FROM gone")
        assert await connection.fetchval("SELECT count(*) FROM contents") == 1
        async with opened(dsn):
            assert await connection.fetchval("SELECT count(*) FROM contents") == 0


# --- the lane -------------------------------------------------------------------------------------------------------------


async def test_a_full_queue_makes_wait(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Above the bounds writes wait for room instead of failing, and all are written, in the order of arrival."""
    monkeypatch.setattr(lane, "LANE_JOBS", 4)
    monkeypatch.setattr(lane, "LANE_BYTES", 20_000)
    async with opened(dsn) as (store,):
        drivers = [await Driver.driving(store, f"r{number}") for number in range(40)]
        await asyncio.gather(*(driver.append(said("x" * 9_000)) for driver in drivers))
        assert {row.seq for row in await store.runs(TENANT, limit=100)} == {2}


async def test_a_closed_store_says_so(dsn: str) -> None:
    """What was waiting is written before it closes; what comes later is refused."""
    async with opened(dsn) as (store,):
        driver = await Driver.driving(store, "r1")
        last = asyncio.create_task(driver.append(said("last")))
        while driver.recorder.seq < 2:  # noqa: ASYNC110  (until it is on its way)
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        await store.aclose()
        assert await last is None
        with pytest.raises(JournalError, match="is closed"):
            await store.append(driver.of([], 2, 1))
        with pytest.raises(JournalError, match="is closed"):
            await store.runs(TENANT)
