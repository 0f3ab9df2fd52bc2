"""A short form of the matrix on PostgreSQL; `make chaos` has the long one."""

from __future__ import annotations

import pytest

from stanchion.testing.postgres import NoPostgres
from tests.chaos.matrix import Shape, matrix


@pytest.mark.timeout(240)
async def test_a_fleet_under_fire_loses_nothing_and_repeats_nothing() -> None:
    """A few faults of each sort, the database's restarts among them: nothing lost or repeated, every journal in order."""
    shape = Shape(faults=12, seed=11, in_flight=6, database_every_s=(2.0, 5.0))
    try:
        report = await matrix(shape, tell=lambda *_, **__: None)
    except NoPostgres as error:
        pytest.skip(f"no PostgreSQL can be started here: {error}")
    assert report["bad"] == 0, report["problems"]
    assert report["faults"] >= 12
    assert report["runs_hit"] > 0
    assert report["journals"]["verified"] == report["runs"]
