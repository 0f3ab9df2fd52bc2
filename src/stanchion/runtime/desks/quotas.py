"""Shared limits of providers as people write them: "anthropic rpm=50 tpm=40000", in options and in `STANCHION_QUOTAS`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from stanchion.core.errors import ConfigError, InputError
from stanchion.journal.quota import BreakerRow, Pause, Quota, Usage
from stanchion.journal.store import Store
from stanchion.model.providers import PROVIDERS, family

ENVIRONMENT = "STANCHION_QUOTAS"
_COUNTS = ("rpm", "tpm", "itpm", "otpm")
_FORM = 'write it like "anthropic rpm=50 tpm=40000" or "openai:gpt-5 rpm=500"'
MAX_WINDOW_S = 86_400.0
MAX_COUNT = 1_000_000_000


class QuotasView(msgspec.Struct, frozen=True):
    """What is set, what counts now, what is closed for a time, and which breakers are not closed."""

    quotas: tuple[Quota, ...]
    usage: tuple[Usage, ...]
    pauses: tuple[Pause, ...]
    breakers: tuple[BreakerRow, ...]


class Limiting:
    """The shared limits of providers in one store: `Runtime.quotas`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def view(self) -> QuotasView:
        """Show what is set in the store, what counts now, what is closed and what is broken."""
        signals, usage = await self._store.quotas.signals(), await self._store.quotas.usage()
        return QuotasView(signals.quotas, tuple(usage), signals.pauses, signals.breakers)

    async def set(self, quota: str | Quota) -> Quota:
        """Keep a limit of a provider; all workers hear of it within seconds. Raises `InputError`."""
        found = parse_quota(quota, field="quota") if isinstance(quota, str) else quota
        found = checked_quota(found, "quota")
        await self._store.quotas.set_quota(found)
        return found

    async def drop(self, name: str) -> bool:
        """Forget a limit. False: there is none."""
        return await self._store.quotas.drop_quota(quota_name(name))


def quotas_json(view: QuotasView) -> dict[str, Any]:
    """Give the view as surfaces show it: times in seconds, a breaker by its tool and state."""
    return {
        "quotas": [quota_json(quota) for quota in view.quotas],
        "usage": [msgspec.to_builtins(row) for row in view.usage],
        "closed": [{"name": pause.name, "for_s": round(pause.for_ms / 1000, 1)} for pause in view.pauses],
        "breakers": [
            {
                **_whose(row.name),
                "state": "open" if row.for_ms > 0 else "half_open",
                "for_s": round(max(row.for_ms, 0) / 1000, 1),
            }
            for row in view.breakers
        ],
    }


def _whose(breaker: str) -> dict[str, str]:
    kind, _, name = breaker.partition(":")
    return {"tool": name if kind == "tool" else "", "model": name if kind == "model" else ""}


def quota_json(quota: Quota) -> dict[str, Any]:
    """Give a limit; null is what is not limited."""
    counts = {name: getattr(quota, name) or None for name in _COUNTS}
    return {"name": quota.name, **counts, "window_s": quota.window_s}


def read_quotas(given: Sequence[str | Quota], environment: Mapping[str, str]) -> tuple[Quota, ...]:
    """Read the limits that a process is started with; what is given beats the environment. Raises `ConfigError`."""
    texts = [text for text in environment.get(ENVIRONMENT, "").split(";") if text.strip()]
    found: dict[str, Quota] = {}
    for field, item in [*((ENVIRONMENT, text) for text in texts), *(("quotas", item) for item in given)]:
        try:
            quota = checked_quota(parse_quota(item, field) if isinstance(item, str) else item, field)
        except InputError as error:
            raise ConfigError(str(error)) from None
        found[quota.name] = quota
    return tuple(found.values())


def parse_quota(text: str, field: str) -> Quota:
    """Read a limit. Raises `InputError`."""
    words = text.split()
    if not words:
        raise InputError(f"a limit is empty; {_FORM}", field=field)
    counts: dict[str, int] = {}
    window_s = 60.0
    for word in words[1:]:
        name, sign, value = word.partition("=")
        if name == "window_s" and sign:
            window_s = _number(value, word, field)
        elif name in _COUNTS and sign:
            counts[name] = int(_number(value.replace("_", ""), word, field))
        else:
            raise InputError(f"{word!r} is none of {', '.join(_COUNTS)} and window_s; {_FORM}", field=field)
    return Quota(words[0], **counts, window_s=window_s)


def checked_quota(quota: Quota, field: str) -> Quota:
    """Check a limit, and name its provider as it is counted. Raises `InputError`."""
    provider, colon, model = quota.name.partition(":")
    if provider not in PROVIDERS:
        known = ", ".join(sorted({family(name) for name in PROVIDERS}))
        raise InputError(f"{quota.name!r}: there is no provider {provider!r}; there are {known}", field=field)
    if colon and not model:
        raise InputError(f"{quota.name!r} names no model; {_FORM}", field=field)
    counts = [getattr(quota, name) for name in _COUNTS]
    if not any(counts) or any(count < 0 for count in counts):
        raise InputError(f"{quota.name!r}: give at least one of rpm=, tpm=, itpm=, otpm=, above 0", field=field)
    if max(counts) > MAX_COUNT:  # (the stores count in 64 bits, and a worker whose counts fail lets nothing go)
        raise InputError(f"{quota.name!r}: a limit must be at most {MAX_COUNT:,}, not {max(counts):,}", field=field)
    if 0 < quota.tpm < 2:
        raise InputError(f"{quota.name!r}: tpm={quota.tpm} is less than any call takes", field=field)
    if not 1 <= quota.window_s <= MAX_WINDOW_S:
        raise InputError(f"{quota.name!r}: window_s={quota.window_s:g} must be from 1 to {MAX_WINDOW_S:g}", field=field)
    return msgspec.structs.replace(quota, name=quota_name(quota.name))


def quota_name(name: str) -> str:
    """Name a limit as it is counted: providers that take one key have one."""
    provider, colon, model = name.partition(":")
    return f"{family(provider) if provider in PROVIDERS else provider}{colon}{model}"


def _number(value: str, word: str, field: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not number > 0 or math.isinf(number):
        raise InputError(f"{word!r}: give a number above 0; {_FORM}", field=field)
    return number
