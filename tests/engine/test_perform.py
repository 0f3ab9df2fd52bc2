"""What an outcome says: text that no store takes is made storable, and reasoning is named by its model."""

from __future__ import annotations

from pathlib import Path

import pytest

from stanchion import Agent, Model, Runtime, ToolError, tool
from stanchion.core.errors import InputError, ModelError
from stanchion.core.message import MODEL, ModelRequest, ModelResponse, Text, Thinking, Usage
from stanchion.testing import ScriptedModel, call
from stanchion.testing.model import Reply
from tests.engine.rig import PRICED, UNMARKED, over, results, running


@tool(effect="read")
def broken_text() -> str:
    """Give half of a surrogate pair."""
    return "half \ud83d of it"


@tool(effect="read")
def broken_error() -> str:
    """Fail with half of a surrogate pair."""
    raise ToolError("half \ud83d of it")


@pytest.mark.parametrize("given", [broken_text, broken_error])
async def test_half_a_character_is_replaced(tmp_path: Path, given: object) -> None:
    """A tool's result that is no Unicode neither stops the run nor stands in the journal."""
    mine = Agent(name="desk", tools=[given], model=PRICED, guard=UNMARKED)
    model = ScriptedModel([call(getattr(given, "__name__", "")), "Done."])
    async with running(tmp_path, model, mine) as runtime:
        view = await over(runtime, (await runtime.start("desk", "Go.")).run)
        assert view.outcome == "done"
        assert results(model.requests[1]) == ["half ? of it"]
        with pytest.raises(InputError, match="input: holds half"):
            await runtime.start("desk", "half \ud83d of it")


async def test_a_fallback_does_not_see_the_reasoning_of_the_first(tmp_path: Path) -> None:
    """Nor does the first see the other's when the session goes on with it."""
    seen: dict[str, list[list[str]]] = {"first": [], "second": []}
    down = {"first": False}

    def reply(request: ModelRequest) -> Reply:
        thoughts = [p.text for m in request.messages for p in m.parts if isinstance(p, Thinking)]
        seen[request.model].append(thoughts)
        if down.get(request.model):
            raise ModelError("no", code="auth", retryable=False)
        thought = Thinking(f"by {request.model}", MODEL, wire="anthropic")
        return ModelResponse((thought, Text("Hi.", MODEL)), "stop", Usage(1, output_tokens=1))

    mine = Agent(
        name="desk",
        model=Model("anthropic:first", price=PRICED.price),
        fallbacks=[Model("anthropic:second", price=PRICED.price)],
    )
    async with await Runtime.open(mine, data=tmp_path / "t.db", clients={"*": ScriptedModel(reply)}) as runtime:
        for out in (False, True, False):
            down["first"] = out
            view = await over(runtime, (await runtime.start("desk", "Go.", session="s")).run)
            assert view.outcome == "done"
    assert seen["first"] == [[], ["by first"], ["by first"]]
    assert seen["second"] == [[]]
