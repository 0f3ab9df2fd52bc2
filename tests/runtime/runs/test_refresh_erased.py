"""What another process erased is not asked for once more, whatever the one that refreshes keeps in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from stanchion import Agent, Limits, Model, Runtime
from stanchion.sim import SimServer, SimSettings
from stanchion.testing import FakeClock
from tests.journal.conftest import dsn, fresh_dsn, postgres
from tests.runtime.runs.test_refresh import LONG, SCRIPT, Desk

__all__ = ["dsn", "fresh_dsn", "postgres"]

CANARY = "Kingfisher-7749"


def agent() -> Agent:
    """Make the desk."""
    return Agent(
        name="desk", identity=LONG, model=Model("anthropic:claude-sonnet-4-6", retries=1), limits=Limits(usd="5")
    )


@asynccontextmanager
async def two(data: str | Path, *, drives: bool) -> AsyncIterator[tuple[Desk, Runtime]]:
    """Open a process that refreshes, and another on the same store. `drives`: it drives, too."""
    sim, clock = SimServer(SimSettings(script=SCRIPT)), FakeClock()
    await sim.start()
    environment = {"ANTHROPIC_BASE_URL": sim.base_url, "ANTHROPIC_API_KEY": "sim-key"}
    try:
        async with await Runtime.open(agent(), data=data, environment=environment, clock=clock) as runtime:
            desk = Desk(runtime, sim, clock)
            await desk.learn()
            agents = [agent()] if drives else []
            async with await Runtime.open(
                *agents, data=data, environment=environment, clock=clock, drive=drives
            ) as beside:
                yield desk, beside
    finally:
        await sim.stop()


async def proved(desk: Desk, beside: Runtime, user: str) -> None:
    """Have a session become idle, erase it beside, and see what is refreshed."""
    started = await desk.runtime.start("desk", f"I am {CANARY}", session="s1", user=user)
    assert (await desk.runtime.wait(started.run, timeout_s=30)).outcome == "done"
    await desk.let_go()
    desk.forward(271)
    before = desk.sim.bill.view().total.nano_usd
    assert await beside.erase(user or "s1")
    begun = await desk.refreshed()
    assert [(view.outcome, view.reason, view.usd) for view in [await desk.runtime.view(run) for run in begun]] == [
        ("halted", "erased", "0.00")
    ]
    desk.forward(20)
    assert await desk.refreshed() == []
    assert desk.sim.bill.view().total.nano_usd == before


@pytest.mark.parametrize("user", ["ann", ""])
async def test_what_was_erased_beside_a_data_file_s_one_driver(tmp_path: Path, user: str) -> None:
    """By a process that takes requests and drives nothing."""
    async with two(tmp_path / "t.db", drives=False) as (desk, beside):
        await proved(desk, beside, user)


@pytest.mark.parametrize("user", ["ann", ""])
async def test_what_was_erased_by_another_server(dsn: str, user: str) -> None:
    """Both drive runs of one database."""
    async with two(dsn, drives=True) as (desk, beside):
        await proved(desk, beside, user)
