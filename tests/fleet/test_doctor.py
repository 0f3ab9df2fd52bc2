"""`stanchion doctor` on a database, and what it says of runs that nobody drives."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import pytest

from stanchion import Runtime
from stanchion.cli.checkup import judged
from stanchion.runtime import load_agents
from stanchion.runtime.operating.survey import Survey, survey_of
from tests.cli.conftest import Cli
from tests.engine.rig import World, agent, once, running

NOTHING = Survey(
    workers=1,
    served=["support"],
    unserved={},
    waiting_for_a_slot={},
    dead_leases={},
    stuck_behind=[],
    never_woken=[],
    unreadable=[],
    looked_at=0,
    parked={},
)


def findings(cli: Cli, dsn: str) -> dict[str, tuple[str, str]]:
    said = cli.call("doctor", "--data", dsn, "-o", "json", "--port", "1025")
    return {finding["check"]: (finding["level"], finding["found"]) for finding in json.loads(said.stdout)["findings"]}


async def make(dsn: str) -> None:
    """Make the schema."""
    await (await Runtime.open(data=dsn, drive=False)).aclose()


def test_doctor_on_a_database(cli: Cli, dsn: str) -> None:
    """It asks the server, names the schema's version, warns that fsync is off; files are none of its concern there."""
    first = findings(cli, dsn)
    assert first["database"][0] == "ok"
    assert "there is none" in first["schema"][1]
    assert first["durability"][0] == "fail"  # this server is for tests: it runs without fsync
    assert not {"data file", "disk space", "sqlite"} & set(first)
    assert "runs" not in first  # looking at them would make the schema
    asyncio.run(make(dsn))
    second = findings(cli, dsn)
    assert "this one knows" in second["schema"][1]
    assert second["runs"][0] == "ok"
    nowhere = findings(cli, "postgresql://ann:secret@127.0.0.1:1/none")
    assert nowhere["database"][0] == "fail"
    assert "runs" not in nowhere
    assert "secret" not in str(nowhere)


async def test_a_survey_finds_what_nobody_drives(cli: Cli, dsn: str) -> None:
    """Runs of agents without a worker, runs whose worker is gone, and runs that stand."""
    (support,) = load_agents(str(cli.directory / "agent.py"))
    async with await Runtime.open(support, data=dsn, drive=False) as api:
        lost = (await api.start("support", "hello")).run
        await api.store.claim("default", lost, worker="gone", lease_ms=0)
        await api.start("support", "hello")
        found = await survey_of(api.store, idle_ms=0)
        assert (found.workers, found.unserved, found.dead_leases) == (0, {"support": 1}, {"support": 1})
        said = {finding.check: finding for finding in judged(found, shared=True)}
        assert (said["workers"].level, said["workers"].mend) == ("warn", "start one: stanchion worker")
        assert "take" in said["runs of lost workers"].mend
        async with await Runtime.open(support, data=dsn, environment=cli.environment()):
            await api.wait(lost, timeout_s=20)
            found = await survey_of(api.store)
            assert (found.workers, found.served, found.dead_leases) == (1, ["support"], {})
            assert "runs" in {finding.check for finding in judged(found, shared=True)}


async def test_a_run_that_waits_for_a_person_is_not_asleep(tmp_path: Path) -> None:
    """Who waits for a decision is looked into and found in order."""
    async with running(tmp_path, once("refund", order="A", cents=5), agent(World())) as runtime:
        run = (await runtime.start("desk", "Refund.")).run
        assert (await runtime.wait(run, timeout_s=20)).waiting
        found = await survey_of(runtime.store)
        assert (found.looked_at, found.never_woken, found.unreadable) == (1, [], [])


async def test_queued_behind_nothing_is_found(cli: Cli, dsn: str) -> None:
    """A queued run whose session lost its live run, as no writer of ours leaves it."""
    (support,) = load_agents(str(cli.directory / "agent.py"))
    async with await Runtime.open(support, data=dsn, drive=False) as api:
        await api.start("support", "hello", session="s")
        behind = (await api.start("support", "and", session="s", if_busy="queue")).run
        assert (await survey_of(api.store)).stuck_behind == []
        connection = await asyncpg.connect(dsn.partition("?")[0])
        await connection.execute(f"UPDATE {dsn.partition('schema=')[2]}.sessions SET live = ''")
        await connection.close()
        assert (await survey_of(api.store)).stuck_behind == [behind]


@pytest.mark.parametrize(
    ("part", "check", "level"),
    [
        ({}, "runs", "ok"),
        ({"waiting_for_a_slot": {"support": 900}}, "runs that wait their turn", "ok"),
        ({"unserved": {"billing": 2}}, "runs without a worker", "warn"),
        ({"never_woken": ["run_1"]}, "waiting for nothing", "warn"),
        ({"unreadable": ["run_1", "run_2", "run_3", "run_4"]}, "not readable here", "warn"),
        ({"stuck_behind": ["run_1"]}, "queued behind nothing", "warn"),
        ({"parked": {"dead_letter": 3}}, "runs that stand", "warn"),
    ],
)
def test_what_is_said_of_it(part: dict[str, Any], check: str, level: str) -> None:
    """Each finding says what to do, unless there is nothing to do."""
    survey = msgspec.structs.replace(NOTHING, **part)
    found = {finding.check: finding for finding in judged(survey, shared=True)}
    assert found[check].level == level
    assert bool(found[check].mend) == bool(part)
