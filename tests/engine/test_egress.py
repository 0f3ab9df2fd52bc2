"""Where webhooks may not go: addresses that only this machine or its network reaches, whatever they are called."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import aiohttp
import pytest
from aiohttp.abc import AbstractResolver

from stanchion.core.errors import InputError
from stanchion.engine.egress import FORBIDDEN, check_url, connector, is_public, origin_of

PRIVATE = [
    "127.0.0.1", "127.8.8.8", "0.0.0.0", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "169.254.169.254",
    "100.64.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255", "192.0.2.1", "198.18.0.1", "::", "::1", "fe80::1",
    "fe80::1%eth0", "fc00::1", "fd12::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::127.0.0.1",
    "64:ff9b::a00:1", "2002:7f00:1::", "2002:a9fe:a9fe::1", "2001:db8::1", "not an address", "",
]  # fmt: skip


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses(address: str) -> None:
    """Loopback, private, link-local (cloud metadata), shared, multicast, reserved; and IPv4 dressed as IPv6."""
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"]
)
def test_public_addresses(address: str) -> None:
    """Addresses of the internet."""
    assert is_public(address)


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/x", "https://localhost/x", "https://a.localhost/", "https://127.0.0.1/", "https://[::1]/",
        "https://10.1.2.3/x", "https://user:pass@example.com/", "https://example.com/#x", "ftp://example.com/", "example.com",
        "https://", "https://example.com:99999/", "https://example.com:0/", "https://[::1", "https://exa\nmple.com/",
        "https://example.com/" + "x" * 2_000,
    ],
)  # fmt: skip
def test_urls_that_are_refused_at_once(url: str) -> None:
    """What can be told from the URL alone names the field."""
    with pytest.raises(InputError) as refused:
        check_url(url, allow_private=False)
    assert refused.value.field == "url"


def test_urls_that_are_accepted() -> None:
    """A receiver's URL; and with the operator's word also one on this machine."""
    assert check_url("https://example.com:8443/hooks?x=1", allow_private=False)
    assert check_url("http://127.0.0.1:8000/", allow_private=True)
    assert origin_of("https://Example.com:8443/hooks") == "https://example.com:8443"


class Rebinding(AbstractResolver):
    """A name that is looked up to this machine, as an attacker's may be at the second look."""

    async def resolve(self, host: str, port: int = 0, family: Any = socket.AF_INET) -> list[Any]:
        found = {"hostname": host, "host": "127.0.0.1", "port": port, "family": socket.AF_INET, "proto": 0, "flags": 0}
        return [found]

    async def close(self) -> None: ...


@pytest.mark.parametrize("host", ["innocent.example", "127.0.0.1", "2130706433", "127.1"])
async def test_the_address_is_checked_when_the_connection_is_made(host: str) -> None:
    """A public name with a private address, an address itself, and other spellings of one: no connection is made."""
    came: list[Any] = []
    server = await asyncio.start_server(lambda reader, writer: came.append(writer), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    made = connector(allow_private=False, limit=1)
    if host == "innocent.example":
        made._resolver = Rebinding()
    try:
        async with aiohttp.ClientSession(connector=made) as session:
            with pytest.raises(aiohttp.ClientError, match=f"{FORBIDDEN}|not a canonical"):
                await session.post(f"http://{host}:{port}/")
    finally:
        server.close()
        await server.wait_closed()
    assert not came
