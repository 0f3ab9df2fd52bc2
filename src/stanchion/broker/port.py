"""The port of credentials: whatever makes them for one attempt is a `Source`.

A source is how an author writes it down: frozen, without a connection and without a secret of its own. What it works with (the
network, the environment, the clock, the vault of users' tokens, the tokens still good) comes with each call, as `Means`. It
raises `CredentialError` and no secret is in its text; anything else that it raises is known by its type alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import aiohttp

from stanchion.core.credential import Credential, Sealed

TIMEOUT_S = 10.0
"""For one request to a token endpoint."""
_KEPT = 4_096
"""Tokens kept in memory at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """For what a credential is made: one attempt at one call."""

    name: str
    scopes: tuple[str, ...] = ()
    tenant: str = ""
    user: str = ""
    operation: str = ""
    """Run, call and attempt, as "run_1/7.0/2"."""


class Source(Protocol):
    """Where a credential comes from."""

    @property
    def adapter(self) -> str:
        """Its kind, in one word, for the journal."""
        ...

    @property
    def scopes(self) -> tuple[str, ...]:
        """The most that may be asked of it."""
        ...

    async def mint(self, ask: Ask, means: Means) -> Credential:
        """Make a credential for one attempt. Raises `CredentialError`."""
        ...


class Shelf(Protocol):
    """Where users' connections lie, sealed. `version` is of the row that is replaced; 0: there is none."""

    async def get(self, tenant: str, user: str, name: str) -> Sealed | None: ...

    async def put(self, tenant: str, user: str, name: str, body: bytes, *, over: int) -> int:
        """Write in place of a version; return the new one, or 0 if another was faster."""
        ...

    async def claim(self, tenant: str, user: str, name: str, *, version: int, for_ms: int) -> bool:
        """Say that it is being renewed here, for so long; with 0, that it is no more."""
        ...

    async def remove(self, tenant: str, user: str, name: str, *, version: int = 0) -> bool: ...


class Seal(Protocol):
    """Encrypts what lies in a store or goes through a browser."""

    def close(self, plain: bytes, *, about: str, salt: bytes = b"") -> bytes:
        """Encrypt, bound to what it is about and to a salt without which it is never read again."""
        ...

    def open(self, sealed: bytes, *, about: str, salt: bytes = b"") -> bytes | None:
        """Decrypt; None: it is not ours, not about this, or was changed."""
        ...


@dataclass(frozen=True, slots=True)
class _Kept:
    credential: Credential
    until_ms: int


class Kept:
    """Tokens that are still good, in memory. Of one that runs out a single caller makes the next."""

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self._now_ms = now_ms
        self._kept: dict[Hashable, _Kept] = {}
        self._locks: dict[Hashable, tuple[asyncio.Lock, int]] = {}

    async def get(self, key: Hashable, make: Callable[[], Awaitable[Credential]]) -> Credential:
        """Give the token kept under a key, or make it. One whose end is not known is not kept."""
        async with self.alone(key):
            found = self._kept.get(key)
            if found is not None and self._now_ms() < found.until_ms:
                return found.credential
            began_ms = self._now_ms()
            made = await make()
            if made.expires_ms:
                self._tidy()
                self._kept[key] = _Kept(made, good_until_ms(made.expires_ms, began_ms))
            return made

    def alone(self, key: Hashable) -> _Alone:
        """Hold others back who want the same."""
        return _Alone(self._locks, key)

    def _tidy(self) -> None:
        if len(self._kept) < _KEPT:
            return
        now_ms = self._now_ms()
        self._kept = {key: kept for key, kept in self._kept.items() if kept.until_ms > now_ms}
        while len(self._kept) >= _KEPT:  # the oldest
            del self._kept[next(iter(self._kept))]


class _Alone:
    """A lock by key that is gone when nobody waits for it."""

    def __init__(self, locks: dict[Hashable, tuple[asyncio.Lock, int]], key: Hashable) -> None:
        self._locks = locks
        self._key = key

    async def __aenter__(self) -> None:
        lock, users = self._locks.get(self._key, (asyncio.Lock(), 0))
        self._locks[self._key] = lock, users + 1
        try:
            await lock.acquire()
        except BaseException:
            self._leave()
            raise

    async def __aexit__(self, *_: object) -> None:
        self._locks[self._key][0].release()
        self._leave()

    def _leave(self) -> None:
        lock, users = self._locks[self._key]
        if users > 1:
            self._locks[self._key] = lock, users - 1
        else:
            del self._locks[self._key]


def good_until_ms(expires_ms: int, now_ms: int) -> int:
    """When a token is too near its end to be handed out: a minute before it, a fifth of its life if that is less."""
    return expires_ms - min(60_000, max(expires_ms - now_ms, 0) // 5)


def _no_minted(_name: str, _value: str) -> None:
    """Nobody wants to know."""


@dataclass(slots=True, kw_only=True)
class Means:
    """What sources work with. One for a process."""

    environment: Mapping[str, str]
    now_ms: Callable[[], int]
    vault: Vaulting | None = None
    minted: Callable[[str, str], None] = _no_minted
    """Told of each secret by its name, before anybody else has it: what must never be written learns it here."""
    kept: Kept = field(init=False)
    facts: dict[str, tuple[int, Mapping[str, object]]] = field(
        default_factory=dict[str, tuple[int, Mapping[str, object]]]
    )
    """What servers say of themselves, by address, and until when that is believed."""
    _http: aiohttp.ClientSession | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.kept = Kept(self.now_ms)

    @property
    def http(self) -> aiohttp.ClientSession:
        """The connections to servers that give out tokens. They follow no redirect and keep no cookie."""
        if self._http is None:
            timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
            self._http = aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar())
        return self._http

    async def aclose(self) -> None:
        """Close the connections."""
        if self._http is not None:
            await self._http.close()
            self._http = None


class Vaulting(Protocol):
    """Keeps users' tokens, sealed; a person's are gone when the person's content is erased."""

    async def load(self, tenant: str, user: str, name: str) -> Sealed | None:
        """Give a connection with its body in plain; None: there is none, or it cannot be read any more."""
        ...

    async def save(self, tenant: str, user: str, name: str, plain: bytes, *, over: int) -> int: ...

    async def claim(self, tenant: str, user: str, name: str, *, version: int, for_ms: int) -> bool: ...

    async def remove(self, tenant: str, user: str, name: str, *, version: int = 0) -> bool: ...

    def close(self, plain: bytes, *, about: str) -> str:
        """Seal what goes through a browser, as text of a URL."""
        ...

    def open(self, text: str, *, about: str) -> bytes | None: ...
