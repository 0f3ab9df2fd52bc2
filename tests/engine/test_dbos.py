"""The engine that brings hints by DBOS keeps the port's contract, with all of it on SQLite."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from stanchion.core.errors import ConfigError
from stanchion.engine.dbos import dbos_engine
from stanchion.journal.sqlite import SqliteStore
from stanchion.testing.engine import CHECKS, EngineCheck, exercise


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_conformance(check: EngineCheck, tmp_path: Path) -> None:
    """Every check of the suite holds."""
    engine = dbos_engine(f"sqlite:///{tmp_path}/dbos.db")
    await exercise(check, engine, lambda name: SqliteStore.open(tmp_path / f"{name}.db"))


def test_without_dbos_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the extra."""
    monkeypatch.setitem(sys.modules, "dbos", None)  # as if it were not installed
    with pytest.raises(ConfigError, match=r"stanchion\[dbos\]"):
        dbos_engine("sqlite:///dbos.db")
