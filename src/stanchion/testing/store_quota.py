"""Checks of a store: limits that all workers share. What counts never passes a limit, whoever asks."""

from __future__ import annotations

import asyncio

from stanchion.journal.quota import Block, Changed, Quota, Taken, Usage, Wish
from stanchion.journal.store import Store
from stanchion.testing.store_driver import pass_ms, same, true

LONG_MS = 60_000
SOON_MS = 1_500
"""What is done before it is over, on a machine that does other things as well, takes a few milliseconds."""


def _wish(amount: int, most: int, *, least: int = 1, limit: str = "a#1/rpm", for_ms: int = LONG_MS) -> Wish:
    return Wish(limit, amount, least, most, for_ms)


async def _take(store: Store, *wishes: Wish, worker: str = "w1", closed_by: str = "") -> Taken:
    return await store.quotas.take(worker, wishes, closed_by=closed_by)


def _amounts(taken: Taken) -> list[int]:
    return [block.amount for block in taken.blocks]


async def a_block_counts_until_its_time(store: Store) -> None:
    """What was taken is not to be had again before its time is up, and then it is."""
    same(_amounts(await _take(store, _wish(3, 3, least=3, for_ms=SOON_MS))), [3], "the whole limit")
    refused = await _take(store, _wish(1, 3))
    same((refused.blocks, refused.left), ((), False), "nothing is left")
    true(0 < refused.retry_ms <= SOON_MS, f"{refused} says when")
    await pass_ms(store, SOON_MS)
    same(_amounts(await _take(store, _wish(3, 3, least=3))), [3], "after its time")


async def who_asks_leaves_half_to_others(store: Store) -> None:
    """Beyond what it needs at least, nobody is given more than half of what is free."""
    first = await _take(store, _wish(100, 12))
    same((_amounts(first), first.left), ([6], True), "the first")
    same(_amounts(await _take(store, _wish(2, 12), worker="w2")), [2], "less than half")
    same(_amounts(await _take(store, _wish(100, 12, least=4))), [4], "as much as it needs")
    same(_amounts(await _take(store, _wish(1, 12))), [], "the end")
    same(list(await store.quotas.usage()), [Usage("a#1/rpm", 12, 2)], "usage")


async def what_was_not_used_is_given_back(store: Store) -> None:
    """A block is lowered, prolonged or given back; one that is gone is not brought back."""
    block: Block = (await _take(store, _wish(4, 4, least=4, for_ms=SOON_MS))).blocks[0]
    same(await store.quotas.change([Changed(block.id, 1)]), {block.id}, "lowered")
    other = (await _take(store, _wish(3, 4, least=3))).blocks[0]
    same(await store.quotas.change([Changed(block.id, 1, LONG_MS), Changed(other.id, 0)]), {block.id, other.id}, "both")
    await pass_ms(store, SOON_MS)
    same(list(await store.quotas.usage()), [Usage("a#1/rpm", 1, 1)], "prolonged, and given back")
    same(await store.quotas.change([Changed(other.id, 2), Changed(other.id, 0)]), set(), "gone")


async def a_block_that_timed_out_is_not_prolonged(store: Store) -> None:
    """A worker that slept through its lease does not get its slots back."""
    block = (await _take(store, _wish(1, 1, for_ms=30))).blocks[0]
    await pass_ms(store, 30)
    same(await store.quotas.change([Changed(block.id, 1, LONG_MS)]), set(), "too late")
    same(_amounts(await _take(store, _wish(1, 1), worker="w2")), [1], "another has it")


async def limits_are_taken_together_or_not_at_all(store: Store) -> None:
    """If one of the wishes cannot be had, none is; two under one name share it."""
    tokens = _wish(100, 100, least=60, limit="a#1/tpm")
    same(_amounts(await _take(store, _wish(1, 5), tokens)), [1, 60], "both")
    same(_amounts(await _take(store, _wish(1, 5), tokens)), [], "no tokens")
    same([(row.limit, row.amount) for row in await store.quotas.usage()], [("a#1/rpm", 1), ("a#1/tpm", 60)], "usage")
    parts = (_wish(20, 100, least=10, limit="a#1/tpm"), _wish(30, 100, least=10, limit="a#1/tpm"))
    same(_amounts(await _take(store, *parts)), [10, 10], "parts of one limit")
    same(
        _amounts(await _take(store, _wish(60, 200, least=20, limit="a#1/tpm"), parts[0])),
        [44, 16],
        "half of what is free, in proportion",
    )


async def a_limit_is_never_passed_at_any_concurrency(store: Store) -> None:
    """Twenty workers at once: all of it is given, and not one more."""
    asks = [_take(store, _wish(7, 50), worker=f"w{number}") for number in range(20)]
    given = sum(sum(_amounts(taken)) for taken in await asyncio.gather(*asks))
    true(0 < given <= 50, f"{given} of 50 given")
    while more := _amounts(await _take(store, _wish(50, 50))):
        given += sum(more)
    same(given, 50, "all of it")


async def a_pause_closes_a_name_for_all(store: Store) -> None:
    """A paused name gives nothing until its time; a shorter pause does not cut a longer one."""
    await store.quotas.pause("a#1:m", LONG_MS)
    await store.quotas.pause("a#1:m", 1)
    refused = await _take(store, _wish(1, 5), closed_by="a#1:m")
    true(not refused.blocks and 1 < refused.retry_ms <= LONG_MS, f"{refused} is refused for the longer time")
    same(_amounts(await _take(store, _wish(1, 5), closed_by="a#1:other")), [1], "another name")
    same([pause.name for pause in (await store.quotas.signals()).pauses], ["a#1:m"], "told to all")
    await store.quotas.pause("a#2:m", 40)
    await pass_ms(store, 40)
    same(_amounts(await _take(store, _wish(1, 5), closed_by="a#2:m")), [1], "after it")
    same([pause.name for pause in (await store.quotas.signals()).pauses], ["a#1:m"], "over")


async def a_breaker_is_probed_by_one(store: Store) -> None:
    """Open: nobody tries. After its time one does; it opens again, or closes."""
    same(await store.quotas.probe("tool:t", "w1", LONG_MS), False, "closed")
    await store.quotas.trip("tool:t", LONG_MS)
    same(await store.quotas.probe("tool:t", "w1", LONG_MS), False, "open")
    [row] = (await store.quotas.signals()).breakers
    true(row.name == "tool:t" and 0 < row.for_ms <= LONG_MS and not row.probed, f"{row} is open")
    await store.quotas.trip("tool:t", 0)
    tried = await asyncio.gather(*(store.quotas.probe("tool:t", f"w{number}", LONG_MS) for number in range(8)))
    same(tried.count(True), 1, "one probe")
    true((await store.quotas.signals()).breakers[0].probed, "is told to all")
    await store.quotas.trip("tool:t", 0)
    same(await store.quotas.probe("tool:t", "w2", 20), True, "it failed, and the next may try")
    await pass_ms(store, 20)
    same(await store.quotas.probe("tool:t", "w3", LONG_MS), True, "the one who tried is gone")
    await store.quotas.mend("tool:t")
    same((await store.quotas.signals()).breakers, (), "closed")


async def quotas_are_kept(store: Store) -> None:
    """A setting is kept under its name, replaced and forgotten."""
    first = Quota("anthropic", rpm=50, tpm=40_000)
    await store.quotas.set_quota(first)
    await store.quotas.set_quota(Quota("openai", rpm=9, window_s=5))
    same((await store.quotas.signals()).quotas, (first, Quota("openai", rpm=9, window_s=5)), "kept")
    await store.quotas.set_quota(Quota("openai", tpm=10))
    same(await store.quotas.drop_quota("anthropic"), True, "dropped")
    same(await store.quotas.drop_quota("anthropic"), False, "not there")
    same((await store.quotas.signals()).quotas, (Quota("openai", tpm=10),), "what is left")


CHECKS = (
    a_block_counts_until_its_time,
    who_asks_leaves_half_to_others,
    what_was_not_used_is_given_back,
    a_block_that_timed_out_is_not_prolonged,
    limits_are_taken_together_or_not_at_all,
    a_limit_is_never_passed_at_any_concurrency,
    a_pause_closes_a_name_for_all,
    a_breaker_is_probed_by_one,
    quotas_are_kept,
)
