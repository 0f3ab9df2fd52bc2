"""One PostgreSQL server per test session; each test has a schema of its own in it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest

from stanchion.testing.postgres import NoPostgres, PostgresServer

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """Start a server."""
    try:
        server = PostgresServer()
    except NoPostgres as error:
        pytest.skip(f"no PostgreSQL can be started here: {error}")
    with server:
        yield server


@pytest.fixture
def fresh_dsn(postgres: PostgresServer) -> Callable[[], str]:
    """Name a schema that nobody has used, each time."""
    return lambda: f"{postgres.dsn()}?schema=test_{next(_numbers)}"


@pytest.fixture
def dsn(fresh_dsn: Callable[[], str]) -> str:
    """Name one such schema."""
    return fresh_dsn()
