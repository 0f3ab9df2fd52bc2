"""An authorization server, and what sources work with."""

from __future__ import annotations

import base64
import secrets
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

import pytest

from stanchion.broker.port import Means
from stanchion.broker.vault import Vault
from stanchion.testing.memory import MemoryStore
from tests.broker.auth_server import SECRET, AuthServer, auth_server


@dataclass
class Now:
    """A clock that stands still until it is set forward."""

    ms: int = 1_700_000_000_000

    def __call__(self) -> int:
        return self.ms

    def pass_s(self, seconds: float) -> None:
        self.ms += int(seconds * 1000)


@dataclass
class Bench:
    """A server, a store with a vault, and a clock."""

    server: AuthServer
    now: Now
    store: MemoryStore
    key: str = field(default_factory=lambda: base64.b64encode(secrets.token_bytes(32)).decode())
    minted: list[tuple[str, str]] = field(default_factory=list)
    opened: list[Means] = field(default_factory=list)

    def means(self, key: str = "") -> Means:
        """Make the means of another process on the same store."""

        async def salt(tenant: str, user: str) -> bytes:
            return (await self.store.key_for(tenant, user)).salt

        made = Means(
            environment={"CRM_SECRET": SECRET, "CRM_TOKEN": " tok-1 ", "EMPTY": " "},
            now_ms=self.now,
            vault=Vault(self.store.connections, salt, key or self.key),
            minted=lambda name, value: self.minted.append((name, value)),
        )
        self.opened.append(made)
        return made


@pytest.fixture
async def bench() -> AsyncGenerator[Bench]:
    """Make all of it."""
    async with auth_server() as server:
        now = Now()
        made = Bench(server, now, MemoryStore(clock=now))
        yield made
        for means in made.opened:
            await means.aclose()
        await made.store.aclose()
