"""What a guard goes by, as data: what parameters and results of tools mean, who may see what, what is granted, what is asked.

    params={"to": Destination("email"), "amount": Bound("money"), "body": Content()}
    result={"*.id": ResultField("file", trusted=True), "*.body": ResultField(secrecy="internal")}

A *kind* names what a value is: "email", "url", "account", "path", "command", "person", "money", "date", "count", or a word of
the author's own ("file", "event", "channel"). A value grounds only values of its own kind; a "link" is a URL that may be read
and told of, and not be written to. Nothing here decides: `guard` does.

Paths of values are words joined by dots; "*" is any item of a list or any value of an object, "@" any key of an object, and ""
the value itself: "recipients.*", "*.id", "attachments.*.file_id".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

Answer = Literal["allow", "ask", "deny"]
Where = Literal["input", "result", "output", "action"]
"""What a check looks at: what is said to a run, what a tool answered, the final answer, a call with an effect."""


class Destination(msgspec.Struct, frozen=True, omit_defaults=True, tag="destination"):
    """Where data or value goes: a recipient, an account, a URL, a channel, a path, a command, the object acted on."""

    kind: str
    known: tuple[str, ...] = ()
    """Values that are always right, as patterns ("*@our.example")."""


class Bound(msgspec.Struct, frozen=True, omit_defaults=True, tag="bound"):
    """How much or how far: an amount, a count, a scope, a permission, a date."""

    kind: str = "number"
    free: tuple[str, ...] = ()
    """Values that need no ground: the least that can be asked for ("read", "0", "false")."""
    words: Mapping[str, tuple[str, ...]] = {}
    """Value -> what people say for it: {"rw": ("edit", "write")}."""
    most: float | None = None
    """A number up to this needs no ground."""


class Content(msgspec.Struct, frozen=True, omit_defaults=True, tag="content"):
    """What is said. An address, a URL, an account or a command in it counts as a destination."""

    links: Literal["ground", "free"] = "ground"
    """"free": what stands in it is not looked at (a search query, a name that is only stored)."""


Role = Destination | Bound | Content


class ResultField(msgspec.Struct, frozen=True, omit_defaults=True):
    """What values of a tool's result are, and how far they may be trusted."""

    kind: str = ""
    """Of which objects they are the names or ids; "": of none."""
    trusted: bool = False
    """They ground values of their kind: a directory's addresses, ids of one's own records. Never third parties' text."""
    asked: bool = False
    """.. only if the user said each word by which the tool was asked, as a name, and the answer holds one value alone: a directory
    that knows strangers as well. A stranger who bears the very name that the user says is not told apart."""
    secrecy: str = "public"
    """Name of a level, or "public"."""
    match: str = ""
    """A regular expression whose group (or whole) finds the values in a text; "": the text is the value."""


class Level(msgspec.Struct, frozen=True, omit_defaults=True):
    """A level of secrecy, and who may see what has it."""

    name: str
    readers: tuple[str, ...] = ()
    """Patterns of destinations ("*@our.example", "#team"), or of those of a kind ("hotel:*"). Who is none of these never gets it
    without a person's yes."""


class Known(msgspec.Struct, frozen=True, omit_defaults=True):
    """Values that the operator trusts, whoever names them."""

    kind: str
    pattern: str


class Param(msgspec.Struct, frozen=True, omit_defaults=True):
    """What an argument must be under a grant. All that is said must hold."""

    path: str
    among: tuple[str, ...] = ()
    """One of these, as patterns."""
    most: str = ""
    """A number in decimal ("99.50"); "": no bound."""
    least: str = ""


class Grant(msgspec.Struct, frozen=True, omit_defaults=True):
    """A capability: calls of tools, within constraints, for a time. What no grant covers is denied."""

    tools: tuple[str, ...] = ("*",)
    """Names or patterns."""
    params: tuple[Param, ...] = ()
    """An argument that is not given is within any constraint."""
    until_ms: int = 0
    """Absolute end; 0: none."""
    kind: str = ""
    """With `value`: that destination is right in this session, for the tools named."""
    value: str = ""
    id: str = ""
    """Names it, so that it can be revoked."""


class CheckRule(msgspec.Struct, frozen=True, omit_defaults=True):
    """A check of text in one place, and what a hit means there."""

    name: str
    """By which events and refusals name it; and the check that is used, unless `uses` says another."""
    where: Where
    action: Literal["flag", "redact", "block", "ask"] = "flag"
    """On a hit: note it (and warn the model, of a result); take the piece out; let nothing of it go on; ask a person (calls)."""
    uses: str = ""
    """A built-in check ("size", "injection", "exfiltration", "pattern", "secrets", "pii"), or one of `Agent.checks`."""
    settings: Mapping[str, Any] = {}
    tools: tuple[str, ...] = ("*",)
    """Whose results, or which calls, are looked at: names or patterns."""
    again: bool = False
    """Of an output that is blocked: the model is told once and may answer anew before the run fails."""
    on_error: Literal["block", "pass"] = "block"
    """What it means that a classifier could not be asked. A pure check that fails always blocks."""
    timeout_s: float = 10.0
    """For one attempt to ask a classifier."""
    attempts: int = 3
    classifier: bool = False
    """It is asked over the network. Filled in when the agent is made, like the next."""
    max_nano_usd: int = 0
    """What asking it once may cost at most."""


class GuardRules(msgspec.Struct, frozen=True, omit_defaults=True):
    """How strict an agent's guard is, and what it knows."""

    ungrounded: Answer = "ask"
    """An effect of which a destination or bound has no ground."""
    ungrounded_irreversible: Answer = "ask"
    """.. where it cannot be undone."""
    copied_url: Answer = "ask"
    """A read of a URL that was read somewhere and copied unchanged."""
    composed_url: Answer = "ask"
    """A read of a URL that the model made up: it may carry anything."""
    flow: Answer = "deny"
    """An effect towards somebody who may not see what the model has read."""
    shape: Answer = "ask"
    """An effect whose content has the shape of exfiltration: a long encoded blob, an image with a query."""
    confirm: tuple[str, ...] = ("destructive",)
    """Tiers of which every call waits for a person, however well grounded."""
    known: tuple[Known, ...] = ()
    levels: tuple[Level, ...] = ()
    grants: tuple[Grant, ...] | None = None
    """None: all of its tools."""
    memory: tuple[str, ...] = ()
    """Kinds of values ("email", "text", ..) of which it is enough that the user said them in an earlier session. Others ask."""
    mark: bool = True
    """Untrusted text stands in the prompt in marked blocks."""
    freeze: bool = False
    """The effects of a run are declared before untrusted text is read; others ask."""
    quarantine: bool = False
    """Untrusted text is read by a model without tools; the planner sees references to typed values of it."""
    extractor: str = ""
    """Which of the agent's models that is, as "provider:model"; "": the last of its fallbacks, or its only one."""
    checks: tuple[CheckRule, ...] = ()
    """Checks of what comes in and goes out, in order."""
    pii: Literal["keep", "redact"] = "keep"
    """Personal data in what comes in: kept, or taken out before it is stored. In log lines it never stands."""
