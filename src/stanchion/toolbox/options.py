"""What a tool's author says of it besides its signature, checked where it is said."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import cast, get_args

from stanchion.core.bundle import READ_RESULT, EffectTier, RetryPolicy
from stanchion.core.errors import ConfigError

EFFECTS: tuple[str, ...] = get_args(EffectTier)
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_MAX_TIMEOUT_S = 86_400.0


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
) -> Options:
    """Check what was said; raises `ConfigError` naming the tool, the option and what it may be."""
    if not _NAME.fullmatch(name):
        raise ConfigError(f"tool {name!r}: a tool's name is 1 to 64 of a-z, A-Z, 0-9, _ and -; set it with name=")
    if name == READ_RESULT:
        raise ConfigError(f"tool {name!r}: this name is the built-in tool's; set another with name=")
    if effect not in EFFECTS:
        raise ConfigError(f"tool {name!r}: effect={effect!r} is none of {', '.join(map(repr, EFFECTS))}")
    seconds = cast("object", timeout_s)
    if not isinstance(seconds, int | float) or isinstance(seconds, bool) or not 0 < seconds <= _MAX_TIMEOUT_S:
        raise ConfigError(
            f"tool {name!r}: timeout_s={seconds!r} must be a number of seconds, above 0 and at most a day"
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
    )


def _retry(name: str, retries: int | RetryPolicy) -> RetryPolicy:
    if not isinstance(retries, RetryPolicy):
        return RetryPolicy(attempts=_whole(name, "retries", retries, least=0) + 1)
    _whole(name, "retries.attempts", retries.attempts, least=1)
    return retries


def _whole(name: str, option: str, value: object, *, least: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ConfigError(f"tool {name!r}: {option}={value!r} must be a whole number of at least {least}")
    return value
