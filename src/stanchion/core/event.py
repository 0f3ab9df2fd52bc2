"""The events of a run: what happened, in the past tense. Never updated, never deleted, read for ever.

An event has plain fields, which stand in the hashed envelope and hold no free text, and `parts`, which are stored apart
(invariant I13). Fields are only added, with defaults; anything else is a new version with an upcast in `core.upcast`.
Times are milliseconds since 1970 UTC, money is nano-dollars, a `call` is "seq.index": the seq of the `ModelCallFinished`
that proposed it and its place among that response's tool calls.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from stanchion.core.bundle import Caps
from stanchion.core.message import Finish, Part, Usage
from stanchion.core.policy import Grant, Where
from stanchion.core.routing import Choice, View

Compaction = Literal["cost", "room", "overflow"]
"""Why a conversation is compacted: it pays; the next request would be too long; its provider said that it is."""


class Base(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where a run goes on from: the event that its session had reached."""

    run: str
    seq: int
    hash: str


class _Event(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True, tag_field="type"):
    parts: tuple[Part, ...] = ()


class RunStarted(_Event, frozen=True, tag="run_started"):
    """A run was accepted. `parts` is the input."""

    run: str
    tenant: str
    session: str
    agent: str
    bundle: str
    """Digest of the bundle that the run is pinned to."""
    user: str = ""
    base: Base | None = None
    parent: str = ""
    """`run/call` that started it, for a child run."""
    root: str = ""
    """The topmost run, for a child run."""
    caps: Caps = Caps()
    """The limits in force: the bundle's, narrowed by the request."""
    ledgers: tuple[str, ...] = ()
    """Names of the shared budgets that every model call reserves on, without their windows ("user:ann/day")."""
    dry_run: bool = False
    deadline_ms: int = 0
    """Absolute end; 0: none."""
    batch_api: bool = False
    """Its model calls may go through the provider's batch API: half the price, within a day."""
    task: str = ""
    """The type of task it was started for: capabilities and policies may go by it."""
    narrowed: bool = False
    """The last part is no input: it is what the run may do at most, a list of grants as JSON."""
    mark: bool = False
    """Untrusted text stands in its prompts in marked blocks. Earlier journals have none, and keep theirs (I8)."""
    quarantine: bool = False
    """Untrusted results stand in its prompts as references only; a model without tools takes typed values out of them."""
    checked: tuple[Where, ...] = ()
    """Where text waits until a `ContentChecked` settles it: input and results before the model sees them, output before anybody does."""
    refreshes: Base | None = None
    """It says nothing new: it asks again for the last request of another session, up to there, so that the provider's cache keeps it."""
    refreshed_ms: int = 0
    """When such a run last did so for this run's session, since its last model call; 0: none did."""
    step: str = ""
    """The type of its turns, where it was said at the start: what they are routed by."""
    recalls: bool = False
    """What is remembered of the user comes first, as a `MemoryRecalled`: what is said waits for it. Later runs of a session keep what
    its first one was told (I8)."""
    remembers: Base | None = None
    """It says nothing to anybody: a model looks what is to be remembered of another run, which ended there."""
    said_ms: int = 0
    """When that run ended."""


class MessageAdded(_Event, frozen=True, tag="message_added"):
    """Something more was said to a running agent. `parts` is what."""

    by: str = ""


class MemoryRecalled(_Event, frozen=True, tag="memory_recalled"):
    """What is remembered of the user, as of now; it stands before what is said, and is never moved (I8). `parts`: what the model is told."""

    facts: tuple[str, ...] = ()
    """Which versions of facts that is."""


class NoticeAdded(_Event, frozen=True, tag="notice_added"):
    """The runtime tells the model something: `parts`, placed at the tail and never moved (I8)."""

    kind: Literal["limit", "loop", "output", "budget"]


class PrefixReset(_Event, frozen=True, tag="prefix_reset"):
    """What stood before the tail of the request changed, so the provider's cache and replayed reasoning are void."""

    reason: Literal["bundle", "route", "compaction"]


class ModelCallStarted(_Event, frozen=True, tag="model_call_started"):
    """An attempt at a model call is about to leave."""

    turn: int
    attempt: int
    route: int
    provider: str
    model: str
    messages: int
    """How many messages the request has."""
    prefix: str
    """Digest over tools, system and messages, cache marks left out (I8)."""
    reserved: int = 0
    ledgers: tuple[str, ...] = ()
    """The shared budgets it was reserved on, with their windows ("user:ann/day:2026-11-20")."""
    bound_tokens: int = 0
    """Upper bound of the request's input, by which the reservation was made."""
    deadline_ms: int = 0
    batch: bool = False
    """It is handed in with others through the provider's batch API; the answer comes from outside."""
    max_output_tokens: int = 0
    """Of a call in a batch, whose request is assembled later, as of this event."""
    cache: Literal["", "short", "long", "off"] = ""
    """For how long the provider is asked to keep it. Earlier journals do not say."""
    cache_keeps: Literal["end", "read", "nothing"] = "end"
    """All of it; what was sent before and is kept, as the session is thought to be over with it; nothing but what all sessions begin with."""
    cache_expected: int = 0
    """How many of its tokens should be read from the provider's cache: an estimate, by what was sent before, when, and the rules."""
    cache_sent: int = 0
    """Tokens of the session's request before it, if that was to be kept."""
    cache_unkept: Literal["", "reset", "compaction", "model", "life", "small"] = ""
    """Why they are not expected: another beginning, a compaction, another model, the cache's life is over, too short to be kept."""
    cache_refreshed_ms: int = 0
    """When a run that refreshes last read them, since the session's request before: their life is reckoned from then on. 0: none did."""
    dispatch: bool = False
    """The agent has `call_tool`: a call of it in the answer is a call of the tool that it names."""
    step: str = ""
    """The turn's type, for an agent that routes by it."""
    choice: Choice = ""
    """Why it goes to this model."""
    instead_of: str = ""
    """The model that had its turn, as "provider:model", and is left alone for a time: its calls failed of late."""
    view: View = ""
    """What its request is. One that is not the conversation has a prefix of its own, and the conversation's goes on without it (I8)."""
    rung: int = 0
    """Which model of the table's row it is, from 1 on; 0: the agent's own."""
    trial: bool = False
    """Its answer is held back until an `AnswerJudged` says whether it is taken."""


class ModelCallFinished(_Event, frozen=True, tag="model_call_finished"):
    """The model answered. `parts` is the whole response."""

    turn: int
    attempt: int
    finish: Finish
    cost: int
    usage: Usage | None = None
    """None: the provider did not say, and the cost is the reservation."""
    model: str = ""
    response: str = ""
    first_ms: int = 0
    """From sending to the first byte of the body."""
    took_ms: int = 0
    held: bool = False
    """What it says is not for those who watch: the final answer is, once its checks have let it go."""


class ModelCallFailed(_Event, frozen=True, tag="model_call_failed"):
    """An attempt failed. `parts` is what had come, then the error's text from the runtime."""

    turn: int
    attempt: int
    code: str
    retryable: bool = False
    retry_at_ms: int = 0
    cost: int = 0
    """Settled: what the provider said it billed, nothing if it never left, else the reservation."""
    usage: Usage | None = None
    status: int = 0
    held: bool = False
    """As in `ModelCallFinished`."""


class AnswerJudged(_Event, frozen=True, tag="answer_judged"):
    """An answer that was held back is taken, or passed on. `parts`: why, in words."""

    turn: int
    attempt: int
    model: str
    """As "provider:model"."""
    step: str
    action: Literal["take", "escalate", "hand_over"]
    """It is the turn's; the next model is asked; it is the turn's, and a person has the conversation from here on."""
    by: Literal["", "self", "judge", "form", "failed"] = ""
    """What decided: nothing spoke against it, the model itself, a judge, it was not usable, there was no answer (or no grade)."""
    score: int = -1
    """The judge's grade in percent; -1: none."""


class ToolCallJudged(_Event, frozen=True, tag="tool_call_judged"):
    """A verdict on a proposed call, without which it never runs (I5). `parts`: a reason in words, if there is one."""

    call: str
    revision: int
    action: Literal["allow", "ask", "deny"]
    rule: str
    """Name of the rule that decided; "in_doubt" asks what to do about an attempt without a definite answer."""
    tool: str = ""
    digest: str = ""
    """Of tool and arguments: what a decision binds to."""
    expires_ms: int = 0
    values: tuple[str, ...] = ()
    """Paths of the arguments that nobody trusted said, which a no is about; "body[12:40]" is a piece of one."""
    policy: str = ""
    """Digest of the policies in force."""
    quorum: int = 0
    """How many people must say yes; 0: one."""


class CallDecided(_Event, frozen=True, tag="call_decided"):
    """A person decided on a call that waited. `parts`: edited arguments or the recorded result, then the reason."""

    call: str
    revision: int
    """The revision that was shown; an edit makes the next one."""
    decision: Literal["approve", "edit", "reject", "retry", "record", "fail"]
    by: str
    note: bool = False
    """The last part is a reason in words."""
    attempt: int = -1
    """The last attempt when it was asked: a decision about one doubt does not answer the next. -1: not said."""
    policy: str = ""
    """Digest of the policies under which it was shown."""
    grants: tuple[Grant, ...] | None = None
    """What the person who decided may allow, as the operator wrote it; None: anything."""


class GrantAdded(_Event, frozen=True, tag="grant_added"):
    """A person allowed something for the rest of the session. `parts`: the value, if the grant is of one; then the reason."""

    grant: Grant
    by: str


class GrantRevoked(_Event, frozen=True, tag="grant_revoked"):
    """.. and took it back."""

    id: str
    by: str


class PolicyApplied(_Event, frozen=True, tag="policy_applied"):
    """These policies are in force from here on."""

    policy: str
    """Digest of the set."""


class PlanDeclared(_Event, frozen=True, tag="plan_declared"):
    """The model said by which tools it means to have effects, before it read untrusted text. Others ask."""

    tools: tuple[str, ...]


class CheckStarted(_Event, frozen=True, tag="check_started"):
    """An attempt to ask a classifier about a text is about to leave."""

    check: str
    where: Where
    of: str
    """Names the text: the seq of an input, the id of a call (of an action with its revision), the turn of an output."""
    attempt: int
    deadline_ms: int = 0
    reserved: int = 0
    ledgers: tuple[str, ...] = ()
    """The shared budgets it was reserved on, with their windows."""


class CheckFailed(_Event, frozen=True, tag="check_failed"):
    """An attempt to ask a classifier failed. `parts`: the error's text."""

    check: str
    where: Where
    of: str
    attempt: int
    code: str
    retryable: bool = False
    retry_at_ms: int = 0
    cost: int = 0


class ContentChecked(_Event, frozen=True, tag="content_checked"):
    """A check looked at text that came in or is to go out. `parts`: what it found, in words."""

    check: str
    where: Where
    action: Literal["pass", "flag", "redact", "block", "ask"]
    call: str = ""
    """Of which the text is, if it is one's."""
    cost: int = 0
    of: str = ""
    """Names the text, as in `CheckStarted`."""
    attempt: int = 0
    """Of a classifier that was asked; 0: it is the loop that says so."""
    spans: tuple[tuple[int, int], ...] = ()
    """Which characters of the text are taken out."""
    settled: bool = False
    """All checks of this text are done: it goes on as `action` says. `check` is the one that decided, "" if none had to."""


class CompactionStarted(_Event, frozen=True, tag="compaction_started"):
    """An attempt to have the beginning of the conversation summed up by a model is about to leave."""

    attempt: int
    reason: Compaction
    covers: int
    """How many messages of the session, from its first on, the summary is to stand for."""
    route: int
    provider: str
    model: str
    reserved: int = 0
    ledgers: tuple[str, ...] = ()
    """The shared budgets it was reserved on, with their windows."""
    bound_tokens: int = 0
    deadline_ms: int = 0


class CompactionFailed(_Event, frozen=True, tag="compaction_failed"):
    """An attempt at a summary failed. `parts`: the error's text."""

    attempt: int
    code: str
    retryable: bool = False
    retry_at_ms: int = 0
    cost: int = 0
    """Settled, as in `ModelCallFailed`."""
    usage: Usage | None = None
    status: int = 0


class SummaryWritten(_Event, frozen=True, tag="summary_written"):
    """The model summed it up. `parts`: the text. What it is used for, `Compacted` says."""

    attempt: int
    cost: int
    usage: Usage | None = None
    """None: the provider did not say, and the cost is the reservation."""
    took_ms: int = 0


class Compacted(_Event, frozen=True, tag="compacted"):
    """From here on the prompt has less of the conversation. All of it stays in the journal, and the model can read it.

    `parts` stand for the first messages: values that the author wants kept, since the last compaction; what this is; what the user said and what was done;
    the summary. Without parts, long results alone were left out.
    """

    reason: Compaction
    covers: int
    """How many messages of the session, from its first on, `parts` stand for."""
    trimmed: int = 0
    """Before this message each long result is a line that says how to read it."""
    declared: int = 0
    """How many of the parts, from the first on, hold values that the author wants kept; they stay in the prompts from here on."""
    summed: bool = False
    """The last part is a summary by a model."""
    degraded: str = ""
    """Why there is no new summary by a model, where there should be one: a code."""


class EmbeddingStarted(_Event, frozen=True, tag="embedding_started"):
    """An attempt to have what was learned embedded, to be searched by meaning, is about to leave."""

    attempt: int
    model: str
    """As "provider:model"; an embedder of one's own by its name."""
    texts: int
    """How many."""
    reserved: int = 0
    ledgers: tuple[str, ...] = ()
    """The shared budgets it was reserved on, with their windows."""
    bound_tokens: int = 0
    deadline_ms: int = 0


class EmbeddingFailed(_Event, frozen=True, tag="embedding_failed"):
    """An attempt at it failed. `parts`: the error's text."""

    attempt: int
    code: str
    retryable: bool = False
    retry_at_ms: int = 0
    cost: int = 0
    """Settled, as in `ModelCallFailed`."""
    usage: Usage | None = None
    status: int = 0


class EmbeddingMade(_Event, frozen=True, tag="embedding_made"):
    """The texts have their vectors. `parts`: a vector each, under a digest of its text."""

    attempt: int
    cost: int
    usage: Usage | None = None
    """None: the provider did not say, and the cost is the reservation."""
    took_ms: int = 0


class CredentialUsed(_Event, frozen=True, tag="credential_used"):
    """A credential was made for one attempt and handed to its tool. Its value is in no event."""

    call: str
    attempt: int
    name: str
    adapter: str
    scopes: tuple[str, ...] = ()
    expires_ms: int = 0
    outcome: Literal["minted", "refused"] = "minted"


class ToolCallStarted(_Event, frozen=True, tag="tool_call_started"):
    """An attempt at a tool call, or at reconciling one, is about to leave."""

    call: str
    attempt: int
    revision: int
    mode: Literal["run", "reconcile", "dry"] = "run"
    key: str = ""
    """The idempotency key handed to the tool."""
    deadline_ms: int = 0
    model: str = ""
    """The model that it calls: for the built-in `extract`, or to embed what a tool of memory looks for or writes. What follows is as in
    `ModelCallStarted`."""
    reserved: int = 0
    ledgers: tuple[str, ...] = ()
    bound_tokens: int = 0


class ToolCallFailed(_Event, frozen=True, tag="tool_call_failed"):
    """An attempt failed. `parts`: the error's text."""

    call: str
    attempt: int
    code: str
    in_doubt: bool = False
    """It may have left without a definite answer (I2)."""
    retryable: bool = False
    retry_at_ms: int = 0
    cost: int = 0
    """Settled, of an attempt that reserved: as in `ModelCallFailed`."""
    usage: Usage | None = None


class ToolCallReconciled(_Event, frozen=True, tag="tool_call_reconciled"):
    """The tool said whether an attempt in doubt was done. Done: a `ToolCallFinished` follows with its result."""

    call: str
    attempt: int
    answer: Literal["done", "not_done", "unknown"]


class ToolCallFinished(_Event, frozen=True, tag="tool_call_finished"):
    """A call is settled. `parts` is one `ToolResult`: the whole text, of which `shown` characters go to the model.

    In a quarantined run a text may follow: what the model is shown of an untrusted result, from trusted fields of it.
    """

    call: str
    outcome: Literal["ok", "error", "invalid", "denied", "rejected", "cancelled", "in_doubt", "pretended"]
    shown: int = -1
    """Characters of the result in the prompt; -1: all."""
    cost: int = 0
    """What the tool said it cost; of an attempt that reserved, its bill."""
    took_ms: int = 0
    usage: Usage | None = None
    """Of an attempt that reserved. None: the provider did not say, and the cost is the reservation."""
    lacked: str = ""
    """What it did without, as in `RunFinished.degraded`: a tool of memory that could not embed went by words alone."""


class BudgetRefused(_Event, frozen=True, tag="budget_refused"):
    """A reservation would pass a limit, and was not made."""

    ledger: str
    needed: int
    left: int
    """What was unspent and unreserved; 0 if the ledger is that of all tenants, whose rest tells what others spend."""
    hard: bool
    """True: refused by what is spent. False: only by others' reservations, which may be given back."""


class BudgetOverrun(_Event, frozen=True, tag="budget_overrun"):
    """A bill was higher than its reservation. Its ledgers are closed until a person opens them."""

    turn: int
    reserved: int
    cost: int


class LimitWarned(_Event, frozen=True, tag="limit_warned"):
    """A limit is near; the model is told at the tail. `parts` is what it is told."""

    limit: str
    """"forecast": by past runs, `used` is the least that the run is to be expected to cost, and `max` what it may."""
    used: int
    max: int


class LoopDetected(_Event, frozen=True, tag="loop_detected"):
    """The run goes in circles. The first time the model is told (`parts`), the second time the run ends."""

    kind: Literal["same_call", "window", "failures", "storm"]
    count: int


class CancelRequested(_Event, frozen=True, tag="cancel_requested"):
    """Somebody wants the run to stop. `parts`: why."""

    by: str


class BundleChanged(_Event, frozen=True, tag="bundle_changed"):
    """The run goes on under another bundle: same tools by name, schema and tier."""

    bundle: str


class RunParked(_Event, frozen=True, tag="run_parked"):
    """The run stands still until a person acts. `parts`: what is wrong and what to do."""

    reason: Literal["dead_letter", "bundle_changed", "agent_missing"]


class RunRevived(_Event, frozen=True, tag="run_revived"):
    """A parked run was set going again."""

    by: str


class RunFinished(_Event, frozen=True, tag="run_finished"):
    """The run is over. `parts` is its answer, or the best it had."""

    outcome: Literal["done", "halted", "failed", "cancelled", "escalated"]
    reason: str = ""
    """Code: which limit, loop, budget or error."""
    cost: int = 0
    done: tuple[str, ...] = ()
    """Calls with an effect that were done."""
    in_doubt: tuple[str, ...] = ()
    """Calls with an effect of which it is not known."""
    degraded: tuple[str, ...] = ()
    """What it had to do without: "model:NAME:CODE", "tool:NAME:CODE", "judge:NAME:CODE", "embedding:NAME:CODE"."""


Event = (
    RunStarted
    | MessageAdded
    | MemoryRecalled
    | NoticeAdded
    | PrefixReset
    | ModelCallStarted
    | ModelCallFinished
    | ModelCallFailed
    | AnswerJudged
    | ToolCallJudged
    | CallDecided
    | GrantAdded
    | GrantRevoked
    | PolicyApplied
    | PlanDeclared
    | CheckStarted
    | CheckFailed
    | ContentChecked
    | CompactionStarted
    | CompactionFailed
    | SummaryWritten
    | Compacted
    | EmbeddingStarted
    | EmbeddingFailed
    | EmbeddingMade
    | CredentialUsed
    | ToolCallStarted
    | ToolCallFailed
    | ToolCallReconciled
    | ToolCallFinished
    | BudgetRefused
    | BudgetOverrun
    | LimitWarned
    | LoopDetected
    | CancelRequested
    | BundleChanged
    | RunParked
    | RunRevived
    | RunFinished
)


class Entry(msgspec.Struct, frozen=True):
    """An event in its place."""

    seq: int
    """From 1, without gaps."""
    at_ms: int
    """Never before the entry before it."""
    epoch: int
    event: Event
    hash: bytes = b""
