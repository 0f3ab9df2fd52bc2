"""The attempts of one run that are under way: begun if the run is still ours, given up when they outlive their deadline.

However an attempt ends, its outcome is handed over as events; nothing here is written or decided.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

import msgspec

from stanchion.core import event as ev
from stanchion.engine.bound import BoundAgent
from stanchion.engine.clock import Clock
from stanchion.engine.gate import Gate
from stanchion.engine.lease import Lease
from stanchion.engine.perform import Performer
from stanchion.engine.permit import Ticket
from stanchion.engine.tickets import Tickets
from stanchion.loop.effect import Abort, Attempt, CallModel, CallTool, CheckText, EmbedTexts, Summarise

log = logging.getLogger("stanchion.engine")

OVERDUE_MS = 2_000
"""So long after its deadline an attempt that will not stop is given up: its task is left to itself."""

_Work = asyncio.Task[list[ev.Event]]


class _Flight(msgspec.Struct, frozen=True):
    """An attempt that is under way, and until when it may be."""

    effect: Attempt
    performer: Performer
    give_up_ms: int


class Flights:
    """What is in flight of one run. `landed` is given the outcome of each attempt; none, where it was given up before."""

    def __init__(
        self,
        agent: BoundAgent,
        clock: Clock,
        lease: Lease,
        tickets: Tickets,
        gate: Gate | None,
        *,
        tenant: str,
        run: str,
        landed: Callable[[Sequence[ev.Event]], None],
    ) -> None:
        self._agent = agent
        self._clock = clock
        self._lease = lease
        self._tickets = tickets
        self._gate = gate
        self._tenant = tenant
        self._run = run
        self._landed = landed
        self._tasks: dict[_Work, _Flight] = {}
        self._aborted: set[_Work] = set()

    def __bool__(self) -> bool:
        return bool(self._tasks)

    @property
    def give_up_ms(self) -> list[int]:
        """When each attempt is given up."""
        return [flight.give_up_ms for flight in self._tasks.values()]

    def begin(self, performer: Performer, effect: Attempt) -> None:
        """Perform what was decided; its intent is durable."""
        gate = self._gate
        self._tickets.leave(effect)
        ticket = None if isinstance(effect, CheckText | EmbedTexts) else self._tickets.take(effect)
        task = asyncio.create_task(_release(self._lease, performer, effect, ticket))
        self._tasks[task] = _Flight(effect, performer, self._deadline_ms(effect) + OVERDUE_MS)
        if ticket is not None and gate is not None:  # whatever becomes of it: a task may end before it began
            task.add_done_callback(lambda _: gate.close(ticket))
        task.add_done_callback(self._ended)

    def abort(self, effect: Abort) -> None:
        """Stop what is not wanted any more; its outcome is still handed over."""
        for task, flight in self._tasks.items():
            running = flight.effect
            meant = running.call in effect.calls if isinstance(running, CallTool) else effect.model
            if meant and task not in self._aborted:
                self._aborted.add(task)
                task.cancel()

    def interrupt(self) -> None:
        """Stop the model call and the reads; their outcome is still handed over."""
        for task, flight in self._tasks.items():
            if not (isinstance(flight.effect, CallTool) and flight.effect.doubtful):
                task.cancel()

    def cancel(self) -> None:
        """Stop all: the run is let go."""
        for task in self._tasks:
            task.cancel()

    def give_up_overdue(self) -> None:
        """Let go of attempts that outlive their deadline: code of an agent that will not be cancelled."""
        now_ms = self._clock.now_ms()
        for task, flight in list(self._tasks.items()):
            if flight.give_up_ms <= now_ms and not task.done():
                del self._tasks[task]
                task.cancel()
                what = "an attempt did not stop at its deadline; it is left to itself"
                log.error("run %s: %s", self._run, what, extra={"tenant": self._tenant})
                self._landed(flight.performer.overdue(flight.effect))

    def _deadline_ms(self, effect: Attempt) -> int:
        """When an attempt that begins now must have ended, however long it took to write its intent."""
        now_ms, until_ms = self._clock.now_ms(), effect.deadline_ms
        if isinstance(effect, CallTool) and (spec := self._agent.bundle.tool(effect.tool)) is not None:
            until_ms = now_ms + int(spec.timeout_s * 1000)
        return max(until_ms, now_ms)

    def _ended(self, task: _Work) -> None:
        flight = self._tasks.pop(task, None)
        self._aborted.discard(task)
        error = None if task.cancelled() else task.exception()
        if flight is None:  # it was given up
            self._landed(())
        elif task.cancelled():  # before its first step
            self._landed(flight.performer.stopped(flight.effect))
        elif error is not None:  # code of an agent that raised what ends tasks
            # By its kind alone: its words may be content.
            kind = type(error).__name__
            log.error("run %s: an attempt broke: %s", self._run, kind, extra={"tenant": self._tenant})
            self._landed(flight.performer.broken(flight.effect, error))
        else:
            self._landed(task.result())


async def _release(lease: Lease, performer: Performer, effect: Attempt, ticket: Ticket | None) -> list[ev.Event]:
    """Perform, if the run is still ours."""
    if not await lease.holds():
        return []
    if isinstance(effect, CheckText):
        return await performer.check_text(effect)
    if isinstance(effect, EmbedTexts):
        return await performer.embed_texts(effect)
    if isinstance(effect, CallModel):
        return await performer.call_model(effect, ticket)
    if isinstance(effect, Summarise):
        return await performer.summarise(effect, ticket)
    return await performer.call_tool(effect, ticket)
