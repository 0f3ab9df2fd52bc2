"""The servers of OAuth: what they say of themselves (RFC 8414), and one request to a token endpoint (RFC 6749, 3.2).

Nothing goes over plain HTTP but to this machine, no redirect is followed, and of an error only its code is said on: descriptions
may repeat what was sent.
"""

from __future__ import annotations

import base64
import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast
from urllib.parse import quote_plus, urlsplit

import aiohttp
import msgspec

from stanchion.broker.port import Ask, Means, Source
from stanchion.core.errors import ConfigError, CredentialError

ClientAuth = Literal["basic", "post"]
FACTS_S = 3_600
_MOST_BYTES = 65_536
_CODE = re.compile(r"[\w.:-]{1,64}")


@dataclass(frozen=True, slots=True)
class Server:
    """An authorization server as it is configured: by its issuer, or by its endpoints."""

    issuer: str = ""
    token_url: str = ""
    authorize_url: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """Where its endpoints are, and what it does."""

    issuer: str
    token_url: str
    authorize_url: str = ""
    says_issuer: bool = False
    """Its answers to a browser name it (RFC 9207)."""
    has_s256: bool = True


@dataclass(frozen=True, slots=True)
class Client:
    """Who asks. Without a secret it is a public client."""

    id: str
    secret: Source | None = None
    auth: ClientAuth = "basic"


class Issued(msgspec.Struct, frozen=True):
    """What a token endpoint gave."""

    access: str
    scopes: tuple[str, ...]
    expires_ms: int = 0
    refresh: str = ""

    def __repr__(self) -> str:
        return f"Issued(scopes={self.scopes!r}, expires_ms={self.expires_ms})"


class InvalidGrant(CredentialError):
    """The code or refresh token is not taken, now or ever."""


def check_url(url: str, where: str) -> str:
    """Check the URL of an endpoint. Raises `ConfigError`."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        raise ConfigError(f"{where}: {url!r} is no URL") from None
    if not host or parts.username or parts.password or parts.fragment:
        raise ConfigError(f"{where}: {url!r} must be a URL like https://auth.example/token")
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(host)):
        raise ConfigError(f"{where}: {url!r} must begin with https:// (http only for this machine)")
    return url


def is_loopback(host: str) -> bool:
    """Tell whether a host is this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def facts_of(server: Server, means: Means) -> Facts:
    """Find a server's endpoints; what it says is believed for an hour. Raises `CredentialError`."""
    if server.token_url and (server.authorize_url or not server.issuer):
        return Facts(server.issuer, server.token_url, server.authorize_url)
    until_ms, said = means.facts.get(server.issuer, (0, {}))
    if until_ms <= means.now_ms():
        said = await _ask_facts(server.issuer, means)
        means.facts[server.issuer] = means.now_ms() + FACTS_S * 1000, said
    methods = said.get("code_challenge_methods_supported")
    return Facts(
        server.issuer,
        server.token_url or _endpoint(said, "token_endpoint", server.issuer),
        server.authorize_url or _endpoint(said, "authorization_endpoint", server.issuer, needed=False),
        said.get("authorization_response_iss_parameter_supported") is True,
        "S256" in cast("list[object]", methods) if isinstance(methods, list) else methods is None,
    )


async def _ask_facts(issuer: str, means: Means) -> Mapping[str, object]:
    """Read a server's metadata: RFC 8414, 3.1; where there is none, OpenID Connect Discovery 1.0, 4."""
    parts = urlsplit(issuer)
    path = parts.path.rstrip("/")
    root = f"{parts.scheme}://{parts.netloc}"
    for url in (
        f"{root}/.well-known/oauth-authorization-server{path}",
        f"{issuer.rstrip('/')}/.well-known/openid-configuration",
    ):
        status, said = await _request(means, "GET", url, issuer)
        if status == 200:
            if said.get("issuer") != issuer:  # another server's metadata: RFC 8414, 3.3
                raise CredentialError(f"{url} is of another issuer than {issuer!r}; correct issuer=")
            return said
        if status >= 500 or status == 429:
            raise _away(issuer, f"HTTP {status}")
    raise CredentialError(f"{issuer} has no metadata (RFC 8414); say token_url= and authorize_url= instead")


def _endpoint(said: Mapping[str, object], name: str, issuer: str, *, needed: bool = True) -> str:
    url = said.get(name)
    if not isinstance(url, str) or not url:
        if needed:
            raise CredentialError(f"the metadata of {issuer} has no {name}; say its URL instead")
        return ""
    try:
        check_url(url, f"{name} of {issuer}")
    except ConfigError as error:
        raise CredentialError(str(error)) from error
    if issuer.startswith("https:") and not url.startswith("https:"):  # another's word must not lead to this machine
        raise CredentialError(f"{name} of {issuer}: {url!r} must begin with https://")
    return url


async def token_request(
    facts: Facts, client: Client, form: Mapping[str, str | tuple[str, ...]], ask: Ask, means: Means
) -> Issued:
    """Ask for a token. Raises `InvalidGrant`, or `CredentialError`, which is retryable where the server may answer later."""
    headers: dict[str, str] = {}
    fields = [(name, value) for name, said in form.items() for value in (said if isinstance(said, tuple) else (said,))]
    if client.secret is None:
        fields.append(("client_id", client.id))
    else:
        secret = (await client.secret.mint(ask, means)).value
        means.minted(f"{ask.name}.client", secret)
        if client.auth == "basic":  # each is form-encoded before it is joined: RFC 6749, 2.3.1
            pair = f"{quote_plus(client.id)}:{quote_plus(secret)}"
            headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        else:
            fields += [("client_id", client.id), ("client_secret", secret)]
    status, said = await _request(means, "POST", facts.token_url, facts.token_url, fields, headers)
    if status == 200:
        return _issued(said, form, ask, means)
    if status >= 500 or status == 429:
        raise _away(facts.token_url, f"HTTP {status}")
    code = said.get("error")
    code = code if isinstance(code, str) and _CODE.fullmatch(code) else f"HTTP {status}"
    kind = InvalidGrant if code == "invalid_grant" else CredentialError
    raise kind(f"the credential {ask.name!r}: {urlsplit(facts.token_url).netloc} gives out no token: {code}")


def _issued(said: Mapping[str, Any], form: Mapping[str, str | tuple[str, ...]], ask: Ask, means: Means) -> Issued:
    access, refresh, scope = said.get("access_token"), said.get("refresh_token", ""), said.get("scope")
    kind, life = said.get("token_type", ""), said.get("expires_in", 0)
    where = f"the credential {ask.name!r}: the token endpoint's answer"
    if not isinstance(access, str) or not access or not isinstance(refresh or "", str):
        raise CredentialError(f"{where} holds no access_token")
    if str(kind).lower() != "bearer":
        raise CredentialError(f"{where} has the token_type {str(kind)[:20]!r}; only Bearer is known here")
    means.minted(ask.name, access)
    if refresh:
        means.minted(f"{ask.name}.refresh", refresh)
    asked = str(form.get("scope", "")).split()
    granted = (
        scope.split() if isinstance(scope, str) else asked
    )  # (the same as asked, if nothing is said: RFC 6749, 5.1)
    return Issued(access, tuple(granted), _expires_ms(life, means.now_ms()), refresh or "")


def _expires_ms(life: object, now_ms: int) -> int:
    if isinstance(life, str) and life.isdecimal():
        life = int(life)
    if isinstance(life, bool) or not isinstance(life, int | float) or not 0 < life < 10**9:
        return 0
    return now_ms + int(life * 1000)


async def _request(
    means: Means,
    method: str,
    url: str,
    whom: str,
    fields: list[tuple[str, str]] | None = None,
    headers: Mapping[str, str] | None = None,
) -> tuple[int, Mapping[str, Any]]:
    """Make a request; a body that is no JSON object counts as an empty one."""
    said = {"Accept": "application/json", **(headers or {})}
    try:
        async with means.http.request(
            method, url, data=aiohttp.FormData(fields) if fields else None, headers=said, allow_redirects=False
        ) as response:
            body = await response.content.read(_MOST_BYTES + 1)
            while len(body) <= _MOST_BYTES and (more := await response.content.read(_MOST_BYTES)):
                body += more
            status = response.status
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise _away(whom, type(error).__name__) from None
    try:
        return status, msgspec.json.decode(body, type=dict[str, Any]) if len(body) <= _MOST_BYTES else {}
    except msgspec.DecodeError:
        return status, {}


def _away(whom: str, what: str) -> CredentialError:
    host = urlsplit(whom).netloc
    text = f"{host} did not answer a request for a credential ({what}); it may be asked again"
    return CredentialError(text, code="credential_unavailable", retryable=True)
