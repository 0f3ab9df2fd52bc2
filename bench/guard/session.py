"""A run under the guard without its edges: real events, folded, moved on by the loop's own step. No store, no model, no clock.

A call that is denied, or that a person says no to, is not made, and the model is told so. What is proposed comes from outside: a
recording, or a script.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from bench.guard.recordings import Proposed
from stanchion.core import event as ev
from stanchion.core.bundle import Bundle, digest_of
from stanchion.core.fold import evolve
from stanchion.core.message import MODEL, USER, Label, Text, ToolCall, ToolResult
from stanchion.core.path import pick
from stanchion.core.state import Call, State
from stanchion.guard.evidence import label_of
from stanchion.loop.effect import CallTool, Check, Moment, View, for_one_run, view
from stanchion.loop.step import advance

_encode = msgspec.json.Encoder(order="sorted").encode
_START_MS = 1_700_000_000_000
Tool = Callable[[str, dict[str, Any]], tuple[str, bool]]
"""Runs a tool: its name and arguments -> its answer, and whether it failed."""


class Question(msgspec.Struct, frozen=True):
    """A call that waits for a person."""

    tool: str
    args: dict[str, Any]
    rule: str
    reason: str
    values: tuple[str, ...] = ()
    """The texts of the call that made it ask."""


Person = Callable[[Question], bool]


def nobody(_question: Question) -> bool:
    """Nobody says yes."""
    return False


class Verdict(msgspec.Struct, frozen=True):
    """What became of a proposed call."""

    tool: str
    args: dict[str, Any]
    action: str
    rule: str
    reason: str = ""
    approved: bool = False


def view_of(bundle: Bundle, check: Check) -> View:
    """Make what a run is judged by; `Session` takes a memo of its own of it."""
    return view(bundle, check)


class Session:
    """One run of a bundle."""

    def __init__(
        self, seen: View, task: str, tool: Tool, person: Person, *, name: str = "run", speaker: Label = USER
    ) -> None:
        self._view = for_one_run(seen)
        self._tool = tool
        self._person = person
        self.state = State()
        self.made: list[Proposed] = []
        """Calls that were made, in order."""
        self.worked: list[Proposed] = []
        """.. and did not fail."""
        self.verdicts: list[Verdict] = []
        bundle = seen.bundle
        started = ev.RunStarted(
            run=name, tenant="bench", session=name, agent=bundle.agent, bundle=digest_of(bundle), mark=bundle.guard.mark,
            parts=(Text(task, speaker),),
        )  # fmt: skip
        self._append(started)

    def say(self, text: str, speaker: Label = USER) -> None:
        """The user says something more, or what else is put to the model."""
        self._append(ev.MessageAdded(parts=(Text(text, speaker),)))

    def propose(self, text: str, calls: Sequence[Proposed]) -> None:
        """The model says something and proposes calls: they are judged, asked about, and made, as a step of a run."""
        self._turn += 1
        started = ev.ModelCallStarted(
            turn=self._turn, attempt=1, route=0, provider="recorded", model="recorded", messages=len(self.state.messages), prefix=""
        )  # fmt: skip
        self._append(started)
        said = (Text(text, MODEL),) if text else ()
        proposed = tuple(
            ToolCall(f"{self._turn}.{index}", call.tool, _encode(call.args).decode(), MODEL)
            for index, call in enumerate(calls)
        )
        finish = "tool_calls" if proposed else "stop"
        self._append(ev.ModelCallFinished(turn=self._turn, attempt=1, finish=finish, cost=0, parts=(*said, *proposed)))
        self._settle()

    _turn = 0

    def _append(self, event: ev.Event) -> None:
        seq = self.state.seq + 1
        self.state = evolve(self.state, ev.Entry(seq, _START_MS + seq, 1, event))

    def _settle(self) -> None:
        """Move the step on until all of its calls have their results."""
        while self.state.calls:
            decision = advance(self.state, self._view, Moment(self.state.at_ms, 1))
            before = {call.id: call for call in self.state.calls}
            for event in decision.events:
                self._append(event)
                if isinstance(event, ev.ToolCallJudged):
                    self._judged(before[event.call], event)
            for effect in decision.effects:
                if isinstance(effect, CallTool):
                    self._make(effect)
            if not decision.events:
                raise RuntimeError(f"the step stands still with {self.state.calls!r}")

    def _judged(self, call: Call, event: ev.ToolCallJudged) -> None:
        """Note a verdict; where it asks, let the person answer."""
        args = msgspec.json.decode(call.part.arguments)
        reason = "".join(part.text for part in event.parts if isinstance(part, Text))
        yes = False
        if event.action == "ask":
            flagged = tuple(pick(call.part.arguments, event.values))
            yes = self._person(Question(event.tool, args, event.rule, reason, flagged))
            answer = "approve" if yes else "reject"
            self._append(ev.CallDecided(call=call.id, revision=event.revision, decision=answer, by="person"))
        self.verdicts.append(Verdict(event.tool, args, event.action, event.rule, reason, yes))

    def _make(self, effect: CallTool) -> None:
        args = msgspec.json.decode(effect.arguments)
        spec = self._view.bundle.tool(effect.tool)
        text, failed = self._tool(effect.tool, args)
        self.made.append(Proposed(effect.tool, args))
        if not failed:
            self.worked.append(self.made[-1])
        label = Label("runtime") if failed or spec is None else label_of(spec, text)
        result = ToolResult(effect.provider_id, effect.tool, text, label, error=failed)
        outcome = "error" if failed else "ok"
        self._append(ev.ToolCallFinished(call=effect.call, outcome=outcome, parts=(result,)))
