"""OAuth 2.1 client credentials: a token for the program itself, for the scopes that one tool needs (RFC 6749, 4.4).

A token is kept in memory until shortly before its end, by tenant and scopes; `fresh=True` asks for a new one each time.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import cast

from stanchion.broker.endpoint import Client, ClientAuth, Issued, Server, check_url, facts_of, token_request
from stanchion.broker.port import Ask, Means, Source
from stanchion.core.credential import Credential
from stanchion.core.errors import ConfigError, CredentialError


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientCredentials:
    """`ClientCredentials(issuer="https://auth.example", client_id="bot", client_secret=Environment("CRM_SECRET"), scopes=(..))`.

    `resource` names the API that the token is for (RFC 8707), `audience` says the same to servers that have their own word.
    """

    client_id: str
    client_secret: Source
    issuer: str = ""
    token_url: str = ""
    scopes: tuple[str, ...] = ()
    resource: tuple[str, ...] = ()
    audience: str = ""
    auth: ClientAuth = "basic"
    fresh: bool = False

    def __post_init__(self) -> None:
        where = f"ClientCredentials(client_id={self.client_id!r})"
        check_client(where, self.client_id, self.client_secret, self.auth)
        check_words(where, scopes=self.scopes, resource=self.resource)
        if not self.issuer and not self.token_url:
            raise ConfigError(f"{where}: say issuer=.., or token_url=..")
        for name, url in (("issuer", self.issuer), ("token_url", self.token_url)):
            if url:
                check_url(url, f"{where}: {name}")

    @property
    def adapter(self) -> str:
        """Its kind."""
        return "oauth_client"

    async def mint(self, ask: Ask, means: Means) -> Credential:
        """Give a token for these scopes. Raises `CredentialError`."""
        if self.fresh:
            return await self._ask(ask, means)
        return await means.kept.get((self, ask.tenant, ask.scopes), lambda: self._ask(ask, means))

    async def _ask(self, ask: Ask, means: Means) -> Credential:
        facts = await facts_of(Server(self.issuer, self.token_url), means)
        client = Client(self.client_id, self.client_secret, self.auth)
        form = {"grant_type": "client_credentials", **target(ask.scopes, self.resource, self.audience)}
        return credential_of(await token_request(facts, client, form, ask, means), ask)


def target(scopes: tuple[str, ...], resource: tuple[str, ...], audience: str) -> dict[str, str | tuple[str, ...]]:
    """Give the fields that say what a token is to be for."""
    said: Mapping[str, str | tuple[str, ...]] = {
        "scope": " ".join(scopes),
        "resource": resource,
        "audience": audience,
    }
    return {name: value for name, value in said.items() if value}


def credential_of(issued: Issued, ask: Ask) -> Credential:
    """Take what was issued, if it allows all that was asked for. Raises `CredentialError`."""
    if lacks := [scope for scope in ask.scopes if scope not in issued.scopes]:
        raise CredentialError(f"the credential {ask.name!r}: the server does not grant {', '.join(lacks)}")
    return Credential(issued.access, issued.scopes, issued.expires_ms)


def check_words(where: str, **given: object) -> None:
    """Check what must be tuples of words: a list could change, and a lone word is a tuple of letters. Raises `ConfigError`."""
    for name, words in given.items():
        if not isinstance(words, tuple) or not all(
            isinstance(word, str) and word and not word.isspace() for word in cast("tuple[object, ...]", words)
        ):
            raise ConfigError(f'{where}: {name} must be a tuple of words, like ("contacts.read",), not {words!r}')


def check_client(where: str, client_id: object, secret: object, auth: object) -> None:
    """Check who asks. Raises `ConfigError`; a secret written into a program is never shown."""
    if not isinstance(client_id, str) or not client_id:
        raise ConfigError(f"{where}: client_id must be the client's name at the server")
    if secret is not None and not (callable(getattr(secret, "mint", None)) and isinstance(secret, Hashable)):
        raise ConfigError(
            f'{where}: client_secret must say where the secret is: Environment("..") or Keyring("..", "..")'
        )
    if auth not in ("basic", "post"):
        raise ConfigError(f'{where}: auth must be "basic" or "post", not {auth!r}')
