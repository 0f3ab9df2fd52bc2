"""Every fault the simulated provider can make, by name, and the plan that says when one strikes.

A fault comes from a header (`x-sim-fault`), from the model's name (`gpt-5!overloaded;times=2`), from the script's rule or
from `PUT /sim/faults`, in this order; the first that strikes is made. Whether it strikes depends on counts per
conversation (or per turn of it) and on a seeded draw over (seed, request, how often that request came), so a run of the
same requests meets the same faults.
"""

from __future__ import annotations

import enum
import hashlib
from collections import Counter

import msgspec

from stanchion.core.errors import InputError
from stanchion.sim.exchange import Refusal, WireName


class Fault(enum.StrEnum):
    """What can go wrong, by name."""

    RATE_LIMITED = "rate_limited"
    """429 with Retry-After."""
    QUOTA = "quota"
    """429 that no waiting will mend: the account's spending limit."""
    OVERLOADED = "overloaded"
    """529 with Retry-After."""
    SERVER_ERROR = "server_error"
    """500."""
    UNAVAILABLE = "unavailable"
    """503 with Retry-After."""
    GATEWAY_TIMEOUT = "gateway_timeout"
    """504 from a proxy: an HTML page, no JSON."""
    CONTEXT_OVERFLOW = "context_overflow"
    """400: the request is longer than the model's window."""
    AUTH = "auth"
    """401: the key is not valid."""
    SLOW_FIRST_BYTE = "slow_first_byte"
    """The answer is whole and begins `stall_s` late."""
    STALL_FIRST_BYTE = "stall_first_byte"
    """Nothing comes for `stall_s`; then the connection is closed."""
    STALL_MID_STREAM = "stall_mid_stream"
    """Half of the answer comes, then nothing for `stall_s`; then the connection is closed."""
    CUT_FIRST_BYTE = "cut_first_byte"
    """The connection is reset before a byte."""
    CUT = "cut"
    """The connection is reset (TCP RST) in the middle of the answer."""
    CUT_CLOSE = "cut_close"
    """The connection is closed in the middle of the answer, without the chunk that ends it."""
    EARLY_END = "early_end"
    """The answer ends in its middle, correctly for HTTP, with no finish event."""
    ERROR_EVENT = "error_event"
    """A 200 whose stream breaks off with an error event (not streamed: a 200 whose body is an error)."""
    EMPTY_ANSWER = "empty_answer"
    """A complete answer that says nothing."""
    MALFORMED_ARGUMENTS = "malformed_arguments"
    """Tool arguments that are not JSON; a reply without calls is left as it is."""
    GARBAGE = "garbage"
    """Bytes in the middle that are no event and no JSON."""
    WRONG_CONTENT_TYPE = "wrong_content_type"
    """200 with an HTML page, as from a captive portal."""
    UNKNOWN_EVENTS = "unknown_events"
    """Complete, with events (not streamed: a field) of a type nobody knows yet. Clients must take it."""
    TRUNCATED = "truncated"
    """Complete, but ended by the output limit in the middle of the text."""
    REFUSED = "refused"
    """Complete, but the provider's filter declined to answer."""


STATUS = {
    Fault.RATE_LIMITED: 429,
    Fault.QUOTA: 429,
    Fault.OVERLOADED: 529,
    Fault.SERVER_ERROR: 500,
    Fault.UNAVAILABLE: 503,
    Fault.CONTEXT_OVERFLOW: 400,
    Fault.AUTH: 401,
}
"""Faults that are an answer with another status, in the wire's own form."""

UNBILLED = frozenset(STATUS) | {Fault.GATEWAY_TIMEOUT, Fault.WRONG_CONTENT_TYPE, Fault.CUT_FIRST_BYTE}
"""Faults where no model was reached, so that nothing is billed."""

_MESSAGES = {
    Fault.RATE_LIMITED: "Rate limit reached, please try again later (simulated)",
    Fault.QUOTA: "You exceeded your current quota, please check your plan and billing details (simulated)",
    Fault.OVERLOADED: "Overloaded (simulated)",
    Fault.SERVER_ERROR: "Internal server error (simulated)",
    Fault.UNAVAILABLE: "Service unavailable (simulated)",
    Fault.AUTH: "invalid x-api-key (simulated)",
}
_OVERFLOW = {
    "anthropic": ("prompt is too long: 200001 tokens > 200000 maximum (simulated)", ""),
    "openai_chat": ("This model's maximum context length is 128000 tokens (simulated).", "context_length_exceeded"),
    "openai_responses": ("Your input exceeds the context window of this model (simulated).", "context_length_exceeded"),
}


class FaultPlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """When a fault strikes, and how hard. Every field that is set must agree."""

    kind: Fault
    times: int | None = None
    """Only the first N requests of a conversation; then it recovers. None: always."""
    per_turn: bool = False
    """Count `times` anew in each turn of the conversation."""
    probability: float = 1.0
    seed: int = 0
    turn: int | None = None
    """Only where the assistant has spoken this often before."""
    wire: WireName | None = None
    conversation: str | None = None
    model: str | None = None
    retry_after_s: float = 1.0
    stall_s: float | None = None
    """None: 5 s before a slow first byte, an hour for a stall."""
    at: float = 0.5
    """How much of the answer goes out before a fault in its middle (0 to 1)."""


class Strike(msgspec.Struct, frozen=True):
    """The request that a plan is asked about."""

    wire: WireName
    model: str
    conversation: str
    turn: int
    digest: str


class FaultLog:
    """Counts requests per plan, so that `times` and `probability` can be kept. In memory, until a reset."""

    def __init__(self) -> None:
        self._met: Counter[tuple[object, ...]] = Counter()

    def strikes(self, plan: FaultPlan, strike: Strike) -> bool:
        """Say whether a plan strikes this request, and count it."""
        if not _concerns(plan, strike):
            return False
        if plan.probability < 1 and not self._drawn(plan, strike):
            return False
        if plan.times is None:
            return True
        scope = (plan, strike.conversation, strike.turn if plan.per_turn else -1)
        self._met[scope] += 1
        return self._met[scope] <= plan.times

    def clear(self) -> None:
        """Forget all counts."""
        self._met.clear()

    def _drawn(self, plan: FaultPlan, strike: Strike) -> bool:
        attempt = (plan, "attempt", strike.digest)
        self._met[attempt] += 1
        text = f"{plan.seed}/{plan.kind}/{strike.digest}/{self._met[attempt]}"
        draw = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())
        return draw < plan.probability * 2**64


def _concerns(plan: FaultPlan, strike: Strike) -> bool:
    return (
        plan.turn in (None, strike.turn)
        and plan.wire in (None, strike.wire)
        and plan.conversation in (None, strike.conversation)
        and plan.model in (None, strike.model)
    )


def parse_plan(text: str) -> FaultPlan:
    """Parse `name;field=value;..` as it stands in a header or a model's name; raises `InputError`."""
    kind, *settings = (part.strip() for part in text.split(";"))
    fields: dict[str, str] = {"kind": kind}
    for setting in settings:
        name, _, value = setting.partition("=")
        fields[name.strip()] = value.strip()
    try:
        return msgspec.convert(fields, FaultPlan, strict=False)
    except msgspec.ValidationError as error:
        names = ", ".join(Fault)
        raise InputError(f"{text!r} is no fault: {error}. Faults are: {names}", field="fault") from None


def too_long(tokens: int, most: int, wire: WireName) -> Refusal:
    """Refuse a request that is longer than the model's window."""
    message, code = _OVERFLOW[wire]
    if wire == "anthropic":
        message = f"prompt is too long: {tokens} tokens > {most} maximum (simulated)"
    return Refusal(message, code=code)


def refusal_of(plan: FaultPlan, wire: WireName) -> Refusal:
    """Make the error that a fault of `STATUS` answers with."""
    if plan.kind is Fault.CONTEXT_OVERFLOW:
        message, code = _OVERFLOW[wire]
        return Refusal(message, code=code)
    code = {Fault.QUOTA: "insufficient_quota", Fault.RATE_LIMITED: "rate_limit_exceeded"}.get(plan.kind, "")
    kind = "insufficient_quota" if plan.kind is Fault.QUOTA and wire != "anthropic" else "invalid_request_error"
    return Refusal(_MESSAGES[plan.kind], status=STATUS[plan.kind], kind=kind, code=code)
