"""Workers that are killed between the append and its messages: lines of runs, and of the budget of all, are told once each."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
from aiohttp import web

from stanchion import Runtime
from tests.conftest import ROOT
from tests.journal.delivery_worker import HOOKS
from tests.runtime.receiver import Message, Receiver, receiving
from tests.waiting import until

WITHIN_S = 60.0


@pytest.fixture(params=["sqlite", "postgres"])
def data(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store that processes share."""
    return str(tmp_path / "t.db") if request.param == "sqlite" else request.getfixturevalue("dsn")


@asynccontextmanager
async def worker(data: str, runs: int) -> AsyncIterator[Process]:
    """Start a worker with so many runs; it is killed at the end."""
    words = (sys.executable, "-m", "tests.journal.alert_worker", data, str(runs))
    process = await asyncio.create_subprocess_exec(*words, cwd=ROOT, stdout=PIPE)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(WITHIN_S):
            while (line := await process.stdout.readline()).strip() != b"ready":
                assert line, "the worker ended"
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def killing(receiver: Receiver) -> tuple[list[Process], asyncio.Event]:
    """Kill the worker that is put into the list when it posts a message; `dead` tells it. Until there is one: come again."""
    armed: list[Process] = []
    dead = asyncio.Event()

    def answer(_: Message) -> web.Response:
        if armed:
            armed.pop().kill()
            dead.set()
        return web.Response(status=503)

    receiver.answer = answer
    return armed, dead


async def finished(desk: Runtime) -> None:
    """Wait until all runs have ended and nothing is left to post."""
    runs, pending = partial(desk.runs, limit=200), partial(desk.webhooks.deliveries, standing="pending", limit=200)
    await until(runs, lambda rows: all(row.status == "ended" for row in rows), within_s=WITHIN_S)
    await until(pending, lambda rows: not rows, within_s=WITHIN_S)


async def test_lines_of_runs_by_workers_that_are_killed(data: str) -> None:
    """Three workers die as soon as a first message of theirs is on its way; the fourth goes on. Each run tells each line once."""
    async with receiving() as receiver, await Runtime.open(data=data, drive=False, webhooks=HOOKS) as desk:
        _, secret = await desk.webhooks.add(receiver.url, events=("run.budget",))
        armed, dead = killing(receiver)
        for runs in (5, 0, 0):
            dead.clear()
            async with worker(data, runs) as process:
                armed.append(process)
                async with asyncio.timeout(WITHIN_S):
                    await dead.wait()
                    await process.wait()
        receiver.answer = lambda _: web.Response(status=204)
        async with worker(data, 0):
            await finished(desk)
        rows = await desk.webhooks.deliveries(limit=200)
        assert [row.standing for row in rows] == ["done"] * len(rows)
        said = {message.id: message.verified(secret.secret)["data"] for message in receiver.messages}
        assert set(said) == {row.id for row in rows}
        lines = Counter((each["run"], each["percent"]) for each in said.values())
        costs = {row.run: row.cost for row in await desk.store.runs("default", limit=200)}
        assert len(costs) == 5
        limit = 100_000_000
        due = {(run, line) for run, cost in costs.items() for line in (50, 80) if cost * 100 >= limit * line}
        halted = {(row.run, 100) for row in await desk.runs(limit=200) if row.outcome == "halted"}
        due |= halted | {(run, 100) for run, cost in costs.items() if cost >= limit}
        assert lines == Counter(due)
        assert len(due) >= 10


async def test_lines_of_the_budget_of_all_by_workers_that_are_killed(data: str) -> None:
    """Twenty runs at once come to each line of `all`; who would tell it dies with the first message. The operator hears each once."""
    async with receiving() as receiver, await Runtime.open(data=data, drive=False, webhooks=HOOKS) as desk:
        await desk.set_budget("all", "1.50")  # of $1.68 that they would spend
        _, secret = await desk.webhooks.add(receiver.url, tenant="")
        tenant, _ = await desk.webhooks.add(f"{receiver.url}/tenant", events=("budget.alert",))
        armed, dead = killing(receiver)
        async with worker(data, 20) as process:
            armed.append(process)
            async with asyncio.timeout(WITHIN_S):
                await dead.wait()
                await process.wait()
        receiver.answer = lambda _: web.Response(status=204)
        async with worker(data, 0):
            await finished(desk)
            ids = await told(desk, 3)
            await until(lambda: {message.id for message in receiver.messages} == ids, within_s=WITHIN_S)
        said = {message.id: message.verified(secret.secret)["data"] for message in receiver.messages}
        assert sorted(each["percent"] for each in said.values()) == [50, 80, 100]
        assert {(each["budget"], each["limit_usd"]) for each in said.values()} == {("all", "1.50")}
        assert not await desk.webhooks.deliveries(endpoint=tenant.id)


async def told(desk: Runtime, count: int) -> set[str]:
    """Wait until so many messages to the operator are settled; their ids."""
    done = partial(desk.webhooks.deliveries, tenant="", standing="done")
    rows = await until(done, lambda rows: len(rows) >= count, within_s=WITHIN_S)
    return {row.id for row in rows}
