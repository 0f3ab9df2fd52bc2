"""Makes the golden journals of a version, once: runs with something of everything, as they lie in a store.

    python -m tests.golden.make v0.3

Writes one JSON Lines file a run (a head line, then a line per event: envelope, hash, contents in base64) and
`summary.json`, what each folds to. Both are committed and never made again: what a released version wrote must fold to
the same for ever (I11). An existing version is refused.
"""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from stanchion.core import event as ev
from stanchion.core.bundle import READ_HISTORY, ApprovalRule, Caps, CompactionRules, Route
from stanchion.core.embedding import stored
from stanchion.core.message import MODEL, RUNTIME, USER, Erased, Label, Media, Opaque, Text, Thinking, Usage
from stanchion.core.policy import Grant, GuardRules, Param
from stanchion.core.routing import RouteTable, Rung
from stanchion.core.state import State
from stanchion.journal.store import RawRecord
from tests.loop.play import Play, truthful
from tests.loop.script import FAST, KEY, PRICE, Break, Done, Doubt, Not, Refuse, Say, Wrong, bundle, call, decided, tool

HERE = Path(__file__).parent
TOOLS = (
    tool("look", max_result_chars=12),
    tool("save", "write", keyed=True),
    tool("send", "irreversible"),
    tool("book", "irreversible", reconciles=True),
    tool("wipe", "destructive"),
    tool("transfer", "write", ends_run=True),
)


GUARDED: tuple[ev.Event, ...] = (
    ev.PolicyApplied(policy="0f" * 16),
    ev.GrantAdded(
        grant=Grant(tools=("send",), kind="email", id="g1"), by="ann", parts=(Text("bo@shop.example", USER),)
    ),
    ev.GrantAdded(
        grant=Grant(tools=("look",), params=(Param("n", most="9.5", among=("1", "2")),), until_ms=7), by="ann"
    ),
    ev.GrantRevoked(id="g1", by="ann"),
    ev.PlanDeclared(tools=("send",)),
    ev.CheckStarted(check="moderation", where="input", of="1", attempt=1, deadline_ms=9, reserved=4, ledgers=("l",)),
    ev.CheckFailed(check="moderation", where="input", of="1", attempt=1, code="timeout", retryable=True, cost=4),
    ev.ContentChecked(check="size", where="result", action="flag", call="3.0", cost=2, of="3.0", spans=((1, 2),)),
    ev.CredentialUsed(call="3.1", attempt=1, name="crm", adapter="oauth", scopes=("read",), expires_ms=8),
)
"""What the guard and people say of a run, told from outside; none of it has to make sense here, only to be read for ever."""
EMBEDDED: tuple[ev.Event, ...] = (
    ev.EmbeddingStarted(
        attempt=1, model="p:vectors", texts=1, reserved=9, ledgers=("l",), bound_tokens=7, deadline_ms=8
    ),
    ev.EmbeddingFailed(
        attempt=1, code="overloaded", retryable=True, cost=9, status=500, parts=(Text("away", RUNTIME),)
    ),
    ev.EmbeddingStarted(
        attempt=2, model="p:vectors", texts=1, reserved=9, ledgers=("l",), bound_tokens=7, deadline_ms=8
    ),
    ev.EmbeddingMade(attempt=2, cost=3, usage=Usage(5), took_ms=2, parts=stored(["home: DEN"], [[3.0, 4.0]])),
)
"""What was learned is embedded, at the second attempt."""
RECALLED = ev.MemoryRecalled(
    facts=("f1", "f2"), parts=(Text("[memory] home: DEN", Label("memory", "user", "trusted")),)
)


def compacted() -> Play:
    """A long run whose beginning is summed up, at the second attempt."""
    route = Route("p", "m", PRICE, max_output_tokens=100, context_tokens=100_000, retry=FAST)
    rules = CompactionRules(recent=2, minimum=200, summary=100, facts=300)
    look = tool("look", max_result_chars=100_000)
    agent = bundle(look, tool(READ_HISTORY, repeatable=True), routes=(route,), compaction=rules)
    said = [call("look", f'{{"n":{n}}}', f"c{n}") for n in range(30)]
    sums: list[Any] = [Break(), "they talked"]
    return Play(agent, [*said, "bye"], {"look": [Done("thing: " + "x" * 600)]}, summaries=sums, metered=True).play()


def routed(*said: str) -> Play:
    """A turn that a small model is asked first, and a judge grades."""
    small = Route("p", "small", PRICE, max_output_tokens=400, retry=FAST)
    table = RouteTable({"plan": (Rung(1, 800),)}, escalate_below=70)
    agent = bundle(routes=1, others=(small, small), steps={"judge": 2}, routing=table)
    agent = replace(agent, identity="A parcel that is lost is paid for. " * 400)
    return Play(agent, said).play()


def runs() -> dict[str, Play]:
    """The runs, by name."""
    agent = bundle(*TOOLS, routes=2, approvals=(ApprovalRule(tool="save", expires_s=5),), caps=Caps(warn_at=0.5))
    everything: list[Any] = [
        Break(),
        Break("auth", retryable=False),
        Say(
            (
                Thinking("hm", MODEL, signature="sig", wire="anthropic"),
                Text("I look", MODEL, wire="openai_responses", data='{"phase":"commentary"}'),
                Opaque("anthropic", "web_search", '{"q":1}', MODEL),
                call("look", '{"n":1}'),
                call("send", '{"n":1}'),
                call("book"),
            ),
            "tool_calls",
            Usage(100, 20, 30, 5, output_tokens=7, reasoning_tokens=2),
        ),
        [call("read_result", '{"result":"1","offset":12}'), call("nope"), call("look", "{"), call("wipe")],
        Say((Text("cut", MODEL),), "length"),
        "All is done. Ü€𝄞",
    ]
    luck = {"look": [Not(), Done("x" * 30)], "send": [Doubt(done=True)], "book": [Doubt(done=True)]}
    image = Media("image/png", USER, data="aGk=", max_input_tokens=9)
    said = ev.MessageAdded(by="ann", parts=(Text("and hurry", USER), image))
    first = Play(agent, everything, luck, person=truthful, crashes={3: True, 9: False}, inject={4: [said]}).play()
    edited = Play(
        agent,
        [call("save", '{"usd":5}'), "saved"],
        person=lambda play, waiting: decided(waiting, "edit", '{"usd":3}', "less", note=True),
        person_ms=1_000,
    )
    parked = Play(agent, ["x"], inject={1: [ev.RunParked(reason="dead_letter")]}).play()
    parked.epoch += 1
    parked._flights.clear()
    parked.post(ev.RunRevived(by="ann"), ev.BundleChanged(bundle="other"), ev.PrefixReset(reason="bundle")).play()
    guarded = Play(agent, [[call("look", '{"n":1}'), call("send", '{"n":2}')], "sent"], inject={2: GUARDED}).play()
    sealed = bundle(*TOOLS, routes=2, guard=GuardRules(quarantine=True))
    money = {"ledgers": ("tenant/day",), "refuse": [Refuse(hard=False), Refuse(hard=True)]}
    circle: list[Any] = [call("look", '{"n":1}')]
    return {
        "everything": first,
        "session": Play(agent, ["Hello again"], base=first, user="one more").play(),
        "edited": edited.play(),
        "expired": Play(agent, [call("save"), "not saved"]).play(),
        "parked": parked,
        "refused": Play(agent, ["x"], **money).play(),
        "overrun": Play(agent, [Say((Text("x", MODEL),), usage=Usage(10**9))]).play(),
        "circle": Play(agent, circle, {"look": [Wrong()]}).play(),
        "limit": Play(agent, circle, caps=Caps(turns=2, warn_at=0.5)).play(),
        "cancelled": Play(
            agent, [call("send")], {"send": [Doubt(done=True)]}, inject={2: [ev.CancelRequested(by="ann")]}
        ).play(),
        "escalated": Play(agent, [call("transfer")]).play(),
        "guarded": guarded,
        "marked": Play(agent, everything, luck, person=truthful, mark=True).play(),
        "quarantined": Play(sealed, [call("look", '{"n":1}'), "it is {{r1.x}}"]).play(),
        "compacted": compacted(),
        "passed_on": routed("[escalate] I am not shown that.", "42"),
        "graded": routed("43", '{"score": 80, "reason": "so it is"}'),
        "remembered": Play(agent, ["in DEN"], inject={1: [RECALLED]}).play(),
        "embedded": Play(agent, ["in DEN"], inject={1: EMBEDDED}).play(),
        "dry": Play(agent, [[call("send"), call("look")], "pretended"], dry_run=True).play(),
        "waiting": Play(agent, [call("wipe")]).play(),
    }


def lines(play: Play) -> Iterable[str]:
    """A journal as it is stored."""
    yield json.dumps({"run": play.run, "tenant": "t", "base": play.base.run if play.base else ""})
    for record in play.records:
        contents = [base64.b64encode(content or b"").decode() for content in record.contents]
        row = {"seq": record.seq, "envelope": record.envelope.decode(), "hash": record.hash.hex(), "contents": contents}
        yield json.dumps(row, ensure_ascii=False)


def read(path: Path) -> tuple[dict[str, str], list[RawRecord]]:
    """A golden journal: its head, and its records."""
    head, *rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    records = [
        RawRecord(
            row["seq"],
            row["envelope"].encode(),
            bytes.fromhex(row["hash"]),
            tuple(base64.b64decode(content) for content in row["contents"]),
        )
        for row in rows
    ]
    return head, records


def summary(state: State) -> dict[str, Any]:
    """What must stay as it was: what happened, what was said, what it cost, what waits. Not how a fold holds it."""
    return {
        "outcome": state.outcome,
        "reason": state.reason,
        "seq": state.seq,
        "head": state.hash.hex(),
        "turns": state.totals.turns,
        "tool_calls": state.totals.tool_calls,
        "input_tokens": state.totals.input_tokens,
        "output_tokens": state.totals.output_tokens,
        "cost": state.totals.cost,
        "waited_ms": state.waited_ms,
        "done": [list(pair) for pair in state.done],
        "in_doubt": list(state.doubtful),
        "warned": list(state.warned),
        "looped": list(state.looped),
        "refused": state.refused.ledger if state.refused else "",
        "overrun": state.overrun,
        "cancelled_by": state.cancelled_by,
        "waiting": [[c.id, c.tool, c.phase, c.revision] for c in state.calls],
        "said": [[m.role, [_said(part) for part in m.parts]] for m in state.messages],
        "answer": [_said(part) for part in state.answer],
    }


def _said(part: Any) -> list[str]:
    kind = part.__struct_config__.tag
    words = part.kind if isinstance(part, Erased) else getattr(part, "text", "") or getattr(part, "data", "")
    return [kind, part.label.source, words, getattr(part, "arguments", "")]


def main() -> None:
    """Write a version's journals."""
    folder = HERE / sys.argv[1]
    if (folder / "summary.json").exists():
        raise SystemExit(f"{folder} is there already, and golden journals are never made again")
    folder.mkdir(exist_ok=True)
    found = runs()
    for name, play in found.items():
        (folder / f"{name}.jsonl").write_text("\n".join(lines(play)) + "\n", encoding="utf-8")
    told = {name: summary(play.state) for name, play in found.items()}
    text = json.dumps({"key": KEY.id, "salt": KEY.salt.hex(), "runs": told}, ensure_ascii=False, indent=1)
    (folder / "summary.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
