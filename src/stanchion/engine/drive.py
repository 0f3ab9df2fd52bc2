"""Drive one claimed run: take in what happened, decide, write, and only then act. Until it waits, parks or ends.

    outcomes, inbox --> stage --> decide --> stage .. --> one append --> perform what was decided
                          ^                                               |
                          +------------------ outcomes -------------------+

What is staged is folded at once and written as one append: the outcome of the last step and the intent of the next are
one transaction, and nothing is performed before it is durable (invariant I2). If the append is refused by a budget,
the staged reservation is taken back and the refusal is written instead. If it is stale, another worker has the run:
stop, change nothing.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Sequence

import msgspec

from stanchion.core import event as ev
from stanchion.core.errors import StoreFull, UnreadInbox
from stanchion.core.state import State
from stanchion.engine.announce import announcements
from stanchion.engine.bound import BoundAgent
from stanchion.engine.clock import Clock
from stanchion.engine.courses import Courses
from stanchion.engine.flight import Flights
from stanchion.engine.gate import Gate
from stanchion.engine.habits import Habits
from stanchion.engine.lease import Lease
from stanchion.engine.live import Live
from stanchion.engine.load import Keys
from stanchion.engine.outlook import Outlook
from stanchion.engine.perform import Performer
from stanchion.engine.policing import InForce
from stanchion.engine.stage import Stage, applies, read_inbox, reservations, settlements, settles
from stanchion.engine.tickets import Tickets
from stanchion.journal.memory import recalled_subject
from stanchion.journal.record import Recorder
from stanchion.journal.store import Append, InboxItem, Refused, Status, Store
from stanchion.loop.decide import BUDGET_POLL_MS, decide
from stanchion.loop.effect import Abort, Decision, HandIn, reserves

log = logging.getLogger("stanchion.engine")

LINGER_MS = 3_000
"""A run that is to go on within so long stays in memory instead of being parked."""
FULL_RETRY_S = 1.0
"""How often an append is tried again while the store is full."""


class Drive:
    """One activation of a run."""

    def __init__(
        self,
        *,
        store: Store,
        agent: BoundAgent,
        state: State,
        recorder: Recorder,
        epoch: int,
        clock: Clock,
        live: Live,
        first: ev.RunStarted | None = None,
        lease_s: float = math.inf,
        gate: Gate | None = None,
        rank: int = 0,
        in_force: InForce | None = None,
        habits: Habits | None = None,
        courses: Courses | None = None,
    ) -> None:
        self.state = state
        """As what is durable says."""
        self.draining = False
        self.puzzled = False
        """Something in the inbox is of a newer program: what is in flight ends, and a newer worker goes on."""
        self._store = store
        self._agent = agent
        self._recorder = recorder
        self._epoch = epoch
        self._clock = clock
        self._live = live
        self._gate = gate
        self._performer: Performer | None = None
        self._outcomes: list[ev.Event] = [] if first is None else [first]
        self._inbox_taken: list[int] = []
        self._inbox_unread = True
        self._held_back = False
        self._poll_budget = False
        self._refused = False
        """A reservation was refused a moment ago: write that down before the next try."""
        self._signal = asyncio.Event()
        tenant = state.tenant or (first.tenant if first is not None else "")
        run = state.run or (first.run if first is not None else "")
        wake = self._signal.set
        self.lease = Lease(store, tenant, run, epoch=epoch, lease_s=lease_s, told=wake)
        self._tickets = Tickets(gate, agent, tenant=tenant, run=run, rank=rank, wake=wake)
        self._flights = Flights(
            agent, clock, self.lease, self._tickets, gate, tenant=tenant, run=run, landed=self._land
        )  # fmt: skip
        self.outlook = Outlook(
            agent.view, clock, self._tickets, epoch=epoch, in_force=in_force, habits=habits, courses=courses
        )

    # What others say to it.

    def tell(self, *events: ev.Event) -> None:
        """Put events in front of what the run does next."""
        self._outcomes += events

    def poke(self) -> None:
        """Say that the inbox may hold something."""
        self._inbox_unread = True
        self._signal.set()

    @property
    def poked(self) -> bool:
        """Whether a poke was not answered yet."""
        return self._inbox_unread

    def drain(self) -> None:
        """Begin nothing new; let go when what is in flight is done."""
        self.draining = True
        self._signal.set()

    def interrupt(self) -> None:
        """Stop the model call and the reads in flight; their outcome is still written."""
        self._flights.interrupt()

    def dismiss(self) -> None:
        """Give back the permits that were not used."""
        self._tickets.dismiss()

    # The first step, which the transaction writes that starts the run.

    def stage_first(self) -> Stage:
        """Stage a run's first event and what follows from it."""
        stage = self._new_stage()
        stage.add(self._take_outcomes())
        self._decide_into(stage)
        return stage

    def first_append(self, stage: Stage) -> Append:
        """Give what the transaction that starts the run writes of it."""
        state = stage.state
        return Append(
            tenant=state.tenant,
            run=state.run,
            expected_seq=0,
            epoch=self._epoch,
            records=tuple(stage.records),
            status="ended" if state.ended else "runnable",
            release=state.ended,
            outcome=state.outcome,
            reserve=reservations(stage.entries),
            hand_in=stage.hand_in(self._agent.bundle),
            announce=announcements(stage.before, state, stage.entries),
        )

    def started(self, stage: Stage) -> None:
        """The first stage is durable: perform its effects. `run` goes on from there."""
        self._inbox_unread = False
        self._committed(stage)

    def keys(self, state: State) -> Keys:
        """Give the content keys under which what the run wrote lies."""
        recorder = self._recorder
        own = (state.user or state.session, recorder.key.id)
        recalled = (recalled_subject(state.user), recorder.memory.id)
        return (own,) if recorder.memory is recorder.key else (own, recalled)

    # From here on top to bottom: a round takes in, decides, writes, performs, and waits.

    async def run(self) -> State:
        """Drive until the run waits, parks, ends, or must be let go. Raises `JournalError` where it is not ours any more."""
        try:
            while not await self._round():
                pass
            return self.state
        finally:
            self._flights.cancel()
            self.dismiss()

    async def _round(self) -> bool:
        """Write and start what there is to do; then wait for something to happen. True: let go of the run."""
        self._flights.give_up_overdue()
        self._signal.clear()  # what is set from here on ends the wait below
        if self.lease.lost is not None:
            raise self.lease.lost
        stage = self._new_stage()
        stage.inbox, self._inbox_taken = self._inbox_taken, []
        stage.add(self._take_outcomes())
        if self._inbox_unread:
            self._inbox_unread = False
            self._take_in(stage, await self._store.inbox(stage.state.tenant, stage.state.run))
        stage.given = len(stage.entries)
        await self.outlook.learn(stage.state)
        decision = self._decide_into(stage)
        self._refused = False
        over = self._let_go(stage.state, decision)
        if stage.records or stage.inbox or over:
            try:
                refused = await self._append(stage, over, decision)
            except UnreadInbox:
                self._undone(stage, stage.undo(stage.given))
                self._inbox_unread = True
                return False
            if refused is not None:
                self._undone(stage, stage.take_back(refused))
                self._poll_budget = self._refused = True
                return False
            self._committed(stage)
        if over:
            return True
        for effect in decision.effects:
            if isinstance(effect, Abort):
                self._flights.abort(effect)
        await self._wait(decision)
        return False

    def _new_stage(self) -> Stage:
        return Stage(self.state, self._recorder, self._clock, self._epoch)

    def _land(self, events: Sequence[ev.Event]) -> None:
        """An attempt has ended: its outcome is taken in with the next round."""
        self._outcomes += events
        self._signal.set()

    def _take_outcomes(self) -> list[ev.Event]:
        outcomes, self._outcomes = self._outcomes, []
        return self._agent.redactor.events(outcomes)

    def _take_in(self, stage: Stage, items: Sequence[InboxItem]) -> None:
        """Turn what came from outside into events; what does not apply any more is dropped."""
        for item in items:
            if item.id in stage.inbox:
                continue
            stage.inbox.append(item.id)
            if item.kind == "start":
                continue  # it was staged as the first event
            try:
                events = self._agent.redactor.events(read_inbox(item.body))
            except msgspec.ValidationError:  # a newer program's: a newer worker takes it in, and what is behind it
                stage.inbox.remove(item.id)
                self.puzzled = True
                self.drain()
                return
            decided = True
            for event in events:
                applied = applies(stage.state, event)
                decided = applied if isinstance(event, ev.CallDecided) else decided
                if applied and decided:  # what a decision allows beyond its call goes with it
                    stage.add((event,))

    def _decide_into(self, stage: Stage) -> Decision:
        """Stage what the loop decides, until it decides nothing new."""
        if self.puzzled:
            self._held_back = True
            return Decision()
        tickets, outlook = self._tickets, self.outlook
        while True:
            stage.add(outlook.apply_policies(stage.state))
            decision = decide(stage.state, outlook.view, outlook.moment(stage.state))
            acts = [effect for effect in decision.effects if not isinstance(effect, Abort)]
            self._held_back = self.draining and bool(acts or tickets)
            reserving = any(reserves(effect) for effect in acts)
            if not decision.events or self._held_back or (reserving and self._refused):
                aborts = tuple(effect for effect in decision.effects if isinstance(effect, Abort))
                tickets.keep(stage.effects, stage.state, stopping=self._stopping(stage.state))
                if reserving and self._refused and stage.state.refused is None:
                    self._signal.set()  # what was refused was given up, and this is another: it is tried next
                return Decision(effects=aborts, wake_at_ms=decision.wake_at_ms)
            if [effect for effect in acts if not tickets.admits(effect)]:
                continue  # it is decided again, without those that must wait
            stage.act(decision, acts)

    def _stopping(self, state: State) -> bool:
        """Whether nothing new is wanted."""
        return state.ended or bool(state.parked) or bool(state.cancelled_by) or self.draining

    def _let_go(self, state: State, decision: Decision) -> bool:
        """Whether there is nothing to stay in memory for."""
        if state.ended or state.parked:
            return True
        if self._flights or state.in_flight or self._poll_budget or self._tickets:
            return self.draining and not self._flights and not state.in_flight
        if self.draining:
            return True
        soon = decision.wake_at_ms and decision.wake_at_ms - self._clock.now_ms() <= LINGER_MS
        return not soon

    async def _append(self, stage: Stage, over: bool, decision: Decision) -> Refused | None:
        state = stage.state
        append = Append(
            tenant=state.tenant,
            run=state.run,
            expected_seq=stage.before.seq,
            epoch=self._epoch,
            records=tuple(stage.records),
            status=self._status(state, over),
            wake_at_ms=decision.wake_at_ms if over else 0,
            release=over,
            progress=over or any(settles(entry.event) for entry in stage.entries),
            outcome=state.outcome or (state.parked if over else ""),
            cost=state.totals.cost,
            reserve=reservations(stage.entries),
            settle=settlements(stage.before, stage.entries),
            inbox_done=tuple(stage.inbox),
            announce=announcements(stage.before, state, stage.entries),
            hand_in=stage.hand_in(self._agent.bundle),
        )
        while True:
            try:
                return await self._store.append(append)
            except StoreFull as error:
                log.error("run %s waits: %s", state.run, error, extra={"tenant": state.tenant})
                await asyncio.sleep(FULL_RETRY_S)

    def _status(self, state: State, over: bool) -> Status:
        if state.ended:
            return "ended"
        if state.parked:
            return "parked"
        return "waiting" if over and not self._held_back else "runnable"

    def _undone(self, stage: Stage, again: Sequence[ev.Event]) -> None:
        """Nothing of a stage was written: what is given of it is staged again next."""
        self._outcomes = [*again, *self._outcomes]
        self._inbox_taken = stage.inbox

    def _committed(self, stage: Stage) -> None:
        """It is durable: tell the watchers, and perform what was decided."""
        state = self.state = stage.state
        if self._performer is None:
            self._performer = Performer(
                self._agent, state, self._clock, self._live, self._gate, memories=self._store.memories
            )
        self._poll_budget = state.refused is not None and not any(reserves(effect) for effect in stage.effects)
        self._live.publish(state.tenant, state.run, stage.entries)
        self.outlook.note(stage.before, state, stage.entries)
        for effect in stage.effects:
            if not isinstance(effect, HandIn):
                self._flights.begin(self._performer, effect)

    async def _wait(self, decision: Decision) -> None:
        """Wait for an outcome, a poke, or the time that the decision named."""
        if self._signal.is_set():
            return
        wakes = self._flights.give_up_ms
        if decision.wake_at_ms:
            wakes.append(decision.wake_at_ms)
        if self._poll_budget:
            wakes.append(self._clock.now_ms() + int(BUDGET_POLL_MS * (0.5 + self._clock.draw())))
        timer = None
        if wakes:
            delay_s = max(min(wakes) - self._clock.now_ms(), 1) / 1000
            timer = asyncio.get_running_loop().call_later(delay_s, self._signal.set)
        try:
            await self._signal.wait()
        finally:
            if timer is not None:
                timer.cancel()
