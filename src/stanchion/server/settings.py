"""What can be set of the HTTP server."""

from __future__ import annotations

from typing import Literal

import msgspec


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of `stanchion serve`. Each is an option of the command or an argument of `serve(...)`."""

    host: str = "127.0.0.1"
    """Address to listen on. Anything but the loopback needs an API key in the store."""
    port: int = 8420
    """Port to listen on; 0: a free one, which is printed."""
    grace_s: float = 10.0
    """From SIGTERM to the end: what is in flight finishes or is journaled within this time."""
    heartbeat_s: float = 15.0
    """An event stream without news gets a comment this often, so that no proxy takes it for dead."""
    send_timeout_s: float = 60.0
    """A client that takes nothing for so long is cut off; it can attach again where it was."""
    max_streams: int = 10_000
    """Event streams open at once, over all tenants; one more is answered 429."""
    max_body_bytes: int = 1_000_000
    """Largest request body; a larger one is answered 413."""
    body_timeout_s: float = 30.0
    """Time in which a request's body must have come."""
    wait_s: float = 60.0
    """How long `mode: "wait"` waits where the request does not say."""
    max_wait_s: float = 600.0
    """The longest that a request may wait."""
    access_log: bool = False
    """Write a line per request."""
    log: Literal["text", "json", "off"] = "text"
    """Form of the log on standard error, one line per record; "off" leaves Python's logging as it is."""
