"""Runs from their start to their end: tools, limits, faults of tools, and what the journal says of each."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from stanchion import Agent, Inject, Limits, Model, NotDone, Result, ToolContext, ToolError, price_usd, tool
from stanchion.core import event as ev
from stanchion.core.errors import ModelError
from stanchion.core.message import MODEL, ModelResponse, Text, Usage
from stanchion.testing import ScriptedModel, call
from tests.engine.rig import PRICED, World, agent, echo, events, kinds, once, over, results, running, unchanged


async def test_to_the_end(tmp_path: Path) -> None:
    """A question, a tool, an answer: the events stand in order and the chain verifies."""
    model = ScriptedModel([call("look", order="A-17"), "It was shipped."])
    async with running(tmp_path, model) as runtime:
        started = await runtime.start("desk", "Where is A-17?", user="ann")
        view = await over(runtime, started.run)
        assert (view.outcome, view.text, view.user, view.session) == ("done", "It was shipped.", "ann", started.session)
        assert (view.usage.turns, view.usage.tool_calls) == (2, 1)
        assert float(view.usd) > 0
        assert await kinds(runtime, started.run) == [
            "run_started",
            "model_call_started",
            "model_call_finished",
            "tool_call_judged",
            "tool_call_started",
            "tool_call_finished",
            "model_call_started",
            "model_call_finished",
            "run_finished",
        ]
        assert results(model.requests[1]) == ["A-17 was shipped"]
        await unchanged(runtime)


async def test_parallel_calls_in_call_order(tmp_path: Path) -> None:
    """A hundred calls of one turn run at once; their results stand in call order."""
    meeting = threading.Barrier(1)
    together = 0
    most = 0

    @tool(effect="read", repeatable=True)
    async def square(n: int) -> int:
        """Square a number."""
        nonlocal together, most
        together += 1
        most = max(most, together)
        await asyncio.sleep(0.0001 * (100 - n))
        together -= 1
        return n * n

    model = ScriptedModel([[call("square", n=n) for n in range(100)], "All done."])
    mine = agent(tools=[square], approvals=[], limits=Limits(tool_calls_per_turn=100))
    async with running(tmp_path, model, mine) as runtime:
        run = (await runtime.start("desk", "Square them.")).run
        assert (await over(runtime, run)).outcome == "done"
        assert results(model.requests[1]) == [str(n * n) for n in range(100)]
        assert most > 50
    assert not meeting.broken


async def test_one_after_the_other(tmp_path: Path) -> None:
    """With parallel calls switched off, a call begins when the one before it is settled."""
    at_once = 0

    @tool(effect="read", repeatable=True)
    async def step(n: int) -> int:
        """Take a step."""
        nonlocal at_once
        at_once += 1
        await asyncio.sleep(0.001)
        assert at_once == 1
        at_once -= 1
        return n

    model = ScriptedModel([[call("step", n=n) for n in range(5)], "Done."])
    async with running(tmp_path, model, agent(tools=[step], approvals=[], parallel_tool_calls=False)) as runtime:
        await over(runtime, (await runtime.start("desk", "Go.")).run)
        assert results(model.requests[1]) == ["0", "1", "2", "3", "4"]


async def test_sync_tool_runs_beside_the_loop(tmp_path: Path) -> None:
    """A plain function runs in a thread and may block."""
    release = threading.Event()

    @tool(effect="read")
    def blocking() -> str:
        """Block until somebody else goes on."""
        return "free" if release.wait(10) else "stuck"

    @tool(effect="read")
    async def freeing() -> str:
        """Let the other go on."""
        release.set()
        return "freed"

    model = ScriptedModel([[call("blocking"), call("freeing")], "Done."])
    async with running(tmp_path, model, agent(tools=[blocking, freeing], approvals=[])) as runtime:
        await over(runtime, (await runtime.start("desk", "Go.")).run)
        assert results(model.requests[1]) == ["free", "freed"]


ENDINGS = [
    *(
        (error, in_thread)
        for error in (SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError())
        for in_thread in (False, True)
    ),
    (GeneratorExit(), True),  # an async tool cannot raise it: so Python closes a coroutine
]


@pytest.mark.parametrize(("error", "in_thread"), ENDINGS)
@pytest.mark.parametrize("effect", ["read", "write"])
async def test_tool_that_raises_what_ends_programs(
    tmp_path: Path, error: BaseException, effect: Any, in_thread: bool
) -> None:
    """Whatever a tool raises is a failure of that tool: a read's error, an effect's doubt. The process goes on."""

    @tool(effect=effect, name="bad")
    def in_a_thread() -> str:
        """Fail badly."""
        raise error

    @tool(effect=effect, name="bad")
    async def on_the_loop() -> str:
        """Fail badly."""
        raise error

    bad: Any = in_a_thread if in_thread else on_the_loop
    async with running(tmp_path, once("bad"), agent(tools=[bad], approvals=[])) as runtime:
        run = (await runtime.start("desk", "Go.")).run
        view = await runtime.wait(run, timeout_s=10)
        if effect == "read":
            assert (view.status, view.outcome) == ("ended", "done")
            assert type(error).__name__ in view.text
        else:
            assert [waiting.kind for waiting in view.waiting] == ["in_doubt"]
        failed = (await events(runtime, run, ev.ToolCallFailed) + await events(runtime, run, ev.ToolCallFinished))[0]
        assert failed


async def test_tool_errors_reach_the_model(tmp_path: Path) -> None:
    """`ToolError` is the model's to read; `NotDone` is tried again first."""
    tries = 0

    @tool(effect="write", retries=2)
    async def shaky(n: int) -> str:
        """Fail twice, then work."""
        nonlocal tries
        tries += 1
        if tries < 3:
            raise NotDone("not now", retry_after_s=0.01)
        return f"worked with {n}"

    @tool(effect="write")
    async def never() -> str:
        """Fail for good."""
        raise ToolError("The order is closed: reopen it first.")

    model = ScriptedModel([[call("shaky", n=1), call("never")], "Done."])
    async with running(tmp_path, model, agent(tools=[shaky, never], approvals=[])) as runtime:
        run = (await runtime.start("desk", "Go.")).run
        await over(runtime, run)
        assert results(model.requests[1]) == ["worked with 1", "The order is closed: reopen it first."]
        assert [event.code for event in await events(runtime, run, ev.ToolCallFailed)] == ["tool_unavailable"] * 2


async def test_tool_that_ignores_its_cancellation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tool that will not stop at its timeout is given up, and the run goes on."""
    monkeypatch.setattr("stanchion.engine.flight.OVERDUE_MS", 50)
    end = asyncio.Event()

    @tool(effect="read", timeout_s=0.1, retries=0)
    async def stubborn() -> str:
        """Never stop."""
        while not end.is_set():
            try:
                await end.wait()
            except asyncio.CancelledError:
                continue
        return "late"

    async with running(tmp_path, once("stubborn"), agent(tools=[stubborn], approvals=[])) as runtime:
        run = (await runtime.start("desk", "Go.")).run
        view = await over(runtime, run)
        assert "did not stop at its deadline" in view.text
        assert [event.code for event in await events(runtime, run, ev.ToolCallFailed)] == ["tool_timeout"]
        end.set()


async def test_long_result_is_read_on(tmp_path: Path) -> None:
    """A result over the cap is cut in the prompt, whole in the journal, and read on with `read_result`."""

    @tool(effect="read", max_result_chars=100)
    async def long() -> str:
        """Say a lot."""
        return "0123456789" * 30

    model = ScriptedModel(
        [call("long"), call("read_result", result="1", offset=100), call("read_result", result="7"), "Read."]
    )
    async with running(tmp_path, model, agent(tools=[long], approvals=[])) as runtime:
        run = (await runtime.start("desk", "Go.")).run
        assert (await over(runtime, run)).outcome == "done"
        first, second, third = results(model.requests[3])
        assert first.startswith("0123456789" * 10 + "\n[200 more characters.")
        assert second.startswith("0123456789")
        assert "There is no long result '7'" in third
        finished = (await events(runtime, run, ev.ToolCallFinished))[0]
        assert (len(finished.parts[0].text), finished.shown) == (300, 100)


async def test_huge_result(tmp_path: Path) -> None:
    """A result of some megabytes is kept, shown cut, and does not stop the run."""

    @tool(effect="read", max_result_chars=1000)
    async def huge() -> str:
        """Say far too much."""
        return "x" * 5_000_000

    model = ScriptedModel([call("huge"), "Read."])
    async with running(tmp_path, model, agent(tools=[huge], approvals=[])) as runtime:
        run = (await runtime.start("desk", "Go.")).run
        await over(runtime, run)
        assert len(results(model.requests[1])[0]) < 1200
        assert len((await events(runtime, run, ev.ToolCallFinished))[0].parts[0].text) == 5_000_000


async def test_dry_run(tmp_path: Path) -> None:
    """A dry run reads for real and pretends the rest, and nobody is asked."""
    world = World()
    model = ScriptedModel([[call("look", order="A-1"), call("refund", order="A-1", cents=5)], "Done."])
    async with running(tmp_path, model, agent(world)) as runtime:
        run = (await runtime.start("desk", "Refund it.", dry_run=True)).run
        view = await over(runtime, run)
        assert (view.outcome, view.done, world.done) == ("done", [], [])
        outcomes = [event.outcome for event in await events(runtime, run, ev.ToolCallFinished)]
        assert sorted(outcomes) == ["ok", "pretended"]
        assert "dry run" in results(model.requests[1])[1]


async def test_structured_output(tmp_path: Path) -> None:
    """An answer that is not of the agent's output type is sent back; the right one is parsed for the caller."""
    model = ScriptedModel(["no json", '{"city": "Rome"}', '{"city": "Rome", "days": 3}'])

    async with running(tmp_path, model, agent(tools=[], approvals=[], output=Trip)) as runtime:
        run = (await runtime.start("desk", "Where to?")).run
        view = await over(runtime, run)
        assert view.output == {"city": "Rome", "days": 3}
        notices = await events(runtime, run, ev.NoticeAdded)
        assert [notice.kind for notice in notices] == ["output", "output"]
        assert "days" in notices[1].parts[0].text
        assert model.requests[0].output is not None


@dataclass
class Trip:
    """Where to, and for how long."""

    city: str
    days: int


async def test_output_that_never_fits(tmp_path: Path) -> None:
    """A model that cannot give the form fails the run, bounded."""
    async with running(tmp_path, echo(), agent(tools=[], approvals=[], output=int)) as runtime:
        view = await over(runtime, (await runtime.start("desk", "How many?")).run)
        assert (view.outcome, view.reason, view.usage.turns) == ("failed", "malformed", 3)


async def test_dependencies_are_opened_injected_and_closed(tmp_path: Path) -> None:
    """A dependency that is a context manager is opened with the runtime, handed to tools, and closed with it."""

    class Db:
        """A database."""

        state = "closed"

    @asynccontextmanager
    async def opened() -> AsyncIterator[Db]:
        db.state = "open"
        yield db
        db.state = "closed"

    db = Db()

    @tool(effect="read")
    async def ask(question: str, db: Inject[Db], context: ToolContext) -> str:
        """Ask the database."""
        return f"{question}: {db.state} for {context.user} of {context.tenant}"

    mine = agent(tools=[ask], approvals=[], deps={Db: opened()})
    async with running(tmp_path, once("ask", question="How"), mine) as runtime:
        view = await over(runtime, (await runtime.start("desk", "Ask.", user="ann")).run)
        assert view.text == "How: open for ann of default"
    assert db.state == "closed"


async def test_cost_of_tools_counts(tmp_path: Path) -> None:
    """What a tool says it cost is on the run's bill."""

    @tool(effect="read")
    async def dear() -> Result[str]:
        """Cost something."""
        return Result("done", cost_usd="0.25")

    async with running(tmp_path, once("dear"), agent(tools=[dear], approvals=[])) as runtime:
        view = await over(runtime, (await runtime.start("desk", "Go.")).run)
        assert 0.25 < float(view.usd) < 0.26


async def test_fallback_model(tmp_path: Path) -> None:
    """When the model fails for good the next one answers, and the journal says so."""
    failing = ScriptedModel(lambda _: ModelError("no such model", code="not_found", retryable=False, status=404))
    mine = agent(fallbacks=[Model("anthropic:backup", price=price_usd(input="1", output="1"))])
    runtime_clients = {"openai": failing, "anthropic": echo()}
    from stanchion import Runtime

    async with await Runtime.open(mine, data=tmp_path / "t.db", clients=runtime_clients) as runtime:
        run = (await runtime.start("desk", "Hello")).run
        view = await over(runtime, run)
        assert (view.outcome, view.text) == ("done", "You said: Hello")
        started = await events(runtime, run, ev.ModelCallStarted)
        assert [(event.route, event.attempt, event.provider) for event in started] == [
            (0, 1, "openai"),
            (1, 2, "anthropic"),
        ]
        assert [event.reason for event in await events(runtime, run, ev.PrefixReset)] == ["route"]


async def test_client_that_breaks_its_contract(tmp_path: Path) -> None:
    """An exception that is no `ModelError` fails the run and not the worker."""

    def fail(_: Any) -> Any:
        raise ZeroDivisionError("oops")

    async with running(tmp_path, ScriptedModel(fail)) as runtime:
        view = await over(runtime, (await runtime.start("desk", "Hello")).run)
        assert (view.outcome, view.reason) == ("failed", "model:garbled")


async def test_limit_that_forbids_the_first_call(tmp_path: Path) -> None:
    """A run that cannot afford one call ends in its first transaction, and its session is free."""
    async with running(tmp_path, echo(), agent(limits=Limits(usd="0.000001"))) as runtime:
        started = await runtime.start("desk", "Hello", session="s1")
        view = await over(runtime, started.run)
        assert (view.outcome, view.reason) == ("halted", "usd")
        assert (await runtime.session("s1")).live == ""
        assert runtime.active == 0


async def test_unknown_usage_settles_at_the_reservation(tmp_path: Path) -> None:
    """A bill that the provider does not tell is taken to be what was reserved."""
    model = ScriptedModel(lambda _: ModelResponse((Text("Yes.", MODEL),), "stop", None))
    async with running(tmp_path, model) as runtime:
        run = (await runtime.start("desk", "Hello")).run
        await over(runtime, run)
        (started,) = await events(runtime, run, ev.ModelCallStarted)
        (finished,) = await events(runtime, run, ev.ModelCallFinished)
        assert finished.cost == started.reserved > 0


async def test_bill_above_its_reservation(tmp_path: Path) -> None:
    """A bill above its reservation is told, and closes the budget it was reserved on."""
    model = ScriptedModel(["Dear."], usage=Usage(1_000_000, output_tokens=1_000_000))
    async with running(tmp_path, model) as runtime:
        await runtime.set_budget("tenant", "100")
        run = (await runtime.start("desk", "Hello")).run
        await over(runtime, run)
        (overrun,) = await events(runtime, run, ev.BudgetOverrun)
        assert overrun.cost == 3_000_000_000 > overrun.reserved
        (ledger,) = await runtime.budgets()
        assert (ledger.closed, ledger.settled, ledger.reserved) == (True, 3_000_000_000, 0)


async def test_limits_of_a_request_only_narrow(tmp_path: Path) -> None:
    """A request may ask for less than its agent allows, never for more."""
    async with running(tmp_path, once("look", order="A"), agent(limits=Limits(turns=1))) as runtime:
        for turns in (1, 50):
            view = await over(runtime, (await runtime.start("desk", "Go.", limits=Limits(turns=turns))).run)
            assert (view.outcome, view.reason, view.usage.turns) == ("halted", "turns", 1)


def test_agents_are_plain_values() -> None:
    """An agent can be made without a runtime, a key or a network."""
    assert Agent(name="a", model=PRICED).models() == (PRICED,)
