"""Budgets in shards: several processes on one ledger behave as one process on one row, to the last nano-dollar."""

from __future__ import annotations

import asyncio
import itertools
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanchion.journal import queries
from stanchion.journal.postgres import PostgresStore
from stanchion.journal.postgres.address import connect, parse
from stanchion.journal.postgres.money import SHARDS, Shard, share_out
from stanchion.journal.store import Ledger, Refused, Reserve, Settle
from stanchion.loop.limit import windowed
from stanchion.testing.memory_books import Books
from stanchion.testing.store import exercise
from stanchion.testing.store_budgets import CHECKS
from stanchion.testing.store_driver import TENANT, Check, Driver, said
from tests.journal.scaled import directly, opened, twin

NAMES = ("tenant/day:2026-11-20", "tenant", "all", "user:ann")
WRITERS = 5


class Model:
    """What one process with one row per ledger would say."""

    def __init__(self) -> None:
        self.books = Books()

    def ledgers(self) -> list[Ledger]:
        return sorted([*self.books.listed(TENANT), *self.books.listed("")], key=lambda row: row.ledger)


class Several(PostgresStore):
    """Stores of several processes in turn."""

    def __init__(self, stores: list[PostgresStore]) -> None:
        self._stores = stores
        self._turn = itertools.cycle(stores)

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("_") or name == "aclose":
            return object.__getattribute__(self, name)
        return getattr(next(self._turn), name)

    async def aclose(self) -> None:
        for store in self._stores:
            await store.aclose()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_conformance_of_several_processes(check: Check, dsn: str) -> None:
    """The checks of budgets hold where each call comes from another process."""

    async def several() -> Several:
        return Several([await PostgresStore.open(dsn) for _ in range(3)])

    await exercise(check, several)


async def _listed(store: PostgresStore) -> list[Ledger]:
    return sorted([*await store.ledgers(TENANT), *await store.ledgers("")], key=lambda row: row.ledger)


async def _sound(dsn: str) -> None:
    """The parts of every limit add up to the limit at most, and what is free in them to what is really free."""
    async with directly(dsn) as connection:
        rows = await connection.fetch(
            """
            SELECT s.tenant, s.ledger, m.amount, s.allot, s.settled + s.reserved AS used, s.closed FROM ledger_shards s
            LEFT JOIN limits m ON m.tenant = s.tenant AND m.name = s.name
            """
        )
    ledgers: dict[tuple[str, str], list[tuple[int | None, int | None, int, bool]]] = {}
    for tenant, ledger, *rest in rows:
        ledgers.setdefault((tenant, ledger), []).append((rest[0], rest[1], rest[2], rest[3]))
    for place, shards in ledgers.items():
        assert len({closed for *_, closed in shards}) == 1, place
        limit = shards[0][0]
        if limit is None:
            assert all(allot is None for _, allot, _, _ in shards), place
            continue
        free = limit - sum(used for _, _, used, _ in shards)
        assert sum(max(0, (allot or 0) - used) for _, allot, used, _ in shards) <= max(0, free), place


@pytest.mark.parametrize("seed", range(4))
async def test_interleaved_processes_are_one_ledger(dsn: str, seed: int) -> None:
    """Whatever process reserves, settles, overruns or sets a limit, the answers are those of a single row."""
    chance = random.Random(seed)
    async with opened(*[dsn] * WRITERS) as stores:
        first = await Driver.driving(stores[0], "r1")
        drivers = [first, *(twin(first, store) for store in stores[1:])]
        model = Model()
        held: list[tuple[str, int]] = []
        for step in range(120):
            driver = chance.choice(drivers)
            if chance.random() < 0.06 or step == 0:
                name, limit = chance.choice(["tenant/day", "tenant", "all"]), chance.choice([-1, 200, 1_000, 3_000])
                told = await chance.choice(stores).set_limit(TENANT, name, limit)
                assert told == model.books.set_limit(TENANT, name, limit)
            else:
                chance.shuffle(held)
                back = tuple(
                    Settle(name, amount, amount + 5 if chance.random() < 0.02 else chance.randint(0, amount))
                    for name, amount in held[: chance.randint(0, 4)]
                )
                wishes = tuple(
                    Reserve(name, chance.choice([1, 7, 30, 90])) for name in chance.sample(NAMES, chance.randint(0, 3))
                )
                append, undo = await driver.prepare(said("x"), settle=back, reserve=wishes)
                refused = await driver.store.append(append)
                assert refused == model.books.move(append), (step, append)
                if refused is None:
                    held = [*held[len(back) :], *((wish.ledger, wish.amount) for wish in wishes)]
                else:
                    for each in drivers:
                        each.recorder = undo
            if step % 10 == 0:
                assert await _listed(chance.choice(stores)) == model.ledgers()
                await _sound(dsn)
        assert await _listed(stores[0]) == model.ledgers()


async def test_a_limit_holds_and_is_used_by_many_processes(dsn: str) -> None:
    """Settled and reserved never pass the limit at any moment, every process gets on, and at the end it is spent."""
    limit, amount, cost, name = 5_000, 50, 11, "tenant/day:2026-11-20"
    async with opened(*[dsn] * WRITERS) as stores, directly(dsn) as connection:
        await stores[0].set_limit(TENANT, "tenant/day", limit)
        drivers = [await Driver.driving(stores[n % WRITERS], f"r{n}") for n in range(30)]
        highest = spent = 0
        done = asyncio.Event()

        async def watch() -> None:
            nonlocal highest
            while not done.is_set():
                used = await connection.fetchval(
                    "SELECT sum(settled + reserved)::bigint FROM ledger_shards WHERE ledger = $1", name
                )
                highest = max(highest, used or 0)

        async def spend(driver: Driver) -> None:
            nonlocal spent
            while True:
                refused = await driver.append(said("x"), reserve=(Reserve(name, amount),))
                if refused is None:
                    await driver.append(settle=(Settle(name, amount, cost),))
                    spent += cost
                elif refused.hard:
                    return

        watching = asyncio.create_task(watch())
        await asyncio.gather(*(spend(driver) for driver in drivers))
        done.set()
        await watching
        assert limit * 0.9 < highest <= limit
        assert limit - amount < spent <= limit
        assert [(row.settled, row.reserved) for row in await stores[0].ledgers(TENANT)] == [(spent, 0)]
        assert await connection.fetchval("SELECT shards FROM ledgers") == WRITERS


async def test_locked_rows_are_read_as_they_are_now(dsn: str) -> None:
    """Whatever isolation the URL asks for, a statement sees what was committed before it: who holds all shards sees them all."""
    connection = await connect(parse(f"{dsn}&default_transaction_isolation=repeatable%20read"), role="writer")
    assert await connection.fetchval("SHOW transaction_isolation") == "read committed"
    await connection.close()


async def test_settled_by_another_process(dsn: str) -> None:
    """A reservation of one process is settled in another, and what it gives back can be used by a third."""
    async with opened(dsn, dsn, dsn) as (one, two, three):
        await one.set_limit(TENANT, "tenant", 100)
        first = await Driver.driving(one, "r1")
        assert await first.append(reserve=(Reserve("tenant", 100),)) is None
        other = await Driver.driving(three, "r2")
        assert await other.append(reserve=(Reserve("tenant", 1),)) == Refused("tenant", 1, 0, hard=False)
        assert await twin(first, two).append(settle=(Settle("tenant", 100, 40),)) is None
        assert await other.append(reserve=(Reserve("tenant", 61),)) == Refused("tenant", 61, 60, hard=True)
        assert await other.append(reserve=(Reserve("tenant", 60),)) is None
        assert list(await two.ledgers(TENANT)) == [Ledger(TENANT, "tenant", 100, 40, 60, closed=False)]
        await _sound(dsn)


async def test_limits_set_under_load_hold_for_processes_that_come_later(dsn: str) -> None:
    """A limit that is set while processes make their first rows of a ledger holds for each of them."""
    async with opened(*[dsn] * WRITERS) as stores:
        drivers = [await Driver.driving(stores[n % WRITERS], f"r{n}") for n in range(20)]
        for turn in range(8):
            name = f"tenant/day:2026-11-{turn + 1:02}"
            calls = [driver.append(said("x"), reserve=(Reserve(name, 10),)) for driver in drivers]
            calls.insert(turn * 2, stores[turn % WRITERS].set_limit(TENANT, "tenant/day", 50 + turn))  # type: ignore[arg-type]
            await asyncio.gather(*calls)
            await _sound(dsn)
            (row,) = [row for row in await stores[0].ledgers(TENANT) if row.ledger == name]
            for driver in drivers:
                said_now = await driver.append(reserve=(Reserve(name, 10),))
                fits = row.settled + row.reserved + 10 <= row.limit
                assert (said_now is None) == fits
                row = row if said_now else next(r for r in await stores[1].ledgers(TENANT) if r.ledger == name)


async def test_the_turn_of_day_and_month_under_load(dsn: str) -> None:
    """At midnight UTC new reservations go to the new day and month; older ones are settled where they were made."""
    async with opened(*[dsn] * 3) as stores:
        await stores[0].set_limit(TENANT, "tenant/day", 500)
        await stores[0].set_limit(TENANT, "tenant/month", 900)
        midnight = datetime(2026, 12, 1, tzinfo=UTC)
        now_ms = int((midnight - timedelta(milliseconds=150)).timestamp() * 1_000)
        drivers = [await Driver.driving(stores[n % 3], f"r{n}") for n in range(24)]
        accepted: dict[str, int] = {}

        async def spend(driver: Driver) -> None:
            nonlocal now_ms
            for _ in range(12):
                now_ms += 1
                names = windowed(("tenant/day", "tenant/month"), now_ms)
                if await driver.append(said("x"), reserve=tuple(Reserve(name, 10) for name in names)) is None:
                    for name in names:
                        accepted[name] = accepted.get(name, 0) + 1
                    await driver.append(settle=tuple(Settle(name, 10, 3) for name in names))

        await asyncio.gather(*(spend(driver) for driver in drivers))
        rows = {row.ledger: row for row in await stores[1].ledgers(TENANT)}
        assert set(rows) == {
            "tenant/day:2026-11-30", "tenant/day:2026-12-01", "tenant/month:2026-11", "tenant/month:2026-12",
        }  # fmt: skip
        assert {name: (row.settled, row.reserved) for name, row in rows.items()} == {
            name: (count * 3, 0) for name, count in accepted.items()
        }
        assert accepted["tenant/day:2026-11-30"] >= 24
        assert accepted["tenant/day:2026-12-01"] == accepted["tenant/month:2026-12"] >= 24
        await _sound(dsn)


async def test_lanes_take_turns(dsn: str) -> None:
    """Processes that start one after the other have shards of their own; those beyond the last share one."""
    async with opened(*[dsn] * (SHARDS + 2)) as stores:
        for number, store in enumerate(stores):
            driver = await Driver.driving(store, f"r{number}")
            await driver.append(reserve=(Reserve("tenant", 1),))
        async with directly(dsn) as connection:
            rows = await connection.fetch("SELECT shard, reserved FROM ledger_shards ORDER BY shard")
        assert [tuple(row) for row in rows] == [(n, 2 if n < 2 else 1) for n in range(SHARDS)]


async def test_ledgers_of_an_older_schema_go_on(dsn: str) -> None:
    """A database from before the shards keeps what was spent, its limits and what is closed."""
    async with opened(dsn):
        pass
    async with directly(dsn) as connection:
        schema = await connection.fetchval("SELECT current_schema()")
        await connection.execute(f"DROP SCHEMA {schema} CASCADE; CREATE SCHEMA {schema}")
        migrations = queries.migrations("postgres")
        await connection.execute(migrations[1])
        await connection.execute("INSERT INTO meta VALUES ('schema_version', 1)")
        await connection.execute(
            """
            INSERT INTO limits VALUES ('acme', 'tenant/day', 100), ('acme', 'user:ann', 100);
            INSERT INTO ledgers (tenant, ledger, name, settled, reserved, closed) VALUES
                ('acme', 'tenant/day:2026-11-20', 'tenant/day', 60, 30, false), ('acme', 'user:ann', 'user:ann', 70, 50, false),
                ('acme', 'tenant', 'tenant', 5, 6, true)
            """
        )
    async with opened(dsn, dsn) as (store, other):
        expected = [
            ("tenant", -1, 5, 6, True),
            ("tenant/day:2026-11-20", 100, 60, 30, False),
            ("user:ann", 100, 70, 50, False),
        ]
        found = [(r.ledger, r.limit, r.settled, r.reserved, r.closed) for r in await other.ledgers(TENANT)]
        assert found == expected
        driver = await Driver.driving(store, "r1")
        day = "tenant/day:2026-11-20"
        assert await driver.append(reserve=(Reserve(day, 11),)) == Refused(day, 11, 10, hard=False)
        assert await driver.append(reserve=(Reserve(day, 10),)) is None
        assert await driver.append(reserve=(Reserve("user:ann", 1),)) == Refused("user:ann", 1, 0, hard=False)


_shards = st.lists(
    st.tuples(st.integers(0, 10**12), st.integers(-(10**12), 10**12), st.none() | st.integers(-(10**12), 10**13)),
    min_size=1,
    max_size=SHARDS,
)


@given(rows=_shards, limit=st.none() | st.integers(0, 10**14), own=st.booleans())
def test_a_limit_is_shared_out_exactly(rows: list[tuple[int, int, int | None]], limit: int | None, own: bool) -> None:
    """What shards have free adds up to what is free, all of it is given out, and none of a debt is forgotten."""
    shards = [Shard(n, allot, 0, settled, reserved) for n, (settled, reserved, allot) in enumerate(rows)]
    used = sum(settled + reserved for settled, reserved, _ in rows)
    share_out(shards, limit, shards[0] if own else None, closed=False)
    if limit is None:
        assert {shard.allot for shard in shards} == {None}
        return
    parts = [(shard.allot or 0) - shard.used for shard in shards]
    assert parts == [shard.given for shard in shards]
    if limit >= used:
        assert min(parts) >= 0
        assert sum(parts) == limit - used if own else limit - used - 4 * len(shards) < sum(parts) <= limit - used
    else:
        assert set(parts) == {limit - used}
