"""Connections that are cut, frozen or lost, and a database that goes away and comes back."""

from __future__ import annotations

import asyncio
import signal

import asyncpg
import pytest

from stanchion.core.errors import CommitUnknown, JournalError
from stanchion.journal.postgres import lane
from stanchion.journal.postgres.address import connect, parse
from stanchion.journal.postgres.line import Line
from stanchion.testing.postgres import PostgresServer
from stanchion.testing.store_driver import TENANT, Driver, said, words
from tests.journal.proxy import Cut, Proxy
from tests.journal.scaled import cut, opened


async def test_a_connection_cut_between_groups_is_opened_anew(dsn: str) -> None:
    """Writers and readers whose connections were cut go on as if nothing had been."""
    async with opened(dsn) as (store,):
        driver = await Driver.driving(store, "r1")
        for number in range(3):
            assert await cut(dsn, "writer") >= 1
            await driver.append(said(f"{number}"))
            assert await cut(dsn, "reader") >= 1
            assert len(await store.read(TENANT, "r1")) == number + 2


@pytest.mark.parametrize(("moment", "written"), [("before", 0), ("after", 1)])
async def test_a_connection_cut_in_a_commit_is_unknown(
    dsn: str, postgres: PostgresServer, moment: Cut, written: int
) -> None:
    """Nobody says that it was or was not written; after reading again it goes on from what is there."""
    async with Proxy(postgres.port) as proxy, opened(dsn.replace(f":{postgres.port}/", f":{proxy.port}/")) as (store,):
        driver = await Driver.driving(store, "r1")
        proxy.cut = moment
        with pytest.raises(CommitUnknown, match="known after reading again"):
            await driver.append(said("perhaps"))
        entries = await store.read(TENANT, "r1")
        assert words(entries)[1:] == ["perhaps"] * written
        driver.recorder.seq, driver.recorder.hash = len(entries), entries[-1].hash
        await driver.append(said("on"))
        assert words(await store.read(TENANT, "r1"))[-1] == "on"


async def test_a_writer_frozen_in_its_transaction_does_not_keep_its_runs(dsn: str) -> None:
    """A process stopped between two statements holds rows; the database lets go of them before its leases end."""
    async with opened(dsn) as (store,):
        await Driver.driving(store, "r1")
        address = parse(dsn)
        frozen = await connect(address, role="writer")
        try:
            await frozen.execute("BEGIN")
            await frozen.execute("SELECT 1 FROM runs WHERE run = 'r1' FOR UPDATE")
            async with asyncio.timeout(2.5):
                await store.post(TENANT, "r1", "message", b"x")
            with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)):
                await frozen.execute("COMMIT")
        finally:
            await frozen.close()


async def test_a_restarted_database_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that meets a crashed database is made when it is back; one that waits too long says so, and none is lost."""
    with PostgresServer() as server:
        async with opened(server.dsn()) as (store,):
            driver = await Driver.driving(store, "r1")
            await driver.append(said("kept"))
            await asyncio.to_thread(server.stop, signal.SIGQUIT)
            key, now_ms = driver.recorder.key, store.clock_ms()
            append = driver.of(driver.recorder.record([said("later")], now_ms=now_ms, epoch=1)[1], 2, 1)
            write = asyncio.create_task(store.append(append))
            await asyncio.sleep(0.2)
            assert not write.done()
            await asyncio.to_thread(server.start)
            assert await write is None
            assert words(await store.read(TENANT, "r1")) == ["hello", "kept", "later"]
            monkeypatch.setattr(lane, "PATIENCE_S", 0.2)
            await asyncio.to_thread(server.stop, signal.SIGQUIT)
            with pytest.raises(JournalError, match=r"was lost .* can be reached") as caught:
                await store.append(driver.of([], 3, 1))
            assert caught.value.retryable
            with pytest.raises(JournalError):
                await store.key_for(TENANT, "bob")
            await asyncio.to_thread(server.start)
            assert await store.key_for(TENANT, "ann") == key


class Dying:
    """A connection that is lost at its n-th use."""

    def __init__(self, left: int) -> None:
        self.left = left
        self.ended = False

    async def _use(self, *_: object, **__: object) -> int:
        self.left -= 1
        if self.left < 0:
            raise asyncpg.ConnectionDoesNotExistError("the database went away")
        return 0

    execute = add_listener = fetch = fetchval = _use

    def terminate(self) -> None:
        self.ended = True


async def test_a_connection_that_is_lost_while_it_is_set_up_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is nobody's yet, and would hold a place at the server until it is collected."""
    dying = Dying(0)

    async def asked(*_: object, **__: object) -> Dying:
        return dying

    monkeypatch.setattr(asyncpg, "connect", asked)
    with pytest.raises(asyncpg.ConnectionDoesNotExistError):
        await connect(parse("postgresql://nobody@localhost/x"), role="writer")
    assert dying.ended
    for left in range(4):  # three channels, and the clock
        dying = Dying(left)
        with pytest.raises(asyncpg.ConnectionDoesNotExistError):
            await Line("stanchion x", asked).open()  # type: ignore[arg-type]
        assert dying.ended, left
