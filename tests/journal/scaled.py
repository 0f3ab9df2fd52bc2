"""Several stores on one database, as several processes have them, and ways past them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from stanchion.journal.postgres import PostgresStore
from stanchion.journal.postgres.address import parse
from stanchion.testing.store_driver import Driver


@asynccontextmanager
async def opened(*dsns: str) -> AsyncIterator[list[PostgresStore]]:
    """Open stores, and close them."""
    stores = [await PostgresStore.open(dsn) for dsn in dsns]
    try:
        yield stores
    finally:
        for store in stores:
            await store.aclose()


@asynccontextmanager
async def directly(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    """Connect past the store, in its schema."""
    address = parse(dsn)
    connection = await asyncpg.connect(address.dsn, server_settings={"search_path": address.schema})
    try:
        yield connection
    finally:
        await connection.close()


async def cut(dsn: str, role: str) -> int:
    """Have the server end all connections of a role."""
    async with directly(dsn) as connection:
        ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1"
        return len(await connection.fetch(ended, f"stanchion {role}"))


def twin(driver: Driver, store: PostgresStore) -> Driver:
    """Make another worker's driver of the same run, which knows as much."""
    other = Driver(store, driver.recorder, driver.tenant, driver.run, driver.session)
    other.epoch = driver.epoch
    return other
