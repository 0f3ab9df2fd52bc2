"""API keys: made, listed, revoked, and looked up for each request: `Runtime.keys`. Only hashes are kept."""

from __future__ import annotations

import time
from collections.abc import Sequence

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

    async def add(self, tenant: str, name: str) -> tuple[ApiKey, str]:
        """Make a key. The secret is shown this once."""
        secret = new_secret()
        key = ApiKey(new_id("key_"), checked(tenant, "tenant"), secret_hash(secret), name, self._clock.now_ms())
        await self._store.add_api_key(key)
        self._tenants = (0.0, {})
        return key, secret

    async def list(self) -> Sequence[ApiKey]:
        """List the keys, revoked ones included."""
        return await self._store.api_keys()

    async def revoke(self, id: str) -> bool:
        """Revoke a key. False: there is none."""
        self._tenants = (0.0, {})
        return await self._store.revoke_api_key(id)

    async def tenant_of(self, secret: str) -> str | None:
        """Find whose key this is. None: nobody's, or it was revoked."""
        read_s, tenants = self._tenants
        if time.monotonic() - read_s > _CACHED_S:
            tenants = {key.hash: key.tenant for key in await self._store.api_keys() if not key.revoked}
            self._tenants = (time.monotonic(), tenants)
        return tenants.get(secret_hash(secret))
