"""Checks of a store: starts, sessions, idempotency keys, and listings."""

from __future__ import annotations

import asyncio
from typing import Any

from stanchion.core.errors import Conflict
from stanchion.core.event import Base, RunStarted
from stanchion.journal.store import IdempotencyMismatch, Refused, Reserve, SessionBusy, SessionMoved, Started, Store
from stanchion.testing.store_driver import TENANT, Driver, raises, said, same, true


async def a_start_is_a_run_and_a_session(store: Store) -> None:
    """A start writes the row, the first event and the session, and the run is there to be claimed."""
    driver = await Driver.started(
        store, "r1", session="s1", user="ann", priority=3, parent="p/1.0", root="p", agent="support"
    )
    row = await driver.row()
    same((row.session, row.agent, row.bundle, row.user), ("s1", "support", "b" * 64, "ann"), "names")
    same((row.status, row.outcome, row.epoch, row.seq, row.attempts), ("runnable", "", 0, 1, 0), "state")
    same((row.priority, row.parent, row.root, row.worker, row.cost), (3, "p/1.0", "p", "", 0), "rest")
    true(row.created_ms == row.updated_ms > 0, "times")
    session = await store.session(TENANT, "s1")
    found = session and (session.agent, session.user, session.head, session.live, session.runs)
    same(found, ("support", "ann", None, "r1", 1), "session")
    entries = await store.read(TENANT, "r1")
    true(len(entries) == 1 and isinstance(entries[0].event, RunStarted), "the first event")


async def a_start_can_claim(store: Store) -> None:
    """A start that names its worker is its first claim, and brings what the driver does first."""
    driver = await Driver.started(store, "r1", worker="w1", lease_ms=60_000)
    row = await driver.row()
    same((row.epoch, row.attempts, row.worker, row.status), (1, 1, "w1", "runnable"), "row")
    same(await driver.is_runnable(), False, "leased from the start")
    same(await store.claim(TENANT, "r1", worker="w2", lease_ms=1), None, "claim by another")
    await driver.append(said("mine"))
    same([entry.epoch for entry in await store.read(TENANT, "r1")], [1, 1], "epochs")


async def a_start_can_be_the_end(store: Store) -> None:
    """A run that cannot even begin ends in its first append, and its session is free again."""
    driver = await Driver.started(
        store, "r1", session="s1", worker="w1", first={"status": "ended", "outcome": "halted"}
    )
    row = await driver.row()
    same((row.status, row.outcome, row.seq, row.lease_until_ms), ("ended", "halted", 1, 0), "row")
    session = await store.session(TENANT, "s1")
    same(session and (session.live, session.head), ("", Base("r1", 1, row.hash.hex())), "session")


async def a_run_id_is_used_once(store: Store) -> None:
    """A second start under the same id is refused and changes nothing."""
    await Driver.started(store, "r1")
    await raises(Conflict, (await Driver.make(store, "r1", session="other")).start(), "start")
    same((await store.session(TENANT, "other"), len(await store.read(TENANT, "r1"))), (None, 1), "what there is")


async def the_end_moves_the_session(store: Store) -> None:
    """The end of a run moves the session's head to it; the next start must name that head."""
    first = await Driver.driving(store, "r1", session="s1")
    base = await first.end()
    session = await store.session(TENANT, "s1")
    same(session and (session.head, session.live, session.runs), (base, "", 1), "session after the end")
    second = await Driver.make(store, "r2", session="s1")
    same(await second.start(), SessionMoved(base), "start without a base")
    same(await second.start(base=Base("r1", 1, "00")), SessionMoved(base), "start on another base")
    same(await store.run(TENANT, "r2"), None, "a refused start leaves no run")
    same(await second.start(base=base), Started("r2"), "start on the head")
    session = await store.session(TENANT, "s1")
    same(session and (session.head, session.live, session.runs), (base, "r2", 2), "session with a live run")
    fresh = await Driver.make(store, "r3", session="s3")
    same(await fresh.start(base=base), SessionMoved(None), "a base in a new session")


async def a_live_run_makes_its_session_busy(store: Store) -> None:
    """A session has one live run, whatever that run waits for; others are refused and leave nothing."""
    driver = await Driver.driving(store, "r1", session="s1")
    second = await Driver.make(store, "r2", session="s1")
    for status in ("runnable", "waiting", "parked"):
        await driver.append(status=status)
        same(await second.start(), SessionBusy("r1"), f"start while the live run is {status}")
    same((await store.run(TENANT, "r2"), list(await store.read(TENANT, "r2"))), (None, []), "the refused run")


async def one_of_many_racing_starts_wins(store: Store) -> None:
    """Of many starts in one session at once, one is accepted and the others find it busy."""
    drivers = [await Driver.make(store, f"r{number}", session="s1") for number in range(12)]
    results = await asyncio.gather(*(driver.start() for driver in drivers))
    accepted = [result for result in results if isinstance(result, Started)]
    same(len(accepted), 1, "accepted")
    others = [result for result in results if not isinstance(result, Started)]
    same(set(others), {SessionBusy(accepted[0].run)}, "the others")


async def queued_runs_follow_in_order(store: Store) -> None:
    """Queued runs wait for their session, keep their request, and become live one after the other as runs end."""
    driver = await Driver.driving(store, "r1", session="s1")
    for run in ("r2", "r3"):
        queued = await Driver.make(store, run, session="s1")
        same(await queued.start(queued=True, request=run.encode()), Started(run), f"queueing {run}")
    row = await store.run(TENANT, "r2")
    same(row and (row.status, row.seq), ("queued", 0), "a queued run")
    same([(i.kind, i.body) for i in await store.inbox(TENANT, "r2")], [("start", b"r2")], "its request")
    same(await store.claim(TENANT, "r2", worker="w", lease_ms=1), None, "claim of a queued run")
    await store.post(TENANT, "r2", "cancel", b"{}")
    same([ref.run for ref in await store.runnable(limit=9)], [], "a post does not let it past its session")
    for run, following in (("r1", "r2"), ("r2", "r3"), ("r3", "")):
        if run != "r1":
            driver = await Driver.make(store, run, session="s1")
            await driver.claim()
        base = await driver.end(inbox_done=tuple(item.id for item in await store.inbox(TENANT, run)))
        session = await store.session(TENANT, "s1")
        same(session and (session.head, session.live), (base, following), f"session after {run}")
        same([ref.run for ref in await store.runnable(limit=9)], [following] if following else [], f"after {run}")


async def queued_in_a_free_session_is_live(store: Store) -> None:
    """A run queued behind one that has just ended is live at once."""
    queued = await Driver.make(store, "r1", session="s1")
    same(await queued.start(queued=True, request=b"r"), Started("r1"), "queueing")
    session = await store.session(TENANT, "s1")
    same((session and session.live, await queued.is_runnable()), ("r1", True), "live and runnable")
    same([item.kind for item in await store.inbox(TENANT, "r1")], ["start"], "inbox")


async def a_queued_run_that_ends_unheard_moves_nothing(store: Store) -> None:
    """A queued run that is ended without an event leaves the head and the live run of its session as they are."""
    live = await Driver.driving(store, "r1", session="s1")
    queued = await Driver.make(store, "r2", session="s1")
    await queued.start(queued=True, request=b"r2")
    await store.append(queued.of([], 0, 0, status="ended", outcome="cancelled"))
    session = await store.session(TENANT, "s1")
    same(session and (session.head, session.live), (None, "r1"), "session")
    base = await live.end()
    session = await store.session(TENANT, "s1")
    same(session and (session.head, session.live), (base, ""), "session after the end of the live run")
    same(list(await store.runnable(limit=9)), [], "runnable")


async def an_idempotency_key_is_one_run(store: Store) -> None:
    """The same key with the same body is the same run, live or ended; with another body it is refused."""
    fields: dict[str, Any] = {"idempotency_key": "k", "idempotency_digest": "d1"}
    driver = await Driver.driving(store, "r1", session="s1", **fields)
    again = await Driver.make(store, "r2", session="s1")
    same(await again.start(**fields), Started("r1", existing=True), "same body, live")
    await driver.end()
    same(await again.start(**fields), Started("r1", existing=True), "same body, ended")
    other: dict[str, Any] = {"idempotency_key": "k", "idempotency_digest": "d2"}
    same(await again.start(**other), IdempotencyMismatch("r1"), "other body")
    same(await store.run(TENANT, "r2"), None, "no run was made")
    stranger = await Driver.make(store, "r2", tenant="other")
    same(await stranger.start(**fields), Started("r2"), "the same key of another tenant")


async def a_refused_start_does_not_consume_its_key(store: Store) -> None:
    """A start refused for its session, its base or its budget may come again under its key, with any body."""
    await store.set_limit(TENANT, "tenant", 10)
    live = await Driver.driving(store, "r1", session="s1")
    driver = await Driver.make(store, "r2", session="s1")
    same(await driver.start(idempotency_key="k", idempotency_digest="d1"), SessionBusy("r1"), "busy")
    base = await live.end()
    same(await driver.start(idempotency_key="k", idempotency_digest="d2"), SessionMoved(base), "moved")
    reserve = {"reserve": (Reserve("tenant", 11),)}
    fields: dict[str, Any] = {"base": base, "idempotency_key": "k"}
    refused = await driver.start(first=reserve, idempotency_digest="d3", **fields)
    same(refused, Refused("tenant", 11, 10, hard=True), "over budget")
    same(await driver.start(idempotency_digest="d4", **fields), Started("r2"), "accepted at last")
    same(await driver.start(idempotency_digest="d4", **fields), Started("r2", existing=True), "and known")


async def racing_starts_under_one_key_are_one_run(store: Store) -> None:
    """A client that sends its start many times at once gets one run."""
    fields: dict[str, Any] = {"idempotency_key": "k", "idempotency_digest": "d"}
    drivers = [await Driver.make(store, f"r{number}", session=f"s{number}") for number in range(12)]
    results = await asyncio.gather(*(driver.start(**fields) for driver in drivers))
    same(len({result.run for result in results}), 1, "runs")
    same(sum(not result.existing for result in results), 1, "new ones")
    same(len(await store.runs(TENANT)), 1, "rows")


async def runs_are_listed_newest_first(store: Store) -> None:
    """Listings are newest first, cut by the filters, and go on from any run."""
    for number in range(7):
        user = "ann" if number % 2 else "bob"
        driver = await Driver.driving(
            store, f"r{number}", session=f"s{number % 3} {number}", user=user, agent=f"a{number % 2}"
        )
        if number < 3:
            await driver.end()
    names = [row.run for row in await store.runs(TENANT)]
    same(names, [f"r{number}" for number in range(6, -1, -1)], "all")
    same([row.run for row in await store.runs(TENANT, limit=3)], ["r6", "r5", "r4"], "first page")
    same([row.run for row in await store.runs(TENANT, limit=3, before="r4")], ["r3", "r2", "r1"], "second page")
    same([row.run for row in await store.runs(TENANT, user="ann")], ["r5", "r3", "r1"], "by user")
    same([row.run for row in await store.runs(TENANT, agent="a0", before="r4")], ["r2", "r0"], "by agent, from r4")
    same([row.run for row in await store.runs(TENANT, status="ended")], ["r2", "r1", "r0"], "by status")
    same([row.run for row in await store.runs(TENANT, session="s1 4")], ["r4"], "by session")
    same([row.run for row in await store.runs(TENANT, session="s1 4", user="ann")], [], "by session and user")


async def sessions_are_listed_newest_first(store: Store) -> None:
    """Sessions page like runs, and count their runs."""
    base = None
    for number in range(5):
        driver = await Driver.driving(store, f"r{number}", session=f"s{number}")
        base = await driver.end()
    await Driver.started(store, "r9", session="s4", base=base)
    rows = await store.sessions(TENANT)
    same([row.session for row in rows], ["s4", "s3", "s2", "s1", "s0"], "all")
    same([row.runs for row in rows], [2, 1, 1, 1, 1], "runs")
    same([row.session for row in await store.sessions(TENANT, before="s3", limit=2)], ["s2", "s1"], "a page")


async def a_child_run_names_its_parent(store: Store) -> None:
    """Events and rows of a child run say where it comes from; its session is its own."""
    await Driver.driving(store, "top", session="s")
    child = await Driver.driving(store, "child", session="s of child", parent="top/3.0", root="top")
    await child.append(said("working"))
    row = await child.row()
    same((row.parent, row.root, row.seq), ("top/3.0", "top", 2), "row")


CHECKS = (
    a_start_is_a_run_and_a_session,
    a_start_can_claim,
    a_start_can_be_the_end,
    a_run_id_is_used_once,
    the_end_moves_the_session,
    a_live_run_makes_its_session_busy,
    one_of_many_racing_starts_wins,
    queued_runs_follow_in_order,
    queued_in_a_free_session_is_live,
    a_queued_run_that_ends_unheard_moves_nothing,
    an_idempotency_key_is_one_run,
    a_refused_start_does_not_consume_its_key,
    racing_starts_under_one_key_are_one_run,
    runs_are_listed_newest_first,
    sessions_are_listed_newest_first,
    a_child_run_names_its_parent,
)
