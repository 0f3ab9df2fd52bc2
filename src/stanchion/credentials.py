"""Where a tool's credentials come from, in the words of an agent's author.

    from stanchion.credentials import ClientCredentials, Credential, Environment, Keyring, Needs, UserDelegation

A source of one's own is any frozen object with `adapter`, `scopes` and `async mint(ask, means)` (`Source`).
"""

from __future__ import annotations

from stanchion.broker.delegation import UserDelegation
from stanchion.broker.environment import Environment
from stanchion.broker.keyring import Keyring
from stanchion.broker.oauth import ClientCredentials
from stanchion.broker.port import Ask, Means, Source
from stanchion.core.credential import Credential, Needs
from stanchion.core.errors import CredentialError

__all__ = [
    "Ask",
    "ClientCredentials",
    "Credential",
    "CredentialError",
    "Environment",
    "Keyring",
    "Means",
    "Needs",
    "Source",
    "UserDelegation",
]
