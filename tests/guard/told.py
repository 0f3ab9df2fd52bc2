"""A run as the guard sees it: what was said, what tools answered, in order; made of events, as the runtime makes it."""

from __future__ import annotations

from typing import Any

import msgspec

from stanchion.core import event as ev
from stanchion.core.bundle import Bundle, EffectTier, Route, ToolSpec
from stanchion.core.fold import evolve
from stanchion.core.message import USER, Label, Text, ToolCall, ToolResult
from stanchion.core.money import Price
from stanchion.core.policy import GuardRules, ResultField, Role
from stanchion.core.state import State
from stanchion.guard.evidence import Evidence
from stanchion.guard.judge import Verdict, call_digest, judge
from stanchion.guard.standing import standing

ROUTE = Route("p", "m", Price(0, 0, 0, 0, 0))


def spec(
    name: str,
    effect: EffectTier = "read",
    params: dict[str, Role] | None = None,
    result: dict[str, ResultField] | None = None,
    properties: dict[str, Any] | None = None,
) -> ToolSpec:
    """Make a tool."""
    return ToolSpec(
        name, "", {"type": "object", "properties": properties or {}}, effect, params=params or {}, result=result or {}
    )


class Told:
    """A run of one user with tools, as far as it was told."""

    def __init__(self, *tools: ToolSpec, rules: GuardRules | None = None, identity: str = "") -> None:
        self.bundle = Bundle("a", identity, (ROUTE,), tools, guard=rules or GuardRules())
        self.evidence = Evidence(self.bundle)
        self.state = State()
        self.now_ms = 0
        self._event(ev.RunStarted(run="r", tenant="t", session="s", agent="a", bundle="b"))

    def _event(self, event: ev.Event) -> None:
        self.now_ms += 1
        self.state = evolve(self.state, ev.Entry(self.state.seq + 1, self.now_ms, 1, event))

    def user(self, text: str) -> Told:
        """The user says something."""
        self._event(ev.MessageAdded(parts=(Text(text, USER),)))
        return self

    def propose(self, tool: str, arguments: dict[str, Any]) -> str:
        """The model proposes a call."""
        started = ev.ModelCallStarted(turn=1, attempt=1, route=0, provider="p", model="m", messages=0, prefix="")
        self._event(started)
        text = msgspec.json.encode(arguments).decode()
        parts = (ToolCall("c", tool, text, Label("model")),)
        self._event(ev.ModelCallFinished(turn=1, attempt=1, finish="tool_calls", cost=0, parts=parts))
        return self.state.calls[0].id

    def read(self, tool: str, answer: Any, **arguments: Any) -> Told:
        """A tool was called, and answered."""
        call = self.propose(tool, arguments)
        self._event(ev.ToolCallJudged(call=call, revision=0, action="allow", rule="", tool=tool))
        self._event(ev.ToolCallStarted(call=call, attempt=1, revision=0))
        text = answer if isinstance(answer, str) else msgspec.json.encode(answer).decode()
        self._event(
            ev.ToolCallFinished(call=call, outcome="ok", parts=(ToolResult("c", tool, text, Label("tool", tool)),))
        )
        return self

    def reject(self, tool: str, **arguments: Any) -> Verdict:
        """The guard asks about a call, and a person says no."""
        verdict = self.judge(tool, **arguments)
        assert verdict.action == "ask"
        call = self.propose(tool, arguments)
        digest = call_digest(tool, msgspec.json.encode(arguments, order="sorted"))
        self._event(
            ev.ToolCallJudged(
                call=call, revision=0, action="ask", rule=verdict.rule, tool=tool, digest=digest, values=verdict.values
            )
        )
        self._event(ev.CallDecided(call=call, revision=0, decision="reject", by="bo"))
        text = (ToolResult("c", tool, "rejected", Label("runtime", trust="trusted"), error=True),)
        self._event(ev.ToolCallFinished(call=call, outcome="rejected", parts=text))
        return verdict

    def judge(self, tool: str, **arguments: Any) -> Verdict:
        """Judge a call now; the memo and one made anew must agree."""
        verdict = judge(self.bundle, tool, arguments, standing=standing(self.state, self.evidence, self.now_ms, None))
        anew = standing(self.state, Evidence(self.bundle), self.now_ms, None)
        assert verdict == judge(self.bundle, tool, arguments, standing=anew), "the memo changed a verdict"
        return verdict
