"""Checks of a store: appends, claims, the inbox, and what is runnable when."""

from __future__ import annotations

import asyncio

from stanchion.core.errors import Conflict, NotFound, StaleAppend, UnreadInbox
from stanchion.journal.store import Store
from stanchion.testing.store_driver import TENANT, Driver, finished, pass_ms, raises, said, same, true, words


async def appends_are_gapless_and_read_back(store: Store) -> None:
    """What is appended is read back whole, in order, with its hashes, and moves the head."""
    driver = await Driver.driving(store, "r1")
    for number in range(3):
        await driver.append(said(f"a{number}"), said(f"b{number}"), cost=10 * number)
    entries = await store.read(TENANT, "r1")
    same([entry.seq for entry in entries], list(range(1, 8)), "seqs")
    same([entry.epoch for entry in entries], [0] + [1] * 6, "epochs")
    same(words(entries), ["hello", "a0", "b0", "a1", "b1", "a2", "b2"], "texts")
    row = await driver.row()
    same((row.seq, row.hash, row.cost), (7, entries[-1].hash, 20), "head")
    true(entries[-1].at_ms >= entries[0].at_ms > 0, "times go on")


async def a_stale_seq_is_refused_whole(store: Store) -> None:
    """An append that expects another seq changes nothing, wherever it stands."""
    driver = await Driver.driving(store, "r1")
    stale, driver.recorder = await driver.prepare(said("lost"), status="waiting", release=True)
    await driver.append(said("kept"))
    await raises(StaleAppend, store.append(stale), "append behind the head")
    await raises(StaleAppend, store.append(driver.of([], 3, 1, status="parked")), "append ahead of the head")
    same(len(await store.read(TENANT, "r1")), 2, "events")
    same((await driver.row()).status, "runnable", "status")


async def a_stale_epoch_is_refused_whole(store: Store) -> None:
    """After a take-over the old worker can write nothing more: no event, no status, no renewal."""
    old = await Driver.driving(store, "r1")
    new = await Driver.make(store, "r1")
    new.recorder.seq, new.recorder.hash = old.recorder.seq, old.recorder.hash
    same((await new.claim("w1")).epoch, 2, "a worker claims again what it has leased itself")
    await raises(StaleAppend, old.append(said("lost")), "append under the old epoch")
    await raises(StaleAppend, old.append(status="parked", release=True), "row-only append under the old epoch")
    same(await store.renew(TENANT, "r1", epoch=1, lease_ms=1_000), False, "renewal under the old epoch")
    await new.append(said("kept"))
    row = await new.row()
    same((row.seq, row.status, row.epoch), (2, "runnable", 2), "head")


async def a_conflict_fails_alone_in_its_group(store: Store) -> None:
    """Of many appends at once, the stale ones fail and the others are written."""
    drivers = [await Driver.driving(store, f"r{number}") for number in range(40)]
    for driver in drivers[::4]:
        driver.epoch += 1
    writes = [driver.append(said(driver.run), said("more")) for driver in drivers]
    results = await asyncio.gather(*writes, return_exceptions=True)
    for number, (driver, result) in enumerate(zip(drivers, results, strict=True)):
        stale = number % 4 == 0
        true(isinstance(result, StaleAppend) if stale else result is None, f"{driver.run}: {result!r}")
        same(len(await store.read(TENANT, driver.run)), 1 if stale else 3, f"events of {driver.run}")


async def one_of_two_racing_appends_wins(store: Store) -> None:
    """Two appends after the same event, at once: one is written, the other is stale."""
    driver = await Driver.driving(store, "r1")
    first, driver.recorder = await driver.prepare(said("one"))
    second, _ = await driver.prepare(said("two"))
    results = await asyncio.gather(store.append(first), store.append(second), return_exceptions=True)
    same(sorted(type(result).__name__ for result in results), ["NoneType", "StaleAppend"], "results")
    same(len(await store.read(TENANT, "r1")), 2, "events")


async def an_ended_run_takes_nothing(store: Store) -> None:
    """After the end: no append, no claim, no renewal, no message; it is not listed as runnable."""
    driver = await Driver.driving(store, "r1")
    await driver.end()
    await raises(StaleAppend, driver.append(said("late")), "append after the end")
    same(await store.claim(TENANT, "r1", worker="w2", lease_ms=1_000), None, "claim")
    same(await store.renew(TENANT, "r1", epoch=1, lease_ms=1_000), False, "renewal")
    await raises(Conflict, store.post(TENANT, "r1", "message", b"x"), "post")
    row = await driver.row()
    same((row.status, row.outcome, row.lease_until_ms), ("ended", "done", 0), "row")
    same(await driver.is_runnable(), False, "runnable")


async def what_is_not_there_is_said(store: Store) -> None:
    """A run that does not exist: append and post raise, claim and renew decline, reads are empty."""
    driver = await Driver.make(store, "none")
    await raises(NotFound, driver.append(said("x")), "append")
    await raises(NotFound, store.post(TENANT, "none", "message", b"x"), "post")
    same(await store.claim(TENANT, "none", worker="w", lease_ms=1), None, "claim")
    same(await store.renew(TENANT, "none", epoch=0, lease_ms=1), False, "renew")
    same((await store.run(TENANT, "none"), await store.session(TENANT, "none")), (None, None), "rows")
    same((list(await store.read(TENANT, "none")), list(await store.inbox(TENANT, "none"))), ([], []), "lists")
    same(await store.bundle(TENANT, "none"), None, "bundle")
    same(await store.next_wake_ms(), 0, "next wake")


async def a_lease_keeps_others_out_until_it_ends(store: Store) -> None:
    """A leased run is neither listed nor claimed by others; it is both when the lease has ended, and renewal prolongs it."""
    driver = await Driver.started(store, "r1")
    same(await driver.is_runnable(), True, "a started run is runnable")
    await driver.claim("w1", lease_ms=300)
    same(await driver.is_runnable(), False, "leased, it is not listed")
    same(await store.claim(TENANT, "r1", worker="w2", lease_ms=1_000), None, "claim by another")
    wake_ms = await store.next_wake_ms()
    true(0 < wake_ms <= await store.now_ms() + 300, "the end of the lease is a time to wake")
    await pass_ms(store, 301)
    same(await driver.is_runnable(), True, "listed after its lease")
    same(await store.renew(TENANT, "r1", epoch=1, lease_ms=60_000), True, "renewal of what nobody took")
    same(await driver.is_runnable(), False, "renewed, it is not listed")
    same(await store.claim(TENANT, "r1", worker="w2", lease_ms=1_000), None, "claim after renewal")
    await driver.append(release=True)
    same(await driver.is_runnable(), True, "given back, it is listed")


async def leases_are_renewed_together(store: Store) -> None:
    """Many leases are prolonged at once; what is over, claimed again or not there is left out."""
    drivers = [await Driver.started(store, f"r{number}") for number in range(4)]
    for driver in drivers:
        await driver.claim("w1", lease_ms=40)
    await drivers[1].claim("w1", lease_ms=40)
    await drivers[2].end()
    held = [(TENANT, driver.run, 1) for driver in drivers] + [(TENANT, "none", 1), ("other", "r0", 1)]
    same(await store.renew_all(held, lease_ms=60_000), {(TENANT, "r0"), (TENANT, "r3")}, "renewed")
    same(await store.renew_all([], lease_ms=1), set(), "nothing")
    await pass_ms(store, 41)
    same([ref.run for ref in await store.runnable(limit=9)], ["r1"], "whose lease has ended")


async def what_was_given_back_is_not_renewed(store: Store) -> None:
    """A renewal that comes after its run was let go leases it to nobody: the next may claim it at once."""
    driver = await Driver.driving(store, "r1")
    await driver.append(said("?"), status="waiting", release=True)
    same(await store.renew(TENANT, "r1", epoch=1, lease_ms=60_000), False, "renewal")
    same((await driver.row()).lease_until_ms, 0, "lease")
    await store.post(TENANT, "r1", "message", b"x")
    same((await driver.claim("w2")).epoch, 2, "the claim of another")


async def a_thawed_worker_is_stale(store: Store) -> None:
    """A worker that slept through its lease, while another took the run over, is stopped by its next append."""
    frozen = await Driver.started(store, "r1")
    await frozen.claim("w1", lease_ms=20)
    await pass_ms(store, 21)
    other = await Driver.make(store, "r1")
    other.recorder.seq, other.recorder.hash = frozen.recorder.seq, frozen.recorder.hash
    claim = await other.claim("w2")
    same((claim.epoch, claim.seq, claim.attempts), (2, 1, 2), "the second claim")
    await raises(StaleAppend, frozen.append(said("thawed")), "append after the take-over")
    await other.append(said("mine"))
    same([entry.epoch for entry in await store.read(TENANT, "r1")], [0, 2], "epochs")


async def an_unclaimed_expired_lease_still_writes(store: Store) -> None:
    """A lease that ended takes nothing away: until another claims, its worker goes on."""
    driver = await Driver.started(store, "r1")
    await driver.claim(lease_ms=5)
    await pass_ms(store, 6)
    same(await driver.append(said("late but mine")), None, "append")


async def attempts_count_until_progress(store: Store) -> None:
    """Every claim counts; progress starts the count again; an append without it does not."""
    driver = await Driver.started(store, "r1")
    same([(await driver.claim()).attempts for _ in range(3)], [1, 2, 3], "attempts")
    await driver.append(said("no progress"))
    same((await driver.claim()).attempts, 4, "attempts after an append without progress")
    await driver.append(said("progress"), progress=True)
    same((await driver.row()).attempts, 0, "attempts after progress")
    same((await driver.claim()).attempts, 1, "attempts of the next claim")


async def waiting_ends_by_the_inbox(store: Store) -> None:
    """A waiting run is not listed; what is posted makes it runnable, and is taken out by the append that used it."""
    driver = await Driver.driving(store, "r1")
    await driver.append(said("?"), status="waiting", release=True)
    same(await driver.is_runnable(), False, "waiting")
    first = await store.post(TENANT, "r1", "message", b"one")
    second = await store.post(TENANT, "r1", "decision", b"two")
    true(second > first, "ids grow")
    same(await driver.is_runnable(), True, "after a post")
    items = await store.inbox(TENANT, "r1")
    same([(i.id, i.kind, i.body) for i in items], [(first, "message", b"one"), (second, "decision", b"two")], "inbox")
    await driver.claim()
    await driver.append(said("one"), inbox_done=(first,), status="waiting", release=True)
    same((await driver.row()).status, "runnable", "waiting with an unread item is runnable")
    await driver.claim()
    await driver.append(said("two"), inbox_done=(second,), status="waiting", release=True)
    same((await driver.row()).status, "waiting", "waiting with all read")
    same(list(await store.inbox(TENANT, "r1")), [], "inbox")
    third = await store.post(TENANT, "r1", "message", b"three")
    true(third > second, "an id is not used twice")


async def a_post_is_never_lost_to_waiting(store: Store) -> None:
    """Posted at the same time as the driver goes to wait: in either order the run is runnable in the end."""
    drivers = [await Driver.driving(store, f"r{number}") for number in range(20)]
    waits = [driver.append(status="waiting", release=True) for driver in drivers]
    posts = [store.post(TENANT, driver.run, "message", b"x") for driver in drivers]
    mixed = [call for pair in zip(waits, posts, strict=True) for call in pair]
    await asyncio.gather(*mixed[::2], *mixed[1::2])
    await asyncio.gather(*(store.post(TENANT, driver.run, "message", b"y") for driver in drivers))
    for driver in drivers:
        same((await driver.row()).status, "runnable", driver.run)


async def a_post_under_a_key_is_made_once(store: Store) -> None:
    """The same key and digest is one row of the inbox, at once or after the run's end; another digest is refused."""
    driver = await Driver.driving(store, "r1", idempotency_key="start", idempotency_digest="d")
    posts = (store.post(TENANT, "r1", "message", b"x", key="k", digest="d") for _ in range(8))
    numbers = await asyncio.gather(*posts)
    same(sum(number > 0 for number in numbers), 1, f"posted: {numbers}")
    items = await store.inbox(TENANT, "r1")
    same([item.id for item in items], [max(numbers)], "inbox")
    for key, digest in (("k", "e"), ("start", "e")):
        error = await raises(Conflict, store.post(TENANT, "r1", "message", b"x", key=key, digest=digest), key)
        same(error.code, "idempotency_mismatch", "code")
    true(await store.post(TENANT, "r1", "message", b"x", key="other", digest="d") > 0, "another key")
    await driver.end(inbox_done=tuple(item.id for item in await store.inbox(TENANT, "r1")))
    same(await store.post(TENANT, "r1", "message", b"x", key="k", digest="d"), 0, "after the end")
    await raises(Conflict, store.post(TENANT, "r1", "message", b"x", key="new", digest="d"), "a new one after the end")


async def a_run_does_not_end_over_its_inbox(store: Store) -> None:
    """What was accepted for a run is taken in before it ends; the append that would end it is refused whole."""
    driver = await Driver.driving(store, "r1")
    item = await store.post(TENANT, "r1", "message", b"x")
    await raises(UnreadInbox, driver.end(), "an append that ends a run with something unread")
    same((await driver.row()).seq, 1, "nothing of it was written")
    await driver.end(inbox_done=(item,))
    same((await driver.row()).status, "ended", "it ends when that is read")


async def a_wake_time_makes_runnable(store: Store) -> None:
    """A waiting run with a time is listed from that time on, and the next such time can be asked for."""
    driver = await Driver.driving(store, "r1")
    at_ms = await store.now_ms() + 300
    await driver.append(status="waiting", wake_at_ms=at_ms, release=True)
    same((await driver.is_runnable(), await store.next_wake_ms()), (False, at_ms), "before its time")
    await pass_ms(store, 301)
    same(await driver.is_runnable(), True, "after its time")
    claim = await driver.claim()
    same((claim.epoch, (await driver.row()).status), (2, "runnable"), "claimed")
    await driver.append(status="waiting", release=True)
    same((await driver.is_runnable(), await store.next_wake_ms()), (False, 0), "without a time")


async def a_due_run_is_listed_when_its_lease_has_ended(store: Store) -> None:
    """A driver that waits without giving its lease back keeps it; the next wake is when somebody may claim."""
    driver = await Driver.started(store, "r1")
    await driver.claim(lease_ms=300)
    until_ms = (await driver.row()).lease_until_ms
    await driver.append(status="waiting", wake_at_ms=1)
    same((await driver.is_runnable(), await store.next_wake_ms()), (False, until_ms), "due and leased")
    await pass_ms(store, 301)
    same(await driver.is_runnable(), True, "due, and the lease has ended")


async def the_next_wake_is_the_earliest(store: Store) -> None:
    """Of many times, leases included, the earliest is given."""
    now_ms = await store.now_ms()
    for number, after_ms in enumerate((90_000, 30_000, 60_000)):
        driver = await Driver.driving(store, f"r{number}")
        await driver.append(status="waiting", wake_at_ms=now_ms + after_ms, release=True)
    same(await store.next_wake_ms(), now_ms + 30_000, "next wake")
    await (await Driver.started(store, "r9")).claim(lease_ms=10_000)
    true(await store.next_wake_ms() < now_ms + 30_000, "a lease that ends earlier")


async def runnable_by_priority_then_age(store: Store) -> None:
    """The higher priority first, then the older run; never more than asked for."""
    for run, priority in (("a", 0), ("b", 5), ("c", 0), ("d", 5), ("e", -1)):
        await Driver.started(store, run, priority=priority)
    same([ref.run for ref in await store.runnable(limit=10)], list("bdace"), "order")
    due = await Driver.driving(store, "f", priority=9)
    await due.append(status="waiting", wake_at_ms=1, release=True)
    same([ref.run for ref in await store.runnable(limit=2)], ["f", "b"], "a waiting run that is due")


async def parked_only_by_revive_or_cancel(store: Store) -> None:
    """A parked run stays so whatever is posted, but for these two, which also start the count of claims again."""
    driver = await Driver.driving(store, "r1")
    await driver.claim()
    await driver.append(said("broken"), status="parked", release=True)
    await store.post(TENANT, "r1", "message", b"x")
    same((await driver.row()).status, "parked", "after a message")
    same(await store.claim(TENANT, "r1", worker="w", lease_ms=1), None, "claim")
    await store.post(TENANT, "r1", "revive", b"{}")
    same(await driver.is_runnable(), True, "after revive")
    same((await driver.claim()).attempts, 1, "attempts")
    same([item.kind for item in await store.inbox(TENANT, "r1")], ["message", "revive"], "inbox")
    await driver.append(status="parked", release=True)
    await store.post(TENANT, "r1", "cancel", b"{}")
    same(await driver.is_runnable(), True, "after cancel")


async def a_seized_store_has_no_leases_of_others(store: Store) -> None:
    """Where a store is made for one driver, taking it over frees what the driver before had leased, but not one's own."""
    await (await Driver.started(store, "r1")).claim("dead")
    await (await Driver.started(store, "r2")).claim("mine")
    same(await store.seize("mine"), True, "seized")
    same(await store.seize("mine"), True, "seized again")
    listed = [ref.run for ref in await store.runnable(limit=10)]
    true(listed in (["r1"], []), f"runnable after the seizure: {listed}")
    if listed:
        claim = await store.claim(TENANT, "r1", worker="mine", lease_ms=1_000)
        same(claim and (claim.epoch, claim.attempts), (2, 2), "the claim of what was freed")
    same(await store.renew(TENANT, "r2", epoch=1, lease_ms=1_000), True, "one's own lease stands")


async def a_store_alone_sees_no_others(store: Store) -> None:
    """Its own writes are not those of another process."""
    await Driver.driving(store, "r1")
    same(await store.changed_elsewhere(), False, "changed elsewhere")


async def reads_page_by_seq(store: Store) -> None:
    """`after` and `limit` cut the journal anywhere, without gaps and without repeats."""
    driver = await Driver.driving(store, "r1")
    for first in range(0, 1_200, 100):
        await driver.append(*(said(str(number)) for number in range(first, first + 100)))
    same(len(await store.read(TENANT, "r1")), 1_201, "all")
    same([entry.seq for entry in await store.read(TENANT, "r1", after=1_199)], [1_200, 1_201], "after")
    same([entry.seq for entry in await store.read(TENANT, "r1", after=3, limit=2)], [4, 5], "after and limit")
    same(len(await store.read(TENANT, "r1", limit=777)), 777, "limit")
    same(list(await store.read(TENANT, "r1", after=1_201)), [], "after the end")
    same([record.seq for record in await store.raw(TENANT, "r1", after=599, limit=3)], [600, 601, 602], "raw")


async def a_finished_group_is_all_there(store: Store) -> None:
    """Ends, starts, claims and appends of many runs at once are all as if they had come one by one."""

    async def live(number: int) -> None:
        driver = await Driver.driving(store, f"r{number:02}")
        await driver.append(said("a"), progress=True)
        await driver.append(said("b"), finished(), status="ended", outcome="done")

    await asyncio.gather(*(live(number) for number in range(30)))
    rows = await store.runs(TENANT, limit=100)
    same({(row.status, row.seq, row.epoch, row.attempts) for row in rows}, {("ended", 4, 1, 0)}, "rows")
    same(len(rows), 30, "runs")


CHECKS = (
    appends_are_gapless_and_read_back,
    a_stale_seq_is_refused_whole,
    a_stale_epoch_is_refused_whole,
    a_conflict_fails_alone_in_its_group,
    one_of_two_racing_appends_wins,
    an_ended_run_takes_nothing,
    what_is_not_there_is_said,
    a_lease_keeps_others_out_until_it_ends,
    leases_are_renewed_together,
    what_was_given_back_is_not_renewed,
    a_thawed_worker_is_stale,
    an_unclaimed_expired_lease_still_writes,
    attempts_count_until_progress,
    waiting_ends_by_the_inbox,
    a_post_is_never_lost_to_waiting,
    a_post_under_a_key_is_made_once,
    a_run_does_not_end_over_its_inbox,
    a_wake_time_makes_runnable,
    a_due_run_is_listed_when_its_lease_has_ended,
    the_next_wake_is_the_earliest,
    runnable_by_priority_then_age,
    parked_only_by_revive_or_cancel,
    a_seized_store_has_no_leases_of_others,
    a_store_alone_sees_no_others,
    reads_page_by_seq,
    a_finished_group_is_all_there,
)
