"""Redaction where it is wired: deltas that agree with what is journaled, tools that get what they may, verdicts about what is gone."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from stanchion import Agent, Model, Runtime, tool
from stanchion.core import event as ev
from stanchion.core.bundle import Timeouts
from stanchion.core.errors import ConfigError
from stanchion.core.message import (
    MODEL,
    Delta,
    ModelRequest,
    ModelResponse,
    Part,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
    Usage,
    text_of,
)
from stanchion.core.money import price_usd
from stanchion.engine.batcher import Batcher, BatcherSettings
from stanchion.engine.live import LiveDelta
from stanchion.guard.redact import Redactor
from stanchion.guard.secret import Secrets
from stanchion.journal.sqlite import SqliteStore
from stanchion.model.client import OnDeltas
from stanchion.model.providers import open_batches, resolve_endpoint
from stanchion.policy import Destination, GuardRules
from stanchion.sim import Reply, Rule, Script, SimServer, SimSettings, When
from stanchion.testing import ScriptedModel, call
from tests.waiting import until

SECRET = "crm/token+0123456789"
PRICED = Model("openai:test-model", price=price_usd(input="1", output="1"))
GOT: list[str] = []


class Chatty:
    """A model that says its parts a few characters at a time, and between them lets everyone else go on."""

    def __init__(self, *parts: Text | Thinking) -> None:
        self.parts = parts

    def encode(self, request: ModelRequest) -> bytes:
        return b"{}"

    async def call(self, request: ModelRequest, *, timeouts: Timeouts, on_deltas: OnDeltas | None) -> ModelResponse:
        assert on_deltas is not None
        for index, part in enumerate(self.parts):
            kind = "thinking" if isinstance(part, Thinking) else "text"
            for at in range(0, len(part.text), 5):
                on_deltas([Delta(kind, index, part.text[at : at + 5])])
                await asyncio.sleep(0)
        return ModelResponse(self.parts, "stop", Usage(10, output_tokens=5))

    async def aclose(self) -> None: ...


async def test_deltas_are_what_is_journaled(tmp_path: Path) -> None:
    """Piece by piece, offset by offset, to the last character; also where a part ends in what might have become a secret."""
    model = Chatty(
        Thinking(f"I know {SECRET} and more", MODEL),
        Text(f"It is {SECRET[:9]}\n{SECRET[9:]}, password=Tr0ub4dor&3xyz; " + SECRET[:-1], MODEL),
    )
    agent = Agent(name="desk", model=PRICED)
    async with await Runtime.open(
        agent, data=tmp_path / "a.db", clients={"*": model}, secrets={"CRM": SECRET}
    ) as runtime:
        run = (await runtime.start("desk", "hello")).run
        said: dict[int, str] = {}
        final: tuple[Part, ...] = ()
        async for item in runtime.tail(run):
            if isinstance(item, LiveDelta):
                assert item.offset == len(said.get(item.index, ""))
                said[item.index] = said.get(item.index, "") + item.text
            elif isinstance(item.event, ev.ModelCallFinished):
                final = item.event.parts
    told = [part.text for part in final if isinstance(part, Text | Thinking)]
    assert told == [
        "I know [secret:CRM] and more",
        f"It is [secret:CRM], password=[redacted:password]; {SECRET[:-1]}",
    ]
    assert [said[0], said[1]] == told


@tool(effect="write", params={"to": Destination("email"), "token": Destination("token")})
async def hand_over(to: str, token: str) -> str:
    """Hand a token over."""
    GOT.append(token)
    return "done"


@tool(effect="read")
async def profile(name: str) -> dict[str, object]:
    """Read a profile."""
    GOT.append(name)
    return {"mail": "jane@example.com", "card": 4111111111111111, "token": SECRET}


async def _run(runtime: Runtime, text: str) -> list[ev.Event]:
    run = (await runtime.start("desk", text)).run
    await runtime.wait(run, timeout_s=20)
    return [entry.event for entry in await runtime.store.read("default", run)]


async def test_a_call_that_needs_what_was_taken_out_is_denied(tmp_path: Path) -> None:
    """Neither a secret that the model wrote nor what stands in its place is handed to an effect; the reason says why."""
    GOT.clear()
    script = [
        call("hand_over", to="ann@our.example", token=SECRET),
        call("hand_over", to="ann@our.example", token="x [secret:CRM]"),
        "Done.",
    ]
    agent = Agent(name="desk", model=PRICED, tools=[hand_over])
    async with await Runtime.open(
        agent, data=tmp_path / "a.db", clients={"*": ScriptedModel(script)}, secrets={"CRM": SECRET}
    ) as runtime:
        events = await _run(runtime, f"Give ann@our.example the token {SECRET}")
    judged = [event for event in events if isinstance(event, ev.ToolCallJudged)]
    assert [(event.action, event.rule) for event in judged] == [("deny", "redacted")] * 2
    assert "token was taken out as a secret" in text_of(judged[0].parts)
    assert GOT == []


@pytest.mark.parametrize("pii", ["keep", "redact"])
async def test_personal_data_by_setting(tmp_path: Path, pii: str) -> None:
    """Kept, the model reads it; else it is gone before it is stored, and a result stays JSON. A secret is gone anyway."""
    GOT.clear()
    model = ScriptedModel([call("profile", name="jane@example.com"), "It is jane@example.com."])
    agent = Agent(name="desk", model=PRICED, tools=[profile], guard=GuardRules(pii=pii, mark=False))  # pyright: ignore[reportArgumentType]
    async with await Runtime.open(
        agent, data=tmp_path / "a.db", clients={"*": model}, secrets={"CRM": SECRET}
    ) as runtime:
        events = await _run(runtime, "Who is jane@example.com?")
    mail, card = ("jane@example.com", 4111111111111111) if pii == "keep" else ("[redacted:email]", "[redacted:card]")
    finished = next(event for event in events if isinstance(event, ev.ToolCallFinished))
    result = finished.parts[0]
    assert isinstance(result, ToolResult)
    assert json.loads(result.text) == {"mail": mail, "card": card, "token": "[secret:CRM]"}
    proposed = next(part for event in events for part in event.parts if isinstance(part, ToolCall))
    assert json.loads(proposed.arguments) == {"name": mail}
    assert [mail] == GOT
    assert str(mail) in str(model.requests[1].messages)


async def test_the_version_of_the_rules_is_in_the_bundle(tmp_path: Path) -> None:
    """By it a run says which rules it was redacted by. A setting that is none is refused."""
    agent = Agent(name="desk", model=PRICED)
    async with await Runtime.open(agent, data=tmp_path / "a.db", clients={"*": ScriptedModel("hi")}) as runtime:
        await _run(runtime, "hello")
        row = (await runtime.runs())[0]
        body = await runtime.store.bundle("default", row.bundle)
    assert body is not None
    assert json.loads(body)["redaction"] == "1"
    wrong = Agent(name="desk", model=PRICED, guard=GuardRules(pii="hide"))  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match='pii must be "keep" or "redact"'):
        await Runtime.open(wrong, data=tmp_path / "b.db", clients={"*": ScriptedModel("hi")})


async def test_what_a_batch_answers_is_redacted_before_it_is_a_row(tmp_path: Path) -> None:
    """The answer of a batch waits in the inbox until its run is driven: the secret is not in it."""
    script = Script(rules=(Rule(when=When(user="order"), reply=Reply(text=f"The token is {SECRET}.")),))
    sim = SimServer(SimSettings(script=script, batch_s=0.05))
    await sim.start()
    environment = {"ANTHROPIC_BASE_URL": sim.base_url, "ANTHROPIC_API_KEY": "sim-key"}
    agent = Agent(name="desk", model=Model("anthropic:claude-test", price=price_usd(input="1", output="1")))
    runtime = await Runtime.open(agent, data=tmp_path / "a.db", environment=environment, batch_gather_s=3600.0)
    async with runtime:
        run = (await runtime.start("desk", "order", batch_api=True)).run
        await until(lambda: not runtime.active)
    store = await SqliteStore.open(tmp_path / "a.db")
    secrets = Secrets()
    secrets.add("CRM", SECRET)
    client = open_batches("anthropic", resolve_endpoint("anthropic", environment))
    settings = BatcherSettings("b", gather_s=0.0, look_s=0.0)
    batcher = Batcher(store, {"anthropic": client}, settings, Redactor(secrets))

    async def served() -> Any:
        await batcher.serve()
        return await store.inbox("default", run)

    rows = await until(served)
    assert b"The token is [secret:CRM]." in rows[0].body
    await client.aclose()
    await store.aclose()
    await sim.stop()
