"""The schema: made where there is none, brought forward where it is older.

One that a newer program made is used as it stands, if it says that programs of this version may (`compatible_from`), and
refused if not: in a rolling upgrade old and new programs work on one database.

Many processes may start at once: the first holds an advisory lock, the others wait for it and find the work done.
"""

from __future__ import annotations

import logging
import zlib

import asyncpg

from stanchion.core.errors import ConfigError
from stanchion.journal import queries
from stanchion.journal.postgres.address import Address, Connection
from stanchion.journal.postgres.errors import refused

log = logging.getLogger("stanchion.journal")

MIGRATIONS = queries.migrations("postgres")
VERSION = max(MIGRATIONS)
_LOCK = 1398034433
"""First half of the advisory lock ("STNA"); the second is the schema's name."""


async def prepare(connection: Connection, address: Address) -> None:
    """Bring the schema to this version. Raises `ConfigError`, `JournalError`."""
    try:
        await _check_server(connection, address)
        if await _version(connection, address) >= VERSION:
            return
        # Locked before the transaction begins: one that began earlier would not see what the one before us made.
        await connection.execute("SELECT pg_advisory_lock($1, $2)", _LOCK, lock_number(address.schema))
        async with connection.transaction():
            await _migrate(connection, address)
        await connection.execute("SELECT pg_advisory_unlock($1, $2)", _LOCK, lock_number(address.schema))
    except asyncpg.PostgresError as error:
        raise refused(error, address.name) from error


def lock_number(name: str) -> int:
    """Number of a name for an advisory lock."""
    return zlib.crc32(name.encode()) - (1 << 31)


async def _check_server(connection: Connection, address: Address) -> None:
    version = connection.get_server_version()
    if version.major < 14:
        raise ConfigError(f"{address.name} is PostgreSQL {version.major}; use 14 or later")
    if await connection.fetchval("SHOW server_encoding") != "UTF8":
        raise ConfigError(f"{address.name}: the database's encoding is not UTF8; make one with ENCODING 'UTF8'")


async def versions(connection: Connection, address: Address) -> tuple[int, int]:
    """Read the schema's version, and from which on a program may use it; 0: there is none."""
    if await connection.fetchval("SELECT to_regclass($1)", f'"{address.schema}".meta') is None:
        return 0, 0
    found = int(await connection.fetchval("SELECT value FROM meta WHERE name = 'schema_version'") or 0)
    # (before there was such a row, any newer schema was refused)
    return found, int(await connection.fetchval("SELECT value FROM meta WHERE name = 'compatible_from'") or found)


async def _version(connection: Connection, address: Address) -> int:
    """Read the schema's version; 0: there is none. Raises `ConfigError` where this program must not use it."""
    found, needed = await versions(connection, address)
    if found > VERSION:
        if needed > VERSION:
            raise ConfigError(
                f"{address.name} was brought to schema {found} by a newer Stanchion, which programs from schema {needed} on "
                f"can use; this one knows {VERSION}: upgrade Stanchion, or go back to the copy made before the upgrade"
            )
        log.warning("%s is of a newer schema (%d) than this program (%d); it works on it", address.name, found, VERSION)
    return found


async def _migrate(connection: Connection, address: Address) -> None:
    found = await _version(connection, address)
    if found >= VERSION:
        return  # another process was faster
    if not found:
        await _check_empty(connection, address)
        if not await connection.fetchval("SELECT to_regnamespace($1)", f'"{address.schema}"'):
            await connection.execute(f'CREATE SCHEMA "{address.schema}"')
    for version, statements in MIGRATIONS.items():
        if version > found:
            await connection.execute(statements)
    await connection.execute(
        "INSERT INTO meta VALUES ('schema_version', $1), ('compatible_from', $2) "
        "ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        VERSION,
        queries.compatible_from(MIGRATIONS),
    )


async def _check_empty(connection: Connection, address: Address) -> None:
    tables = await connection.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = $1", address.schema)
    if tables:
        raise ConfigError(f"{address.name}: the schema is another program's; name another (?schema=..)")
