"""Workers that are killed while they deliver or start what schedules say: nothing is lost, repetitions are known by id."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
from aiohttp import web

from stanchion import Runtime
from tests.conftest import ROOT
from tests.journal.delivery_worker import HOOKS
from tests.runtime.receiver import Message, receiving
from tests.waiting import until

WITHIN_S = 60.0


@asynccontextmanager
async def workers(data: str, *runs: int) -> AsyncIterator[list[Process]]:
    """Start workers, each with so many runs; whoever is left is killed at the end."""
    made = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.journal.delivery_worker", data, str(count), cwd=ROOT, stdout=PIPE
        )
        for count in runs
    ]
    try:
        yield made
    finally:
        for process in made:
            if process.returncode is None:
                process.kill()
            await process.wait()


async def ready(process: Process) -> list[str]:
    """Wait until a worker has started its runs; give their ids."""
    assert process.stdout is not None
    runs: list[str] = []
    async with asyncio.timeout(WITHIN_S):
        while (line := (await process.stdout.readline()).decode().strip()) != "ready":
            assert line, "the worker ended"
            runs.append(line)
    return runs


async def all_posted(desk: Runtime) -> None:
    """Wait until nothing is left to deliver."""
    pending = partial(desk.webhooks.deliveries, standing="pending", limit=200)
    await until(pending, lambda rows: not rows, within_s=WITHIN_S)


@pytest.mark.parametrize("moment", ["before the answer", "after the answer"])
async def test_a_worker_is_killed_between_the_post_and_its_note(dsn: str, moment: str) -> None:
    """The receiver gets the message again from another worker under the same id, and every message at least once."""
    async with receiving() as receiver, await Runtime.open(data=dsn, drive=False, webhooks=HOOKS) as desk:
        _, secret = await desk.webhooks.add(receiver.url)
        armed: list[Process] = []
        killed: list[Message] = []
        dead = asyncio.Event()

        async def answer(message: Message) -> web.Response:
            if not armed and not killed:
                return web.Response(status=503)  # the worker still starts its runs: come again
            if armed:
                killed.append(message)
                victim = armed.pop()
                if moment == "before the answer":
                    victim.send_signal(signal.SIGKILL)
                    await victim.wait()
                else:  # about when the answer is on its way
                    asyncio.get_running_loop().call_soon(victim.send_signal, signal.SIGKILL)
                dead.set()
            return web.Response(status=200)

        receiver.answer = answer
        async with asyncio.timeout(WITHIN_S):
            async with workers(dsn, 20) as victims:
                assert len(await ready(victims[0])) == 20
                armed += victims
                await dead.wait()
                await victims[0].wait()
            async with workers(dsn, 0):
                await until(
                    partial(desk.webhooks.deliveries, limit=200), lambda rows: len(rows) == 20, within_s=WITHIN_S
                )
                await all_posted(desk)
        rows = await desk.webhooks.deliveries(limit=200)
        assert [row.standing for row in rows] == ["done"] * 20
        assert {message.id for message in receiver.messages} == {row.id for row in rows}
        if moment == "before the answer":
            later = receiver.messages[receiver.messages.index(killed[0]) + 1 :]
            assert killed[0].id in {message.id for message in later}, "it was posted again, under the same id"
        data = [message.verified(secret.secret)["data"] for message in receiver.messages]
        assert {found["run"] for found in data} == {row.run for row in rows}


async def test_schedules_of_workers_that_are_killed(dsn: str) -> None:
    """Three workers, two of them killed while a schedule is made due again and again: one run for each time."""
    async with await Runtime.open(data=dsn, drive=False, webhooks=HOOKS) as desk:
        await desk.schedules.add("often", "@yearly", "desk", "Hi.")
        due: list[int] = []
        async with workers(dsn, 0, 0, 0) as processes:
            for process in processes:
                await ready(process)
            for number in range(12):
                view: Any = await desk.schedules.run("often")
                due.append(view.next_ms[0])
                if number in (3, 7):
                    processes[number // 4].kill()
                show, last_ms = partial(desk.schedules.show, "often"), due[-1]
                await until(show, lambda view, last_ms=last_ms: view.last_ms >= last_ms, within_s=WITHIN_S)
            rows = await until(
                partial(desk.runs, limit=200),
                lambda rows: all(row.status == "ended" for row in rows),
                within_s=WITHIN_S,
            )
        assert len(rows) == len(set(due)) == 12
        assert len({row.session for row in rows}) == 12
        assert {row.outcome for row in rows} == {"done"}


async def test_an_outbox_of_the_database_tells_what_happened(dsn: str) -> None:
    """What two workers did is told by either of them, once each where nobody dies."""
    async with receiving() as receiver, await Runtime.open(data=dsn, drive=False, webhooks=HOOKS) as desk:
        await desk.webhooks.add(receiver.url)
        async with workers(dsn, 15, 15) as processes:
            runs = [run for process in processes for run in await ready(process)]
            messages = await receiver.until(30)
            await all_posted(desk)
        assert sorted(json.loads(message.body)["data"]["run"] for message in messages) == sorted(runs)
