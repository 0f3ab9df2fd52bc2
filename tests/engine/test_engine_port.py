"""The engine keeps its port's contract on each store that is made for one process."""

from __future__ import annotations

from pathlib import Path

import pytest

from stanchion.engine.port import Driver
from stanchion.engine.rows import RowsEngine
from stanchion.journal.sqlite import SqliteStore
from stanchion.testing import engine
from stanchion.testing.engine import CHECKS, EngineCheck, exercise, exercise_engine, in_memory


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_conformance_in_memory(check: EngineCheck) -> None:
    """Every check of the suite holds where all are in one process."""
    await exercise(check, RowsEngine, in_memory())


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_conformance_on_a_file(check: EngineCheck, tmp_path: Path) -> None:
    """.. and on a data file."""
    await exercise(check, RowsEngine, lambda name: SqliteStore.open(tmp_path / f"{name}.db"))


async def test_the_suite_fails_on_an_engine_that_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that only passes hints on, and never looks, leaves a lost worker's runs where they are."""

    class Deaf(RowsEngine):
        async def _sweep(self, driver: Driver) -> None:
            await driver.take_ready()

    monkeypatch.setattr(engine, "SOON_S", 1.0)
    with pytest.raises(AssertionError, match="what_other_processes_write_is_found"):
        await exercise_engine(Deaf)
