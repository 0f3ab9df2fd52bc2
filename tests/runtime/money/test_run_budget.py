"""A run's own limit of money, over real HTTP: its lines are told to who chose them, signed, in order, each once."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from stanchion import Agent, InputError, Limits, Model, Runtime, tool
from stanchion.core.message import MODEL, ModelRequest, ModelResponse, Text, Usage
from stanchion.engine.deliver import WebhookSettings
from stanchion.runtime.desks.webhooks import Callback
from stanchion.testing import ScriptedModel, call
from stanchion.testing.memory import MemoryStore
from tests.runtime.receiver import Receiver, receiving

LOCAL = WebhookSettings(allow_private=True, first_retry_s=0.02, longest_retry_s=0.1, poll_s=0.1)
A_TURN = Usage(1_000, output_tokens=200)
"""$0.006 by the price of Sonnet 4.6."""


@tool(effect="read", repeatable=True)
async def look() -> str:
    """Look."""
    return "nothing"


def looks(turns: int, dear: int = 0) -> ScriptedModel:
    """A model that looks in so many turns, and then is done. The dear turn costs $0.0225."""

    def reply(request: ModelRequest) -> ModelResponse:
        turn = sum(message.role == "assistant" for message in request.messages) + 1
        part = msgspec.structs.replace(call("look"), id="c") if turn < turns else Text("Done.", MODEL)
        usage = Usage(6_500, output_tokens=200) if turn == dear else A_TURN
        return ModelResponse((part,), "tool_calls" if turn < turns else "stop", usage)

    return ScriptedModel(reply)


async def opened(turns: int, dear: int = 0, **more: Any) -> Runtime:
    agent = Agent(
        name="desk",
        model=Model("anthropic:claude-sonnet-4-6", max_output_tokens=256),
        tools=[look],
        limits=Limits(**more),
    )
    return await Runtime.open(agent, store=MemoryStore(), clients={"*": looks(turns, dear)}, webhooks=LOCAL)


def lines(receiver: Receiver, secret: str, path: str = "/") -> list[tuple[str, int, str]]:
    """What came to a path: its kind, the line, and what was spent by then."""
    said = [message.verified(secret) for message in receiver.messages if message.path == path]
    return [(each["type"], each["data"].get("percent", 0), each["data"]["usd"]) for each in said]


async def test_lines_of_a_run_are_told_in_order_before_its_end() -> None:
    """When so much was spent; two by one append are two; an endpoint that names nothing hears of the end alone."""
    async with receiving() as receiver, await opened(14, dear=14, usd="0.1") as runtime:
        _, secret = await runtime.webhooks.add(f"{receiver.url}/", events=("run.budget", "run.finished"))
        await runtime.webhooks.add(f"{receiver.url}/all")
        await runtime.webhooks.add(f"{receiver.url}/other", events=("run.budget",), agents=("other",))
        started = await runtime.start("desk", "go")
        view = await runtime.wait(started.run, timeout_s=30)
        assert (view.outcome, view.usd) == ("done", "0.1005")
        await receiver.until(5)
        assert lines(receiver, secret.secret) == [
            ("run.budget", 50, "0.054"), ("run.budget", 80, "0.1005"), ("run.budget", 100, "0.1005"),
            ("run.finished", 0, "0.1005"),
        ]  # fmt: skip
        first, _, last = [each for each in receiver.messages if each.path == "/"][:3]
        data = first.verified(secret.secret)["data"]
        assert (data["run"], data["agent"], data["budget"], data["limit_usd"]) == (started.run, "desk", "run", "0.10")
        assert data["links"]["run"] == f"/v1/runs/{started.run}"
        data = last.verified(secret.secret)["data"]
        assert (data["stopped_a_run"], data["closed"]) == (False, True)
        assert [message.path for message in receiver.messages].count("/all") == 1
        assert len(await runtime.webhooks.deliveries()) == 5


async def test_a_run_that_is_halted_for_its_rest_has_used_it_up() -> None:
    """The rest is too little for another turn: that is told as 100 %, with what was spent, once."""
    async with receiving() as receiver, await opened(99, usd="0.1") as runtime:
        _, secret = await runtime.webhooks.add(f"{receiver.url}/", events=("run.budget",))
        started = await runtime.start("desk", "go")
        view = await runtime.wait(started.run, timeout_s=30)
        assert (view.outcome, view.reason, view.usd) == ("halted", "usd", "0.084")
        await receiver.until(3)
        assert lines(receiver, secret.secret) == [
            ("run.budget", 50, "0.054"), ("run.budget", 80, "0.084"), ("run.budget", 100, "0.084"),
        ]  # fmt: skip
        said = [message.verified(secret.secret)["data"]["stopped_a_run"] for message in receiver.messages]
        assert said == [False, False, True]


async def test_a_run_s_own_callback_may_be_told() -> None:
    """A callback chooses it as well; of another run it hears nothing, nor of a budget."""
    async with receiving() as receiver, await opened(3, usd="0.03") as runtime:
        mine = await runtime.start("desk", "go", webhook=Callback(f"{receiver.url}/", events=("run.budget",)))
        await runtime.wait((await runtime.start("desk", "go")).run, timeout_s=30)
        await runtime.wait(mine.run, timeout_s=30)
        (message,) = await receiver.until(1)
        secret = (await runtime.webhooks.secret()).secret
        assert message.verified(secret)["data"]["run"] == mine.run
        assert [row.type for row in await runtime.webhooks.deliveries()] == ["run.budget"]


async def test_the_operator_is_told_of_the_budget_of_all() -> None:
    """Of all that tenants spend together, whatever tenant it is; tenants' endpoints hear nothing of it, and he nothing of theirs."""
    async with receiving() as receiver, await opened(1) as runtime:
        endpoint, secret = await runtime.webhooks.add(f"{receiver.url}/", tenant="")
        await runtime.webhooks.add(f"{receiver.url}/tenant")
        await runtime.set_budget("all", "0.03")
        await runtime.set_budget("tenant", "0.024")
        for tenant in ("default", "acme", "default"):
            await runtime.wait((await runtime.start("desk", "go", tenant=tenant)).run, timeout_s=30, tenant=tenant)
        assert await runtime.look_at_budgets() == 2
        await receiver.until(4)  # two runs' ends and the tenant's budget; and that of all
        (message,) = [message for message in receiver.messages if message.path == "/"]
        data = message.verified(secret.secret)["data"]
        assert (data["budget"], data["percent"], data["settled_usd"]) == ("all", 50, "0.018")
        assert [row.id for row in await runtime.webhooks.ls(tenant="")] == [endpoint.id]
        assert endpoint.events == ["budget.alert"]
        assert endpoint.id not in {row.id for row in await runtime.webhooks.ls()}


async def test_what_the_operator_cannot_ask_for() -> None:
    """Runs, agents and answers are tenants'; and there is no run whose callback would be signed."""
    async with await opened(1) as runtime:
        wrong: list[tuple[dict[str, Any], str]] = [
            ({"events": ("run.finished",)}, "events"), ({"agents": ("desk",)}, "agents"), ({"include": ("answer",)}, "include"),
        ]  # fmt: skip
        for more, field in wrong:
            with pytest.raises(InputError) as error:
                await runtime.webhooks.add("http://127.0.0.1:9/x", tenant="", **more)
            assert error.value.field == field
        with pytest.raises(InputError):
            await runtime.webhooks.rotate(tenant="")
