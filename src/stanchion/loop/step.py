"""The tool calls of one step: check, judge, start, try again, settle doubt, wait for people. Pure.

    proposed --check, judge--> ready --start--> running --> settled
                 |               ^                 |
                 +--> asking ----+     failed <----+   try again, reconcile, ask a person, or settle

An attempt that may have left without a definite answer is in doubt and follows its tier (invariant I2): reads run
again; keyed calls run again under the same key; a tool that reconciles is asked; anything else waits for a person.
"""

from __future__ import annotations

import hashlib
from typing import Literal, assert_never

import msgspec

from stanchion.core import event as ev
from stanchion.core.bundle import (
    CALL_TOOL,
    DECLARE_PLAN,
    EXTRACT,
    FIND_TOOLS,
    MEMORY_TOOLS,
    READ_HISTORY,
    READ_RESULT,
    REMEMBER,
    USE_SKILL,
    Bundle,
    ToolSpec,
)
from stanchion.core.message import REVIEWER, RUNTIME, Label, Text, ToolResult
from stanchion.core.state import EDIT_INVALID, Call, State
from stanchion.guard.grant import covered
from stanchion.guard.judge import Verdict, call_digest, judge
from stanchion.guard.standing import standing
from stanchion.loop import check, compact, embed, extract, find, plan, remember, skill
from stanchion.loop.effect import CallTool, Decision, Effect, Moment, View


def advance(state: State, view: View, moment: Moment) -> Decision:
    """Move every call of the step as far as it goes now."""
    events: list[ev.Event] = []
    effects: list[Effect] = []
    wakes: list[int] = []
    busy = False
    asking: Decision | None = None
    for index, call in enumerate(state.calls):
        if call.phase == "ready" and busy and not view.bundle.parallel_tool_calls:
            continue  # one call is under way at a time, in order
        moved = _advance(state, call, index, view, moment)
        busy = busy or call.phase != "settled"
        if any(effect.ask or effect.embed for effect in moved.effects if isinstance(effect, CallTool)):
            asking = asking or moved
            continue
        events += moved.events
        effects += moved.effects
        wakes.append(moved.wake_at_ms)
    wake = min((wake for wake in wakes if wake), default=0)
    # By itself: each is decided by what those before it have reserved. A refused reservation takes back what was decided with it, so an
    # `extract`, which waits for money, is one at a time.
    if (
        asking
        and not events
        and not (state.extracting and any(isinstance(e, CallTool) and e.ask for e in asking.effects))
    ):
        return msgspec.structs.replace(asking, wake_at_ms=wake)
    return Decision(events=tuple(events), effects=tuple(effects), wake_at_ms=wake)


def _advance(state: State, call: Call, index: int, view: View, moment: Moment) -> Decision:
    match call.phase:
        case "proposed" if (asked := check.action(state, call, view, moment)) is not None:
            return asked
        case "proposed":
            return Decision(events=tuple(_judge(state, call, index, view, moment)))
        case "asking":
            return _expire(call, moment)
        case "ready":
            if call.policy != _policy(view) and (call.approved or not call.attempt):  # it was allowed under others
                return Decision(events=tuple(_judge(state, _unapproved(call), index, view, moment)))
            dry = state.dry_run and _pretends(_spec(view, call))
            return _attempt(state, call, view, moment, "dry" if dry else "run")
        case "failed":
            return _failed(state, call, view, moment)
        case "settled" if call.unchecked:
            return check.result(state, call, view, moment)
        case "running" | "settled":
            return Decision()
        case _:
            assert_never(call.phase)


def _unapproved(call: Call) -> Call:
    """A yes binds the policies under which it was asked for."""
    return msgspec.structs.replace(call, approved=False, approvals=())


def doubtful(call: Call, bundle: Bundle) -> bool:
    """Whether an attempt of this call, once it has left, must be answered for: it is no read, and not pretended."""
    spec = bundle.tool(call.tool)
    return call.mode == "run" and (spec is None or spec.effect != "read")


def abandon(state: State, bundle: Bundle) -> tuple[ev.Event, ...]:
    """Settle all calls of a run that stops: what was not started is cancelled, what is in doubt is said to be."""
    events: list[ev.Event] = []
    for call in state.calls:
        if call.phase == "settled":
            continue
        spec = bundle.tool(call.tool)
        if call.phase == "failed" and call.code in _DECIDED:
            events.append(_decided(call))
        elif call.in_doubt and (spec is None or spec.effect != "read"):
            events.append(_result(call, "in_doubt", "The run was stopped. It is not known whether this was done."))
        elif call.phase == "failed" and not call.retryable:
            events.append(_result(call, "error", call.detail or call.code))
        else:
            events.append(_result(call, "cancelled", "The run was stopped before this was done."))
    return tuple(events)


def idempotency_key(state: State, call: Call) -> str:
    """The key handed to a tool: of this call at this revision, the same for each attempt."""
    named = f"{state.tenant}\0{state.run}\0{call.id}\0{call.revision}"
    return hashlib.sha256(named.encode()).hexdigest()[:32]


def _judge(state: State, call: Call, index: int, view: View, moment: Moment) -> list[ev.Event]:
    name = call.part.name
    if problem := _unfinished(state, index):
        return [_result(call, "invalid", problem)]
    spec = view.bundle.tool(name)
    if spec is None:
        return [_result(call, "invalid", find.unknown(name, view))]
    if over := _over(state, index):
        text = f"Not done: this run may make no more tool calls ({over})."
        judged = _judged(call, "deny", f"limit:{over}", name, "")
        return [judged, _result(call, "denied", text)]
    if call.missing and not call.revision:
        named = ", ".join(f"{{{{{name}}}}}" for name in call.missing)
        return [_result(call, "invalid", f"Not done: there is no value {named}. Take it out with {EXTRACT} first.")]
    checked = view.check.arguments(name, call.part.arguments)
    if isinstance(checked, str):
        return _misfit(call, name, checked)
    if (answer := _built_in(state, call, checked, spec, view)) is not None:
        return answer
    verdict = verdict_on(state, call, name, checked, view, moment.now_ms)
    digest = call_digest(name, checked)
    expires = moment.now_ms + int(verdict.expires_s * 1000) if verdict.expires_s else 0
    judged = msgspec.structs.replace(
        _judged(call, verdict.action, verdict.rule, name, digest, verdict.reason, expires),
        values=verdict.values,
        policy=_policy(view),
        quorum=verdict.quorum,
    )
    told = check.told(state, call, view, moment.now_ms, checked)
    if verdict.action == "deny":
        return [
            *told,
            judged,
            _result(call, "denied", f"Not allowed: {_tellable(call, verdict.reason, verdict.rule)}."),
        ]
    return [*told, judged]


def _built_in(state: State, call: Call, checked: bytes, spec: ToolSpec, view: View) -> list[ev.Event] | None:
    """Answer what the loop itself can, and let an `extract` be started, or what reads and writes memory. None: it is a tool of the agent."""
    allowed = _judged(call, "allow", "built_in", spec.name, call_digest(spec.name, checked))
    if spec.name == READ_RESULT:
        return [_judged(call, "allow", "built_in", spec.name, ""), _read_result(state, call, checked, spec)]
    if spec.name == READ_HISTORY:
        found = compact.read_back(state, checked)
        return [allowed, _result(call, "error" if found.error else "ok", found.text, found.label)]
    if spec.name == DECLARE_PLAN:
        announced = plan.declared(state, view.bundle, view.evidence, checked)
        if isinstance(announced, str):
            return [allowed, _result(call, "error", announced)]
        return [allowed, ev.PlanDeclared(tools=announced), _result(call, "ok", plan.confirmation(announced))]
    if spec.name == USE_SKILL:
        answer = skill.opened(state, call, view.bundle, checked)
        return [allowed, _result(call, "error" if answer.error else "ok", answer.text, answer.label)]
    if spec.name == FIND_TOOLS:
        if call.filled:  # a text that is not shown would choose what is
            return [_result(call, "invalid", f"{FIND_TOOLS} takes no references: say what you look for.")]
        told = find.found(state, call, view, checked)
        return [allowed, _result(call, "ok", told.text, told.label)]
    if spec.name == CALL_TOOL:  # one that could be taken for a call of a tool is one already
        return [_result(call, "invalid", f"{CALL_TOOL} calls another tool: say its name, and its arguments.")]
    if spec.name in MEMORY_TOOLS:
        return [allowed]
    if spec.name == EXTRACT:
        problem = extract.problem(state, checked)
        return [_result(call, "invalid", problem)] if problem else [allowed]
    return None


def _tellable(call: Call, text: str, otherwise: str) -> str:
    """What of a text may be said to the model: it does not know the values that were filled into its call."""
    return otherwise if call.filled else text


def verdict_on(state: State, call: Call, name: str, checked: bytes, view: View, now_ms: int) -> Verdict:
    """Judge a call. A yes counts if enough people gave it, and if they may give it."""
    arguments = msgspec.json.decode(checked)
    known = standing(state, view.evidence, now_ms, view.policies, call)
    found = check.of_action(state, call, view, now_ms, arguments)
    known = msgspec.structs.replace(known, checked=found) if found else known
    verdict = judge(view.bundle, name, arguments, dry_run=state.dry_run, standing=known)
    if verdict.action != "ask" or not call.approved:
        return verdict
    if beyond := covered(call.grants, name, arguments, now_ms):
        text = f"{verdict.reason}; who edited it may not allow it: {beyond}"
        return msgspec.structs.replace(verdict, rule="beyond_reviewer", reason=text)
    if len(call.approvals) < verdict.quorum:
        return verdict
    return judge(view.bundle, name, arguments, approved=True, dry_run=state.dry_run, standing=known)


def _policy(view: View) -> str:
    return view.policies.digest if view.policies is not None else ""


def _unfinished(state: State, index: int) -> str:
    """Say why a call of a response that did not end well is not taken, or "": it may lack its end and look whole."""
    if state.finish == "refusal":
        return "Not done: the answer that made this call was withdrawn."
    if state.finish == "length" and index == len(state.calls) - 1:
        return (
            "Not done: your answer was cut in this call because it was too long. Make the call again, or a shorter one."
        )
    return ""


def _misfit(call: Call, name: str, problem: str) -> list[ev.Event]:
    """Arguments that cannot be used: the model is told; a person who edited them is asked again."""
    if call.approved and call.revision:
        why = f"the edited arguments cannot be used: {problem}"
        return [_judged(call, "ask", EDIT_INVALID, name, "", why, call.expires_ms)]
    return [_result(call, "invalid", _unfit(call, name, problem))]


def _unfit(call: Call, name: str, problem: str) -> str:
    return _tellable(call, problem, f"With its references filled in, the arguments of {name} do not have their types.")


def _judged(
    call: Call, action: str, rule: str, tool: str, digest: str, reason: str = "", expires_ms: int = 0
) -> ev.ToolCallJudged:
    return ev.ToolCallJudged(
        call=call.id,
        revision=call.revision,
        action=action,  # type: ignore[arg-type]
        rule=rule,
        tool=tool,
        digest=digest,
        expires_ms=expires_ms,
        parts=(Text(reason, RUNTIME),) if reason else (),
    )


def _over(state: State, index: int) -> str:
    """Name the limit on tool calls that this call of the step would pass, or ""."""
    caps = state.caps
    waiting = sum(call.attempt == 0 and call.phase != "settled" for call in state.calls[:index])
    if caps.tool_calls and state.totals.tool_calls + waiting >= caps.tool_calls:
        return "tool_calls"
    return "tool_calls_per_turn" if caps.tool_calls_per_turn and index >= caps.tool_calls_per_turn else ""


def _expire(call: Call, moment: Moment) -> Decision:
    if not call.expires_ms or call.in_doubt:
        return Decision()
    if moment.now_ms < call.expires_ms:
        return Decision(wake_at_ms=call.expires_ms)
    return Decision(events=(_result(call, "rejected", "Nobody approved this in time, so it was not done."),))


def _pretends(spec: ToolSpec) -> bool:
    """Whether a dry run does not call this tool for real."""
    return spec.effect != "read" or spec.dry_run


def _attempt(
    state: State, call: Call, view: View, moment: Moment, mode: Literal["run", "reconcile", "dry"]
) -> Decision:
    spec = _spec(view, call)
    checked = view.check.arguments(spec.name, call.part.arguments)
    if isinstance(checked, str):  # the tool changed under a run that was judged before
        if call.in_doubt:
            return _ask(call, spec, f"its arguments do not fit any more: {checked}")
        return Decision(events=(_result(call, "invalid", _unfit(call, spec.name, checked)),))
    if call.id in moment.blocked:
        return Decision()
    if spec.name == EXTRACT:
        begun = extract.attempt(state, call, spec, checked, view.bundle, moment)
        return Decision(events=(_result(call, "error", begun),)) if isinstance(begun, str) else begun
    said = remember.said_by(state, str(msgspec.json.decode(checked)["value"])) if spec.name == REMEMBER else None
    embeds = spec.name in MEMORY_TOOLS and mode == "run"
    asked = embed.of_call(state, spec.name, checked, said, view.bundle) if embeds else ""
    started = ev.ToolCallStarted(
        call=call.id,
        attempt=call.attempt + 1,
        revision=call.revision,
        mode=mode,
        key=idempotency_key(state, call) if spec.keyed else "",
        deadline_ms=moment.now_ms + int(spec.timeout_s * 1000),
    )
    if not isinstance(asked, str):
        started = embed.reserving(started, asked, state, moment)
    effect = CallTool(
        call=call.id,
        attempt=started.attempt,
        revision=call.revision,
        tool=spec.name,
        mode=started.mode,
        arguments=checked,
        key=started.key,
        deadline_ms=started.deadline_ms,
        provider_id=call.part.id,
        retry=spec.retry,
        doubtful=spec.effect != "read" and mode == "run",
        max_result_chars=spec.max_result_chars,
        in_doubt=call.in_doubt,
        said=said,
        embed=None if isinstance(asked, str) else asked,
        lacked=asked if isinstance(asked, str) else "",
    )
    return Decision(events=(started,), effects=(effect,))


def _failed(state: State, call: Call, view: View, moment: Moment) -> Decision:
    """Go on from an attempt that failed."""
    if call.code in _DECIDED:
        return Decision(events=(_decided(call),))
    spec = _spec(view, call)
    if call.retryable and _again(call, spec):
        if moment.now_ms < call.retry_at_ms:
            return Decision(wake_at_ms=call.retry_at_ms)
        return _attempt(state, call, view, moment, call.mode)
    if call.in_doubt and spec.effect != "read":
        return _doubt(state, call, spec, view, moment)
    return Decision(events=(_result(call, "error", call.detail or call.code, Label("tool", call.tool)),))


def _again(call: Call, spec: ToolSpec) -> bool:
    """Whether an attempt that failed for the moment may be made again (I2)."""
    if call.mode == "reconcile":
        return call.checks < spec.retry.attempts
    return call.tries < spec.retry.attempts and (spec.effect == "read" or spec.keyed or not call.in_doubt)


def _doubt(state: State, call: Call, spec: ToolSpec, view: View, moment: Moment) -> Decision:
    """Find out what became of an effect: the tool says, or a person does.

    The tool is asked only after the attempt's own deadline: until then a request that was already released may still
    land, and "not done" would not be true a moment later.
    """
    if spec.reconciles and call.mode != "reconcile":
        if moment.now_ms < call.deadline_ms:
            return Decision(wake_at_ms=call.deadline_ms)
        return _attempt(state, call, view, moment, "reconcile")
    return _ask(call, spec, f"{call.detail or 'no answer came'} ({call.code})")


def _ask(call: Call, spec: ToolSpec, cause: str) -> Decision:
    why = f"it is not known whether {spec.name} was done: {cause}"
    return Decision(events=(_judged(call, "ask", "in_doubt", spec.name, "", why),))


_DECIDED = ("decided_record", "decided_fail", "decided_reject")


def _decided(call: Call) -> ev.ToolCallFinished:
    match call.code:
        case "decided_record":
            return _result(call, "ok", call.detail, REVIEWER)
        case "decided_fail":
            return _result(call, "error", call.detail or "This was not done.", REVIEWER)
        case _:
            reason = f" Reason: {call.detail}" if call.detail else ""
            return _result(call, "rejected", f"A person rejected this call; it was not done.{reason}")


def _read_result(state: State, call: Call, arguments: bytes, spec: ToolSpec) -> ev.ToolCallFinished:
    """Answer the built-in tool: a further piece of a result that was too long to show whole."""
    wanted = msgspec.json.decode(arguments)
    number, offset = str(wanted["result"]), int(wanted.get("offset", 0))
    known = [str(place) for place in range(1, len(state.held) + 1)]
    if number not in known:
        wrong = _tellable(call, f"There is no long result {number[:64]!r}", "There is no such long result")
        return _result(call, "error", f"{wrong}; there are {len(known)}.")
    text = state.held[int(number) - 1]
    offset = min(max(offset, 0), len(text))
    end = min(offset + spec.max_result_chars, len(text))
    more = f"\n[{len(text) - end} more characters from offset={end} on.]" if end < len(text) else "\n[end]"
    return _result(call, "ok", text[offset:end] + more, Label("tool", READ_RESULT))


def _result(call: Call, outcome: str, text: str, label: Label = RUNTIME) -> ev.ToolCallFinished:
    result = ToolResult(call.part.id, call.part.name, text, label, error=outcome not in ("ok", "pretended"))
    return ev.ToolCallFinished(call=call.id, outcome=outcome, parts=(result,))  # type: ignore[arg-type]


def _spec(view: View, call: Call) -> ToolSpec:
    spec = view.bundle.tool(call.tool)
    if spec is None:
        raise LookupError(f"the bundle has no tool {call.tool!r}, though a call of it was judged")
    return spec
