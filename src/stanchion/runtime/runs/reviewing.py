"""What a reviewer is shown of the calls that wait: the reason to say no first, then the action, value by value.

Whatever a model or a third party wrote is quoted and said to be theirs. Past decisions are looked for in so many of the newest
runs only, and need no index.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import msgspec

from stanchion.core import event as ev
from stanchion.core.bundle import Bundle, ToolSpec, decode_bundle
from stanchion.core.calls import proposed
from stanchion.core.errors import NotFound
from stanchion.core.fold import fold
from stanchion.core.message import Text, Thinking, text_of
from stanchion.core.path import leaves
from stanchion.core.state import Call, State, decisions_for
from stanchion.guard.explain import Origin, Row
from stanchion.guard.judge import Reason
from stanchion.guard.values import plain
from stanchion.journal.store import RunRow, Store
from stanchion.runtime.runs.deciding import arguments_of
from stanchion.runtime.runs.explaining import Explaining, Explanation
from stanchion.runtime.shape import Approval, Precedent, Waiting

LOOKED_AT = 20
"""Runs in which past decisions are looked for."""
EVENTS = 400
""".. and events of each of them."""
PRECEDENTS = 5
REMEMBERED = 256
"""Explanations of calls that wait."""
SCANNED = 200
"""Runs that a page of approvals looks at, at most."""
_CLAIM = 1_500
_ORDER = {"destination": 0, "content": 1, "bound": 2}
_UNDO = {
    "read": "it changes nothing",
    "write": "it can be undone",
    "irreversible": "it cannot be undone",
    "destructive": "it destroys data, which cannot be undone",
    "": "it is not known whether it can be undone",
}


class Wanted(msgspec.Struct, frozen=True):
    """Which calls that wait are meant; "" is any."""

    session: str = ""
    agent: str = ""
    user: str = ""
    tool: str = ""
    tier: str = ""
    kind: str = ""


class Reviewing:
    """Shows what waits in the runs of a store."""

    def __init__(self, store: Store, explaining: Explaining) -> None:
        self._store = store
        self._explaining = explaining
        self._known: OrderedDict[tuple[str, str, str, int], Explanation | None] = OrderedDict()

    def clear(self) -> None:
        """Forget what was shown: content was erased."""
        self._known.clear()

    async def waiting(
        self, row: RunRow, state: State, entries: Sequence[ev.Entry], bundle: Bundle | None, *, past: bool = True
    ) -> list[Waiting]:
        """Show the calls of a run that wait. `past`: with similar decisions."""
        asking = [call for call in state.calls if call.phase == "asking"]
        if not asking:
            return []
        known = [item async for item in self._past(row)] if past else []
        shown: list[Waiting] = []
        for call in asking:
            said = await self._remembered(row.tenant, row.run, call.id, state.seq)
            spec = bundle.tool(call.tool) if bundle else None
            waiting = _waiting(call, spec, said, _reason(entries, call.id), _claim(entries, call.id))
            shown.append(msgspec.structs.replace(waiting, similar=_similar(waiting, row.run, known)))
        return shown

    async def page(
        self, tenant: str, wanted: Wanted, *, before: str = "", limit: int = 50
    ) -> tuple[list[Approval], str]:
        """List what waits in a tenant's runs, newest run first, and the run to go on from; "": there are no more.

        A page holds the calls of whole runs, and may hold fewer than there is room for.
        """
        found: list[Approval] = []
        scanned = 0
        while len(found) < limit and scanned < SCANNED:
            asked = {"session": wanted.session, "agent": wanted.agent, "user": wanted.user, "status": "waiting"}
            rows = await self._store.runs(tenant, **asked, before=before, limit=min(limit, 50))
            for row in rows:
                found += [each for each in await self._of(row) if _is_wanted(each.waiting, wanted)]
                before, scanned = row.run, scanned + 1
                if len(found) >= limit:
                    return found, before
            if len(rows) < min(limit, 50):
                return found, ""
        return found, before

    async def ungrounded(self, tenant: str, run: str, call: str) -> list[tuple[str, str, str]]:
        """List the values without a ground by which a call was asked about: role, kind and value."""
        said = await self._explained(tenant, run, call)
        if said is None or "ungrounded" not in {reason.rule for reason in said.reasons}:
            return []
        return [(row.role, row.kind, str(row.value)) for row in said.rows if row.ground == "none"]

    async def _of(self, row: RunRow) -> list[Approval]:
        entries = await self._store.read(row.tenant, row.run)
        state = fold(entries)
        body = await self._store.bundle(row.tenant, state.bundle or row.bundle)
        bundle = None if body is None else decode_bundle(body)
        waiting = await self.waiting(row, state, entries, bundle, past=False)
        return [Approval(row.run, row.session, row.user, row.agent, each) for each in waiting]

    async def _remembered(self, tenant: str, run: str, call: str, seq: int) -> Explanation | None:
        """Explain a call that waits; once as long as nothing happens in its run, for people look again and again."""
        key = (tenant, run, call, seq)
        if key not in self._known:
            self._known[key] = await self._explained(tenant, run, call)
            while len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
        return self._known.get(key)

    async def _explained(self, tenant: str, run: str, call: str) -> Explanation | None:
        try:
            return await self._explaining.explain(tenant, run, call)
        except NotFound:  # it was settled meanwhile
            return None

    async def _past(self, row: RunRow) -> AsyncIterator[_Decided]:
        """List what people decided of late: in this session, for this user, by this agent's runs."""
        seen: dict[str, RunRow] = {}
        for asked in ({"session": row.session}, {"user": row.user}, {"agent": row.agent}):
            if any(asked.values()) and len(seen) < LOOKED_AT:
                for found in await self._store.runs(row.tenant, **asked, limit=LOOKED_AT // 2):
                    seen.setdefault(found.run, found)
        for found in list(seen.values())[:LOOKED_AT]:
            for item in _decided(found.run, await self._store.read(row.tenant, found.run, limit=EVENTS)):
                yield item


def _is_wanted(waiting: Waiting, wanted: Wanted) -> bool:
    pairs = ((wanted.tool, waiting.tool), (wanted.tier, waiting.tier), (wanted.kind, waiting.kind))
    return all(asked in ("", found) for asked, found in pairs)


def _waiting(call: Call, spec: ToolSpec | None, said: Explanation | None, reason: str, claim: str) -> Waiting:
    tier = spec.effect if spec else ""
    arguments = arguments_of(call.part.arguments)
    rows = said.rows if said else []
    against = [] if call.in_doubt or said is None else [each for each in said.reasons if each.action != "allow"]
    rules = against or [Reason("ask", call.rule, reason)]
    return Waiting(
        call=call.id,
        tool=call.tool,
        revision=call.revision,
        attempt=call.attempt,
        kind="in_doubt" if call.in_doubt else "approval",
        why="\n".join(_why(rows, rules, reason, in_doubt=call.in_doubt)),
        action=_action(call.tool, spec, arguments),
        undo=_UNDO.get(tier, ""),
        arguments=call.part.arguments if arguments is None else arguments,
        values=rows,
        rule=call.rule,
        reason=reason,
        rules=rules,
        claim=claim,
        tier=tier,
        batch=call.id.partition(".")[0],
        quorum=max(call.quorum, 1),
        approvals=list(call.approvals),
        decisions=list(decisions_for(call)),
        policy=call.policy,
        asked_ms=call.asked_ms,
        expires_ms=call.expires_ms,
    )


def _why(rows: Sequence[Row], rules: Sequence[Reason], reason: str, *, in_doubt: bool) -> Iterator[str]:
    """Say what speaks against a call, the gravest first: values that nobody trusted said, and where they stand."""
    if in_doubt:
        yield reason
        return
    bare = [row for row in rows if row.ground == "none"]
    for row in sorted(bare, key=lambda row: _ORDER[row.role]):
        yield _unsaid(row)
    for rule in rules:
        if not (bare and rule.rule in ("ungrounded", "copied_url", "composed_url")):
            yield rule.text or rule.rule


def _unsaid(row: Row) -> str:
    value = _short(str(row.value), 120)
    what = f"{value!r} ({row.path}) was not said by the user"
    read = next((origin for origin in row.origins if not origin.trusted), None)
    if read is not None:
        return f"{what}; it stands in {_place(read)}: {_quoted(read.around)}"
    if row.origins:
        place = row.origins[0]
        return f"{what}; it stands in {_place(place)}, which is trusted for other things: {_quoted(place.around)}"
    return f"{what} and stands nowhere in what was said or read: the model made it up"


def _quoted(text: str) -> str:
    """Quote what others wrote, so that it cannot end the quote itself."""
    return '"' + _short(text.replace('"', "'"), 260) + '"'


def _place(origin: Origin) -> str:
    if origin.source == "tool":
        return f"what {origin.tool} returned" + (f" ({origin.path})" if origin.path else "")
    return {"user": "what the user said", "developer": "the agent's instructions"}.get(
        origin.source, f"what came from: {origin.source}"
    )


def _action(tool: str, spec: ToolSpec | None, arguments: dict[str, Any] | None) -> str:
    """Say in a sentence what would be done."""
    given = ", ".join(f"{name}={_short(_json(value), 80)}" for name, value in (arguments or {}).items())
    call = f"{tool}({given})" if arguments is not None else f"{tool} with arguments that are no JSON object"
    what = (spec.description.strip().partition("\n")[0].partition(". ")[0] if spec else "").rstrip(".")
    return f"{_short(what, 120)}: {call}" if what else call


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _reason(entries: Sequence[ev.Entry], call: str) -> str:
    """Give why a call was asked about, as it was written then."""
    found = ""
    for entry in entries:
        event = entry.event
        if isinstance(event, ev.ToolCallJudged) and event.call == call and event.action == "ask":
            found = text_of(event.parts)
    return found


def _claim(entries: Sequence[ev.Entry], call: str) -> str:
    """Give what the model said when it proposed a call: its text, or else its thinking."""
    seq = int(call.partition(".")[0])
    parts = next((e.event.parts for e in entries if e.seq == seq and isinstance(e.event, ev.ModelCallFinished)), ())
    said = "\n".join(part.text for part in parts if isinstance(part, Text) and part.text.strip())
    thought = "\n".join(part.text for part in parts if isinstance(part, Thinking) and part.text.strip())
    return _short((said or thought).strip(), _CLAIM)


class _Decided(msgspec.Struct, frozen=True):
    """A call that a person decided about."""

    precedent: Precedent
    arguments: str
    digest: str


def _decided(run: str, entries: Sequence[ev.Entry]) -> Iterator[_Decided]:
    """List what people decided in a run, the newest first."""
    arguments: dict[str, str] = {}
    dispatch = False
    judged: dict[str, ev.ToolCallJudged] = {}
    found: list[_Decided] = []
    for entry in entries:
        event = entry.event
        match event:
            case ev.ModelCallStarted():
                dispatch = event.dispatch
            case ev.ModelCallFinished():
                calls = proposed(entry.seq, event.parts, dispatch=dispatch)
                arguments |= {call.id: call.part.arguments for call in calls}
            case ev.ToolCallJudged():
                judged[event.call] = event
            case ev.CallDecided() if event.call in judged and event.decision in ("approve", "edit", "reject"):
                last = judged[event.call]
                why = text_of(event.parts[-1:]) if event.note else ""
                past = Precedent(run, event.call, last.tool, event.decision, event.by, entry.at_ms, why, "call")
                found.append(_Decided(past, arguments.get(event.call, ""), last.digest))
            case _:
                pass
    yield from reversed(found)


def _similar(waiting: Waiting, run: str, known: Sequence[_Decided]) -> list[Precedent]:
    """Choose the past decisions on the same call, or on one of the same tool to the same destination."""
    mine = _json(waiting.arguments)
    goes_to = {plain(str(row.value)) for row in waiting.values if row.role != "bound" and row.kind}
    found: list[Precedent] = []
    for past in known:
        seen = past.precedent
        if seen.tool != waiting.tool or (seen.run, seen.call) == (run, waiting.call):
            continue
        arguments = arguments_of(past.arguments)
        if arguments is None:
            continue
        if arguments == waiting.arguments or _json(arguments) == mine:
            found.append(seen)
        elif goes_to & {plain(value) for _, value in leaves(arguments) if isinstance(value, str)}:
            found.append(msgspec.structs.replace(seen, same="destination"))
    return sorted(found, key=lambda seen: -seen.at_ms)[:PRECEDENTS]
