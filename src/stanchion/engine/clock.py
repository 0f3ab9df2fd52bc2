"""Time and chance, handed in so that a test can hold them."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Protocol


class Clock(Protocol):
    """What the pure rooms may not have."""

    def now_ms(self) -> int:
        """Milliseconds since 1970 UTC."""
        ...

    def draw(self) -> float:
        """A number from [0, 1), uniform."""
        ...


class StoreClock:
    """The store's, where many machines share it: their own may be a minute apart."""

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self.now_ms = now_ms

    def draw(self) -> float:
        """Draw from the process's generator."""
        return random.random()


class SystemClock:
    """The machine's."""

    def now_ms(self) -> int:
        """Read the wall clock."""
        return time.time_ns() // 1_000_000

    def draw(self) -> float:
        """Draw from the process's generator."""
        return random.random()
