"""The broker of one agent: it asks the source that a name stands for, and gives a tool no more than the agent was given."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import cast

from stanchion.broker.port import Ask, Means, Source
from stanchion.core.bundle import ToolSpec
from stanchion.core.credential import Credential
from stanchion.core.errors import ConfigError, CredentialError

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,48}")


class Broker:
    """The credentials of one agent, by name."""

    def __init__(self, sources: Mapping[str, Source]) -> None:
        self.sources = dict(sources)
        self._means: Means | None = None

    def open(self, means: Means) -> None:
        """Say what sources work with."""
        self._means = means

    def adapter(self, name: str) -> str:
        """Name the kind of a source; "": there is none of this name."""
        source = self.sources.get(name)
        return source.adapter if source is not None else ""

    async def mint(self, ask: Ask, allowed: Mapping[str, tuple[str, ...]]) -> Credential:
        """Make a credential for one attempt, within what the agent is allowed (name -> scopes). Raises `CredentialError`."""
        source, means = self.sources.get(ask.name), self._means
        if source is None or means is None or ask.name not in allowed:
            raise CredentialError(f"this agent has no credential {ask.name!r}", code="credential_missing")
        if beyond := [scope for scope in ask.scopes if scope not in allowed[ask.name]]:
            raise CredentialError(f"this agent may not have {', '.join(beyond)} of {ask.name!r}")
        try:
            made = await source.mint(ask, means)
        except CredentialError:
            raise
        except ConfigError as error:  # what it works with is not set
            raise CredentialError(str(error), code="credential_missing") from error
        except Exception as error:  # a source of somebody else: its words may hold the secret
            text = f"the credential {ask.name!r} could not be had ({type(error).__name__})"
            raise CredentialError(text, code="credential_unavailable", retryable=True) from None
        if not made.value:
            raise CredentialError(f"the credential {ask.name!r} is empty", code="credential_missing")
        means.minted(ask.name, made.value)
        return made


def check_needs(agent: str, tools: Mapping[str, ToolSpec], sources: Mapping[str, Source]) -> None:
    """Check that an agent has what its tools need. Raises `ConfigError`."""
    for spec in tools.values():
        for needs in spec.needs.values():
            where = f"agent {agent!r}: its tool {spec.name!r} needs the credential {needs.name!r}"
            source = sources.get(needs.name)
            if source is None:
                raise ConfigError(f"{where}; say where it comes from: credentials={{{needs.name!r}: Environment(..)}}")
            if beyond := [scope for scope in needs.scopes if scope not in source.scopes]:
                raise ConfigError(f"{where} with {', '.join(beyond)}, which is not among the source's scopes=")


def checked_sources(agent: str, given: object) -> Mapping[str, Source]:
    """Check an agent's credentials. Raises `ConfigError`; nothing of a value is shown, for it may be the secret."""
    if not isinstance(given, Mapping):
        raise ConfigError(f"agent {agent!r}: credentials must be a dict of names and sources")
    sources = cast("Mapping[str, object]", given)
    for name, source in sources.items():
        where = f"agent {agent!r}: credentials[{name!r}]"
        if not _NAME.fullmatch(name):
            raise ConfigError(f"{where}: a name is 1 to 48 letters, digits, '_', '-' or '.'")
        if not callable(getattr(source, "mint", None)):
            raise ConfigError(
                f'{where} must be a source, such as Environment("CRM_TOKEN"), not a {type(source).__name__}'
            )
        scopes: object = getattr(source, "scopes", None)
        if not isinstance(scopes, tuple) or not all(
            isinstance(scope, str) for scope in cast("tuple[object, ...]", scopes)
        ):
            raise ConfigError(f'{where}: scopes must be a tuple of words, like scopes=("contacts.read",)')
    return cast("Mapping[str, Source]", sources)
