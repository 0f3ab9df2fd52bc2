"""Client credentials against a real server: what is asked, what is kept, and what a failure says."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web

from stanchion.broker.port import Ask
from stanchion.core.errors import ConfigError
from stanchion.credentials import ClientCredentials, CredentialError, Environment
from tests.broker.auth_server import CLIENT, SECRET
from tests.broker.conftest import Bench

SCOPES = ("contacts.read", "contacts.write")
READ = Ask(name="crm", scopes=("contacts.read",), tenant="acme", operation="run_1/3.0/1")
WRITE = replace(READ, scopes=("contacts.write",))


def source(bench: Bench, **how: Any) -> ClientCredentials:
    """Make a source of the bench's server."""
    asked: dict[str, Any] = {"issuer": bench.server.url, "client_id": CLIENT, "scopes": SCOPES}
    asked["client_secret"] = Environment("CRM_SECRET")
    return ClientCredentials(**(asked | how))


async def test_a_token_for_what_is_needed(bench: Bench) -> None:
    """The token is for the scopes of the one tool, not for all that the source may give."""
    made = await source(bench).mint(READ, bench.means())
    assert bench.server.tokens[made.value].scopes == made.scopes == ("contacts.read",)
    assert made.expires_ms == bench.now.ms + 3_600_000
    assert [form["grant_type"] for form in bench.server.asked] == ["client_credentials"]
    assert "client_secret" not in bench.server.asked[0]  # it went as Basic, both halves encoded
    assert bench.minted == [("crm.client", SECRET), ("crm", made.value)]


async def test_the_secret_in_the_body_and_the_resource(bench: Bench) -> None:
    """`auth="post"`, the resources of RFC 8707, each a field of its own, and the audience."""
    asked = source(bench, auth="post", resource=("https://crm.example", "https://b.example"), audience="crm")
    await asked.mint(READ, bench.means())
    form = bench.server.asked[0]
    assert form["client_secret"] == SECRET
    assert form["resource"] == ["https://crm.example", "https://b.example"]
    assert form["audience"] == "crm"


async def test_a_token_is_kept_until_shortly_before_its_end(bench: Bench) -> None:
    """By tenant and scopes; a minute before its end there is a new one."""
    means, crm = bench.means(), source(bench)
    first = await crm.mint(READ, means)
    assert await crm.mint(replace(READ, user="ann"), means) == first
    assert await crm.mint(WRITE, means) != first
    assert await crm.mint(replace(READ, tenant="globex"), means) != first
    bench.now.pass_s(3_539)
    assert await crm.mint(READ, means) == first
    bench.now.pass_s(1)
    assert await crm.mint(READ, means) != first
    assert len(bench.server.asked) == 4


async def test_many_at_once_ask_once(bench: Bench) -> None:
    """Fifty calls that need a token at the same moment are one request; if it fails, the next one asks."""
    means, crm = bench.means(), source(bench)
    bench.server.fail_next.append(web.Response(status=503))
    made = await asyncio.gather(*(crm.mint(READ, means) for _ in range(50)), return_exceptions=True)
    assert [type(found) for found in made].count(CredentialError) == 1
    assert len({found.value for found in made if not isinstance(found, BaseException)}) == 1
    assert len(bench.server.asked) == 2


async def test_a_fresh_token_for_each_attempt(bench: Bench) -> None:
    """`fresh=True` keeps nothing; nor is a token kept that says no end."""
    means = bench.means()
    for crm in (source(bench, fresh=True), source(bench)):
        bench.server.expires_in = 3600 if crm.fresh else None
        made = [await crm.mint(READ, means) for _ in range(2)]
        assert made[0].value != made[1].value
    assert made[0].expires_ms == 0


@pytest.mark.parametrize("life", ["3600", 3600.0])
async def test_a_life_in_other_words(bench: Bench, life: Any) -> None:
    """Some servers write the seconds as text, some with a point."""
    bench.server.expires_in = life
    assert (await source(bench).mint(READ, bench.means())).expires_ms == bench.now.ms + 3_600_000


@pytest.mark.parametrize(
    ("answer", "code", "says"),
    [
        (web.Response(status=500, text=SECRET), "credential_unavailable", "HTTP 500"),
        (web.Response(status=429), "credential_unavailable", "HTTP 429"),
        (web.Response(status=302, headers={"Location": "/elsewhere"}), "credential_refused", "HTTP 302"),
        (web.json_response({"error": "unauthorized_client"}, status=400), "credential_refused", "unauthorized_client"),
        (web.json_response({"error": f"<b>{SECRET}</b>"}, status=400), "credential_refused", "HTTP 400"),
        (web.json_response({"token_type": "bearer"}), "credential_refused", "no access_token"),
        (web.json_response({"access_token": "x", "token_type": "mac"}), "credential_refused", "token_type 'mac'"),
        (web.json_response(["x"]), "credential_refused", "no access_token"),
        (web.Response(text="<html>"), "credential_refused", "no access_token"),
        (web.Response(text='{"access_token": "' + "x" * 70_000), "credential_refused", "no access_token"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_answers_that_are_none(bench: Bench, answer: web.Response, code: str, says: str) -> None:
    """Each is said in its own words, which repeat nothing of the answer but a code; what may pass may be tried again."""
    bench.server.fail_next.append(answer)
    with pytest.raises(CredentialError, match=says) as caught:
        await source(bench).mint(READ, bench.means())
    assert (caught.value.code, caught.value.retryable) == (code, code == "credential_unavailable")
    assert SECRET not in str(caught.value)


async def test_a_wrong_secret(bench: Bench) -> None:
    """The server's description, which repeats what was sent, is not said on."""
    with pytest.raises(CredentialError, match="invalid_client") as caught:
        await source(bench, client_secret=Environment("CRM_TOKEN")).mint(READ, bench.means())
    assert SECRET not in str(caught.value)


async def test_a_server_that_does_not_answer(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is given up in time; so is one that is not there."""
    monkeypatch.setattr("stanchion.broker.port.TIMEOUT_S", 0.1)
    bench.server.fail_next.append("slow")
    for crm in (source(bench), source(bench, issuer="", token_url="http://127.0.0.1:1/token")):
        with pytest.raises(CredentialError, match="did not answer") as caught:
            await crm.mint(READ, bench.means())
        assert caught.value.retryable


async def test_less_than_was_asked_for(bench: Bench) -> None:
    """A token without a scope that the tool needs is not handed to it."""
    bench.server.allowed = ()
    with pytest.raises(CredentialError, match=r"does not grant contacts\.read"):
        await source(bench).mint(READ, bench.means())


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        ({"issuer": "https://evil.example"}, "of another issuer"),
        ({"token_endpoint": None}, "has no token_endpoint"),
        ({"token_endpoint": "http://auth.example/token"}, "must begin with https://"),
        ({"token_endpoint": "https://bot:pw@auth.example/token"}, "must be a URL"),
    ],
)
async def test_metadata_that_cannot_be_right(bench: Bench, facts: dict[str, Any], says: str) -> None:
    """Metadata of another issuer is another server's (RFC 8414, 3.3), and a token goes over TLS alone."""
    bench.server.facts = facts
    with pytest.raises(CredentialError, match=says):
        await source(bench).mint(READ, bench.means())
    assert bench.server.asked == []


async def test_metadata_that_leads_to_this_machine(bench: Bench) -> None:
    """Only an issuer on this machine may name an endpoint on it."""
    means, issuer = bench.means(), "https://auth.example"
    said = {"issuer": issuer, "token_endpoint": f"{bench.server.url}/token"}
    means.facts[issuer] = bench.now.ms + 1_000, said
    with pytest.raises(CredentialError, match="must begin with https://"):
        await source(bench, issuer=issuer).mint(READ, means)
    assert bench.server.asked == []


async def test_metadata_is_asked_for_once_an_hour(bench: Bench) -> None:
    """A server that moves its endpoint is found again within the hour."""
    means, crm = bench.means(), source(bench, fresh=True)
    await crm.mint(READ, means)
    bench.server.facts = {"token_endpoint": f"{bench.server.url}/moved"}
    await crm.mint(READ, means)
    bench.now.pass_s(3_600)
    with pytest.raises(CredentialError, match="HTTP 404"):
        await crm.mint(READ, means)


async def test_no_metadata(bench: Bench) -> None:
    """Where there is none, the error says what to write instead."""
    with pytest.raises(CredentialError, match="say token_url="):
        await source(bench, issuer=f"{bench.server.url}/tenant").mint(READ, bench.means())


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"client_id": ""}, "client_id"),
        ({"client_secret": "s3cret"}, "must say where the secret is"),
        ({"auth": "digest"}, "auth must be"),
        ({"scopes": "contacts.read"}, "scopes must be a tuple of words"),
        ({"scopes": ["contacts.read"]}, "scopes must be a tuple of words"),
        ({"resource": ("",)}, "resource must be a tuple of words"),
        ({"issuer": ""}, "say issuer="),
        ({"issuer": "http://auth.example"}, "must begin with https://"),
        ({"token_url": "https://auth.example/token#x"}, "must be a URL"),
    ],
)
def test_sources_that_cannot_be_right(how: dict[str, Any], says: str) -> None:
    """They are refused where they are written, and a secret that was written there is not shown."""
    asked: dict[str, Any] = {"issuer": "https://a.example", "client_id": "bot", "client_secret": Environment("X")}
    with pytest.raises(ConfigError, match=says) as caught:
        ClientCredentials(**(asked | how))
    assert "s3cret" not in str(caught.value)
