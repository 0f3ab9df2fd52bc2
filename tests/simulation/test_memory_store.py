"""The store of the simulation keeps the port's contract, so that what is found on it is not its own fault."""

from __future__ import annotations

import pytest

from stanchion.testing.memory import MemoryStore
from stanchion.testing.store import CHECKS, exercise
from stanchion.testing.store_driver import Check


async def _fresh() -> MemoryStore:
    return MemoryStore()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_conformance(check: Check) -> None:
    """Every check of the suite holds."""
    await exercise(check, _fresh)


async def test_two_stores_over_the_same_tables() -> None:
    """What one writes the other sees, and is told of; one's own writes are no news."""
    one = MemoryStore()
    two = MemoryStore(one.tables)
    await one.put_bundle("t", "d", b"body")
    assert await two.bundle("t", "d") == b"body"
    assert (await two.changed_elsewhere(), await two.changed_elsewhere()) == (True, False)
    assert not await one.changed_elsewhere()
