"""The engine that brings hints by DBOS keeps the port's contract. DBOS is no part of the dev group: 60 MB, eleven packages."""

from __future__ import annotations

from importlib import util
from pathlib import Path

import pytest

from stanchion.core.errors import ConfigError
from stanchion.engine.dbos import dbos_engine
from stanchion.journal.sqlite import SqliteStore
from stanchion.testing.engine import CHECKS, EngineCheck, exercise

NEEDS_DBOS = pytest.mark.skipif(
    util.find_spec("dbos") is None, reason='DBOS is not installed: pip install "stanchion[dbos]" to run these'
)


@NEEDS_DBOS
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_conformance(check: EngineCheck, tmp_path: Path) -> None:
    """Every check of the suite holds, with a store and a DBOS on SQLite."""
    engine = dbos_engine(f"sqlite:///{tmp_path}/dbos.db")
    await exercise(check, engine, lambda name: SqliteStore.open(tmp_path / f"{name}.db"))


@pytest.mark.skipif(util.find_spec("dbos") is not None, reason="DBOS is installed")
def test_without_dbos_it_says_what_to_install() -> None:
    """The error names the extra."""
    with pytest.raises(ConfigError, match=r"stanchion\[dbos\]"):
        dbos_engine("sqlite:///dbos.db")
