"""What runs cost, from their journals: real runs over HTTP with a provider that caches, to the nano-dollar its own bill."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import apsw
import pytest

from stanchion import Agent, Limits, Model, Result, Runtime, tool
from stanchion.core import event as ev
from stanchion.core.errors import InputError
from stanchion.core.message import ToolResult, Usage
from stanchion.core.money import cost, format_usd, in_batch, parse_usd, price_usd
from stanchion.core.prices import find_price, load_prices
from stanchion.runtime import CostQuestion, CostReport
from stanchion.runtime.money.costs import DIMENSIONS, moment_ms
from stanchion.sim import Reply, ReplyCall, Rule, Script, SimServer, SimSettings, When
from stanchion.testing import ScriptedModel, call
from stanchion.testing.memory import MemoryStore
from tests.engine.rig import events

RULES = "You are the desk of a shop. " + "Here is a rule that never changes. " * 400
SCRIPT = Script(
    rules=(
        Rule(when=When(after="tool"), reply=Reply(text="It is there.")),
        Rule(
            when=When(user="look"),
            reply=Reply(calls=(ReplyCall(name="look", arguments={"n": 1}), ReplyCall(name="ask", arguments={"n": 2}))),
        ),
    )
)
MODELS = {"desk": "anthropic:claude-sonnet-4-6", "cheap": "openai:gpt-5.2"}


@tool(effect="read", repeatable=True)
def look(n: int) -> str:
    """Look something up."""
    return f"{n} " + "found " * 400


@tool(effect="read", repeatable=True)
def ask(n: int) -> Result[str]:
    """Ask somebody who wants to be paid."""
    return Result(f"{n}, he said", cost_usd="0.000000001")


@asynccontextmanager
async def shop(path: Path, *agents: Agent, **more: Any) -> AsyncIterator[tuple[Runtime, SimServer]]:
    """Run agents against a provider with the caches of the real ones."""
    sim = SimServer(SimSettings(script=SCRIPT))
    await sim.start()
    environment = {
        "ANTHROPIC_BASE_URL": sim.base_url, "ANTHROPIC_API_KEY": "sim-key",
        "OPENAI_BASE_URL": sim.openai_base_url, "OPENAI_API_KEY": "sim-key",
    }  # fmt: skip
    named = agents or [
        Agent(name=name, identity=RULES, model=model, tools=[look, ask]) for name, model in MODELS.items()
    ]
    try:
        async with await Runtime.open(*named, data=path / "t.db", environment=environment, **more) as runtime:
            yield runtime, sim
    finally:
        await sim.stop()


async def work(runtime: Runtime, *, tenant: str = "default", agents: Sequence[str] = tuple(MODELS)) -> list[str]:
    """Two sessions of two runs each for every agent."""
    runs: list[str] = []
    for agent in agents:
        for number in range(4):
            session, user = f"{agent}-{number % 2}", f"user-{number % 2}"
            text = "look" if number < 3 else "hello"
            started = await runtime.start(agent, text, session=session, user=user, tenant=tenant)
            assert (await runtime.wait(started.run, tenant=tenant, timeout_s=30)).outcome == "done"
            runs.append(started.run)
    return runs


async def answers(runtime: Runtime, runs: Sequence[str]) -> list[Usage]:
    found = [answer for run in runs for answer in await events(runtime, run, ev.ModelCallFinished)]
    return [answer.usage for answer in found if answer.usage is not None]


async def reckon(runtime: Runtime, *by: str, tenant: str = "default", most_runs: int = 0, **more: Any) -> CostReport:
    question = CostQuestion(by=by or ("agent",), **more)
    return await runtime.costs.report(question, tenant=tenant, most_runs=most_runs)


def nano(usd: str | None) -> int:
    assert usd is not None
    return -nano(usd[1:]) if usd.startswith("-") else parse_usd(usd, field="usd")


async def test_groups_of_any_kind_add_up_to_what_the_runs_and_the_provider_say(tmp_path: Path) -> None:
    """To the nano-dollar: the runs' own costs, the provider's bill and what tools said, by each thing and by any two."""
    async with shop(tmp_path) as (runtime, sim):
        runs = await work(runtime)
        rows = await runtime.runs()
        spent = sum(row.cost for row in rows)
        assert len(rows) == len(runs) == 8
        assert spent == sim.bill.view().total.nano_usd + 6  # a nano-dollar each time that somebody was asked
        for first in DIMENSIONS:
            for second in DIMENSIONS:
                report = await reckon(runtime, *dict.fromkeys((first, second)), top=10_000)
                assert sum(nano(group.usd) for group in report.groups) == spent, (first, second)
                assert (nano(report.total.usd), report.total.runs, report.rest) == (spent, 8, None)
        by_run = {group.key["run"]: nano(group.usd) for group in (await reckon(runtime, "run")).groups}
        assert by_run == {row.run: row.cost for row in rows}
        by_agent = {group.key["agent"]: nano(group.usd) for group in (await reckon(runtime, "agent")).groups}
        assert by_agent == {name: sum(row.cost for row in rows if row.agent == name) for name in MODELS}
        few = await reckon(runtime, "run", top=3)
        assert few.rest is not None
        assert (few.more_groups, sum(nano(g.usd) for g in few.groups) + nano(few.rest.usd)) == (5, spent)


async def test_what_was_read_from_the_cache_is_shown_against_the_plain_rate(tmp_path: Path) -> None:
    """Saved and spent more by hand, from each answer's usage; for one provider with marks and one without."""
    async with shop(tmp_path) as (runtime, _):
        runs = await work(runtime)
        by_hand = dict.fromkeys(MODELS, 0)
        for agent, model in MODELS.items():
            price = find_price(load_prices(), model.split(":")[0], model.split(":")[1], "2026-12-01")
            assert price is not None
            for usage in await answers(runtime, [run for run in runs if (await runtime.view(run)).agent == agent]):
                plain = Usage(usage.total_input_tokens, output_tokens=usage.output_tokens)
                by_hand[agent] += cost(price, plain) - cost(price, usage)
        report = await reckon(runtime, "agent")
        for group in report.groups:
            assert nano(group.cache_net_usd) == by_hand[group.key["agent"]] > 0
            assert nano(group.cache_net_usd) == nano(group.cache_read_saved_usd) - nano(group.cache_extra_usd)
            assert (nano(group.cache_extra_usd) > 0) == (group.key["agent"] == "desk")
        without = await reckon(runtime, "agent", without_cache=True)
        assert without.what_if is not None
        assert nano(without.what_if.difference_usd) == sum(by_hand.values())
        assert nano(without.what_if.kept_usd) == 6


async def test_what_if_is_the_same_tokens_at_another_price(tmp_path: Path) -> None:
    """Each answer's usage billed anew; a tool costs what it cost; and the report says what the number leaves out."""
    async with shop(tmp_path) as (runtime, _):
        usages = await answers(runtime, await work(runtime))
        report = await reckon(runtime, "model", on_model="anthropic:claude-haiku-4-5")
        price = find_price(
            load_prices(), "anthropic", "claude-haiku-4-5", report.what_if.price_on if report.what_if else ""
        )
        assert price is not None
        assert report.what_if is not None
        assert nano(report.what_if.usd) == sum(cost(price, usage) for usage in usages) + 6
        assert nano(report.what_if.usd) == sum(nano(group.what_if_usd) for group in report.groups)
        assert "another number of tokens" in report.what_if.note
        half = await reckon(runtime, batch=True)
        assert half.what_if is not None
        calls = [row for run in await runtime.runs() for row in await events(runtime, run.run, ev.ModelCallFinished)]
        assert nano(half.what_if.usd) == sum(in_batch(row.cost) for row in calls) + 6


async def test_tools_are_told_by_what_they_said_and_what_they_added(tmp_path: Path) -> None:
    """The long result made the requests longer, the short one cost a nano-dollar."""
    async with shop(tmp_path) as (runtime, _):
        await work(runtime, agents=["desk"])
        tools = {group.key["tool"]: group for group in (await reckon(runtime, "tool")).groups}
        assert set(tools) == {"look", "ask", ""}
        assert (nano(tools["ask"].usd), nano(tools["look"].usd), tools["look"].tool_calls) == (3, 0, 3)
        assert tools["look"].added_tokens > 20 * tools["ask"].added_tokens > 0
        steps = {group.key["step"]: group.calls for group in (await reckon(runtime, "step")).groups}
        assert steps == {"plan": 3, "answer": 4, "tool": 0}


async def test_a_tenant_s_costs_are_its_own(tmp_path: Path) -> None:
    """Each sees its runs; the operator sees both, by tenant."""
    async with shop(tmp_path) as (runtime, _):
        await work(runtime, agents=["desk"])
        await work(runtime, tenant="acme", agents=["cheap"])
        spent = {name: sum(row.cost for row in await runtime.runs(tenant=name)) for name in ("default", "acme")}
        for name, whole in spent.items():
            report = await reckon(runtime, "tenant", tenant=name)
            assert [(group.key["tenant"], nano(group.usd)) for group in report.groups] == [(name, whole)]
        everybody = await reckon(runtime, "tenant", tenant="")
        assert {group.key["tenant"]: nano(group.usd) for group in everybody.groups} == spent
        assert (await reckon(runtime, tenant="nobody")).groups == []


async def test_runs_are_chosen_and_what_is_erased_still_counts(tmp_path: Path) -> None:
    """By agent, session, user and time; the newest so many; an erasure takes the words and not the bill."""
    async with shop(tmp_path) as (runtime, _):
        await work(runtime)
        rows = await runtime.runs()
        chosen: dict[str, Callable[[Any], bool]] = {
            "agent=cheap": lambda row: row.agent == "cheap",
            "session=desk-1": lambda row: row.session == "desk-1",
            "user=user-0": lambda row: row.user == "user-0",
            "since=1h": lambda row: True,
            "since=2999-01-01": lambda row: False,
            "until=2001-01-01": lambda row: False,
        }
        for said, wanted in chosen.items():
            name, _, value = said.partition("=")
            asked: dict[str, Any] = {name: value}
            report = await runtime.costs.report(CostQuestion(**asked))
            assert nano(report.total.usd) == sum(row.cost for row in rows if wanted(row)), said
        newest = await reckon(runtime, most_runs=3)
        assert (newest.complete, newest.looked_at, newest.reached_ms) == (False, 3, rows[2].created_ms)
        assert nano(newest.total.usd) == sum(row.cost for row in rows[:3])
        assert (await reckon(runtime, most_runs=8)).complete
        before = await reckon(runtime, "agent", "step")
        assert await runtime.erase("user-0")
        assert await reckon(runtime, "agent", "step") == before


async def test_a_lost_bill_is_in_it_and_said_apart() -> None:
    """A call whose usage the provider did not say is settled at its reservation: no other price says what it had cost."""

    def play(request: Any) -> Any:
        done = any(isinstance(part, ToolResult) for part in request.messages[-1].parts)
        return "There." if done else call("look", n=1)

    class Silent(ScriptedModel):
        async def call(self, request: Any, **more: Any) -> Any:
            answer = await super().call(request, **more)
            return type(answer)(answer.parts, answer.finish, None) if len(self.requests) == 1 else answer

    model = Model("anthropic:claude-test", price=price_usd(input="1", output="1"))
    agent = Agent(name="desk", model=model, tools=[look], limits=Limits(usd="5"))
    runtime = await Runtime.open(agent, store=MemoryStore(), clients={"*": Silent(play)})
    async with runtime:
        run = (await runtime.start("desk", "go")).run
        assert (await runtime.wait(run, timeout_s=30)).outcome == "done"
        first, second = await events(runtime, run, ev.ModelCallFinished)
        report = await reckon(runtime, "step", batch=True)
        assert report.what_if is not None
        assert (nano(report.total.unmetered_usd), nano(report.what_if.kept_usd)) == (first.cost, first.cost)
        assert nano(report.what_if.usd) == first.cost + in_batch(second.cost)


async def test_a_journal_that_cannot_be_read_is_named_and_left_out(tmp_path: Path) -> None:
    """One run of many that a newer program wrote, or that was damaged: the others are reckoned."""
    async with shop(tmp_path) as (runtime, _):
        runs = await work(runtime, agents=["desk"])
    with apsw.Connection(str(tmp_path / "t.db")) as file:
        newer = b'{"seq":2,"at_ms":1,"epoch":1,"event":{"type":"dream_dreamt"}}'
        ((no,),) = file.execute("SELECT no FROM runs WHERE run = ?", (runs[1],)).fetchall()
        file.execute("UPDATE events SET envelope = ? WHERE run = ? AND seq = 2", (newer, no))
    async with await Runtime.open(data=tmp_path / "t.db", drive=False) as runtime:
        report = await reckon(runtime)
        rows = await runtime.runs()
    assert report.unreadable == [runs[1]]
    assert nano(report.total.usd) == sum(row.cost for row in rows if row.run != runs[1])


@pytest.mark.parametrize(
    ("field", "asked"),
    [
        ("by", {"by": ("planet",)}),
        ("by", {"by": ()}),
        ("by", {"by": ("agent", "agent")}),
        ("by", {"by": ("agent", "day", "user")}),
        ("since", {"since": "yesterday"}),
        ("since", {"since": "2026-11-01T10:00:00"}),
        ("until", {"until": "0001-01-01T00:00:00+14:00"}),
        ("until", {"since": "2026-11-02", "until": "2026-11-02"}),
        ("on_model", {"on_model": "claude"}),
        ("on_model", {"on_model": "anthropic:nobody"}),
        ("top", {"top": 0}),
    ],
)
async def test_what_cannot_be_asked_is_named(field: str, asked: dict[str, Any]) -> None:
    """The field, and what it may be."""
    async with await Runtime.open(store=MemoryStore(), drive=False) as runtime:
        with pytest.raises(InputError) as raised:
            await runtime.costs.report(CostQuestion(**asked))
        assert raised.value.field == field


def test_times_are_read() -> None:
    """A day is its beginning in UTC; a time has its zone; "7d" is that long ago; nothing is no bound."""
    now_ms = 1_000_000_000_000
    said = {
        "": 0, "2026-11-01": 1_793_491_200_000, "2026-11-01T02:00:00+02:00": 1_793_491_200_000,
        "2026-11-01T00:00:00Z": 1_793_491_200_000, "7d": now_ms - 604_800_000, "24h": now_ms - 86_400_000, "99999d": 1,
    }  # fmt: skip
    assert {text: moment_ms(text, now_ms, field="since") for text in said} == said
    assert format_usd(nano("-0.5")) == "-0.50"


async def test_a_tenant_s_reports_take_turns() -> None:
    """Whoever asks often waits for its own answers; another tenant does not."""

    class Watched(MemoryStore):
        reading: list[str]
        seen: set[tuple[str, ...]]

        async def outlines(self, tenant: str, runs: Sequence[str]) -> Any:
            self.reading.append(tenant)
            await asyncio.sleep(0)  # let the others come as far as they may
            self.seen.add(tuple(sorted(self.reading)))
            found = await super().outlines(tenant, runs)
            self.reading.remove(tenant)
            return found

    store = Watched()
    store.reading, store.seen = [], set()
    agent = Agent(name="desk", model=Model("anthropic:claude-test", price=price_usd(input="1", output="1")))
    async with await Runtime.open(agent, store=store, clients={"*": ScriptedModel(["Hello."])}) as runtime:
        for tenant in ("a", "b"):
            await runtime.wait((await runtime.start("desk", "Hi", tenant=tenant)).run, tenant=tenant, timeout_s=30)
        reports = await asyncio.gather(*(reckon(runtime, tenant=tenant) for tenant in "aab"))
    assert [report.looked_at for report in reports] == [1, 1, 1]
    assert ("a", "b") in store.seen
    assert not any(both.count("a") > 1 for both in store.seen)
