"""The values that pass between a tool, the one who calls it, and the one who wrote it.

A check gives `Checked` or `Problem`; a call gives `Answer` or `Failure`; both are values and never exceptions, because
what a tool did is an event of a run. `Result`, `Partial`, `Done`, `Undone` and `Unknown` are what a tool's author may
return; `ToolContext` and `Inject` are what the author may ask for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Generic, Literal, TypeVar

from stanchion.core.money import Amount

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class InjectMarker:
    """Says that a parameter is a dependency; hidden from the model."""


Inject = Annotated[T, InjectMarker()]
"""`db: Inject[Db]` (or `Annotated[Db, Inject]`): filled from the agent's `deps`, never by the model."""


@dataclass(frozen=True, slots=True)
class ToolContext:
    """Who calls, and which call it is. A tool gets it in any parameter annotated with this type."""

    run: str = ""
    session: str = ""
    user: str = ""
    tenant: str = ""
    call: str = ""
    """Our identity of the call; the same in every attempt."""
    attempt: int = 1
    key: str = ""
    """The idempotency key: the same in every attempt at the same arguments."""
    dry_run: bool = False
    deadline_ms: int = 0
    """When the attempt is given up, in milliseconds since 1970; 0: not known."""
    traceparent: str = ""
    """W3C trace context to send on; "" where nothing is traced."""


@dataclass(frozen=True, slots=True)
class Checked:
    """Arguments that fit: canonical JSON (sorted keys, defaults filled in), from which the same values are read again."""

    arguments: bytes


@dataclass(frozen=True, slots=True)
class Problem:
    """Arguments that do not fit. `text` tells the model what to correct."""

    text: str


@dataclass(frozen=True, slots=True)
class Answer:
    """A tool answered. `note` is for people: what was odd about it, or ""."""

    text: str
    cost_nano_usd: int = 0
    note: str = ""


@dataclass(frozen=True, slots=True)
class Failure:
    """A call failed. `in_doubt`: it may have had its effect. `retryable`: what stopped it may be over soon."""

    code: str
    text: str
    in_doubt: bool = False
    retryable: bool = False
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Reconciled:
    """What a tool says of a call in doubt. `text` is the result where it was done, else the reason."""

    answer: Literal["done", "not_done", "unknown"]
    text: str = ""


@dataclass(frozen=True, slots=True)
class Result(Generic[T_co]):
    """A tool's result with what it cost. `cost_usd` is read as an amount ("0.01")."""

    value: T_co
    cost_usd: Amount = 0


def _no_failures() -> dict[str, str]:
    return {}


@dataclass(frozen=True, slots=True)
class Partial(Generic[T]):
    """A result for many items of which some failed: what went well, and a reason for each item that did not."""

    ok: Sequence[T]
    failed: Mapping[str, str] = field(default_factory=_no_failures)


@dataclass(frozen=True, slots=True)
class Done:
    """A reconciler's answer: the call was done, and this was its result."""

    result: Any = None


@dataclass(frozen=True, slots=True)
class Undone:
    """A reconciler's answer: the call was not done and will not be any more, so it may be made again."""

    reason: str = ""


@dataclass(frozen=True, slots=True)
class Unknown:
    """A reconciler's answer: it cannot tell; a person decides."""

    reason: str = ""
