"""Checks of a store: sessions that come from another store, go on, go back, and are never driven twice."""

from __future__ import annotations

from typing import Any

import msgspec

from stanchion.core.errors import Conflict, NotFound, StaleAppend
from stanchion.core.event import Base
from stanchion.core.message import Erased
from stanchion.journal.moving import MovedSession, before, lift
from stanchion.journal.record import verify
from stanchion.journal.store import Ledger, Reserve, Settle, Started, Store
from stanchion.testing.memory import MemoryStore
from stanchion.testing.store_driver import TENANT, Driver, raises, said, same, true, words


async def _lifted(store: Store, session: str) -> MovedSession:
    rows = list(reversed(await store.runs(TENANT, session=session, limit=1_000)))
    keys = {key.id: key for key in await store.moving.keys(TENANT)}
    names = {row.run for row in rows}
    used = [one for one in await store.moving.used_keys(TENANT) if one.run in names]
    return await lift(store, rows, await store.session(TENANT, session), keys, used)


async def _talk(store: Store, session: str = "s", runs: int = 3) -> None:
    """Have a session of some runs, all over."""
    base = None
    for number in range(runs):
        driver = await Driver.make(store, f"{session}-r{number}", session=session)
        key: dict[str, Any] = {"idempotency_key": f"{session}-k{number}", "idempotency_digest": "d"}
        same(await driver.start(base=base, user="ann", **key), Started(driver.run), "start")
        await driver.claim()
        await driver.append(said(f"hello {number}"), said(f"text of {driver.run}"))
        base = await driver.end(cost=7)


async def _same_session(one: Store, other: Store, session: str = "s") -> None:
    """Fail unless both stores hold the session byte for byte."""
    left, right = await _lifted(one, session), await _lifted(other, session)
    same(left.row, right.row, "the session's row")
    same(left.runs, right.runs, "rows, records and inboxes")
    same((left.keys, left.used), (right.keys, right.used), "keys")
    salts = {key.id: key.salt for key in await other.keys(TENANT)}
    for run in right.runs:
        same(verify(TENANT, run.row.run, run.records, salts).head, run.row.hash, f"the chain of {run.row.run}")


async def a_session_is_taken_in_and_goes_on(store: Store) -> None:
    """A session of another store is here byte for byte; taking it in again changes nothing; its next run goes on from it."""
    source = MemoryStore()
    await _talk(source)
    moved = await _lifted(source, "s")
    same(await store.moving.take_in(moved), "added", "taken in")
    await _same_session(source, store)
    same(await store.moving.take_in(moved), "known", "taken in again")
    await _same_session(source, store)
    same(words(await store.read(TENANT, "s-r1")), ["hello", "hello 1", "text of s-r1", "bye"], "content")
    head = moved.row.head if moved.row else None
    driver = await Driver.make(store, "next", session="s")
    same(await driver.start(base=head), Started("next"), "the next run")
    again = await Driver.make(store, "again", session="s")
    key: dict[str, Any] = {"idempotency_key": "s-k1", "idempotency_digest": "d"}
    same(await again.start(**key), Started("s-r1", existing=True), "an idempotency key that came along")
    same(driver.recorder.key.id, moved.keys[0].id, "the key of the user")


async def it_goes_back_as_it_came(store: Store) -> None:
    """A session of this store can be taken in elsewhere, byte for byte."""
    await _talk(store)
    other = MemoryStore()
    same(await other.moving.take_in(await _lifted(store, "s")), "added", "taken in")
    await _same_session(store, other)


async def another_history_is_refused_whole(store: Store) -> None:
    """A run that is here with other events, or a session that goes on here, is refused, and nothing of it is written."""
    source = MemoryStore()
    await _talk(source)
    moved = await _lifted(source, "s")
    await Driver.driving(store, "s-r1", session="other")
    await raises(Conflict, store.moving.take_in(moved), "a run with another history")
    same((await store.session(TENANT, "s"), await store.run(TENANT, "s-r0")), (None, None), "nothing was written")
    second = MemoryStore()
    await _talk(second, "s2")
    await Driver.driving(store, "own", session="s2")
    await raises(Conflict, store.moving.take_in(await _lifted(second, "s2")), "a session that is here")
    same([row.run for row in await store.runs(TENANT, session="s2")], ["own"], "only our own")


async def a_session_that_grew_is_taken_in_again(store: Store) -> None:
    """Runs that were added elsewhere come along; where the session went on here as well it is refused."""
    source = MemoryStore()
    await _talk(source)
    whole = await _lifted(source, "s")
    row = whole.row
    assert row is not None
    first = whole.runs[0]
    head = Base("s-r0", first.row.seq, first.row.hash.hex())
    less = msgspec.structs.replace(whole, runs=(first,), used=whole.used[:1])
    less = msgspec.structs.replace(less, row=msgspec.structs.replace(row, runs=1, head=head))
    same(await store.moving.take_in(less), "added", "one run")
    same(await store.moving.take_in(whole), "grown", "all of them")
    await _same_session(source, store)
    same(await store.moving.take_in(less), "known", "what it had been")
    await _same_session(source, store)
    driver = await Driver.make(store, "own", session="s")
    await driver.start(base=row.head)
    await driver.claim()
    await driver.end()
    other = await Driver.make(source, "theirs", session="s")
    await other.start(base=row.head)
    await raises(Conflict, store.moving.take_in(await _lifted(source, "s")), "it went on in both")


async def a_run_that_was_let_go_is_not_driven_here(store: Store) -> None:
    """What was let go is parked for ever: no claim, no mail, no append; only as it stood may it be taken back."""
    driver = await Driver.driving(store, "r1", session="s")
    await raises(Conflict, store.moving.let_go(TENANT, [("r1", 1)]), "while it is leased")
    await driver.append(said("x"), status="waiting", release=True)
    await raises(Conflict, store.moving.let_go(TENANT, [("r1", 1)]), "at another event")
    await raises(NotFound, store.moving.let_go(TENANT, [("r1", 2), ("none", 0)]), "all or none")
    same((await driver.row()).status, "waiting", "not let go")
    await store.moving.let_go(TENANT, [("r1", 2)])
    await store.moving.let_go(TENANT, [("r1", 2)])
    row = await driver.row()
    same((row.status, row.outcome, before(row).status), ("parked", "moved:waiting", "waiting"), "let go")
    for kind in ("message", "revive", "cancel"):
        await raises(Conflict, store.post(TENANT, "r1", kind, b"x"), kind)
    same(await store.claim(TENANT, "r1", worker="w1", lease_ms=1_000), None, "claim")
    true(not await driver.is_runnable(), "it is not offered")
    moved = await _lifted(store, "s")
    same(await store.moving.take_in(moved), "known", "its own file changes nothing")
    same((await driver.row()).outcome, "moved:waiting", "still let go")
    same(await store.moving.take_in(moved, back=True), "back", "taken back")
    same((await driver.row()).status, "waiting", "as it was")
    await store.post(TENANT, "r1", "message", b"x")
    await driver.claim()


async def a_live_run_goes_on_elsewhere_and_comes_home(store: Store) -> None:
    """A run that was let go is driven in the other store, under a later epoch, and comes back with what it did there."""
    driver = await Driver.driving(store, "r1", session="s")
    await driver.append(said("here"), status="waiting", release=True)
    await store.post(TENANT, "r1", "message", b"from outside")
    await store.moving.let_go(TENANT, [("r1", 2)])
    other = MemoryStore()
    same(await other.moving.take_in(await _lifted(store, "s")), "added", "taken in")
    same([item.body for item in await other.inbox(TENANT, "r1")], [b"from outside"], "its mail")
    there = Driver(other, driver.recorder, TENANT, "r1", "s")
    claim = await there.claim()
    true(claim.epoch > driver.epoch, "a later epoch")
    read = tuple(item.id for item in await other.inbox(TENANT, "r1"))
    await there.append(said("there"), inbox_done=read)
    await there.end()
    await raises(StaleAppend, driver.append(said("late")), "the old driver")
    same(await store.moving.take_in(await _lifted(other, "s")), "grown", "home")
    await _same_session(other, store)
    same(words(await store.read(TENANT, "r1")), ["hello", "here", "there", "bye"], "what it said")
    same(list(await store.inbox(TENANT, "r1")), [], "its mail was read there")


async def erased_content_stays_erased(store: Store) -> None:
    """A destroyed key does not come with a session, nor back with a file that was made before it was destroyed."""
    source = MemoryStore()
    await _talk(source, "one", 1)
    await _talk(source, "two", 1)
    one, two = await _lifted(source, "one"), await _lifted(source, "two")
    await store.moving.take_in(one)
    await store.destroy_key(TENANT, "ann")
    same(await store.moving.take_in(one), "known", "again")
    same(await store.moving.take_in(two), "added", "the other session, whose key was destroyed here")
    for run in ("one-r0", "two-r0"):
        parts = [part for entry in await store.read(TENANT, run) for part in entry.event.parts]
        same({type(part) for part in parts}, {Erased}, run)
    same(list(await store.keys(TENANT)), [], "keys")


async def a_subject_may_have_a_second_key(store: Store) -> None:
    """A user who is known here keeps the key that is here; what came is read under its own; erasing takes both."""
    source = MemoryStore()
    await _talk(source)
    own = await store.key_for(TENANT, "ann")
    same(await store.moving.take_in(await _lifted(source, "s")), "added", "taken in")
    same(await store.key_for(TENANT, "ann"), own, "the key for what comes")
    same(len(await store.keys(TENANT)), 2, "keys")
    same(words(await store.read(TENANT, "s-r0"))[1], "hello 0", "what came")
    same(await store.destroy_key(TENANT, "ann"), True, "erased")
    same(list(await store.keys(TENANT)), [], "both are gone")
    parts = [part for entry in await store.read(TENANT, "s-r0") for part in entry.event.parts]
    same({type(part) for part in parts}, {Erased}, "what came is erased")


async def what_was_spent_is_carried_over(store: Store) -> None:
    """A ledger that is not here begins with what was settled elsewhere, under the limit here; one that is here stays."""
    await store.set_limit(TENANT, "tenant/day", 100)
    name = "tenant/day:2026-11-20"
    theirs = Ledger(TENANT, name, 500, 60, 5, closed=False)
    same(await store.moving.carry_over(theirs), True, "carried over")
    same(await store.moving.carry_over(theirs), False, "again")
    same(list(await store.ledgers(TENANT)), [Ledger(TENANT, name, 100, 60, 0, closed=False)], "ledger")
    driver = await Driver.driving(store, "r1")
    true(await driver.append(reserve=(Reserve(name, 41),)) is not None, "too much")
    same(await driver.append(reserve=(Reserve(name, 40),)), None, "what is left")
    same(await driver.append(settle=(Settle(name, 40, 1),)), None, "settled")


CHECKS = (
    a_session_is_taken_in_and_goes_on,
    it_goes_back_as_it_came,
    another_history_is_refused_whole,
    a_session_that_grew_is_taken_in_again,
    a_run_that_was_let_go_is_not_driven_here,
    a_live_run_goes_on_elsewhere_and_comes_home,
    erased_content_stays_erased,
    a_subject_may_have_a_second_key,
    what_was_spent_is_carried_over,
)
