"""Shared budgets: never passed at any concurrency, spent where there is demand, windows, waits and refusals."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from stanchion import Limits, Model, price_usd
from stanchion.core import event as ev
from stanchion.core.errors import Conflict, InputError
from stanchion.core.message import Usage
from stanchion.testing import FakeClock, ScriptedModel, call
from tests.engine.rig import HeldModel, World, agent, echo, events, once, over, running, unchanged, until_event

NANO = 1_000_000_000
DEAR = Model("openai:dear", price=price_usd(input="10", output="20"), max_output_tokens=500)


async def test_two_hundred_runs_on_one_dollar(tmp_path: Path) -> None:
    """With more demand than money, at most $1.00 and at least $0.90 is spent, and never more is spent and reserved."""
    model = ScriptedModel(lambda _: call("look", order="A"), usage=Usage(300, output_tokens=250))
    mine = agent(model=DEAR, limits=Limits(turns=3, budget_wait_s=20))
    most, done = 0, False
    async with running(tmp_path, model, mine) as runtime:
        await runtime.set_budget("tenant", "1.00")

        async def watch() -> None:
            nonlocal most
            while not done:
                (ledger,) = await runtime.budgets()
                most = max(most, ledger.settled + ledger.reserved)
                await asyncio.sleep(0.01)

        watching = asyncio.create_task(watch())

        async def one(number: int) -> str:
            try:
                return (await runtime.start("desk", f"Go {number}.")).run
            except Conflict as error:
                return error.code

        said = await asyncio.gather(*(one(n) for n in range(200)))
        runs = [run for run in said if run != "budget_exhausted"]
        assert all(run.startswith("run_") for run in runs)
        views = [await over(runtime, run) for run in runs]
        done = True
        await watching
        (ledger,) = await runtime.budgets()
        assert most <= NANO
        assert 0.90 * NANO <= ledger.settled <= NANO
        assert (ledger.reserved, ledger.closed) == (0, False)
        assert sum(float(view.usd) for view in views) == pytest.approx(ledger.settled / NANO)
        assert {view.reason for view in views} <= {"turns", "budget:tenant"}
        assert "budget:tenant" in {view.reason for view in views}
        await unchanged(runtime)
        with pytest.raises(Conflict) as refused:
            await runtime.start("desk", "One more.")
        assert refused.value.code == "budget_exhausted"


async def test_waiting_for_money_that_comes_back(tmp_path: Path) -> None:
    """A run refused only by another's reservation says so once, waits without spinning, and goes on."""
    model = HeldModel()
    mine = agent(model=DEAR, limits=Limits(budget_wait_s=30))
    async with running(tmp_path, model, mine) as runtime:
        first = await runtime.start("desk", "One.", user="ann")
        reserved = (await events(runtime, first.run, ev.ModelCallStarted))[0].reserved
        await runtime.cancel(first.run)
        await over(runtime, first.run)
        await runtime.set_budget("user:ann", str(reserved * 1.5 / NANO)[:8])
        model.began.clear()
        first = await runtime.start("desk", "One.", user="ann")
        await model.began.wait()
        second = await runtime.start("desk", "Two.", user="ann")
        refused = await until_event(runtime, second.run, ev.BudgetRefused)
        assert (refused.ledger, refused.hard) == ("user:ann", False)
        cpu = time.process_time()
        await asyncio.sleep(1)
        assert time.process_time() - cpu < 0.5
        model.gate.set()
        assert (await over(runtime, first.run)).outcome == "done"
        assert (await over(runtime, second.run)).outcome == "done"
        assert len(await events(runtime, second.run, ev.BudgetRefused)) == 1
        await unchanged(runtime)


async def test_money_that_does_not_come_back_in_time(tmp_path: Path) -> None:
    """After the wait, or when the money is spent meanwhile, the run halts and names the budget."""
    model = HeldModel()
    mine = agent(model=DEAR, limits=Limits(budget_wait_s=0.2))
    async with running(tmp_path, model, mine) as runtime:
        await runtime.set_budget("all", "0.06")
        first = await runtime.start("desk", "One.")
        await model.began.wait()
        second = await runtime.start("desk", "Two.", tenant="other")
        view = await over(runtime, second.run, tenant="other")
        assert (view.outcome, view.reason) == ("halted", "budget:all")
        model.gate.set()
        await over(runtime, first.run)


async def test_cancel_while_waiting_for_money(tmp_path: Path) -> None:
    """A run that waits for money can be cancelled."""
    model = HeldModel()
    async with running(tmp_path, model, agent(model=DEAR, limits=Limits(budget_wait_s=60))) as runtime:
        await runtime.set_budget("tenant", "0.06")
        await runtime.start("desk", "One.")
        await model.began.wait()
        second = await runtime.start("desk", "Two.")
        await until_event(runtime, second.run, ev.BudgetRefused)
        await runtime.cancel(second.run)
        assert (await over(runtime, second.run)).outcome == "cancelled"
        model.gate.set()


@pytest.mark.parametrize(("period", "advance_s"), [("day", 86_400), ("month", 31 * 86_400)])
async def test_windows(tmp_path: Path, period: str, advance_s: int) -> None:
    """A budget by the day or month counts anew with its next window, UTC, and holds in each."""
    clock = FakeClock()
    async with running(tmp_path, echo(), agent(model=DEAR), clock=clock) as runtime:
        limit = f"tenant/{period}"
        await runtime.set_budget(limit, "0.06")
        for window in range(3):
            spent = 0
            for _ in range(20):
                try:
                    view = await over(runtime, (await runtime.start("desk", "Go.")).run)
                except Conflict:
                    break
                spent += round(float(view.usd) * NANO)
            else:
                pytest.fail(f"window {window} had no limit")
            assert 0 < spent <= 0.06 * NANO
            clock.advance(advance_s)
        rows = await runtime.budgets()
        assert len(rows) == 3
        assert all(row.ledger.startswith(f"{limit}:2026-") and 0 < row.settled <= row.limit for row in rows)


async def test_budget_of_all_tenants(tmp_path: Path) -> None:
    """A budget of all tenants holds for each."""
    async with running(tmp_path, echo(), agent(model=DEAR)) as runtime:
        await runtime.set_budget("all", "0.06")

        async def spend() -> None:
            for tenant in range(50):
                await over(runtime, (await runtime.start("desk", "Go.", tenant=f"t{tenant}")).run, tenant=f"t{tenant}")

        with pytest.raises(Conflict, match="budget 'all' is spent"):
            await spend()
        (ledger,) = await runtime.budgets(tenant="t1")
        assert (ledger.ledger, ledger.settled <= ledger.limit) == ("all", True)


async def test_budget_taken_away(tmp_path: Path) -> None:
    """A limit that is taken away refuses nobody; one that is raised opens a closed ledger."""
    model = ScriptedModel(lambda _: "Dear.", usage=Usage(100_000))
    async with running(tmp_path, model, agent(model=DEAR)) as runtime:
        await runtime.set_budget("tenant", "0.5")
        await over(runtime, (await runtime.start("desk", "Go.")).run)
        with pytest.raises(Conflict, match="spent"):
            await runtime.start("desk", "Go.")
        assert (await runtime.set_budget("tenant", "5")).closed is False
        await over(runtime, (await runtime.start("desk", "Go.")).run)
        await runtime.set_budget("tenant", None)
        await over(runtime, (await runtime.start("desk", "Go.")).run)


@pytest.mark.parametrize("ledger", ["", "everyone", "user:", "tenant/week", "user:a/day/day", "all:1"])
async def test_names_that_are_no_budgets(tmp_path: Path, ledger: str) -> None:
    """A name that is no budget is refused by name."""
    async with running(tmp_path, echo()) as runtime:
        with pytest.raises(InputError, match=r"ledger: .* is no budget"):
            await runtime.set_budget(ledger, "1")
        amounts: list[Any] = ["-1", "a lot", "nan", 1e300]
        for amount in amounts:
            with pytest.raises(InputError, match="usd"):
                await runtime.set_budget("tenant", amount)


async def test_reads_of_a_run_that_waits_for_money_stay_done(tmp_path: Path) -> None:
    """What was done before the refusal is written with it and not done again."""
    world = World()
    mine = agent(world, model=DEAR, approvals=[], limits=Limits(budget_wait_s=0.1))
    async with running(tmp_path, once("note", text="x"), mine) as runtime:
        await runtime.set_budget("tenant", "0.045")
        run = (await runtime.start("desk", "Note.")).run
        await over(runtime, run)
        assert world.done == ["note x"]
        await unchanged(runtime)
