"""Shares across worker processes on one database: weights, a newcomer's first, exact caps, and agents of others."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import pytest

from stanchion import Runtime
from stanchion.core import event as ev
from stanchion.engine import taking
from stanchion.journal.postgres import PostgresStore
from stanchion.journal.postgres.address import parse
from stanchion.journal.queries import named
from stanchion.journal.share import INTERACTIVE, NoPlace, Share
from stanchion.testing import ScriptedModel
from stanchion.testing.store_driver import Driver
from tests.journal.fair_worker import thinker

ROOT = Path(__file__).parents[2]
SQL = named("postgres/share.sql")


@asynccontextmanager
async def workers(dsn: str, *words: tuple[str, ...]) -> AsyncIterator[None]:
    """Run worker processes; each is ready when this is entered."""
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.journal.fair_worker", dsn, *its, stdout=PIPE, cwd=ROOT
        )
        for its in words
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert await process.stdout.readline() == b"ready\n"
        yield
    finally:
        for process in processes:
            process.kill()
            await process.wait()


async def begun_at(runtime: Runtime, tenant: str, run: str) -> tuple[int, int]:
    """When a run was accepted, and when its first model call began."""
    entries = await runtime.store.read(tenant, run)
    first = next(entry.at_ms for entry in entries if isinstance(entry.event, ev.ModelCallStarted))
    return entries[0].at_ms, first


async def until_over(runtime: Runtime, tenant: str, run: str) -> None:
    """Wait for a run's end."""
    async for _ in runtime.tail(run, tenant=tenant, deltas=False):
        pass


@pytest.mark.timeout(120)
async def test_two_tenants_share_by_weight_and_a_third_begins_at_once(dsn: str) -> None:
    """Ten times what two workers' six slots take, weights 1 to 3: runs begin in those shares, within 5 %.

    A third tenant's run, which comes in the middle, begins before as many others as there are slots.
    """
    runtime = await Runtime.open(thinker("thinker"), data=dsn, drive=False)
    await runtime.shares.set(tenant="b", weight=3)
    runs = [
        (tenant, (await runtime.start("thinker", "Think.", tenant=tenant)).run) for tenant in "ab" for _ in range(10)
    ]
    for _ in range(11):
        starts = [(tenant, runtime.start("thinker", "Think.", tenant=tenant)) for tenant in "ab" for _ in range(10)]
        said = await asyncio.gather(*(start for _, start in starts))
        runs += [(tenant, one.run) for (tenant, _), one in zip(starts, said, strict=True)]
    async with workers(dsn, ("3", "0.02", "thinker"), ("3", "0.02", "thinker")):
        await until_over(runtime, "a", next(run for tenant, run in runs if tenant == "a"))
        late = (await runtime.start("thinker", "Think.", tenant="c")).run
        await until_over(runtime, "c", late)
        await until_over(runtime, "b", [run for tenant, run in runs if tenant == "b"][-1])
    found: list[tuple[int, str]] = []
    for tenant, run in runs:
        entries = await runtime.store.read(tenant, run)
        found += [(entry.at_ms, tenant) for entry in entries if isinstance(entry.event, ev.ModelCallStarted)]
    found.sort()
    accepted, began = await begun_at(runtime, "c", late)
    await runtime.aclose()
    contended = Counter(tenant for _, tenant in found[:140])
    assert contended["b"] / 140 == pytest.approx(0.75, abs=0.75 * 0.05), contended
    assert sum(accepted < at < began for at, _ in found) <= 6


async def test_a_cap_is_exact_across_stores(dsn: str) -> None:
    """Three stores claim and start at once under one tenant's cap and one user's, again and again: never one too many."""
    stores = [await PostgresStore.open(dsn)]
    for share in (Share(tenant="a", max_running=7), Share(tenant="a", scope="user:ann", max_running=3)):
        await stores[0].sharing.set(share)
    stores += [await PostgresStore.open(dsn) for _ in range(2)]  # (they remember no other shares)
    for number in range(60):
        await Driver.started(stores[0], f"r{number}", tenant="a", user="ann" if number % 2 else "ben")

    async def hammer(store: PostgresStore, name: str) -> None:
        for turn in range(8):
            listed = await store.runnable(limit=10)
            claims = (store.claim("a", one.run, worker=name, lease_ms=60_000) for one in listed)
            new = await Driver.make(store, f"{name}-{turn}", tenant="a")
            said = await asyncio.gather(*claims, new.start(user="ann", worker=name, lease_ms=60_000))
            assert all(one is None or isinstance(one, NoPlace) or one for one in said)

    connection = await asyncpg.connect(parse(dsn).dsn, server_settings={"search_path": parse(dsn).schema})
    running = """SELECT count(*), count(*) FILTER (WHERE "user" = 'ann') FROM runs WHERE worker <> ''"""
    release = "UPDATE runs SET worker = '', lease_until_ms = 0, status = 'waiting' WHERE worker <> ''"
    for _ in range(4):
        await asyncio.gather(*(hammer(store, f"w{number}-{_}") for number, store in enumerate(stores)))
        total, ann = (await connection.fetch(running))[0]
        assert (total, ann <= 3) == (7, True)
        await connection.execute(release)
    await connection.close()
    for store in stores:
        await store.aclose()


async def test_a_worker_leaves_agents_of_others_alone(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of an agent that another live worker serves go on there; those that nobody serves are parked after the grace."""
    monkeypatch.setattr(taking, "GRACE_S", 0.3)
    monkeypatch.setattr(taking, "MISSING_CHECK_S", 0.05)
    looking = await Runtime.open(thinker("theirs"), thinker("nobodys"), data=dsn, drive=False)
    model = ScriptedModel(lambda _: "Mine.")
    async with (
        workers(dsn, ("1", "0.5", "theirs")),
        await Runtime.open(thinker("mine"), data=dsn, clients={"*": model}) as mine,
    ):
        theirs = [(await looking.start("theirs", "Think.")).run for _ in range(3)]  # one slot: they wait over a second
        nobodys = (await looking.start("nobodys", "Think.")).run
        await mine.send(theirs[-1], "And this.")  # a hint to a worker that does not serve it
        assert (await looking.wait(nobodys, timeout_s=20)).parked == "agent_missing"
        for run in theirs:
            view = await looking.wait(run, timeout_s=20)
            assert (view.outcome, view.text, view.parked) == ("done", "Thought.", "")
            kinds = [type(entry.event) for entry in await looking.store.read("default", run)]
            assert ev.RunParked not in kinds
        names = sorted(name for row in await looking.shares.workers() for name in row.agents)
        assert names == ["mine", "theirs"]
    await looking.aclose()


def rows_read(plan: dict[str, Any]) -> int:
    """Count the rows that the scans of a plan took from the table."""
    own = 0
    if plan.get("Relation Name") == "runs":
        own = (plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)) * plan["Actual Loops"]
    return round(own) + sum(rows_read(child) for child in plan.get("Plans", ()))


async def test_a_look_is_flat(dsn: str) -> None:
    """With 10,000 queued runs of one tenant and 20,000 waiting ones, a look reads hardly more rows than it lists."""
    store = await PostgresStore.open(dsn)
    fill = """INSERT INTO runs (tenant, run, session, agent, bundle, "user", status, epoch, priority, parent, root, created_ms,
        updated_ms) SELECT $1, $2 || n, '', 'desk', '', '', $3, $4, 0, '', '', 1, 1 FROM generate_series(1, $5::int) AS n"""
    settings = {"search_path": parse(dsn).schema, "enable_seqscan": "off"}
    connection = await asyncpg.connect(parse(dsn).dsn, server_settings=settings)
    await connection.execute(fill, "big", "q", "runnable", 0, 10_000)
    await connection.execute(fill, "other", "w", "waiting", 1, 20_000)
    await connection.execute(fill, "small", "s", "runnable", 0, 1)
    looks = (
        ("ready", (-(1 << 62), "", "", 2_000, 8, ["desk"], [], [], [], [])),
        ("due", (await store.now_ms(), 8, ["desk"])),
        ("next_wake", ()),
        ("driven", ()),
    )
    for analyzed in (False, True):  # (statistics of an empty table must not mislead it)
        if analyzed:
            await connection.execute("ANALYZE runs")
        for name, values in looks:
            found = await connection.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) {SQL[name]}", *values)
            assert rows_read(msgspec.json.decode(found)[0]["Plan"]) <= 20, (name, analyzed)
    listed = [one.run for one in await store.runnable(limit=8)]
    assert listed == ["q1", "s1", "q2", "q3", "q4", "q5", "q6", "q7"]
    place = await store.sharing.place("small", "s1")
    assert place is not None
    assert (place.position, (await store.sharing.last("big", INTERACTIVE)).position) == (2, 10_002)
    await connection.close()
    await store.aclose()
