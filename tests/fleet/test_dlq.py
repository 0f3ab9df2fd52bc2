"""Dead letters: listed with their reasons, shown with their context, replayed, dropped; on data and over HTTP."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from stanchion import Runtime
from stanchion.core import event as ev
from stanchion.runtime import load_agents
from tests.cli.conftest import Cli
from tests.engine.rig import World, agent, events, once, over, running, until_event
from tests.fleet.conftest import started


async def stop_short(runtime: Runtime, run: str, *, tenant: str = "default", times: int = 5) -> None:
    """Claim a run so many times and come to nothing, as workers that it kills do."""
    for number in range(times):
        assert await runtime.store.claim(tenant, run, worker=f"worker_{number}", lease_ms=0)


async def make_letters(cli: Cli, data: str, *tenants: str) -> list[str]:
    """Make a dead letter for each tenant: claimed in vain by five workers, parked by the sixth."""
    (loaded,) = load_agents(str(cli.directory / "agent.py"))
    api = await Runtime.open(loaded, data=data, drive=False)
    runs: list[str] = []
    for tenant in tenants:
        runs.append((await api.start("support", "refund A-17", tenant=tenant, user="ann")).run)
        await stop_short(api, runs[-1], tenant=tenant)
    async with await Runtime.open(loaded, data=data, environment=cli.environment()):
        for run, tenant in zip(runs, tenants, strict=True):
            assert (await api.wait(run, tenant=tenant, timeout_s=20)).parked == "dead_letter"
    await api.aclose()
    return runs


@pytest.fixture(params=["file", "database"])
def data(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A data file, or a database."""
    if request.param == "file":
        return str(tmp_path / "stanchion.db")
    return request.getfixturevalue("fresh_dsn")()


def test_an_operator_lists_shows_and_replays(cli: Cli, data: str) -> None:
    """Over all tenants on the data itself: reasons, the claims and their workers, and one run set going again."""
    runs = asyncio.run(make_letters(cli, data, "default", "acme"))
    where = ("--data", data)
    [row] = cli.json("dlq", "ls", *where)
    assert (row["run"], row["reason"], row["attempts"], row["agent"]) == (runs[0], "dead_letter", 5, "support")
    assert [row["tenant"] for row in cli.json("dlq", "ls", "--all-tenants", *where)] == ["acme", "default"]
    assert cli.call("dlq", "ls", "-q", "--tenant", "acme", *where).stdout == f"{runs[1]}\n"
    assert [row["parked"] for row in cli.json("runs", "ls", *where)] == ["dead_letter"]
    assert len(cli.json("runs", "ls", "--outcome", "dead_letter", *where)) == 1
    assert cli.json("runs", "ls", "--outcome", "done", *where) == []
    shown = cli.json("dlq", "show", runs[0], *where)
    assert [(claim["epoch"], claim["worker"]) for claim in shown["claims"]] == [
        (number + 1, f"worker_{number}") for number in range(5)
    ]
    assert [event["type"] for event in shown["events"]] == ["run_started", "run_parked"]
    assert (shown["input"], "without progress" in shown["why"]) == ("refund A-17", True)
    text = cli.call("dlq", "show", runs[0], *where)
    assert "epoch 3 by worker_2" in text.stdout
    assert f"dlq replay {runs[0]} --data {data}" in text.stderr
    assert cli.json("dlq", "replay", "--all", "--all-tenants", *where) == {"replayed": runs[::-1]}
    assert cli.json("dlq", "ls", *where) == []
    with started(cli, "worker", "agent.py", *where):
        assert cli.call("runs", "tail", runs[0], "--no-follow", *where).returncode == 0
        cli.call("decide", runs[0], "approve", *where)
    refused = cli.call("dlq", "show", runs[0], *where)
    assert (refused.returncode, "not parked" in refused.stderr) == (2, True)


def test_a_tenant_sees_its_own_through_a_server(cli: Cli) -> None:
    """Over HTTP: list, show without the names of workers, replay by agent, drop with a reason; nothing of other tenants."""
    runs = asyncio.run(make_letters(cli, str(cli.directory / "stanchion.db"), "default", "default", "acme"))
    with started(cli, "api", "agent.py", "--port", "0") as api:
        where = ("--url", api.url)
        assert [row["run"] for row in cli.json("dlq", "ls", *where)] == runs[1::-1]
        shown = cli.json("dlq", "show", runs[0], *where)
        assert [sorted(claim) for claim in shown["claims"]] == [["ended_ms", "epoch"]] * 5
        assert cli.call("dlq", "show", runs[2], *where).returncode == 2
        assert "for the data itself" in cli.call("dlq", "ls", "--all-tenants", *where).stderr
        assert cli.json("dlq", "replay", "--all", "--agent", "other", *where) == {"replayed": []}
        asked = cli.call("dlq", "drop", runs[0], *where)
        assert (asked.returncode, "--yes" in asked.stderr) == (2, True)
        assert cli.json("dlq", "drop", runs[0], "--yes", "--reason", "enough", *where) == {"dropped": [runs[0]]}
        assert cli.call("dlq", "replay", "--agent", "support", *where).returncode == 2
        assert cli.json("dlq", "replay", runs[1], *where) == {"replayed": [runs[1]]}
        assert cli.call("dlq", "replay", runs[1], *where).returncode == 2
        with started(cli, "worker", "agent.py"):
            last = json.loads(cli.call("runs", "tail", runs[0], "-o", "json", *where).stdout.splitlines()[-1])
            assert (last["type"], last["outcome"]) == ("run_finished", "cancelled")


async def test_a_call_in_doubt_is_shown_and_not_repeated(tmp_path: Path) -> None:
    """A tool's attempt that was cut off by five deaths is in doubt in the letter, and after the replay asks a person."""
    world = World()
    async with running(tmp_path, once("slow_note", text="hi"), agent(world)) as runtime:
        run = (await runtime.start("desk", "Note it.")).run
        await until_event(runtime, run, ev.ToolCallStarted)
        await world.began.wait()
        copy = tmp_path / "later"
        copy.mkdir()
        await asyncio.to_thread(copy_database, tmp_path, copy)  # as a kill leaves it
    looking = await Runtime.open(data=copy / "t.db", drive=False)
    await looking.store.seize("nobody")  # the lease of the dead
    for number in range(5):
        claim = await looking.store.claim("default", run, worker=f"worker_{number}", lease_ms=0)
        assert claim is not None
    await looking.aclose()
    async with running(copy, once("note", text="hi"), agent(World())) as runtime:
        view = await runtime.wait(run, timeout_s=20)
        found = await runtime.letter(run) if view.parked else None
        assert found is not None, view
        assert [(call.tool, call.phase, call.in_doubt) for call in found.calls] == [("slow_note", "running", True)]
        assert "no answer" in found.letter.error
        await runtime.revive(run, by="ann")
        view = await runtime.wait(run, timeout_s=20)
        assert [waiting.kind for waiting in view.waiting] == ["in_doubt"]
        await runtime.cancel(run)
        assert (await over(runtime, run)).outcome == "cancelled"
        assert len(await events(runtime, run, ev.RunRevived)) == 1


def copy_database(source: Path, target: Path) -> None:
    """Copy the file and its log as they stand."""
    for name in ("t.db", "t.db-wal"):
        if (source / name).exists():
            (target / name).write_bytes((source / name).read_bytes())
