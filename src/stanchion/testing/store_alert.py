"""Checks of a store: what of money is told, once; and who has used half of a limit."""

from __future__ import annotations

import asyncio

from stanchion.journal.alert import Alert
from stanchion.journal.outbox import Announcement, Endpoint, EventKind, Secrets
from stanchion.journal.store import Ledger, Reserve, Settle, Store
from stanchion.testing.store_driver import TENANT, Driver, same, true

DAY = "2026-11-20"


def _endpoint(
    name: str, tenant: str = TENANT, events: tuple[EventKind, ...] = (), agents: tuple[str, ...] = ()
) -> Endpoint:
    return Endpoint(
        tenant=tenant, id=name, url="http://127.0.0.1:9/x", lane=f"{tenant}/{name}", events=events, agents=agents,
        secrets=Secrets("s"),
    )  # fmt: skip


def _said(agent: str = "") -> Announcement:
    return Announcement("budget.alert", 0, agent, b'{"type":"budget.alert"}')


async def _spend(store: Store, run: str, *ledgers: tuple[str, int]) -> None:
    driver = await Driver.driving(store, run)
    await driver.append(reserve=tuple(Reserve(name, amount) for name, amount in ledgers))
    await driver.append(settle=tuple(Settle(name, amount, amount) for name, amount in ledgers))


async def an_alert_is_told_once(store: Store) -> None:
    """Of many who tell it at once, one does; each endpoint that wants it gets one delivery, of no run."""
    await store.outbox.add(_endpoint("all"))
    await store.outbox.add(_endpoint("money", events=("budget.alert",)))
    await store.outbox.add(_endpoint("runs", events=("run.finished",)))
    await store.outbox.add(_endpoint("others", agents=("support",)))
    await store.outbox.add(_endpoint("elsewhere", tenant="other"))
    alert = Alert(TENANT, f"tenant/day:{DAY}", "50", 100)
    told = await asyncio.gather(*(store.alerts.tell(alert, _said()) for _ in range(8)))
    same(sorted(told), [False] * 7 + [True], "who told it")
    rows = await store.outbox.deliveries(TENANT)
    same(sorted(row.endpoint for row in rows), ["all", "money"], "who gets it")
    same({(row.kind, row.run, row.body) for row in rows}, {("budget.alert", "", _said().body)}, "what they get")
    same(list(await store.outbox.deliveries("other")), [], "of another tenant")
    (kept,) = await store.alerts.told(TENANT)
    same((kept.subject, kept.line, kept.bound), (f"tenant/day:{DAY}", "50", 100), "what is kept")
    true(abs(kept.told_ms - await store.now_ms()) < 60_000, "when it was told, by the store's clock")
    same(list(await store.alerts.told("other")), [], "told of another tenant")


async def each_line_and_limit_is_told_apart(store: Store) -> None:
    """Another line, another window, another limit, another tenant: each is another alert, with deliveries of its own."""
    await store.outbox.add(_endpoint("all"))
    first = Alert(TENANT, f"tenant/day:{DAY}", "50", 100)
    others = [
        Alert(TENANT, f"tenant/day:{DAY}", "80", 100),
        Alert(TENANT, "tenant/day:2026-11-21", "50", 100),
        Alert(TENANT, f"tenant/day:{DAY}", "50", 200),
        Alert("other", f"tenant/day:{DAY}", "50", 100),
    ]
    for alert in (first, *others):
        same(await store.alerts.tell(alert, _said()), True, f"{alert}")
        same(await store.alerts.tell(alert, _said()), False, f"{alert} again")
    same(len(await store.outbox.deliveries(TENANT)), 4, "deliveries of the tenant")
    same(len(await store.alerts.told(TENANT)), 4, "told of the tenant")
    claimed = await store.outbox.claim(f"{TENANT}/all", lease_ms=1_000, limit=10)
    same(len(claimed), 4, "all of them are due at once: they are about no run")


async def who_has_used_half_is_listed(store: Store) -> None:
    """Of all tenants; with a limit, in the windows that are asked for, from half of it on, or closed."""
    for name, limit in (
        ("tenant/day", 100),
        ("user:ann", 101),
        ("user:bob", 100),
        ("session:s", 1_000),
        ("user:cat", 0),
    ):
        await store.set_limit(TENANT, name, limit)
    await store.set_limit("", "all", 1_000)
    today, before = f"tenant/day:{DAY}", "tenant/day:2026-11-19"
    await _spend(
        store, "r1", (today, 50), (before, 90), ("user:ann", 51), ("user:bob", 49), ("session:s", 1), ("all", 600)
    )
    await _spend(store, "r2", ("user:free", 500))
    driver = await Driver.driving(store, "r3")
    await driver.append(reserve=(Reserve("session:s", 10),))
    await driver.append(settle=(Settle("session:s", 10, 11),))
    found = {(row.tenant, row.ledger): row for row in await store.alerts.used([DAY, "2026-11"])}
    same(sorted(found), [("", "all"), (TENANT, "session:s"), (TENANT, today), (TENANT, "user:ann")], "who")
    same(found[TENANT, today], Ledger(TENANT, today, 100, 50, 0, closed=False), "a ledger")
    same(found[TENANT, "session:s"].closed, True, "one that an overrun has closed")
    same([row.ledger for row in await store.alerts.used([])], ["all", "session:s", "user:ann"], "without windows")


CHECKS = (an_alert_is_told_once, each_line_and_limit_is_told_apart, who_has_used_half_is_listed)
