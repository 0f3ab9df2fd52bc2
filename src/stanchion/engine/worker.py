"""The worker: activates runs, one task for each that is active, keeps their leases, and lets go of them.

When to look for runs, and which may have work, the engine says (`engine/port.py`). It may be late, wrong or silent:
claiming decides who drives. A run that waits for a person or a time has no task and no memory here.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from stanchion.core import event as ev
from stanchion.core.errors import CommitUnknown, JournalError, StaleAppend, UnknownEvent
from stanchion.core.state import State
from stanchion.engine.bound import BoundAgent
from stanchion.engine.clock import Clock
from stanchion.engine.courses import Courses
from stanchion.engine.drive import Drive
from stanchion.engine.gate import Gate
from stanchion.engine.habits import Habits
from stanchion.engine.live import Live
from stanchion.engine.load import Loader
from stanchion.engine.policing import Policing
from stanchion.engine.port import Engine
from stanchion.engine.prepare import Preparer
from stanchion.engine.rows import SWEEP_S, RowsEngine
from stanchion.engine.stage import Stage
from stanchion.engine.taking import Held, Slots, Taking
from stanchion.journal.record import Cipher
from stanchion.journal.share import Ready
from stanchion.journal.store import (
    Append,
    Claim,
    Refused,
    Start,
    Started,
    StartSaid,
    Store,
)

log = logging.getLogger("stanchion.engine")

AGAIN_S = 1.0
"""When a run that was let go because the store failed is taken up again."""
RENEWALS = 5
"""In a lease's time: so many may fail, or be late, before another worker takes the runs over."""


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """How a worker works. Seconds and counts."""

    name: str
    lease_s: float = 30.0
    """How long a run stays with a worker that is not heard of. With one driver a store has no use for a short one."""
    sweep_s: float = SWEEP_S
    """How often rows that another process wrote are looked for."""
    shared: bool = False
    """Other processes may drive runs of this store."""
    adopt: bool = True
    """Take up whatever is runnable; else only runs of agents that are served here."""
    max_active: int = 4_000
    """Runs driven at once. A bound for the process's memory and event loop, not a rate: most of them wait for a model."""
    reserved: int = -1
    """Of them for interactive runs only; -1: a tenth."""
    max_attempts: int = 5
    """Claims of a run without progress before it is dead-lettered."""


@dataclass(slots=True)
class _Slot:
    """A run that is active here."""

    task: asyncio.Task[None] | None = None
    drive: Drive | None = None
    poked: bool = False
    claiming: bool = False
    epoch: int = 0
    held: Held | None = None
    done: asyncio.Event = field(default_factory=asyncio.Event)


class Worker:
    """Drives the runs of one store with the agents of one process."""

    def __init__(
        self,
        *,
        store: Store,
        cipher: Cipher,
        find_agent: Callable[[str], BoundAgent | None],
        clock: Clock,
        live: Live,
        loader: Loader,
        settings: WorkerSettings,
        served: Mapping[str, str],
        version: str = "",
        gate: Gate | None = None,
        engine: Engine | None = None,
        policing: Policing | None = None,
        courses: Courses | None = None,
    ) -> None:
        """`served`: names and bundle digests of the agents that are found here. `gate`: the limits that are shared.

        `courses`: what past runs tell of those that are stopped early. `engine`: None for the one that needs nothing but the store. `policing`: policies beside the built-in rules.
        """
        self._engine = engine or RowsEngine(store, clock, sweep_s=settings.sweep_s)
        self._gate = gate
        slots = Slots(settings.max_active, settings.reserved)
        self.taking = Taking(store, clock, settings.name, slots, served, adopt=settings.adopt, version=version)
        if gate is not None:
            gate.weight_of = self.taking.weight_of
        self.taking.shared = settings.shared
        self.draining = False
        self.habits = Habits()
        """How the agents' sessions go."""
        self.ended: Callable[[State], None] | None = None
        """Told of each run that ended here, and what it left."""
        self.waits: Callable[[State], None] | None = None
        """Told of each run that was let go here because it waits for a person."""
        self.works: Callable[[State], None] | None = None
        """Told of each run that is driven here, whenever it has written."""
        self.refreshed_ms: Callable[[State], int] | None = None
        """Says when the last request of such a run was refreshed since; 0: it was not."""
        self._store = store
        self._preparer = Preparer(
            store=store,
            loader=loader,
            cipher=cipher,
            clock=clock,
            live=live,
            gate=gate,
            find_agent=find_agent,
            lease_s=settings.lease_s,
            max_attempts=settings.max_attempts,
            policing=policing,
            habits=self.habits,
            courses=courses,
        )
        self._find_agent = find_agent
        self._live = live
        self._loader = loader
        self._settings = settings
        self._slots: dict[tuple[str, str], _Slot] = {}
        self._newer: set[tuple[str, str]] = set()
        """Runs that hold what this program cannot read."""
        self._claiming = 0
        """Runs that were found ready and are being claimed."""
        self._renewer: asyncio.Task[None] | None = None

    @property
    def active(self) -> int:
        """How many runs are driven now."""
        return len(self._slots)

    async def open(self) -> None:
        """Begin: everything that is runnable is activated."""
        await self._engine.open(self)
        self._renewer = asyncio.create_task(self._renew(), name="stanchion-leases")

    def hint(self, tenant: str, run: str) -> None:
        """Say that a run may have work: pokes its drive, or has it activated."""
        if not self.poke(tenant, run) and not self.draining:
            self._engine.hint(tenant, run)

    def poke(self, tenant: str, run: str) -> bool:
        """Have a run that is driven here look into its inbox. False: it is not driven here."""
        slot = self._slots.get((tenant, run))
        if slot is None:
            return False
        slot.poked = True
        if slot.drive is not None:
            slot.drive.poke()
        return True

    def poke_all(self) -> None:
        """Have whoever is active here look into his inbox, and whoever watches look for events."""
        for slot in self._slots.values():
            if slot.drive is not None:
                slot.drive.poke()
        self._live.nudge()

    def activate(self, tenant: str, run: str) -> asyncio.Event:
        """Claim a run and drive it, if it has begun, can be claimed, and there is room. Set when it was let go."""
        slot = self._slots.get((tenant, run))
        if slot is None:
            slot = _Slot()
            room = not self.draining and len(self._slots) < self._settings.max_active
            if room and (tenant, run) not in self._newer:
                self._slots[tenant, run] = slot
                slot.task = asyncio.create_task(self._hinted(tenant, run, slot))
            else:
                slot.done.set()
        else:
            self.poke(tenant, run)
        return slot.done

    async def take_ready(self) -> None:
        """Claim what is ready, in its order, as far as there is room. Raises `JournalError`."""
        await self.taking.beat(len(self._slots))
        for ready in () if self._claiming else await self.taking.look(len(self._slots)):
            self._take_on(ready)

    async def _hinted(self, tenant: str, run: str, slot: _Slot) -> None:
        """Activate a run that has begun and is served here. Another waits its turn, or for its own worker."""
        try:
            row = await self._store.run(tenant, run)
        except JournalError:
            row = None
        if row is not None and row.epoch and self._find_agent(row.agent) is not None:
            slot.held = self.taking.hold(row.priority, tenant, begun=True)
            await self._activate(tenant, run, slot)
        else:
            self._forget(tenant, run, slot)
            self._engine.look()

    def _take_on(self, ready: Ready) -> None:
        """Claim a run that was found ready."""
        if (ready.tenant, ready.run) in self._newer:
            return
        if (ready.tenant, ready.run) in self._slots or self.draining:
            self.hint(ready.tenant, ready.run)
            return
        held = self.taking.hold(ready.priority, ready.tenant, begun=ready.begun)
        slot = self._slots[ready.tenant, ready.run] = _Slot(held=held, claiming=True)
        self._claiming += 1
        slot.task = asyncio.create_task(self._activate(ready.tenant, ready.run, slot))

    def _claimed(self, slot: _Slot) -> None:
        """The claim of a run that was found ready is answered; when all are, look what is left."""
        if slot.claiming:
            slot.claiming = False
            self._claiming -= 1
            if not self._claiming:
                self._engine.look()

    def look(self) -> None:
        """Have the engine look now: something may have become runnable."""
        self._engine.look()

    def _hint_later(self, tenant: str, run: str) -> None:
        asyncio.get_running_loop().call_later(AGAIN_S, self.hint, tenant, run)

    async def start(self, start: Start, first: ev.RunStarted, agent: BoundAgent) -> StartSaid:
        """Start a run and drive it: its first event and its first model call's intent are one transaction.

        Returns what the store says (`Started`, `SessionBusy`, ..). A reservation that only others' reservations
        refuse does not refuse the run, which then waits for the money.
        """
        drive: Drive | None = None
        slot = _Slot(epoch=1, held=self.taking.hold(start.priority, start.tenant, begun=False))
        self._slots[start.tenant, start.run] = slot
        try:
            drive = await self._preparer.start(start, first, agent)
            stage = drive.stage_first()
            said = await self._store.start(self._filled(start, drive, stage))
            if isinstance(said, Refused) and not said.hard:
                stage.unreserve()
                said = await self._store.start(self._filled(start, drive, stage))
        except BaseException as error:
            if drive is not None:
                drive.dismiss()
            self._forget(start.tenant, start.run, slot)
            if isinstance(error, CommitUnknown):
                self._hint_later(start.tenant, start.run)
            raise
        if not isinstance(said, Started) or said.existing or stage.state.ended:
            drive.dismiss()
            self._forget(start.tenant, start.run, slot)
            if stage.state.ended and said == Started(start.run):  # a limit forbade even the first call
                self._live.publish(start.tenant, start.run, stage.entries)
                self._note_end(stage.state, drive)
                self._engine.look()
            return said
        self._drives(slot, drive)
        self._live.open(start.tenant, start.run)
        drive.started(stage)
        if slot.poked:
            drive.poke()
        if self.draining:
            drive.drain()
        slot.task = asyncio.create_task(self._run(start.tenant, start.run, slot, drive))
        return said

    def _filled(self, start: Start, drive: Drive, stage: Stage) -> Start:
        first, lease_ms = drive.first_append(stage), int(self._settings.lease_s * 1000)
        return msgspec.structs.replace(start, first=first, worker=self._settings.name, lease_ms=lease_ms)

    async def drain(self, grace_s: float) -> None:
        """Let go of all runs: what is in flight may finish within the grace, then model calls and reads are stopped."""
        self.draining = True
        for slot in self._slots.values():
            if slot.drive is not None:
                slot.drive.drain()
        await self._engine.aclose()
        await self._gone(grace_s * 0.7)
        for slot in self._slots.values():
            if slot.drive is not None:
                slot.drive.interrupt()
        await self._gone(grace_s * 0.3)
        for slot in list(self._slots.values()):
            if slot.task is not None:
                slot.task.cancel()
        left = [(*place, slot.epoch) for place, slot in self._slots.items() if slot.drive is not None]
        await self._gone(1.0)
        await _ended(self._renewer)
        await self._hand_over(left)
        with contextlib.suppress(JournalError):
            await self.taking.leave()
        if self._gate is not None:
            await self._gate.aclose()

    async def _hand_over(self, left: Sequence[tuple[str, str, int]]) -> None:
        """End the leases of what was broken off, so that others need not wait for them."""
        with contextlib.suppress(JournalError):
            await self._store.renew_all(left, lease_ms=0)

    async def _gone(self, within_s: float) -> None:
        """Wait until no run is active, or the time is up."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                for slot in list(self._slots.values()):
                    await slot.done.wait()

    async def _activate(self, tenant: str, run: str, slot: _Slot) -> None:
        """Claim a run, fold it, and drive it."""
        drive: Drive | None = None
        claim: Claim | None = None
        slot.poked = False
        sent_s = asyncio.get_running_loop().time()
        try:
            lease_ms = int(self._settings.lease_s * 1000)
            claim = await self._store.claim(tenant, run, worker=self._settings.name, lease_ms=lease_ms)
            self._claimed(slot)
            if claim is not None:
                slot.epoch = claim.epoch
                drive = await self._preparer.claimed(claim)
        except (UnknownEvent, msgspec.ValidationError) as error:
            await self._leave_to_newer(tenant, run, claim, error)
        except JournalError as error:
            log.error("run %s was not activated: %s", run, error, extra={"tenant": tenant})
            self._hint_later(tenant, run)
        except Exception:
            log.exception("run %s was not activated", run, extra={"tenant": tenant})
        except asyncio.CancelledError:
            self._forget(tenant, run, slot)
            raise
        if drive is None:
            self._forget(tenant, run, slot)
            if slot.poked:
                self.hint(tenant, run)
            return
        drive.lease.claimed_at(sent_s)
        self._drives(slot, drive)
        self._live.open(tenant, run)
        if self.draining:
            drive.drain()
        await self._run(tenant, run, slot, drive)

    async def _run(self, tenant: str, run: str, slot: _Slot, drive: Drive) -> None:
        again = False
        try:
            state = await drive.run()
            if state.ended:
                self._note_end(state, drive)
            elif state.asking and self.waits is not None:
                self.waits(state)
            if drive.puzzled:
                self._is_newer(tenant, run, "something in its inbox")
            again = drive.poked and not (state.ended or drive.puzzled)
        except StaleAppend:
            log.warning("run %s is driven elsewhere now; let go of it", run, extra={"tenant": tenant})
        except JournalError as error:
            log.error("run %s was let go and is taken up again: %s", run, error, extra={"tenant": tenant})
            self._hint_later(tenant, run)
        except Exception:
            log.exception("run %s was let go; it is taken up again when its lease ends", run, extra={"tenant": tenant})
        finally:
            self._live.close(tenant, run)
            self._forget(tenant, run, slot)
            self._engine.look()  # there is room, a timer may have been set, or the session's next run is due
            if again:
                self.hint(tenant, run)

    def _note_end(self, state: State, drive: Drive) -> None:
        """Keep what a run leaves to the next of its session."""
        if not (state.refreshing or state.remembers):
            self._loader.keep(state, drive.keys(state))
            _log_end(state)
        if self.ended is not None:
            self.ended(state)

    async def _leave_to_newer(self, tenant: str, run: str, claim: Claim | None, error: Exception) -> None:
        """Give back a run that holds what this program cannot read. The attempt does not count; it is not tried again."""
        self._is_newer(tenant, run, str(error))
        if claim is None:
            return
        back = Append(
            tenant=tenant, run=run, expected_seq=claim.seq, epoch=claim.epoch, release=True, unclaim=True
        )  # fmt: skip
        try:
            await self._store.append(back)
        except JournalError as failure:
            log.warning(
                "run %s was not given back, and is free when its lease ends: %s", run, failure, extra={"tenant": tenant}
            )

    def _is_newer(self, tenant: str, run: str, what: str) -> None:
        self._newer.add((tenant, run))
        log.warning("run %s is left to newer workers, which can read it: %s", run, what, extra={"tenant": tenant})

    def _drives(self, slot: _Slot, drive: Drive) -> None:
        slot.drive = drive
        drive.outlook.works, drive.outlook.refreshed_ms = self.works, self.refreshed_ms
        if slot.held is not None:
            self.taking.drives(slot.held)

    def _forget(self, tenant: str, run: str, slot: _Slot) -> None:
        slot.done.set()
        self._claimed(slot)
        if slot.held is not None:
            self.taking.free(slot.held, had=slot.drive is not None)
            slot.held = None
        if self._slots.get((tenant, run)) is slot:
            del self._slots[tenant, run]

    async def _renew(self) -> None:
        """Prolong the leases of what is driven here, all in one write."""
        lease_ms = int(self._settings.lease_s * 1000)
        while True:
            await asyncio.sleep(self._settings.lease_s / RENEWALS)
            held = [(*place, slot.epoch) for place, slot in self._slots.items() if slot.drive is not None]
            sent_s = asyncio.get_running_loop().time()
            try:
                renewed = await self._store.renew_all(held, lease_ms=lease_ms)
            except Exception as error:  # (without it every run would be taken over)
                log.warning("the leases of %d runs were not renewed: %s", len(held), error)
                continue
            for tenant, run, epoch in held:
                slot = self._slots.get((tenant, run))
                if slot is None or slot.drive is None or slot.epoch != epoch:
                    continue
                if (tenant, run) in renewed:
                    slot.drive.lease.claimed_at(sent_s)
                else:  # it is over, or driven elsewhere: its calls in flight are not to go on for nothing
                    slot.drive.lease.lose()


async def _ended(task: asyncio.Task[None] | None) -> None:
    """Cancel a task and wait for its end."""
    if task is not None:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def _log_end(state: State) -> None:
    """Tell the operator of an end that may be theirs to mend. What a run ended with is in its journal."""
    if state.outcome == "failed":
        log.warning("run %s failed: %s", state.run, state.reason, extra={"tenant": state.tenant})
    if state.overrun:
        what = "a bill was above its reservation; its budgets stay closed until they are set again"
        log.error("run %s: %s", state.run, what, extra={"tenant": state.tenant})
