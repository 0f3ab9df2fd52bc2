"""How each agent's sessions go: the pauses in them, also those for a person or a tool, their length and growth, and what others keep for them. Measured, in memory, bounded.

Noted from what runs write, and at the start from the journals of the latest runs (`read`). It is a hint for what a cache's life is chosen
by, and nothing else: what was chosen stands in the journal. All tenants of an agent count together; only times and counts are kept.
So are the answers of models that were held back, by type of step: how many were taken (`core.routing`).
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import assert_never

import msgspec

from stanchion.context.life import Gap, Habit, Took
from stanchion.core import event as ev
from stanchion.core.bundle import Bundle
from stanchion.core.chain import Outline
from stanchion.core.errors import UnknownEvent
from stanchion.core.kept import TOLERANCE
from stanchion.core.message import Usage
from stanchion.core.routing import Measured
from stanchion.core.state import State
from stanchion.journal.store import RunRow, Store

EDGES_S = (1, 5, 15, 60, 120, 240, 300, 375, 450, 600, 900, 1_800, 2_700, 3_600, 4_500, 5_400, 7_200, 10_800, 21_600)
"""Where one kind of pause ends and the next begins: close together around the ends of lives."""
OVER_S = 21_600.0
"""A session that was idle for so long counts as over. If it goes on after all, that is one more pause."""
FADES = 4_096
"""After so many pauses the older ones count half."""
TOOL_FADES = 256
"""After so many calls of a tool the older ones count half."""
TOOLS = 512
"""Tools of an agent that are remembered."""
SESSIONS = 4_096
"""Sessions of an agent that are remembered."""
LONGEST = 512
"""Sessions with more model calls count as having so many."""
LATELY = 0.05
"""How much less each first request counts, in what others keep, than the one after it."""
ANSWERS = 200
"""After so many answers of a model to a type of step the older ones count half."""
PASSED_OVER = 0.98
"""How much less all of them count each time that the model is passed over: after a while it is asked again."""
OWN = 0.1
"""Of a prefix after its life so much must be the session's own, for a read to say that it lives on: what others keep is read anyway."""
Within = ev.ToolCallJudged | ev.ToolCallStarted | ev.ToolCallFinished | ev.RunFinished
"""What happens between two model calls of a run."""
READ_TENANTS, READ_RUNS, READ_EVENTS = 50, 200, 20_000
"""What is read when a process starts: so many tenants, runs of each, and events in all."""


@dataclass(slots=True)
class _Session:
    last_ms: int
    calls: int = 0
    tokens: int = 0
    first: int = 0
    """Tokens of its first request."""
    over: int = 0
    """Tokens of the last request that the call under way should not find, as their life was over."""
    waits: bool = False
    """A person was asked since its last call."""
    judged: dict[str, str] = field(default_factory=dict[str, str])
    """The calls that were proposed since, and their tools .."""
    began: dict[str, int] = field(default_factory=dict[str, int])
    """.. and when the last attempt at each began."""


def _no_gaps() -> list[list[float]]:
    return [[0.0, 0.0] for _ in range(len(EDGES_S) + 1)]


def _add(kinds: list[list[float]], seconds: float) -> None:
    kind = kinds[bisect_right(EDGES_S, seconds)]
    kind[0] += max(seconds, 0.0)
    kind[1] += 1


def _half(kinds: list[list[float]]) -> list[list[float]]:
    return [[total / 2, count / 2] for total, count in kinds]


def _gaps(kinds: list[list[float]]) -> tuple[Gap, ...]:
    return tuple(Gap(total / count, round(count)) for total, count in kinds if count >= 1)


@dataclass(slots=True)
class _Tool:
    """What was measured of one tool."""

    gaps: list[list[float]] = field(default_factory=_no_gaps)
    went_on: float = 0.0
    broken_off: float = 0.0
    took: Took | None = None

    def answered(self, seconds: float) -> None:
        """Note how long a call took."""
        self.took = None
        _add(self.gaps, seconds)
        if sum(count for _, count in self.gaps) > TOOL_FADES:
            self.gaps, self.went_on, self.broken_off = _half(self.gaps), self.went_on / 2, self.broken_off / 2

    def over(self, *, went_on: bool) -> None:
        """Note that a step with such calls is over, and whether a model was told."""
        self.took = None
        self.went_on += went_on
        self.broken_off += not went_on

    def summed(self) -> Took:
        """Sum it up; the same until something is noted."""
        if self.took is None:
            self.took = Took(_gaps(self.gaps), round(self.went_on), round(self.broken_off))
        return self.took


@dataclass(slots=True)
class _Agent:
    """What was measured of one agent."""

    gaps: list[list[float]] = field(default_factory=_no_gaps)
    """For each kind of pause: their seconds in all, and how many."""
    waits: list[list[float]] = field(default_factory=_no_gaps)
    """.. of those in which a person was waited for."""
    broken_off: float = 0.0
    """Runs that ended, or were idle for too long, while a person was waited for."""
    lengths: Counter[int] = field(default_factory=Counter[int])
    grown: list[float] = field(default_factory=lambda: [0.0, 0.0])
    shared: list[float] = field(default_factory=lambda: [0.0, 0.0])
    """The parts of first requests that were read, and how many that were, older ones fading."""
    outlived: list[float] = field(default_factory=lambda: [0.0, 0.0])
    """The prefixes that were read after their life, and how many might have been, older ones fading."""
    sessions: OrderedDict[tuple[str, str], _Session] = field(default_factory=OrderedDict[tuple[str, str], _Session])
    tools: dict[str, _Tool] = field(default_factory=dict[str, _Tool])
    """By name; the one that was called last stands last."""
    calls: _Tool = field(default_factory=_Tool)
    """Of all of them."""
    habit: Habit | None = None

    def asks(self, session: tuple[str, str], at_ms: int, over: int = 0) -> None:
        """Note that a session has a model call, before which the life of so many tokens was over."""
        self.habit = None
        known = self.sessions.pop(session, None)
        if known is not None:
            self._paused((at_ms - known.last_ms) / 1000, waited=known.waits)
        now = self.sessions[session] = known or _Session(at_ms)
        now.last_ms, now.over, now.waits = at_ms, over, False
        self._told(now, went_on=True)
        self._forget(at_ms)

    def waits_or_ends(self, session: tuple[str, str], at_ms: int, event: Within) -> None:
        """Note that a run of a session asks a person, how its calls go, or that it is over, and no model was told of the answer."""
        known = self.sessions.get(session)
        if known is None:
            return
        match event:
            case ev.RunFinished():
                self.habit = None
                self.broken_off += known.waits
                known.waits = False
                self._told(known, went_on=False)
            case ev.ToolCallJudged():
                known.judged[event.call] = event.tool
                if event.action == "ask":
                    known.waits = True
                    known.began.pop(event.call, None)  # (what is in doubt lasts as long as a person takes)
            case ev.ToolCallStarted():
                known.began.pop(event.call, None)
                if event.mode == "run":
                    known.began[event.call] = at_ms
            case ev.ToolCallFinished():
                began_ms, tool = known.began.get(event.call), known.judged.get(event.call, "")
                if began_ms is not None and tool and event.outcome in ("ok", "error"):
                    self.habit = None
                    for each in (self._tool(tool), self.calls):
                        each.answered((at_ms - began_ms) / 1000)
            case _:
                assert_never(event)

    def _told(self, known: _Session, *, went_on: bool) -> None:
        """Note that the step under way is over, and whether a model was told of it."""
        if known.judged:
            tools = {known.judged.get(call, "") for call in known.began}
            for each in (*(self._tool(tool) for tool in tools), *((self.calls,) if tools else ())):
                each.over(went_on=went_on)
            known.judged, known.began = {}, {}

    def _tool(self, name: str) -> _Tool:
        found = self.tools[name] = self.tools.pop(name, None) or _Tool()
        if len(self.tools) > TOOLS:
            del self.tools[next(iter(self.tools))]
        return found

    def _paused(self, seconds: float, *, waited: bool) -> None:
        _add(self.gaps, seconds)
        if waited:
            _add(self.waits, seconds)
        if sum(count for _, count in self.gaps) > FADES:
            self.gaps, self.waits = _half(self.gaps), _half(self.waits)
            self.broken_off /= 2
            self.lengths = Counter({length: -(-count // 2) for length, count in self.lengths.items()})

    def answered(self, session: tuple[str, str], usage: Usage, *, first: bool) -> None:
        """Note what a model call of a session used."""
        known = self.sessions.get(session)
        tokens = usage.total_input_tokens
        if known is None or not tokens:
            return
        self.habit = None
        if first:
            known.first = tokens
            of, count = self.shared
            self.shared = [of * (1 - LATELY) + usage.cache_read_tokens / tokens, count * (1 - LATELY) + 1]
        elif known.tokens:
            if self._own(known) >= OWN * known.over > 0:
                of, count = self.outlived
                read = usage.cache_read_tokens >= known.over * (1 - TOLERANCE)
                self.outlived = [of * (1 - LATELY) + read, count * (1 - LATELY) + 1]
            self.grown[0] += max(tokens - known.tokens, 0)
            self.grown[1] += 1
        known.calls, known.tokens = known.calls + 1, tokens

    def _own(self, known: _Session) -> float:
        """Estimate how many of the tokens whose life was over no other session keeps."""
        of, count = self.shared
        return known.over - (of / count if count else 0.0) * known.first

    def _forget(self, now_ms: int) -> None:
        """Count sessions as over that were idle for long, or that are too many."""
        while self.sessions:
            name, oldest = next(iter(self.sessions.items()))
            if len(self.sessions) <= SESSIONS and now_ms - oldest.last_ms < OVER_S * 1000:
                return
            del self.sessions[name]
            self.lengths[min(oldest.calls, LONGEST)] += 1
            self.broken_off += oldest.waits
            self._told(oldest, went_on=False)

    def summed(self) -> Habit:
        """Sum it up; the same until something is noted."""
        if self.habit is None:
            gaps, waits = _gaps(self.gaps), _gaps(self.waits)
            tools = {name: tool.summed() for name, tool in self.tools.items()}
            growth = self.grown[0] / self.grown[1] if self.grown[1] else 0.0
            shared = self.shared[0] / self.shared[1] if self.shared[1] else 0.0
            outlived = self.outlived[0] / self.outlived[1] if self.outlived[1] else 0.0
            lengths, broken_off = tuple(sorted(self.lengths.items())), round(self.broken_off)
            self.habit = Habit(gaps, lengths, growth, shared, outlived, waits, broken_off, tools, self.calls.summed())
        return self.habit


class Habits:
    """What was measured of the agents of a process."""

    def __init__(self) -> None:
        self._agents: dict[str, _Agent] = {}
        self._answers: dict[str, dict[tuple[str, str], list[float]]] = {}
        """Agent -> (type of step, model) -> answers that were taken, and all."""

    def measured(self, bundle: Bundle) -> tuple[Measured, ...]:
        """Say how models did at the types of an agent's steps."""
        known = self._answers.get(bundle.agent, {}) if bundle.routing.table else {}
        return tuple(Measured(step, model, good, total) for (step, model), (good, total) in known.items())

    def _answered(self, agent: str, event: ev.AnswerJudged) -> None:
        if event.by == "failed":  # (the model or the judge could not be reached: nothing was learnt of its answers)
            return
        known = self._answers.setdefault(agent, {}).setdefault((event.step, event.model), [0.0, 0.0])
        known[0] += event.action == "take"
        known[1] += 1
        if known[1] > ANSWERS:
            known[:] = [known[0] / 2, known[1] / 2]

    def _passed_over(self, agent: str, step: str) -> None:
        for (of, _), known in self._answers.get(agent, {}).items():
            if of == step:
                known[:] = [known[0] * PASSED_OVER, known[1] * PASSED_OVER]

    def of(self, agent: str) -> Habit:
        """Say how an agent's sessions have gone."""
        found = self._agents.get(agent)
        return found.summed() if found is not None else Habit()

    def note(self, before: State, entries: Iterable[ev.Entry | Outline]) -> None:
        """Note what a run wrote. `before`: its state until then."""
        agent, session = before.agent, (before.tenant, before.session)
        apart, calls = before.refreshing or bool(before.remembers), before.kept_calls
        aside = before.model is not None and bool(before.model.view)
        for entry in entries:
            event = entry.event
            if isinstance(event, ev.RunStarted):
                agent, session = event.agent, (event.tenant, event.session)
                apart = event.refreshes is not None or event.remembers is not None
            if apart or not agent:
                continue
            if isinstance(event, ev.AnswerJudged):
                self._answered(agent, event)
            if isinstance(event, Within) and agent in self._agents:
                self._agents[agent].waits_or_ends(session, entry.at_ms, event)
            if isinstance(event, ev.ModelCallStarted):
                aside = bool(event.view)
                if event.choice == "measured":
                    self._passed_over(agent, event.step)
            if aside:  # a request of its own says nothing of the conversation's
                continue
            if isinstance(event, ev.ModelCallStarted):
                if (event.attempt == 1 or event.choice == "escalated") and not event.batch:
                    over = event.cache_sent if event.cache_unkept == "life" else 0
                    self._agents.setdefault(agent, _Agent()).asks(session, entry.at_ms, over)
            elif isinstance(event, ev.ModelCallFinished) and event.usage is not None and agent in self._agents:
                self._agents[agent].answered(session, event.usage, first=calls == 0)
                calls += 1

    async def read(self, store: Store) -> None:
        """Note what the latest runs of some tenants wrote, before this process drives any. What cannot be read is left out."""
        left = READ_EVENTS
        for tenant in (await store.tenants())[:READ_TENANTS]:
            latest = await store.runs(tenant, limit=READ_RUNS)
            rows = [
                row for row, events in zip(latest, accumulate(row.seq for row in latest), strict=True) if events <= left
            ]
            left -= sum(row.seq for row in rows)
            try:
                outlines = await store.outlines(tenant, [row.run for row in rows])
            except (UnknownEvent, msgspec.ValidationError):  # a newer program's
                continue
            self._read(sorted(rows, key=lambda row: row.created_ms), outlines)

    def _read(self, rows: Sequence[RunRow], outlines: Mapping[str, Sequence[Outline]]) -> None:
        calls: Counter[str] = Counter()
        for row in rows:
            written = outlines.get(row.run, ())
            self.note(State(kept_calls=calls[row.session]), written)
            calls[row.session] += _answers(written)


def _answers(written: Iterable[Outline]) -> int:
    """Count the answers to requests that went on from the conversation."""
    aside, count = False, 0
    for each in written:
        if isinstance(each.event, ev.ModelCallStarted):
            aside = bool(each.event.view)
        count += isinstance(each.event, ev.ModelCallFinished) and not aside
    return count
