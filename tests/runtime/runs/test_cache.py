"""What a session sends is paid once: over real HTTP, by the simulated provider's own bill, which equals ours to the nano-dollar."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from typing import Literal

import pytest

from stanchion import Agent, Model, Runtime, tool
from stanchion.core import event as ev
from stanchion.core.money import cost
from stanchion.core.prices import find_price, load_prices
from stanchion.sim import Reply, ReplyCall, Rule, Script, SimServer, SimSettings, When
from tests.engine.rig import events

LONG = "You are the desk of a shop. " + "Here is a rule that never changes. " * 400
SCRIPT = Script(
    rules=(
        Rule(when=When(after="tool"), reply=Reply(text="It is there.")),
        Rule(when=When(user="look"), reply=Reply(calls=(ReplyCall(name="look", arguments={"n": 1}),))),
        Rule(
            when=When(user="many"),
            reply=Reply(calls=tuple(ReplyCall(name="look", arguments={"n": n}) for n in range(24))),
        ),
    )
)


@tool(effect="read", repeatable=True)
def look(n: int) -> str:
    """Look something up."""
    return f"{n} " + "found " * 200


@pytest.fixture
async def sim() -> AsyncIterator[SimServer]:
    """A provider with the caches of the real ones."""
    server = SimServer(SimSettings(script=SCRIPT))
    await server.start()
    yield server
    await server.stop()


async def opened(path: Path, sim: SimServer, model: str | Model) -> Runtime:
    agent = Agent(name="desk", identity=LONG, model=model, tools=[look])
    environment = {
        "ANTHROPIC_BASE_URL": sim.base_url, "ANTHROPIC_API_KEY": "sim-key",
        "OPENAI_BASE_URL": sim.openai_base_url, "OPENAI_API_KEY": "sim-key",
    }  # fmt: skip
    return await Runtime.open(agent, data=path / "t.db", environment=environment)


async def calls(runtime: Runtime, texts: list[str], session: str) -> list[ev.ModelCallFinished]:
    found: list[ev.ModelCallFinished] = []
    for text in texts:
        started = await runtime.start("desk", text, session=session)
        view = await runtime.wait(started.run, timeout_s=30)
        assert view.outcome == "done", view
        found += await events(runtime, started.run, ev.ModelCallFinished)
    return found


async def test_each_request_of_a_session_reads_all_of_the_one_before(tmp_path: Path, sim: SimServer) -> None:
    """Over runs and tools, a turn of 24 calls among them; another session reads what all share."""
    runtime = await opened(tmp_path, sim, "anthropic:claude-sonnet-4-6")
    try:
        made = await calls(runtime, ["look", "many", "hello", "look"], "s1")
        usages = [call.usage for call in made if call.usage is not None]
        assert len(usages) == len(made) == 7
        assert usages[0].cache_read_tokens == 0
        for before, now in pairwise(usages):
            assert now.cache_read_tokens == before.total_input_tokens
            assert now.input_tokens == 0
        other = await calls(runtime, ["hello"], "s2")
        assert other[0].usage is not None
        assert other[0].usage.cache_read_tokens > 3_000
    finally:
        await runtime.aclose(grace_s=1.0)
    bill = sim.bill.view().total
    assert bill.unpriced == 0
    assert bill.nano_usd == sum(call.cost for call in (*made, *other))


async def test_no_cache_is_asked_for_where_it_is_switched_off(tmp_path: Path, sim: SimServer) -> None:
    """Nothing written, nothing read; and dearer."""
    runtime = await opened(tmp_path, sim, Model("anthropic:claude-sonnet-4-6", cache="off"))
    try:
        made = await calls(runtime, ["look", "look"], "s1")
    finally:
        await runtime.aclose(grace_s=1.0)
    total = sim.bill.view().total
    assert (total.cache_read_tokens, total.cache_write_tokens) == (0, 0)
    price = find_price(load_prices(), "anthropic", "claude-sonnet-4-6", "2026-12-01")
    assert price is not None
    assert total.nano_usd == sum(cost(price, call.usage) for call in made if call.usage is not None)


async def test_the_long_life_outlasts_a_pause(tmp_path: Path, sim: SimServer) -> None:
    """After six minutes what was kept for an hour is read, what was kept for five minutes is written again."""
    for model, life in (
        (Model("anthropic:claude-sonnet-4-6", cache="long"), "long"),
        ("anthropic:claude-opus-4-6", "short"),
    ):
        runtime = await opened(tmp_path / life, sim, model) if (tmp_path / life).mkdir() is None else None
        assert runtime is not None
        try:
            await calls(runtime, ["look"], "s1")
            sim.advance(360)
            after = await calls(runtime, ["hello"], "s1")
        finally:
            await runtime.aclose(grace_s=1.0)
        assert after[0].usage is not None
        assert (after[0].usage.cache_read_tokens > 0) == (life == "long")


@pytest.mark.parametrize("model", ["openai:gpt-5.2", "openai-chat:gpt-5.2"])
async def test_an_automatic_cache_reads_what_goes_on_from_it(tmp_path: Path, sim: SimServer, model: str) -> None:
    """Without a mark, in steps of 128; the bill is ours."""
    runtime = await opened(tmp_path, sim, model)
    try:
        made = await calls(runtime, ["look", "hello"], "s1")
    finally:
        await runtime.aclose(grace_s=1.0)
    usages = [call.usage for call in made if call.usage is not None]
    for before, now in pairwise(usages):
        assert now.cache_read_tokens == before.total_input_tokens // 128 * 128
    assert sim.bill.view().total.nano_usd == sum(call.cost for call in made)


@pytest.mark.parametrize("model", ["openai:gpt-5.6", "openai-chat:gpt-5.6"])
@pytest.mark.parametrize(("cache", "pause_s"), [("auto", 1_700), ("long", 43_000)])
async def test_what_ends_at_a_breakpoint_is_read(
    tmp_path: Path, sim: SimServer, model: str, cache: Literal["auto", "long"], pause_s: float
) -> None:
    """All that was sent before, over a pause within the life that was asked for; another session reads what all begin with. The bill is ours."""
    runtime = await opened(tmp_path, sim, Model(model, cache=cache))
    try:
        made = await calls(runtime, ["look", "many"], "s1")
        sim.advance(pause_s)
        made += await calls(runtime, ["hello"], "s1")
        other = await calls(runtime, ["hello"], "s2")
    finally:
        await runtime.aclose(grace_s=1.0)
    usages = [call.usage for call in made if call.usage is not None]
    for before, now in pairwise(usages):
        assert now.cache_read_tokens == before.total_input_tokens
        assert now.input_tokens == 0
        assert (now.cache_write_long_tokens > 0) == (cache == "long")
    assert other[0].usage is not None
    assert other[0].usage.cache_read_tokens > 3_000
    assert sim.bill.view().total.nano_usd == sum(call.cost for call in (*made, *other))
