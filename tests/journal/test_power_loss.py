"""Power goes at any moment: no acknowledged event is lost, and every chain verifies."""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path

import apsw
import pytest

from stanchion.journal.record import verify
from stanchion.journal.sqlite import SqliteStore, schema
from stanchion.testing.store_driver import TENANT, Driver, said
from tests.journal.disk import Disk

CHAOS = bool(os.environ.get("STANCHION_CHAOS"))
CRASHES = 300 if CHAOS else 60


class Crashes:
    """Takes images of the disk at random moments, each with what had been acknowledged before it."""

    def __init__(self, disk: Disk, folder: Path, seed: int) -> None:
        self.acknowledged: dict[str, int] = {}
        self.images: list[tuple[str, Path, dict[str, int]]] = []
        self._disk, self._folder = disk, folder
        self._chance = random.Random(seed)
        disk.watch = self._moment

    def _moment(self, what: str) -> None:
        likely = {"write": 0.01, "sync": 0.15, "synced": 0.15}[what]
        if len(self.images) < CRASHES and self._chance.random() < likely:
            acknowledged = dict(self.acknowledged)
            image = self._disk.crash(self._folder / f"crash{len(self.images)}", self._chance)
            self.images.append((what, image, acknowledged))


async def work(store: SqliteStore, crashes: Crashes) -> None:
    """Have runs append at once until there are enough images."""

    async def live(number: int) -> None:
        driver = await Driver.driving(store, f"r{number}")
        while len(crashes.images) < CRASHES:
            await driver.append(said(f"{number} {driver.recorder.seq} " * 40), said("more"))
            crashes.acknowledged[driver.run] = driver.recorder.seq

    await asyncio.gather(*(live(number) for number in range(6)))


async def check(image: Path, acknowledged: dict[str, int]) -> list[str]:
    """Open what the crash left; say what is wrong with it."""
    store = await SqliteStore.open(image)
    salts = {key.id: key.salt for key in await store.keys(TENANT)}
    wrong: list[str] = []
    for run, seq in acknowledged.items():
        records = await store.raw(TENANT, run)
        row = await store.run(TENANT, run)
        found = verify(TENANT, run, records, salts)
        if row is None or found.events < seq or (found.events, found.head) != (row.seq, row.hash):
            wrong.append(f"{run}: {found.events} events and a head at {row and row.seq}, {seq} were acknowledged")
    await store.aclose()
    connection = apsw.Connection(str(image))
    said_ok = connection.pragma("integrity_check")
    connection.close()
    return wrong if said_ok == "ok" else [*wrong, str(said_ok)]


@pytest.fixture
def small_checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checkpoint often, so that crashes fall into checkpoints too."""
    monkeypatch.setattr(schema, "CHECKPOINT_PAGES", 30)


@pytest.mark.usefixtures("small_checkpoints")
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.timeout(3_600 if CHAOS else 120)
async def test_no_acknowledged_event_is_lost(tmp_path: Path, seed: int) -> None:
    """At every moment of writing and syncing, what was acknowledged is on the disk."""
    disk = Disk(f"losing{seed}")
    store = await SqliteStore.open(tmp_path / "journal.db", vfs=disk.name)
    crashes = Crashes(disk, tmp_path, seed)
    await work(store, crashes)
    await store.aclose()
    assert {what for what, _, _ in crashes.images} >= {"write", "sync", "synced"}
    assert any(path.endswith(".db") and platter.durable for path, platter in disk.platters.items())
    for what, image, acknowledged in crashes.images:
        assert await check(image, acknowledged) == [], f"crash at a {what}: {image}"


async def test_a_disk_that_lies_is_seen(tmp_path: Path) -> None:
    """The test above can fail: on a disk that says it synced and did not, events are lost."""
    disk = Disk("lying")
    store = await SqliteStore.open(tmp_path / "journal.db", vfs=disk.name)
    driver = await Driver.driving(store, "r1")
    disk.sync_lies = True
    await driver.append(said("lost"))
    image = disk.crash(tmp_path / "crash", random.Random(3), survival=0.0)
    assert await check(image, {"r1": 2}) == ["r1: 1 events and a head at 1, 2 were acknowledged"]
    await store.aclose()
