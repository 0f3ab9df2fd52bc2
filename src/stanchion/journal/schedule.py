"""The port of schedules: runs that are to start at certain times. Part of the store's (`Store.schedules`).

A row says when it is due next. Whoever sees it due starts the run under an idempotency key made of the row's name and that
time, and then moves the row, if it still stands at that time: a crash between the two starts the same run again, which
is no second run. The store knows nothing of cron: it compares times, by its own clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import msgspec

IfBusy = Literal["skip", "queue"]
"""What becomes of a time at which the schedule's session has a live run."""
IfMissed = Literal["run_once", "skip"]
"""What becomes of times that passed while nobody was there to start the run."""


class Schedule(msgspec.Struct, frozen=True, kw_only=True):
    """A schedule's row."""

    tenant: str
    name: str
    agent: str
    input: str
    cron: str
    """A cron expression of five fields, or "@every 5m"."""
    tz: str = "UTC"
    """IANA name of the time zone that the expression is read in."""
    session: str = ""
    """The session of all its runs; "": a new one for each."""
    user: str = ""
    if_busy: IfBusy = "skip"
    if_missed: IfMissed = "run_once"
    priority: int = 0
    limits: str = ""
    """Limits of each run, as JSON; "": the agent's own."""
    enabled: bool = True
    next_ms: int = 0
    """When it is due."""
    last_ms: int = 0
    """The time that it was due at last."""
    last_run: str = ""
    """The run that was started last."""
    note: str = ""
    """What became of the last time, where no run was started: why."""
    created_ms: int = 0


class Schedules(Protocol):
    """Where schedules are kept. Every method may raise `JournalError`."""

    async def put(self, schedule: Schedule, *, replace: bool = False) -> bool:
        """Keep a schedule; in place of one of its name only with `replace`, and then with its history. False: refused."""
        ...

    async def get(self, tenant: str, name: str) -> Schedule | None:
        """Read a schedule."""
        ...

    async def listed(self, tenant: str) -> Sequence[Schedule]:
        """List a tenant's schedules by name."""
        ...

    async def due(self, *, limit: int, after: tuple[str, str] = ("", "")) -> Sequence[Schedule]:
        """List enabled schedules that are due, of all tenants, by tenant and name, from behind one on."""
        ...

    async def next_due_ms(self) -> int:
        """Tell when the next enabled schedule is due; 0: there is none."""
        ...

    async def fired(self, tenant: str, name: str, *, due_ms: int, next_ms: int, run: str = "", note: str = "") -> bool:
        """Move a schedule on that is due at `due_ms`. False: it is not there, or it was moved already."""
        ...

    async def enable(self, tenant: str, name: str, *, enabled: bool, next_ms: int) -> bool:
        """Pause a schedule or let it go on, with its next time. False: there is none."""
        ...

    async def remove(self, tenant: str, name: str) -> bool:
        """Remove a schedule. Its runs stay. False: there is none."""
        ...
