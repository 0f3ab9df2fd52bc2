"""Who is asking: an API key names a tenant; without any keys in the store there is one tenant and only this machine.

A key is looked up by its SHA-256, so that nothing is compared byte by byte with a secret. Once there was a key the
door stays locked, even if every key is revoked. While it is open, any page in a browser on this machine could call us, so
requests by another host name (DNS rebinding) and from other origins are refused.
"""

from __future__ import annotations

import ipaddress
import time
from urllib.parse import urlsplit

import msgspec
from starlette.datastructures import Headers

from stanchion.core.errors import ConfigError, Unauthorized
from stanchion.runtime import Reviewer, Runtime, reviewer_of

OPEN_TENANT = "default"
_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_LOOK_AGAIN_S = 1.0
"""While the door is open, how long a key made meanwhile may go unnoticed."""


class Caller(msgspec.Struct, frozen=True):
    """Who asks."""

    tenant: str
    reviewer: Reviewer | None = None
    """As whom he decides on what waits; None: no key was needed, and he says himself who he is."""


def is_loopback(host: str) -> bool:
    """Say whether an address is this machine's own."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Door:
    """Decides who comes in."""

    def __init__(self, runtime: Runtime, host: str) -> None:
        self._runtime = runtime
        self._host = host
        self._locked = not is_loopback(host)
        self._looked_s = -_LOOK_AGAIN_S

    async def check_start(self) -> None:
        """Raise `ConfigError` if the door would stand open to other machines."""
        if self._locked and not await self._runtime.keys.list():
            raise ConfigError(
                f"host {self._host!r} can be reached by other machines and there is no API key: make one with "
                "`stanchion keys add`, or serve on 127.0.0.1"
            )

    async def is_open(self) -> bool:
        """Say whether requests need no key."""
        if self._locked:
            return False
        if time.monotonic() - self._looked_s >= _LOOK_AGAIN_S:
            self._locked = bool(await self._runtime.keys.list())
            self._looked_s = time.monotonic()
        return not self._locked

    async def caller(self, authorization: str | None) -> Caller:
        """Find who sent a request. Raises `Unauthorized`."""
        if authorization is None:
            if await self.is_open():
                return Caller(OPEN_TENANT)
            raise Unauthorized
        scheme, _, secret = authorization.partition(" ")
        if scheme.lower() != "bearer" or not secret.strip():
            raise Unauthorized("the Authorization header must be `Bearer <key>`")
        key = await self._runtime.keys.find(secret.strip())
        if key is None:
            raise Unauthorized("this API key is not known, or it was revoked")
        return Caller(key.tenant, reviewer_of(key))

    async def check_browser(self, method: str, headers: Headers) -> None:
        """While no key is needed, refuse what another site's page may have sent. Raises `Unauthorized` (`forbidden`)."""
        if not await self.is_open():
            return
        host = headers.get("host", "")
        name = _name_of(host)
        if name not in _LOOPBACK_NAMES and name != self._host:
            raise Unauthorized(
                f"host {host[:100]!r} is refused: without API keys this server answers to localhost only",
                code="forbidden",
            )
        if method in _SAFE_METHODS:
            return
        origin = headers.get("origin")
        foreign = origin.partition("://")[2] != host if origin is not None else _is_cross_site(headers)
        if foreign:
            raise Unauthorized(
                "a request from another site's page is refused: without API keys this server takes none",
                code="forbidden",
            )


def _name_of(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _is_cross_site(headers: Headers) -> bool:
    return headers.get("sec-fetch-site", "none") in ("cross-site", "same-site")
