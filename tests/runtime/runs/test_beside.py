"""A runtime that looks and posts beside one that drives, in another process; and only one that drives."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from stanchion import ConfigError, Runtime
from stanchion.core import event as ev
from stanchion.core.errors import Conflict
from tests.engine.rig import agent, echo, over, running, until_event
from tests.waiting import until

ROOT = Path(__file__).parents[3]
_DRIVER = """
import asyncio, sys
from pathlib import Path
from stanchion import Runtime
from stanchion.testing import call
from tests.engine.rig import HeldModel, World, agent, heard, once, results, running
from stanchion.testing import ScriptedModel

def reply(request):
    said = results(request)
    return heard(request) if said else call("refund", order="A", cents=5)

async def main(folder):
    async with running(Path(folder), ScriptedModel(reply), agent(World())) as runtime:
        for _ in range(3):
            print((await runtime.start("desk", "Refund.")).run, flush=True)
        print("ready", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)

asyncio.run(main(sys.argv[1]))
"""


@asynccontextmanager
async def driver(folder: Path) -> AsyncIterator[list[str]]:
    """Drive three runs that wait for a person, in a process of its own; gives the runs."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        _DRIVER,
        str(folder),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    lines: list[str] = []
    while (line := (await process.stdout.readline()).decode().strip()) != "ready":
        assert line, "the driver ended"
        lines.append(line)
    try:
        yield lines
    finally:
        process.stdin.close()
        assert await process.wait() == 0


async def test_look_and_post_from_beside(tmp_path: Path) -> None:
    """View, tail, wait, decide, send and cancel reach the runs of another process, within a second or so."""
    async with driver(tmp_path) as runs:
        beside = await Runtime.open(data=tmp_path / "t.db", drive=False)
        assert not beside.ready
        views = [await beside.wait(run, timeout_s=10) for run in runs]
        assert [view.waiting[0].tool for view in views] == ["refund"] * 3
        tail = asyncio.create_task(until_event(beside, runs[0], ev.RunFinished))
        await beside.send(runs[0], "Thank you.", by="ann")
        await beside.decide(runs[0], views[0].waiting[0].call, "approve", by="eve")
        await beside.decide(runs[1], views[1].waiting[0].call, "edit", arguments={"order": 5})
        await beside.cancel(runs[2])
        assert (await tail).outcome == "done"
        view = await beside.view(runs[0])
        assert (view.text, view.status) == ("Thank you.", "ended")
        assert (await over(beside, runs[2])).outcome == "cancelled"
        asked = await until_event(beside, runs[1], ev.ToolCallJudged, 2)
        assert (asked.rule, asked.revision) == ("edit_invalid", 1)
        assert [verified.error async for verified in beside.verify()] == [""] * 3
        with pytest.raises(Conflict) as refused:
            await beside.start("desk", "Hello")
        assert refused.value.code == "not_driving"
        await beside.aclose()


async def test_only_one_drives(tmp_path: Path) -> None:
    """A second driver is refused, in another process and in this one, and does no harm to the first."""
    async with driver(tmp_path) as runs:
        with pytest.raises(ConfigError, match="another process drives"):
            await Runtime.open(agent(), data=tmp_path / "t.db", clients={"*": echo()})
        beside = await Runtime.open(data=tmp_path / "t.db", drive=False)
        assert (await beside.wait(runs[0], timeout_s=10)).waiting
        await beside.aclose()
    async with running(tmp_path, echo()) as runtime:
        with pytest.raises(ConfigError, match="another process drives"):
            await Runtime.open(agent(), data=tmp_path / "t.db", clients={"*": echo()})
        assert (await over(runtime, (await runtime.start("desk", "Hello")).run)).outcome == "done"


async def test_a_budget_set_beside_holds(tmp_path: Path) -> None:
    """A budget that another process sets holds for starts soon after."""

    async def refused() -> Conflict | None:
        try:
            await runtime.start("desk", "Hello")
        except Conflict as error:
            return error
        return None

    async with running(tmp_path, echo()) as runtime:
        await over(runtime, (await runtime.start("desk", "Hello")).run)
        beside = await Runtime.open(data=tmp_path / "t.db", drive=False)
        await beside.set_budget("tenant", "0.000001")
        await beside.aclose()
        assert "budget 'tenant' is spent" in str(await until(refused))
