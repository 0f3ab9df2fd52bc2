"""The agent under the kills: a tool of every tier and key form, and a script that calls each of them.

One process or a fleet: with CASE in the environment all effects are of that case, else each run is a case of its own.
"""

from __future__ import annotations

import http.client
import json
import os
from urllib.parse import urlsplit

from stanchion import Agent, Approve, Done, Limits, NotDone, ToolContext, Undone, tool
from stanchion.core.bundle import RetryPolicy
from stanchion.core.message import ModelRequest
from stanchion.testing.model import Reply, ScriptedModel, call

EFFECTS = ("note", "note_keyed", "pay", "wire", "wire_reconciled", "drop", "purge")
"""The tools with an effect; the script calls each of them once."""
_PRICES = "anthropic:claude-sonnet-4-6"


def _ask(method: str, path: str, body: dict[str, object] | None = None) -> dict[str, dict[str, int]]:
    """Speak to the witness over a connection of its own: a kill cuts it wherever it is."""
    connection = http.client.HTTPConnection(urlsplit(os.environ["WITNESS"]).netloc, timeout=5)
    try:
        connection.request(method, path, json.dumps(body) if body else None, {"Content-Type": "application/json"})
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()


def _case(context: ToolContext) -> str:
    return os.environ.get("CASE") or context.run


def _applied(name: str, context: ToolContext, key: str = "", *, until_ms: int = 0) -> str:
    body: dict[str, object] = {"case": _case(context), "call": f"{name}:{context.call}", "key": key, "pid": os.getpid()}
    takes_s = float(os.environ.get("EFFECT_TAKES_S", "0"))
    answer = _ask("POST", "/effect", body | {"takes_s": takes_s, "until_ms": until_ms})
    if "late" in answer:
        raise NotDone(f"{name} came too late and was not done")
    after_effect()
    return f"{name} done"


def after_effect() -> None:
    """The moment after an effect and before its outcome is written; the rig puts a kill here."""


@tool(effect="read")
def look(what: str) -> str:
    """Look something up."""
    return f"{what}: all is well"


@tool(effect="write", timeout_s=2)
def note(text: str, context: ToolContext) -> str:
    """Write a note, without a key."""
    return _applied("note", context)


@tool(effect="write", timeout_s=2)
def note_keyed(text: str, context: ToolContext, *, key: str) -> str:
    """Write a note, with a key."""
    return _applied("note_keyed", context, key)


@tool(effect="irreversible", timeout_s=2)
def pay(cents: int, context: ToolContext, *, key: str) -> str:
    """Pay, with a key."""
    return _applied("pay", context, key)


@tool(effect="irreversible", timeout_s=2)
def wire(cents: int, context: ToolContext) -> str:
    """Wire money, without a key: nobody but a person can tell after a kill."""
    return _applied("wire", context)


@tool(effect="irreversible", timeout_s=0.5)
def wire_reconciled(cents: int, context: ToolContext) -> str:
    """Wire money without a key, at a bank that can be asked."""
    return _applied("wire_reconciled", context, until_ms=context.deadline_ms)  # so that "not done" stays true


@wire_reconciled.reconciler
def asked_at_the_bank(cents: int, context: ToolContext) -> Done | Undone:
    """Ask the bank whether it was done."""
    applied = _ask("GET", f"/counts/{_case(context)}")["applied"]
    return Done("wire_reconciled done") if applied.get(f"wire_reconciled:{context.call}") else Undone()


@tool(effect="destructive", timeout_s=2)
def drop(table: str, context: ToolContext, *, key: str) -> str:
    """Drop a table, with a key."""
    return _applied("drop", context, key)


@tool(effect="destructive", timeout_s=2)
def purge(table: str, context: ToolContext) -> str:
    """Purge a table, without a key."""
    return _applied("purge", context)


SCRIPT: tuple[Reply, ...] = (
    call("look", what="weather"),
    [call("note", text="a"), call("note_keyed", text="b"), call("look", what="news")],
    [call("pay", cents=5), call("wire", cents=7)],
    call("wire_reconciled", cents=9),
    [call("drop", table="x"), call("purge", table="y")],
    "Everything is done.",
)


def reply(request: ModelRequest) -> Reply:
    """Give the reply to a request by how often the model has spoken."""
    return SCRIPT[sum(message.role == "assistant" for message in request.messages)]


def make_agent() -> tuple[Agent, ScriptedModel]:
    """Make the agent and its model."""
    agent = Agent(
        name="victim",
        identity="You do as you are told.",
        tools=[look, note, note_keyed, pay, wire, wire_reconciled, drop, purge],
        model=_PRICES,
        limits=Limits(usd="5.00"),
        approvals=[Approve(tool="pay", above={"cents": 100})],
    )
    assert RetryPolicy().attempts == 3
    return agent, ScriptedModel(reply)
