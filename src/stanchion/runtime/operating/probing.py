"""Facts about the store that `data` names, without changing it: for whoever looks before a start. Nothing is judged here."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import apsw
import msgspec

from stanchion.core.errors import ConfigError
from stanchion.journal.sqlite import schema as sqlite_schema

_ROUND_TRIPS = 20


class DatabaseFacts(msgspec.Struct, frozen=True):
    """What a PostgreSQL database is like."""

    name: str
    """Host and database, without the password."""
    version: str
    major: int
    round_trip_ms: float
    """Median of a few."""
    schema: int
    """Version of our schema in it; 0: there is none."""
    usable_from: int
    """The version that a program must know at least to use that schema."""
    known: int
    """The version that this program knows."""
    settings: dict[str, str]
    """What durability hangs on."""
    connections: int
    max_connections: int


async def probe_database(url: str) -> DatabaseFacts:
    """Ask a database for its facts. Raises `ConfigError`, `JournalError` where it cannot be used at all."""
    try:
        from stanchion.journal.postgres import address, schema
    except ImportError as error:
        text = 'a PostgreSQL store needs asyncpg; install it with: pip install "stanchion[postgres]"'
        raise ConfigError(text) from error
    place = address.parse(url)
    connection = await address.first_connection(place)
    try:
        took_ms: list[float] = []
        for _ in range(_ROUND_TRIPS):
            began = time.perf_counter()
            await connection.fetchval("SELECT 1")
            took_ms.append((time.perf_counter() - began) * 1000)
        found, usable_from = await schema.versions(connection, place)
        names = ("fsync", "full_page_writes", "synchronous_commit")
        return DatabaseFacts(
            name=place.name,
            version=str(await connection.fetchval("SHOW server_version")),
            major=connection.get_server_version().major,
            round_trip_ms=statistics.median(took_ms),
            schema=found,
            usable_from=usable_from,
            known=schema.VERSION,
            settings={name: str(await connection.fetchval("SELECT current_setting($1)", name)) for name in names},
            connections=int(
                await connection.fetchval("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()")
            ),
            max_connections=int(await connection.fetchval("SHOW max_connections")),
        )
    finally:
        await connection.close()


def is_file_of_this_version(path: Path) -> bool:
    """Say whether a data file is there, is ours, and would be opened without changing its schema."""
    if not path.exists() or not path.stat().st_size:
        return False
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        rows = (connection.execute(f"PRAGMA {name}").fetchone() for name in ("application_id", "user_version"))  # pyright: ignore[reportUnknownMemberType]
        return [row[0] for row in rows if row] == [sqlite_schema.APPLICATION_ID, sqlite_schema.VERSION]
    except apsw.Error:  # no database
        return False
    finally:
        connection.close()
