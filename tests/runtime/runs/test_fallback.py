"""Providers that die in the middle of a run: another goes on from the same conversation, and the run says how it was degraded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import permutations
from pathlib import Path

import msgspec
import pytest

from stanchion import Agent, Model, Runtime, RunView, price_usd, tool
from stanchion.core import event as ev
from stanchion.core.bundle import RetryPolicy
from stanchion.core.errors import ModelError
from stanchion.core.message import USER, Media, ModelRequest, Opaque, Part, Text, Thinking, ToolCall
from stanchion.engine.live import LiveDelta
from stanchion.policy import GuardRules
from stanchion.sim import Pacing, Reply, ReplyCall, Rule, Script, SimProcess, When, running_sim, start_sim_process
from stanchion.testing import ScriptedModel, call
from tests.engine.rig import events, results
from tests.waiting import SOON_S

FOUR = {
    "anthropic": ("anthropic:claude-sonnet-4-6", "ANTHROPIC", ""),
    "openai": ("openai:gpt-5.2", "OPENAI", "/v1"),
    "groq": ("groq:gpt-oss-120b", "GROQ", "/v1"),
    "mistral": ("mistral:gpt-oss-120b", "MISTRAL", "/v1"),
}
"""Provider -> its model, the prefix of its variables, what its base URL ends with. Three wires, and two providers of one model on one of them."""
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def model(provider: str, *, thinks: bool = False) -> Model:
    budget = {"thinking_tokens": 1_024} if provider == "anthropic" else {"effort": "low"}
    return Model(
        FOUR[provider][0],
        price=price_usd(input="1", output="2"),
        retries=RetryPolicy(attempts=2, base_s=0.01, cap_s=0.02),
        max_output_tokens=2_000,
        **(budget if thinks else {}),  # type: ignore[arg-type]
    )


def environment(urls: dict[str, str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for provider, url in urls.items():
        _, prefix, path = FOUR[provider]
        found |= {f"{prefix}_BASE_URL": url + path, f"{prefix}_API_KEY": "sim-key"}
    return found


@tool(effect="read", repeatable=True)
def look(order: str) -> str:
    """Look an order up."""
    return f"order {order} lies in hall 9"


BOTH = Script(
    rules=(
        Rule(
            when=When(user="And now", contains=("lies in hall 9", "What is this?", "It is in hall 9.")),
            reply=Reply(text="I know all of it."),
        ),
        Rule(when=When(after="tool"), reply=Reply(text="It is in hall 9.", thinking="so it is there")),
        Rule(
            when=When(user="What is this"),
            reply=Reply(
                thinking="I must look", text="I look.", calls=(ReplyCall(name="look", arguments={"order": "A7"}),)
            ),
        ),
    ),
    default=Reply(text="I know nothing of it."),
)


@pytest.mark.parametrize(("first", "second"), list(permutations(FOUR, 2)))
async def test_a_history_is_read_by_every_other_provider(tmp_path: Path, first: str, second: str) -> None:
    """With a picture, thinking, a tool call and its result; the simulated providers refuse what a real one would."""
    agent = Agent(
        name="desk", identity="Help.", model=model(first, thinks=True), fallbacks=[model(second, thinks=True)],
        tools=[look], guard=GuardRules(mark=False),
    )  # fmt: skip
    async with running_sim(BOTH) as one, running_sim(BOTH) as two:
        known = environment({first: one.base_url, second: two.base_url})
        async with await Runtime.open(agent, data=tmp_path / "t.db", environment=known) as runtime:
            said: list[Part] = [
                Text("What is this?", USER),
                Media("image/png", USER, data=PIXEL, max_input_tokens=2_000),
            ]
            view = await ended(runtime, said, "s")
            assert (view.outcome, view.text, view.degraded) == ("done", "It is in hall 9.", [])
            thought = [part for part in await own(runtime, view.run) if isinstance(part, Thinking)]
            assert {part.label.name for part in thought} == {FOUR[first][0]}
            await one.stop()
            view = await ended(runtime, "And now?", "s")
            assert (view.outcome, view.text) == ("done", "I know all of it.")
            (without,) = view.degraded
            assert without == f"The model {FOUR[first][0]}: could not be reached"


async def test_fields_that_go_back_verbatim_go_back_to_who_said_them(tmp_path: Path) -> None:
    """Ids of items, signatures: another provider of the same wire, or another model, is told the text and the call alone."""
    agent = Agent(
        name="desk", identity="Help.", model=model("openai"), fallbacks=[model("anthropic")], tools=[look],
        guard=GuardRules(mark=False),
    )  # fmt: skip
    async with running_sim(BOTH) as one, running_sim(BOTH) as two:
        known = environment({"openai": one.base_url, "anthropic": two.base_url})
        async with await Runtime.open(agent, data=tmp_path / "t.db", environment=known) as runtime:
            view = await ended(runtime, "What is this?", "s")
            said = await own(runtime, view.run)
            assert said
            assert {part.label.name for part in said} == {"openai:gpt-5.2"}


async def own(runtime: Runtime, run: str) -> list[Part]:
    """What of a run's answers only its own model can read."""
    finished = await events(runtime, run, ev.ModelCallFinished)
    return [
        part
        for event in finished
        for part in event.parts
        if isinstance(part, Thinking | Opaque) or getattr(part, "data", "")
    ]


async def ended(runtime: Runtime, said: str | list[Part], session: str = "") -> RunView:
    started = await runtime.start("desk", said, session=session)
    return await runtime.wait(started.run, timeout_s=SOON_S)


# --- killed ----------------------------------------------------------------------------------------------------------


class Held:
    """A tool that waits for the test, each time it is called."""

    def __init__(self) -> None:
        self.calls: asyncio.Queue[asyncio.Event] = asyncio.Queue()

    async def began(self) -> asyncio.Event:
        return await asyncio.wait_for(self.calls.get(), SOON_S)

    def tool(self) -> object:
        """Make the tool."""

        @tool(effect="write", timeout_s=60)
        async def note(text: str) -> str:
            """Write something down."""
            gate = asyncio.Event()
            self.calls.put_nowait(gate)
            await gate.wait()
            return f"noted {text}"

        return note


def noting(name: str) -> Script:
    """A model that notes its name, says so, and after three notes by whomever has an answer."""
    note = Reply(text=f"I am {name}.", calls=(ReplyCall(name="note", arguments={"text": name}),))
    return Script(
        rules=(
            Rule(when=When(user="long"), reply=Reply(text="word " * 400, pacing=Pacing(interval_s=0.02, events=200))),
            Rule(when=When(turn=3), reply=Reply(text=f"All is noted, says {name}.")),
            Rule(when=When(turn=(0, 1, 2)), reply=note),
        )
    )


@asynccontextmanager
async def providers(order: tuple[str, ...]) -> AsyncIterator[dict[str, SimProcess]]:
    """Run simulated providers, a process each."""
    async with AsyncExitStack() as stack:
        found: dict[str, SimProcess] = {}
        for name in order:
            found[name] = await start_sim_process(noting(name))
            stack.push_async_callback(found[name].stop)
        yield found


async def killed(sim: SimProcess) -> None:
    sim.process.kill()
    await sim.process.wait()


@asynccontextmanager
async def desk(path: Path, sims: dict[str, SimProcess], held: Held) -> AsyncIterator[Runtime]:
    first, *others = (model(name) for name in sims)
    agent = Agent(name="desk", identity="Help.", model=first, fallbacks=others, tools=[held.tool()])
    known = environment({name: sim.base_url for name, sim in sims.items()})
    async with await Runtime.open(agent, data=path / "t.db", environment=known) as runtime:
        yield runtime


@pytest.mark.parametrize("order", [("anthropic", "openai", "groq"), ("groq", "anthropic", "openai")])
async def test_each_provider_is_killed_in_turn(tmp_path: Path, order: tuple[str, ...]) -> None:
    """SIGKILL while a tool works: the next provider goes on, with all that was said and done; the run says whom it lost."""
    held = Held()
    async with providers(order) as sims, desk(tmp_path, sims, held) as runtime:
        started = await runtime.start("desk", "Note who you are.")
        for name in order[:2]:
            gate = await held.began()
            await killed(sims[name])
            gate.set()
        (await held.began()).set()
        view = await runtime.wait(started.run, timeout_s=SOON_S)
        assert (view.outcome, view.text) == ("done", f"All is noted, says {order[2]}.")
        assert view.degraded == [f"The model {FOUR[name][0]}: could not be reached" for name in order[:2]]
        (end,) = await events(runtime, started.run, ev.RunFinished)
        assert end.degraded == tuple(f"model:{FOUR[name][0]}:connect" for name in order[:2])
        assert len(view.done) == 3


@pytest.mark.parametrize("order", [("anthropic", "openai"), ("openai", "groq"), ("groq", "anthropic")])
async def test_a_provider_is_killed_in_the_middle_of_its_answer(tmp_path: Path, order: tuple[str, ...]) -> None:
    """What had come is void; the other's answer is whole. The broken call is settled at its bound."""
    held = Held()
    async with providers(order) as sims, desk(tmp_path, sims, held) as runtime:
        started = await runtime.start("desk", "Tell me something long.")

        async def until_it_speaks() -> None:
            async for item in runtime.tail(started.run):
                if isinstance(item, LiveDelta):
                    return

        await asyncio.wait_for(until_it_speaks(), SOON_S)
        await killed(sims[order[0]])
        view = await runtime.wait(started.run, timeout_s=60)
        assert (view.outcome, view.text.split()) == ("done", ["word"] * 400)
        (without,) = view.degraded
        assert FOUR[order[0]][0] in without
        first, *_ = await events(runtime, started.run, ev.ModelCallFailed)
        asked, *_ = await events(runtime, started.run, ev.ModelCallStarted)
        assert first.code in ("cut", "early_end")
        assert first.cost == asked.reserved > 0


async def test_with_all_providers_gone_a_run_says_what_it_did(tmp_path: Path) -> None:
    """An end in plain words, with the best there is; and the agent's own words before them."""
    held = Held()
    order = ("anthropic", "openai")
    async with providers(order) as sims, desk(tmp_path, sims, held) as runtime:
        started = await runtime.start("desk", "Note who you are.")
        gate = await held.began()
        for sim in sims.values():
            await killed(sim)
        gate.set()
        view = await runtime.wait(started.run, timeout_s=SOON_S)
    assert (view.outcome, view.reason) == ("failed", "model:connect")
    best, words = view.text.split("\n\n")
    assert best == "I am anthropic."
    assert "The model anthropic:claude-sonnet-4-6: could not be reached." in words
    assert "The model openai:gpt-5.2: could not be reached." in words
    assert "Done before that: note." in words
    assert len(view.degraded) == 2


async def test_a_provider_that_is_back_is_asked_again(tmp_path: Path) -> None:
    """The first was overloaded, and the second dies later: the run goes round, and does not end while one of them answers."""
    broken = {"first": True, "second": False}

    def play(name: str) -> ScriptedModel:
        def reply(request: ModelRequest) -> str | ToolCall:
            if broken[name]:
                raise ModelError("down", code="overloaded", retryable=True)
            found = results(request)
            if len(found) == 1:
                broken.update(first=False, second=True)
                if name == "second":
                    raise ModelError("down", code="overloaded", retryable=True)
            return f"It is there, says {name}." if found else call("look", order="A7")

        return ScriptedModel(reply)

    agent = Agent(
        name="desk", identity="Help.", model=model("openai"), fallbacks=[model("groq")], tools=[look],
        guard=GuardRules(mark=False),
    )  # fmt: skip
    clients = {"openai": play("first"), "groq": play("second")}
    async with await Runtime.open(agent, data=tmp_path / "t.db", clients=clients, environment={}) as runtime:
        view = await ended(runtime, "Where is A7?")
    assert (view.outcome, view.text) == ("done", "It is there, says first.")
    assert len(view.degraded) == 2


async def test_a_message_of_the_author_s_is_said_first(tmp_path: Path) -> None:
    """Where no model answers."""
    agent = Agent(
        name="desk", identity="Help.", model=model("openai"),
        fallback_message="We cannot answer just now; please call 555-0100.",
    )  # fmt: skip
    async with await Runtime.open(
        agent, data=tmp_path / "t.db", environment=environment({"openai": "http://127.0.0.1:9"})
    ) as runtime:
        view = await ended(runtime, "Hello?")
    assert view.text.startswith("We cannot answer just now; please call 555-0100.")
    assert "Nothing was changed." in view.text
    assert msgspec.json.encode(view)
