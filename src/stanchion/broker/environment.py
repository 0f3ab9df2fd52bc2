"""A credential from an environment variable of the process that runs the tool: the same for all tenants and users."""

from __future__ import annotations

from dataclasses import dataclass

from stanchion.broker.port import Ask, Means
from stanchion.core.credential import Credential
from stanchion.core.errors import ConfigError, CredentialError


@dataclass(frozen=True, slots=True)
class Environment:
    """`Environment("CRM_TOKEN")`. `scopes`: what the operator knows it to allow; nothing narrows it."""

    variable: str
    scopes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.variable or "=" in self.variable:
            raise ConfigError(f"Environment({self.variable!r}): name the variable that holds the secret")

    @property
    def adapter(self) -> str:
        """Its kind."""
        return "environment"

    async def mint(self, ask: Ask, means: Means) -> Credential:
        """Read it anew, as it stands now. Raises `CredentialError`."""
        value = means.environment.get(self.variable, "").strip()
        if not value:
            raise CredentialError(
                f"the credential {ask.name!r} is not set: export {self.variable}=.. where the worker runs",
                code="credential_missing",
            )
        return Credential(value, self.scopes)
