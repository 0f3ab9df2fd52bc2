"""What the guard costs a call: CPU of a verdict at 80,000 tokens of history, without and with policies in Cedar.

Each verdict is on a call of the next step: what came since the last one is read first, as a run does it. The history is made up:
mail with addresses, links and numbers in JSON, three parts in ten said by the user.
"""

from __future__ import annotations

import asyncio
import json
import random
import statistics
import time
from pathlib import Path
from typing import Any

from bench.measure import Size
from stanchion.cedar.policies import CedarPolicies
from stanchion.cedar.source import PolicyFile, PolicyText
from stanchion.core.bundle import Bundle, Route, ToolSpec
from stanchion.core.message import MODEL, USER, Label, Message, Text, ToolCall, ToolResult
from stanchion.core.money import Price
from stanchion.core.policy import Bound, Content, Destination, GuardRules, Known, Level, ResultField
from stanchion.core.state import Call, Denied, Seen, State
from stanchion.loop.effect import View, view
from stanchion.loop.step import verdict_on

TOKENS = 80_000
CHARS_A_TOKEN = 4
STEP_CHARS = 2_000
CALLS = 40
"""Judged of a run; by the last of them its history has grown by a quarter."""
SAID = 0.3
STRING = {"type": "string"}
STRINGS = {"type": "array", "items": STRING}
PROPERTIES = {"to": STRINGS, "subject": STRING, "body": STRING, "files": STRINGS, "amount": {"type": "integer"}}
SEND = ToolSpec(
    "send_mail",
    "Send a mail.",
    {"type": "object", "properties": PROPERTIES, "required": ["to", "subject", "body"]},
    "irreversible",
    params={"to.*": Destination("email"), "files.*": Destination("file"), "amount": Bound("money"), "body": Content()},
)
INBOX = ToolSpec(
    "inbox", "Read mail.", {"type": "object", "properties": {}}, "read",
    result={"*.id": ResultField("file", trusted=True), "*.from": ResultField(secrecy="internal")},
)  # fmt: skip
POLICIES = """
@id("all") permit(principal, action, resource);
@id("dear") @ask("above 1,000") permit(principal, action == Action::"send_mail", resource)
    when { context.arguments has amount && context.arguments.amount > 1000 };
@id("home") forbid(principal, action in Action::"tier:irreversible", resource)
    when { context.secrecy.contains("internal") } unless { ["ours.example", "partner.example"].containsAll(context.domains) };
@id("losses") forbid(principal, action in Action::"tier:destructive", resource) unless { principal.task == "cleaning" };
@id("bare") @ask("nobody said it") permit(principal, action in Action::"tier:effect", resource)
    when { context.grounds.contains("none") };
"""


async def guard(size: Size, _folder: Path) -> dict[str, Any]:
    """Judge calls of long runs, and give the median CPU of a verdict in milliseconds."""
    return await asyncio.to_thread(judged, 2 if size.short else 5)


def judged(runs: int) -> dict[str, Any]:
    """Judge the last calls of so many runs, with and without policies."""
    policies = CedarPolicies(PolicyText((PolicyFile("bench.cedar", POLICIES),)))
    refused = policies.problems([_bundle()])
    if refused:
        raise SystemExit(f"bench: the policies do not fit: {refused}")
    took: dict[str, list[float]] = {"first": [], "plain": [], "cedar": []}
    states: list[State] = []
    for run in range(runs):
        states = _states(random.Random(run))
        for name, each in (("plain", None), ("cedar", policies)):
            first, *later = _measured(states, view(_bundle(), _AsWritten(), policies=each))
            took["first"].append(first)
            took[name] += later
    parts = (part for message in states[0].messages for part in message.parts)
    characters = sum(len(part.text) for part in parts if isinstance(part, Text | ToolResult))
    return {
        "calls": len(took["plain"]),
        "history_tokens": round(characters / CHARS_A_TOKEN),
        "messages": len(states[0].messages),
        "read_all_ms": round(statistics.median(took["first"]), 1),
        **{f"{name}_ms": round(statistics.median(took[name]), 3) for name in ("plain", "cedar")},
        **{f"{name}_p95_ms": _p95(took[name]) for name in ("plain", "cedar")},
    }


def _p95(took: list[float]) -> float:
    return round(sorted(took)[int(len(took) * 0.95)], 3)


def _measured(states: list[State], seen: View) -> list[float]:
    """Judge a call of each state, in order and by one memo, as a run does. The first reads the whole history."""
    took: list[float] = []
    for state in states:
        call = state.calls[0]
        checked = call.part.arguments.encode()
        began = time.thread_time_ns()
        verdict = verdict_on(state, call, "send_mail", checked, seen, 1_000)
        took.append((time.thread_time_ns() - began) / 1e6)
        if verdict.action == "allow":
            raise SystemExit("bench: the guard allows a mail with an amount that nobody said")
    return took


class _AsWritten:
    def arguments(self, tool: str, text: str) -> bytes | str:
        return text.encode()

    def output(self, text: str) -> str:
        return ""


def _bundle() -> Bundle:
    rules = GuardRules(
        known=(Known("email", "*@ours.example"),), levels=(Level("internal", ("*@ours.example", "*@partner.example")),)
    )
    return Bundle("bench", "You help with mail.", (Route("p", "m", Price(0, 0, 0, 0, 0)),), (SEND, INBOX), guard=rules)


def _states(chance: random.Random) -> list[State]:
    """Make the states of a run from the length on that is measured, each a step longer than the one before."""
    history: list[Message] = []
    seen: list[Seen] = []
    length = 0
    while length < TOKENS * CHARS_A_TOKEN:
        length += _step(chance, history, seen, said=chance.random() < SAID)
    denied = tuple(Denied(_address(chance, "evil.example"), 3) for _ in range(5))
    states: list[State] = []
    for number in range(CALLS):
        _step(chance, history, seen, said=chance.random() < SAID)
        states.append(
            State(
                run="run_1",
                tenant="acme",
                user="ann",
                agent="bench",
                messages=tuple(history),
                seen=tuple(seen),
                denied=denied,
                calls=(Call("9.0", _call(chance, number)),),
            )
        )
    return states


def _step(chance: random.Random, history: list[Message], seen: list[Seen], *, said: bool) -> int:
    """Let the user say something, or a tool answer; give how long it was."""
    number = len(history)
    if said:
        text = _prose(chance, STEP_CHARS)
        history.append(Message("user", (Text(text, USER),)))
        return len(text)
    text = json.dumps([_mail(chance) for _ in range(4)])
    label = Label("tool", "inbox", "untrusted", "internal")
    proposed = ToolCall(f"c{number}", "inbox", "{}", MODEL)
    history += [
        Message("assistant", (proposed,)),
        Message("user", (ToolResult(proposed.id, "inbox", text, label),)),
    ]
    seen.append(Seen(f"run_1/{number}.0", "inbox", "{}", text, label, number))
    return len(text)


def _call(chance: random.Random, number: int) -> ToolCall:
    """Propose a mail: known people and one other, some hundred words, a link, an amount."""
    arguments = {
        "to": [_address(chance, "ours.example"), _address(chance, "ours.example"), _address(chance, "partner.example")],
        "subject": "The figures",
        "body": _prose(chance, 1_500),
        "amount": chance.randrange(900),
    }
    return ToolCall(f"s{number}", "send_mail", json.dumps(arguments, sort_keys=True), MODEL)


def _mail(chance: random.Random) -> dict[str, Any]:
    return {
        "id": f"mail-{chance.randrange(10**9)}",
        "from": _address(chance, "somewhere.example"),
        "body": _prose(chance, STEP_CHARS // 4 - 90),
    }


_WORDS = [
    "please",
    "send",
    "the",
    "report",
    "of",
    "last",
    "month",
    "to",
    "everybody",
    "in",
    "the",
    "team",
    "and",
    "tell",
    "me",
    "by",
    "Friday",
    "what",
    "it",
    "came",
    "to",
]


def _prose(chance: random.Random, length: int) -> str:
    """Write words, with an address, a link, a number and a date here and there."""
    words: list[str] = []
    size = 0
    while size < length:
        kind = chance.random()
        if kind < 0.01:
            word = _address(chance, "somewhere.example")
        elif kind < 0.02:
            word = f"https://www.somewhere.example/{chance.randrange(10**6)}?q={chance.randrange(99)}"
        elif kind < 0.05:
            word = str(chance.randrange(10_000))
        elif kind < 0.055:
            word = f"2026-0{chance.randrange(1, 9)}-{chance.randrange(10, 28)}"
        else:
            word = chance.choice(_WORDS)
        words.append(word)
        size += len(word) + 1
    return " ".join(words)


def _address(chance: random.Random, domain: str) -> str:
    return f"{chance.choice(_WORDS).casefold()}.{chance.randrange(500)}@{domain}"


if __name__ == "__main__":
    print(json.dumps(judged(5)))
