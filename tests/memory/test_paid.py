"""Every embedding is paid by a run: reserved before it leaves, settled to the nano-dollar, and never past a budget, whoever dies."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from stanchion import Model, Runtime, price_usd
from stanchion.core import event as ev
from stanchion.core.embedding import bound_tokens
from stanchion.core.errors import ConfigError, ModelError
from stanchion.core.fact import Owner
from stanchion.core.message import Erased, ToolResult, Usage
from stanchion.core.money import parse_usd
from stanchion.engine.clock import SystemClock
from stanchion.memory import Embedded, Embeddings, Memory
from stanchion.model.client import Endpoint
from stanchion.model.embedding import EmbeddingClient
from stanchion.model.http import HttpPool
from stanchion.runtime import CostQuestion
from stanchion.sim import running_sim
from stanchion.testing.model import call
from tests.engine.rig import SOON_S, events, unchanged
from tests.memory.paid import Door, desk, environment, provider
from tests.memory.rig import Mind, agent, fact, known, opened, say

FREE = Model("openai:free", price=price_usd(input=0, output=0))
VECTORS = "openai:text-embedding-3-small"
OUTCOMES = (ev.EmbeddingFailed, ev.EmbeddingMade, ev.ToolCallFailed, ev.ToolCallFinished)
LISBON = [fact("home city", "Lisbon", "I live in Lisbon")]


def nano(usd: str) -> int:
    return parse_usd(usd, field="usd")


async def learned_from(runtime: Runtime) -> list[str]:
    """The runs that looked at others, oldest first."""
    rows = await runtime.runs(limit=200)
    return [row.run for row in rows if row.session.startswith("remember_")][::-1]


async def paid(runtime: Runtime, by: str) -> dict[str, int]:
    report = await runtime.costs.report(CostQuestion(by=(by,), top=100))
    return {group.key[by]: nano(group.usd) for group in report.groups}


@pytest.mark.parametrize("extract", [True, False])
async def test_the_journals_and_the_provider_agree_to_the_nano_dollar(tmp_path: Path, *, extract: bool) -> None:
    """Searches, facts, notes, what was learned, and episodes: the runs' costs, the budget and the provider's bill are one number."""
    async with provider() as (sim, door):
        mine, where = desk(door.url, extract=extract), environment(sim.base_url)
        async with await Runtime.open(mine, data=tmp_path / "m.db", environment=where) as runtime:
            await runtime.set_budget("user:ann", "5")
            for text in ("I live in Lisbon.", "Where do I live?", "Keep that I am on gold.", "Note it."):
                started = await runtime.start("desk", text, user="ann")
                assert (await runtime.wait(started.run, timeout_s=SOON_S)).outcome == "done"
                await runtime.memory.learn()
            bill = sim.bill.view()
            spent = sum(row.cost for row in await runtime.runs(limit=100))
            (ledger,) = await runtime.budgets()
            assert spent == bill.total.nano_usd == ledger.settled
            assert ledger.reserved == 0
            (line,) = [line for line in bill.lines if line.model == "text-embedding-3-small"]
            assert (line.requests, line.unpriced) == (len(door.asked), 0) == (7, 0)
            assert line.nano_usd == line.input_tokens * 20 == (await paid(runtime, "step"))["embed"]
            assert (await paid(runtime, "model"))[VECTORS] == line.nano_usd
            other = await runtime.costs.report(CostQuestion(by=("step",), on_model="anthropic:claude-opus-4-6"))
            changed = {group.key["step"]: (group.usd, group.what_if_usd) for group in other.groups}
            assert changed["embed"][0] == changed["embed"][1]
            assert changed["answer"][0] != changed["answer"][1]
            facts = await runtime.store.memories.facts(
                Owner("default", "ann", "desk"), kinds=("fact", "note", "episode")
            )
            assert len(facts) == 7 - (not extract)
            assert all(len(one.vector) == 4 * 256 for one in facts)
            learned = await learned_from(runtime)
            kinds = [str(event.__struct_config__.tag) for event in await events(runtime, learned[-1])]
            asks = ["memory_recalled", "model_call_started", "model_call_finished"] if extract else []
            assert kinds == ["run_started", *asks, "embedding_started", "embedding_made", "run_finished"]
            await unchanged(runtime)


async def killed(data: Path, base_url: str, door: Door, what: str) -> str:
    """Have a process say something, and kill it when the door holds what it asks for; give its run."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.memory.paid", str(data), base_url, door.url, what, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        run = (await asyncio.wait_for(process.stdout.readline(), 60)).decode().strip()
        await asyncio.wait_for(door.held.wait(), 60)
    finally:
        process.kill()
        await process.wait()
    return run


@pytest.mark.parametrize("behind", [False, True], ids=["before the provider", "behind the provider"])
@pytest.mark.parametrize(("what", "holds"), [("I live in Lisbon.", "ended as done"), ("Keep that.", "plan gold")])
async def test_a_kill_between_intent_and_outcome_costs_the_bound(
    tmp_path: Path, what: str, holds: str, *, behind: bool
) -> None:
    """SIGKILL: what was under way is settled at its bound, asked again, and billed; nothing is learned twice, nothing is lost."""
    async with provider() as (sim, door):
        door.hold, door.behind = holds, behind
        run = await killed(tmp_path / "m.db", sim.base_url, door, what)
        door.hold = ""
        async with await Runtime.open(
            desk(door.url), data=tmp_path / "m.db", environment=environment(sim.base_url)
        ) as runtime:
            await runtime.wait(run, timeout_s=60)
            async with asyncio.timeout(60):
                while not (looked := await learned_from(runtime)) or not (found := await known(runtime)):
                    await runtime.memory.learn()
            assert found == ({"home city": "Lisbon"} if "Lisbon" in what else {"plan": "gold"})
            assert len(looked) == 1
            at = looked[0] if "Lisbon" in what else run
            found_there: list[Any] = await events(runtime, at)
            intents = [e for e in found_there if getattr(e, "reserved", 0) and not isinstance(e, ev.ModelCallStarted)]
            outcomes: list[Any] = [e for e in found_there if isinstance(e, OUTCOMES)]
            lost, done = outcomes
            assert len(intents) == 2
            assert (lost.code, lost.cost) == ("lost", intents[0].reserved)
            assert 0 < done.cost < done.usage.input_tokens * 20 + 1
            settled = sum(row.cost for row in await runtime.runs(limit=100))
            bill = sim.bill.view().total.nano_usd
            assert bill <= settled
            assert settled - bill == lost.cost - (done.cost if behind else 0)
            facts = await runtime.store.memories.facts(Owner("default", "ann", "desk"), kinds=("fact", "episode"))
            assert len(facts) == 2
            assert all(one.vector for one in facts)
            await unchanged(runtime)


@pytest.mark.parametrize("where", ["sqlite", "postgres"])
async def test_a_budget_without_room_is_never_passed_by_fifty_runs(
    tmp_path: Path, where: str, request: pytest.FixtureRequest
) -> None:
    """At no moment; what has no room goes by words, no run fails for it, every fact is kept, and the provider bills what was settled."""
    limit = 12_000
    mind = Mind({"I live in": LISBON})
    data = tmp_path / "m.db" if where == "sqlite" else request.getfixturevalue("dsn")
    asks = iter(range(1_000))

    def chat(asked: Any) -> Any:
        answered = any(isinstance(part, ToolResult) for part in asked.messages[-1].parts)
        return "Noted." if answered else call("remember_fact", attribute="plan", value=f"number {next(asks)}")

    mind.chat = chat
    async with provider() as (sim, door):
        embeddings = Embeddings(endpoint=Endpoint(f"{door.url}/v1", "sim-key"))
        mine = agent(model=FREE, memory=Memory(remember=True, embeddings=embeddings))
        async with await opened(mind, mine, data=data, clock=SystemClock()) as runtime:
            await runtime.set_budget("tenant", f"0.{limit:09d}")
            most, over = 0, asyncio.Event()

            async def watch() -> None:
                nonlocal most
                while not over.is_set():
                    (ledger,) = await runtime.budgets()
                    most = max(most, ledger.settled + ledger.reserved)
                    await asyncio.sleep(0.005)

            watching = asyncio.create_task(watch())
            said = (say(runtime, "I live in Lisbon.", user=f"user-{n}") for n in range(50))
            views = await asyncio.gather(*said)
            over.set()
            await watching
            (ledger,) = await runtime.budgets()
            assert {view.outcome for view in views} == {"done"}
            assert 0 < most <= limit
            assert (ledger.reserved, ledger.closed) == (0, False)
            assert ledger.settled == sim.bill.view().total.nano_usd > limit // 2
            rows = await runtime.runs(limit=200)
            assert len(rows) == 100
            assert sum(row.cost for row in rows) == ledger.settled
            lacked = [(await runtime.view(row.run)).degraded for row in rows]
            assert 0 < sum(map(bool, lacked)) < 100
            assert {text for each in lacked for text in each} == {
                f"The embedding {VECTORS}: there was no money left for it"
            }
            for n in range(50):
                assert (await known(runtime, f"user-{n}"))["home city"] == "Lisbon"


async def test_a_provider_that_does_not_count_is_paid_the_bound(tmp_path: Path) -> None:
    """Of what was learned and of a search: never less than it bills."""
    async with provider() as (sim, door):
        door.counts = False
        mine, where = desk(door.url), environment(sim.base_url)
        async with await Runtime.open(mine, data=tmp_path / "m.db", environment=where) as runtime:
            for text in ("I live in Lisbon.", "Where do I live?"):
                started = await runtime.start("desk", text, user="ann")
                await runtime.wait(started.run, timeout_s=SOON_S)
                await runtime.memory.learn()
            found = [e for row in await runtime.runs() for e in await events(runtime, row.run)]
            bounds = [e.reserved for e in found if isinstance(e, ev.EmbeddingStarted | ev.ToolCallStarted)]
            paid_for = [e for e in found if isinstance(e, ev.EmbeddingMade | ev.ToolCallFinished)]
            assert len(bounds) == 3
            assert [e.cost for e in paid_for] == bounds
            assert {e.usage for e in paid_for} == {None}
            assert sim.bill.view().total.nano_usd < sum(row.cost for row in await runtime.runs())


class Priced:
    """An embedder of one's own that says what it costs: a dollar for a million tokens, of which it counts `tokens`, if it does."""

    name = "mine"
    price = "1"

    def __init__(self, tokens: int | None = None) -> None:
        self.tokens = tokens
        self.asked: list[Sequence[str]] = []

    async def embed(self, texts: Sequence[str]) -> Embedded | Sequence[Sequence[float]]:
        self.asked.append(texts)
        vectors = [[float(len(text)), 1.0] for text in texts]
        return vectors if self.tokens is None else Embedded(vectors, Usage(self.tokens))

    async def aclose(self) -> None:
        """Nothing is open."""


async def test_one_s_own_embedder_costs_what_it_says(tmp_path: Path) -> None:
    """By its count; at its reservation where it has none; and a bill above that closes the budget, as any."""
    for tokens in (None, 5, 10_000):
        mine = Priced(tokens)
        mind = Mind({"I live in": LISBON})
        async with await opened(
            mind, agent(model=FREE, memory=Memory(embeddings=mine)), data=tmp_path / f"{tokens}.db"
        ) as runtime:
            await runtime.set_budget("user:ann", "1")
            await say(runtime, "I live in Lisbon.")
            (run,) = await learned_from(runtime)
            (started,), (made,) = (
                await events(runtime, run, ev.EmbeddingStarted),
                await events(runtime, run, ev.EmbeddingMade),
            )
            (texts,) = mine.asked
            assert (started.model, started.texts, started.reserved) == ("mine", 2, 1_000 * bound_tokens(texts))
            assert made.cost == (started.reserved if tokens is None else 1_000 * tokens)
            (ledger,) = await runtime.budgets()
            assert (ledger.settled, ledger.closed) == (made.cost, tokens == 10_000)
            assert len(await events(runtime, run, ev.BudgetOverrun)) == (tokens == 10_000)


async def test_what_is_asked_by_hand_is_asked_of_nothing_that_costs(tmp_path: Path) -> None:
    """It belongs to no run that could pay: written without a vector, searched by words. An embedder that is free is asked."""
    for price, asked in (("1", 0), ("0", 2)):
        mine = Priced()
        mine.price = price
        async with await opened(
            Mind(), agent(memory=Memory(embeddings=mine)), data=tmp_path / f"{price}.db"
        ) as runtime:
            await runtime.memory.add("home city", "Lisbon", user="ann", space="desk")
            found = await runtime.memory.ls("ann", query="which city")
            assert [view.value for view in found] == ["Lisbon"]
            assert len(mine.asked) == asked


class Odd:
    """An embedder that breaks its contract."""

    def __init__(self, said: Any) -> None:
        self.said = said

    async def embed(self, texts: Sequence[str]) -> Any:
        if isinstance(self.said, Exception):
            raise self.said
        return self.said

    async def aclose(self) -> None:
        """Nothing is open."""


@pytest.mark.parametrize(
    "said", [RuntimeError("x"), [], [[]], [["a"]], None, ModelError("away", code="auth", retryable=False)]
)
async def test_one_that_breaks_its_contract_loses_nothing(tmp_path: Path, said: Any) -> None:
    """What was found is kept, and the run says that it has no vectors."""
    mind = Mind({"I live in": LISBON})
    async with await opened(mind, agent(memory=Memory(embeddings=Odd(said))), data=tmp_path / "m.db") as runtime:
        await say(runtime, "I live in Lisbon.")
        assert await known(runtime) == {"home city": "Lisbon"}
        (run,) = await learned_from(runtime)
        view = await runtime.view(run)
        assert (view.outcome, len(view.degraded)) == ("done", 1)
        assert "The embedding Odd" in view.degraded[0]


async def test_vectors_are_forgotten_with_what_they_say(tmp_path: Path) -> None:
    """They lie under the key of what journals hold of memory; the chain still verifies."""
    mind = Mind({"I live in": LISBON})
    async with await opened(mind, agent(memory=Memory(embeddings=Priced(3))), data=tmp_path / "m.db") as runtime:
        await say(runtime, "I live in Lisbon.")
        (run,) = await learned_from(runtime)
        (made,) = await events(runtime, run, ev.EmbeddingMade)
        assert len(made.parts) == 2
        await runtime.memory.forget("ann")
        (made,) = await events(runtime, run, ev.EmbeddingMade)
        assert [type(part) for part in made.parts] == [Erased, Erased]
        await unchanged(runtime)


async def test_a_price_that_nobody_knows_is_asked_for(tmp_path: Path) -> None:
    """When the agent is bound, as for any model; given, it is the bundle's."""
    unknown = Embeddings("openai:vectors-9", endpoint=Endpoint("http://127.0.0.1:9/v1", "any"))
    with pytest.raises(ConfigError, match=r"price of 'openai:vectors-9' is not known; give it: Embeddings"):
        await opened(Mind(), agent(memory=Memory(embeddings=unknown)), data=tmp_path / "m.db")
    for price in ("-1", "a", True):
        with pytest.raises(ConfigError, match="price"):
            Embeddings("openai:vectors-9", price=price)
    given = Embeddings("openai:vectors-9", price="0.5", endpoint=Endpoint("http://127.0.0.1:9/v1", "any"))
    async with await opened(Mind(), agent(memory=Memory(embeddings=given)), data=tmp_path / "m.db") as runtime:
        served = runtime._bound["desk"]
        assert served.bundle.memory is not None
        model = served.bundle.memory.embeddings
        assert model is not None
        assert (model.name, model.price.input, model.price.output) == ("openai:vectors-9", 500_000_000, 0)


async def test_the_client_tells_what_was_billed() -> None:
    """All requests of many texts together."""
    async with running_sim() as sim:
        client = EmbeddingClient("text-embedding-3-small", 8, Endpoint(sim.openai_base_url, "sim-key"), HttpPool())
        said = await client.embed(["word"] * 300)
        assert len(said.vectors) == 300
        assert said.usage == Usage(300)
        assert sim.bill.view().total.nano_usd == 300 * 20
        await client.aclose()
