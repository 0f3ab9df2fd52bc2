"""Names that are made or accepted: ids of runs and sessions, API keys, budgets."""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from collections.abc import Collection

from stanchion.core.errors import InputError
from stanchion.core.routing import STEP_NAME

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_SESSION = re.compile(r"[a-zA-Z0-9_.:@-]{1,128}")
_LEDGER = re.compile(r"(all|tenant|user:[^/]{1,128}|session:[^/]{1,128})(/day|/month)?")
_WINDOW = re.compile(r"(.*/(?:day|month)):[0-9-]+", re.DOTALL)


def new_id(prefix: str) -> str:
    """Make an id that sorts by time: 48 bits of milliseconds and 32 of chance, in Crockford's base 32."""
    number = (time.time_ns() // 1_000_000) << 32 | secrets.randbits(32)
    return prefix + "".join(_ALPHABET[number >> shift & 31] for shift in range(75, -1, -5))


def checked(value: str, field: str) -> str:
    """Accept a name that a caller chose for a session or a user; "" is none. Raises `InputError`."""
    if value and not _SESSION.fullmatch(value):
        raise InputError("use 1 to 128 letters, digits and any of _ . : @ -", field=field)
    return value


def checked_step(step: str, table: Collection[str]) -> str:
    """Accept a type of step that an agent's table has a row for, or any where it has none; "" is none. Raises `InputError`."""
    if step and not STEP_NAME.fullmatch(step):
        raise InputError("use small letters, digits, '_' and '-', at most 32, a letter first", field="step")
    if step and table and step not in table:
        raise InputError(
            f"the agent's routing table has no row {step!r}; it has {', '.join(sorted(table))}", field="step"
        )
    return step


def checked_ledger(name: str) -> str:
    """Accept a budget's name. Raises `InputError`."""
    if not _LEDGER.fullmatch(name):
        raise InputError(
            f'{name!r} is no budget: use "all", "tenant", "user:ann" or "session:s1", with /day or /month',
            field="ledger",
        )
    return name


def without_window(ledger: str) -> str:
    """Name a budget without its window: "tenant/day:2026-11-20" is one of "tenant/day"."""
    found = _WINDOW.fullmatch(ledger)
    return found[1] if found else ledger


def new_secret() -> str:
    """Make an API key: 256 bits."""
    return "sk-st-" + secrets.token_urlsafe(32)


def secret_hash(secret: str) -> bytes:
    """Hash an API key for keeping. A plain hash will do: the key is random and long."""
    return hashlib.sha256(secret.encode()).digest()
