"""The types of the public names, by example: `make check` runs pyright over this file, and the tests run what it says."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, assert_type

import pytest

import stanchion
from stanchion import (
    Agent,
    Approve,
    Done,
    Inject,
    Limits,
    Model,
    Partial,
    Result,
    Runtime,
    RunView,
    ToolContext,
    Undone,
    price_usd,
    tool,
)
from stanchion.core.event import Entry
from stanchion.core.message import Message
from stanchion.core.money import Price
from stanchion.journal.store import ApiKey, Ledger, RunRow, SessionRow
from stanchion.runtime import LiveDelta, Started, VerifiedRun, load_agents
from stanchion.testing import FakeClock, ScriptedModel, call


class Db:
    """A dependency."""

    def find(self, order: str) -> str:
        """Find an order."""
        return f"{order} is here"


@tool(effect="read", timeout_s=5)
async def look(order: str, db: Inject[Db], context: ToolContext) -> str:
    """Look an order up."""
    assert_type(db, Db)
    assert_type(context, ToolContext)
    return db.find(order)


@tool(effect="irreversible", retries=1)
def refund(order: str, cents: int, *, key: str) -> Result[dict[str, int]]:
    """Refund an order."""
    assert_type(key, str)
    return Result({order: cents}, cost_usd="0.01")


@refund.reconciler
def was_refunded(order: str) -> Done | Undone:
    """Say whether it was."""
    return Done({order: 1}) if order else Undone()


@tool(effect="read")
async def many(orders: list[str]) -> Partial[str]:
    """Look many up."""
    return Partial([order for order in orders if order], {"": "has no name"})


async def tools_stay_functions() -> None:
    """A tool is called as the function it was, with its types."""
    assert_type(await look("A", Db(), ToolContext()), str)
    assert_type(refund("A", 5, key="k"), Result[dict[str, int]])
    assert_type(was_refunded("A"), Done | Undone)
    assert_type(await many(["A"]), Partial[str])


MODEL = Model("openai:my-model", price=price_usd(input="1", output="2.5"))
AGENT = Agent(
    name="desk",
    identity="Help.",
    tools=[look, refund, many],
    model=MODEL,
    fallbacks=["anthropic:claude-sonnet-4-6"],
    limits=Limits(usd="0.50", turns=15, wall_s=120),
    approvals=[Approve(tool="refund", above={"cents": 1000}, expires_s=60)],
    deps={Db: Db()},
)


async def runtime_types(runtime: Runtime) -> None:
    """What each method of the runtime gives."""
    started = await runtime.start("desk", "Hello", limits=Limits(usd=1), if_busy="queue")
    assert_type(started, Started)
    assert_type(await runtime.wait(started.run, timeout_s=1), RunView)
    assert_type(await runtime.view(started.run), RunView)
    async for item in runtime.tail(started.run, after=0):
        assert_type(item, Entry | LiveDelta)
    async for verified in runtime.verify():
        assert_type(verified, VerifiedRun)
    assert_type(await runtime.runs(session="s"), Sequence[RunRow])
    assert_type(await runtime.session("s"), SessionRow)
    assert_type(await runtime.sessions(), Sequence[SessionRow])
    assert_type(await runtime.messages("s"), Sequence[Message])
    assert_type(await runtime.set_budget("tenant/day", "5.00"), Ledger)
    assert_type(await runtime.budgets(), Sequence[Ledger])
    assert_type(await runtime.keys.add("acme", "ci"), tuple[ApiKey, str])
    assert_type(await runtime.keys.tenant_of("sk"), str | None)
    assert_type(await runtime.erase("ann"), bool)
    assert_type(runtime.ready, bool)
    assert_type(runtime.agents, Mapping[str, Agent])
    assert_type(load_agents("agent.py"), list[Agent])


assert_type(MODEL.price, Price | None)


async def test_the_example_runs(tmp_path: Path) -> None:
    """What is typed above also works."""
    await tools_stay_functions()
    model = ScriptedModel([call("look", order="A-17"), "Found."])
    async with await Runtime.open(
        AGENT, data=tmp_path / "t.db", clients={"openai": model, "anthropic": model}, clock=FakeClock()
    ) as runtime:
        started = await runtime.start("desk", "Where is A-17?")
        assert (await runtime.wait(started.run, timeout_s=10)).text == "Found."


def test_public_names_have_docs() -> None:
    """Every public name says what it is, and so does each of its public methods."""
    for name in stanchion.__all__:
        value: Any = getattr(stanchion, name)
        if name != "Inject":  # an annotation, whose string stands behind it in its file
            assert inspect.getdoc(value), name
        if inspect.isclass(value) and value.__module__.startswith("stanchion"):
            for method, function in vars(value).items():
                if inspect.isfunction(function) and not method.startswith("_"):
                    assert inspect.getdoc(function), f"{name}.{method}"


def test_all_is_what_can_be_had() -> None:
    """`__all__` names what there is, each from where it says, and nothing else is promised."""
    assert len(set(stanchion.__all__)) == len(stanchion.__all__) <= 25
    assert set(stanchion.__all__) == set(stanchion._HOMES)
    for name, home in stanchion._HOMES.items():
        assert getattr(importlib.import_module(home), name) is getattr(stanchion, name)
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        _ = stanchion.Nothing  # pyright: ignore[reportAttributeAccessIssue]


def test_import_is_lazy() -> None:
    """`import stanchion` alone imports none of the heavy libraries."""
    code = "import sys, stanchion; print([m for m in ('pydantic', 'aiohttp', 'apsw', 'fastapi') if m in sys.modules])"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"
