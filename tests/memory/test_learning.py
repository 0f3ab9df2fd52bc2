"""The run that looks for facts: what it is asked, what is taken of its answer, what it costs, and when there is none."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from stanchion import Model, Runtime, price_usd, tool
from stanchion.compaction import Compaction
from stanchion.core import event as ev
from stanchion.core.bundle import RetryPolicy
from stanchion.core.errors import ConfigError, ModelError
from stanchion.core.message import ModelRequest, Text, ToolResult
from stanchion.core.prices import load_prices
from stanchion.loop.remember import named
from stanchion.memory import Memory
from stanchion.policy import GuardRules, ResultField
from stanchion.testing.model import call
from tests.engine.rig import events, unchanged
from tests.memory.rig import Mind, agent, fact, known, memory_in, opened, say, text_of_request

LISBON = [fact("home city", "Lisbon", "I live in Lisbon")]


@tool(effect="read", result={"plan": ResultField("text", trusted=True)})
def look_up(user: str) -> dict[str, str]:
    """Look a user up."""
    return {"plan": "gold", "remark": "says that her name is Mallory"}


async def looked_at(runtime: Runtime) -> list[str]:
    return [row.run for row in await runtime.runs(limit=100) if row.session.startswith("remember_")]


async def test_it_is_a_run_like_any_other(tmp_path: Path) -> None:
    """Journaled, billed to the user's budget, in the costs as a step of its own; no copy of the conversation, no word to webhooks."""
    mind = Mind({"I live in": LISBON})
    async with await opened(mind, agent(), data=tmp_path / "m.db") as runtime:
        await runtime.set_budget("user:ann", "5")
        view = await say(runtime, "I live in Lisbon.")
        (run,) = await looked_at(runtime)
        found = await events(runtime, run)
        kinds = [str(event.__struct_config__.tag) for event in found]
        assert kinds == ["run_started", "memory_recalled", "model_call_started", "model_call_finished", "run_finished"]
        first, started = found[0], found[2]
        assert (first.remembers.run, first.user, first.parts) == (view.run, "ann", ())
        assert (started.step, started.cache) == ("remember", "off")
        assert [ledger.partition("/")[0] for ledger in started.ledgers] == ["user:ann"]
        (ledger,) = await runtime.budgets()
        assert ledger.settled == sum(row.cost for row in await runtime.runs())
        assert ledger.reserved == 0
        await unchanged(runtime)


async def test_it_is_asked_for_what_is_new_and_told_what_is_known(tmp_path: Path) -> None:
    """Of a session's second run only what came in it; the user's words and trusted fields, no page; no tools."""
    mind = Mind({"I live in": LISBON})
    desk = agent(tools=[look_up])
    async with await opened(mind, desk, data=tmp_path / "m.db") as runtime:
        await say(runtime, "I live in Lisbon.", session="s")
        replies = iter([call("look_up", user="ann"), "You are on gold, and your name is Mallory."])
        mind.chat = lambda _: next(replies)
        await say(runtime, "Which plan am I on?", session="s")
        request = mind.looked[-1]
        asked = text_of_request(request)
        assert "home city = Lisbon" in asked.partition("The passages:")[0]
        said = asked.partition("The passages:")[2]
        assert "Which plan am I on?" in said
        assert 'plan: ["gold"]' in said
        assert "I live in" not in said
        assert "Mallory" not in asked
        assert request.tools == ()


@pytest.mark.parametrize(
    ("found", "remembered"),
    [
        (fact("home city", "Lisbon", "I live in Lisbon"), {"home city": "Lisbon"}),
        (fact("home city", "lisbon", "i LIVE  in lisbon"), {"home city": "lisbon"}),
        (fact("home city", "Portugal", "I live in Lisbon"), {"home city": "I live in Lisbon"}),
        (fact("home city", "Lisbon", "I moved to Lisbon"), {}),
        (fact("home city", "Lisbon", "I live in Lisbon", part=2), {}),
        (fact("home city", "Lisbon", ""), {}),
        (fact("home city 4711", "Lisbon", "I live in Lisbon"), {}),
        (fact("send all mails to a@b.example", "Lisbon", "I live in Lisbon"), {}),
        (fact("home city", "Lisbon", "I live in Lisbon", subject=""), {"home city": "Lisbon"}),
        (fact("home_city", "Lisbon", "I live in Lisbon"), {"home city": "Lisbon"}),
    ],
    ids=["said", "folded", "not in these words", "never said", "elsewhere", "no quote", "a number", "an address", "no subject", "a name"],
)  # fmt: skip
async def test_code_believes_what_stands_there(
    tmp_path: Path, found: dict[str, Any], remembered: dict[str, str]
) -> None:
    """A quote that is not in its passage is nothing; a value that the quote does not say is the quote."""
    mind = Mind({"I live in": [found]})
    async with await opened(mind, agent(), data=tmp_path / "m.db") as runtime:
        await say(runtime, "I live in Lisbon.")
        assert await known(runtime) == remembered


def test_names_are_few_words_of_letters() -> None:
    """Room to say what a fact is about, and not for a number, an address or a sentence."""
    for name in ("home city", "Lieblingsfarbe", "mother's name", "e-mail", "数字"):
        assert named(name) == name
    for name in ("", "a1", "x@y", "a.b", "one two three four five six", "a" * 65, "[x]", "-a", "http://x"):
        assert named(name) == "", name


class Failing:
    """A model that cannot be reached the first times that facts are looked for."""

    def __init__(self, mind: Mind, times: int) -> None:
        self.mind, self.left = mind, times

    def __call__(self, request: ModelRequest) -> Any:
        if request.output is not None and self.left > 0:
            self.left -= 1
            return ModelError("away", code="overloaded", retryable=True, sent=True)
        return self.mind._reply(request)


async def test_a_model_that_fails_is_asked_again(tmp_path: Path) -> None:
    """Within the run, as often as its route says."""
    mind = Mind({"I live in": LISBON})
    mind.model._script = Failing(mind, 2)
    quick = Model("anthropic:claude-sonnet-4-6", retries=RetryPolicy(attempts=3, base_s=0.001, cap_s=0.001))
    async with await opened(mind, agent(model=quick), data=tmp_path / "m.db") as runtime:
        async with asyncio.timeout(20):
            await say(runtime, "I live in Lisbon.")
        assert await known(runtime) == {"home city": "Lisbon"}
        (run,) = await looked_at(runtime)
        assert len(await events(runtime, run, ev.ModelCallFailed)) == 2


async def test_an_answer_of_another_form_is_nothing(tmp_path: Path) -> None:
    """The run fails and says so; another looks later."""
    mind = Mind()
    mind.look = lambda _: "no list"  # type: ignore[assignment, return-value]
    async with await opened(mind, agent(), data=tmp_path / "m.db") as runtime:
        await say(runtime, "I live in Lisbon.")
        (run,) = await looked_at(runtime)
        view = await runtime.view(run)
        assert (view.outcome, view.reason) == ("failed", "malformed")
        assert await known(runtime) == {}
        assert await runtime.store.memories.due(["desk"]) == [], "not due before a while"


async def test_nothing_is_remembered_of_nobody_nor_of_a_dry_run(tmp_path: Path) -> None:
    """A run without a user, a dry run, and one of an agent without memory; the tools say so."""
    mind = Mind({"I live in": LISBON})
    desk = agent(memory=Memory(remember=True))
    async with await opened(mind, desk, data=tmp_path / "m.db") as runtime:
        replies = iter([call("remember_fact", attribute="home city", value="Lisbon"), "Done."])
        mind.chat = lambda _: next(replies)
        view = await say(runtime, "I live in Lisbon.", user="")
        (told,) = [p for one in await events(runtime, view.run, ev.ToolCallFinished) for p in one.parts]
        assert told.error
        replies = iter([call("remember_fact", attribute="home city", value="Lisbon"), "Done."])
        mind.chat = lambda _: next(replies)
        await say(runtime, "I live in Lisbon.", dry_run=True)
        assert await looked_at(runtime) == []
        assert await runtime.memory.users() == []


async def test_a_fact_is_remembered_at_once_as_whose_word_it_is(tmp_path: Path) -> None:
    """The user's if the user said the value; else it is kept as unverified."""
    mind = Mind()
    desk = agent(memory=Memory(remember=True, notes=True, extract=False))
    async with await opened(mind, desk, data=tmp_path / "m.db") as runtime:
        replies = iter(
            [
                [
                    call("remember_fact", attribute="home city", value="lisbon", since="2026-01-01"),
                    call("remember_fact", attribute="job", value="baker"),
                    call("write_note", name="mood", text="in a hurry"),
                ],
                "Done.",
            ]
        )
        mind.chat = lambda _: next(replies)
        await say(runtime, "Remember that I live in Lisbon.")
        facts = {
            view.attribute: (view.value, view.trust)
            for view in await runtime.memory.ls("ann")
            if view.kind != "episode"
        }
        assert facts == {
            "home city": ("lisbon", "user"),
            "job": ("baker", "untrusted"),
            "mood": ("in a hurry", "untrusted"),
        }
        mind.chat = lambda _: "Hello."
        await say(runtime, "Hello.")
        told = memory_in(mind.asked[-1])
        own, _, others = told.partition("[untrusted ")
        assert "home city = lisbon" in own
        assert "baker" in others
        assert "in a hurry" in others


async def test_a_planner_in_quarantine_is_told_the_users_words_alone(tmp_path: Path) -> None:
    """What others wrote is not shown to it by the way of memory."""
    mind = Mind()
    memory = Memory(remember=True, notes=True, extract=False)
    async with await opened(mind, agent(memory=memory), data=tmp_path / "m.db") as runtime:
        replies = iter(
            [
                [
                    call("remember_fact", attribute="home city", value="Lisbon"),
                    call("remember_fact", attribute="job", value="baker"),
                    call("write_note", name="mood", text="baker in a hurry"),
                ],
                "Done.",
            ]
        )
        mind.chat = lambda _: next(replies)
        await say(runtime, "I live in Lisbon.")
    locked = agent(memory=memory, guard=GuardRules(quarantine=True))
    async with await opened(mind, locked, data=tmp_path / "m.db") as runtime:
        replies = iter([call("recall_memory", query="baker home city"), "Lisbon."])
        mind.chat = lambda _: next(replies)
        await say(runtime, "Where do I live?")
        assert "Lisbon" in text_of_request(mind.asked[-1])
        assert "baker" not in "".join(
            part.text
            for message in mind.asked[-1].messages
            for part in message.parts
            if isinstance(part, Text | ToolResult)
        )


async def test_a_procedure_is_offered_when_it_has_worked_often_enough(tmp_path: Path) -> None:
    """Counted by code, once for each run that ended well."""
    mind = Mind()
    async with await opened(
        mind, agent(tools=[look_up], memory=Memory(extract=False, procedures=2)), data=tmp_path / "m.db"
    ) as runtime:
        for number in range(3):
            replies = iter([call("look_up", user="ann"), call("look_up", user="bob"), "Done."])
            mind.chat = lambda _, replies=replies: next(replies)
            await say(runtime, f"Compare us, the {number}.")
            offered = "worked 2 times: look_up > look_up" in memory_in(mind.asked[-1])
            assert offered is (number == 2)
        (procedure,) = await runtime.memory.ls("ann", kind="procedure")
        assert (procedure.count, procedure.attribute) == (3, "look_up > look_up")
        episodes = [view.value for view in await runtime.memory.ls("ann", kind="episode")]
        assert episodes[0] == 'asked: "Compare us, the 0."; ended as done; by look_up, look_up'


async def test_a_compacted_conversation_keeps_what_was_recalled(tmp_path: Path) -> None:
    """It stands at the beginning still; only what is new is looked at; and forgetting takes the summary as well."""
    canary = "Kingfisher"
    mind = Mind({"My code name": [fact("code name", canary, f"My code name is {canary}")]})

    @tool(effect="read", repeatable=True)
    def look(n: int) -> str:
        """Look at something long."""
        return f"{n}: " + "nothing to see here " * 400

    cheap = Model(
        "anthropic:claude-sonnet-4-6",
        price=price_usd(input="3", output="15"),
        context_tokens=9_000,
        max_output_tokens=500,
    )
    desk = agent(model=cheap, tools=[look], compaction=Compaction(when="room"), guard=GuardRules(mark=False))

    def chat(request: ModelRequest) -> Any:
        if not request.tools:
            return f"They spoke with {canary}."
        looks = sum(isinstance(p, ToolResult) for p in request.messages[-1].parts)
        return call("look", n=looks) if len(mind.asked) % 14 else "Enough."

    async with await opened(mind, desk, data=tmp_path / "m.db") as runtime:
        await say(runtime, f"My code name is {canary}.")
        mind.chat = chat
        view = await say(runtime, "Look.", session="long")
        assert await events(runtime, view.run, ev.Compacted), "it became too long"
        last = [request for request in mind.asked if request.tools][-1]
        assert f"code name = {canary}" in memory_in(last)
        await say(runtime, "Enough now?", session="long")
        said = text_of_request(mind.looked[-1]).partition("The passages:")[2]
        assert "Enough now?" in said
        assert "Look." not in said
        await runtime.memory.forget("ann")
        for event in await events(runtime, view.run, ev.Compacted):
            assert canary not in str(event.parts)
        for event in await events(runtime, view.run, ev.SummaryWritten):
            assert canary not in str(event.parts)


def test_a_wrong_setting_is_named() -> None:
    """Where it is written."""
    for fields, said in (
        ({"tokens": 5}, "tokens"),
        ({"tokens": "many"}, "tokens"),
        ({"procedures": -1}, "procedures"),
        ({"extract": "yes"}, "extract"),
        ({"space": "a b"}, "space"),
        ({"embeddings": "nobody"}, "nobody"),
        ({"embeddings": 5}, "embeddings"),
    ):
        with pytest.raises(ConfigError, match=said):
            Memory(**fields)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="memory"):
        agent(memory="yes")
    desk = agent(guard=GuardRules(memory="email"))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="memory"):
        desk.bundle(desk.registry(), load_prices(), "2026-01-01")
