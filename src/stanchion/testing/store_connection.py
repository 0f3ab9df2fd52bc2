"""Checks of a store: users' connections are replaced once, renewed by one, and gone with the user's content."""

from __future__ import annotations

import asyncio

from stanchion.journal.store import Store
from stanchion.testing.store_driver import TENANT, same, true


async def a_connection_is_kept_and_found(store: Store) -> None:
    """It comes back as it was put, under its tenant, user and name only."""
    rows = store.connections
    version = await rows.put(TENANT, "ann", "crm", b"sealed", over=0)
    true(version > 0, "it is kept")
    found = await rows.get(TENANT, "ann", "crm")
    same(found and (found.body, found.version, found.busy_until_ms), (b"sealed", version, 0), "read again")
    for place in (("other", "ann", "crm"), (TENANT, "bob", "crm"), (TENANT, "ann", "mail")):
        same(await rows.get(*place), None, f"{place}")
    await rows.put(TENANT, "bob", "crm", b"his", over=0)
    await rows.put("other", "ann", "crm", b"other", over=0)
    same([(row.user, row.name) for row in await rows.listed(TENANT)], [("ann", "crm"), ("bob", "crm")], "listed")
    same([row.user for row in await rows.listed(TENANT, "bob")], ["bob"], "listed of a user")
    same(await rows.remove("other", "bob", "crm"), False, "removed by another tenant")
    same(await rows.remove(TENANT, "ann", "crm", version=version + 1), False, "removed in another version")
    true(await rows.remove(TENANT, "ann", "crm", version=version), "removed")
    same(await rows.remove(TENANT, "ann", "crm"), False, "a second time")


async def a_connection_is_replaced_by_one(store: Store) -> None:
    """Of many who replace a version one does, and its number does not come back."""
    rows = store.connections
    firsts = await asyncio.gather(*(rows.put(TENANT, "ann", "crm", b"%d" % n, over=0) for n in range(6)))
    same(sum(map(bool, firsts)), 1, "made by one")
    version = max(firsts)
    nexts = await asyncio.gather(*(rows.put(TENANT, "ann", "crm", b"n%d" % n, over=version) for n in range(6)))
    same(sum(map(bool, nexts)), 1, "replaced by one")
    true(max(nexts) > version, "a higher version")
    found = await rows.get(TENANT, "ann", "crm")
    same(found and found.body, b"n%d" % nexts.index(max(nexts)), "by the one who was told")
    same(await rows.put(TENANT, "ann", "crm", b"late", over=version), 0, "an old version")


async def a_connection_is_renewed_by_one(store: Store) -> None:
    """One claims it; others wait until it gives it back, writes, or its time is up."""
    rows = store.connections
    version = await rows.put(TENANT, "ann", "crm", b"old", over=0)

    async def claim(for_ms: int = 60_000, of: int = version) -> bool:
        return await rows.claim(TENANT, "ann", "crm", version=of, for_ms=for_ms)

    same(sum(await asyncio.gather(*(claim() for _ in range(6)))), 1, "claimed by one")
    true(await claim(0), "given back")
    true(await claim(), "claimed again")
    after = await rows.put(TENANT, "ann", "crm", b"new", over=version)
    same(await claim(), False, "an old version")
    true(await claim(of=after), "the new one is free")
    true(await claim(0, after), "and given back")
    same(await rows.claim(TENANT, "bob", "crm", version=1, for_ms=1), False, "of nobody")


async def erasure_takes_connections(store: Store) -> None:
    """A user's connections go with the user's content, and no other's."""
    for user in ("ann", "bob"):
        await store.key_for(TENANT, user)
        await store.connections.put(TENANT, user, "crm", b"sealed", over=0)
    await store.connections.put("other", "ann", "crm", b"sealed", over=0)
    true(await store.destroy_key(TENANT, "ann"), "erased")
    same([row.user for row in await store.connections.listed(TENANT)], ["bob"], "left")
    same([row.user for row in await store.connections.listed("other")], ["ann"], "of another tenant")


CHECKS = (
    a_connection_is_kept_and_found,
    a_connection_is_replaced_by_one,
    a_connection_is_renewed_by_one,
    erasure_takes_connections,
)
