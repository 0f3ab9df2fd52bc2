"""Every fault of the simulated provider on every wire, over real HTTP: the right event, and a finished run where it can be."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from stanchion import Agent, Limits, Model, Runtime, price_usd, tool
from stanchion.core import event as ev
from stanchion.core.bundle import RetryPolicy, Timeouts
from stanchion.core.message import Text
from stanchion.sim import Fault, FaultPlan, Reply, ReplyCall, Rule, Script, When, running_sim
from tests.engine.rig import events, over, unchanged

PROVIDERS = {"anthropic": "anthropic", "openai_chat": "openai-chat", "openai_responses": "openai"}
ANSWER = "The answer is forty-two, as everybody knows, and it needs no further words than these."


class Expected(NamedTuple):
    """What a fault must come to: the failure's code(s), whether a retry helps, what came of the text, what it may cost."""

    codes: tuple[str, ...]
    retry: bool = True
    partial: bool = False
    billed: bool | None = True
    """None: as the code says. A refusal is not billed; a server error may be, so its reservation is taken."""


FAILURES = {
    Fault.RATE_LIMITED: Expected(("rate_limited",), billed=False),
    Fault.QUOTA: Expected(("quota",), retry=False, billed=False),
    Fault.OVERLOADED: Expected(("overloaded", "server_error"), billed=None),
    Fault.SERVER_ERROR: Expected(("server_error",)),
    Fault.UNAVAILABLE: Expected(("overloaded", "server_error"), billed=None),
    Fault.GATEWAY_TIMEOUT: Expected(("server_error",)),
    Fault.CONTEXT_OVERFLOW: Expected(("context_overflow",), retry=False, billed=False),
    Fault.AUTH: Expected(("auth",), retry=False, billed=False),
    Fault.SLOW_FIRST_BYTE: Expected(("timeout_first_byte",)),
    Fault.STALL_FIRST_BYTE: Expected(("timeout_first_byte",)),
    Fault.STALL_MID_STREAM: Expected(("timeout_idle",), partial=True),
    Fault.CUT_FIRST_BYTE: Expected(("cut",)),
    Fault.CUT: Expected(("cut",), partial=True),
    Fault.CUT_CLOSE: Expected(("cut",), partial=True),
    Fault.EARLY_END: Expected(("early_end",), partial=True),
    Fault.ERROR_EVENT: Expected(("server_error", "overloaded"), partial=True),
    Fault.GARBAGE: Expected(("garbled", "early_end"), partial=True),
    Fault.WRONG_CONTENT_TYPE: Expected(("garbled", "early_end")),
}
"""Faults by which a model call fails. The others are whole answers that are no use."""
USELESS = {Fault.EMPTY_ANSWER, Fault.TRUNCATED}
OTHER = {Fault.UNKNOWN_EVENTS, Fault.REFUSED, Fault.MALFORMED_ARGUMENTS}

WIRES = pytest.mark.parametrize("wire", sorted(PROVIDERS))


PATIENT_S, BRIEF_S = 20.0, 1.25
"""What is waited for something that comes, on a machine that is busy; and for what does not come."""


@tool(effect="read", repeatable=True)
async def look(order: str) -> str:
    """Look an order up."""
    return f"{order} was shipped"


@asynccontextmanager
async def sim_runtime(
    folder: Path, wire: str, *faults: FaultPlan, script: Script | None = None, limits: Limits | None = None
) -> AsyncIterator[Runtime]:
    kinds = {each.kind for each in faults}
    first_s = (
        BRIEF_S if kinds & {Fault.SLOW_FIRST_BYTE, Fault.STALL_FIRST_BYTE} else PATIENT_S
    )  # (both together are waited)
    idle_s = BRIEF_S if Fault.STALL_MID_STREAM in kinds else PATIENT_S
    model = Model(
        f"{PROVIDERS[wire]}:simulated-model",
        price=price_usd(input="1", output="2"),
        retries=RetryPolicy(attempts=3, base_s=0.01, cap_s=0.02),
        timeouts=Timeouts(connect_s=first_s, first_byte_s=first_s, idle_s=idle_s, total_s=2 * PATIENT_S),
    )
    agent = Agent(name="desk", identity="Help.", tools=[look], model=model, limits=limits or Limits())
    async with running_sim(script or Script(default=Reply(text=ANSWER)), faults=faults) as sim:
        environment = {"ANTHROPIC_BASE_URL": sim.base_url, "OPENAI_BASE_URL": sim.openai_base_url}
        environment |= {"ANTHROPIC_API_KEY": "any", "OPENAI_API_KEY": "any"}
        async with await Runtime.open(agent, data=folder / "t.db", environment=environment) as runtime:
            yield runtime


def plan(kind: Fault, times: int | None) -> FaultPlan:
    return FaultPlan(kind, times=times, retry_after_s=0.01, stall_s=5)


async def settled(runtime: Runtime, run: str, expected: Expected) -> None:
    """Check that each failed attempt was settled right, and that the run's bill and the budget's are their sum."""
    started = {(e.turn, e.attempt): e for e in await events(runtime, run, ev.ModelCallStarted)}
    failed = await events(runtime, run, ev.ModelCallFailed)
    for event in failed:
        billed = event.code == "server_error" if expected.billed is None else expected.billed
        assert event.cost == (started[event.turn, event.attempt].reserved if billed else 0)
    total = sum(e.cost for e in failed) + sum(e.cost for e in await events(runtime, run, ev.ModelCallFinished))
    (ledger,) = await runtime.budgets()
    assert (ledger.settled, ledger.reserved, ledger.closed) == (total, 0, False)
    (finished,) = await events(runtime, run, ev.RunFinished)
    assert finished.cost == total


def test_every_fault_is_expected() -> None:
    """No fault of the simulator is left out of this sweep."""
    assert set(FAILURES) | USELESS | OTHER == set(Fault)


@WIRES
@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("kind", sorted(FAILURES))
async def test_for_the_moment(tmp_path: Path, wire: str, kind: Fault, times: int) -> None:
    """A fault that passes: each attempt is an event with its code and its partial text, and the run finishes if it can."""
    expected = FAILURES[kind]
    async with sim_runtime(tmp_path, wire, plan(kind, times)) as runtime:
        await runtime.set_budget("tenant", "10")
        run = (await runtime.start("desk", "What is the answer?")).run
        view = await over(runtime, run)
        failed = await events(runtime, run, ev.ModelCallFailed)
        assert {event.code for event in failed} <= set(expected.codes), [e.parts for e in failed]
        if expected.retry:
            assert (view.outcome, view.text) == ("done", ANSWER)
            assert [event.attempt for event in failed] == list(range(1, times + 1))
        else:
            assert (view.outcome, view.reason, len(failed)) == ("failed", f"model:{expected.codes[0]}", 1)
        for event in failed:
            *kept, said = event.parts
            assert isinstance(said, Text)
            assert said.label.source == "runtime"
            text = "".join(part.text for part in kept if isinstance(part, Text))
            assert ANSWER.startswith(text)
            assert bool(text) == expected.partial
        await settled(runtime, run, expected)
        await unchanged(runtime)


@WIRES
@pytest.mark.parametrize("kind", sorted(FAILURES))
async def test_for_good(tmp_path: Path, wire: str, kind: Fault) -> None:
    """A fault that stays: the run fails for its reason after the tries it has, and every try is settled."""
    expected = FAILURES[kind]
    async with sim_runtime(tmp_path, wire, plan(kind, None)) as runtime:
        await runtime.set_budget("tenant", "10")
        run = (await runtime.start("desk", "What is the answer?")).run
        view = await over(runtime, run)
        failed = await events(runtime, run, ev.ModelCallFailed)
        assert view.outcome == "failed"
        assert view.reason in {f"model:{code}" for code in expected.codes}
        assert len(failed) == (3 if expected.retry else 1)
        await settled(runtime, run, expected)


@WIRES
@pytest.mark.parametrize("kind", sorted(USELESS))
async def test_answers_of_no_use(tmp_path: Path, wire: str, kind: Fault) -> None:
    """An empty or truncated answer is told to the model; if all are, the run fails as malformed."""
    corrects = Script(
        rules=(Rule(when=When(contains="[runtime]"), reply=Reply(text=ANSWER)),),
        default=Reply(text=ANSWER, fault=FaultPlan(kind)),
    )
    async with sim_runtime(tmp_path, wire, script=corrects) as runtime:
        run = (await runtime.start("desk", "What is the answer?")).run
        view = await over(runtime, run)
        assert (view.outcome, view.text) == ("done", ANSWER)
        (notice,) = await events(runtime, run, ev.NoticeAdded)
        assert notice.kind == "output"
        assert await events(runtime, run, ev.ModelCallFailed) == []
    (tmp_path / "always").mkdir()
    async with sim_runtime(tmp_path / "always", wire, plan(kind, None)) as runtime:
        view = await over(runtime, (await runtime.start("desk", "What is the answer?")).run)
        assert (view.outcome, view.reason) == ("failed", "malformed")


@WIRES
async def test_refused(tmp_path: Path, wire: str) -> None:
    """A refusal is an answer, and the run's end."""
    async with sim_runtime(tmp_path, wire, plan(Fault.REFUSED, 1)) as runtime:
        run = (await runtime.start("desk", "What is the answer?")).run
        view = await over(runtime, run)
        assert (view.outcome, view.reason) == ("failed", "refusal")
        (finished,) = await events(runtime, run, ev.ModelCallFinished)
        assert finished.finish == "refusal"


@WIRES
async def test_unknown_events(tmp_path: Path, wire: str) -> None:
    """Events that nobody knows yet change nothing."""
    async with sim_runtime(tmp_path, wire, plan(Fault.UNKNOWN_EVENTS, None)) as runtime:
        run = (await runtime.start("desk", "What is the answer?")).run
        assert (await over(runtime, run)).text == ANSWER
        assert await events(runtime, run, ev.ModelCallFailed) == []


@WIRES
@pytest.mark.parametrize("times", [1, None])
async def test_malformed_arguments(tmp_path: Path, wire: str, times: int | None) -> None:
    """Arguments that are no JSON never reach the tool; the model is told and corrects them, or the run ends, bounded."""
    script = Script(
        rules=(Rule(when=When(tool_result="was shipped"), reply=Reply(text=ANSWER)),),
        default=Reply(calls=(ReplyCall(name="look", arguments={"order": "A-17"}),)),
    )
    async with sim_runtime(tmp_path, wire, plan(Fault.MALFORMED_ARGUMENTS, times), script=script) as runtime:
        run = (await runtime.start("desk", "What is the answer?")).run
        view = await over(runtime, run)
        outcomes = [event.outcome for event in await events(runtime, run, ev.ToolCallFinished)]
        if times:
            assert (view.outcome, view.text, outcomes) == ("done", ANSWER, ["invalid", "ok"])
        else:
            assert (view.outcome, view.reason, outcomes) == ("failed", "malformed", ["invalid"] * 3)


@WIRES
async def test_no_provider_at_all(tmp_path: Path, wire: str) -> None:
    """Where nothing listens nothing was sent and nothing is billed."""
    async with sim_runtime(tmp_path, wire) as gone:
        environment = {"ANTHROPIC_BASE_URL": "http://127.0.0.1:9", "OPENAI_BASE_URL": "http://127.0.0.1:9/v1"}
        agents = list(gone.agents.values())
    async with await Runtime.open(*agents, data=tmp_path / "t.db", environment=environment) as runtime:
        run = (await runtime.start("desk", "Hello?")).run
        view = await over(runtime, run)
        assert (view.outcome, view.reason, view.usd) == ("failed", "model:connect", "0.00")
        assert len(await events(runtime, run, ev.ModelCallFailed)) == 3
