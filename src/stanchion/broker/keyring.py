"""A credential from the operating system's keyring (macOS Keychain, Secret Service, Windows Credential Locker).

Needs the extra `credentials`. A keyring may ask a person to unlock it, so it is read in a thread, within a time.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from stanchion.broker.port import TIMEOUT_S, Ask, Means
from stanchion.core.credential import Credential
from stanchion.core.errors import ConfigError, CredentialError


@dataclass(frozen=True, slots=True)
class Keyring:
    """`Keyring("crm", "support-bot")`: the password of an account of a service. `scopes`: what it is known to allow."""

    service: str
    account: str
    scopes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.service or not self.account:
            raise ConfigError(f"Keyring({self.service!r}, {self.account!r}): name a service and an account")

    @property
    def adapter(self) -> str:
        """Its kind."""
        return "keyring"

    async def mint(self, ask: Ask, means: Means) -> Credential:
        """Read it. Raises `CredentialError`."""
        where = f"the credential {ask.name!r}"
        try:
            async with asyncio.timeout(TIMEOUT_S):
                value = await asyncio.to_thread(self._read)
        except TimeoutError:
            text = f"{where}: the keyring did not answer within {TIMEOUT_S:g} s; unlock it"
            raise CredentialError(text, code="credential_unavailable", retryable=True) from None
        except ImportError:
            text = f'{where} lies in the keyring, which needs: pip install "stanchion[credentials]"'
            raise CredentialError(text, code="credential_missing") from None
        except Exception as error:  # by its kind alone: keyrings are of many makers
            text = f"{where}: the keyring cannot be read ({type(error).__name__}); see `keyring diagnose`"
            raise CredentialError(text, code="credential_missing") from None
        if not value:
            text = f"{where} is not in the keyring; set it: keyring set {self.service} {self.account}"
            raise CredentialError(text, code="credential_missing")
        return Credential(value, self.scopes)

    def _read(self) -> str | None:
        import keyring

        return keyring.get_password(self.service, self.account)
