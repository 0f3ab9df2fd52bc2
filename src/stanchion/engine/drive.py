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
import contextlib
import logging
import math
from collections.abc import Callable, Sequence

import msgspec

from stanchion.context.forecast import Forecast
from stanchion.core import event as ev
from stanchion.core.errors import JournalError, StaleAppend, StoreFull, UnreadInbox
from stanchion.core.fold import evolve
from stanchion.core.progress import progress_of
from stanchion.core.state import State
from stanchion.engine.announce import announcements
from stanchion.engine.bound import BoundAgent
from stanchion.engine.clock import Clock
from stanchion.engine.courses import Courses
from stanchion.engine.gate import Gate
from stanchion.engine.habits import Habits
from stanchion.engine.live import Live
from stanchion.engine.perform import Performer
from stanchion.engine.permit import Ticket
from stanchion.engine.policing import InForce
from stanchion.engine.stage import Mark, Stage, applies, read_inbox, reservations, settlements, settles
from stanchion.engine.tickets import Tickets
from stanchion.journal.ledger import owner_of
from stanchion.journal.record import Recorder
from stanchion.journal.store import Append, InboxItem, Refused, Status, Store
from stanchion.loop.decide import BUDGET_POLL_MS, decide
from stanchion.loop.effect import (
    Abort,
    Attempt,
    CallModel,
    CallTool,
    CheckText,
    Decision,
    HandIn,
    Moment,
    Summarise,
    for_one_run,
    reserves,
)

log = logging.getLogger("stanchion.engine")

LINGER_MS = 3_000
"""A run that is to go on within so long stays in memory instead of being parked."""
FULL_RETRY_S = 1.0
"""How often an append is tried again while the store is full."""
OVERDUE_MS = 2_000
"""So long after its deadline an attempt that will not stop is given up: its task is left to itself."""


_Work = asyncio.Task[list[ev.Event]]


class _Flight(msgspec.Struct, frozen=True):
    """An attempt that is under way, and until when it may be."""

    effect: Attempt
    give_up_ms: int


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
        self._habits = habits or Habits()
        self._courses = courses
        self.state = state
        self.draining = False
        self.puzzled = False
        """Something in the inbox is of a newer program: what is in flight ends, and a newer worker goes on."""
        self.refreshed_ms: Callable[[State], int] | None = None
        """Says when the run's last request was refreshed, while it waited for a person."""
        self._store = store
        self._agent = agent
        self._view = for_one_run(agent.view)
        self._in_force = in_force
        self._recorder = recorder
        self._epoch = epoch
        self._clock = clock
        self._live = live
        self._performer: Performer | None = None
        self._tasks: dict[_Work, _Flight] = {}
        self._aborted: set[_Work] = set()
        self._outcomes: list[ev.Event] = [] if first is None else [first]
        self._inbox_taken: list[int] = []
        self._held_back = False
        self._signal = asyncio.Event()
        self._inbox_unread = True
        self._poll_budget = False
        self._refused = False
        """A reservation was refused a moment ago: write that down before the next try."""
        self._lease_s = lease_s
        self._held_until_s = asyncio.get_running_loop().time() + lease_s
        self._lost: JournalError | None = None
        """Why this run is not ours any more."""
        self._gate = gate
        tenant = state.tenant or (first.tenant if first is not None else "")
        run = state.run or (first.run if first is not None else "")
        self._tickets = Tickets(gate, agent, tenant=tenant, run=run, rank=rank, wake=self._signal.set)

    def claimed_at(self, sent_s: float) -> None:
        """Say when the claim was asked for, by the loop's clock: from then on it stands for the time of the lease."""
        self._held_until_s = sent_s + self._lease_s

    def lose(self) -> None:
        """Say that another worker has claimed the run: stop, change nothing."""
        self._lost = self._lost or StaleAppend()
        self._signal.set()

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
        for task, flight in self._tasks.items():
            if not (isinstance(flight.effect, CallTool) and flight.effect.doubtful):
                task.cancel()

    async def run(self) -> State:
        """Drive until the run waits, parks, ends, or must be let go. Raises `JournalError` where it is not ours any more."""
        try:
            while not await self._round():
                pass
            return self.state
        finally:
            for task in self._tasks:
                task.cancel()
            self.dismiss()

    def dismiss(self) -> None:
        """Give back the permits that were not used."""
        self._tickets.dismiss()

    def stage_first(self) -> Stage:
        """Stage a run's first event and what follows from it, for the transaction that starts the run."""
        stage = Stage(self.state, self._recorder.hash)
        self._stage(stage, self._take_outcomes())
        self.decide_into(stage)
        return stage

    def first_append(self, stage: Stage) -> Append:
        """Give what the transaction that starts the run writes of it."""
        state = self.state
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
            hand_in=stage.hand_in(state, self._agent.bundle),
            announce=announcements(stage.before, state, stage.entries),
        )

    def started(self, stage: Stage) -> None:
        """The first stage is durable: perform its effects. `run` goes on from there."""
        self._inbox_unread = False
        self._committed(stage)

    def unstage_decision(self, stage: Stage) -> None:
        """Take the reservation of a first stage back, and what was decided with it."""
        mark = stage.reserving
        if mark is None:
            raise AssertionError("there is no reservation to take back")
        self.state = mark.state
        self._recorder.seq, self._recorder.hash, self._recorder.at_ms = mark.seq, mark.hash, mark.at_ms
        del stage.entries[mark.entries :], stage.records[mark.entries :], stage.effects[mark.effects :]
        stage.reserving = None

    async def _round(self) -> bool:
        """Write and start what there is to do; then wait for something to happen. True: let go of the run."""
        self._signal.clear()  # what is set from here on ends the wait below
        if self._lost is not None:
            raise self._lost
        self._give_up_overdue()
        stage = Stage(self.state, self._recorder.hash)
        stage.inbox, self._inbox_taken = self._inbox_taken, []
        self._stage(stage, self._take_outcomes())
        if self._inbox_unread:
            self._inbox_unread = False
            self._take_in(stage, await self._store.inbox(self.state.tenant, self.state.run))
        stage.given = len(stage.entries)
        await self._learn()
        decision = self.decide_into(stage)
        self._refused = False
        over = self._let_go(decision)
        if stage.records or stage.inbox or over:
            try:
                refused = await self._append(stage, over, decision)
            except UnreadInbox:
                self._unstage(stage, stage.given)
                self._inbox_unread = True
                return False
            if refused is not None:
                self._take_back(stage, refused)
                return False
            self._committed(stage)
        if over:
            return True
        for effect in decision.effects:
            if isinstance(effect, Abort):
                self._abort(effect)
        await self._wait(decision)
        return False

    def decide_into(self, stage: Stage) -> Decision:
        """Stage what the loop decides, until it decides nothing new."""
        if self.puzzled:
            self._held_back = True
            return Decision()
        while True:
            tickets = self._tickets
            self._apply_policies(stage)
            moment = self._moment()
            decision = decide(self.state, self._view, moment)
            acts = [effect for effect in decision.effects if not isinstance(effect, Abort)]
            self._held_back = self.draining and bool(acts or tickets)
            reserving = any(reserves(effect) for effect in acts)
            if not decision.events or self._held_back or (reserving and self._refused):
                aborts = tuple(effect for effect in decision.effects if isinstance(effect, Abort))
                tickets.keep(stage.effects, self.state, stopping=self._stopping)
                if reserving and self._refused and self.state.refused is None:
                    self._signal.set()  # what was refused was given up, and this is another: it is tried next
                return Decision(effects=aborts, wake_at_ms=decision.wake_at_ms)
            if [effect for effect in acts if not tickets.admits(effect)]:
                continue  # it is decided again, without those that must wait
            if acts and stage.reserving is None:  # what is taken back, all intents are taken back with
                stage.reserving = self._mark(stage)
            self._stage(stage, decision.events)
            stage.effects += acts

    def _moment(self) -> Moment:
        """Gather what a decision is made by, beside state and view."""
        tickets, agent = self._tickets, self._agent.bundle
        return Moment(
            now_ms=self._clock.now_ms(),
            epoch=self._epoch,
            blocked=tickets.blocked,
            model_blocked=tickets.model_blocked,
            down=tickets.down,
            habit=self._habits.of(agent.agent),
            forecast=self._forecast(),
            measured=self._habits.measured(agent),
            refreshed_ms=self.refreshed_ms(self.state) if self.refreshed_ms is not None else 0,
        )

    async def _learn(self) -> None:
        """Learn what past runs tell of this one, where it is stopped by that. Without it, it goes on."""
        state = self.state
        if self._courses is not None and state.caps.stop_early and state.totals.turns and not state.ended:
            with contextlib.suppress(JournalError):
                await self._courses.learn(state.tenant, state.agent, state.totals.turns)

    def _forecast(self) -> Forecast | None:
        state = self.state
        if self._courses is None or not state.caps.stop_early or not state.totals.turns:
            return None
        return self._courses.forecast(state.tenant, state.agent, progress_of(state))

    def _apply_policies(self, stage: Stage) -> None:
        """Judge by the policies of this moment, and have the journal say which they are."""
        if self._in_force is None or not self.state.seq or self.state.ended:
            return
        policies = self._in_force.now()
        if policies is not self._view.policies:
            self._view = msgspec.structs.replace(self._view, policies=policies)
        digest = policies.digest if policies is not None else ""
        if digest != self.state.policy:
            self._stage(stage, (ev.PolicyApplied(policy=digest),))

    @property
    def _stopping(self) -> bool:
        """Whether nothing new is wanted."""
        state = self.state
        return state.ended or bool(state.parked) or bool(state.cancelled_by) or self.draining

    def _let_go(self, decision: Decision) -> bool:
        """Whether there is nothing to stay in memory for."""
        if self.state.ended or self.state.parked:
            return True
        if self._tasks or self.state.in_flight or self._poll_budget or self._tickets:
            return self.draining and not self._tasks and not self.state.in_flight
        if self.draining:
            return True
        soon = decision.wake_at_ms and decision.wake_at_ms - self._clock.now_ms() <= LINGER_MS
        return not soon

    def _stage(self, stage: Stage, events: Sequence[ev.Event]) -> None:
        if not events:
            return
        entries, records = self._recorder.record(events, now_ms=self._clock.now_ms(), epoch=self._epoch)
        for entry in entries:
            self.state = evolve(self.state, entry)
        stage.entries += entries
        stage.records += records

    def _mark(self, stage: Stage) -> Mark:
        recorder = self._recorder
        return Mark(self.state, recorder.seq, recorder.hash, recorder.at_ms, len(stage.entries), len(stage.effects))

    def _take_back(self, stage: Stage, refused: Refused) -> None:
        """Undo the staged reservation, and put what else was staged back to be written with the refusal."""
        mark = stage.reserving
        if mark is None:
            raise AssertionError("a reservation was refused that was not staged")
        known = mark.state.refused
        told: list[ev.Event] = []
        if known is None or known.hard != refused.hard or known.ledger != refused.ledger:
            is_of_all = not owner_of(mark.state.tenant, refused.ledger)
            left = 0 if is_of_all else refused.left  # (it would tell the tenant what others spend)
            told.append(ev.BudgetRefused(ledger=refused.ledger, needed=refused.needed, left=left, hard=refused.hard))
        self._unstage(stage, mark.entries, told)
        self._poll_budget = self._refused = True

    def _unstage(self, stage: Stage, keep: int, then: Sequence[ev.Event] = ()) -> None:
        """Go back to what is durable; the first `keep` staged events, and those of `then`, are staged again next."""
        recorder, before = self._recorder, stage.before
        self.state = before
        recorder.seq, recorder.hash = before.seq, stage.hash
        self._outcomes = [*(entry.event for entry in stage.entries[:keep]), *then, *self._outcomes]
        self._inbox_taken = stage.inbox

    async def _append(self, stage: Stage, over: bool, decision: Decision) -> Refused | None:
        state = self.state
        append = Append(
            tenant=state.tenant,
            run=state.run,
            expected_seq=stage.before.seq,
            epoch=self._epoch,
            records=tuple(stage.records),
            status=self._status(over),
            wake_at_ms=decision.wake_at_ms if over else 0,
            release=over,
            progress=over or any(settles(entry.event) for entry in stage.entries),
            outcome=state.outcome or (state.parked if over else ""),
            cost=state.totals.cost,
            reserve=reservations(stage.entries),
            settle=settlements(stage.before, stage.entries),
            inbox_done=tuple(stage.inbox),
            announce=announcements(stage.before, state, stage.entries),
            hand_in=stage.hand_in(state, self._agent.bundle),
        )
        while True:
            try:
                return await self._store.append(append)
            except StoreFull as error:
                log.error("run %s waits: %s", state.run, error, extra={"tenant": state.tenant})
                await asyncio.sleep(FULL_RETRY_S)

    def _status(self, over: bool) -> Status:
        if self.state.ended:
            return "ended"
        if self.state.parked:
            return "parked"
        return "waiting" if over and not self._held_back else "runnable"

    def _committed(self, stage: Stage) -> None:
        """It is durable: tell the watchers, and perform what was decided."""
        state = self.state
        if self._performer is None:
            self._performer = Performer(
                self._agent, state, self._clock, self._live, self._gate, memories=self._store.memories
            )
        self._poll_budget = state.refused is not None and not any(reserves(effect) for effect in stage.effects)
        self._live.publish(state.tenant, state.run, stage.entries)
        self._habits.note(stage.before, stage.entries)
        for effect in stage.effects:
            if not isinstance(effect, HandIn):
                self._perform(effect)

    def _perform(self, effect: Attempt) -> None:
        performer = self._performer
        if performer is None:
            raise AssertionError("nothing is performed before something is durable")
        gate = self._gate
        self._tickets.leave(effect)
        ticket = None if isinstance(effect, CheckText) else self._tickets.take(effect)
        task = asyncio.create_task(_release(self, performer, effect, ticket))
        self._tasks[task] = _Flight(effect, self._give_up_ms(effect))
        if ticket is not None and gate is not None:  # whatever becomes of it: a task may end before it began
            task.add_done_callback(lambda _: gate.close(ticket))
        task.add_done_callback(self._performed)

    async def holds(self) -> bool:
        """Whether the run is still ours, by its lease; a lease that has ended is renewed first.

        A process that slept through its lease after it wrote an intent must not act on it: another may have taken the
        run over, asked whether it was done, and been told that it was not.
        """
        while asyncio.get_running_loop().time() >= self._held_until_s:
            if not await self._renew():
                return False
        return True

    async def _renew(self) -> bool:
        """Prolong the lease, or learn that it is lost."""
        sent_s, state = asyncio.get_running_loop().time(), self.state
        try:
            lease_ms = int(self._lease_s * 1000)
            if await self._store.renew(state.tenant, state.run, epoch=self._epoch, lease_ms=lease_ms):
                self._held_until_s = sent_s + self._lease_s
                return True
            self.lose()
        except JournalError as error:
            self._lost = error
            self._signal.set()
        return False

    def _give_up_ms(self, effect: Attempt) -> int:
        """When an attempt that begins now must have ended, however long it took to write its intent."""
        now_ms, until_ms = self._clock.now_ms(), effect.deadline_ms
        if isinstance(effect, CallTool) and (spec := self._agent.bundle.tool(effect.tool)) is not None:
            until_ms = now_ms + int(spec.timeout_s * 1000)
        return max(until_ms, now_ms) + OVERDUE_MS

    def _performed(self, task: asyncio.Task[list[ev.Event]]) -> None:
        flight = self._tasks.pop(task, None)
        self._aborted.discard(task)
        self._signal.set()
        error = None if task.cancelled() else task.exception()
        if flight is None or self._performer is None:
            return  # it was given up
        if task.cancelled():  # before its first step
            self._outcomes += self._performer.stopped(flight.effect)
        elif error is not None:  # code of an agent that raised what ends tasks
            # By its kind alone: its words may be content.
            kind = type(error).__name__
            log.error("run %s: an attempt broke: %s", self.state.run, kind, extra={"tenant": self.state.tenant})
            self._outcomes += self._performer.broken(flight.effect, error)
        else:
            self._outcomes += task.result()

    def _give_up_overdue(self) -> None:
        """Let go of attempts that outlive their deadline: code of an agent that will not be cancelled."""
        performer, now_ms = self._performer, self._clock.now_ms()
        if performer is None:
            return
        for task, flight in list(self._tasks.items()):
            if flight.give_up_ms <= now_ms and not task.done():
                del self._tasks[task]
                task.cancel()
                self._outcomes += performer.overdue(flight.effect)
                what = "an attempt did not stop at its deadline; it is left to itself"
                log.error("run %s: %s", self.state.run, what, extra={"tenant": self.state.tenant})

    def _take_outcomes(self) -> list[ev.Event]:
        outcomes, self._outcomes = self._outcomes, []
        return self._agent.redactor.events(outcomes)

    def _abort(self, effect: Abort) -> None:
        for task, flight in self._tasks.items():
            running = flight.effect
            meant = running.call in effect.calls if isinstance(running, CallTool) else effect.model
            if meant and task not in self._aborted:
                self._aborted.add(task)
                task.cancel()

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
                applied = applies(self.state, event)
                decided = applied if isinstance(event, ev.CallDecided) else decided
                if applied and decided:  # what a decision allows beyond its call goes with it
                    self._stage(stage, (event,))

    async def _wait(self, decision: Decision) -> None:
        """Wait for an outcome, a poke, or the time that the decision named."""
        if self._signal.is_set():
            return
        wakes = [flight.give_up_ms for flight in self._tasks.values()]
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


async def _release(drive: Drive, performer: Performer, effect: Attempt, ticket: Ticket | None) -> list[ev.Event]:
    """Perform, if the run is still ours."""
    held = await drive.holds()
    del drive  # an attempt that will not end must not keep its run in memory
    if not held:
        return []
    if isinstance(effect, CheckText):
        return await performer.check_text(effect)
    if isinstance(effect, CallModel):
        return await performer.call_model(effect, ticket)
    if isinstance(effect, Summarise):
        return await performer.summarise(effect, ticket)
    return await performer.call_tool(effect, ticket)
