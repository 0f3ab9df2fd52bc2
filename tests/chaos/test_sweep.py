"""A short form of the kill sweep; `make chaos` has the long one."""

from __future__ import annotations

import pytest

from tests.chaos.sweep import sweep


@pytest.mark.timeout(300)
async def test_kills_lose_nothing_and_repeat_nothing() -> None:
    """A kill at a few boundaries of each kind, and at random: nothing lost, nothing done twice, streams without gaps."""
    report = await sweep(appends=3, syncs=3, effects=3, random_kills=3, seed=7, parallel=2)
    assert report["bad"] == 0, report["problems"]
    assert report["killed"] >= 15
