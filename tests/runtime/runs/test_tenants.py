"""Tenants in one process and one store: what has the same name in both, down to a run's id, is two things."""

from __future__ import annotations

import asyncio
import itertools
import logging
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from stanchion import Agent, Limits, Model, Runtime, price_usd, tool
from stanchion.core import event as ev
from stanchion.core.errors import InputError, ModelError
from stanchion.core.message import ModelRequest, ToolResult, text_of
from stanchion.core.money import NANO_PER_USD
from stanchion.engine.live import LiveDelta
from stanchion.testing import ScriptedModel, call
from tests.engine.rig import HeldModel, agent, echo, events, heard, over, results, running, until_event

DEAR = Model("openai:test-model", price=price_usd(input="1000", output="1000"))


# --- names ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def same_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the n-th run of each tenant the same id as the n-th of the other: two starts at a time, one in each."""
    numbers: dict[str, itertools.count[int]] = {}

    def name(prefix: str) -> str:
        count = numbers.setdefault(prefix, itertools.count())
        return f"{prefix}same{next(count) // 2}"

    monkeypatch.setattr("stanchion.runtime.runs.accepting.new_id", name)


@pytest.mark.usefixtures("same_ids")
async def test_two_tenants_whose_runs_have_one_id(tmp_path: Path) -> None:
    """Conversations, caches of folded runs, approvals, chains and events are each tenant's own, though all names are one."""
    model = ScriptedModel(_refund_each)
    async with running(tmp_path, model) as runtime:
        for turn in range(3):
            ids = [await _begin(runtime, tenant, turn) for tenant in ("acme", "globex")]
            assert len(set(ids)) == 1
            await _approve(runtime, "acme", ids[0])
            assert (await runtime.view(ids[0], tenant="globex")).status == "waiting"
            await _approve(runtime, "globex", ids[0])
        for tenant, stranger in (("acme", "globex"), ("globex", "acme")):
            text = " ".join(text_of(message.parts) for message in await runtime.messages("s1", tenant=tenant))
            assert [f"{tenant} {turn}" in text for turn in range(3)] == [True] * 3
            assert stranger not in text
            assert [found.error async for found in runtime.verify(tenant=tenant)] == [""] * 3
    for request in model.requests:
        whole = model.encode(request)
        assert (b"acme" in whole) != (b"globex" in whole)


async def _begin(runtime: Runtime, tenant: str, turn: int) -> str:
    """Start a turn of the tenant's session "s1", until its refund waits for a person."""
    started = await runtime.start("desk", f"{tenant} {turn}", session="s1", user="ann", tenant=tenant)
    view = await runtime.wait(started.run, tenant=tenant, timeout_s=20)
    if view.status == "waiting":
        return started.run
    raise AssertionError(view)


async def _approve(runtime: Runtime, tenant: str, run: str) -> None:
    (waiting,) = (await runtime.view(run, tenant=tenant)).waiting
    await runtime.decide(run, waiting.call, "approve", tenant=tenant)
    assert (await over(runtime, run, tenant=tenant)).outcome == "done"


def _refund_each(request: ModelRequest) -> Any:
    is_done = any(isinstance(part, ToolResult) for part in request.messages[-1].parts)
    return f"I did what {heard(request)} wanted" if is_done else call("refund", order="A", cents=5)


class _Speakers:
    """A model client that holds one call per tenant, whose name is the input."""

    def __init__(self) -> None:
        self.held: dict[str, HeldModel] = {name: HeldModel(name, " ends") for name in ("acme", "globex")}

    def encode(self, request: Any) -> bytes:
        return HeldModel().encode(request)

    async def call(self, request: Any, **more: Any) -> Any:
        return await self.held[heard(request)].call(request, **more)

    async def aclose(self) -> None: ...


@pytest.mark.usefixtures("same_ids")
async def test_the_text_in_the_making_goes_to_its_own_tenant(tmp_path: Path) -> None:
    """Two runs of one id are driven and watched at the same time in one process: no reader hears the other's."""
    model = _Speakers()
    async with running(tmp_path, model) as runtime:
        runs = [(await runtime.start("desk", tenant, tenant=tenant)).run for tenant in model.held]
        assert len(set(runs)) == 1
        heard_by: dict[str, list[str]] = {tenant: [] for tenant in model.held}
        caught_up = {tenant: asyncio.Event() for tenant in model.held}

        async def follow(tenant: str) -> None:
            async for item in runtime.tail(runs[0], tenant=tenant):
                if isinstance(item, LiveDelta):
                    heard_by[tenant].append(item.text)
                    caught_up[tenant].set()
                else:
                    heard_by[tenant].append(text_of(getattr(item.event, "parts", ())))

        async with asyncio.timeout(20), asyncio.TaskGroup() as readers:
            for tenant in model.held:
                readers.create_task(follow(tenant))
            for event in caught_up.values():
                await event.wait()
            for one in model.held.values():
                one.gate.set()
        for tenant, stranger in (("acme", "globex"), ("globex", "acme")):
            whole = "".join(heard_by[tenant])
            assert f"{tenant} ends" in whole
            assert stranger not in whole


async def test_a_key_belongs_to_a_tenant(tmp_path: Path) -> None:
    """None is made for tenant "": under that name lies what is of all, and a listing of "" is one of everybody."""
    async with running(tmp_path, echo()) as runtime:
        for tenant in ("", "a/b", "a b", "\n"):
            with pytest.raises(InputError) as refused:
                await runtime.keys.add(tenant, "k")
            assert refused.value.field == "tenant"
        assert await runtime.keys.list() == []


async def test_a_key_that_is_revoked_while_it_is_looked_up_is_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lookup that read the keys before the revocation does not keep them for the next request."""
    async with running(tmp_path, echo()) as runtime:
        key, secret = await runtime.keys.add("acme", "k")
        read, go_on = asyncio.Event(), asyncio.Event()
        list_keys = runtime.store.api_keys

        async def slow() -> Any:
            rows = await list_keys()
            read.set()
            await go_on.wait()
            return rows

        with monkeypatch.context() as patch:
            patch.setattr(runtime.store, "api_keys", slow)
            lookup = asyncio.create_task(runtime.keys.tenant_of(secret))
            await read.wait()
            assert await runtime.keys.revoke(key.id)
            go_on.set()
            await lookup
        assert await runtime.keys.tenant_of(secret) is None


# --- money ----------------------------------------------------------------------------------------------------------------


async def test_what_all_have_left_is_told_to_no_tenant(tmp_path: Path) -> None:
    """A run that the budget of all refuses says so without the rest, which tells what others spent; its own it may see."""
    model = HeldModel()
    mine = agent(model=DEAR, limits=Limits(budget_wait_s=0.2))
    async with running(tmp_path, model, mine) as runtime:
        for ledger in ("all", "tenant"):
            await runtime.set_budget(ledger, "100", tenant="globex")
        firsts = [(await runtime.start("desk", "One.", tenant=tenant)).run for tenant in ("acme", "globex")]
        reserved = (await until_event(runtime, firsts[1], ev.ModelCallStarted, tenant="globex")).reserved
        for ledger, held, tells in (("all", 2, False), ("tenant", 1, True)):
            await runtime.set_budget(ledger, f"{reserved * (held + 0.5) / NANO_PER_USD:.6f}", tenant="globex")
            run = (await runtime.start("desk", "Two.", tenant="globex")).run
            refused = await until_event(runtime, run, ev.BudgetRefused, tenant="globex")
            assert (refused.ledger, refused.hard, refused.left > 0) == (ledger, False, tells)
            await over(runtime, run, tenant="globex")
            await runtime.set_budget(ledger, "100", tenant="globex")
        model.gate.set()


# --- what goes out together, and what is said of it ---------------------------------------------------------------------------


async def test_a_refused_batch_quotes_no_tenants_call_to_another(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Calls of all tenants go into one batch; the provider's refusal may quote any of them, so no run is told its words."""

    async def refuse(request: web.Request) -> web.Response:
        quoted = next(line for line in (await request.text()).split('"') if "acme" in line)
        return web.json_response({"error": {"type": "invalid_request_error", "message": quoted}}, status=400)

    async def speak(_: web.Request) -> web.Response:
        return web.json_response({"error": {"type": "invalid_request_error", "message": "no"}}, status=400)

    app = web.Application()
    app.router.add_post("/v1/messages/batches", refuse)
    app.router.add_post("/{rest:.*}", speak)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    environment = {"ANTHROPIC_BASE_URL": f"http://127.0.0.1:{runner.addresses[0][1]}", "ANTHROPIC_API_KEY": "k"}
    one = Agent(name="desk", model=Model("anthropic:claude-test", price=price_usd(input="1", output="1")))
    try:
        async with await Runtime.open(
            one, data=tmp_path / "t.db", environment=environment, batch_gather_s=0.3
        ) as runtime:
            runs = {
                tenant: (await runtime.start("desk", f"the secret of {tenant}", tenant=tenant, batch_api=True)).run
                for tenant in ("acme", "globex")
            }
            failed = await until_event(runtime, runs["globex"], ev.ModelCallFailed, tenant="globex")
            assert "HTTP 400" in text_of(failed.parts)
            await over(runtime, runs["globex"], tenant="globex")
            assert "acme" not in str(await events(runtime, runs["globex"], tenant="globex"))
            await over(runtime, runs["acme"], tenant="acme")
    finally:
        await runner.cleanup()
    assert "the secret of" not in " ".join(str(vars(record)) for record in caplog.records)


class Broken(BaseException):
    """What no code of ours expects of a tool."""


async def test_the_log_names_the_tenant_of_a_run_and_no_content(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A line about a run says whose it is; nothing that was said, called, answered or raised in it stands in any line."""
    caplog.set_level(logging.DEBUG)

    @tool(effect="read")
    async def falls(secret: str) -> str:
        """Fail with what was given."""
        raise Broken(secret)

    @tool(effect="read")
    def raises(secret: str) -> str:
        """Fail with what was given, in a thread."""
        raise ValueError(secret)

    def answer(request: Any) -> Any:
        if not results(request):
            return [call("falls", secret="quince"), call("raises", secret="quince")]
        raise ModelError(f"quince: {heard(request)}", code="bad_request", retryable=False, status=400)

    mine = agent(tools=[falls, raises], approvals=[])
    async with running(tmp_path, ScriptedModel(answer), mine) as runtime:
        run = (await runtime.start("desk", "quince", tenant="acme", session="s1", user="ann")).run
        view = await over(runtime, run, tenant="acme")
        assert view.outcome == "failed"
        assert "quince" in str(await events(runtime, run, tenant="acme"))
    about = [record for record in caplog.records if run in record.getMessage()]
    assert about
    assert {vars(record).get("tenant") for record in about} == {"acme"}
    assert "quince" not in " ".join(f"{vars(record)} {record.exc_text}" for record in caplog.records)
