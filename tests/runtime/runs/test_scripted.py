"""The scripted model: the same reply to the same conversation, whoever asks and however often."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from stanchion.core.bundle import Timeouts
from stanchion.core.errors import ModelError
from stanchion.core.message import MODEL, USER, Delta, Message, ModelRequest, ModelResponse, Text, ToolCall, Usage
from stanchion.testing import FakeClock, ScriptedModel, call
from tests.engine.rig import over, running


def request(*said: str) -> ModelRequest:
    """A conversation in which user and assistant have spoken in turn."""
    sides = ("user", "assistant")
    messages = tuple(Message(sides[n % 2], (Text(text, USER),)) for n, text in enumerate(said))  # type: ignore[arg-type]
    return ModelRequest("m", messages, 100)


async def ask(model: ScriptedModel, *said: str) -> ModelResponse:
    return await model.call(request(*said), timeouts=Timeouts(), on_deltas=None)


async def test_the_place_in_the_script_is_the_conversation() -> None:
    """The n-th reply answers the n-th turn, again and again."""
    model = ScriptedModel(
        ["one", [call("look", order="A"), call("look", order="B")], ModelError("no", code="cut", retryable=True)]
    )
    for _ in range(2):
        assert (await ask(model, "hi")).parts == (Text("one", MODEL),)
    second = await ask(model, "hi", "one", "go on")
    assert second.finish == "tool_calls"
    calls = [part for part in second.parts if isinstance(part, ToolCall)]
    assert [(part.id, msgspec.json.decode(part.arguments)) for part in calls] == [
        ("call_0", {"order": "A"}),
        ("call_1", {"order": "B"}),
    ]
    with pytest.raises(ModelError, match="no"):
        await ask(model, "hi", "one", "go on", "two", "again")
    with pytest.raises(AssertionError, match="3 replies, and the model is asked for number 4"):
        await ask(model, "hi", "1", "2", "3", "4", "5", "6")
    assert len(model.requests) == 5


async def test_deltas_and_usage() -> None:
    """Deltas say all of a reply; usage is counted, unless it is given."""
    told: list[Delta] = []
    model = ScriptedModel([["Look:", call("look", order="A")]])
    response = await model.call(request("hi"), timeouts=Timeouts(), on_deltas=told.extend)
    assert [(delta.kind, delta.index, delta.text, delta.name) for delta in told] == [
        ("text", 0, "Look:", ""),
        ("tool_call", 1, '{"order":"A"}', "look"),
    ]
    assert response.usage is not None
    assert response.usage.input_tokens == -(-len(model.encode(request("hi"))) // 4)
    assert response.usage.output_tokens > 0
    given = ScriptedModel(["x"], usage=Usage(7))
    assert (await ask(given, "hi")).usage == Usage(7)


async def test_a_script_that_is_too_short_says_so(tmp_path: Path) -> None:
    """A test whose script ends too soon finds out why in the run."""
    async with running(tmp_path, ScriptedModel([])) as runtime:
        run = (await runtime.start("desk", "Hello")).run
        assert (await over(runtime, run)).reason == "model:garbled"
        assert "the script has 0 replies" in repr(await runtime.store.read("default", run))


def test_fake_clock() -> None:
    """Time passes when it is told to."""
    clock = FakeClock(1_000, draw=0.25)
    clock.advance(1.5)
    assert (clock.now_ms(), clock.now_ms(), clock.draw()) == (2_500, 2_500, 0.25)
