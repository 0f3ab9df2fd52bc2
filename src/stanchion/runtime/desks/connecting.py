"""`Runtime.connections`: what users have connected, and how they do it. Opens the brokers of this process's agents.

A name means one thing in a process: two agents that say "crm" must mean the same source. Whoever completes a connection is
whoever began it: the tenant, and the user where one is named.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import cast

import msgspec

from stanchion.broker.delegation import Redirect, UserDelegation, read_state
from stanchion.broker.port import Means
from stanchion.broker.seal import VARIABLE
from stanchion.broker.vault import Vault
from stanchion.core.errors import InputError, NotFound
from stanchion.engine.bound import BoundAgent
from stanchion.engine.clock import Clock
from stanchion.journal.store import Store
from stanchion.runtime.name import checked


class ConnectionView(msgspec.Struct, frozen=True):
    """That a user has connected something."""

    name: str
    user: str
    created_ms: int
    updated_ms: int


class ConnectedView(msgspec.Struct, frozen=True):
    """What was connected, and what it allows."""

    name: str
    user: str
    scopes: list[str]


class Connecting:
    """The connections of one store. `minted` is told of each secret before anybody else has it."""

    def __init__(
        self,
        store: Store,
        agents: Iterable[BoundAgent],
        clock: Clock,
        environment: Mapping[str, str],
        minted: Callable[[str, str], None] | None = None,
    ) -> None:
        self._store = store
        agents = list(agents)
        self._sources = {name: source for agent in agents for name, source in agent.broker.sources.items()}
        vault = Vault(store.connections, self._salt, environment.get(VARIABLE, ""))
        self._means = Means(environment=environment, now_ms=clock.now_ms, vault=vault)
        if minted is not None:
            self._means.minted = minted
        for agent in agents:
            agent.broker.open(self._means)

    async def _salt(self, tenant: str, user: str) -> bytes:
        key = await self._store.key_for(tenant, user)
        return key.salt + key.secret

    async def authorize(self, name: str, *, user: str, tenant: str = "default") -> str:
        """Give the link that a user opens to connect something. Raises `NotFound`, `InputError`, `CredentialError`."""
        return await self._delegation(name).begin(name, tenant, _user(user), self._means)

    async def complete(self, redirect: Redirect, *, tenant: str = "default", user: str = "") -> ConnectedView:
        """Take what the browser brought back. `user` "": whoever began. Raises `InputError`, `Conflict`, `CredentialError`."""
        if not self._names():
            raise InputError("is not one that was given out here: nothing is connected here", field="state")
        begun = read_state(redirect.state, self._means)
        if begun.tenant != tenant or user not in ("", begun.user):
            raise InputError("is not one that was given out to you; begin again", field="state")
        scopes = await self._delegation(begun.name).complete(begun, redirect, self._means)
        return ConnectedView(begun.name, begun.user, list(scopes))

    async def ls(self, *, user: str = "", tenant: str = "default") -> list[ConnectionView]:
        """List what users have connected."""
        rows = await self._store.connections.listed(tenant, user)
        return [ConnectionView(row.name, row.user, row.created_ms, row.updated_ms) for row in rows]

    async def remove(self, name: str, *, user: str, tenant: str = "default") -> None:
        """Forget a connection: its tokens are gone here; the server that gave them is not told. Raises `NotFound`."""
        if not await self._store.connections.remove(tenant, _user(user), name):
            raise NotFound(f"{user!r} has not connected {name!r}", field="name")

    def local_redirect(self, name: str) -> str:
        """Where the answer comes, if that is this machine; else "". Raises `NotFound`."""
        delegation = self._delegation(name)
        return delegation.redirect_uri if delegation.is_local else ""

    async def aclose(self) -> None:
        """Close the connections to servers."""
        await self._means.aclose()

    def _names(self) -> list[str]:
        """Name what users connect."""
        return sorted(name for name, source in self._sources.items() if isinstance(source, UserDelegation))

    def _delegation(self, name: str) -> UserDelegation:
        source = cast("object", self._sources.get(name))
        if not isinstance(source, UserDelegation):
            known = ", ".join(self._names()) or "none"
            raise NotFound(f"there is nothing named {name!r} that a user connects; there is: {known}", field="name")
        return source


def _user(user: str) -> str:
    if not user:
        raise InputError("say whose connection it is", field="user")
    return checked(user, "user")
