"""Where webhooks may go: a tenant names a URL, and must not reach by it what only this machine or its network can reach.

The address is checked when the connection is made, on the address itself: a name that was public when it was looked up
first may be private the next time. Redirects are not followed and no proxy of the environment is used.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from stanchion.core.errors import InputError

_MAX_URL = 2_000
_V4_WITHIN = (ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("64:ff9b:1::/48"))
"""NAT64: an IPv4 address in the last four bytes."""
FORBIDDEN = "is no public address"


def is_public(address: str) -> bool:
    """Say whether an IP address belongs to the internet, and not to this machine or a network behind it."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address):
        within = found.ipv4_mapped or found.sixtofour or (found.teredo and found.teredo[1])
        if within is None and any(found in network for network in _V4_WITHIN):
            within = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        if within is not None:
            return is_public(str(within))
    return found.is_global and not found.is_multicast and not found.is_reserved


def check_url(url: str, *, allow_private: bool, field: str = "url") -> str:
    """Accept the URL of a receiver, as far as it can be told without looking its name up. Raises `InputError`."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise InputError(f"{url[:100]!r} is no URL ({error})", field=field) from None
    if parts.scheme not in ("https", "http") or not host or port == 0 or len(url) > _MAX_URL or not url.isprintable():
        raise InputError(f"{url[:100]!r} is no URL like https://example.com/hooks", field=field)
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise InputError("leave user, password and #fragment out; who posts is known by the signature", field=field)
    if allow_private:
        return url
    if parts.scheme != "https":
        raise InputError(
            "must begin with https:// (the operator may allow others: STANCHION_WEBHOOK_ALLOW_PRIVATE=1)", field=field
        )
    if host == "localhost" or host.endswith(".localhost") or (_is_address(host) and not is_public(host)):
        text = f"{host} {FORBIDDEN}; the operator may allow such receivers: STANCHION_WEBHOOK_ALLOW_PRIVATE=1"
        raise InputError(text, field=field)
    return url


def origin_of(url: str) -> str:
    """Name the receiver that a URL belongs to: scheme, host and port."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.lower()}"


def connector(*, allow_private: bool, limit: int) -> aiohttp.TCPConnector:
    """Make the connector that posts: it makes no socket for an address that is not public."""

    def make(address: Any) -> socket.socket:
        family, kind, protocol, _, place = address
        if not allow_private and not is_public(str(place[0])):
            raise PermissionError(errno.EACCES, f"{place[0]} {FORBIDDEN}")
        made = socket.socket(family=family, type=kind, proto=protocol)
        made.setblocking(False)
        return made

    return aiohttp.TCPConnector(limit=limit, socket_factory=make, keepalive_timeout=15.0)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True
