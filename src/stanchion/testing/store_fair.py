"""Checks of a store: who goes next, caps on what runs at once, places in the queue, and the workers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from stanchion.journal.share import BATCH, INTERACTIVE, NoPlace, Place, Share, WorkerRow
from stanchion.journal.store import Started, Store
from stanchion.testing.store_driver import TENANT, Driver, pass_ms, same, true


async def started(store: Store, *names: str, **fields: Any) -> list[Driver]:
    """Start runs undriven; a name is "tenant/run"."""
    made: list[Driver] = []
    for name in names:
        tenant, _, run = name.partition("/")
        made.append(await Driver.started(store, run, tenant=tenant, **fields))
    return made


async def order(store: Store, limit: int = 100, **fields: Any) -> str:
    """List what goes next, as names of runs."""
    return " ".join(one.run for one in await store.runnable(limit=limit, **fields))


async def interactive_goes_before_batch(store: Store) -> None:
    """However old a batch run is, and of whichever tenant; and batch is left out where it is not wanted."""
    await started(store, "a/a1", "b/b1", priority=BATCH)
    await started(store, "a/a2", "c/c1")
    same(await order(store), "a2 c1 a1 b1", "order")
    same(await order(store, batch=1), "a2 c1 a1", "with room for one batch run")
    same(await order(store, batch=0), "a2 c1", "without room for batch runs")
    same(await order(store, 1), "a2", "one")


async def tenants_take_turns(store: Store) -> None:
    """A tenant with many queued runs delays another's first by one; turns go by weight, ties by age."""
    await started(store, *(f"a/a{number}" for number in range(1, 7)))
    await started(store, "b/b1", "b/b2")
    same(await order(store), "a1 b1 a2 b2 a3 a4 a5 a6", "order of even weights")
    same(await order(store, 2), "a1 b1", "the first two")
    await store.sharing.set(Share(tenant="b", weight=3))
    await started(store, *(f"b/b{number}" for number in range(3, 9)))
    await pass_ms(store, 1)
    same((await order(store)).split()[:8], ["a1", "b1", "b2", "b3", "a2", "b4", "b5", "b6"], "order of 1 to 3")
    same(await order(store, 3, ahead={(INTERACTIVE, "a"): 5.0}), "b1 b2 b3", "while one is ahead")
    await store.sharing.set(Share(tenant="", weight=3))
    same((await order(store)).split()[:4], ["a1", "b1", "a2", "b2"], "by the weight that all have")


async def what_has_begun_goes_before_what_has_not(store: Store) -> None:
    """Within its tenant, not past another's; one whose worker is lost goes first of all."""
    await started(store, "a/a1", "b/b1")
    for run in ("a2", "a3", "a4"):
        driver = (await started(store, f"a/{run}"))[0]
        await driver.claim(lease_ms=1)
        if run != "a4":
            await driver.append(status="runnable", release=True)
    await pass_ms(store, 2)
    same(await order(store), "a4 b1 a2 a3 a1", "order: b1 is older than a2")
    listed = {one.run: (one.begun, one.lost) for one in await store.runnable(limit=9)}
    expected = {
        "a4": (True, True),
        "b1": (False, False),
        "a2": (True, False),
        "a3": (True, False),
        "a1": (False, False),
    }
    same(listed, expected, "what is said of them")


async def a_worker_sees_what_it_serves(store: Store) -> None:
    """Only runs of its agents are listed for it; all agents of what is ready are named."""
    await started(store, "a/a1", "b/b1", agent="support")
    await started(store, "a/a2", agent="sales")
    same(await order(store, agents=["support"]), "a1 b1", "of one agent")
    same(await order(store, agents=["sales", "none"]), "a2", "of another")
    same(await order(store, agents=[]), "", "of none")
    same(set(await store.sharing.agents()), {"support", "sales"}, "agents of what is ready")
    due = (await started(store, "a/a3", agent="late"))[0]
    await due.claim()
    await due.append(status="waiting", wake_at_ms=await store.now_ms() + 1, release=True)
    lost = (await started(store, "a/a4", agent="lost"))[0]
    await lost.claim(lease_ms=1)
    await pass_ms(store, 2)
    same(set(await store.sharing.agents()), {"support", "sales", "late", "lost"}, "with what is due, and lost")


async def caps_hold(store: Store) -> None:
    """Of a tenant, an agent, a user: claims and starts past a cap get nothing; what waits or ended has no place."""
    sharing = store.sharing
    await sharing.set(Share(tenant="a", max_running=3))
    await sharing.set(Share(tenant="a", scope="agent:support", max_running=2))
    await sharing.set(Share(tenant="", scope="user:*", max_running=1))
    ann, _, ben, _ = await started(store, "a/r1", "a/r2", user="ann") + await started(store, "a/r3", "a/r4", user="ben")
    await ann.claim()
    same(await store.claim("a", "r2", worker="w", lease_ms=9_000), None, "ann's second")
    same(await order(store), "r3", "what goes next: ann's and ben's second are left out")
    await ben.claim()
    same(await order(store), "", "two of the agent run")
    other = await Driver.make(store, "r5", tenant="a")
    said = await other.start(user="cat", worker="w1", lease_ms=9_000)
    same(said, NoPlace("agent:support", 2), "a start past the agent's cap")
    same(await store.run("a", "r5"), None, "of which nothing is kept")
    same(await other.start(user="cat"), Started("r5"), "the same start without a worker")
    await ann.append(status="waiting", release=True)
    same(await order(store), "r2", "one waits for a person and holds no place")
    driven = await Driver.make(store, "r6", tenant="a")
    same(await driven.start(user="dan", agent="sales", worker="w1", lease_ms=9_000), Started("r6"), "of another agent")
    third = await Driver.make(store, "r7", tenant="a")
    said = await third.start(user="eve", agent="sales", worker="w1", lease_ms=9_000)
    same(said, Started("r7"), "the tenant's third")
    same(await order(store), "", "the tenant has its three")
    same(await store.claim("a", "r2", worker="w", lease_ms=9_000), None, "a claim past the tenant's cap")
    await started(store, "b/s1", user="ann")
    same(await order(store), "s1", "users are of their tenants")
    await ben.end()
    same(await order(store), "r2 s1", "an end makes room for one")


async def caps_of_all_tenants(store: Store) -> None:
    """The operator's cap on an agent counts all tenants together; its cap on tenants counts each."""
    await store.sharing.set(Share(tenant="", scope="agent:support", max_running=2))
    await store.sharing.set(Share(tenant="", max_running=1))
    a1, _ = await started(store, "a/a1", "a/a2")
    await started(store, "b/b1", "c/c1")
    await a1.claim()
    same(await order(store), "b1", "one of a, then one more of the agent")
    true(await store.claim("b", "b1", worker="w", lease_ms=9_000), "the agent's second")
    same(await order(store), "", "all are at a cap")
    await store.sharing.set(Share(tenant="", scope="agent:support"))
    same(await order(store), "c1", "without the agent's cap")


async def a_lost_run_holds_its_place(store: Store) -> None:
    """Until it is taken over: its effects may be in flight. Who takes it over needs no other place."""
    await store.sharing.set(Share(tenant="a", max_running=1))
    lost = (await started(store, "a/r1", "a/r2"))[0]
    await lost.claim(lease_ms=1)
    await pass_ms(store, 2)
    same(await order(store), "r1", "what goes next")
    same(await store.claim("a", "r2", worker="w2", lease_ms=9_000), None, "another in its place")
    true(await store.claim("a", "r1", worker="w2", lease_ms=1), "take-over")
    await store.append(lost.of([], 1, 2, status="waiting", wake_at_ms=await store.now_ms() + 1))
    await pass_ms(store, 3)
    same(await order(store), "r1", "lost while it lingered, and due")
    true(await store.claim("a", "r1", worker="w3", lease_ms=9_000), "its take-over")


async def a_cap_is_exact(store: Store) -> None:
    """Of many claims and starts at once, as many get a place as there are."""
    await store.sharing.set(Share(tenant="a", max_running=5))
    await started(store, *(f"a/r{number}" for number in range(10)))
    new = [await Driver.make(store, f"n{number}", tenant="a") for number in range(10)]
    claims = (store.claim("a", f"r{number}", worker="w", lease_ms=9_000) for number in range(10))
    starts = (driver.start(worker="w", lease_ms=9_000) for driver in new)
    said = await asyncio.gather(*claims, *starts)
    had = sum(one is not None and not isinstance(one, NoPlace) for one in said)
    same(had, 5, "places that were had")


async def what_is_capped_holds_up_nobody(store: Store) -> None:
    """A user's many runs above their cap do not stand in the way of the tenant's others."""
    await store.sharing.set(Share(tenant="a", scope="user:ann", max_running=1))
    await started(store, *(f"a/r{number:02}" for number in range(30)), user="ann")
    await started(store, "a/last", user="ben")
    same((await order(store)).split(), ["r00", "last"], "ann's first, and ben's")
    await store.claim("a", "r00", worker="w", lease_ms=9_000)
    same(await order(store, 1), "last", "once ann has hers")


async def places_in_the_queue(store: Store) -> None:
    """A run's place is that in the order; it has none once it has begun, or behind its session's run."""
    await started(store, *(f"a/a{number}" for number in range(1, 5)), session="")
    b1 = (await started(store, "b/b1"))[0]
    await started(store, "a/slow", priority=BATCH)
    same(await store.sharing.place("a", "a1"), Place(2, 0, 0.0), "the first, who stands level with another's")
    same(await store.sharing.place("a", "a4"), Place(5, 3, 0.0), "behind three of its own, and b1")
    same(await store.sharing.place("b", "b1"), Place(2, 0, 0.0), "the other tenant's first")
    same(await store.sharing.place("a", "slow"), Place(6, 0, 0.0), "batch behind all")
    same(await store.sharing.last("a", INTERACTIVE), Place(6, 4, 0.0), "where another would stand")
    same(await store.sharing.last("c", INTERACTIVE), Place(3, 0, 0.0), "and a newcomer's first")
    await b1.claim()
    same(await store.sharing.place("b", "b1"), None, "one that has begun")
    same(await store.sharing.place("b", "none"), None, "one that is not there")
    behind = await Driver.make(store, "b2", tenant="b", session=b1.session)
    await behind.start(queued=True, request=b"{}")
    same(await store.sharing.place("b", "b2"), None, "one behind its session's run")
    counted = [await store.sharing.queued(tenant, 100) for tenant in ("a", "b", "c")]
    same(counted, [5, 1, 0], "waiting to begin")
    same(await store.sharing.queued("a", 3), 3, "counted up to a bound")
    await store.sharing.beat(WorkerRow(name="w1", agents={}, rate=0.5))
    same((await store.sharing.last("a", INTERACTIVE)).rate, 0.5, "rate")


async def no_room_for_another(store: Store) -> None:
    """A start for which there is no room writes nothing, and still finds the run that is there under its key."""
    first = await Driver.make(store, "r1")
    same(await first.start(idempotency_key="k", idempotency_digest="d"), Started("r1"), "the first")
    again = await Driver.make(store, "r2")
    fields: dict[str, Any] = {"known_only": True, "idempotency_digest": "d"}
    same(await again.start(idempotency_key="k", **fields), Started("r1", existing=True), "under its key")
    same(await again.start(idempotency_key="l", **fields), NoPlace("queue", 0), "under another")
    same(await store.run(TENANT, "r2"), None, "the row of what was refused")
    same(await again.start(idempotency_key="l", idempotency_digest="d"), Started("r2"), "whose key was not used up")


async def a_cancelled_run_does_not_wait_its_turn(store: Store) -> None:
    """A cancel of a run that has not begun makes it go before those of its tenant that have not."""
    await started(store, "a/a1", "a/a2", "a/a3")
    await store.post("a", "a2", "message", b"{}")
    same(await order(store), "a1 a2 a3", "a message moves nothing")
    await store.post("a", "a3", "cancel", b"{}")
    same(await order(store), "a3 a1 a2", "a cancel does")
    same(await store.sharing.queued("a", 9), 2, "waiting to begin")


async def shares_are_kept(store: Store) -> None:
    """What is set is listed, changed, and taken away; defaults are the operator's, then ours."""
    sharing = store.sharing
    same(list(await sharing.rows()), [], "at first")
    own = Share(tenant="a", weight=2, max_queued=7)
    await sharing.set(own)
    await sharing.set(Share(tenant="", max_queued=5))
    await sharing.set(Share(tenant="a", scope="user:ann", max_running=0))
    same(
        [(row.tenant, row.scope) for row in await sharing.rows()],
        [("", "tenant"), ("a", "tenant"), ("a", "user:ann")],
        "all",
    )
    shares = await sharing.shares()
    same([shares.weight_of(tenant) for tenant in "ab"], [2, 1], "weights")
    same([shares.max_queued(tenant) for tenant in "ab"], [7, 5], "bounds of queues")
    same([cap.limit for cap in shares.caps("a", "x", "ann")], [0], "caps")
    await sharing.set(Share(tenant="a", weight=3))
    changed = next(row for row in await sharing.rows() if row.tenant == "a")
    same(changed, Share(tenant="a", weight=3), "changed")
    for row in await sharing.rows():
        await sharing.set(Share(tenant=row.tenant, scope=row.scope))
    same(list(await sharing.rows()), [], "taken away")


async def workers_are_listed(store: Store) -> None:
    """Workers are there from their first beat until they leave."""
    before_ms = await store.now_ms()
    first = WorkerRow(name="w1", agents={"support": "d1"}, version="1", started_ms=2, max_active=9)
    await store.sharing.beat(first)
    await store.sharing.beat(WorkerRow(name="w0", agents={}, started_ms=1))
    await store.sharing.beat(WorkerRow(name="w1", agents={"support": "d2"}, started_ms=2, active=3))
    rows: Sequence[WorkerRow] = await store.sharing.workers()
    same([row.name for row in rows], ["w0", "w1"], "in the order of their start")
    same((rows[1].agents, rows[1].active), ({"support": "d2"}, 3), "what it said last")
    true(before_ms <= rows[1].seen_ms <= await store.now_ms(), "seen by the store's clock")
    await store.sharing.leave("w1")
    same([row.name for row in await store.sharing.workers()], ["w0"], "after one left")


CHECKS = (
    interactive_goes_before_batch,
    tenants_take_turns,
    what_has_begun_goes_before_what_has_not,
    a_worker_sees_what_it_serves,
    caps_hold,
    caps_of_all_tenants,
    a_lost_run_holds_its_place,
    a_cap_is_exact,
    what_is_capped_holds_up_nobody,
    places_in_the_queue,
    no_room_for_another,
    a_cancelled_run_does_not_wait_its_turn,
    shares_are_kept,
    workers_are_listed,
)
