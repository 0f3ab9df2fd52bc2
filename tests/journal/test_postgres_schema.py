"""The scale-out store's schema: made once, left alone where it is newer or another's; databases that cannot be."""

from __future__ import annotations

import asyncio

import pytest

from stanchion.core.errors import ConfigError
from stanchion.journal.postgres import PostgresStore
from stanchion.journal.postgres.address import parse
from stanchion.testing.postgres import PostgresServer
from stanchion.testing.store_driver import TENANT, Driver
from tests.journal.scaled import directly, opened


async def test_opened_by_many_at_once(dsn: str) -> None:
    """A new schema is made once, whoever comes first."""
    stores = await asyncio.gather(*(PostgresStore.open(dsn) for _ in range(6)))
    for number, store in enumerate(stores):
        await Driver.driving(store, f"r{number}")
    assert len(await stores[0].runs(TENANT)) == 6
    for store in stores:
        await store.aclose()


async def test_a_newer_schema_is_left_alone(dsn: str) -> None:
    """A schema of a newer version is refused with both versions and what to do."""
    async with opened(dsn):
        pass
    async with directly(dsn) as connection:
        await connection.execute("UPDATE meta SET value = 99")
        with pytest.raises(ConfigError, match=r"schema 99 .* from schema 99 on can use; this one knows \d+: upgrade"):
            await PostgresStore.open(dsn)
        assert await connection.fetchval("SELECT value FROM meta") == 99


async def test_a_newer_schema_that_only_adds_is_used(dsn: str) -> None:
    """A newer program's schema that says that this version may still use it is used, and keeps its version."""
    async with opened(dsn):
        pass
    async with directly(dsn) as connection:
        await connection.execute(
            "UPDATE meta SET value = 99 WHERE name = 'schema_version'; CREATE TABLE theirs (a int)"
        )
        async with opened(dsn) as (store, *_):
            await (await Driver.driving(store, "r1")).end()
        assert await connection.fetchval("SELECT value FROM meta WHERE name = 'schema_version'") == 99


async def test_another_program_s_schema_is_left_alone(dsn: str) -> None:
    """A schema with tables that are not ours is refused."""
    async with directly(dsn) as connection:
        await connection.execute(f"CREATE SCHEMA {parse(dsn).schema}; CREATE TABLE theirs (a int)")
        with pytest.raises(ConfigError, match="another program's"):
            await PostgresStore.open(dsn)


async def test_databases_that_cannot_be(postgres: PostgresServer) -> None:
    """Each is an error that names host and database, and never the password."""
    places = [
        ("postgresql://ann:hunter2@127.0.0.1:1/db", r"127\.0\.0\.1:1/db cannot be reached"),
        (f"postgresql://ann:hunter2@127.0.0.1:{postgres.port}/postgres", r"/postgres refuses the user"),
        (f"postgresql://postgres:hunter2@127.0.0.1:{postgres.port}/none", r"/none: there is no such database"),
        (f"postgresql://postgres@127.0.0.1:{postgres.port}/postgres?foo=1", r"does not know what the URL sets"),
        ("postgresql://ann:hunter2@127.0.0.1:port/db", "cannot be read"),
        ("mysql://ann:hunter2@host/db", "no PostgreSQL URL"),
        ("postgresql://ann:hunter2@host/db?schema=a-b", "schema 'a-b'"),
    ]
    for dsn, what in places:
        with pytest.raises(ConfigError, match=what) as caught:
            await PostgresStore.open(dsn)
        assert "hunter2" not in str(caught.value) + repr(caught.value)
    assert "hunter2" not in repr(parse(places[0][0]))
