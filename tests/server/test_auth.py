"""API keys, what a tenant may not set, and what may come in without a key. What tenants see of each other: `test_tenants`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from stanchion.core.errors import ConfigError
from stanchion.server.app import create_app
from stanchion.server.serve import serve
from tests.server.serving import QUIET, agent, served

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
                method, re.sub(r"{\w+}", "x", path), body,
                key="" if key == "Basic" else key, headers=headers,
            )  # fmt: skip
            assert (said.status, said.error["code"]) == (401, "unauthorized"), (method, path)
            assert said.headers["www-authenticate"] == "Bearer"
        assert (await server.call("GET", "/health", key="")).status == 200
        assert (await server.call("GET", "/ready", key="")).status == 200
        assert (await server.call("GET", "/openapi.json", key="")).status == 200


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
