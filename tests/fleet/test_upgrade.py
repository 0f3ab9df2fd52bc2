"""A rolling upgrade on one database: the worker of today beside one of a version to come, and runs that change hands."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from stanchion import Runtime
from stanchion.core.errors import UnknownEvent
from stanchion.journal.postgres import schema
from stanchion.journal.store import RunRow
from tests.cli.conftest import Cli
from tests.fleet.conftest import started
from tests.waiting import until

ROOT = Path(__file__).parents[2]


@contextmanager
def newer(cli: Cli, dsn: str) -> Iterator[subprocess.Popen[str]]:
    """Run a worker of a version to come."""
    words = [sys.executable, "-m", "tests.fleet.newer_worker", dsn, str(cli.directory / "agent.py")]
    process = subprocess.Popen(
        words, cwd=ROOT, env=cli.environment(), text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    try:
        yield process
    finally:
        process.send_signal(signal.SIGCONT)
        process.communicate(input="\n", timeout=20)


async def row_when(dsn: str, run: str, **wanted: object) -> RunRow:
    """Wait until a run's row is as wanted; give it."""
    store = (await Runtime.open(data=dsn, drive=False)).store
    try:
        row = await until(
            lambda: store.run("default", run),
            lambda row: row is not None and all(getattr(row, name) == value for name, value in wanted.items()),
        )
        assert row is not None
        return row
    finally:
        await store.aclose()


async def read(dsn: str, run: str) -> None:
    async with await Runtime.open(data=dsn, drive=False) as runtime:
        await runtime.view(run)


def test_old_and_new_side_by_side(cli: Cli, dsn: str) -> None:
    """The old one works on the newer schema; a run with an event that it does not know it leaves to the new one.

    It tries once, says so once, and the try does not count. Its own runs go on meanwhile.
    """
    with started(cli, "api", "agent.py", "--port", "0", "--data", dsn) as api:
        where = ("--url", api.url)
        with newer(cli, dsn) as new:
            waiting = cli.call("run", "support", "refund A-17", "--no-ask", "-o", "json", *where, "--data", "")
            assert waiting.returncode == 1  # (this API is of today: it cannot read on where the newer event stands)
            [found] = cli.json("runs", "ls", *where)
            asyncio.run(row_when(dsn, found["run"], status="waiting"))
            with pytest.raises(UnknownEvent, match="remarked"):
                asyncio.run(read(dsn, found["run"]))
            with started(cli, "worker", "agent.py", "--data", dsn) as old:
                new.send_signal(signal.SIGSTOP)
                assert cli.call("runs", "send", found["run"], "and quickly", *where).returncode == 0
                row = asyncio.run(row_when(dsn, found["run"], status="runnable", worker="", epoch=2))
                assert row.attempts == 0
                mine = cli.call("run", "support", "hello", *where)
                assert (mine.returncode, mine.stdout) == (0, "hello there\n")
                assert asyncio.run(row_when(dsn, found["run"])).epoch == 2  # it was not claimed again
                new.send_signal(signal.SIGCONT)
                assert cli.call("runs", "cancel", found["run"], *where).returncode == 0
                row = asyncio.run(row_when(dsn, found["run"], status="ended"))
                assert row.outcome == "cancelled"
                assert row.epoch >= 3
                code, said = old.stop()
        assert code == 0
        assert said.count("is left to newer workers") == 1
        assert f"newer schema ({schema.VERSION + 1}) than this program ({schema.VERSION})" in said


def test_a_drained_worker_hands_over_at_once(cli: Cli, dsn: str) -> None:
    """SIGTERM in a model call: it is broken off and journaled, and the other worker goes on without waiting for the lease."""
    with (
        started(cli, "api", "agent.py", "--port", "0", "--data", dsn) as api,
        started(cli, "worker", "agent.py", "--grace-s", "0.5", "--data", dsn) as first,
    ):
        process = cli.start("run", "support", "slow", "--url", api.url, "-o", "json", "--events")
        assert process.stdout is not None
        lines = [process.stdout.readline(), process.stdout.readline()]
        assert [json.loads(line)["type"] for line in lines] == ["run_started", "model_call_started"]
        run = json.loads(lines[0])["run"]
        with started(cli, "worker", "agent.py", "--data", dsn):
            code, said = first.stop()
            assert code == 0, said
            row = asyncio.run(row_when(dsn, run, epoch=2))
            assert row.attempts <= 1
            process.kill()
            process.communicate()
            entries = asyncio.run(entries_of(dsn, run))
            handed = next(place for place, entry in enumerate(entries) if entry[0] == 2)
            assert entries[handed - 1][2] == "model_call_failed"
            gap_ms = entries[handed][1] - entries[handed - 1][1]
            print(f"handed over after {gap_ms} ms")
            assert gap_ms < 2_500  # the lease: whoever waits for it is late


async def entries_of(dsn: str, run: str) -> list[tuple[int, int, str]]:
    """Epoch, time and type of a run's events, once the second driver has begun."""
    async with await Runtime.open(data=dsn, drive=False) as runtime:
        entries = await until(lambda: runtime.store.read("default", run), lambda entries: entries[-1].epoch == 2)
        return [(e.epoch, e.at_ms, str(e.event.__struct_config__.tag)) for e in entries]
