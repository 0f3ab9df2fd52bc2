"""What a tool's author says of it besides its signature, checked where it is said."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import cast, get_args

from stanchion.core.bundle import BUILT_IN, EffectTier, RetryPolicy
from stanchion.core.errors import ConfigError

EFFECTS: tuple[str, ...] = get_args(EffectTier)
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_GROUP = re.compile(r"[a-zA-Z0-9_. -]{1,64}(/[a-zA-Z0-9_. -]{1,64}){0,7}")
_MAX_TIMEOUT_S = 86_400.0
_MAX_COUNT = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Breaker:
    """When a tool or a model that keeps failing is left alone: after so many failures in a row, for so long; then one call tries."""

    failures: int = 5
    open_s: float = 30.0


@dataclass(frozen=True, slots=True)
class ToolLimits:
    """What all workers together may do with a tool. 0: any number."""

    concurrency: int = 0
    rate: int = 0
    """Attempts in `rate_s` seconds."""
    rate_s: float = 60.0
    breaker: Breaker | None = None


@dataclass(frozen=True, slots=True)
class Options:
    """What a tool's author said of it besides its signature."""

    name: str
    effect: EffectTier
    timeout_s: float
    retry: RetryPolicy
    repeatable: bool
    max_result_chars: int
    strict: bool
    ends_run: bool
    version: str
    max_concurrency: int
    limits: ToolLimits | None = None
    """Shared by all workers; None: there are none."""
    group: str = ""
    essential: bool = False
    """Without it a run has no use."""


def read_options(
    *,
    name: str,
    effect: EffectTier,
    timeout_s: float,
    retries: int | RetryPolicy,
    repeatable: bool,
    max_result_chars: int,
    strict: bool,
    ends_run: bool,
    version: str,
    max_concurrency: int,
    essential: bool = False,
    concurrency: int = 0,
    rate: str = "",
    breaker: Breaker | None = None,
    group: str = "",
) -> Options:
    """Check what was said; raises `ConfigError` naming the tool, the option and what it may be."""
    if not _NAME.fullmatch(name):
        raise ConfigError(f"tool {name!r}: a tool's name is 1 to 64 of a-z, A-Z, 0-9, _ and -; set it with name=")
    if name in BUILT_IN:
        raise ConfigError(f"tool {name!r}: this name is the built-in tool's; set another with name=")
    if effect not in EFFECTS:
        raise ConfigError(f"tool {name!r}: effect={effect!r} is none of {', '.join(map(repr, EFFECTS))}")
    seconds = cast("object", timeout_s)
    if not isinstance(seconds, int | float) or isinstance(seconds, bool) or not 0 < seconds <= _MAX_TIMEOUT_S:
        raise ConfigError(
            f"tool {name!r}: timeout_s={seconds!r} must be a number of seconds, above 0 and at most a day"
        )
    if not isinstance(group, str) or (group and not _GROUP.fullmatch(group)):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ConfigError(
            f'tool {name!r}: group={group!r} must be words of letters, digits, "_", "." and "-", at most 8 of them with "/" between '
            'as in "billing/refunds"'
        )
    return Options(
        name=name,
        effect=effect,
        timeout_s=timeout_s,
        retry=_retry(name, retries),
        repeatable=repeatable,
        max_result_chars=_whole(name, "max_result_chars", max_result_chars, least=1),
        strict=strict,
        ends_run=ends_run,
        version=version,
        max_concurrency=_whole(name, "max_concurrency", max_concurrency, least=0),
        limits=_limits(name, concurrency, rate, breaker),
        group=group,
        essential=_flag(name, "essential", essential),
    )


_RATE = re.compile(r"\s*(\d+)\s*/\s*(?:(\d+(?:\.\d+)?)\s*)?(s|sec|second|min|m|minute|h|hour)\s*")
_UNITS_S = {"s": 1.0, "m": 60.0, "h": 3_600.0}


def _limits(name: str, concurrency: int, rate: str, breaker: Breaker | None) -> ToolLimits | None:
    if _whole(name, "concurrency", concurrency, least=0) > _MAX_COUNT:
        raise ConfigError(f"tool {name!r}: concurrency={concurrency!r} must be at most {_MAX_COUNT:,}")
    amount, rate_s = _rate(name, rate) if rate else (0, 60.0)
    if breaker is not None:
        check_breaker(f"tool {name!r}", breaker)
    return ToolLimits(concurrency, amount, rate_s, breaker) if concurrency or amount or breaker else None


def _rate(name: str, rate: object) -> tuple[int, float]:
    found = _RATE.fullmatch(rate) if isinstance(rate, str) else None
    if found is None or int(found[1]) < 1 or float(found[2] or 1) <= 0:
        raise ConfigError(f'tool {name!r}: rate={rate!r} must be a number of calls in a time, like "30/min" or "5/10s"')
    seconds = float(found[2] or 1) * _UNITS_S[found[3][0]]
    if not 1 <= seconds <= _MAX_TIMEOUT_S:
        raise ConfigError(f"tool {name!r}: rate={rate!r}: its time must be from a second to a day")
    if int(found[1]) > _MAX_COUNT:
        raise ConfigError(f"tool {name!r}: rate={rate!r} must be at most {_MAX_COUNT:,} calls in a time")
    return int(found[1]), seconds


def check_breaker(where: str, breaker: object) -> None:
    """Check a breaker. Raises `ConfigError` that begins with whose it is."""
    if not isinstance(breaker, Breaker):
        raise ConfigError(f"{where}: breaker={breaker!r} must be a Breaker(failures=.., open_s=..)")
    failures, open_s = cast("object", breaker.failures), cast("object", breaker.open_s)
    if not isinstance(failures, int) or isinstance(failures, bool) or failures < 1:
        raise ConfigError(f"{where}: breaker.failures={failures!r} must be a whole number of at least 1")
    if not isinstance(open_s, int | float) or isinstance(open_s, bool) or not 0 < open_s <= _MAX_TIMEOUT_S:
        raise ConfigError(f"{where}: breaker.open_s={open_s!r} must be a number of seconds, at most a day")


def _retry(name: str, retries: int | RetryPolicy) -> RetryPolicy:
    if not isinstance(retries, RetryPolicy):
        return RetryPolicy(attempts=_whole(name, "retries", retries, least=0) + 1)
    _whole(name, "retries.attempts", retries.attempts, least=1)
    return retries


def _flag(name: str, option: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise ConfigError(f"tool {name!r}: {option}={value!r} must be True or False")
    return value


def _whole(name: str, option: str, value: object, *, least: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ConfigError(f"tool {name!r}: {option}={value!r} must be a whole number of at least {least}")
    return value
