"""A small authorization server on this machine: it checks what OAuth 2.1 has it check, rotates, and fails on demand."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import secrets
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote_plus, urlencode

import aiohttp
from aiohttp import web

CLIENT, SECRET = "bot & co", "s3cret+of/the=client"
"""Both must be form-encoded before they are joined for Basic."""


@dataclass
class Grant:
    """What a person allowed: the tokens of it are void together."""

    scopes: tuple[str, ...]
    refresh: str = ""
    void: bool = False


@dataclass
class Token:
    """An access token that was given out."""

    scopes: tuple[str, ...]
    grant: Grant | None


@dataclass
class Code:
    """An authorization code, used or not."""

    challenge: str
    redirect_uri: str
    scopes: tuple[str, ...]
    used: Grant | None = None


@dataclass
class AuthServer:
    """Its address, what it gave out, and how it behaves next."""

    url: str = ""
    expires_in: Any = 3600
    allowed: tuple[str, ...] | None = None
    """What the person, or the server, grants of what is asked; None: all of it."""
    no_refresh: bool = False
    denies: bool = False
    facts: dict[str, Any] = field(default_factory=dict)
    """Replaces fields of its metadata."""
    fail_next: list[web.Response | str] = field(default_factory=list)
    """Answers to the next token requests; "slow": none at all; "lost": it does as asked, and breaks the connection."""
    tokens: dict[str, Token] = field(default_factory=dict)
    codes: dict[str, Code] = field(default_factory=dict)
    grants: dict[str, Grant] = field(default_factory=dict)
    """By refresh token, old ones as well."""
    asked: list[dict[str, Any]] = field(default_factory=list)
    """Forms of the token requests."""
    done: list[str] = field(default_factory=list)
    """What was done at the API, by the tokens that did it."""

    @property
    def secrets(self) -> list[str]:
        """Everything that must be found nowhere."""
        return [*self.tokens, *self.grants, *self.codes, SECRET]

    # --- the browser's side ------------------------------------------------------------------------------------------

    async def authorize(self, request: web.Request) -> web.Response:
        query = request.query
        assert query["response_type"] == "code"
        assert query["client_id"] == CLIENT
        assert query["code_challenge_method"] == "S256"
        assert len(query["code_challenge"]) == 43
        said = {"state": query["state"], "iss": self.url}
        if self.denies:
            said["error"] = "access_denied"
        else:
            scopes = tuple(query.get("scope", "").split())
            code = secrets.token_urlsafe(16)
            self.codes[code] = Code(query["code_challenge"], query["redirect_uri"], self._granted(scopes))
            said["code"] = code
        return web.Response(status=302, headers={"Location": f"{query['redirect_uri']}?{urlencode(said)}"})

    def _granted(self, scopes: tuple[str, ...]) -> tuple[str, ...]:
        return scopes if self.allowed is None else tuple(scope for scope in scopes if scope in self.allowed)

    # --- the token endpoint ------------------------------------------------------------------------------------------

    async def token(self, request: web.Request) -> web.StreamResponse:
        form = await request.post()
        self.asked.append({**form, "resource": form.getall("resource", [])})
        how = self.fail_next.pop(0) if self.fail_next else None
        if isinstance(how, web.Response):
            return how
        if how == "slow":
            await asyncio.sleep(30)
        if not self._is_client(request, form):
            return _no("invalid_client", 401)
        answer = self._answer(form)
        if how == "lost":
            assert request.transport is not None
            request.transport.abort()
        return answer

    def _is_client(self, request: web.Request, form: Any) -> bool:
        header = request.headers.get("Authorization", "")
        if header:
            name, _, secret = base64.b64decode(header.removeprefix("Basic ")).decode().partition(":")
            return (unquote_plus(name), unquote_plus(secret)) == (CLIENT, SECRET)
        return (form.get("client_id"), form.get("client_secret", SECRET)) == (CLIENT, SECRET)

    def _answer(self, form: Any) -> web.Response:
        match form.get("grant_type"):
            case "client_credentials":
                return self._give(tuple(form.get("scope", "").split()), None)
            case "authorization_code":
                return self._exchange(form)
            case "refresh_token":
                return self._refresh(form)
            case _:
                return _no("unsupported_grant_type")

    def _exchange(self, form: Any) -> web.Response:
        code = self.codes.get(form["code"])
        if code is None:
            return _no("invalid_grant")
        if code.used is not None:  # a replay: what was given for it is void (OAuth 2.1, 4.1.3)
            code.used.void = True
            return _no("invalid_grant")
        digest = hashlib.sha256(form["code_verifier"].encode()).digest()
        if base64.urlsafe_b64encode(digest).decode().rstrip("=") != code.challenge:
            return _no("invalid_grant")
        if form["redirect_uri"] != code.redirect_uri:
            return _no("invalid_grant")
        code.used = Grant(code.scopes)
        return self._give(code.scopes, code.used)

    def _refresh(self, form: Any) -> web.Response:
        grant = self.grants.get(form["refresh_token"])
        if grant is None or grant.void:
            return _no("invalid_grant")
        if grant.refresh != form["refresh_token"]:  # an old one: a thief, or two who do not know of each other
            grant.void = True
            return _no("invalid_grant")
        scopes = tuple(form["scope"].split()) if "scope" in form else grant.scopes
        if not set(scopes) <= set(grant.scopes):
            return _no("invalid_scope")
        return self._give(scopes, grant)

    def _give(self, scopes: tuple[str, ...], grant: Grant | None) -> web.Response:
        scopes = self._granted(scopes)
        access = f"at_{secrets.token_urlsafe(24)}"
        self.tokens[access] = Token(scopes, grant)
        said: dict[str, Any] = {"access_token": access, "token_type": "bearer", "scope": " ".join(scopes)}
        if self.expires_in is not None:
            said["expires_in"] = self.expires_in
        if grant is not None and not self.no_refresh:
            grant.refresh = f"rt_{secrets.token_urlsafe(24)}"
            self.grants[grant.refresh] = grant
            said["refresh_token"] = grant.refresh
        return web.json_response(said)

    # --- what it guards ----------------------------------------------------------------------------------------------

    async def api(self, request: web.Request) -> web.Response:
        value = request.headers.get("Authorization", "").removeprefix("Bearer ")
        token = self.tokens.get(value)
        if token is None or (token.grant is not None and token.grant.void):
            return web.Response(status=401, text=f"no such token: {value}")
        self.done.append(value)
        return web.json_response({"scopes": token.scopes, "echo": value})

    async def metadata(self, _: web.Request) -> web.Response:
        said = {
            "issuer": self.url,
            "token_endpoint": f"{self.url}/token",
            "authorization_endpoint": f"{self.url}/authorize",
            "code_challenge_methods_supported": ["S256"],
            "authorization_response_iss_parameter_supported": True,
        }
        return web.json_response({name: value for name, value in (said | self.facts).items() if value is not None})


def _no(error: str, status: int = 400) -> web.Response:
    return web.json_response({"error": error, "error_description": f"you sent {SECRET}"}, status=status)


@contextlib.asynccontextmanager
async def auth_server() -> AsyncGenerator[AuthServer]:
    """Run one."""
    server = AuthServer()
    app = web.Application()
    app.router.add_get("/.well-known/oauth-authorization-server", server.metadata)
    app.router.add_get("/authorize", server.authorize)
    app.router.add_post("/token", server.token)
    app.router.add_get("/api", server.api)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    server.url = f"http://127.0.0.1:{port}"
    try:
        yield server
    finally:
        await runner.cleanup()


async def browse(url: str) -> dict[str, str]:
    """Open a link as a browser would, and say yes: give the query with which it comes back."""
    async with aiohttp.ClientSession() as http, http.get(url, allow_redirects=False) as response:
        assert response.status == 302, await response.text()
        from yarl import URL

        return dict(URL(response.headers["Location"]).query)
