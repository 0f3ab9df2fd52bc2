"""Where a store lies, and opening it: a data file, or a PostgreSQL database."""

from __future__ import annotations

from pathlib import Path
from typing import TypeGuard

from stanchion.core.errors import ConfigError
from stanchion.engine.clock import Clock, StoreClock, SystemClock
from stanchion.journal.sqlite import SqliteStore
from stanchion.journal.sqlite.schema import APPLICATION_ID
from stanchion.journal.store import Store

SQLITE_APPLICATION_ID = APPLICATION_ID
"""By this a data file of ours is known."""


def is_database(data: str | Path) -> TypeGuard[str]:
    """Tell whether `data` names a database server, and no file."""
    return isinstance(data, str) and data.partition("://")[0] in ("postgresql", "postgres")


async def open_store(data: str | Path, clock: Clock | None) -> tuple[Store, Clock]:
    """Open the store that `data` names, and the clock that goes with it. Raises `ConfigError`, `JournalError`."""
    if is_database(data):
        try:
            from stanchion.journal.postgres import PostgresStore
        except ImportError as error:
            text = 'a PostgreSQL store needs asyncpg; install it with: pip install "stanchion[postgres]"'
            raise ConfigError(text) from error
        shared = await PostgresStore.open(data)
        return shared, clock or StoreClock(shared.clock_ms)
    clock = clock or SystemClock()
    return await SqliteStore.open(store_path(data), clock=clock.now_ms), clock


def store_path(data: str | Path) -> str | Path:
    """Read where the store lies: a path, "sqlite:///path" or "sqlite:////absolute/path". Raises `ConfigError`."""
    if isinstance(data, str) and "://" in data:
        scheme, _, path = data.partition("://")
        if scheme != "sqlite" or not path.startswith("/"):
            raise ConfigError(f"data {scheme}://..: write a path, sqlite:///path or postgresql://user@host/database")
        data = path[1:]
    if not str(data):
        raise ConfigError("data is empty; name the file that holds the runs")
    return data
