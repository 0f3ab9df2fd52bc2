"""Time and chance, handed in so that a test can hold them."""

from __future__ import annotations

import random
import time
from typing import Protocol


class Clock(Protocol):
    """What the pure rooms may not have."""

    def now_ms(self) -> int:
        """Milliseconds since 1970 UTC."""
        ...

    def draw(self) -> float:
        """A number from [0, 1), uniform."""
        ...


class SystemClock:
    """The machine's."""

    def now_ms(self) -> int:
        """Read the wall clock."""
        return time.time_ns() // 1_000_000

    def draw(self) -> float:
        """Draw from the process's generator."""
        return random.random()
