"""What one run's decisions are made by, beside its state: the time, the policies in force, what is held back, what past runs tell."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

import msgspec

from stanchion.context.forecast import Forecast
from stanchion.core import event as ev
from stanchion.core.errors import JournalError
from stanchion.core.progress import progress_of
from stanchion.core.state import State
from stanchion.engine.clock import Clock
from stanchion.engine.courses import Courses
from stanchion.engine.habits import Habits
from stanchion.engine.policing import InForce
from stanchion.engine.tickets import Tickets
from stanchion.loop.effect import Moment, View, for_one_run


class Outlook:
    """Gathers view and moment for one activation of a run."""

    def __init__(
        self,
        view: View,
        clock: Clock,
        tickets: Tickets,
        *,
        epoch: int,
        in_force: InForce | None,
        habits: Habits | None,
        courses: Courses | None,
    ) -> None:
        self.view = for_one_run(view)
        self.refreshed_ms: Callable[[State], int] | None = None
        """Says when the run's last request was refreshed, while it waited for a person or a tool."""
        self.works: Callable[[State], None] | None = None
        """Told where the run stands, whenever it has written."""
        self._clock = clock
        self._tickets = tickets
        self._epoch = epoch
        self._in_force = in_force
        self._habits = habits or Habits()
        self._courses = courses

    def moment(self, state: State) -> Moment:
        """Gather what a decision is made by, beside state and view."""
        tickets, agent = self._tickets, self.view.bundle
        return Moment(
            now_ms=self._clock.now_ms(),
            epoch=self._epoch,
            blocked=tickets.blocked,
            model_blocked=tickets.model_blocked,
            down=tickets.down,
            habit=self._habits.of(agent.agent),
            forecast=self._forecast(state),
            measured=self._habits.measured(agent),
            refreshed_ms=self.refreshed_ms(state) if self.refreshed_ms is not None else 0,
        )

    def apply_policies(self, state: State) -> tuple[ev.PolicyApplied, ...]:
        """Judge by the policies of this moment from here on. Returns what the journal is to say, where they are others."""
        if self._in_force is None or not state.seq or state.ended:
            return ()
        policies = self._in_force.now()
        if policies is not self.view.policies:
            self.view = msgspec.structs.replace(self.view, policies=policies)
        digest = policies.digest if policies is not None else ""
        return (ev.PolicyApplied(policy=digest),) if digest != state.policy else ()

    async def learn(self, state: State) -> None:
        """Learn what past runs tell of this one, where it is stopped by that. Without it, it goes on."""
        if self._courses is not None and state.caps.stop_early and state.totals.turns and not state.ended:
            with contextlib.suppress(JournalError):
                await self._courses.learn(state.tenant, state.agent, state.totals.turns)

    def note(self, before: State, state: State, entries: Sequence[ev.Entry]) -> None:
        """Measure what has happened, for later decisions, and say where the run stands now."""
        self._habits.note(before, entries)
        if self.works is not None:
            self.works(state)

    def _forecast(self, state: State) -> Forecast | None:
        if self._courses is None or not state.caps.stop_early or not state.totals.turns:
            return None
        return self._courses.forecast(state.tenant, state.agent, progress_of(state))
