"""Users' tokens at rest: sealed under a key of the operator's and the user's own salt, replaced by compare and set."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Awaitable, Callable

import msgspec

from stanchion.broker.port import Seal, Shelf
from stanchion.broker.seal import HOW, AesSeal, read_keys
from stanchion.core.credential import Sealed
from stanchion.core.errors import ConfigError

Salt = Callable[[str, str], Awaitable[bytes]]
"""Gives the salt of a tenant's user, which is destroyed when the user's content is erased."""


class Vault:
    """Keeps users' connections. `keys`: as the environment says them; without any every use is a `ConfigError`."""

    def __init__(self, shelf: Shelf, salt: Salt, keys: str) -> None:
        self._shelf = shelf
        self._salt = salt
        self._said = keys
        self._made: Seal | None = None

    @property
    def _seal(self) -> Seal:
        if self._made is None:
            keys = read_keys(self._said)
            if not keys:
                raise ConfigError(HOW)
            self._made = AesSeal(keys)
        return self._made

    async def load(self, tenant: str, user: str, name: str) -> Sealed | None:
        """Give a connection with its body in plain. One that nothing opens any more is as good as none."""
        seal, found = self._seal, await self._shelf.get(tenant, user, name)
        if found is None:
            return None
        plain = seal.open(found.body, about=_about(tenant, user, name), salt=await self._salt(tenant, user))
        return msgspec.structs.replace(found, body=plain or b"")

    async def save(self, tenant: str, user: str, name: str, plain: bytes, *, over: int) -> int:
        """Seal and write in place of a version; 0: another was faster."""
        body = self._seal.close(plain, about=_about(tenant, user, name), salt=await self._salt(tenant, user))
        return await self._shelf.put(tenant, user, name, body, over=over)

    async def claim(self, tenant: str, user: str, name: str, *, version: int, for_ms: int) -> bool:
        return await self._shelf.claim(tenant, user, name, version=version, for_ms=for_ms)

    async def remove(self, tenant: str, user: str, name: str, *, version: int = 0) -> bool:
        return await self._shelf.remove(tenant, user, name, version=version)

    def close(self, plain: bytes, *, about: str) -> str:
        return base64.urlsafe_b64encode(self._seal.close(plain, about=about)).decode().rstrip("=")

    def open(self, text: str, *, about: str) -> bytes | None:
        try:
            sealed = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        except (binascii.Error, ValueError):
            return None
        return self._seal.open(sealed, about=about)


def _about(tenant: str, user: str, name: str) -> str:
    return f"connection\0{tenant}\0{user}\0{name}"
