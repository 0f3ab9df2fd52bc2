"""Checks of a store: schedules are due by the store's clock, and move on once for each time."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from stanchion.journal.schedule import Schedule
from stanchion.journal.store import Store
from stanchion.testing.store_driver import TENANT, same, true


def _schedule(name: str, next_ms: int, **fields: Any) -> Schedule:
    asked: dict[str, Any] = {"tenant": TENANT, "agent": "support", "input": "hello", "cron": "0 9 * * *", **fields}
    return Schedule(name=name, next_ms=next_ms, **asked)


async def a_schedule_is_kept_and_found(store: Store) -> None:
    """A schedule comes back as it was put, under its tenant and name only, and another of its name is refused."""
    full = _schedule(
        "daily", 5_000, tz="Europe/Berlin", session="reports", user="ann", if_busy="queue", if_missed="skip", priority=3,
        limits='{"usd":"0.50"}',
    )  # fmt: skip
    true(await store.schedules.put(full), "it is kept")
    found = await store.schedules.get(TENANT, "daily")
    if found is None:
        raise AssertionError("it is not found")
    true(abs(found.created_ms - await store.now_ms()) < 60_000, "it was made now, by the store's clock")
    same(msgspec.structs.replace(found, created_ms=0), full, "what was put")
    same(await store.schedules.put(_schedule("daily", 1, agent="other")), False, "a second of the name")
    same((await store.schedules.get(TENANT, "daily")), found, "the first stays")
    true(await store.schedules.put(_schedule("daily", 1, tenant="other")), "another tenant's")
    true(await store.schedules.put(_schedule("b", 1)), "another name")
    same([row.name for row in await store.schedules.listed(TENANT)], ["b", "daily"], "listed")
    same(await store.schedules.get("nobody", "daily"), None, "of nobody")


async def a_schedule_is_replaced_with_its_history(store: Store) -> None:
    """A replaced schedule keeps when it was made and what it last did."""
    await store.schedules.put(_schedule("daily", 1_000))
    await store.schedules.fired(TENANT, "daily", due_ms=1_000, next_ms=2_000, run="run_1")
    made = await store.schedules.get(TENANT, "daily")
    true(await store.schedules.put(_schedule("daily", 9_000, input="more"), replace=True), "replaced")
    found = await store.schedules.get(TENANT, "daily")
    if made is None or found is None:
        raise AssertionError("it is not found")
    same((found.input, found.next_ms, found.last_run, found.last_ms), ("more", 9_000, "run_1", 1_000), "what it is now")
    same(found.created_ms, made.created_ms, "when it was made")


async def a_schedule_is_due_by_the_stores_clock(store: Store) -> None:
    """Due is what is enabled and whose time has come; in pages; the next time is that of enabled ones."""
    now_ms = await store.now_ms()
    same(await store.schedules.next_due_ms(), 0, "nothing")
    for name in ("a", "b", "c"):
        await store.schedules.put(_schedule(name, now_ms - 10))
    await store.schedules.put(_schedule("paused", now_ms - 20, enabled=False))
    await store.schedules.put(_schedule("later", now_ms + 60_000))
    same([row.name for row in await store.schedules.due(limit=10)], ["a", "b", "c"], "due")
    page = await store.schedules.due(limit=2)
    same([row.name for row in page], ["a", "b"], "the first page")
    rest = await store.schedules.due(limit=2, after=(page[-1].tenant, page[-1].name))
    same([row.name for row in rest], ["c"], "the second page")
    same(await store.schedules.next_due_ms(), now_ms - 10, "next")
    for name in ("a", "b", "c"):
        await store.schedules.remove(TENANT, name)
    same(await store.schedules.next_due_ms(), now_ms + 60_000, "next of what is left")


async def a_schedule_moves_once_for_each_time(store: Store) -> None:
    """Of many who saw the same time, one moves the schedule; what it says of the run stays until there is another."""
    await store.schedules.put(_schedule("daily", 1_000))
    moved = await asyncio.gather(
        *(store.schedules.fired(TENANT, "daily", due_ms=1_000, next_ms=2_000, run="run_1") for _ in range(8))
    )
    same(sorted(moved), [False] * 7 + [True], "who moved it")
    true(await store.schedules.fired(TENANT, "daily", due_ms=2_000, next_ms=3_000, note="busy"), "the next time")
    found = await store.schedules.get(TENANT, "daily")
    if found is None:
        raise AssertionError("it is not found")
    same((found.next_ms, found.last_ms, found.last_run, found.note), (3_000, 2_000, "run_1", "busy"), "after both")
    same(await store.schedules.fired(TENANT, "nothing", due_ms=1, next_ms=2), False, "of another")


async def a_schedule_is_paused_and_removed(store: Store) -> None:
    """A paused schedule is not due; one that goes on is, at the time it was given."""
    await store.schedules.put(_schedule("daily", 1_000))
    true(await store.schedules.enable(TENANT, "daily", enabled=False, next_ms=1_000), "paused")
    same(list(await store.schedules.due(limit=10)), [], "due while paused")
    true(await store.schedules.enable(TENANT, "daily", enabled=True, next_ms=2_000), "resumed")
    same([row.next_ms for row in await store.schedules.due(limit=10)], [2_000], "due again")
    true(await store.schedules.remove(TENANT, "daily"), "removed")
    same(await store.schedules.remove(TENANT, "daily"), False, "a second time")
    same(await store.schedules.enable(TENANT, "daily", enabled=True, next_ms=1), False, "of what is gone")


CHECKS = (
    a_schedule_is_kept_and_found,
    a_schedule_is_replaced_with_its_history,
    a_schedule_is_due_by_the_stores_clock,
    a_schedule_moves_once_for_each_time,
    a_schedule_is_paused_and_removed,
)
