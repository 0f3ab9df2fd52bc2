"""Encrypt what a user's connection holds: AES-256-GCM under a key that is not in the store.

`STANCHION_VAULT_KEY` holds 32 random bytes in base64. Several, divided by commas, are a change of keys: the first seals, all open.
Each sealed text has a key of its own, made (HMAC-SHA-256) of that one and of the user's salt: when the salt is destroyed with
the user's content, no backup of the table can be read. Needs the extra `credentials`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Sequence

from stanchion.core.errors import ConfigError

VARIABLE = "STANCHION_VAULT_KEY"
_NONCE = 12
_NAME = 4
HOW = (
    f"{VARIABLE} is not set: users' tokens are kept encrypted, and its key is yours to keep. Make one, once, and give it "
    "to every worker and server of the store: openssl rand -base64 32"
)


class AesSeal:
    """Seals by AES-256-GCM."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        try:
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        except ImportError as error:
            text = 'users\' tokens are kept encrypted, which needs: pip install "stanchion[credentials]"'
            raise ConfigError(text) from error
        self._cipher = AESGCM
        self._keys = {hashlib.sha256(b"name\0" + key).digest()[:_NAME]: key for key in keys}
        self._first = next(iter(self._keys))

    def close(self, plain: bytes, *, about: str, salt: bytes = b"") -> bytes:
        nonce = secrets.token_bytes(_NONCE)
        sealed = self._cipher(_derived(self._keys[self._first], salt)).encrypt(nonce, plain, about.encode())
        return self._first + nonce + sealed

    def open(self, sealed: bytes, *, about: str, salt: bytes = b"") -> bytes | None:
        from cryptography.exceptions import InvalidTag

        key = self._keys.get(sealed[:_NAME])
        nonce, rest = sealed[_NAME : _NAME + _NONCE], sealed[_NAME + _NONCE :]
        if key is None or len(nonce) < _NONCE:
            return None
        try:
            return self._cipher(_derived(key, salt)).decrypt(nonce, rest, about.encode())
        except InvalidTag:
            return None


def _derived(key: bytes, salt: bytes) -> bytes:
    return hmac.digest(key, b"stanchion connection\0" + salt, "sha256")


def read_keys(said: str) -> tuple[bytes, ...]:
    """Read the keys of the environment; none: (). Raises `ConfigError`."""
    keys: list[bytes] = []
    for number, text in enumerate(filter(None, (part.strip() for part in said.split(","))), 1):
        try:
            key = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            key = b""
        if len(key) != 32:
            raise ConfigError(f"{VARIABLE}: key {number} is not 32 bytes in base64; make one: openssl rand -base64 32")
        keys.append(key)
    return tuple(keys)
