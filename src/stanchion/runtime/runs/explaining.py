"""Explain a recorded call: fold its run to just before it was judged, judge again, and say it value by value.

The bundle and the policies are those that were stored then. Where judging again gives something else than the journal has,
the explanation says so: the guard of another version may have judged, or content was erased since.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Literal

import msgspec

from stanchion.core import event as ev
from stanchion.core.bundle import Bundle, ToolSpec, decode_bundle
from stanchion.core.errors import NotFound
from stanchion.core.fold import fold
from stanchion.core.message import text_of
from stanchion.core.state import EDIT_INVALID, Call, State
from stanchion.engine.load import Loader, base_of
from stanchion.guard.check import Checks
from stanchion.guard.explain import Row, rows
from stanchion.guard.judge import Reason, Verdict, call_digest
from stanchion.guard.standing import Policies, standing
from stanchion.journal.store import Store
from stanchion.loop.effect import View, view
from stanchion.loop.step import verdict_on
from stanchion.runtime.runs.finding import row_of

FindPolicies = Callable[[str, str], Awaitable[Policies | None]]
"""Finds the policies of a tenant's run by their digest."""


class Judgement(msgspec.Struct, frozen=True):
    """A verdict or a person's decision, as it stands in the journal."""

    seq: int
    at_ms: int
    revision: int
    action: str
    """"allow", "ask", "deny"; or what a person decided."""
    rule: str = ""
    reason: str = ""
    by: str = ""
    policy: str = ""


class Explanation(msgspec.Struct, frozen=True):
    """Why a call was allowed, asked about or denied."""

    run: str
    call: str
    tool: str
    tier: str
    revision: int
    arguments: dict[str, Any] | None
    """None: they cannot be read any more."""
    action: Literal["allow", "ask", "deny"]
    rule: str
    reason: str
    values: list[str]
    """Paths of the arguments that made it ask or deny."""
    policy: str
    quorum: int
    rows: list[Row]
    reasons: list[Reason]
    """What each rule had against it, found by judging again."""
    history: list[Judgement]
    """All that was judged and decided about it, in order."""
    replay: Literal["same", "differs", "none"]
    """Whether judging again gives what is journaled; "none": it was not the guard that judged."""
    note: str = ""
    """What differs, or why it was not judged again."""


class Explaining:
    """Explains calls of one store's runs."""

    def __init__(self, store: Store, loader: Loader, find_policies: FindPolicies | None = None) -> None:
        self._store = store
        self._loader = loader
        self._find_policies = find_policies

    async def explain(self, tenant: str, run: str, call: str) -> Explanation:
        """Explain a call of a run: the guard's last verdict on it. Raises `NotFound` (run, call)."""
        entries, found = await self._judged(tenant, run, call)
        place, last = found[-1]
        for at, event in reversed(found):  # what became of an attempt is asked too, but is no matter of policy
            if not _is_loops(event.rule):
                place, last = at, event
                break
        start = _decided_from(entries, place)
        state = fold(entries[:start], await self._loader.base(tenant, base_of(entries[0])))
        body = await self._store.bundle(tenant, state.bundle)
        bundle = None if body is None else decode_bundle(body)
        return await self._explained(state, bundle, entries[place].at_ms, last, _history(entries, call))

    async def calls(self, tenant: str, run: str) -> Sequence[str]:
        """List the calls of a run that were judged, in order. Raises `NotFound`."""
        await row_of(self._store, tenant, run)
        entries = await self._store.read(tenant, run)
        return list(dict.fromkeys(entry.event.call for entry in entries if isinstance(entry.event, ev.ToolCallJudged)))

    async def _judged(
        self, tenant: str, run: str, call: str
    ) -> tuple[list[ev.Entry], list[tuple[int, ev.ToolCallJudged]]]:
        await row_of(self._store, tenant, run)
        entries = list(await self._store.read(tenant, run))
        judged = [(n, e.event) for n, e in enumerate(entries) if isinstance(e.event, ev.ToolCallJudged)]
        found = [(n, event) for n, event in judged if event.call == call]
        if not found:
            there = ", ".join(dict.fromkeys(event.call for _, event in judged)) or "none"
            text = f"run {run} has no call {call!r} that was judged; there are: {there}"
            raise NotFound(text, field="call")
        return entries, found

    async def _explained(
        self, state: State, bundle: Bundle | None, at_ms: int, event: ev.ToolCallJudged, history: list[Judgement]
    ) -> Explanation:
        call = state.call(event.call)
        spec = bundle.tool(event.tool) if bundle is not None else None
        blank = _told(state, event, history)
        if call is None or bundle is None or spec is None:
            return msgspec.structs.replace(blank, note="the bundle of this run, or its content, is not in the store")
        arguments, exact = _arguments(call, spec, event.digest)
        blank = msgspec.structs.replace(blank, tier=spec.effect, arguments=arguments)
        if arguments is None:
            return msgspec.structs.replace(blank, note="the arguments cannot be read: erased, or no JSON object")
        policies, missing = await self._policies(state.tenant, event.policy)
        seen = view(bundle, _AsWritten(), policies=policies, checks=Checks(skip_missing=True))
        known = standing(state, seen.evidence, at_ms, policies, call)
        blank = msgspec.structs.replace(blank, rows=rows(bundle, state, spec, arguments, known))
        if _is_loops(event.rule):
            return msgspec.structs.replace(blank, note="the loop asked or refused, not the guard")
        if missing:
            return msgspec.structs.replace(blank, replay="differs", note=missing)
        return _compared(blank, state, call, seen, at_ms, exact=exact)

    async def _policies(self, tenant: str, digest: str) -> tuple[Policies | None, str]:
        if not digest:
            return None, ""
        found = await self._find_policies(tenant, digest) if self._find_policies else None
        missing = f"the policies {digest} cannot be read here, so that their part is not judged again"
        return found, "" if found is not None else missing


class _AsWritten:
    """Takes what a model wrote: it was checked when it was judged."""

    def arguments(self, tool: str, text: str) -> bytes | str:
        """Give the arguments."""
        return text.encode()

    def output(self, text: str) -> str:
        """Find nothing wrong."""
        return ""


def _compared(blank: Explanation, state: State, call: Call, seen: View, at_ms: int, *, exact: bool) -> Explanation:
    """Judge again and compare."""
    checked = _encode(blank.arguments)
    verdict = verdict_on(state, call, blank.tool, checked, seen, at_ms)
    note = "" if exact else "the arguments are as the model wrote them, without the tool's defaults"
    said = msgspec.structs.replace(blank, reasons=_reasons(verdict), replay="same", note=note)
    if (verdict.action, verdict.rule) == (blank.action, blank.rule):
        return said
    text = f"judged again it is {verdict.action} by {verdict.rule} ({verdict.reason or 'nothing against it'})"
    return msgspec.structs.replace(said, replay="differs", note="; ".join(filter(None, (text, note))))


def _reasons(verdict: Verdict) -> list[Reason]:
    return list(verdict.reasons) or [
        Reason(verdict.action, verdict.rule, verdict.reason or "no rule has anything against it")
    ]


def _told(state: State, event: ev.ToolCallJudged, history: list[Judgement]) -> Explanation:
    return Explanation(
        run=state.run,
        call=event.call,
        tool=event.tool,
        tier="",
        revision=event.revision,
        arguments=None,
        action=event.action,
        rule=event.rule,
        reason=text_of(event.parts),
        values=list(event.values),
        policy=event.policy,
        quorum=event.quorum,
        rows=[],
        reasons=[],
        history=history,
        replay="none",
    )


def _is_loops(rule: str) -> bool:
    """Whether the loop judged by itself: limits, doubt about an attempt, an edit that cannot be used."""
    return rule in ("in_doubt", EDIT_INVALID, "built_in") or rule.startswith("limit:")


def _decided_from(entries: list[ev.Entry], place: int) -> int:
    """Find where the decision began that judged: the calls of a step are judged at once, by one and the same state."""
    at_ms = entries[place].at_ms
    step, bound = _numbers(entries[place].event)
    while place > 0 and entries[place - 1].at_ms == at_ms:
        before = entries[place - 1].event
        if not isinstance(before, ev.ToolCallJudged | ev.ToolCallFinished | ev.ToolCallStarted):
            break
        other, number = _numbers(before)
        if other != step or number >= bound:
            break
        place, bound = place - 1, number + isinstance(before, ev.ToolCallFinished)
    return place


def _numbers(event: Any) -> tuple[int, int]:
    step, _, index = str(event.call).partition(".")
    return int(step), int(index or 0)


def _history(entries: list[ev.Entry], call: str) -> list[Judgement]:
    found: list[Judgement] = []
    for entry in entries:
        event = entry.event
        if isinstance(event, ev.ToolCallJudged) and event.call == call:
            said = (event.action, event.rule, text_of(event.parts), "", event.policy)
            found.append(Judgement(entry.seq, entry.at_ms, event.revision, *said))
        elif isinstance(event, ev.CallDecided) and event.call == call:
            why = text_of(event.parts[-1:]) if event.note else ""
            said = (event.decision, "", why, event.by, event.policy)
            found.append(Judgement(entry.seq, entry.at_ms, event.revision, *said))
    return found


def _encode(arguments: Any) -> bytes:
    return json.dumps(arguments, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _arguments(call: Call, spec: ToolSpec, digest: str) -> tuple[dict[str, Any] | None, bool]:
    """Give the arguments as they were judged, with the tool's defaults; and whether they are just those."""
    try:
        written = msgspec.json.decode(call.part.arguments.strip() or "{}", type=dict[str, Any])
    except (msgspec.MsgspecError, ValueError):
        return None, False
    known: dict[str, Any] = spec.parameters.get("properties", {})
    defaults = {name: field["default"] for name, field in known.items() if "default" in field}
    for arguments in (written, defaults | written):
        if call_digest(spec.name, _encode(arguments)) == digest:
            return arguments, True
    return written, not digest
