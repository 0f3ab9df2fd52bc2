"""What a play is written in: a bundle around tools, what the model says, what tools and classifiers meet, what a person decides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from stanchion.core import event as ev
from stanchion.core.bundle import READ_RESULT, Bundle, RetryPolicy, Route, ToolSpec
from stanchion.core.message import MODEL, Label, Part, Text, ToolCall, Usage
from stanchion.core.money import Price
from stanchion.core.state import Call
from stanchion.journal.store import Key

START_MS = 1_795_000_000_000
KEY = Key("k1", b"salt-of-the-tests")
PRICE = Price(input=1_000_000_000, output=2_000_000_000, cache_read=0, cache_write=1_000_000_000, cache_write_long=0)
"""1,000 nano-dollars a token in, 2,000 out."""


def tool(name: str, effect: Any = "read", **options: Any) -> ToolSpec:
    """Make a tool that takes any object, or what `parameters` says."""
    return ToolSpec(name, f"{name}.", options.pop("parameters", {"type": "object"}), effect, **options)


PAGER = tool(READ_RESULT, repeatable=True, max_result_chars=10, parameters={"type": "object", "required": ["result"]})


def bundle(*tools: ToolSpec, routes: int | tuple[Route, ...] = 1, **options: Any) -> Bundle:
    """Make a bundle around tools."""
    if isinstance(routes, int):
        routes = tuple(Route("p", f"m{n}", PRICE, max_output_tokens=400, retry=FAST) for n in range(routes))
    return Bundle("agent", "You are a test.", routes, (*tools, PAGER), **options)


FAST = RetryPolicy(attempts=3, base_s=1.0, cap_s=8.0)


def call(name: str, arguments: str = "{}", id: str = "c") -> ToolCall:
    """Make a call as a model writes it."""
    return ToolCall(id, name, arguments, MODEL)


USAGE = Usage(input_tokens=10, output_tokens=5)


@dataclass(frozen=True)
class Say:
    """The model answers."""

    parts: tuple[Part, ...]
    finish: Any = "stop"
    usage: Usage | None = USAGE
    took_ms: int = 1_000


@dataclass(frozen=True)
class Break:
    """A model call fails."""

    code: str = "overloaded"
    retryable: bool = True
    after_s: float | None = None
    billed: bool = False
    took_ms: int = 1_000


@dataclass(frozen=True)
class Done:
    """A tool does it and says so."""

    text: str = "ok"
    took_ms: int = 100
    cost: int = 0


@dataclass(frozen=True)
class Doubt:
    """Whether a tool did it is known to the world only."""

    done: bool
    code: str = "tool_timeout"
    retryable: bool = True
    took_ms: int = 100


@dataclass(frozen=True)
class Not:
    """A tool did not do it, and may be tried again."""

    after_s: float | None = None
    took_ms: int = 100


@dataclass(frozen=True)
class Wrong:
    """A tool did not do it, and says what is wrong."""

    text: str = "no such order"
    took_ms: int = 100


@dataclass(frozen=True)
class Scored:
    """A classifier answers, or (`error`) does not."""

    categories: tuple[str, ...] = ()
    cost: int = 0
    error: str = ""
    retryable: bool = True
    took_ms: int = 50


@dataclass(frozen=True)
class Vectors:
    """An embedder answers and is billed so (None: nobody says), or breaks."""

    said: Usage | Break | None
    took_ms: int = 50


Said = Say | Break | str | ToolCall | Sequence[str | ToolCall]
Outcome = Done | Doubt | Not | Wrong


def say(said: Said) -> Say | Break:
    """Make a reply of a short form: text, a call, or several of them."""
    if isinstance(said, Say | Break):
        return said
    pieces = [said] if isinstance(said, str | ToolCall) else list(said)
    parts = tuple(Text(p, MODEL) if isinstance(p, str) else p for p in pieces)
    return Say(parts, "tool_calls" if any(isinstance(p, ToolCall) for p in parts) else "stop")


class Checks:
    """A pure check: arguments are an object with the required fields; answers are right but for `wrong`."""

    def __init__(self, bundle: Bundle, wrong: Callable[[str], str] = lambda text: "") -> None:
        self._bundle = bundle
        self._wrong = wrong

    def output(self, text: str) -> str:
        return self._wrong(text)

    def arguments(self, tool: str, text: str) -> bytes | str:
        try:
            found = msgspec.json.decode(text or "{}")
        except msgspec.MsgspecError as error:
            return f"not JSON: {error}"
        if not isinstance(found, dict):
            return "not an object"
        spec = self._bundle.tool(tool)
        missing = [name for name in (spec.parameters.get("required", ()) if spec else ()) if name not in found]
        return f"missing {missing}" if missing else msgspec.json.encode(found, order="deterministic")


@dataclass(frozen=True)
class Refuse:
    """A shared budget refuses a reservation."""

    hard: bool
    ledger: str = "tenant/day"


def decided(call: Call, decision: Any, *texts: str, note: bool = False, by: str = "bob") -> ev.CallDecided:
    """Make a person's decision on the revision shown."""
    parts = tuple(Text(text, Label("reviewer", trust="trusted")) for text in texts)
    return ev.CallDecided(call=call.id, revision=call.revision, decision=decision, by=by, note=note, parts=parts)
