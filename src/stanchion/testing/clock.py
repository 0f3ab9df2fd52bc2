"""`FakeClock`: time that stands still until a test moves it, and chance that is always the same.

    clock = FakeClock()
    async with await Runtime.open(agent, data=path, clients={"*": model}, clock=clock) as runtime:
        ...
        clock.advance(86_400)     # an approval that expires in a day has expired; the worker sees it within half a second

It is the clock of events, deadlines, leases and timers. Real seconds still pass for timeouts of calls in flight.
"""

from __future__ import annotations

START_MS = 1_767_225_600_000
"""2026-01-01 00:00 UTC."""


class FakeClock:
    """A clock that a test moves."""

    def __init__(self, now_ms: int = START_MS, *, draw: float = 0.5) -> None:
        self._now_ms = now_ms
        self._draw = draw

    def now_ms(self) -> int:
        """Milliseconds since 1970 UTC."""
        return self._now_ms

    def draw(self) -> float:
        """The same number each time."""
        return self._draw

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._now_ms += int(seconds * 1000)
