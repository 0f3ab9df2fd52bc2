"""OAuth 2.1 user delegation: a tool acts for a person who allowed it in a browser (authorization code with PKCE, RFC 7636).

    begin --> the person's browser --> redirect_uri?code&state --> complete --> vault
                                                       mint --> vault --(renewed where it ran out)--> a token

What must be remembered between `begin` and `complete` travels sealed in `state`: who begins, the verifier, the connection that
it replaces. So any process completes it, once, and only for the tenant and user who began. A refresh token is rotated under a
claim in the store: two workers that renew at once would look like a thief to the server.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import secrets
from dataclasses import dataclass
from urllib.parse import urlencode, urlsplit

import msgspec

from stanchion.broker.endpoint import (
    Client,
    ClientAuth,
    Facts,
    InvalidGrant,
    Issued,
    Server,
    check_url,
    facts_of,
    is_loopback,
    token_request,
)
from stanchion.broker.oauth import check_client, check_words, credential_of, target
from stanchion.broker.port import Ask, Means, Source, Vaulting, good_until_ms
from stanchion.core.credential import Credential, Sealed
from stanchion.core.errors import ConfigError, Conflict, CredentialError, InputError

BEGUN_S = 600
"""How long a person has, from the link to the answer."""
RENEW_S = 20
"""How long a worker that died while renewing keeps others from it."""
_LOOK_S = 0.05
_SETS = 8
"""Access tokens kept for a connection: one for each set of scopes."""


class Begun(msgspec.Struct, frozen=True):
    """What `state` holds."""

    name: str
    tenant: str
    user: str
    verifier: str
    until_ms: int
    over: int
    """Version of the connection that it replaces; 0: there is none."""


class Access(msgspec.Struct, frozen=True, omit_defaults=True):
    """A token in hand."""

    value: str
    asked: tuple[str, ...]
    scopes: tuple[str, ...]
    expires_ms: int = 0
    good_until_ms: int = 0


class Tokens(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a connection holds."""

    granted: tuple[str, ...]
    refresh: str = ""
    access: tuple[Access, ...] = ()


class Redirect(msgspec.Struct, frozen=True):
    """What the browser brought to the redirect URI."""

    state: str
    code: str = ""
    error: str = ""
    iss: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class UserDelegation:
    """`UserDelegation(issuer=.., client_id=.., redirect_uri="https://app.example/connected", scopes=(..))`.

    `redirect_uri` is compared by the server character by character. `params` are further fields of the link that the
    person opens (such as `(("access_type", "offline"),)`).
    """

    client_id: str
    redirect_uri: str
    scopes: tuple[str, ...] = ()
    issuer: str = ""
    token_url: str = ""
    authorize_url: str = ""
    client_secret: Source | None = None
    resource: tuple[str, ...] = ()
    audience: str = ""
    auth: ClientAuth = "basic"
    params: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        where = f"UserDelegation(client_id={self.client_id!r})"
        check_client(where, self.client_id, self.client_secret, self.auth)
        check_words(where, scopes=self.scopes, resource=self.resource)
        if not self.issuer and not (self.token_url and self.authorize_url):
            raise ConfigError(f"{where}: say issuer=.., or token_url=.. and authorize_url=..")
        for name in ("issuer", "token_url", "authorize_url", "redirect_uri"):
            if url := getattr(self, name):
                check_url(url, f"{where}: {name}")
        if not self.redirect_uri:
            raise ConfigError(f"{where}: say redirect_uri=.., as it is registered at the server")

    @property
    def adapter(self) -> str:
        """Its kind."""
        return "oauth_user"

    @property
    def is_local(self) -> bool:
        """Whether the answer comes to this machine, where a command may wait for it."""
        return is_loopback(urlsplit(self.redirect_uri).hostname or "")

    # --- connecting --------------------------------------------------------------------------------------------------

    async def begin(self, name: str, tenant: str, user: str, means: Means) -> str:
        """Give the link that the person opens. Raises `ConfigError`, `CredentialError`."""
        facts, vault = await facts_of(self._server, means), _vault(means)
        if not facts.authorize_url:
            raise CredentialError(f"the metadata of {self.issuer} has no authorization_endpoint; say authorize_url=")
        if not facts.has_s256:
            raise CredentialError(f"{self.issuer} does not know PKCE by S256, without which nothing is connected")
        held = await vault.load(tenant, user, name)
        verifier = secrets.token_urlsafe(48)
        until_ms = means.now_ms() + BEGUN_S * 1000
        begun = Begun(name, tenant, user, verifier, until_ms, held.version if held else 0)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")
        fields: dict[str, str | tuple[str, ...]] = {
            "response_type": "code",
            "client_id": self.client_id,
            "redirect_uri": self.redirect_uri,
            "state": vault.close(msgspec.json.encode(begun), about="state"),
            "code_challenge": challenge,
            "code_challenge_method": "S256",
            **target(self.scopes, self.resource, self.audience),
            **dict(self.params),
        }
        joint = "&" if "?" in facts.authorize_url else "?"
        return f"{facts.authorize_url}{joint}{urlencode(fields, doseq=True)}"

    async def complete(self, begun: Begun, redirect: Redirect, means: Means) -> tuple[str, ...]:
        """Take the answer; return the scopes that the person allowed. Raises `InputError`, `Conflict`, `CredentialError`."""
        facts, vault = await facts_of(self._server, means), _vault(means)
        _check_issuer(facts, redirect)
        if redirect.error or not redirect.code:
            raise Conflict(f"{begun.name} was not connected: {_word(redirect.error)}", code="credential_refused")
        held = await vault.load(begun.tenant, begun.user, begun.name)
        if (held.version if held else 0) != begun.over:
            raise Conflict(f"{begun.name} was connected meanwhile; begin again to replace it", field="state")
        form = {
            "grant_type": "authorization_code",
            "code": redirect.code,
            "redirect_uri": self.redirect_uri,
            "code_verifier": begun.verifier,
            **target((), self.resource, self.audience),
        }
        ask = Ask(name=begun.name, scopes=self.scopes, tenant=begun.tenant, user=begun.user)
        try:
            issued = await token_request(facts, self._client, form, ask, means)
        except InvalidGrant as error:
            raise Conflict("this code is not taken any more; begin again", code="credential_refused") from error
        granted = issued.scopes or self.scopes
        tokens = _with_access(Tokens(granted, issued.refresh), granted, issued, means.now_ms())
        if not await self._save(vault, begun.tenant, begun.user, begun.name, tokens, begun.over):
            raise Conflict(f"{begun.name} was connected meanwhile; begin again to replace it", field="state")
        return granted

    # --- using -------------------------------------------------------------------------------------------------------

    async def mint(self, ask: Ask, means: Means) -> Credential:
        """Give a token of the user of the run, renewed where it ran out. Raises `CredentialError`."""
        if not ask.user:
            text = f"{ask.name} acts for a person, and this run is for nobody; start runs with user=.."
            raise CredentialError(text, code="credential_unconnected")
        vault = _vault(means)
        async with means.kept.alone(("connection", ask.tenant, ask.user, ask.name)):
            while True:
                held = await vault.load(ask.tenant, ask.user, ask.name)
                tokens = _tokens(held)
                if held is None or tokens is None:
                    raise _unconnected(ask, "is not connected")
                if lacks := [scope for scope in ask.scopes if scope not in tokens.granted]:
                    raise _unconnected(ask, f"was connected without {', '.join(lacks)}")
                if found := _good(tokens, ask.scopes, means.now_ms()):
                    means.minted(ask.name, found.value)
                    return Credential(found.value, found.scopes, found.expires_ms)
                if not tokens.refresh:
                    raise _unconnected(ask, "has run out")
                if not await vault.claim(
                    ask.tenant, ask.user, ask.name, version=held.version, for_ms=RENEW_S * 1000
                ):  # another process renews it
                    await asyncio.sleep(_LOOK_S)
                    continue
                # A run that is stopped now must not lose what the server gave in place of the old token.
                return await asyncio.shield(self._renew(held, tokens, ask, means))

    async def _renew(self, held: Sealed, tokens: Tokens, ask: Ask, means: Means) -> Credential:
        """Use the refresh token, and keep the one that takes its place (OAuth 2.1, 4.3)."""
        vault, place = _vault(means), (ask.tenant, ask.user, ask.name)
        scopes = ask.scopes if set(ask.scopes) != set(tokens.granted) else ()
        form = {
            "grant_type": "refresh_token",
            "refresh_token": tokens.refresh,
            **target(scopes, self.resource, self.audience),
        }
        try:
            facts = await facts_of(self._server, means)
            issued = await token_request(facts, self._client, form, ask, means)
        except InvalidGrant as error:
            await vault.remove(*place, version=held.version)
            raise _unconnected(ask, "has run out, or was taken back") from error
        except BaseException:
            await vault.claim(*place, version=held.version, for_ms=0)
            raise
        if not issued.scopes:
            issued = msgspec.structs.replace(issued, scopes=scopes or tokens.granted)
        kept = msgspec.structs.replace(tokens, refresh=issued.refresh or tokens.refresh)
        kept = _with_access(kept, ask.scopes, issued, means.now_ms())
        await self._save(vault, *place, kept, held.version)
        return credential_of(issued, ask)

    @staticmethod
    async def _save(vault: Vaulting, tenant: str, user: str, name: str, tokens: Tokens, over: int) -> bool:
        return bool(await vault.save(tenant, user, name, msgspec.json.encode(tokens), over=over))

    @property
    def _server(self) -> Server:
        return Server(self.issuer, self.token_url, self.authorize_url)

    @property
    def _client(self) -> Client:
        return Client(self.client_id, self.client_secret, self.auth)


def read_state(text: str, means: Means) -> Begun:
    """Read who began. Raises `InputError` for what is not of ours, or too old."""
    plain = _vault(means).open(text, about="state")
    if plain is None:
        raise InputError("is not one that was given out here; begin again", field="state")
    begun = msgspec.json.decode(plain, type=Begun)
    if means.now_ms() >= begun.until_ms:
        raise InputError(f"was given out more than {BEGUN_S // 60} minutes ago; begin again", field="state")
    return begun


def _vault(means: Means) -> Vaulting:
    if means.vault is None:
        raise CredentialError("nothing keeps users' tokens here", code="credential_missing")
    return means.vault


def _check_issuer(facts: Facts, redirect: Redirect) -> None:
    """Refuse an answer of another server than was asked (RFC 9207)."""
    if not facts.issuer:
        return
    if redirect.iss != facts.issuer if redirect.iss else facts.says_issuer:
        raise InputError(f"the answer is not of {facts.issuer}; begin again", field="iss")


def _word(error: str) -> str:
    said = "".join(char for char in error if char.isalnum() or char in "_-.")[:64]
    return said or "the answer has no code"


def _tokens(held: Sealed | None) -> Tokens | None:
    return msgspec.json.decode(held.body, type=Tokens) if held is not None and held.body else None


def _good(tokens: Tokens, scopes: tuple[str, ...], now_ms: int) -> Access | None:
    """Find a token for exactly these scopes that is not near its end; one without an end is good until it is refused."""
    fits = (found for found in tokens.access if set(found.asked) == set(scopes))
    return next((found for found in fits if not found.good_until_ms or now_ms < found.good_until_ms), None)


def _with_access(tokens: Tokens, asked: tuple[str, ...], issued: Issued, now_ms: int) -> Tokens:
    scopes = issued.scopes or tokens.granted
    good_ms = good_until_ms(issued.expires_ms, now_ms) if issued.expires_ms else 0
    access = Access(issued.access, asked, scopes, issued.expires_ms, good_ms)
    others = tuple(found for found in tokens.access if set(found.asked) != set(asked))
    return msgspec.structs.replace(tokens, access=(access, *others)[:_SETS])


def _unconnected(ask: Ask, what: str) -> CredentialError:
    text = (
        f"{ask.name} {what} for this user. Nothing was done. Ask them to connect it, then call again: "
        f"`stanchion connect {ask.name}`, or the link that GET /v1/connections/{ask.name}/authorize gives"
    )
    return CredentialError(text, code="credential_unconnected")
