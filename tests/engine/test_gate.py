"""Runs under shared limits in one process: held back before anything is journaled, woken, given back, refused."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from stanchion import Breaker, ConfigError, Model, Runtime, ToolError, price_usd, tool
from stanchion.core import event as ev
from stanchion.core.errors import InputError
from stanchion.core.message import ToolResult
from stanchion.journal.quota import Quota
from stanchion.runtime.desks.quotas import checked_quota, parse_quota, read_quotas
from stanchion.testing import ScriptedModel, call
from stanchion.toolbox.options import ToolLimits
from tests.engine.rig import HeldModel, agent, echo, running
from tests.waiting import until

SLOW = Model("openai:test-model", price=price_usd(input="1", output="2"), max_output_tokens=100)


def both() -> ScriptedModel:
    """A model that makes two calls of one tool in one step."""

    def reply(request):  # type: ignore[no-untyped-def]
        done = any(isinstance(part, ToolResult) for message in request.messages for part in message.parts)
        return "Both are done." if done else [call("narrow", n=1), call("narrow", n=2)]

    return ScriptedModel(reply)


async def kinds(runtime: Runtime, run: str) -> list[str]:
    """List the types of a run's events."""
    return [type(entry.event).__name__ for entry in await runtime.store.read("default", run)]


async def usage(runtime: Runtime, limit: str) -> int:
    """Read what counts against a limit."""
    return next((row.amount for row in (await runtime.quotas.view()).usage if row.limit == limit), 0)


@pytest.mark.parametrize("parallel", [True, False])
async def test_two_calls_of_a_step_through_one_slot(tmp_path: Path, parallel: bool) -> None:
    """One at a time, none waits for ever, and no attempt is journaled before it may begin."""
    now = most = 0

    @tool(effect="read", concurrency=1, repeatable=True)
    async def narrow(n: int) -> str:
        """Work alone."""
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.01)
        now -= 1
        return f"did {n}"

    one = agent(tools=[narrow], parallel_tool_calls=parallel)
    async with running(tmp_path, both(), one) as runtime:
        runs = [(await runtime.start("desk", "Go.")).run for _ in range(4)]
        views = await asyncio.gather(*(runtime.wait(run, timeout_s=15) for run in runs))
        assert {view.outcome for view in views} == {"done"}
        assert most == 1
        for run in runs:
            names = await kinds(runtime, run)
            open_calls = 0
            for name in names:
                open_calls += (name == "ToolCallStarted") - (name == "ToolCallFinished")
                assert open_calls <= 1
    assert now == 0


async def test_a_run_that_waits_has_journaled_nothing_and_reserved_no_money(tmp_path: Path) -> None:
    """The second call of a window waits without an intent; cancelled, it ends and leaves its place."""
    async with running(tmp_path, echo(), quotas=["openai rpm=1 window_s=60"]) as runtime:
        await runtime.set_budget("tenant", "1")
        first = (await runtime.start("desk", "One.")).run
        assert (await runtime.wait(first, timeout_s=10)).outcome == "done"
        second = (await runtime.start("desk", "Two.")).run
        third = (await runtime.start("desk", "Three.")).run
        assert (await runtime.view(second)).status == "runnable"
        assert await kinds(runtime, second) == ["RunStarted"]
        assert [ledger.reserved for ledger in await runtime.budgets()] == [0]
        await runtime.cancel(second)
        assert (await runtime.wait(second, timeout_s=10)).outcome == "cancelled"
        assert "ModelCallStarted" not in await kinds(runtime, second)
        assert (await runtime.view(third)).status == "runnable"
        assert await usage(runtime, "openai/rpm") == 1


async def test_the_time_of_a_run_goes_on_while_it_waits(tmp_path: Path) -> None:
    """A wait for a shared limit is the run's own time: its wall clock ends it."""
    from stanchion import Limits

    async with running(tmp_path, echo(), quotas=["openai rpm=1 window_s=60"]) as runtime:
        await runtime.wait((await runtime.start("desk", "One.")).run, timeout_s=10)
        run = (await runtime.start("desk", "Two.", limits=Limits(wall_s=0.3))).run
        view = await runtime.wait(run, timeout_s=10)
        assert (view.outcome, view.reason) == ("halted", "wall_s")


async def test_a_waiting_run_is_left_to_the_next_process(tmp_path: Path) -> None:
    """Drained while it waits, a run is runnable as before; without the limit it goes on."""
    async with running(tmp_path, echo(), quotas=["openai rpm=1 window_s=60"]) as runtime:
        await runtime.wait((await runtime.start("desk", "One.")).run, timeout_s=10)
        run = (await runtime.start("desk", "Two.")).run
    async with running(tmp_path, echo()) as runtime:
        assert (await runtime.wait(run, timeout_s=10)).outcome == "done"


async def test_a_limit_that_is_set_and_dropped_while_runs_wait(tmp_path: Path) -> None:
    """The store's settings are heard of: a run that waits goes on when its limit is taken away."""
    async with running(tmp_path, echo()) as runtime:
        await runtime.quotas.set("openai rpm=1 window_s=600")
        async with asyncio.timeout(15):
            while True:
                run = (await runtime.start("desk", "Hello.")).run
                if (await runtime.wait(run, timeout_s=0.3)).status == "runnable":
                    break
        assert await runtime.quotas.drop("openai-chat") is True
        assert (await runtime.wait(run, timeout_s=15)).outcome == "done"


async def test_tokens_are_taken_by_their_bound_and_settled(tmp_path: Path) -> None:
    """While a call is under way its bound counts; when it has ended, what it used."""
    model = HeldModel("One", " two.")
    async with running(tmp_path, model, agent(model=SLOW), quotas=["openai tpm=100000"]) as runtime:
        run = (await runtime.start("desk", "Go.")).run
        await model.began.wait()
        [started] = [
            entry.event
            for entry in await runtime.store.read("default", run)
            if isinstance(entry.event, ev.ModelCallStarted)
        ]
        assert await usage(runtime, "openai/tpm") == started.bound_tokens + 100
        model.gate.set()
        assert (await runtime.wait(run, timeout_s=10)).outcome == "done"
        await until(
            lambda: usage(runtime, "openai/tpm"), lambda used: used == 15
        )  # (the store is told within a second)


async def test_a_breaker_refuses_and_says_so(tmp_path: Path) -> None:
    """After two failures in a row a call is refused before it leaves, as an event; what the model did wrong does not count."""
    calls: list[str] = []

    @tool(effect="write", retries=0, breaker=Breaker(failures=2, open_s=60), repeatable=True)
    async def fragile(how: str, *, key: str) -> str:
        """Fail as asked."""
        calls.append(how)
        if how == "down":
            raise ConnectionRefusedError("no")
        raise ToolError("that is not how it is done")

    def model(how: str) -> ScriptedModel:
        def reply(request):  # type: ignore[no-untyped-def]
            found = [p for m in request.messages for p in m.parts if isinstance(p, ToolResult)]
            return f"It said: {found[-1].text}" if found else call("fragile", how=how)

        return ScriptedModel(reply)

    for how, times in (("wrong", 3), ("down", 3)):
        async with running(tmp_path, model(how), agent(tools=[fragile])) as runtime:
            for number in range(times):
                run = (await runtime.start("desk", "Go.")).run
                view = await runtime.wait(run, timeout_s=10)
                assert view.outcome == "done"
                failed = [
                    entry.event
                    for entry in await runtime.store.read("default", run)
                    if isinstance(entry.event, ev.ToolCallFailed) and entry.event.code == "breaker_open"
                ]
                refused = how == "down" and number == 2
                assert [(event.in_doubt, event.retryable) for event in failed] == [(False, False)] * refused
                assert ("is not available" in view.text) == refused
    assert calls == ["wrong"] * 3 + ["down"] * 2


def test_limits_as_people_write_them() -> None:
    """Options beat the environment; a provider is named as its key is."""
    found = read_quotas(
        ["openai-chat:gpt-5 rpm=500"], {"STANCHION_QUOTAS": "anthropic rpm=50 tpm=40_000; openai rpm=9"}
    )
    assert found == (
        Quota("anthropic", rpm=50, tpm=40_000),
        Quota("openai", rpm=9),
        Quota("openai:gpt-5", rpm=500),
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty"),
        ("anthropic", "at least one of rpm="),
        ("anthropic rpm", "none of rpm, tpm"),
        ("anthropic rpm=many", "a number above 0"),
        ("anthropic rpm=-1", "a number above 0"),
        ("nobody rpm=1", "no provider 'nobody'"),
        ("anthropic: rpm=1", "names no model"),
        ("anthropic rpm=1 window_s=0.1", "window_s"),
        ("anthropic rpm=99999999999999999999", "at most 1,000,000,000"),
    ],
)
def test_a_limit_that_cannot_be_read(text: str, says: str) -> None:
    """The message says what is wrong and what to write."""
    with pytest.raises(InputError, match=says):
        checked_quota(parse_quota(text, "quota"), "quota")
    if text:
        with pytest.raises(ConfigError, match="STANCHION_QUOTAS"):
            read_quotas([], {"STANCHION_QUOTAS": text})


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"rate": "often"}, 'like "30/min"'),
        ({"rate": "0/min"}, 'like "30/min"'),
        ({"rate": "5/0.1s"}, "from a second"),
        ({"concurrency": -1}, "concurrency=-1"),
        ({"breaker": 5}, "must be a Breaker"),
        ({"breaker": Breaker(failures=0)}, "breaker.failures=0"),
        ({"breaker": Breaker(open_s=0)}, "breaker.open_s=0"),
    ],
)
def test_limits_of_a_tool_that_cannot_be_read(given: dict[str, object], says: str) -> None:
    """They are refused where the tool is defined."""
    with pytest.raises(ConfigError, match=says):

        @tool(effect="read", **given)  # type: ignore[call-overload]
        async def odd() -> str:
            """Do nothing."""
            return ""


def test_limits_of_a_tool_are_read() -> None:
    """Concurrency, rate and breaker."""

    @tool(effect="read", concurrency=4, rate="30/min", breaker=Breaker(open_s=10))
    async def fine() -> str:
        """Do nothing."""
        return ""

    assert fine.limits == ToolLimits(4, 30, 60.0, Breaker(5, 10))
