"""Whose turn it is: what tenants had of late on this worker, so that all get their share of its slots. Pure.

Each tenant has a *next turn* on a scale that goes up with what is done: a run that it takes puts its next turn off by
1 / weight. Who is earliest goes first (start-time fair queueing). One that comes new, or had nothing to do, begins at the
level of who went last: it neither waits for what others have queued nor gets back what it did not use. So with runs queued
by several, each gets runs in proportion to its weight, however few the slots are, and a newcomer's first goes at once.

A tenant whose runs hold a slot more than twice as long as those of its class, as learnt of late, is charged that much more
for each; one whose runs are that much shorter, less. Within a factor of two runs are runs: chance and stalls of the
machine are not to move shares.
"""

from __future__ import annotations

import math

from stanchion.journal.share import Ahead

_CLASS_SMOOTH = 0.1
_OWN_SMOOTH = 0.05
"""How much of a learnt length the last run is: of the class, and of a tenant beside it."""
_ALIKE = math.log(2)
_MOST = math.log(10)
"""A tenant of runs of a day does not wait for a week."""
_KNOWN = 10_000
"""Tenants whose lengths are remembered while nobody waits."""


class Turns:
    """The turns of one worker's slots."""

    def __init__(self) -> None:
        self._next: dict[tuple[int, str], float] = {}
        self._level: dict[int, float] = {}
        """Where the run that went last began, by class."""
        self._length: dict[int, float] = {}
        """Logarithm of the length of a class's runs."""
        self._own: dict[tuple[int, str], float] = {}
        """How much longer a tenant's runs are than its class's: the difference of the logarithms."""

    def ahead(self) -> Ahead:
        """Tell how far each tenant's next turn lies ahead, by class and tenant."""
        return {
            place: left for place, turn in self._next.items() if (left := turn - self._level.get(place[0], 0.0)) > 0
        }

    def begin(self, priority: int, tenant: str, weight: int) -> float:
        """Charge a run that begins; give the charge."""
        level = self._level.get(priority, 0.0)
        turn = max(self._next.get((priority, tenant), 0.0), level)
        longer = self._own.get((priority, tenant), 0.0)
        charge = (math.exp(max(-_MOST, min(longer, _MOST))) if abs(longer) > _ALIKE else 1.0) / weight
        self._next[priority, tenant] = turn + charge
        self._level[priority] = turn
        return charge

    def undo(self, priority: int, tenant: str, charge: float) -> None:
        """Take back the charge of a run that was not had."""
        if (priority, tenant) in self._next:
            self._next[priority, tenant] -= charge

    def end(self, priority: int, tenant: str, held_s: float) -> None:
        """Learn from a run that held a slot for so long."""
        length = math.log(max(held_s, 0.001))
        usual = self._length.get(priority, length)
        own = self._own.get((priority, tenant), 0.0)
        self._own[priority, tenant] = own + (length - usual - own) * _OWN_SMOOTH
        self._length[priority] = usual + (length - usual) * _CLASS_SMOOTH

    def forget(self) -> None:
        """Begin even: nobody waits."""
        self._next.clear()
        self._level.clear()
        if len(self._own) > _KNOWN:
            self._own.clear()
