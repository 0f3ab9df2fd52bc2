"""A call that takes too long, waits for its turn, or is cancelled: what is known of it, and that nothing else escapes."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from stanchion.core.errors import NotDone
from stanchion.toolbox.answer import (
    Answer,
    Failure,
)
from stanchion.toolbox.function import tool
from stanchion.toolbox.registry import Registry
from tests.toolbox.calling import CONTEXT, call, failed


@pytest.mark.parametrize(("effect", "doubt"), [("read", False), ("write", True), ("destructive", True)])
async def test_a_timeout_is_in_doubt_unless_it_was_a_read(effect: Any, doubt: bool):
    """Nobody knows what a call did that did not answer."""

    @tool(effect=effect, timeout_s=0.02)
    async def slow() -> None:
        await asyncio.Event().wait()

    assert await call(slow) == Failure("tool_timeout", "slow did not answer within 0.02 s.", doubt, True)


async def test_a_late_answer_is_an_answer():
    """A tool that finishes its work when it is cancelled has answered."""

    @tool(effect="write", timeout_s=0.02)
    async def late() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "done after all"
        return ""

    assert await call(late) == Answer("done after all")


async def test_an_exception_while_timing_out_is_a_timeout():
    """What a client makes of our cancellation does not hide that the time was over; the tool's own word does."""

    @tool(effect="write", timeout_s=0.02)
    async def wrapped() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError as error:
            raise ValueError("interrupted") from error
        return ""

    @tool(effect="write", timeout_s=0.02)
    async def rolled_back() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise NotDone("rolled back") from None
        return ""

    assert failed(await call(wrapped)).code == "tool_timeout"
    assert await call(rolled_back) == Failure("tool_unavailable", "rolled back", retryable=True)


async def test_a_thread_that_times_out_goes_on_and_holds_its_place():
    """A call still waiting for a thread was never made, so it is not in doubt."""
    release, started = threading.Event(), threading.Event()

    @tool(effect="write", timeout_s=0.2)
    def stuck() -> str:
        started.set()
        release.wait(30)
        return "late"

    ran = threading.Event()

    @tool(effect="write", timeout_s=0.4)
    def waiting() -> str:
        ran.set()
        return "ran"

    async with Registry([stuck, waiting], threads=1) as registry:
        first = asyncio.create_task(registry.run("stuck", b"{}", CONTEXT))
        await asyncio.to_thread(started.wait)
        second = await registry.run("waiting", b"{}", CONTEXT)
        assert second == Failure("tool_busy", "waiting could not be started within 0.4 s.", False, True)
        assert failed(await first).in_doubt is True
        release.set()
        assert await registry.run("waiting", b"{}", CONTEXT) == Answer("ran")
    assert ran.is_set()


async def test_many_threads_are_bounded():
    """No more functions run at once than there are threads, and all of them run."""
    lock, most, now = threading.Lock(), 0, 0

    @tool(effect="read")
    def look(n: int) -> int:
        nonlocal most, now
        with lock:
            now += 1
            most = max(most, now)
        with lock:
            now -= 1
        return n

    async with Registry([look], threads=3) as registry:
        outcomes = await asyncio.gather(*(registry.run("look", b'{"n":%d}' % n, CONTEXT) for n in range(50)))
    assert outcomes == [Answer(str(n)) for n in range(50)]
    assert 1 <= most <= 3


async def test_at_most_so_many_calls_of_one_tool():
    """`max_concurrency` makes the others wait; one that waits too long was never made."""
    now, most, gate, full = 0, 0, asyncio.Event(), asyncio.Event()

    @tool(effect="write", max_concurrency=2, timeout_s=0.3)
    async def put() -> str:
        nonlocal now, most
        now += 1
        most = max(most, now)
        if now == 2:
            full.set()
        await gate.wait()
        now -= 1
        return "ok"

    async with Registry([put]) as registry:
        calls = [asyncio.create_task(registry.run("put", b"{}", CONTEXT)) for _ in range(5)]
        await full.wait()
        gate.set()
        assert await asyncio.gather(*calls) == [Answer("ok")] * 5
        gate.clear()
        outcomes = await asyncio.gather(*(registry.run("put", b"{}", CONTEXT) for _ in range(3)))
    assert most == 2
    assert sorted(failed(outcome).code for outcome in outcomes) == ["tool_busy", "tool_timeout", "tool_timeout"]
    assert [failed(outcome).in_doubt for outcome in outcomes].count(False) == 1


async def test_cancelling_the_caller_is_the_only_thing_raised():
    """A cancelled run stops its call."""
    started = asyncio.Event()

    @tool(effect="read")
    async def slow() -> None:
        started.set()
        await asyncio.Event().wait()

    async with Registry([slow]) as registry:
        task = asyncio.create_task(registry.run("slow", b"{}", CONTEXT))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_tools_own_cancelled_task_is_a_failure():
    """A CancelledError that nobody asked for is an exception like any other."""

    @tool(effect="write")
    async def put() -> None:
        inner = asyncio.ensure_future(asyncio.Event().wait())
        inner.cancel()
        await inner

    assert failed(await call(put)) == Failure("tool_crashed", "CancelledError: CancelledError", True, False)
