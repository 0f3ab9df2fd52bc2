"""API keys: made, listed, revoked, and looked up for each request: `Runtime.keys`. Only hashes are kept."""

from __future__ import annotations

import time
from collections.abc import Sequence

from stanchion.core.errors import InputError
from stanchion.engine.clock import Clock
from stanchion.journal.store import ApiKey, Store
from stanchion.runtime.name import checked, new_id, new_secret, secret_hash

_CACHED_S = 1.0
"""For how long keys are remembered; another process may change them."""


class Keys:
    """The API keys of one store."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._tenants: tuple[float, dict[bytes, str]] = (0.0, {})
        self._changes = 0

    async def add(self, tenant: str, name: str) -> tuple[ApiKey, str]:
        """Make a key. The secret is shown this once. Raises `InputError` (tenant)."""
        if not checked(
            tenant, "tenant"
        ):  # under "" lies what is of all tenants, and it stands for each of them in listings
            raise InputError("a key needs a tenant; name one, like acme", field="tenant")
        secret = new_secret()
        key = ApiKey(new_id("key_"), tenant, secret_hash(secret), name, self._clock.now_ms())
        await self._store.add_api_key(key)
        self._forget()
        return key, secret

    async def list(self) -> Sequence[ApiKey]:
        """List the keys, revoked ones included."""
        return await self._store.api_keys()

    async def revoke(self, id: str) -> bool:
        """Revoke a key. False: there is none."""
        done = await self._store.revoke_api_key(id)
        self._forget()
        return done

    async def tenant_of(self, secret: str) -> str | None:
        """Find whose key this is. None: nobody's, or it was revoked."""
        read_s, tenants = self._tenants
        if time.monotonic() - read_s > _CACHED_S:
            changes, asked_s = self._changes, time.monotonic()
            tenants = {key.hash: key.tenant for key in await self._store.api_keys() if not key.revoked}
            if changes == self._changes:  # else this was read before a key was revoked, perhaps
                self._tenants = (asked_s, tenants)
        return tenants.get(secret_hash(secret))

    def _forget(self) -> None:
        self._changes += 1
        self._tenants = (0.0, {})
