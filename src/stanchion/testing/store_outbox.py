"""Checks of a store: what an append announces is delivered at least once, in order for each run, and else not at all."""

from __future__ import annotations

import asyncio
from typing import Any

from stanchion.core.errors import StaleAppend
from stanchion.journal.outbox import Announcement, Claimed, Endpoint, EventKind, Secrets, Settled
from stanchion.journal.store import Refused, Reserve, Store
from stanchion.testing.store_driver import TENANT, Driver, finished, raises, said, same, true


def _announce(seq: int, kind: EventKind = "run.asked", agent: str = "support") -> tuple[Announcement, ...]:
    return (Announcement(kind, seq, agent, b'{"seq":%d}' % seq),)


async def _endpoint(store: Store, id: str = "e1", **fields: Any) -> Endpoint:
    asked: dict[str, Any] = {
        "tenant": TENANT,
        "url": f"https://{id}.test/",
        "lane": f"{TENANT}/{id}",
        "secrets": Secrets("whsec_1"),
    }
    endpoint = Endpoint(id=id, **{**asked, **fields})
    true(await store.outbox.add(endpoint), f"endpoint {id} is added")
    return endpoint


async def _claim(store: Store, lane: str = f"{TENANT}/e1", limit: int = 10, lease_ms: int = 60_000) -> list[Claimed]:
    return list(await store.outbox.claim(lane, lease_ms=lease_ms, limit=limit))


def _done(claimed: Claimed) -> Settled:
    delivery = claimed.delivery
    return Settled(delivery.tenant, delivery.id, delivery.attempts, "done", 200)


async def endpoints_are_kept(store: Store) -> None:
    """An endpoint comes back as it was added; its id is the tenant's own; secrets change only from what they were."""
    await _endpoint(store, events=("run.finished",), agents=("support", "sales"), include=("answer",))
    same(await store.outbox.add(Endpoint(tenant=TENANT, id="e1", url="https://x.test/", lane="x")), False, "a second")
    await _endpoint(store, "e1", tenant="other")
    found = await store.outbox.endpoint(TENANT, "e1")
    if found is None:
        raise AssertionError("it is not found")
    same((found.events, found.agents, found.include), (("run.finished",), ("support", "sales"), ("answer",)), "lists")
    same((found.secrets, found.enabled, found.run), (Secrets("whsec_1"), True, ""), "the rest")
    new = Secrets("whsec_2", "whsec_1", 5)
    same(await store.outbox.set_secrets(TENANT, "e1", new, was="whsec_0"), False, "from another secret")
    true(await store.outbox.set_secrets(TENANT, "e1", new, was="whsec_1"), "from the one it had")
    found = await store.outbox.endpoint(TENANT, "e1")
    same(found and found.secrets, new, "secrets")
    same([row.id for row in await store.outbox.endpoints(TENANT)], ["e1"], "listed")
    same(await store.outbox.secrets(TENANT), None, "the tenant's own")
    true(await store.outbox.set_secrets(TENANT, "", Secrets("whsec_t"), was=""), "the first")
    same(await store.outbox.set_secrets(TENANT, "", Secrets("whsec_u"), was=""), False, "a first again")
    true(await store.outbox.set_secrets(TENANT, "", Secrets("whsec_u", "whsec_t", 9), was="whsec_t"), "the next")
    same(await store.outbox.secrets(TENANT), Secrets("whsec_u", "whsec_t", 9), "the tenant's own")


async def an_append_announces_to_who_wants_it(store: Store) -> None:
    """A delivery for each enabled endpoint of the tenant that wants the event and the agent, with one stable id each."""
    await _endpoint(store, "all")
    await _endpoint(store, "ends", events=("run.finished",))
    await _endpoint(store, "sales", agents=("sales",))
    await _endpoint(store, "theirs", tenant="other")
    await _endpoint(store, "off")
    await store.outbox.enable(TENANT, "off", enabled=False, note="gone")
    driver = await Driver.driving(store, "r1")
    same(list(await store.outbox.lanes(limit=10)), [], "before")
    await driver.append(said("asks"), announce=_announce(2))
    await driver.append(finished(), status="ended", announce=_announce(3, "run.finished"))
    rows = await store.outbox.deliveries(TENANT)
    told = [(row.endpoint, row.kind, row.seq) for row in rows]
    expected = [("ends", "run.finished", 3), ("all", "run.finished", 3), ("all", "run.asked", 2)]
    same(sorted(told), sorted(expected), "deliveries")
    same(told[-1], ("all", "run.asked", 2), "the oldest is last")
    same(len({row.id for row in rows}), 3, "ids")
    same((rows[-1].body, rows[-1].standing, rows[-1].attempts, rows[-1].run), (b'{"seq":2}', "pending", 0, "r1"), "row")
    same(list(await store.outbox.lanes(limit=10)), [f"{TENANT}/all", f"{TENANT}/ends"], "lanes")
    same(list(await store.outbox.lanes(limit=1)), [f"{TENANT}/all"], "as many as asked")
    same(list(await store.outbox.deliveries("other")), [], "of another tenant")


async def an_append_that_fails_announces_nothing(store: Store) -> None:
    """A stale append and one that a budget refuses leave no delivery; the same append announces once it is written."""
    await _endpoint(store)
    await store.set_limit(TENANT, "tenant", 10)
    driver = await Driver.driving(store, "r1")
    await raises(StaleAppend, store.append(driver.of([], 1, 99, announce=_announce(2))), "stale")
    refused = await driver.append(said("x"), reserve=(Reserve("tenant", 11),), announce=_announce(2))
    true(isinstance(refused, Refused), "refused")
    same(list(await store.outbox.deliveries(TENANT)), [], "deliveries")
    await driver.append(said("x"), reserve=(Reserve("tenant", 10),), announce=_announce(2))
    same(len(await store.outbox.deliveries(TENANT)), 1, "deliveries")


async def a_run_has_a_callback_of_its_own(store: Store) -> None:
    """A callback hears of its run only, from the first append on, and is signed with the tenant's secret."""
    await store.outbox.set_secrets(TENANT, "", Secrets("whsec_t"), was="")
    hook = Endpoint(tenant=TENANT, id="r1", url="https://me.test/", lane="acme/me", run="r1")
    await Driver.started(store, "r1", callback=hook, first={"announce": _announce(1)})
    other = await Driver.driving(store, "r2")
    await other.append(said("x"), announce=_announce(2))
    same([(row.run, row.seq) for row in await store.outbox.deliveries(TENANT)], [("r1", 1)], "deliveries")
    same(list(await store.outbox.endpoints(TENANT)), [], "listed endpoints")
    claimed = await _claim(store, "acme/me")
    same([(c.endpoint.url, c.secrets) for c in claimed], [("https://me.test/", Secrets("whsec_t"))], "claimed")


async def deliveries_are_claimed_by_lease_and_in_order(store: Store) -> None:
    """Of a run only the first pending delivery is claimed; who is claimed is not due until the lease ends."""
    await _endpoint(store)
    one, two = await Driver.driving(store, "r1"), await Driver.driving(store, "r2")
    await one.append(said("x"), announce=_announce(2))
    await one.append(said("x"), announce=_announce(3))
    await two.append(said("x"), announce=_announce(2))
    claimed = await _claim(store)
    same([(c.delivery.run, c.delivery.seq) for c in claimed], [("r1", 2), ("r2", 2)], "first")
    same([c.delivery.attempts for c in claimed], [1, 1], "attempts")
    same(await _claim(store), [], "while they are leased")
    await store.outbox.settle([_done(claimed[0])])
    same([(c.delivery.run, c.delivery.seq) for c in await _claim(store)], [("r1", 3)], "then what follows")
    same(await _claim(store), [], "nothing is left")
    true(await store.outbox.next_due_ms() > await store.now_ms(), "due when the leases end")


async def a_lease_that_ends_is_taken_over(store: Store) -> None:
    """A dead worker's delivery is claimed again; its late refusal changes nothing, its late success counts."""
    await _endpoint(store)
    driver = await Driver.driving(store, "r1")
    await driver.append(said("x"), announce=_announce(2))
    (old,) = await _claim(store, lease_ms=0)
    await asyncio.sleep(0.002)
    (new,) = await _claim(store)
    same((new.delivery.id, new.delivery.attempts), (old.delivery.id, 2), "claimed again")
    late = Settled(TENANT, old.delivery.id, 1, "dead", 500, "late")
    await store.outbox.settle([late])
    same((await store.outbox.deliveries(TENANT))[0].standing, "pending", "after the late refusal")
    await store.outbox.settle([_done(old)])
    same((await store.outbox.deliveries(TENANT))[0].standing, "done", "after the late success")
    await store.outbox.settle([Settled(TENANT, old.delivery.id, 2, "dead", 500, "no")])
    row = (await store.outbox.deliveries(TENANT))[0]
    same((row.standing, row.status, row.settled_ms > 0), ("done", 200, True), "and stays")
    same(await store.outbox.next_due_ms(), 0, "due")


async def a_retry_waits_and_what_follows_waits_with_it(store: Store) -> None:
    """A delivery that failed is due at its time; the run's later ones not before; other runs go on."""
    await _endpoint(store)
    one, two = await Driver.driving(store, "r1"), await Driver.driving(store, "r2")
    await one.append(said("x"), announce=_announce(2))
    await one.append(said("x"), announce=_announce(3))
    await two.append(said("x"), announce=_announce(2))
    (first,) = await _claim(store, limit=1)
    later_ms = await store.now_ms() + 60_000
    await store.outbox.settle([Settled(TENANT, first.delivery.id, 1, "pending", 503, "busy", later_ms)])
    same([c.delivery.run for c in await _claim(store)], ["r2"], "the other run")
    rows = {(row.run, row.seq): row for row in await store.outbox.deliveries(TENANT)}
    same((rows["r1", 2].next_ms, rows["r1", 3].next_ms), (later_ms, later_ms), "times")
    same((rows["r1", 2].status, rows["r1", 2].note), (503, "busy"), "why")


async def what_is_given_up_is_listed_and_posted_again(store: Store) -> None:
    """A dead delivery says why, holds up nobody, and is pending again when somebody wishes, with its id."""
    await _endpoint(store)
    driver = await Driver.driving(store, "r1")
    await driver.append(said("x"), announce=_announce(2))
    await driver.append(said("x"), announce=_announce(3))
    (first,) = await _claim(store)
    await store.outbox.settle([Settled(TENANT, first.delivery.id, 1, "dead", 404, "no such page")])
    dead = await store.outbox.deliveries(TENANT, standing="dead")
    same([(row.seq, row.status, row.note) for row in dead], [(2, 404, "no such page")], "dead")
    (second,) = await _claim(store)
    same(second.delivery.seq, 3, "the next goes on")
    same(await store.outbox.redeliver(TENANT, id=dead[0].id), 1, "redelivered")
    same(await store.outbox.redeliver(TENANT, id=dead[0].id), 0, "which it is already")
    (again,) = await _claim(store)
    same((again.delivery.id, again.delivery.attempts), (dead[0].id, 1), "again")
    await store.outbox.settle([Settled(TENANT, again.delivery.id, 1, "dead", 404, "no"), _done(second)])
    same(await store.outbox.redeliver(TENANT, endpoint="e1"), 1, "all of an endpoint's")
    same(await store.outbox.redeliver("other", endpoint="e1"), 0, "of another tenant")


async def a_disabled_endpoint_gives_up_what_it_had_to_get(store: Store) -> None:
    """Disabled, it gets nothing more and says why; enabled, it gets what happens from then on; removed, it is gone."""
    await _endpoint(store)
    driver = await Driver.driving(store, "r1")
    await driver.append(said("x"), announce=_announce(2))
    true(await store.outbox.enable(TENANT, "e1", enabled=False, note="410"), "disabled")
    await driver.append(said("x"), announce=_announce(3))
    same([(r.seq, r.standing, r.note) for r in await store.outbox.deliveries(TENANT)], [(2, "dead", "410")], "rows")
    same(await _claim(store), [], "nothing is due")
    true(await store.outbox.enable(TENANT, "e1", enabled=True), "enabled")
    await driver.append(said("x"), announce=_announce(4))
    same([c.delivery.seq for c in await _claim(store)], [4], "from then on")
    true(await store.outbox.remove(TENANT, "e1"), "removed")
    same(list(await store.outbox.deliveries(TENANT)), [], "its deliveries")
    same(await store.outbox.remove(TENANT, "e1"), False, "a second time")
    same(await store.outbox.enable(TENANT, "e1", enabled=True), False, "of what is gone")


async def an_endpoint_is_told_without_a_run(store: Store) -> None:
    """A trial goes to the one endpoint; of one that is not there nothing is written."""
    await _endpoint(store)
    await _endpoint(store, "e2")
    told = await store.outbox.tell(TENANT, "e1", Announcement("webhook.test", 7, "", b"{}"))
    rows = await store.outbox.deliveries(TENANT)
    same([(row.id, row.endpoint, row.kind, row.seq) for row in rows], [(told, "e1", "webhook.test", 7)], "deliveries")
    same(await store.outbox.delivery(TENANT, told or ""), rows[0], "read by itself")
    same(await store.outbox.delivery("other", told or ""), None, "of another tenant")
    again = await store.outbox.tell(TENANT, "e1", Announcement("webhook.test", 8, "", b"{}"))
    claimed = await _claim(store)
    same({each.delivery.id for each in claimed}, {told, again}, "both at once: trials are in no order")
    later_ms = await store.now_ms() + 60_000
    await store.outbox.settle([Settled(TENANT, told or "", 1, "pending", 500, "busy", later_ms)])
    third = await store.outbox.tell(TENANT, "e1", Announcement("webhook.test", 9, "", b"{}"))
    same([each.delivery.id for each in await _claim(store)], [third], "a trial waits for no other")
    same(await store.outbox.tell(TENANT, "e9", Announcement("webhook.test", 7, "", b"{}")), None, "of nobody")


async def deliveries_are_listed_in_pages_and_forgotten(store: Store) -> None:
    """Newest first, from behind one on, by endpoint, run and standing; old ones that are settled are forgotten."""
    await _endpoint(store)
    driver = await Driver.driving(store, "r1")
    for seq in range(2, 7):
        await driver.append(said("x"), announce=_announce(seq))
    page = await store.outbox.deliveries(TENANT, limit=2)
    same([row.seq for row in page], [6, 5], "first page")
    rest = await store.outbox.deliveries(TENANT, before=page[-1].id)
    same([row.seq for row in rest], [4, 3, 2], "rest")
    same(len(await store.outbox.deliveries(TENANT, endpoint="e1", run="r1", standing="pending")), 5, "by all")
    same(list(await store.outbox.deliveries(TENANT, run="r9")), [], "of another run")
    (claimed,) = await _claim(store)
    await store.outbox.settle([_done(claimed)])
    soon_ms = await store.now_ms() + 1_000
    same(await store.outbox.prune(done_before_ms=0, dead_before_ms=soon_ms), 0, "too young")
    same(await store.outbox.prune(done_before_ms=soon_ms, dead_before_ms=0), 1, "old")
    same(len(await store.outbox.deliveries(TENANT)), 4, "left")


async def many_workers_share_a_lane(store: Store) -> None:
    """Claims at the same time never take the same delivery."""
    await _endpoint(store)
    drivers = await asyncio.gather(*(Driver.driving(store, f"r{number:02}") for number in range(40)))
    await asyncio.gather(*(driver.append(said("x"), announce=_announce(2)) for driver in drivers))
    claims = await asyncio.gather(*(_claim(store, limit=7) for _ in range(8)))
    ids = [claimed.delivery.id for claim in claims for claimed in claim]
    ids += [claimed.delivery.id for claimed in await _claim(store, limit=40)]
    same((len(ids), len(set(ids))), (40, 40), "claimed")


CHECKS = (
    endpoints_are_kept,
    an_append_announces_to_who_wants_it,
    an_append_that_fails_announces_nothing,
    a_run_has_a_callback_of_its_own,
    deliveries_are_claimed_by_lease_and_in_order,
    a_lease_that_ends_is_taken_over,
    a_retry_waits_and_what_follows_waits_with_it,
    what_is_given_up_is_listed_and_posted_again,
    a_disabled_endpoint_gives_up_what_it_had_to_get,
    an_endpoint_is_told_without_a_run,
    deliveries_are_listed_in_pages_and_forgotten,
    many_workers_share_a_lane,
)
