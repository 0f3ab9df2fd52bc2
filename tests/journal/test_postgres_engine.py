"""The engine keeps its port's contract on the store that many processes share."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from stanchion.engine.dbos import dbos_engine
from stanchion.engine.rows import RowsEngine
from stanchion.journal.postgres import PostgresStore
from stanchion.journal.store import Store
from stanchion.testing.engine import CHECKS, EngineCheck, OpenStore, exercise
from stanchion.testing.postgres import PostgresServer

_numbers = itertools.count(1)


def databases(fresh_dsn: Callable[[], str]) -> OpenStore:
    """Make a schema for each name."""
    dsns: dict[str, str] = {}

    async def open_store(name: str) -> Store:
        return await PostgresStore.open(dsns.setdefault(name, fresh_dsn()), readers=2)

    return open_store


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_conformance(check: EngineCheck, fresh_dsn: Callable[[], str]) -> None:
    """Every check of the suite holds."""
    await exercise(check, RowsEngine, databases(fresh_dsn))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_conformance_of_dbos(check: EngineCheck, postgres: PostgresServer, fresh_dsn: Callable[[], str]) -> None:
    """Every check holds where the hints are workflows of DBOS, in the same database."""
    engine = dbos_engine(postgres.dsn(), schema=f"dbos_{next(_numbers)}")
    await exercise(check, engine, databases(fresh_dsn))
