"""Budgets that cross a line, and spending far above what is usual: told by webhook, once, whoever looks and whoever dies."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from stanchion import Agent, InputError, Runtime
from stanchion.core.errors import Conflict
from stanchion.core.message import Usage
from stanchion.core.money import format_usd, parse_usd
from stanchion.core.usual import LEAST, usual
from stanchion.engine.deliver import WebhookSettings
from stanchion.journal.sqlite import SqliteStore
from stanchion.journal.store import RunRow, Store
from stanchion.runtime.desks.webhooks import Callback
from stanchion.runtime.money import watching
from stanchion.runtime.money.watching import Watcher
from stanchion.testing import ScriptedModel
from stanchion.testing.clock import FakeClock
from stanchion.testing.memory import MemoryStore
from tests.runtime.receiver import receiving

LOCAL = WebhookSettings(allow_private=True, first_retry_s=0.02, longest_retry_s=0.1, poll_s=0.1)
USAGE = Usage(1_000, output_tokens=200)
A_RUN = parse_usd("0.006", field="usd")
"""One call, by the price of Sonnet 4.6."""
SHORT = 256
"""Tokens that an answer may have: a run reserves little more than it costs."""


def desk(name: str = "desk") -> Agent:
    from stanchion import Model

    return Agent(name=name, model=Model("anthropic:claude-sonnet-4-6", max_output_tokens=SHORT))


async def opened(store: Store, **more: Any) -> Runtime:
    client = ScriptedModel(lambda _: "Done.", usage=USAGE)
    return await Runtime.open(desk(), store=store, clients={"*": client}, webhooks=LOCAL, **more)


async def spend(runtime: Runtime, runs: int, **more: Any) -> list[str]:
    """So many runs, each of which costs the same. What became of them."""
    ended: list[str] = []
    for _ in range(runs):
        try:
            started = await runtime.start("desk", "go", **more)
        except Conflict as error:
            ended.append(str(error))
            continue
        ended.append((await runtime.wait(started.run, timeout_s=30)).reason)
    return ended


async def test_each_line_is_told_once_and_signed() -> None:
    """At 50, 80 and 100 %, when so much was spent and not before; with who spent what, and no content."""
    store = MemoryStore()
    async with receiving() as receiver, await opened(store) as runtime:
        _, secret = await runtime.webhooks.add(receiver.url, events=("budget.alert",))
        await runtime.set_budget("user:ann/month", format_usd(10 * A_RUN))
        for runs, told in ((4, 0), (1, 1), (2, 0), (1, 1), (0, 0)):
            await spend(runtime, runs, user="ann")
            assert await runtime.look_at_budgets() == told
        messages = [message.verified(secret.secret) for message in await receiver.until(2)]
        assert [(said["type"], said["data"]["percent"]) for said in messages] == [
            ("budget.alert", 50),
            ("budget.alert", 80),
        ]
        data = messages[0]["data"]
        assert data["budget"] == "user:ann/month"
        assert data["ledger"].startswith("user:ann/month:")
        assert (data["limit_usd"], data["settled_usd"]) == (format_usd(10 * A_RUN), format_usd(5 * A_RUN))
        row = next(row for row in await runtime.budgets() if row.ledger == data["ledger"])
        assert (await runtime.told())(row) == [50, 80]
        other = await runtime.told(tenant="acme")
        assert other(row) == []


async def test_a_run_that_is_stopped_says_that_a_budget_is_used_up() -> None:
    """The rest is too little for another call: that is the line of 100 %, though a little is left. It wakes who looks."""
    store = MemoryStore()
    async with receiving() as receiver, await opened(store) as runtime:
        await runtime.webhooks.add(receiver.url, events=("budget.alert",))
        await runtime.set_budget("user:ann", format_usd(7 * A_RUN))
        reasons = await spend(runtime, 7, user="ann")
        assert "the budget 'user:ann' is spent" in reasons
        told: dict[int, Any] = {}
        while 100 not in told:  # nobody asked for a look
            messages = await receiver.until(len(told) + 1)
            told = {said["percent"]: said for said in (json.loads(message.body)["data"] for message in messages)}
        assert told[100]["stopped_a_run"] is True
        assert parse_usd(told[100]["settled_usd"], field="") < parse_usd(told[100]["limit_usd"], field="")


async def test_another_limit_has_lines_of_its_own() -> None:
    """Raised, the lines of the new limit are told when they are crossed; what was told of the old one stays told."""
    store = MemoryStore()
    async with await opened(store) as runtime:
        await runtime.set_budget("tenant", format_usd(4 * A_RUN))
        await spend(runtime, 2)
        assert await runtime.look_at_budgets() == 1
        await runtime.set_budget("tenant", format_usd(6 * A_RUN))
        assert await runtime.look_at_budgets() == 0
        await spend(runtime, 1)
        assert await runtime.look_at_budgets() == 1
        await runtime.set_budget("tenant", None)
        assert await runtime.look_at_budgets() == 0
        assert sorted((alert.line, alert.bound) for alert in await runtime.alerts()) == [
            ("50", 4 * A_RUN), ("50", 6 * A_RUN),
        ]  # fmt: skip


async def test_many_who_look_and_a_restart_tell_it_once(tmp_path: Path) -> None:
    """Eight watchers on one store at once, then others on the same file later."""
    path = tmp_path / "t.db"
    store = await SqliteStore.open(path)
    async with await opened(store) as runtime:
        await runtime.webhooks.add("http://127.0.0.1:9/x")
        await runtime.set_budget("tenant", format_usd(5 * A_RUN))
        await spend(runtime, 3)
        watchers = [Watcher(store, FakeClock()) for _ in range(8)]
        assert sum(await asyncio.gather(*(each.look() for each in watchers))) == 1
    store = await SqliteStore.open(path)
    try:
        assert await Watcher(store, FakeClock()).look() == 0
        (delivery,) = [row for row in await store.outbox.deliveries("default") if row.kind == "budget.alert"]
        assert delivery.run == ""
    finally:
        await store.aclose()


async def test_the_budget_of_all_is_noted_and_no_tenant_is_told() -> None:
    """What all tenants spend together is nobody's business among them: the log says it, and `stanchion budgets`."""
    store = MemoryStore()
    async with await opened(store) as runtime:
        await runtime.webhooks.add("http://127.0.0.1:9/x")
        await runtime.set_budget("all", format_usd(8 * A_RUN))
        await spend(runtime, 4)
        assert await runtime.look_at_budgets() == 1
        assert [row for row in await store.outbox.deliveries("default") if row.kind == "budget.alert"] == []
        (row,) = [row for row in await runtime.budgets() if row.ledger == "all"]
        assert (await runtime.told())(row) == [50]


async def test_a_run_s_own_callback_hears_of_its_run_alone() -> None:
    """Money is no run's: a callback cannot ask for it."""
    store = MemoryStore()
    async with await opened(store) as runtime:
        with pytest.raises(InputError) as error:
            await runtime.start("desk", "go", webhook=Callback("http://127.0.0.1:9/x", events=("budget.alert",)))
        assert error.value.field == "webhook.events"


# --- spikes -------------------------------------------------------------------------------------------------------------


def test_what_is_usual_is_not_moved_by_a_few() -> None:
    """Medians: one dear hour among many is neither usual nor in the way of seeing the next."""
    calm = [100, 110, 90, 105, 95, 100, 100, 10_000]
    known = usual(calm, floor=0)
    assert known is not None
    assert known.amount == 100
    assert known.bound == 200  # twice the median: the deviation is small
    wild = usual([10, 200, 50, 400, 120, 300, 80, 250], floor=0)
    assert wild is not None
    assert wild.bound > 600
    floored = usual(calm, floor=5_000)
    assert floored is not None
    assert floored.bound == 5_000
    assert usual(calm[: LEAST - 1], floor=0) is None


def rows_of(costs: Iterable[tuple[int, str, str]], agent: str = "desk") -> list[RunRow]:
    """Rows of runs: hour, dollars, run."""
    return [
        RunRow(
            tenant="t", run=run, session="s", agent=agent, bundle="b", user="", status="ended", outcome="done", epoch=1,
            seq=9, hash=b"", wake_at_ms=0, lease_until_ms=0, worker="", attempts=0, priority=0, parent="", root="",
            cost=parse_usd(usd, field=""), created_ms=hour * 3_600_000 + 5, updated_ms=0,
        )
        for hour, usd, run in costs
    ]  # fmt: skip


def subjects(rows: list[RunRow], hour: int) -> list[str]:
    return [alert.subject for alert, _, _ in watching._spikes("t", rows, hour)]  # pyright: ignore[reportPrivateUsage]


def test_an_hour_and_a_run_far_above_the_usual_are_found() -> None:
    """By agent, and of the tenant as a whole; a run for itself; what is below the floor is nothing."""
    calm = [(hour, "0.50", f"r{hour}") for hour in range(100, 110)]
    assert subjects(rows_of(calm), 110) == []
    assert subjects(rows_of([*calm, (110, "0.60", "dear")]), 110) == []
    hour = "1970-01-05T14:00:00.000Z"
    many = [(110, "0.50", f"m{number}") for number in range(9)]
    assert subjects(rows_of([*calm, *many]), 110) == [f"agent:desk {hour}", f"tenant {hour}"]
    assert subjects(rows_of([*calm, (110, "1.10", "dear")]), 110) == [
        f"agent:desk {hour}",
        f"tenant {hour}",
        "run:dear",
    ]
    assert subjects(rows_of([*calm, (110, "1.10", "dear")]), 112) == []  # long ago
    cheap = [(hour, "0.001", f"r{hour}") for hour in range(100, 110)]
    assert subjects(rows_of([*cheap, (110, "0.20", "dear")]), 110) == []


async def test_a_spike_is_told_once_to_who_listens_to_its_agent() -> None:
    """Nine calm hours and one that is not, by the store's clock."""
    clock = FakeClock()
    store = MemoryStore(clock=clock.now_ms)
    dear = Usage(100_000, output_tokens=200)
    usage = [USAGE]
    async with receiving() as receiver:
        client = ScriptedModel(lambda _: "Done.")
        client._counted = lambda *_: usage[0]  # type: ignore[method-assign]  # pyright: ignore[reportPrivateUsage]
        runtime = await Runtime.open(desk(), store=store, clients={"*": client}, webhooks=LOCAL, clock=clock)
        async with runtime:
            await runtime.webhooks.add(f"{receiver.url}/all", events=("spend.spike",))
            await runtime.webhooks.add(f"{receiver.url}/other", events=("spend.spike",), agents=("other",))
            for _ in range(9):
                await spend(runtime, 1)
                assert await runtime.look_at_budgets() == 0
                clock.advance(3_600)
            usage[0] = dear
            await spend(runtime, 4)  # $0.303 each, $1.21 in all
            assert await runtime.look_at_budgets() == 2 + 4
            assert await runtime.look_at_budgets() == 0
            messages = await receiver.until(6)
        assert {message.path for message in messages} == {"/all"}
        assert len({message.id for message in messages}) == 6
