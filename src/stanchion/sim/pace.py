"""Send streams at token speed: one ticker for all streams instead of a timer for each event of each.

Beats fall due on a grid of `GRID_S`; one timer wakes for the next grid line that has something due and writes what is due
for every stream, straight to its transport. A beat is never early, at most a grid line late, and lateness does not add up.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

from stanchion.sim.script import Pacing

GRID_S = 0.005


class Playing:
    """One stream on its way. `sent` counts the beats that were written."""

    __slots__ = ("_beats", "_dues", "done", "sent", "transport")

    def __init__(
        self, transport: asyncio.Transport, beats: Sequence[bytes], dues: Sequence[int], done: asyncio.Future[None]
    ) -> None:
        self.transport = transport
        self._beats = beats
        self._dues = dues
        self.done = done
        self.sent = 0

    @property
    def due(self) -> int:
        """The grid line of the next beat."""
        return self._dues[self.sent]

    def write(self, line: int) -> bool:
        """Write the beats that are due as HTTP chunks; say whether any remain."""
        if self.done.done() or self.transport.is_closing():
            self.finish()
            return False
        end = self.sent + 1
        while end < len(self._beats) and self._dues[end] <= line:
            end += 1
        data = self._beats[self.sent] if end == self.sent + 1 else b"".join(self._beats[self.sent : end])
        try:
            self.transport.write(b"%x\r\n%b\r\n" % (len(data), data))
        except (OSError, RuntimeError):
            # One connection that died in this moment must not stop the ticker of all.
            self.finish()
            return False
        self.sent = end
        if end < len(self._beats):
            return True
        self.finish()
        return False

    def finish(self) -> None:
        """Wake whoever waits for the end."""
        if not self.done.done():
            self.done.set_result(None)


class Ticker:
    """Writes the beats of all streams."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._lines: dict[int, list[Playing]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._next = 0

    async def play(self, playing: Playing) -> None:
        """Send a stream's beats; return when the last is written or the client has gone."""
        self._add(playing)
        await playing.done

    def start(self, transport: asyncio.Transport, beats: Sequence[bytes], pacing: Pacing, seed: str) -> Playing:
        """Plan a stream from now on."""
        planned = dues(self._loop.time(), len(beats), pacing, seed)
        return Playing(transport, beats, planned, self._loop.create_future())

    def _add(self, playing: Playing) -> None:
        line = playing.due
        self._lines.setdefault(line, []).append(playing)
        if self._timer is None or line < self._next:
            self._arm(line)

    def _arm(self, line: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._next = line
        self._timer = self._loop.call_at(line * GRID_S, self._tick)

    def _tick(self) -> None:
        self._timer = None
        now = int(self._loop.time() / GRID_S + 1e-6)
        for line in sorted(x for x in self._lines if x <= max(now, self._next)):
            for playing in self._lines.pop(line):
                if playing.write(max(now, line)):
                    self._lines.setdefault(playing.due, []).append(playing)
        if self._lines:
            self._arm(min(self._lines))


def dues(now: float, n: int, pacing: Pacing, seed: str) -> list[int]:
    """Plan the grid lines of n beats, the first an interval from now."""
    dice = random.Random(seed)
    at = now
    lines: list[int] = []
    for _ in range(n):
        at += pacing.interval_s * (1 + pacing.jitter * dice.uniform(-1, 1) if pacing.jitter else 1)
        lines.append(-int(-at // GRID_S))
    return lines
