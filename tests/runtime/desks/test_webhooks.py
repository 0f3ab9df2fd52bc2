"""Webhooks over real HTTP: what is told, signed with what, tried how often, and what is never told."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from stanchion import InputError, Runtime
from stanchion.core import event as ev
from stanchion.core.errors import Conflict, NotFound, Unauthorized
from stanchion.engine.clock import SystemClock
from stanchion.engine.deliver import Deliverer, WebhookSettings, retry_pause_s
from stanchion.journal.outbox import Announcement, Endpoint, Secrets
from stanchion.runtime.desks.webhooks import Callback
from stanchion.testing.memory import MemoryStore
from tests.engine.rig import HeldModel, agent, echo, once, over, running
from tests.runtime.receiver import Message, Receiver, receiving
from tests.waiting import until

LOCAL = WebhookSettings(allow_private=True, first_retry_s=0.02, longest_retry_s=0.1, poll_s=0.1)


@asynccontextmanager
async def told(path: Path, client: Any, **more: Any) -> AsyncIterator[tuple[Runtime, Receiver]]:
    """Run a runtime and a receiver."""
    settings = more.pop("webhooks", LOCAL)
    async with receiving() as receiver, running(path, client, webhooks=settings, **more) as runtime:
        yield runtime, receiver


async def settled(runtime: Runtime, id: str, standing: str = "done") -> Any:
    """Wait until a delivery stands so."""
    return await until(lambda: runtime.webhooks.delivery(id), lambda row: row.standing == standing)


async def test_the_end_of_a_run_is_told(tmp_path: Path) -> None:
    """One message, signed, small, without content; its row says that it was accepted."""
    async with told(tmp_path, echo()) as (runtime, receiver):
        endpoint, secret = await runtime.webhooks.add(f"{receiver.url}/hooks", events=("run.finished",))
        started = await runtime.start("desk", "a secret matter", user="ann")
        await over(runtime, started.run)
        (message,) = await receiver.until(1)
        said = message.verified(secret.secret)
        assert (said["type"], message.path, message.headers["content-type"]) == (
            "run.finished",
            "/hooks",
            "application/json",
        )
        data = said["data"]
        view = await runtime.view(started.run)
        assert (data["run"], data["session"], data["agent"], data["outcome"]) == (
            started.run, started.session, "desk", "done",
        )  # fmt: skip
        assert (data["seq"], data["usd"]) == (view.seq, view.usd)
        assert data["links"]["run"] == f"/v1/runs/{started.run}"
        assert b"secret matter" not in message.body
        row = await settled(runtime, message.id)
        assert (row.endpoint, row.attempts, row.http_status, row.run) == (endpoint.id, 1, 204, started.run)


async def test_an_ask_is_told_and_then_the_end_in_order(tmp_path: Path) -> None:
    """Who must decide is told about which call; what follows comes after it; the answer only to who asked for it."""
    async with told(tmp_path, once("refund", order="A1", cents=5)) as (runtime, receiver):
        await runtime.webhooks.add(receiver.url, include=("answer",))
        started = await runtime.start("desk", "Refund it.")
        (asked,) = await receiver.until(1)
        body = json.loads(asked.body)
        assert (body["type"], body["data"]["tool"]) == ("run.asked", "refund")
        await runtime.decide(started.run, body["data"]["call"], "approve", revision=body["data"]["revision"])
        await over(runtime, started.run)
        _, finished = await receiver.until(2)
        body = json.loads(finished.body)
        assert (body["type"], body["data"]["answer"]) == ("run.finished", "refunded 5")


async def test_an_erased_answer_is_not_told(tmp_path: Path) -> None:
    """Content is read when it is posted: what was erased meanwhile does not come out of the outbox."""
    async with told(tmp_path, echo()) as (runtime, receiver):
        down = asyncio.Event()
        receiver.answer = lambda _: web.Response(status=200 if down.is_set() else 503)
        await runtime.webhooks.add(receiver.url, include=("answer",))
        started = await runtime.start("desk", "burn this", user="ann")
        await over(runtime, started.run)
        (first, *_) = await receiver.until(1)
        assert b"burn this" in first.body
        await runtime.erase("ann")
        receiver.messages.clear()
        down.set()
        (later, *_) = await receiver.until(1)
        assert b"burn this" not in later.body
        assert later.id == first.id


async def test_only_what_an_endpoint_wants(tmp_path: Path) -> None:
    """By event and by agent; another tenant's endpoints hear nothing."""
    agents = [agent(), agent(name="other")]
    async with receiving() as receiver, running(tmp_path, echo(), *agents, webhooks=LOCAL) as runtime:
        await runtime.webhooks.add(f"{receiver.url}/asks", events=("run.asked",))
        await runtime.webhooks.add(f"{receiver.url}/desk", agents=("desk",))
        await runtime.webhooks.add(f"{receiver.url}/theirs", tenant="theirs")
        for name in ("other", "desk"):
            await over(runtime, (await runtime.start(name, "hi")).run)
        (message,) = await receiver.until(1)
        assert message.path == "/desk"
        assert len(await runtime.webhooks.deliveries()) == 1
        assert not await runtime.webhooks.deliveries(tenant="theirs")


async def test_a_callback_of_one_run(tmp_path: Path) -> None:
    """It hears of its run only, signed with the tenant's secret; another run's end is not told."""
    async with told(tmp_path, echo()) as (runtime, receiver):
        callback = Callback(f"{receiver.url}/me")
        started = await runtime.start("desk", "hi", webhook=callback, idempotency_key="k")
        again = await runtime.start("desk", "hi", webhook=callback, idempotency_key="k")
        assert (again.run, again.existing) == (started.run, True)
        await over(runtime, started.run)
        await over(runtime, (await runtime.start("desk", "hi")).run)
        (message,) = await receiver.until(1)
        assert message.verified((await runtime.webhooks.secret()).secret)["data"]["run"] == started.run
        assert len(await runtime.webhooks.deliveries()) == 1
        assert not await runtime.webhooks.ls()


async def test_a_run_that_ends_at_its_start_is_told(tmp_path: Path) -> None:
    """A budget that is spent ends or refuses a run at once: what is journaled is told, in the transaction of the start."""
    async with told(tmp_path, echo()) as (runtime, receiver):
        await runtime.webhooks.add(receiver.url)
        started = await runtime.start("desk", "hi", session="s")
        await over(runtime, started.run)
        queued = [await runtime.start("desk", "again", session="s", if_busy="queue") for _ in range(3)]
        for run in queued:
            await over(runtime, run.run)
        messages = await receiver.until(4)
        assert [json.loads(m.body)["data"]["run"] for m in messages] == [started.run, *(run.run for run in queued)]


async def test_a_receiver_that_was_down(tmp_path: Path) -> None:
    """Refused connections and 5xx are tried again, under the same id, until it is there."""
    async with told(tmp_path, echo()) as (runtime, receiver):
        answers = iter([500, 302, 429, 204])
        receiver.answer = lambda _: web.Response(status=next(answers), headers={"location": f"{receiver.url}/x"})
        await runtime.webhooks.add(receiver.url)
        await over(runtime, (await runtime.start("desk", "hi")).run)
        messages = await receiver.until(4)
        assert len({message.id for message in messages}) == 1
        assert {message.path for message in messages} == {"/"}
        row = await settled(runtime, messages[0].id)
        assert (row.attempts, row.note) == (4, "")
    async with receiving() as gone:
        port = int(gone.url.rsplit(":", 1)[1])
    async with running(tmp_path, echo(), webhooks=LOCAL) as runtime:
        endpoint, _ = await runtime.webhooks.add(f"http://127.0.0.1:{port}/")
        await over(runtime, (await runtime.start("desk", "hi")).run)
        tried = partial(runtime.webhooks.deliveries, endpoint=endpoint.id)
        rows = await until(tried, lambda rows: rows and rows[0].attempts >= 2)
        assert "no connection" in rows[0].note
        async with receiving(port) as back:
            await back.until(1)
            await settled(runtime, rows[0].id)


async def test_given_up_and_posted_again(tmp_path: Path) -> None:
    """After so many attempts it is given up with the reason; posted again it keeps its id."""
    few = WebhookSettings(allow_private=True, attempts=3, first_retry_s=0.01, poll_s=0.1)
    async with told(tmp_path, echo(), webhooks=few) as (runtime, receiver):
        receiver.answer = lambda _: web.Response(status=404)
        endpoint, _ = await runtime.webhooks.add(receiver.url)
        await over(runtime, (await runtime.start("desk", "hi")).run)
        messages = await receiver.until(3)
        row = await settled(runtime, messages[0].id, "dead")
        assert (row.attempts, row.http_status) == (3, 404)
        assert row.note == "given up after 3 attempts; the last: answered: HTTP 404"
        receiver.answer = lambda _: web.Response(status=200)
        assert await runtime.webhooks.redeliver(endpoint.id) == 1
        row = await settled(runtime, messages[0].id)
        assert len({message.id for message in receiver.messages}) == 1
        assert await runtime.webhooks.redeliver(row.id) == 1
        await receiver.until(5)


async def test_a_receiver_that_is_gone_for_good(tmp_path: Path) -> None:
    """410 disables the endpoint: nothing more is made for it until somebody enables it."""
    async with told(tmp_path, echo()) as (runtime, receiver):
        receiver.answer = lambda _: web.Response(status=410)
        endpoint, _ = await runtime.webhooks.add(receiver.url)
        await over(runtime, (await runtime.start("desk", "hi")).run)
        (message,) = await receiver.until(1)
        await settled(runtime, message.id, "dead")
        shown = await runtime.webhooks.show(endpoint.id)
        assert not shown.enabled
        assert "410" in shown.note
        await over(runtime, (await runtime.start("desk", "hi")).run)
        assert len(await runtime.webhooks.deliveries()) == 1
        for call in (runtime.webhooks.test(endpoint.id), runtime.webhooks.redeliver(message.id)):
            with pytest.raises(Conflict, match="enable it first"):
                await call
        receiver.answer = lambda _: web.Response(status=200)
        assert (await runtime.webhooks.enable(endpoint.id)).enabled
        trial = await runtime.webhooks.test(endpoint.id)
        await settled(runtime, trial.id)
        assert json.loads(receiver.messages[-1].body)["type"] == "webhook.test"


async def test_a_slow_receiver_holds_nobody_up(tmp_path: Path) -> None:
    """One receiver that never answers keeps its own places busy; another's messages go on, and shutting down is quick."""
    async with receiving() as slow, told(tmp_path, echo()) as (runtime, receiver):
        never = asyncio.Event()

        async def wait(_: Message) -> web.Response:
            await never.wait()
            return web.Response()

        slow.answer = wait
        await runtime.webhooks.add(slow.url)
        await runtime.webhooks.add(receiver.url)
        started = await asyncio.gather(*(runtime.start("desk", "hi") for _ in range(40)))
        messages = await receiver.until(40)
        runs = {json.loads(message.body)["data"]["run"] for message in messages}
        assert runs == {run.run for run in started}
        assert 1 <= len(slow.messages) <= LOCAL.concurrency
        never.set()


async def test_secrets_take_each_others_place(tmp_path: Path) -> None:
    """While both are in force each verifies; afterwards only the new one."""
    async with told(tmp_path, echo()) as (runtime, receiver):
        endpoint, old = await runtime.webhooks.add(receiver.url)
        new = await runtime.webhooks.rotate(endpoint.id, overlap_s=60)
        await runtime.webhooks.test(endpoint.id)
        (both,) = await receiver.until(1)
        assert both.verified(old.secret) == both.verified(new.secret)
        newest = await runtime.webhooks.rotate(endpoint.id, overlap_s=0)
        await runtime.webhooks.test(endpoint.id)
        one = (await receiver.until(2))[1]
        one.verified(newest.secret)
        for secret in (old.secret, new.secret):
            with pytest.raises(Unauthorized):
                one.verified(secret)
        before = await runtime.webhooks.secret()
        turned = await runtime.webhooks.rotate()
        assert before.secret != turned.secret == (await runtime.webhooks.secret()).secret
        assert turned.previous_until_ms > time.time() * 1000


async def test_a_private_address_is_given_up_at_once(tmp_path: Path) -> None:
    """Where the operator did not allow it, nothing is posted to this machine, and the row says why."""
    async with told(tmp_path, echo(), webhooks=WebhookSettings()) as (runtime, receiver):
        with pytest.raises(InputError, match="https://"):
            await runtime.webhooks.add(receiver.url)
        with pytest.raises(InputError, match="is no public address") as refused:
            await runtime.start("desk", "hi", webhook=Callback("https://169.254.169.254/latest"))
        assert refused.value.field == "webhook.url"
        sneaked = Endpoint(
            tenant="default", id="hook_x", url=receiver.url, lane="x", secrets=Secrets((await runtime.webhooks.secret()).secret)
        )  # fmt: skip
        await runtime.store.outbox.add(sneaked)
        trial = await runtime.webhooks.test("hook_x")
        row = await settled(runtime, trial.id, "dead")
        assert "127.0.0.1 is no public address" in row.note
        assert not receiver.messages


async def test_what_may_not_be_asked(tmp_path: Path) -> None:
    """Each refusal names the field."""
    async with running(tmp_path, echo(), webhooks=LOCAL) as runtime:
        hooks = runtime.webhooks
        for call, field in (
            (hooks.add("nowhere"), "url"),
            (hooks.add("http://x.test/", events=("run.started",)), "events"),
            (hooks.add("http://x.test/", include=("input",)), "include"),  # type: ignore[arg-type]
            (hooks.add("http://x.test/", secret="weak"), "secret"),
            (hooks.rotate(overlap_s=-1), "overlap_s"),
            (hooks.deliveries(standing="lost"), "standing"),
        ):
            with pytest.raises(InputError) as refused:
                await call
            assert refused.value.field == field
        for missing in (
            hooks.show("x"),
            hooks.test("x"),
            hooks.redeliver("msg_1"),
            hooks.redeliver("x"),
            hooks.remove("x"),
        ):
            with pytest.raises(NotFound):
                await missing


async def test_a_run_that_is_parked_is_told(tmp_path: Path) -> None:
    """A run whose agent nobody serves any more stands: who is told can act."""
    held = HeldModel()
    async with receiving() as receiver:
        async with running(tmp_path, held, webhooks=LOCAL) as runtime:
            await runtime.webhooks.add(receiver.url)
            started = await runtime.start("desk", "hi")
            await held.began.wait()
        async with running(tmp_path, echo(), agent(name="another"), webhooks=LOCAL):
            (message,) = await receiver.until(1)
        body = json.loads(message.body)
        assert (body["type"], body["data"]["run"], body["data"]["reason"]) == (
            "run.parked",
            started.run,
            "agent_missing",
        )


async def test_five_thousand_deliveries() -> None:
    """Each of 5,000 messages to three receivers comes once or more, those of a run in order, none is lost."""
    store = MemoryStore()
    async with receiving() as one, receiving() as two, receiving() as three:
        receivers = (one, two, three)
        for number, receiver in enumerate(receivers):
            endpoint = Endpoint(tenant="t", id=f"e{number}", url=receiver.url, lane=f"e{number}", secrets=_secrets())
            await store.outbox.add(endpoint)
        fails = iter(range(10**9))
        two.answer = lambda _: web.Response(status=500 if next(fails) % 50 == 0 else 200)
        for number in range(5_000):
            run, seq = f"run_{number % 1_250}", number // 1_250 + 1
            body = json.dumps({"type": "run.asked", "timestamp": "", "data": {"seq": seq}}).encode()
            said = Announcement("run.asked", seq, "desk", body)
            endpoint = store.tables.outbox.endpoints["t", f"e{number % 3}"]
            store.tables.outbox.add_delivery(endpoint, run, said, 1)
        deliverer = Deliverer(store, SystemClock(), LOCAL)
        deliverer.open()
        rows = store.tables.outbox.deliveries
        await until(lambda: not any(store.tables.outbox.pending.values()), within_s=60)
        await deliverer.aclose()
        assert {row.standing for row in rows.values()} == {"done"}
        assert {m.id for receiver in receivers for m in receiver.messages} == {row.id for row in rows.values()}
        for receiver in receivers:
            seen: dict[str, list[int]] = {}
            for message in receiver.messages:
                data = json.loads(message.body)["data"]
                seen.setdefault(data["run"], []).append(data["seq"])
            assert all(seqs == sorted(seqs) for seqs in seen.values())


def _secrets() -> Secrets:
    return Secrets("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")


def test_pauses_grow_to_about_a_day() -> None:
    """Full jitter: from nothing to a bound that doubles up to six hours; on average the attempts fill a day."""
    settings = WebhookSettings()
    half: Callable[[int], float] = lambda attempt: retry_pause_s(settings, attempt, 0.5)  # noqa: E731
    assert [retry_pause_s(settings, attempt, 1.0) for attempt in (1, 2, 3)] == [5.0, 10.0, 20.0]
    assert retry_pause_s(settings, 10_000, 1.0) == settings.longest_retry_s
    assert retry_pause_s(settings, 9, 0.0) == 0.0
    assert 20 * 3_600 < sum(half(attempt) for attempt in range(1, settings.attempts)) < 28 * 3_600


async def test_what_a_worker_left_is_posted_when_its_lease_ends(tmp_path: Path) -> None:
    """A delivery that was claimed and never settled is posted by another, not before its lease has ended."""
    async with receiving() as receiver:
        async with running(tmp_path, echo(), drive=False, webhooks=LOCAL) as dead:
            endpoint, secret = await dead.webhooks.add(receiver.url)
            trial = await dead.webhooks.test(endpoint.id)
            (claimed,) = await dead.store.outbox.claim(f"default/{endpoint.id}", lease_ms=500, limit=10)
            until_ms = claimed.delivery.next_ms
        async with running(tmp_path, echo(), webhooks=LOCAL) as runtime:
            (message,) = await receiver.until(1)
            assert int(time.time() * 1000) >= until_ms
            assert message.id == trial.id
            message.verified(secret.secret)
            assert (await settled(runtime, trial.id)).attempts == 2


async def test_a_callback_of_a_run_that_waits_for_its_session(tmp_path: Path) -> None:
    """It is kept with the run that is queued, and told when that one ends."""
    held = HeldModel()
    async with told(tmp_path, held) as (runtime, receiver):
        first = await runtime.start("desk", "hi", session="s")
        await held.began.wait()
        callback = Callback(receiver.url, ("run.finished", "run.asked"))
        second = await runtime.start("desk", "then", session="s", if_busy="queue", webhook=callback)
        assert not receiver.messages
        held.gate.set()
        for started in (first, second):
            await over(runtime, started.run)
        (message,) = await receiver.until(1)
        assert json.loads(message.body)["data"]["run"] == second.run


async def test_a_tenant_sees_nothing_of_another(tmp_path: Path) -> None:
    """Endpoints, deliveries and secrets are each tenant's own."""
    async with told(tmp_path, echo()) as (runtime, receiver):
        endpoint, _ = await runtime.webhooks.add(receiver.url, tenant="one")
        trial = await runtime.webhooks.test(endpoint.id, tenant="one")
        assert not await runtime.webhooks.deliveries(tenant="two")
        secrets = {(await runtime.webhooks.secret(tenant=tenant)).secret for tenant in ("one", "two")}
        assert len(secrets) == 2
        for call in (
            runtime.webhooks.show(endpoint.id, tenant="two"),
            runtime.webhooks.rotate(endpoint.id, tenant="two"),
            runtime.webhooks.remove(endpoint.id, tenant="two"),
            runtime.webhooks.delivery(trial.id, tenant="two"),
            runtime.webhooks.redeliver(trial.id, tenant="two"),
        ):
            with pytest.raises(NotFound):
                await call


async def test_what_is_told_is_what_is_journaled(tmp_path: Path) -> None:
    """Over ends, cancels, asks, a drain and a restart: a delivery for each event of the journals that is told, and no other."""
    model = once("refund", order="A1", cents=5)
    kinds = {ev.RunFinished: "run.finished", ev.RunParked: "run.parked", ev.ToolCallJudged: "run.asked"}
    async with receiving() as receiver:
        async with running(tmp_path, model, webhooks=LOCAL) as runtime:
            await runtime.webhooks.add(receiver.url)
            runs = [(await runtime.start("desk", f"Refund {number}.")).run for number in range(12)]
            await receiver.until(12)
            for run in runs[:3]:
                await runtime.cancel(run)
            for run in runs[3:6]:
                await runtime.decide(run, (await runtime.view(run)).waiting[0].call, "approve")
        async with running(tmp_path, model, agent(name="another"), webhooks=LOCAL) as runtime:
            for run in runs[6:8]:
                await runtime.cancel(run)
                await over(runtime, run)
        async with running(tmp_path, model, webhooks=LOCAL) as runtime:
            for run in runs[8:]:
                await runtime.decide(run, (await runtime.view(run)).waiting[0].call, "reject")
            journaled: set[tuple[str, int, str]] = set()
            for run in runs:
                await over(runtime, run)
                for entry in await runtime.store.read("default", run):
                    if type(entry.event) in kinds and getattr(entry.event, "action", "ask") == "ask":
                        journaled.add((run, entry.seq, kinds[type(entry.event)]))
            rows = await runtime.webhooks.deliveries(limit=500)
            assert len(rows) == len(journaled)
            assert {(row.run, row.seq, row.type) for row in rows} == journaled
            for row in rows:
                await settled(runtime, row.id)
