"""`Runtime.schedules`: runs that start by themselves at certain times. What is due is started by `alarm`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from stanchion.agent import Limits
from stanchion.core.errors import Conflict, InputError, NotFound
from stanchion.guard.redact import Redactor
from stanchion.journal.schedule import IfBusy, IfMissed, Schedule
from stanchion.journal.share import BATCH, INTERACTIVE
from stanchion.journal.store import Store
from stanchion.runtime.desks.cron import next_time, upcoming
from stanchion.runtime.name import checked
from stanchion.runtime.opening.secrecy import check_names
from stanchion.runtime.runs.accepting import StartRequest, input_parts
from stanchion.runtime.runs.admission import Priority

SHOWN_TIMES = 5


class ScheduleView(msgspec.Struct, frozen=True):
    """A schedule as it stands."""

    name: str
    cron: str
    tz: str
    agent: str
    input: str
    session: str
    user: str
    limits: dict[str, Any] | None
    priority: str
    if_busy: str
    if_missed: str
    enabled: bool
    next_ms: list[int]
    """The next times; none while it is paused."""
    last_ms: int
    last_run: str
    note: str
    """Why the last time started no run, or ""."""
    created_ms: int


class Scheduling:
    """The schedules of one store. `served`: what agents this process knows, empty if it knows none."""

    def __init__(self, store: Store, served: Sequence[str], redactor: Redactor | None = None) -> None:
        self._redactor = redactor or Redactor()
        self._store = store
        self._served = served
        self.told: Callable[[], None] = lambda: None
        """Called when something may have become due."""

    async def add(
        self,
        name: str,
        cron: str,
        agent: str,
        input: str,
        *,
        tz: str = "UTC",
        session: str = "",
        user: str = "",
        limits: Limits | None = None,
        priority: Priority = "batch",
        if_busy: IfBusy = "skip",
        if_missed: IfMissed = "run_once",
        enabled: bool = True,
        replace: bool = False,
        tenant: str = "default",
    ) -> ScheduleView:
        """Start a run of an agent at the times of a cron expression, read in a time zone.

        Each run has a session of its own, or all have the `session` that is named here; `if_busy` says what becomes of a time
        at which that one has a live run, `if_missed` what becomes of times at which nobody was there to start it.
        Raises `InputError` with the field, and `Conflict` where there is one of this name already, without `replace`.
        """
        behind = next_time(cron, tz)
        if not checked(name, "name"):
            raise InputError("a schedule needs a name", field="name")
        if self._served and agent not in self._served:
            raise NotFound(f"there is no agent {agent!r}; there are: {', '.join(self._served)}", field="agent")
        _one_of(if_busy, ("skip", "queue"), "if_busy")
        _one_of(if_missed, ("run_once", "skip"), "if_missed")
        _one_of(priority, ("interactive", "batch"), "priority")
        input_parts(input)
        check_names(self._redactor.secrets, name=name, session=session, user=user)
        if "\0" in input:
            raise InputError("holds a NUL character", field="input")
        schedule = Schedule(
            tenant=tenant,
            name=name,
            agent=agent,
            input=self._redactor.text(input),
            cron=" ".join(cron.split()),
            tz=tz,
            session=checked(session, "session"),
            user=checked(user, "user"),
            if_busy=if_busy,
            if_missed=if_missed,
            priority=BATCH if priority == "batch" else INTERACTIVE,
            limits=_limits_json(limits),
            enabled=enabled,
            next_ms=behind(await self._store.now_ms()),
        )
        if not await self._store.schedules.put(schedule, replace=replace):
            raise Conflict(f"there is a schedule {name!r} already; remove it first, or replace it", field="name")
        return await self.show(name, tenant=tenant)

    async def ls(self, *, tenant: str = "default") -> Sequence[ScheduleView]:
        """List schedules by name."""
        now_ms = await self._store.now_ms()
        return [_view(row, now_ms) for row in await self._store.schedules.listed(tenant)]

    async def show(self, name: str, *, tenant: str = "default") -> ScheduleView:
        """Show a schedule. Raises `NotFound`."""
        return _view(await self._row(name, tenant), await self._store.now_ms())

    async def pause(self, name: str, *, tenant: str = "default") -> ScheduleView:
        """Start no runs of it until it is resumed. Raises `NotFound`."""
        row = await self._row(name, tenant)
        await self._store.schedules.enable(tenant, name, enabled=False, next_ms=row.next_ms)
        return await self.show(name, tenant=tenant)

    async def resume(self, name: str, *, tenant: str = "default") -> ScheduleView:
        """Let it go on with its next time; those that passed are left out. Raises `NotFound`."""
        row = await self._row(name, tenant)
        next_ms = row.next_ms if row.enabled else next_time(row.cron, row.tz)(await self._store.now_ms())
        await self._store.schedules.enable(tenant, name, enabled=True, next_ms=next_ms)
        return await self.show(name, tenant=tenant)

    async def run(self, name: str, *, tenant: str = "default") -> ScheduleView:
        """Make it due now: a worker that serves its agent starts its run. Raises `NotFound`, `Conflict` (paused)."""
        row = await self._row(name, tenant)
        if not row.enabled:
            raise Conflict(f"the schedule {name!r} is paused; resume it first", field="name")
        await self._store.schedules.enable(tenant, name, enabled=True, next_ms=await self._store.now_ms())
        self.told()
        return await self.show(name, tenant=tenant)

    async def remove(self, name: str, *, tenant: str = "default") -> None:
        """Remove it; its runs stay. Raises `NotFound`."""
        if not await self._store.schedules.remove(tenant, name):
            raise _unknown(name)

    async def _row(self, name: str, tenant: str) -> Schedule:
        row = await self._store.schedules.get(tenant, name)
        if row is None:
            raise _unknown(name)
        return row


def request_of(schedule: Schedule, key: str) -> StartRequest:
    """Ask for a run of a schedule, once under a key."""
    return StartRequest(
        schedule.agent,
        schedule.input,
        tenant=schedule.tenant,
        session=schedule.session,
        user=schedule.user,
        limits=Limits(**msgspec.json.decode(schedule.limits)) if schedule.limits else None,
        idempotency_key=key,
        idempotency_digest=key,
        if_busy="queue" if schedule.if_busy == "queue" else "reject",
        priority=_priority(schedule),
    )


def _priority(schedule: Schedule) -> Priority:
    return "batch" if schedule.priority < INTERACTIVE else "interactive"


def _limits_json(limits: Limits | None) -> str:
    if limits is None:
        return ""
    limits.caps()  # raises for what is no limit
    said = {
        name: value for name, value in dataclasses.asdict(limits).items() if value is not None and value is not False
    }
    return msgspec.json.encode(said).decode()


def _view(row: Schedule, now_ms: int) -> ScheduleView:
    behind = next_time(row.cron, row.tz)
    first = [row.next_ms] if row.next_ms else []
    times = [*first, *upcoming(behind, max(row.next_ms, now_ms), SHOWN_TIMES - 1)] if row.enabled else []
    return ScheduleView(
        name=row.name,
        cron=row.cron,
        tz=row.tz,
        agent=row.agent,
        input=row.input,
        session=row.session,
        user=row.user,
        limits=msgspec.json.decode(row.limits) if row.limits else None,
        priority=_priority(row),
        if_busy=row.if_busy,
        if_missed=row.if_missed,
        enabled=row.enabled,
        next_ms=times,
        last_ms=row.last_ms,
        last_run=row.last_run,
        note=row.note,
        created_ms=row.created_ms,
    )


def _one_of(value: str, known: Sequence[str], field: str) -> None:
    if value not in known:
        raise InputError(f"must be {' or '.join(map(repr, known))}, not {value!r}", field=field)


def _unknown(name: str) -> NotFound:
    return NotFound(f"there is no schedule {name!r}; `stanchion schedule ls` lists them", field="name")
