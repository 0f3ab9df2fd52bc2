"""The conformance suite of the store's port: whatever holds journals must pass it.

    await exercise_store(lambda: MyStore.open(...))

Each check gets a new, empty store, whatever its clock; none looks behind the port. `CHECKS` is the same as a list, for a
test runner that wants one test per check.
"""

from __future__ import annotations

from stanchion.testing import (
    store_alert,
    store_budgets,
    store_connection,
    store_contents,
    store_fair,
    store_memory,
    store_moving,
    store_outbox,
    store_parked,
    store_quota,
    store_relay,
    store_remembered,
    store_runs,
    store_schedule,
    store_sessions,
    store_tray,
)
from stanchion.testing.store_driver import Check, MakeStore

CHECKS: tuple[Check, ...] = (
    *store_runs.CHECKS,
    *store_sessions.CHECKS,
    *store_budgets.CHECKS,
    *store_alert.CHECKS,
    *store_contents.CHECKS,
    *store_memory.CHECKS,
    *store_moving.CHECKS,
    *store_remembered.CHECKS,
    *store_parked.CHECKS,
    *store_quota.CHECKS,
    *store_schedule.CHECKS,
    *store_connection.CHECKS,
    *store_outbox.CHECKS,
    *store_tray.CHECKS,
    *store_relay.CHECKS,
    *store_fair.CHECKS,
)


async def exercise_store(make_store: MakeStore) -> int:
    """Run every check on a new store of its own; return how many. Raises `AssertionError` with the check's name."""
    for check in CHECKS:
        await exercise(check, make_store)
    return len(CHECKS)


async def exercise(check: Check, make_store: MakeStore) -> None:
    """Run one check."""
    store = await make_store()
    try:
        await check(store)
    except AssertionError as error:
        raise AssertionError(f"{check.__name__}: {error}") from error
    finally:
        await store.aclose()
