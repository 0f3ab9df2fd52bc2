"""The permits of one run's calls: asked for before a call is decided, given back when it is not wanted any more.

A call that a shared limit has no room for is held back: nothing of it is staged, and the run is woken when it has its
permit. `Moment` tells the loop what is held back, so that other calls of the step begin meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from stanchion.core.state import State
from stanchion.engine.bound import BoundAgent
from stanchion.engine.gate import Gate
from stanchion.engine.permit import Ticket
from stanchion.loop.compact import PLACE
from stanchion.loop.effect import Ask, Attempt, CallModel, CallTool, CheckText, EmbedTexts, HandIn, Summarise

_MODEL = ""
"""In the place of a call's id: the model call. A summary has a place of its own (`loop.compact.PLACE`)."""


class Tickets:
    """What waits for permits, or has them and was not sent yet. Without a gate nothing is held back."""

    def __init__(
        self, gate: Gate | None, agent: BoundAgent, *, tenant: str, run: str, rank: int, wake: Callable[[], None]
    ) -> None:
        self._gate = gate
        self._agent = agent
        self._run = run
        self._tenant = tenant
        self._rank = rank
        self._wake = wake
        self._tickets: dict[str, Ticket] = {}
        """By the call's id, or `_MODEL`."""

    def __bool__(self) -> bool:
        return bool(self._tickets)

    @property
    def blocked(self) -> frozenset[str]:
        """The tool calls that are held back."""
        return self._waiting - {_MODEL}

    @property
    def model_blocked(self) -> bool:
        """Whether the model call is held back."""
        return _MODEL in self._waiting

    @property
    def down(self) -> frozenset[int]:
        """The routes whose models are left alone for a time."""
        if self._gate is None or not self._gate.breakers.any_open:
            return frozenset()
        return frozenset(n for n in range(len(self._agent.bundle.every_route)) if self._is_down(self._gate, n))

    def _is_down(self, gate: Gate, route: int) -> bool:
        account, model = self._agent.account(route), self._agent.bundle.route(route).model
        return self._agent.breaker(route) is not None and gate.breakers.is_down(account, model, self._run)

    @property
    def _waiting(self) -> frozenset[str]:
        return frozenset(place for place, ticket in self._tickets.items() if ticket.state == "waiting")

    def admits(self, effect: Attempt | HandIn) -> bool:
        """Whether nothing that all workers share forbids it now; else it waits for its turn, and wakes the run then."""
        if self._gate is None or isinstance(effect, HandIn | CheckText | EmbedTexts):
            return True
        place = _place(effect)
        asked = _asked(effect)
        size = (asked.bound_tokens, asked.request.max_output_tokens) if asked is not None else (0, 0)
        ticket = self._tickets.get(place)
        if ticket is not None and (ticket.state == "closed" or ticket.size[0] < size[0] or ticket.size[1] < size[1]):
            self._close(place)
            ticket = None
        ticket = ticket or self._ask(self._gate, effect, size)
        if ticket is None:
            return True
        self._tickets[place] = ticket
        return self._gate.has_permits(ticket)

    def leave(self, effect: Attempt) -> None:
        """Note that an attempt is sent now: where its model was left alone, it is the one that tries."""
        if self._gate is not None and isinstance(effect, CallModel):
            account, model = self._agent.account(effect.route), self._agent.bundle.route(effect.route).model
            self._gate.breakers.tries(account, model, self._run)

    def take(self, effect: CallModel | CallTool | Summarise) -> Ticket | None:
        """Hand over the ticket of a call that is to be sent, if it has one."""
        return self._tickets.pop(_place(effect), None)

    def keep(self, staged: Iterable[Attempt | HandIn], state: State, *, stopping: bool) -> None:
        """Give back the permits of what was not decided, and do not wait for what is not wanted any more."""
        places = {_place(effect) for effect in staged if not isinstance(effect, HandIn | CheckText | EmbedTexts)}
        for place, ticket in list(self._tickets.items()):
            wanted = ticket.state == "waiting" and not stopping and _may_begin(state, place)
            if place not in places and not wanted:
                self._close(place)

    def dismiss(self) -> None:
        """Give back all that was not used."""
        for place in list(self._tickets):
            self._close(place)

    def _ask(self, gate: Gate, effect: CallModel | CallTool | Summarise, size: tuple[int, int]) -> Ticket | None:
        tenant, rank, wake = self._tenant, self._rank, self._wake
        if (asked := _asked(effect)) is not None:
            account, model = self._agent.account(asked.route), self._agent.bundle.route(asked.route).model
            return gate.model(account, model, size, tenant=tenant, rank=rank, wake=wake)
        if not isinstance(effect, CallTool):
            return None
        limits = self._agent.registry.limits(effect.tool) if effect.mode != "dry" else None
        return gate.tool(limits, effect.tool, tenant=tenant, rank=rank, wake=wake) if limits else None

    def _close(self, place: str) -> None:
        ticket = self._tickets.pop(place, None)
        if ticket is not None and self._gate is not None:
            self._gate.close(ticket)


def _asked(effect: CallModel | CallTool | Summarise) -> CallModel | Ask | Summarise | None:
    """What of a call asks a model, if it does."""
    return effect.ask if isinstance(effect, CallTool) else effect


def _place(effect: CallModel | CallTool | Summarise) -> str:
    if isinstance(effect, CallTool):
        return effect.call
    return PLACE if isinstance(effect, Summarise) else _MODEL


def _may_begin(state: State, place: str) -> bool:
    """Whether an attempt of a call, or of the model call, could begin in this state."""
    if place == _MODEL:
        return state.model is None or not state.model.in_flight
    if place == PLACE:
        return state.compacting is None or not state.compacting.in_flight
    call = state.call(place)
    return call is not None and call.phase in ("ready", "failed")
