"""A simulated provider for each test, and what tests say to it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from stanchion.sim import SimServer, running_sim


@pytest.fixture
async def sim() -> AsyncIterator[SimServer]:
    """A simulated provider that plays the built-in demo."""
    async with running_sim() as server:
        yield server
