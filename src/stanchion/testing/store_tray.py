"""Checks of the tray: an item comes with its append or not at all, and is in one batch at most."""

from __future__ import annotations

import asyncio

from stanchion.core.errors import StaleAppend
from stanchion.core.event import ModelCallStarted
from stanchion.journal.store import Store
from stanchion.journal.tray import TrayItem
from stanchion.testing.store_driver import TENANT, Check, Driver, pass_ms, raises, same, true

LANE = "anthropic"
LONG_MS = 60_000


def _started(turn: int) -> ModelCallStarted:
    return ModelCallStarted(
        turn=turn, attempt=1, route=0, provider=LANE, model="m", messages=1, prefix="p", batch=True, max_output_tokens=9
    )


def _item(driver: Driver, lane: str = LANE) -> TrayItem:
    return TrayItem(TENANT, driver.run, driver.recorder.seq + 1, lane)


async def _handed(store: Store, run: str, lane: str = LANE) -> TrayItem:
    """Drive a run to a call that waits for a batch."""
    driver = await Driver.driving(store, run)
    item = _item(driver, lane)
    await driver.append(_started(1), hand_in=(item,), status="waiting", release=True)
    return item


async def an_item_comes_with_its_append(store: Store) -> None:
    """A stale append leaves nothing on the tray, one that was written leaves its items."""
    driver = await Driver.driving(store, "r1")
    item = _item(driver)
    await raises(StaleAppend, driver.append(_started(1), hand_in=(item,), epoch=7), "a stale append")
    same(await store.tray.waiting(), {}, "after a stale append")
    await driver.append(_started(1), hand_in=(item,))
    counted = await store.tray.waiting()
    same({lane: count for lane, (count, _) in counted.items()}, {LANE: 1}, "what waits")
    true(0 <= counted[LANE][1] < LONG_MS, "for how long it has waited")
    same(item.id, f"r1-{item.seq}", "the id that a provider is told")


async def a_start_may_hand_in(store: Store) -> None:
    """The first model call of a run is handed in by the transaction that starts it."""
    driver = await Driver.make(store, "r1")
    await driver.start(worker="w1", lease_ms=LONG_MS, first={"hand_in": (TrayItem(TENANT, "r1", 2, LANE),)})
    same(list(await store.tray.waiting()), [LANE], "lanes")


async def a_batch_takes_the_oldest(store: Store) -> None:
    """Up to so many of one lane, in the order in which they came; a batch of nothing is none."""
    items = [await _handed(store, f"r{n}") for n in range(5)]
    other = await _handed(store, "other", "openai")
    tray = store.tray
    same(list(await tray.take(LANE, "b1", most=3, worker="w1", lease_ms=LONG_MS)), items[:3], "the first batch")
    same(list(await tray.take(LANE, "b2", most=3, worker="w1", lease_ms=LONG_MS)), items[3:], "the second batch")
    same(list(await tray.take(LANE, "b3", most=3, worker="w1", lease_ms=LONG_MS)), [], "an empty batch")
    same([batch.name for batch in await tray.batches()], ["b1", "b2"], "the batches")
    same(list(await tray.items("b1")), items[:3], "items of a batch")
    same({lane: count for lane, (count, _) in (await tray.waiting()).items()}, {"openai": 1}, "what still waits")
    same(list(await tray.take("openai", "b4", most=9, worker="w1", lease_ms=LONG_MS)), [other], "the other lane")


async def an_item_is_in_one_batch(store: Store) -> None:
    """Takers at the same time share the items out."""
    items = {(await _handed(store, f"r{n}")).id for n in range(12)}
    takes = (store.tray.take(LANE, f"b{n}", most=5, worker=f"w{n}", lease_ms=LONG_MS) for n in range(4))
    taken = [item.id for batch in await asyncio.gather(*takes) for item in batch]
    same(len(taken), len(set(taken)), "items taken once")
    rest = await store.tray.take(LANE, "last", most=99, worker="w", lease_ms=LONG_MS)
    same({*taken, *(item.id for item in rest)}, items, "all items")


async def a_batch_is_looked_at_by_one(store: Store) -> None:
    """Whoever makes it up holds it; then it is due at its time, for one at a time; a holder who is gone loses it."""
    await _handed(store, "r1")
    tray = store.tray
    await tray.take(LANE, "b1", most=9, worker="w1", lease_ms=LONG_MS)
    same(list(await tray.due(worker="w2", lease_ms=LONG_MS)), [], "while it is made up")
    await tray.handed_in("b1", "msgbatch_1", look_in_ms=LONG_MS)
    same(list(await tray.due(worker="w2", lease_ms=LONG_MS)), [], "before its time")
    await tray.look_again("b1", in_ms=0)
    (batch,) = await tray.due(worker="w2", lease_ms=1)
    same((batch.stage, batch.provider_id, batch.items), ("running", "msgbatch_1", 1), "the batch")
    true(0 <= batch.age_ms < LONG_MS, "its age")
    await pass_ms(store, 2)
    same([found.name for found in await tray.due(worker="w3", lease_ms=LONG_MS)], ["b1"], "after its holder is gone")
    same(list(await tray.due(worker="w2", lease_ms=LONG_MS)), [], "while another holds it")


async def a_batch_that_was_not_handed_in_goes_back(store: Store) -> None:
    """Its items wait again, before those that came later."""
    first = await _handed(store, "r1")
    await store.tray.take(LANE, "b1", most=9, worker="w1", lease_ms=LONG_MS)
    second = await _handed(store, "r2")
    await store.tray.put_back("b1")
    same(list(await store.tray.batches()), [], "batches")
    taken = await store.tray.take(LANE, "b2", most=9, worker="w1", lease_ms=LONG_MS)
    same(list(taken), [first, second], "what waits")


async def a_dropped_batch_is_gone(store: Store) -> None:
    """With its items."""
    await _handed(store, "r1")
    await store.tray.take(LANE, "b1", most=9, worker="w1", lease_ms=LONG_MS)
    await store.tray.drop("b1")
    same((list(await store.tray.items("b1")), list(await store.tray.batches())), ([], []), "what is left")
    same(await store.tray.waiting(), {}, "what waits")


async def an_inbox_answer_wakes_its_run(store: Store) -> None:
    """What a batch answered is posted to the run like anything else from outside."""
    await _handed(store, "r1")
    await store.post(TENANT, "r1", "model", b"{}")
    driver = await Driver.make(store, "r1")
    true(await driver.is_runnable(), "the run is runnable")


CHECKS: tuple[Check, ...] = (
    an_item_comes_with_its_append,
    a_start_may_hand_in,
    a_batch_takes_the_oldest,
    an_item_is_in_one_batch,
    a_batch_is_looked_at_by_one,
    a_batch_that_was_not_handed_in_goes_back,
    a_dropped_batch_is_gone,
    an_inbox_answer_wakes_its_run,
)
