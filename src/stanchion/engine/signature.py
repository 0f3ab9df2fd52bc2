"""Signatures of webhooks by the Standard Webhooks specification (https://www.standardwebhooks.com), symmetric form.

What is signed is `id.timestamp.body`, with HMAC-SHA256 under the bytes that a `whsec_..` secret holds in base64. While a
secret takes another's place both sign, and a receiver accepts either.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import secrets as chance
import time
from collections.abc import Mapping, Sequence
from typing import Any, cast

from stanchion.core.errors import ConfigError, Unauthorized

PREFIX = "whsec_"
TOLERANCE_S = 300.0
"""How far the time of a message may lie from now: an older one may be a repetition by somebody else."""


def new_secret() -> str:
    """Make a secret of 256 bits."""
    return PREFIX + base64.b64encode(chance.token_bytes(32)).decode()


def sign(secret: str, id: str, timestamp_s: int, body: bytes) -> str:
    """Sign a message with one secret. Raises `ConfigError` for a secret that is none."""
    signed = f"{id}.{timestamp_s}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(_key(secret), signed, "sha256")).decode()


def signed_headers(secrets: Sequence[str], id: str, timestamp_s: int, body: bytes) -> dict[str, str]:
    """Make the headers of a message, signed with each of the secrets."""
    return {
        "webhook-id": id,
        "webhook-timestamp": str(timestamp_s),
        "webhook-signature": " ".join(sign(secret, id, timestamp_s, body) for secret in secrets),
    }


def verify_webhook(
    headers: Mapping[str, str], body: bytes | str, secret: str, *, tolerance_s: float = TOLERANCE_S
) -> dict[str, Any]:
    """Check that a webhook was signed with the secret a short time ago; return what it says, as a dict.

    `body` is the request's body as it came, byte for byte. Remember the `webhook-id` of what you have handled: a message may
    come more than once, always under the same id. Raises `Unauthorized`: answer 401, and do nothing.
    """
    given = {name.lower(): value for name, value in headers.items()}
    name, stamp, signatures = (given.get(f"webhook-{part}", "") for part in ("id", "timestamp", "signature"))
    if not (name and stamp and signatures):
        raise Unauthorized("this is no webhook: it lacks webhook-id, webhook-timestamp or webhook-signature")
    if not (stamp.isascii() and stamp.isdigit() and len(stamp) < 16):
        raise Unauthorized(f"webhook-timestamp {stamp[:20]!r} is no time")
    if abs(time.time() - int(stamp)) > tolerance_s:
        raise Unauthorized(f"the webhook is not of the last {tolerance_s:g} s; is a clock wrong, or was it kept back?")
    raw = body.encode() if isinstance(body, str) else body
    expected = sign(secret, name, int(stamp), raw).encode()
    if not any(hmac.compare_digest(expected, given.encode()) for given in signatures.split(" ")):
        raise Unauthorized("the webhook's signature is not of this secret, or its body was changed")
    return cast("dict[str, Any]", json.loads(raw))


def _key(secret: str) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not secret.startswith(PREFIX) or not 24 <= len(key) <= 64:
        raise ConfigError("a webhook's secret is `whsec_` and 24 to 64 bytes in base64; copy it whole")
    return key
