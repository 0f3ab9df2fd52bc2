"""What a client gets, as pydantic models for the OpenAPI document and nothing else.

Responses are encoded from the runtime's own structs; a test holds the two together.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field


class ErrorDetail(BaseModel):
    """What went wrong."""

    code: str = Field(examples=["not_found"])
    message: str
    field: str = Field(description='Path of the offending field ("limits.usd"), or "".')
    retryable: bool
    id: str = Field("", description="Where the fault is ours: what the server's log has it under.")


class ErrorBody(BaseModel):
    """An error."""

    error: ErrorDetail


class StartedModel(BaseModel):
    """A run that was accepted."""

    run: str
    session: str
    existing: bool = Field(description="It was there already, under the same `Idempotency-Key` and body.")
    queued: bool = Field(
        False, description="It waits: for its turn, its session, or another process's worker. `GET` it for its place."
    )


class QueueModel(BaseModel):
    """Where a run that has not begun stands at this moment."""

    position: int | None = Field(
        description="From 1: how many go before it if nothing else comes, and itself. null: it waits for `behind`."
    )
    ahead_of_you_in_your_tenant: int
    estimated_wait_s: float | None = Field(description="By the rate at which runs began of late; null: not known.")
    behind: str = Field(description="The live run of its session, which it waits for.")


class ShareModel(BaseModel):
    """What a tenant, an agent or a user may have of the workers; null is what is not set."""

    tenant: str = Field(description='"": every tenant that has none of its own.')
    scope: str
    weight: int | None
    max_running: int | None
    max_queued: int | None


class SharesModel(BaseModel):
    """Shares."""

    shares: list[ShareModel]


class WorkerModel(BaseModel):
    """A process that drives runs."""

    name: str
    agents: dict[str, str] = Field(description="What it drives, with the digests of their bundles.")
    version: str
    host: str
    pid: int
    active: int = Field(description="Runs that it drives.")
    max_active: int
    begun_per_s: float = Field(description="Runs that it began in a second, of late.")
    started_ms: int
    seen_ms: int
    seen_s_ago: float


class WorkersModel(BaseModel):
    """Workers that were heard of within the last day, the oldest first."""

    workers: list[WorkerModel]


class AcceptedModel(BaseModel):
    """What was asked is durable, and the run will take it in."""

    run: str


class UsageModel(BaseModel):
    """What a run has used."""

    turns: int
    tool_calls: int
    input_tokens: int
    output_tokens: int
    cache_expected_tokens: int = Field(
        0, description="Input that the session had sent before and the provider's cache should have had: an estimate."
    )
    cache_hit_tokens: int = Field(0, description="How much of that was read from the cache.")


class CacheMissModel(BaseModel):
    """A model call that read less from the cache than its session had sent before. Tokens."""

    turn: int
    sent: int
    read: int
    reason: str = Field(description="Why, in words.")


class PrecedentModel(BaseModel):
    """A call like one that waits, and what a person decided about it."""

    run: str
    call: str
    tool: str
    decision: Literal["approve", "edit", "reject"]
    by: str
    at_ms: int
    reason: str
    same: Literal["call", "destination"] = Field(description="The same arguments, or only the same destination.")


class WaitingModel(BaseModel):
    """A call that waits for a person."""

    call: str
    tool: str
    revision: int
    attempt: int = Field(description="The last attempt at it; 0: none.")
    kind: Literal["approval", "in_doubt"]
    why: str = Field(
        description="What speaks against it, a line each: first the values that nobody trusted said, and where they stand."
    )
    action: str = Field(description="What would be done, in a sentence.")
    undo: str = Field(description="Whether it can be undone.")
    arguments: Any = Field(description="Exactly: an object, or the text that the model wrote if it is none.")
    values: list[RowModel] = Field(description="Each value: what it means, its ground, and where it stands.")
    rule: str
    reason: str
    rules: list[ReasonModel] = Field(description="All that asked.")
    claim: str = Field(description="What the model said when it proposed the call: its word and nothing more.")
    tier: str
    batch: str = Field(description="The calls of one step that wait share it: they are one question.")
    quorum: int = Field(description="How many people must approve.")
    approvals: list[str] = Field(description="Who has.")
    decisions: list[str] = Field(description="What may be decided on it.")
    policy: str = Field(description="Digest of the policies under which it was judged.")
    asked_ms: int
    expires_ms: int
    similar: list[PrecedentModel] = Field([], description="What was decided about calls like it of late.")


class ApprovalItem(WaitingModel):
    """A call that waits, and whose it is."""

    run: str
    session: str
    user: str
    agent: str


class ApprovalPage(BaseModel):
    """Calls that wait, of the newest run first."""

    approvals: list[ApprovalItem]
    before: str = Field(description='The run to go on from, for the next page; "": there is none.')


class GrantItem(BaseModel):
    """What a person allowed for the rest of a session."""

    id: str
    tools: list[str]
    kind: str = Field(examples=["email"])
    value: str
    by: str
    run: str = Field(description="In which it was allowed.")
    at_ms: int


class RevokedModel(BaseModel):
    """What was taken back."""

    id: str


class GrantsModel(BaseModel):
    """What people allowed in a session."""

    grants: list[GrantItem]


class ForecastModel(BaseModel):
    """What a run will have cost when it comes to its end."""

    usd: str = Field(description="Half of the runs like it cost less.")
    low_usd: str
    high_usd: str
    coverage: float = Field(description="The part of runs that end within the range; 0: it is a range of assumptions.")
    runs: int = Field(description="Past runs of the agent that it goes by; 0: it goes by the shape of a run.")
    after_turns: int = Field(description="How far the run was.")
    note: str = Field(description="In words: by what it goes, or what was assumed.")


class RunModel(BaseModel):
    """A run as it stands."""

    run: str
    session: str
    user: str
    agent: str
    status: Literal["queued", "runnable", "waiting", "parked", "ended"]
    outcome: str = Field(description='How it ended; "" while it is live.')
    reason: str
    text: str = Field(description="The answer, or the best so far.")
    seq: int = Field(description="Of its last event.")
    usd: str
    usage: UsageModel
    waiting: list[WaitingModel]
    done: list[str]
    in_doubt: list[str]
    created_ms: int
    updated_ms: int
    output: Any = Field(description="A structured answer, parsed.")
    parked: str
    queue: QueueModel | None = Field(None, description="Where it stands, while it has not begun.")
    cache_misses: list[CacheMissModel] = Field(
        [], description="Calls that read less from the provider's cache than their session had sent."
    )
    forecast: ForecastModel | None = Field(
        None, description="What it will have cost at its end; null: it has ended, or nothing can be said."
    )
    degraded: list[str] = Field(
        [],
        description="What it had to do without, a sentence each: a model that another stood in for, a tool that was down.",
    )


class OriginModel(BaseModel):
    """A place where a value stands."""

    source: Literal["developer", "user", "tool", "document", "memory", "model", "reviewer", "runtime"]
    trusted: bool = Field(description="It can ground a value.")
    around: str = Field(description="The text around it there.")
    tool: str = Field(description="Whose answer it is.")
    call: str = Field(description="`run/call` of that answer.")
    path: str = Field(description="Of the value in that answer.")
    message: int = Field(description="Number of the message; -1: the agent's own instructions.")


class RowModel(BaseModel):
    """A value of a call."""

    path: str = Field(examples=["recipients.0", "body[12:40]"])
    value: Any
    role: Literal["destination", "bound", "content"]
    kind: str
    ground: Literal["user", "configured", "field", "memory", "allowed", "reviewer", "free", "none", ""]
    origins: list[OriginModel]
    note: str = Field(description="The ground in words.")


class ReasonModel(BaseModel):
    """What one rule has against a call."""

    action: Literal["allow", "ask", "deny"]
    rule: str
    text: str = ""
    values: list[str] = Field([], description="Paths of the values that it is about.")
    expires_s: float = 0.0
    quorum: int = 0


class JudgementModel(BaseModel):
    """A verdict, or a person's decision."""

    seq: int
    at_ms: int
    revision: int
    action: str
    rule: str
    reason: str
    by: str
    policy: str


class ExplanationModel(BaseModel):
    """Why a call was allowed, asked about or denied."""

    run: str
    call: str
    tool: str
    tier: str
    revision: int
    arguments: dict[str, Any] | None = Field(description="null: they cannot be read any more.")
    action: Literal["allow", "ask", "deny"]
    rule: str
    reason: str
    values: list[str] = Field(description="Paths of the values that made it ask or deny.")
    policy: str = Field(description="Digest of the policies under which it was judged.")
    quorum: int
    rows: list[RowModel]
    reasons: list[ReasonModel]
    history: list[JudgementModel]
    replay: Literal["same", "differs", "none"] = Field(
        description="Whether judging again gives what is in the journal; none: it was not the guard that judged."
    )
    note: str


class RunItem(BaseModel):
    """A run in a list."""

    run: str
    session: str
    agent: str
    user: str
    status: Literal["queued", "runnable", "waiting", "parked", "ended"]
    outcome: str = Field(description='How it ended; "" while it is live.')
    parked: str = Field(description='Why it is parked, or "".')
    seq: int
    usd: str
    attempts: int = Field(description="Times it was taken up without getting on.")
    parent: str
    root: str
    created_ms: int
    updated_ms: int


class RunPage(BaseModel):
    """Runs, newest first."""

    runs: list[RunItem]
    before: str = Field(description='Give it as `before` for the next page; "": there is none.')


class LetterItem(BaseModel):
    """A run that stands until a person acts."""

    run: str
    session: str
    user: str
    agent: str
    reason: str = Field(examples=["dead_letter", "bundle_changed", "agent_missing"])
    attempts: int = Field(description="Claims without progress until it was parked.")
    seq: int
    usd: str
    created_ms: int
    since_ms: int
    error: str = Field(description="The last thing that went wrong in it.")


class LetterPage(BaseModel):
    """A page of runs that stand, newest first."""

    letters: list[LetterItem]
    before: str = Field(description='Give it as `before` for the next page; "": this is the last one.')


class VainClaimModel(BaseModel):
    """A claim that made no progress."""

    epoch: int
    ended_ms: int


class OpenCallModel(BaseModel):
    """A call that is not settled."""

    call: str
    tool: str
    phase: str
    attempt: int
    epoch: int
    in_doubt: bool


class LetterModel(LetterItem):
    """A run that stands, with its whole context."""

    why: str
    claims: list[VainClaimModel]
    calls: list[OpenCallModel]
    events: list[dict[str, Any]] = Field(description="The last events.")
    input: str


class ReplayedModel(BaseModel):
    """Runs that were set going again."""

    runs: list[str]
    more: bool = Field(description="There may be more; call again.")


class EventPage(BaseModel):
    """Events of a run, in order."""

    events: list[dict[str, Any]]
    after: int = Field(description="Give it as `after` for the next page.")
    more: bool = Field(description="There are more events already.")


class SessionItem(BaseModel):
    """A session: a chain of runs."""

    session: str
    agent: str
    user: str
    live: str = Field(description='The run that is not over, or "".')
    last: str = Field(description='The last run that ended, or "".')
    runs: int
    expired: bool = Field(description="It was idle for too long: a start in it is refused, 409 `session_expired`.")
    created_ms: int
    updated_ms: int


class SessionPage(BaseModel):
    """Sessions, newest first."""

    sessions: list[SessionItem]
    before: str


class MessagesModel(BaseModel):
    """A conversation as it stands."""

    messages: list[dict[str, Any]]


class ToolItem(BaseModel):
    """A tool of an agent."""

    name: str
    effect: Literal["read", "write", "irreversible", "destructive"]
    description: str


class AgentItem(BaseModel):
    """An agent that this server runs."""

    name: str
    models: list[str] = Field(description="The model, then its fallbacks.")
    tools: list[ToolItem]


class AgentsModel(BaseModel):
    """The agents of this server."""

    agents: list[AgentItem]


class QuotaModel(BaseModel):
    """A limit of a provider, or of one of its models, for one key; null: no limit of this kind."""

    name: str
    rpm: int | None
    tpm: int | None
    itpm: int | None
    otpm: int | None
    window_s: float


class DroppedModel(BaseModel):
    """What was taken away."""

    name: str


class QuotaUsageModel(BaseModel):
    """What counts against a limit now."""

    limit: str = Field(description="The provider, a fingerprint of the key, and what is counted.")
    amount: int
    workers: int


class ClosedModel(BaseModel):
    """A provider's key and model that rest, because the provider said so."""

    name: str
    for_s: float


class BreakerModel(BaseModel):
    """A circuit breaker that is not closed: a tool's, or a model's with the account that it is asked under."""

    tool: str
    model: str = ""
    state: Literal["open", "half_open"]
    for_s: float


class QuotasModel(BaseModel):
    """Limits that all workers share."""

    quotas: list[QuotaModel]
    usage: list[QuotaUsageModel]
    closed: list[ClosedModel]
    breakers: list[BreakerModel]


class LedgerModel(BaseModel):
    """A budget: its limit, and what of it is spent and set aside."""

    ledger: str
    limit_usd: str | None
    settled_usd: str
    reserved_usd: str
    closed: bool = Field(description="A bill was above its reservation; set the limit again to open it.")
    told: list[int] = Field(
        [], description="The lines of this limit that were crossed and told, in per cent: 50, 80, 100."
    )


class LedgersModel(BaseModel):
    """Budgets."""

    budgets: list[LedgerModel]


class HealthModel(BaseModel):
    """The process lives."""

    status: Literal["ok"]
    version: str


class ReadyModel(BaseModel):
    """The server takes new runs."""

    ready: Literal[True]
