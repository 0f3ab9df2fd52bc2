"""The sources of time and chance of a simulated process: what the runtime takes from `time` and `secrets` comes from here.

The ports have their own (`Clock`); these are the places that read the machine. They are put in place for the whole of a
simulation and given back after it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from types import SimpleNamespace
from typing import Any

from stanchion.engine import perform
from stanchion.engine.worker import WorkerSettings
from stanchion.runtime import driving, name
from stanchion.runtime.desks import keys
from stanchion.runtime.runs import starting
from tests.simulation.loop import SimLoop

START_MS = 1_767_225_600_000
"""2026-01-01 00:00 UTC, of the world's clock."""


class SkewedClock:
    """A machine's wall clock: the world's, and off by so much."""

    def __init__(self, loop: SimLoop, rng: Random, skew_ms: int) -> None:
        self.skew_ms = skew_ms
        self._loop = loop
        self._rng = rng

    def now_ms(self) -> int:
        return START_MS + int(self._loop.time() * 1000) + self.skew_ms

    def draw(self) -> float:
        return self._rng.random()


@contextmanager
def virtual(loop: SimLoop, rng: Random, settings: dict[str, Any]) -> Iterator[None]:
    """Put virtual time and seeded chance in place."""
    time = SimpleNamespace(
        monotonic=lambda: 1.0 + loop.time(),
        time_ns=lambda: START_MS * 1_000_000 + int(loop.time() * 1e9),
        time=lambda: START_MS / 1000 + loop.time(),
    )
    secrets = SimpleNamespace(
        randbits=rng.getrandbits, token_urlsafe=lambda size: f"{rng.getrandbits(8 * size):x}", token_bytes=rng.randbytes
    )
    places: list[tuple[Any, str, Any]] = [
        (name, "time", time),
        (name, "secrets", secrets),
        (keys, "time", time),
        (starting, "time", time),
        (perform, "time", time),
        (driving, "WorkerSettings", functools.partial(WorkerSettings, **settings)),
    ]
    kept = [(module, attribute, getattr(module, attribute)) for module, attribute, _ in places]
    for module, attribute, value in places:
        setattr(module, attribute, value)
    try:
        yield
    finally:
        for module, attribute, value in kept:
            setattr(module, attribute, value)
