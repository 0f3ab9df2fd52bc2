"""Plays a run without an edge: a bundle, a scripted model, scripted tools, a person, a clock; no task, no socket.

`Play` does what the drive does, in simulated time: it stages outcomes, asks `decide` until it decides nothing new, makes
that one append, and only then performs. Every append goes through the real recorder, and a crash throws away everything
but the records. What must hold in every run is asserted on the way: same input, same decision; a well-formed
transcript; each request goes on from the one before it (I8); no reservation above the cap (I7).
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from stanchion.context.forecast import Forecast
from stanchion.core import chain
from stanchion.core import event as ev
from stanchion.core.bundle import Bundle, Caps
from stanchion.core.fold import carry, evolve, fold
from stanchion.core.message import USER, ModelRequest, Text, ToolResult, Usage
from stanchion.core.routing import Measured
from stanchion.core.state import Call, State
from stanchion.engine.stage import applies
from stanchion.guard.check import Checks as TextChecks
from stanchion.journal.record import Identity, Recorder, read_entry
from stanchion.journal.store import RawRecord
from stanchion.loop.decide import BUDGET_POLL_MS, decide
from stanchion.loop.effect import (
    Abort,
    Attempt,
    CallModel,
    CallTool,
    CheckText,
    Decision,
    EmbedTexts,
    Moment,
    Summarise,
    View,
    reserves,
    view,
)
from tests.loop.outcome import Outcomes
from tests.loop.request import flat, well_formed
from tests.loop.script import (
    KEY,
    START_MS,
    Break,
    Checks,
    Done,
    Doubt,
    Outcome,
    Refuse,
    Said,
    Scored,
    Vectors,
    decided,
    say,
)


@dataclass(order=True)
class _Flight:
    ends_ms: int
    order: int
    effect: Attempt = field(compare=False)
    outcome: Any = field(compare=False)


Person = Callable[["Play", Call], ev.CallDecided | None]


@dataclass
class Play:
    """One run, or the next of a session (`base`)."""

    bundle: Bundle
    model: Sequence[Said]
    tools: Mapping[str, Sequence[Outcome]] = field(default_factory=dict[str, Sequence[Outcome]])
    """What each call of a tool meets, attempt by attempt; the last goes on. Default: done."""
    person: Person = lambda play, call: None
    person_ms: int = 60_000
    refuse: Sequence[Refuse | None] = ()
    """What the shared budget says to the next reservations, one by one; None: nothing against it."""
    caps: Caps | None = None
    ledgers: tuple[str, ...] = ()
    dry_run: bool = False
    mark: bool = False
    """Untrusted text stands in marked blocks."""
    deadline_s: float = 0
    wrong: Callable[[str], str] = lambda text: ""
    """What is wrong with a final answer."""
    base: Play | None = None
    user: str = "hello"
    inject: Mapping[int, Sequence[ev.Event]] = field(default_factory=dict[int, Sequence[ev.Event]])
    """After so many appends, this comes from outside."""
    crashes: Mapping[int, bool] = field(default_factory=dict[int, bool])
    """After so many appends the worker dies; True: what was to be performed then had left and was done."""
    reconcile: Callable[[CallTool, bool], str] = lambda effect, done: "done" if done else "not_done"
    on_refold: Callable[[State], None] = lambda state: None
    measured: tuple[Measured, ...] = ()
    """How models did until now."""
    foretold: Callable[[State], Forecast | None] = lambda state: None
    """What past runs tell of it."""
    down: frozenset[int] = frozenset()
    """The routes that are left alone for a time."""
    label: str = ""
    """The type of step that the run is started with."""
    checks: Sequence[Any] = ()
    """The agent's own pure checks."""
    scores: Mapping[str, Sequence[Scored]] = field(default_factory=dict[str, Sequence[Scored]])
    """What each check's classifier answers, attempt by attempt; the last goes on."""
    metered: bool = False
    """The model counts a token for every four bytes of a request, where its script does not count."""
    summaries: Sequence[Said] = ("they talked",)
    """What the model that sums up says, attempt by attempt; the last goes on."""
    vectors: Sequence[Usage | Break | None] = (Usage(7),)
    """What embeddings are billed, attempt by attempt (None: nobody says); the last goes on."""
    learns: bool = False
    """It looks what is to be remembered of `base`."""

    def __post_init__(self) -> None:
        self.view: View = view(self.bundle, Checks(self.bundle, self.wrong), checks=TextChecks(self.checks))
        self._made = Outcomes(self.bundle, metered=self.metered)
        self.now_ms = self.base.now_ms + 1_000 if self.base else START_MS
        self.run = f"r{self.base.number + 1}" if self.base else "r1"
        self.number = self.base.number + 1 if self.base else 1
        self.first = carry(self.base.state) if self.base else State()
        self.state = self.first
        self.epoch = 1
        self.records: list[RawRecord] = []
        self.entries: list[ev.Entry] = []
        self.decisions: list[Decision] = []
        self.requests: list[tuple[int, ModelRequest]] = []
        """Route and request of each attempt at a model call."""
        self.summed: list[Summarise] = []
        """Each attempt at a summary that left."""
        self._summed = self.base._summed if self.base else 0
        self._embedded = 0
        self.asked: list[CheckText] = []
        """Each attempt to ask a classifier that left."""
        self.attempts: list[CallTool] = []
        """Each attempt at a tool call that left."""
        self.did: list[tuple[str, str, str]] = []
        """Tool, arguments and key of what really happened, once for each time."""
        self.deadlines: dict[str, int] = {}
        self._done_calls: set[tuple[str, int]] = set()
        self._keys: set[str] = set()
        self._delivered: dict[str, int] = {}
        self._said = 0
        self._refused = list(self.refuse)
        self._flights: list[_Flight] = []
        self._order = 0
        self._outcomes: list[ev.Event] = []
        self._asked: set[tuple[str, int, int]] = set()
        self._posts: list[tuple[int, int, ev.Event]] = []
        self._poll = False
        self._last: dict[int, list[Any]] = dict(self.base._last) if self.base else {}
        self.appends = 0
        self.boot()

    # --- what a test reads -------------------------------------------------------------------------------------------

    @property
    def types(self) -> list[str]:
        """The types of all events."""
        return [str(e.event.__struct_config__.tag) for e in self.entries]

    def events(self, *kinds: type[Any]) -> list[Any]:
        """The events of some types."""
        return [e.event for e in self.entries if isinstance(e.event, kinds)]

    @property
    def started(self) -> ev.ModelCallStarted:
        """The last attempt at a model call."""
        return self.events(ev.ModelCallStarted)[-1]

    @property
    def end(self) -> tuple[str, str]:
        """Outcome and reason."""
        return self.state.outcome, self.state.reason

    @property
    def answer(self) -> str:
        return "".join(p.text for p in self.state.answer if isinstance(p, Text))

    @property
    def results(self) -> list[ToolResult]:
        """What the model was told of its calls."""
        return [p for m in self.state.messages for p in m.parts if isinstance(p, ToolResult)]

    @property
    def told(self) -> list[str]:
        """What the runtime told the model beside results."""
        return [
            p.text
            for m in self.state.messages
            for p in m.parts
            if isinstance(p, Text) and p.label.source in ("runtime", "reviewer")
        ]

    def effects(self) -> list[tuple[str, str]]:
        """Tool and arguments of what happened to the world, reads apart."""
        tiers = {spec.name: spec.effect for spec in self.bundle.tools}
        return sorted((name, arguments) for name, arguments, _ in self.did if tiers[name] != "read")

    # --- playing -----------------------------------------------------------------------------------------------------

    def boot(self) -> None:
        """Begin as a worker that knows nothing but the records."""
        self.entries = [read_entry(raw) for raw in self.records]
        refolded = fold(self.entries, self.first)
        if self.records:
            assert refolded == self.state, "a fold of what was stored is not the state that was live"
        self.state = refolded
        self._recorder = Recorder(
            KEY,
            Identity(),
            seq=self.state.seq,
            hash=self.state.hash or chain.genesis("t", self.run),
            at_ms=self.state.at_ms,
        )
        self.on_refold(self.state)

    def play(self, rounds: int = 3_000) -> Play:
        """Go on until the run ends, parks, or waits for somebody."""
        if not self.records:
            self._outcomes.append(self._started())
        for _ in range(rounds):
            if not self._round():
                return self
        raise AssertionError(f"the run comes to no end: {self.types[-20:]}")

    def post(self, *events: ev.Event) -> Play:
        """Put something into the inbox."""
        self._outcomes += events
        return self

    def _started(self) -> ev.RunStarted:
        base = None
        if self.base:
            base = ev.Base(run=self.base.run, seq=self.base.state.seq, hash=self.base.state.hash.hex())
        return ev.RunStarted(
            run=self.run,
            tenant="t",
            session="s",
            agent="agent",
            bundle=chain.hashlib.sha256(self.view.shown.digest).hexdigest()[:32],
            user="ann",
            base=None if self.learns else base,
            remembers=base if self.learns else None,
            caps=self.caps or self.bundle.caps,
            ledgers=self.ledgers,
            dry_run=self.dry_run,
            deadline_ms=self.now_ms + int(self.deadline_s * 1000) if self.deadline_s else 0,
            mark=self.mark,
            quarantine=self.bundle.guard.quarantine,
            checked=self.view.checked,
            step=self.label,
            parts=() if self.learns else (Text(self.user, USER),),
        )

    def _round(self) -> bool:
        before, staged = self.state, list[ev.Event]()
        outcomes, self._outcomes = self._outcomes, []
        self._stage(staged, [e for e in outcomes if not _outside(e) or applies(self.state, e)])
        released: list[Attempt] = []
        aborts: list[Abort] = []
        refused: ev.BudgetRefused | None = None
        while True:
            decision = self._decide()
            acts = [e for e in decision.effects if isinstance(e, Attempt)]
            if not decision.events:
                aborts = [e for e in decision.effects if isinstance(e, Abort)]
                break
            asked = self._refused and self.ledgers and any(isinstance(e, CallModel) or reserves(e) for e in acts)
            no = self._refused.pop(0) if asked else None
            if no is not None:
                known = self.state.refused
                if known is None or known.hard != no.hard:
                    refused = ev.BudgetRefused(ledger=no.ledger, needed=5, left=1, hard=no.hard)
                    self._stage(staged, [refused])
                    continue
                self._poll = True
                break
            self._stage(staged, decision.events)
            released += acts
        self._poll = self.state.refused is not None and not released
        if staged:
            self._append(before, staged)
            if self.appends in self.crashes:
                self._crash(released, happened=self.crashes[self.appends])
                return True
        for effect in released:
            self._perform(effect)
        for abort in aborts:
            self._abort(abort)
        for event in self.inject.get(self.appends, ()) if staged else ():
            self._outcomes.append(event)
        self._ask()
        return self._next(decision)

    def _decide(self) -> Decision:
        waited_ms = self.state.waited_ms  # (as if a prefix had been refreshed in the midst of each wait)
        moment = Moment(
            self.now_ms, self.epoch, measured=self.measured, forecast=self.foretold(self.state), down=self.down,
            refreshed_ms=self.state.kept_ms + waited_ms // 2 if waited_ms else 0,
        )  # fmt: skip
        decision = decide(self.state, self.view, moment)
        again = decide(self.state, self.view, moment)
        assert msgspec.json.encode(decision.events) == msgspec.json.encode(again.events)
        assert decision == again
        self.decisions.append(decision)
        return decision

    def _stage(self, staged: list[ev.Event], events: Iterable[ev.Event]) -> None:
        for event in events:
            at_ms = max(self.now_ms, self.state.at_ms)
            self.state = evolve(self.state, ev.Entry(self.state.seq + 1, at_ms, self.epoch, event))
            staged.append(event)

    def _append(self, before: State, staged: list[ev.Event]) -> None:
        entries, records = self._recorder.record(staged, now_ms=self.now_ms, epoch=self.epoch)
        self.records += [RawRecord(r.seq, r.envelope, r.hash, tuple(c.blob for c in r.contents)) for r in records]
        self.entries += entries
        self.state = fold(entries, before)  # the same, with its hashes
        self.appends += 1

    def _crash(self, released: Sequence[Attempt], *, happened: bool) -> None:
        for effect in released:
            if happened:
                self._perform(effect)
        self._flights.clear()
        self._outcomes = []
        self.epoch += 1
        self.now_ms += 10
        self.boot()

    # --- the world ---------------------------------------------------------------------------------------------------

    def _perform(self, effect: Attempt) -> None:
        self._order += 1
        if isinstance(effect, CallModel):
            self._check_request(effect)
            outcome = say(self.model[min(self._said, len(self.model) - 1)])
        elif isinstance(effect, Summarise):
            self.summed.append(effect)
            assert not effect.request.tools
            outcome = say(self.summaries[min(self._summed, len(self.summaries) - 1)])
        elif isinstance(effect, EmbedTexts):
            outcome = Vectors(self._vector())
        elif isinstance(effect, CheckText):
            script = self.scores.get(effect.check, (Scored(),))
            outcome = script[min(len(self.asked), len(script) - 1)]
            self.asked.append(effect)
        elif effect.mode == "reconcile":
            assert self.now_ms >= self.deadlines.get(effect.call, 0), "asked while the attempt may still land"
            self.attempts.append(effect)
            outcome = Done(took_ms=50)
        else:
            self.attempts.append(effect)
            self.deadlines[effect.call] = effect.deadline_ms
            script = self.tools.get(effect.tool, (Done(),))
            outcome = script[min(self._delivered.get(effect.call, 0), len(script) - 1)]
            if effect.mode == "run" and (isinstance(outcome, Done) or (isinstance(outcome, Doubt) and outcome.done)):
                self._happen(effect)
        ends_ms = self.now_ms + outcome.took_ms
        if ends_ms > effect.deadline_ms and not isinstance(effect, CheckText):
            ends_ms, model = effect.deadline_ms, isinstance(effect, CallModel | Summarise | EmbedTexts)
            outcome = Break("timeout_total", billed=True) if model else Doubt(done=False)
        heapq.heappush(self._flights, _Flight(ends_ms, self._order, effect, outcome))

    def _happen(self, effect: CallTool) -> None:
        if effect.key and effect.key in self._keys:
            return
        self._keys.add(effect.key)
        self._done_calls.add((effect.call, effect.revision))
        self.did.append((effect.tool, effect.arguments.decode(), effect.key))

    def done(self, call_id: str, revision: int) -> bool:
        """Whether a call was done in truth."""
        return (call_id, revision) in self._done_calls

    def _abort(self, abort: Abort) -> None:
        for flight in list(self._flights):
            effect = flight.effect
            meant = effect.call in abort.calls if isinstance(effect, CallTool) else abort.model
            if meant:
                self._flights.remove(flight)
                self._outcomes += self._made.stopped(effect, self.now_ms)
        heapq.heapify(self._flights)

    def _next(self, decision: Decision) -> bool:
        """Move the clock to what comes next. False: nothing does."""
        if self.state.ended or (self.state.parked and not self._outcomes):
            return False
        if self._outcomes:
            return True
        times = [self._flights[0].ends_ms] if self._flights else []
        times += [at for at, _, _ in self._posts]
        times += [decision.wake_at_ms] if decision.wake_at_ms else []
        times += [self.now_ms + BUDGET_POLL_MS] if self._poll else []
        if not times:
            return False
        self.now_ms = max(self.now_ms, min(times))
        self._outcomes += [event for at, _, event in sorted(self._posts, key=lambda p: p[:2]) if at <= self.now_ms]
        self._posts = [post for post in self._posts if post[0] > self.now_ms]
        if self._flights and self._flights[0].ends_ms <= self.now_ms:
            flight = heapq.heappop(self._flights)
            self._outcomes += self._outcome(flight.effect, flight.outcome)
        return True

    def _ask(self) -> None:
        for waiting in self.state.calls:
            seen = (waiting.id, waiting.revision, waiting.attempt)
            if waiting.phase != "asking" or (*seen,) in self._asked:
                continue
            decided = self.person(self, waiting)
            if decided is not None:
                self._asked.add(seen)
                self._posts.append((self.now_ms + self.person_ms, len(self._posts), decided))

    def _outcome(self, effect: Attempt, outcome: Any) -> list[ev.Event]:
        if isinstance(effect, CallModel):
            self._said += 1
            return self._made.model(effect, outcome, self.now_ms)
        if isinstance(effect, Summarise):
            self._summed += 1
            return self._made.summary(effect, outcome, self.now_ms)
        if isinstance(effect, EmbedTexts):
            return self._made.vectors(effect, outcome, self.now_ms)
        if isinstance(effect, CheckText):
            return self._made.score(effect, outcome, self.now_ms)
        if effect.mode == "reconcile":
            return self._made.reconciled(effect, self.reconcile(effect, self.done(effect.call, effect.revision)))
        self._delivered[effect.call] = self._delivered.get(effect.call, 0) + 1
        told = self._made.tool(effect, outcome, self.now_ms)
        if effect.embed is None and not effect.lacked:
            return told
        return self._made.with_vector(effect, told, self._vector() if effect.embed is not None else None)

    def _vector(self) -> Usage | Break | None:
        self._embedded += 1
        return self.vectors[min(self._embedded, len(self.vectors)) - 1]

    # --- what must hold of every request ---------------------------------------------------------------------------------

    def _check_request(self, effect: CallModel) -> None:
        request = effect.request
        self.requests.append((effect.route, request))
        assert self.state.totals.cost + effect.reserved <= (self.state.caps.nano_usd or 10**30)
        assert 1 <= request.max_output_tokens <= self.bundle.route(effect.route).max_output_tokens
        well_formed(request)
        if self.started.view:  # a request of its own
            return
        parts = flat(request)
        before = self._last.get(effect.route, [])
        reset = [e.event.reason for e in self.entries if isinstance(e.event, ev.PrefixReset)]
        if self.state.kept_void:
            assert "compaction" in reset, "another beginning that no event tells of"
        if not self.state.kept_void and "bundle" not in reset:
            assert parts[: len(before)] == before, "the request does not go on from the one before it (I8)"
        self._last[effect.route] = parts


def _outside(event: ev.Event) -> bool:
    return isinstance(event, ev.CallDecided | ev.CancelRequested | ev.RunRevived | ev.MessageAdded)


def truthful(play: Play, waiting: Call) -> ev.CallDecided:
    """A person who approves, and who looks what became of a call in doubt."""
    if not waiting.in_doubt:
        return decided(waiting, "approve")
    if play.done(waiting.id, waiting.revision):
        return decided(waiting, "record", "ok")
    return decided(waiting, "retry")
