"""Shares, places in the queue, back-pressure and workers, over HTTP."""

from __future__ import annotations

from pathlib import Path

from tests.server.serving import HeldModel, served

START = {"agent": "support", "input": "Hi"}


async def test_a_run_that_waits_says_where_and_one_too_many_is_refused(tmp_path: Path) -> None:
    """202 with `queued`, a place that moves, 429 with the bound, the place and Retry-After; nothing of it is kept."""
    model = HeldModel()
    async with served(tmp_path, model) as server:
        share = {"tenant": "default", "max_running": 1, "max_queued": 1}
        said = await server.call("PUT", "/v1/shares", share)
        assert (said.status, said.json) == (200, {"scope": "tenant", "weight": None, **share})
        first = await server.call("POST", "/v1/runs", START)
        assert (first.status, first.json["queued"]) == (202, False)
        waits = await server.call("POST", "/v1/runs", START | {"priority": "batch"})
        assert (waits.status, waits.json["queued"]) == (202, True)
        view = (await server.call("GET", waits.headers["location"])).json
        assert view["status"] == "runnable"
        queue = view["queue"]
        assert (queue["position"], queue["ahead_of_you_in_your_tenant"], queue["behind"]) == (1, 0, "")
        refused = await server.call("POST", "/v1/runs", START, headers={"idempotency-key": "k"})
        assert refused.status == 429
        error = refused.error
        assert (error["code"], error["retryable"], error["bound"]) == ("queue_full", True, "tenant.max_queued")
        assert (error["limit"], error["position"]) == (1, 1)  # interactive: before the one that waits
        assert refused.headers["retry-after"] == str(error["retry_after_s"])
        assert int(refused.headers["retry-after"]) >= 1
        assert len((await server.call("GET", "/v1/runs")).json["runs"]) == 2
        model.go_on.set()
        await server.until(waits.json["run"], "ended")
        again = await server.call("POST", "/v1/runs", START, headers={"idempotency-key": "k"})
        assert again.status == 202
        assert (await server.until(again.json["run"], "ended"))["queue"] is None


async def test_what_cannot_be_a_share_is_said_with_its_field(tmp_path: Path) -> None:
    """A wrong scope, weight or class is a 422 that names it."""
    async with served(tmp_path) as server:
        for body, field in (
            ({"scope": "users"}, "scope"),
            ({"weight": 0}, "weight"),
            ({"max_running": "5"}, "max_running"),
            ({"max_runing": 5}, "max_runing"),
        ):
            said = await server.call("PUT", "/v1/shares", body)
            assert (said.status, said.error["field"]) == (422, field)
        said = await server.call("POST", "/v1/runs", START | {"priority": "high"})
        assert (said.status, said.error["field"]) == (422, "priority")


async def test_shares_are_the_operator_s(tmp_path: Path) -> None:
    """With keys a tenant reads its own share and those of all, and sets none; of workers it sees no host."""
    async with served(tmp_path, tenants=("acme",)) as server:
        for tenant in ("acme", "other", ""):
            await server.runtime.shares.set(tenant=tenant, weight=2)
        shares = (await server.call("GET", "/v1/shares")).json["shares"]
        assert [share["tenant"] for share in shares] == ["", "acme"]
        said = await server.call("PUT", "/v1/shares", {"tenant": "acme", "weight": 100})
        assert (said.status, said.error["code"]) == (403, "forbidden")
        while not (found := (await server.call("GET", "/v1/workers")).json["workers"]):
            pass
        worker = found[0]
        assert (worker["agents"], worker["host"], worker["pid"]) == ({"support": ""}, "", 0)


async def test_workers_are_listed(tmp_path: Path) -> None:
    """Where no key is needed the whole row is shown."""
    async with served(tmp_path) as server:
        while not (found := (await server.call("GET", "/v1/workers")).json["workers"]):
            pass
        worker = found[0]
        assert worker["agents"]["support"] == server.runtime._bound["support"].digest
        assert worker["host"]
        assert worker["pid"]
        assert 0 <= worker["seen_s_ago"] < 60
