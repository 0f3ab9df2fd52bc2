"""The engine's port: who brings the news that a run may have work to a worker that can drive it.

Safety is the journal's, liveness is the engine's. The run's row is the only truth about what may be driven, and a claim
decides who drives; an engine says *when* to look, and never *that* something is so. A hint may be late, lost or doubled,
or name a run that another worker drives, that has ended, or that never was: no harm comes of it. What an engine loses, it
must find in the rows: whatever is runnable and leased by nobody is taken up within seconds, without any hint.

Any engine must pass `stanchion.testing.exercise_engine`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol, TypeAlias

from stanchion.engine.clock import Clock
from stanchion.journal.store import Store


class Driver(Protocol):
    """The worker, as an engine sees it. Nothing here raises but `take_ready`; all of it is called in the event loop."""

    def poke(self, tenant: str, run: str) -> bool:
        """Have a run that is driven here look into its inbox. False: it is not driven here."""
        ...

    def poke_all(self) -> None:
        """Have all runs that are driven here look, and all that are watched here: anything may have changed."""
        ...

    def activate(self, tenant: str, run: str) -> asyncio.Event:
        """Claim a run that has begun, if it can be, and drive it; one that has not begun waits its turn.

        The event is set when this worker has nothing to do with the run, or no more.
        """
        ...

    async def take_ready(self) -> None:
        """Claim what may be driven and is not, in the order in which it goes, as far as there is room. Raises `JournalError`."""
        ...


class Engine(Protocol):
    """Brings hints to workers. One for each worker."""

    async def open(self, driver: Driver) -> None:
        """Begin; first take up whatever is there."""
        ...

    def hint(self, tenant: str, run: str) -> None:
        """Say that a run which is not driven here may have work: this worker, or another, is to activate it."""
        ...

    def look(self) -> None:
        """Say that there is room, or that something may have become ready or due."""
        ...

    async def aclose(self) -> None:
        """Take up nothing more. What is driven goes on, and is still told of news."""
        ...


MakeEngine: TypeAlias = Callable[[Store, Clock], Engine]
"""Makes the engine of a worker."""
