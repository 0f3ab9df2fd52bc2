"""API keys: made, listed, revoked, and looked up for each request: `Runtime.keys`. Only hashes are kept."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from stanchion.core.errors import InputError
from stanchion.engine.clock import Clock
from stanchion.journal.store import ApiKey, Store
from stanchion.runtime.capabilities import Reviewer, kept, read_grants, written
from stanchion.runtime.name import checked, new_id, new_secret, secret_hash

_CACHED_S = 1.0
"""For how long keys are remembered; another process may change them."""


def reviewer_of(key: ApiKey) -> Reviewer:
    """Say who holds a key. Two keys of one name are one person's: a quorum counts names."""
    return Reviewer(key.name or key.id, kept(key.may_approve))


class Keys:
    """The API keys of one store."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._known: tuple[float, dict[bytes, ApiKey]] = (0.0, {})
        self._changes = 0

    async def add(self, tenant: str, name: str, *, may_approve: str | Any = None) -> tuple[ApiKey, str]:
        """Make a key. The secret is shown this once. Raises `InputError` (tenant, may_approve).

        `may_approve`: grants (as JSON, or parsed) beyond which its holder approves nothing; None: anything.
        """
        if not checked(
            tenant, "tenant"
        ):  # under "" lies what is of all tenants, and it stands for each of them in listings
            raise InputError("a key needs a tenant; name one, like acme", field="tenant")
        secret = new_secret()
        grants = "" if may_approve is None else written(read_grants(may_approve, field="may_approve"))
        made_ms = self._clock.now_ms()
        key = ApiKey(new_id("key_"), tenant, secret_hash(secret), name, made_ms, may_approve=grants)
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

    async def find(self, secret: str) -> ApiKey | None:
        """Find a key. None: there is none, or it was revoked."""
        read_s, known = self._known
        if time.monotonic() - read_s > _CACHED_S:
            changes, asked_s = self._changes, time.monotonic()
            known = {key.hash: key for key in await self._store.api_keys() if not key.revoked}
            if changes == self._changes:  # else this was read before a key was revoked, perhaps
                self._known = (asked_s, known)
        return known.get(secret_hash(secret))

    async def tenant_of(self, secret: str) -> str | None:
        """Find whose key this is. None: nobody's, or it was revoked."""
        key = await self.find(secret)
        return key.tenant if key is not None else None

    def _forget(self) -> None:
        self._changes += 1
        self._known = (0.0, {})
