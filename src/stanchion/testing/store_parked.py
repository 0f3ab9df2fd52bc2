"""Checks of a store: runs that stand, why they do, and the claims that came to nothing."""

from __future__ import annotations

from stanchion.journal.store import Claimed, Store
from stanchion.testing.store_driver import TENANT, Check, Driver, pass_ms, said, same, true


async def a_parked_run_says_why(store: Store) -> None:
    """The reason is in the row until somebody revives or cancels the run; a message changes nothing about it."""
    for kind in ("revive", "cancel"):
        driver = await Driver.driving(store, kind)
        await driver.append(said("x"), status="parked", release=True, outcome="dead_letter")
        await store.post(TENANT, kind, "message", b"x")
        row = await driver.row()
        same((row.status, row.outcome), ("parked", "dead_letter"), f"row before {kind}")
        await store.post(TENANT, kind, kind, b"x")
        row = await driver.row()
        same((row.status, row.outcome, row.attempts), ("runnable", "", 0), f"row after {kind}")
        await driver.claim("w2")
        await driver.append(status="waiting", release=True, outcome="dead_letter")
        same((await driver.row()).outcome, "", "only of what is parked or over")


async def runs_are_listed_by_outcome(store: Store) -> None:
    """How it ended, or why it stands."""
    await (await Driver.driving(store, "r1")).end()
    await (await Driver.driving(store, "r2")).end("failed")
    driver = await Driver.driving(store, "r3", session="s")
    await driver.append(status="parked", release=True, outcome="agent_missing")
    for outcome, found in {"done": ["r1"], "failed": ["r2"], "agent_missing": ["r3"], "none": []}.items():
        same([row.run for row in await store.runs(TENANT, outcome=outcome)], found, outcome)
    same([row.run for row in await store.runs(TENANT, session="s", outcome="agent_missing")], ["r3"], "of a session")
    same(list(await store.runs(TENANT, session="s", outcome="done")), [], "of a session, none")


async def parked_runs_are_listed_over_all_tenants(store: Store) -> None:
    """Newest first, in pages, by tenant, agent and reason; what was revived or is over is not among them."""
    for number in range(6):
        tenant, agent = ("a", "b")[number % 2], ("x", "y")[number // 2 % 2]
        driver = await Driver.driving(store, f"r{number}", tenant=tenant, agent=agent)
        reason = "dead_letter" if number < 4 else "agent_missing"
        await driver.append(said("x"), status="parked", release=True, outcome=reason)
    await Driver.driving(store, "live", tenant="a")
    await (await Driver.driving(store, "over", tenant="a")).end()
    await store.post("a", "r2", "revive", b"x")
    rows = await store.parked()
    same(
        [(row.tenant, row.run) for row in rows],
        [("b", "r5"), ("a", "r4"), ("b", "r3"), ("b", "r1"), ("a", "r0")],
        "all",
    )
    same([row.outcome for row in rows], ["agent_missing"] * 2 + ["dead_letter"] * 3, "reasons")
    same([row.run for row in await store.parked(tenant="b")], ["r5", "r3", "r1"], "of a tenant")
    same([row.run for row in await store.parked(agent="y")], ["r3"], "of an agent")
    same([row.run for row in await store.parked(reason="dead_letter", tenant="a")], ["r0"], "for a reason")
    same([row.run for row in await store.parked(limit=2)], ["r5", "r4"], "a page")
    same([row.run for row in await store.parked(limit=2, before=("a", "r4"))], ["r3", "r1"], "the next")


async def claims_in_vain_are_kept(store: Store) -> None:
    """A claim that made no progress is known by its epoch and worker once the next one came; others leave no trace."""
    driver = await Driver.driving(store, "r1")
    await driver.append(said("x"), progress=True, release=True)
    await driver.claim("w1", lease_ms=20)
    await pass_ms(store, 21)
    before_ms = await store.now_ms()
    await driver.claim("w2")
    await driver.append(release=True)
    await driver.claim("w3")
    found = await store.claims(TENANT, "r1")
    same([(claim.epoch, claim.worker) for claim in found], [(2, "w1"), (3, "")], "claims")
    true(all(claim.ended_ms >= before_ms for claim in found), "times")
    await driver.append(said("y"), progress=True, release=True)
    await driver.claim("w4")
    same(len(await store.claims(TENANT, "r1")), 2, "after progress")
    same(list[Claimed](await store.claims(TENANT, "none")), [], "of a run that is not there")


async def a_claim_can_count_for_nothing(store: Store) -> None:
    """A worker that can do nothing with a run gives it back, and the attempt with it; others' attempts stay counted."""
    driver = await Driver.driving(store, "r1")
    await driver.append(release=True)
    await driver.claim("w2")
    await driver.append(release=True, unclaim=True)
    row = await driver.row()
    same((row.status, row.attempts, row.epoch, row.worker), ("runnable", 1, 2, ""), "row")
    same((await driver.claim("w3")).attempts, 2, "attempts")


async def runs_that_nobody_drives_are_found(store: Store) -> None:
    """Runnable without a lease for a while; not what is driven, waits, stands, is over or is queued behind a live run."""
    leased = await Driver.driving(store, "leased")
    await (await Driver.driving(store, "waiting")).append(status="waiting", release=True)
    await (await Driver.driving(store, "parked")).append(status="parked", release=True, outcome="dead_letter")
    await (await Driver.driving(store, "over")).end()
    await Driver.started(store, "alone")
    await Driver.started(store, "live", session="s")
    behind = await Driver.make(store, "behind", session="s")
    await behind.start(queued=True, request=b"{}")
    same([row.run for row in await store.orphans(idle_ms=60_000)], [], "not yet")
    await pass_ms(store, 2)
    same({row.run for row in await store.orphans(idle_ms=1)}, {"alone", "live"}, "after a while")
    same(len(await store.orphans(idle_ms=1, limit=1)), 1, "bounded")
    await leased.append(release=True)
    await pass_ms(store, 2)
    same({row.run for row in await store.orphans(idle_ms=1)}, {"leased", "alone", "live"}, "given back")


CHECKS: tuple[Check, ...] = (
    a_parked_run_says_why,
    runs_are_listed_by_outcome,
    parked_runs_are_listed_over_all_tenants,
    claims_in_vain_are_kept,
    a_claim_can_count_for_nothing,
    runs_that_nobody_drives_are_found,
)
