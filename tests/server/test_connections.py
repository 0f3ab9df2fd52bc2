"""Connecting over HTTP: the link, the answer, and who may bring it."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from stanchion.credentials import Environment, UserDelegation
from tests.broker.auth_server import AuthServer, auth_server, browse
from tests.runtime.desks.test_credentials import ENVIRONMENT, by_user
from tests.server.serving import agent, served


def connects(server: AuthServer) -> Any:
    """An agent that may act for a user, and has a credential that is no user's."""
    return agent(credentials={"crm": by_user(server), "plain": Environment("CRM_TOKEN")})


async def test_an_application_connects_its_user(tmp_path: Path) -> None:
    """With keys: the application gets the link, and hands on what its user's browser brought, once, for that user."""
    async with (
        auth_server() as server,
        served(tmp_path, agents=[connects(server)], tenants=["acme"], environment=ENVIRONMENT) as api,
    ):
        link = (await api.call("GET", "/v1/connections/crm/authorize?user=ann")).json["url"]
        assert link.startswith(f"{server.url}/authorize?")
        query = urlencode(await browse(link))
        callback = f"/v1/connections/callback?{query}"
        assert (await api.call("GET", callback, key="")).status == 401  # a browser has no key
        unnamed = await api.call("GET", callback)
        assert (unnamed.status, unnamed.error["field"]) == (422, "user")
        eve = await api.call("GET", f"{callback}&user=eve")
        assert (eve.status, eve.error["field"]) == (422, "state")
        done = await api.call("GET", f"{callback}&user=ann")
        assert done.json == {"name": "crm", "user": "ann", "scopes": ["contacts.read"]}
        assert (await api.call("GET", f"{callback}&user=ann")).status == 409
        (row,) = (await api.call("GET", "/v1/connections?user=ann")).json["connections"]
        assert (row["name"], row["user"]) == ("crm", "ann")
        assert (await api.call("GET", "/v1/connections?user=bob")).json == {"connections": []}
        assert (await api.call("DELETE", "/v1/connections/crm?user=ann")).json == {"removed": "crm"}
        assert (await api.call("DELETE", "/v1/connections/crm?user=ann")).status == 404


async def test_an_answer_for_another_tenant(tmp_path: Path) -> None:
    """What one tenant's application began, another's key does not complete."""
    async with (
        auth_server() as server,
        served(tmp_path, agents=[connects(server)], tenants=["acme"], environment=ENVIRONMENT) as api,
    ):
        _, globex = await api.runtime.keys.add("globex", "test")
        query = urlencode(await browse((await api.call("GET", "/v1/connections/crm/authorize?user=ann")).json["url"]))
        said = await api.call("GET", f"/v1/connections/callback?{query}&user=ann", key=globex)
        assert (said.status, said.error["field"]) == (422, "state")
        assert server.asked == []
        assert (await api.call("GET", f"/v1/connections/callback?{query}&user=ann")).status == 200
        assert (await api.call("GET", "/v1/connections", key=globex)).json == {"connections": []}


async def test_a_browser_comes_back_to_an_open_server(tmp_path: Path) -> None:
    """Without keys the server is this machine's own: the browser itself may bring the answer."""
    async with (
        auth_server() as server,
        served(tmp_path, agents=[connects(server)], environment=ENVIRONMENT) as api,
    ):
        query = urlencode(await browse((await api.call("GET", "/v1/connections/crm/authorize?user=ann")).json["url"]))
        done = await api.call("GET", f"/v1/connections/callback?{query}")
        assert (done.status, done.json["user"]) == (200, "ann")


@pytest.mark.parametrize(
    ("path", "status", "field"),
    [
        ("/v1/connections/mail/authorize?user=ann", 404, "name"),
        ("/v1/connections/plain/authorize?user=ann", 404, "name"),
        ("/v1/connections/crm/authorize", 422, "user"),
        ("/v1/connections/crm/authorize?user=a%20b%00", 422, "user"),
        ("/v1/connections/callback", 422, "state"),
        ("/v1/connections/callback?state=x&code=y", 422, "state"),
        ("/v1/connections/callback?state=" + "x" * 5_000, 400, "state"),
    ],
)
async def test_what_cannot_be(tmp_path: Path, path: str, status: int, field: str) -> None:
    """Each wrong request names what is wrong with it."""
    async with (
        auth_server() as server,
        served(tmp_path, agents=[connects(server)], environment=ENVIRONMENT) as api,
    ):
        said = await api.call("GET", path)
        assert (said.status, said.error["field"]) == (status, field), said.raw


async def test_a_server_that_is_away_or_says_no(tmp_path: Path) -> None:
    """The other server's troubles are told as such: try again, or the person said no."""
    async with auth_server() as server:
        away = UserDelegation(
            issuer="http://127.0.0.1:1", client_id="bot", redirect_uri="https://app.example/back", scopes=("a",)
        )
        desk = agent(credentials={"crm": by_user(server), "away": away})
        async with served(tmp_path, agents=[desk], environment=ENVIRONMENT) as api:
            said = await api.call("GET", "/v1/connections/away/authorize?user=ann")
            assert (said.status, said.error["code"], said.error["retryable"]) == (503, "credential_unavailable", True)
            server.denies = True
            link = (await api.call("GET", "/v1/connections/crm/authorize?user=ann")).json["url"]
            no = await api.call("GET", f"/v1/connections/callback?{urlencode(await browse(link))}")
            assert (no.status, no.error["code"]) == (409, "credential_refused")
