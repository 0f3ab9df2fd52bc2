"""Checks of a store: reservations, settlements and limits. Settled + reserved never passes a limit."""

from __future__ import annotations

import asyncio

from stanchion.core.errors import StaleAppend
from stanchion.journal.store import Ledger, Refused, Reserve, Settle, Store
from stanchion.testing.store_driver import TENANT, Driver, raises, said, same, true


async def _ledger(store: Store, name: str, tenant: str = TENANT) -> Ledger:
    found = {ledger.ledger: ledger for ledger in await store.ledgers(tenant)}
    if name not in found:
        raise AssertionError(f"there is no ledger {name!r} among {sorted(found)}")
    return found[name]


async def a_reservation_is_settled(store: Store) -> None:
    """Money is set aside, given back and booked; a ledger without a limit is counted all the same."""
    driver = await Driver.driving(store, "r1")
    same(await driver.append(said("intent"), reserve=(Reserve("user:ann", 100),)), None, "reserve")
    same(await _ledger(store, "user:ann"), Ledger(TENANT, "user:ann", -1, 0, 100, closed=False), "reserved")
    same(await driver.append(said("outcome"), settle=(Settle("user:ann", 100, 40),)), None, "settle")
    same(await _ledger(store, "user:ann"), Ledger(TENANT, "user:ann", -1, 40, 0, closed=False), "settled")


async def a_refusal_writes_nothing(store: Store) -> None:
    """Over the limit of one ledger nothing is written: no event, no other ledger, no settlement, no status."""
    await store.set_limit(TENANT, "user:ann", 100)
    driver = await Driver.driving(store, "r1")
    await driver.append(reserve=(Reserve("user:ann", 60), Reserve("session:s", 60)))
    wishes = (Reserve("session:s", 50), Reserve("user:ann", 50))
    refused = await driver.append(said("lost"), reserve=wishes, status="waiting", release=True)
    same(refused, Refused("user:ann", 50, 40, hard=False), "refused by what is reserved")
    same(((await driver.row()).status, len(await store.read(TENANT, "r1"))), ("runnable", 1), "row and events")
    same((await _ledger(store, "session:s")).reserved, 60, "the other ledger")
    refused = await driver.append(settle=(Settle("user:ann", 60, 60),), reserve=(Reserve("user:ann", 41),))
    same(refused, Refused("user:ann", 41, 40, hard=True), "refused by what is settled")
    same((await _ledger(store, "user:ann")).reserved, 60, "the settlement went with it")
    same(await driver.append(settle=(Settle("user:ann", 60, 60),), reserve=(Reserve("user:ann", 40),)), None, "fits")
    same(await _ledger(store, "user:ann"), Ledger(TENANT, "user:ann", 100, 60, 40, closed=False), "to the limit")


async def a_stale_append_moves_no_money(store: Store) -> None:
    """A worker that lost the run reserves and settles nothing."""
    driver = await Driver.driving(store, "r1")
    await driver.append(reserve=(Reserve("tenant", 10),))
    await driver.claim()
    driver.epoch -= 1
    await raises(StaleAppend, driver.append(reserve=(Reserve("tenant", 5),)), "reserve")
    await raises(StaleAppend, driver.append(settle=(Settle("tenant", 10, 10),)), "settle")
    same(await _ledger(store, "tenant"), Ledger(TENANT, "tenant", -1, 0, 10, closed=False), "ledger")


async def a_limit_holds_for_every_window(store: Store) -> None:
    """The limit of "tenant/day" is each day's; windows are counted apart and listed apart."""
    await store.set_limit(TENANT, "tenant/day", 100)
    same(await _ledger(store, "tenant/day"), Ledger(TENANT, "tenant/day", 100, 0, 0, closed=False), "before use")
    driver = await Driver.driving(store, "r1")
    await driver.append(reserve=(Reserve("tenant/day:2026-11-20", 90),))
    refused = await driver.append(reserve=(Reserve("tenant/day:2026-11-20", 11),))
    same(refused, Refused("tenant/day:2026-11-20", 11, 10, hard=False), "the same day")
    same(await driver.append(reserve=(Reserve("tenant/day:2026-11-21", 100),)), None, "the next day")
    same(
        await driver.append(reserve=(Reserve("tenant", 1_000), Reserve("tenant/month:2026-11", 1_000))), None, "others"
    )
    names = [(ledger.ledger, ledger.limit) for ledger in await store.ledgers(TENANT)]
    expected = [
        ("tenant", -1),
        ("tenant/day:2026-11-20", 100),
        ("tenant/day:2026-11-21", 100),
        ("tenant/month:2026-11", -1),
    ]
    same(sorted(names), expected, "ledgers")


async def all_belongs_to_no_tenant(store: Store) -> None:
    """ "all" is one ledger for every tenant; a tenant's own of the same scope are apart."""
    await store.set_limit("", "all", 100)
    one = await Driver.driving(store, "r1", tenant="one")
    two = await Driver.driving(store, "r1", tenant="two")
    same(await one.append(reserve=(Reserve("all", 60), Reserve("tenant", 60))), None, "the first tenant")
    same(await two.append(reserve=(Reserve("all", 60),)), Refused("all", 60, 40, hard=False), "the second")
    same(await two.append(reserve=(Reserve("all", 40), Reserve("tenant", 40))), None, "what is left")
    same(await _ledger(store, "all", ""), Ledger("", "all", 100, 0, 100, closed=False), "all")
    for tenant, reserved in (("one", 60), ("two", 40)):
        same(list(await store.ledgers(tenant)), [Ledger(tenant, "tenant", -1, 0, reserved, closed=False)], tenant)


async def an_overrun_closes_until_a_limit_is_set(store: Store) -> None:
    """A bill above its reservation closes the ledger, whatever is left; setting its limit opens it."""
    await store.set_limit(TENANT, "user:ann/day", 1_000)
    driver = await Driver.driving(store, "r1")
    name = "user:ann/day:2026-11-20"
    await driver.append(reserve=(Reserve(name, 10),))
    await driver.append(settle=(Settle(name, 10, 11),))
    same(await _ledger(store, name), Ledger(TENANT, name, 1_000, 11, 0, closed=True), "closed")
    same(await driver.append(reserve=(Reserve(name, 1),)), Refused(name, 1, 989, hard=True), "refused")
    limit = await store.set_limit(TENANT, "user:ann/day", 1_000)
    same((limit.ledger, limit.limit), ("user:ann/day", 1_000), "the limit")
    same(await driver.append(reserve=(Reserve(name, 1),)), None, "opened")
    same(await _ledger(store, name), Ledger(TENANT, name, 1_000, 11, 1, closed=False), "open")


async def a_limit_is_changed_and_taken_away(store: Store) -> None:
    """A limit below what is spent refuses everything, a higher one lets on, -1 is none."""
    driver = await Driver.driving(store, "r1")
    await driver.append(reserve=(Reserve("tenant", 50),))
    await driver.append(settle=(Settle("tenant", 50, 50),))
    same((await store.set_limit(TENANT, "tenant", 20)).limit, 20, "set")
    same(
        await driver.append(reserve=(Reserve("tenant", 1),)), Refused("tenant", 1, 0, hard=True), "below what is spent"
    )
    await store.set_limit(TENANT, "tenant", 51)
    same(await driver.append(reserve=(Reserve("tenant", 1),)), None, "raised")
    same((await store.set_limit(TENANT, "tenant", -1)).limit, -1, "taken away")
    same(await driver.append(reserve=(Reserve("tenant", 10**15),)), None, "without a limit")


async def a_limit_lowered_below_what_is_used_waits_for_it(store: Store) -> None:
    """What is reserved when a limit is lowered stays; nothing more is accepted before enough was given back."""
    await store.set_limit(TENANT, "tenant", 100)
    drivers = [await Driver.driving(store, f"r{number}") for number in range(3)]
    for driver in drivers[:2]:
        same(await driver.append(reserve=(Reserve("tenant", 40),)), None, "reserved")
    await store.set_limit(TENANT, "tenant", 50)
    for driver, wish, left, hard in ((drivers[0], 1, 0, False), (drivers[1], 31, 30, True)):
        same(await drivers[2].append(reserve=(Reserve("tenant", 1),)), Refused("tenant", 1, 0, hard=False), "too early")
        same(await driver.append(settle=(Settle("tenant", 40, 10),)), None, "given back")
        found = await drivers[2].append(reserve=(Reserve("tenant", wish),))
        same(found, Refused("tenant", wish, left, hard), f"{left} is left")
    same(await drivers[2].append(reserve=(Reserve("tenant", 30),)), None, "what is left")
    same(await _ledger(store, "tenant"), Ledger(TENANT, "tenant", 50, 20, 30, closed=False), "to the lower limit")


async def the_last_of_a_limit_can_be_used(store: Store) -> None:
    """Wishes that fit exactly are accepted whatever their order, and after them not one nano-dollar."""
    await store.set_limit(TENANT, "tenant/day", 1_275)
    name = "tenant/day:2026-11-20"
    drivers = await asyncio.gather(*(Driver.driving(store, f"r{number:02}") for number in range(50)))
    wishes = [driver.append(reserve=(Reserve(name, number),)) for number, driver in enumerate(drivers, start=1)]
    same(set(await asyncio.gather(*wishes)), {None}, "all fit")
    same(await drivers[0].append(reserve=(Reserve(name, 1),)), Refused(name, 1, 0, hard=False), "the next")
    settles = [driver.append(settle=(Settle(name, n, 1),)) for n, driver in enumerate(drivers, start=1)]
    await asyncio.gather(*settles)
    same(await drivers[7].append(reserve=(Reserve(name, 1_226),)), Refused(name, 1_226, 1_225, hard=True), "too much")
    same(await drivers[7].append(reserve=(Reserve(name, 1_225),)), None, "all that is left, at once")


async def a_limit_holds_at_any_concurrency(store: Store) -> None:
    """200 reservations at once, twice what fits: exactly the half is accepted, and never more than the limit stands."""
    await store.set_limit(TENANT, "tenant/day", 1_000)
    name = "tenant/day:2026-11-20"
    drivers = await asyncio.gather(*(Driver.driving(store, f"r{number:03}") for number in range(200)))
    results = await asyncio.gather(*(driver.append(said("x"), reserve=(Reserve(name, 10),)) for driver in drivers))
    ledger = await _ledger(store, name)
    same((results.count(None), ledger.reserved), (100, 1_000), "accepted")
    true(all(result == Refused(name, 10, 0, hard=False) for result in results if result is not None), "the refused")
    held = [driver for driver, result in zip(drivers, results, strict=True) if result is None]
    free = [driver for driver, result in zip(drivers, results, strict=True) if result is not None]
    settles = [driver.append(said("y"), settle=(Settle(name, 10, 5),)) for driver in held]
    reserves = [driver.append(said("z"), reserve=(Reserve(name, 10),)) for driver in free]
    await asyncio.gather(*(call for pair in zip(settles, reserves, strict=True) for call in pair))
    ledger = await _ledger(store, name)
    same(ledger.settled, 500, "settled")
    true(ledger.settled + ledger.reserved <= 1_000, f"{ledger} is within its limit")


CHECKS = (
    a_reservation_is_settled,
    a_refusal_writes_nothing,
    a_stale_append_moves_no_money,
    a_limit_holds_for_every_window,
    all_belongs_to_no_tenant,
    an_overrun_closes_until_a_limit_is_set,
    a_limit_is_changed_and_taken_away,
    a_limit_lowered_below_what_is_used_waits_for_it,
    the_last_of_a_limit_can_be_used,
    a_limit_holds_at_any_concurrency,
)
