"""API keys, tenants that do not see each other, and what may come in without a key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stanchion.core.errors import ConfigError
from stanchion.server.app import create_app
from stanchion.server.serve import serve
from tests.server.serving import QUIET, HeldModel, agent, refunder, served

BODIES: dict[str, Any] = {
    "decisions": {"call": "3.0", "decision": "approve"},
    "messages": {"input": "Hi"},
    "cancel": {},
    "revive": {},
    "runs": {"agent": "support", "input": "Hi"},
    "ledger": {"usd": "1"},
    "name": {"enabled": True},
    "id": {"enabled": True},
}
NAMES = {"run": "r", "session": "s", "ledger": "tenant", "name": "n", "id": "hook_x", "delivery": "msg_x"}
MAKES = {("PUT", "/v1/budgets/{ledger}"), ("PUT", "/v1/schedules/{name}")}
"""What makes a thing of the tenant's own, whatever another has of that name."""


def routes() -> list[tuple[str, str]]:
    """List every route of the API, as its own document names them."""
    app = create_app(None)  # type: ignore[arg-type] the document needs no runtime
    paths = app.openapi()["paths"]
    found = [(method.upper(), path) for path, methods in paths.items() for method in methods if path.startswith("/v1/")]
    assert len(found) >= 15
    return found


def body_of(path: str) -> Any:
    return BODIES.get(path.rpartition("/")[2].strip("{}"))


@pytest.mark.parametrize("key", ["", "sk-st-wrong", "Basic"])
async def test_no_route_answers_without_a_valid_key(tmp_path: Path, key: str) -> None:
    """Every route of /v1, with no key, a wrong key, or another scheme: 401, which names the scheme."""
    async with served(tmp_path, tenants=["acme"]) as server:
        headers = {"authorization": "Basic YTpi"} if key == "Basic" else {}
        for method, path in routes():
            body = body_of(path) if method != "GET" else None
            said = await server.call(
                method, path.format(**NAMES), body,
                key="" if key == "Basic" else key, headers=headers,
            )  # fmt: skip
            assert (said.status, said.error["code"]) == (401, "unauthorized"), (method, path)
            assert said.headers["www-authenticate"] == "Bearer"
        assert (await server.call("GET", "/health", key="")).status == 200
        assert (await server.call("GET", "/ready", key="")).status == 200
        assert (await server.call("GET", "/openapi.json", key="")).status == 200


async def test_another_tenant_finds_nothing_on_any_route(tmp_path: Path) -> None:
    """With another tenant's key a run, a session and a budget are not there: 404 everywhere, and empty lists."""
    async with served(tmp_path, refunder(), tenants=["acme", "other"]) as server:
        _, other = await server.runtime.keys.add("other", "second")
        said = await server.call(
            "POST", "/v1/runs", {"agent": "support", "input": "Refund", "session": "s1", "user": "ann", "mode": "wait"}
        )
        run, call = said.json["run"], said.json["waiting"][0]["call"]
        assert (await server.call("PUT", "/v1/budgets/user:ann", {"usd": "5"})).status == 200
        schedule = {"cron": "@daily", "agent": "support", "input": "Hi"}
        assert (await server.call("PUT", "/v1/schedules/daily", schedule)).status == 200
        hook = (await server.call("POST", "/v1/webhooks", {"url": "https://hooks.example/x"})).json["id"]
        delivery = (await server.call("POST", f"/v1/webhooks/{hook}/test")).json["id"]
        names = {"run": run, "session": "s1", "ledger": "user:ann", "name": "daily", "id": hook, "delivery": delivery}
        checked = 0
        for method, path in routes():
            if "{" not in path or (method, path) in MAKES:
                continue
            if path.startswith("/v1/quotas/"):  # the operator's: no tenant sees or sets them
                found = await server.call(method, path.format(**names), {"rpm": 1}, key=other)
                assert found.error["code"] == "forbidden", (method, path, found.raw)
                continue
            body = body_of(path)
            if path.endswith("decisions"):
                body = body | {"call": call}
            found = await server.call(method, path.format(**names), body if method != "GET" else None, key=other)
            assert (found.status, found.error["code"]) == (404, "not_found"), (method, path, found.raw)
            assert "acme" not in found.raw.decode()
            checked += 1
        assert checked >= 9
        for name in ("runs", "sessions", "budgets", "schedules", "webhooks"):
            assert (await server.call("GET", f"/v1/{name}", key=other)).json[name] == []
        assert (await server.call("GET", "/v1/webhooks/deliveries", key=other)).json["deliveries"] == []
        assert (await server.call("GET", f"/v1/runs?session=s1&before={run}", key=other)).json["runs"] == []
        assert (await server.call("GET", f"/v1/runs/{run}")).json["status"] == "waiting"


async def test_what_two_tenants_call_the_same_is_two_things(tmp_path: Path) -> None:
    """A session, an idempotency key and a budget of one name in two tenants."""
    model = HeldModel()
    async with served(tmp_path, model, tenants=["acme"]) as server:
        _, other = await server.runtime.keys.add("other", "k")
        body, headers = {"agent": "support", "input": "Hi", "session": "s1"}, {"idempotency-key": "k1"}
        ours = await server.call("POST", "/v1/runs", body, headers=headers)
        theirs = await server.call("POST", "/v1/runs", body | {"input": "Ho"}, headers=headers, key=other)
        assert (ours.status, theirs.status) == (202, 202)
        assert ours.json["run"] != theirs.json["run"]
        await server.runtime.set_budget("tenant", "5", tenant="acme")
        await server.runtime.set_budget("tenant", "7", tenant="other")
        (budget,) = (await server.call("GET", "/v1/budgets/tenant")).json["budgets"]
        assert budget["limit_usd"] == "5.00"
        model.go_on.set()


async def test_the_budget_of_all_is_not_a_tenants(tmp_path: Path) -> None:
    """With keys, a tenant neither sets nor sees what all tenants together may spend."""
    async with served(tmp_path, tenants=["acme"]) as server:
        await server.runtime.set_budget("all", "100", tenant="acme")
        said = await server.call("PUT", "/v1/budgets/all", {"usd": "1"})
        assert (said.status, said.error["code"]) == (403, "forbidden")
        assert (await server.call("GET", "/v1/budgets")).json["budgets"] == []
        assert (await server.call("GET", "/v1/budgets/all")).status == 404


@pytest.mark.parametrize("ledger", ["tenant", "tenant/day", "tenant/month"])
async def test_a_tenant_does_not_lift_its_own_budget(tmp_path: Path, ledger: str) -> None:
    """What the operator allows a tenant is not the tenant's to change; it sees it, and rations its users by itself."""
    async with served(tmp_path, tenants=["acme"]) as server:
        await server.runtime.set_budget(ledger, "5", tenant="acme")
        for usd in (None, "7"):
            said = await server.call("PUT", f"/v1/budgets/{ledger}", {"usd": usd})
            assert (said.status, said.error["code"]) == (403, "forbidden")
        (budget,) = (await server.call("GET", f"/v1/budgets/{ledger}")).json["budgets"]
        assert budget["limit_usd"] == "5.00"
        assert (await server.call("PUT", "/v1/budgets/user:ann", {"usd": "1"})).status == 200


async def test_a_revoked_key_opens_nothing_and_the_door_stays_locked(tmp_path: Path) -> None:
    """After the last key was revoked it is not as if there had never been one."""
    async with served(tmp_path, tenants=["acme"]) as server:
        assert (await server.call("GET", "/v1/runs")).status == 200
        (key,) = await server.runtime.keys.list()
        await server.runtime.keys.revoke(key.id)
        assert (await server.call("GET", "/v1/runs")).status == 401
        assert (await server.call("GET", "/v1/runs", key="")).status == 401


async def test_the_first_key_locks_an_open_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that is made while the server runs counts from then on."""
    monkeypatch.setattr("stanchion.server.auth._LOOK_AGAIN_S", 0.0)
    async with served(tmp_path) as server:
        assert (await server.call("GET", "/v1/runs")).status == 200
        _, key = await server.runtime.keys.add("default", "first")
        assert (await server.call("GET", "/v1/runs")).status == 401
        assert (await server.call("GET", "/v1/runs", key=key)).status == 200


async def test_a_wrong_key_is_refused_even_where_none_is_needed(tmp_path: Path) -> None:
    """A client that believes in its key is told."""
    async with served(tmp_path) as server:
        assert (await server.call("GET", "/v1/runs", key="sk-st-old")).status == 401


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com"])
async def test_without_a_key_it_does_not_listen_to_others(tmp_path: Path, host: str) -> None:
    """`ConfigError` before a port is bound, which says what to do."""
    from stanchion.runtime import Runtime

    async with await Runtime.open(data=tmp_path / "t.db") as runtime:
        with pytest.raises(ConfigError, match="stanchion keys add"):
            await serve(runtime, host=host, settings=QUIET)


async def test_with_a_key_it_listens_to_others_by_any_name(tmp_path: Path) -> None:
    """Behind a proxy or in a container the Host is not ours to judge: the key is."""
    import msgspec

    settings = msgspec.structs.replace(QUIET, host="0.0.0.0")
    async with served(tmp_path, settings=settings, tenants=["acme"]) as server:
        url = server.url.replace("0.0.0.0", "127.0.0.1")
        server.url = url
        said = await server.call("GET", "/v1/runs", headers={"host": "agents.example.com"})
        assert said.status == 200
        posted = await server.call(
            "POST", "/v1/runs", BODIES["runs"], headers={"origin": "https://console.example.com"}
        )
        assert posted.status == 202


@pytest.mark.parametrize("host", ["evil.example.com", "localhost.evil.com", "127.0.0.1.nip.io", "10.0.0.5:80", "[", ""])
async def test_rebinding_is_refused(tmp_path: Path, host: str) -> None:
    """A name that somebody made point to 127.0.0.1 does not reach the API, to read or to write."""
    async with served(tmp_path) as server:
        for method, path, body in (("GET", "/v1/runs", None), ("POST", "/v1/runs", BODIES["runs"])):
            said = await server.call(method, path, body, headers={"host": host})
            assert (said.status, said.error["code"]) == (403, "forbidden")
        assert (await server.call("GET", "/v1/runs")).json["runs"] == []


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8420", "127.0.0.1:1", "[::1]:8420"])
async def test_this_machine_may_be_called_by_its_names(tmp_path: Path, host: str) -> None:
    """The port is not compared: a tunnel may have another."""
    async with served(tmp_path) as server:
        assert (await server.call("GET", "/v1/runs", headers={"host": host})).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example.com"},
        {"origin": "null"},
        {"origin": "http://localhost:1"},
        {"origin": ""},
        {"sec-fetch-site": "cross-site"},
    ],
)
async def test_another_sites_page_starts_nothing(tmp_path: Path, headers: dict[str, str]) -> None:
    """A browser sends a simple POST to us from anywhere; it is refused by its origin."""
    async with served(tmp_path) as server:
        said = await server.call("POST", "/v1/runs", BODIES["runs"], headers=headers)
        assert (said.status, said.error["code"]) == (403, "forbidden")
        own = {"origin": server.url, "host": server.url.removeprefix("http://")}
        assert (await server.call("POST", "/v1/runs", BODIES["runs"], headers=own)).status == 202


async def test_a_key_is_found_in_no_log_and_no_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Neither a right nor a wrong one."""
    import logging

    import msgspec

    caplog.set_level(logging.DEBUG)
    settings = msgspec.structs.replace(QUIET, access_log=True)
    async with served(tmp_path, agents=[agent()], settings=settings, tenants=["acme"]) as server:
        right = await server.call("GET", "/v1/runs?user=secret-user")
        wrong = await server.call("GET", "/v1/runs", key="sk-st-wrong-one")
        logged = [(r.getMessage(), getattr(r, "status", "")) for r in caplog.records if r.name == "stanchion.access"]
        assert [status for _, status in logged] == [200, 401]
        everything = right.raw.decode() + wrong.raw.decode() + "".join(str(vars(r)) for r in caplog.records)
        for secret in (server.key, "sk-st-wrong-one", "secret-user"):
            assert secret not in everything
