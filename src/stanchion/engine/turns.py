"""Whose turn it is: what tenants had of late on this worker, so that all get their share of its slots. Pure.

Each tenant has a *next turn* on a scale that goes up with what is done: a run that it takes puts its next turn off by
1 / weight. Who is earliest goes first (start-time fair queueing). One that comes new, or had nothing to do, begins at the
level of who went last: it neither waits for what others have queued nor gets back what it did not use. So with runs queued
by several, each gets runs in proportion to its weight, however few the slots are, and a newcomer's first goes at once.

What a run takes of a slot is known when it ends: it is charged as one run of mean length, and put right at its end. A
tenant of long runs takes turns less often, and the shares are of time, not of runs.
"""

from __future__ import annotations

from stanchion.journal.share import Ahead

_SMOOTH = 0.05
"""How much of the mean length the last run is."""
_LONGEST = 10.0
"""Mean lengths that a run is charged at most: one of a day does not keep its tenant out for a week."""


class Turns:
    """The turns of one worker's slots."""

    def __init__(self) -> None:
        self._next: dict[tuple[int, str], float] = {}
        self._level: dict[int, float] = {}
        """Where the run that went last began, by class."""
        self._mean_s: dict[int, float] = {}

    def ahead(self) -> Ahead:
        """Tell how far each tenant's next turn lies ahead, by class and tenant."""
        return {
            place: left for place, turn in self._next.items() if (left := turn - self._level.get(place[0], 0.0)) > 0
        }

    def begin(self, priority: int, tenant: str, weight: int) -> None:
        """Charge a run that begins."""
        level = self._level.get(priority, 0.0)
        turn = max(self._next.get((priority, tenant), 0.0), level)
        self._next[priority, tenant] = turn + 1 / weight
        self._level[priority] = turn

    def undo(self, priority: int, tenant: str, weight: int) -> None:
        """Take back the charge of a run that was not had."""
        if (priority, tenant) in self._next:
            self._next[priority, tenant] -= 1 / weight

    def end(self, priority: int, tenant: str, weight: int, held_s: float) -> None:
        """Put a run's charge right: it held a slot for so long."""
        mean_s = self._mean_s.get(priority, held_s)
        self._mean_s[priority] = mean_s + (held_s - mean_s) * _SMOOTH
        if mean_s > 0 and (priority, tenant) in self._next:
            self._next[priority, tenant] += (min(held_s / mean_s, _LONGEST) - 1) / weight

    def forget(self) -> None:
        """Begin even: nobody waits."""
        self._next.clear()
        self._level.clear()
