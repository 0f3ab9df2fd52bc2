"""Processes that write are killed at any moment: no acknowledged event is lost, and every chain verifies."""

from __future__ import annotations

import asyncio
import os
import random
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path

import pytest

from stanchion.journal.record import verify
from stanchion.journal.sqlite import SqliteStore
from stanchion.testing.store_driver import TENANT

CHAOS = bool(os.environ.get("STANCHION_CHAOS"))
KILLS = 1_000 if CHAOS else 20
APPENDER = Path(__file__).with_name("appender.py")


async def start(path: Path, name: str) -> Process:
    return await asyncio.create_subprocess_exec(sys.executable, str(APPENDER), str(path), name, stdout=PIPE)


async def acknowledged_until_killed(process: Process, after_s: float) -> dict[str, int]:
    """Kill a process some time after its first append; return what it had acknowledged."""
    assert process.stdout is not None
    first = await process.stdout.readline()
    asyncio.get_running_loop().call_later(after_s, process.kill)
    said = (first + await process.stdout.read()).decode().splitlines()
    await process.wait()
    return {run: int(seq) for run, seq in (line.split() for line in said if line.count(" ") == 1 and line.split()[1])}


@pytest.mark.timeout(3_600 if CHAOS else 120)
async def test_no_acknowledged_event_is_lost(tmp_path: Path) -> None:
    """Two processes append to one file and are killed again and again; what they had been told is in it."""
    path, chance = tmp_path / "journal.db", random.Random(7)
    acknowledged: dict[str, int] = {}
    for kill in range(0, KILLS, 2):
        both = [await start(path, f"{kill + number}") for number in range(2)]
        told = await asyncio.gather(*(acknowledged_until_killed(one, chance.uniform(0, 0.2)) for one in both))
        assert all(told)
        acknowledged.update(told[0] | told[1])
    store = await SqliteStore.open(path)
    salts = {key.id: key.salt for key in await store.keys(TENANT)}
    for run, seq in acknowledged.items():
        found = verify(TENANT, run, await store.raw(TENANT, run), salts)
        row = await store.run(TENANT, run)
        assert row is not None
        assert (row.seq, row.hash) == (found.events, found.head)
        assert found.events >= seq, run
    await store.aclose()
    assert len(acknowledged) >= KILLS
