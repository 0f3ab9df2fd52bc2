"""The state of a run: what its events say, and nothing else (invariant I3). Data only; `core.fold` makes it."""

from __future__ import annotations

from typing import Literal

import msgspec

from stanchion.core.bundle import Caps
from stanchion.core.event import Compaction
from stanchion.core.message import Finish, Label, Message, Part, Text, ToolCall, ToolResult
from stanchion.core.policy import Grant
from stanchion.core.quarantine import Sealed

Phase = Literal["proposed", "asking", "ready", "running", "failed", "settled"]
"""Of a call: not judged yet; waits for a person; may start; has left; an attempt failed; has its result."""


class ModelCall(msgspec.Struct, frozen=True, omit_defaults=True):
    """The model call that is not answered yet."""

    turn: int
    route: int
    attempt: int
    """Of the turn, over all routes."""
    tries: int
    """On this route; those that we stopped or lost ourselves do not count."""
    in_flight: bool
    epoch: int
    started_ms: int
    deadline_ms: int = 0
    batch: bool = False
    """It went into a batch: no worker waits for it, and none's end loses it."""
    reserved: int = 0
    ledgers: tuple[str, ...] = ()
    bound_tokens: int = 0
    name: str = ""
    """Provider and model."""
    cache: str = ""
    """For how long its request is kept: "short", "long" or "off"; "": not said."""
    cache_keeps: str = "end"
    prefix: str = ""
    """Digest over what its request begins with, as it was sent."""
    cache_expected: int = 0
    sent_before: int = 0
    """Tokens of the session's request before it, if that was to be kept."""
    unkept: str = ""
    """Why they cannot be read, as in `core.kept.WORDS`."""
    dispatch: bool = False
    """A call of `call_tool` in its answer is one of the tool that it names."""
    step: str = ""
    choice: str = ""
    view: str = ""
    """What its request is: "": the conversation; "brief" or "judge": one of its own."""
    rung: int = 0
    """Which model of its row in the table it is, from 1 on."""
    trial: bool = False
    """Its answer is held back until it is judged."""
    tried: tuple[int, ...] = ()
    """The routes that this turn's conversation was sent to."""
    code: str = ""
    """Why the last attempt failed."""
    retryable: bool = False
    retry_at_ms: int = 0


class Trial(msgspec.Struct, frozen=True, omit_defaults=True):
    """An answer that is held back until it is judged."""

    seq: int
    """Of its `ModelCallFinished`."""
    turn: int
    attempt: int
    model: str
    step: str
    view: str
    """"brief": the model was shown a part of the conversation."""
    finish: Finish
    parts: tuple[Part, ...]
    rung: int = 0
    graded: tuple[Part, ...] | None = None
    """What a judge said of it."""
    last: int = 0
    """The last attempt at the turn, a judge's among them."""
    counted: bool = False
    """Its provider has counted it with the conversation."""
    dispatch: bool = False
    """A call of `call_tool` in its answer is one of the tool that it names."""


class Call(msgspec.Struct, frozen=True, omit_defaults=True):
    """A tool call of the current step."""

    id: str
    part: ToolCall
    """As proposed; its arguments are replaced when a person edits them."""
    erased: bool = False
    """The proposal's content is gone, so that `part` says nothing."""
    dispatched: bool = False
    """It was made by `call_tool`; `part` is of the tool itself."""
    phase: Phase = "proposed"
    revision: int = 0
    tool: str = ""
    """The known tool's name, once judged."""
    rule: str = ""
    """The rule that asked."""
    approved: bool = False
    """A person said yes to this revision."""
    asked_ms: int = 0
    expires_ms: int = 0
    attempt: int = 0
    tries: int = 0
    """Attempts to run it; those that we stopped or lost ourselves do not count."""
    checks: int = 0
    """Attempts to reconcile the last of them, counted likewise."""
    mode: Literal["run", "reconcile", "dry"] = "run"
    epoch: int = 0
    started_ms: int = 0
    """When the last attempt began."""
    deadline_ms: int = 0
    code: str = ""
    detail: str = ""
    in_doubt: bool = False
    """An attempt may have been done. A later one that was not done does not change that."""
    doubted: int = 0
    """How many of its attempts may have left without a definite answer."""
    retryable: bool = False
    retry_at_ms: int = 0
    outcome: str = ""
    result: ToolResult | None = None
    shown: int = -1
    values: tuple[str, ...] = ()
    """Paths of the arguments that made the guard ask."""
    policy: str = ""
    """The policies under which it was judged."""
    digest: str = ""
    quorum: int = 0
    approvals: tuple[str, ...] = ()
    """Who said yes to this revision."""
    grants: tuple[Grant, ...] | None = None
    """What the person who edited it may allow; None: anything."""
    edited: frozenset[str] = frozenset()
    """Paths of the arguments that a person wrote."""
    filled: tuple[str, ...] = ()
    """References ("r3.sender") whose values were filled into its arguments. The model does not know the values."""
    missing: tuple[str, ...] = ()
    """References in its arguments that say nothing."""
    reserved: int = 0
    """What the attempt under way reserved, if it calls a model."""
    ledgers: tuple[str, ...] = ()
    bound_tokens: int = 0
    told: Text | None = None
    """What the model is shown of its result, where it is not shown the result."""
    unchecked: bool = False
    """Its result waits for its checks; `result` is the whole of it, of which `shown` characters are to be shown."""


class Unchecked(msgspec.Struct, frozen=True):
    """What was said to the run and waits for its checks."""

    of: str
    parts: tuple[Part, ...]


class Checking(msgspec.Struct, frozen=True, omit_defaults=True):
    """How far a classifier is with a text."""

    check: str
    where: str
    of: str
    attempt: int
    tries: int
    """Those that we stopped or lost ourselves do not count."""
    in_flight: bool
    epoch: int
    deadline_ms: int = 0
    reserved: int = 0
    ledgers: tuple[str, ...] = ()
    code: str = ""
    """Why the last attempt failed."""
    retryable: bool = False
    retry_at_ms: int = 0
    action: str = ""
    """What it found, once it was asked: "pass" or "flag"."""
    reason: str = ""


class Compacting(msgspec.Struct, frozen=True, omit_defaults=True):
    """A compaction under way: how far the model is that sums up."""

    reason: Compaction
    covers: int
    attempt: int
    tries: int
    """Those that we stopped or lost ourselves do not count."""
    in_flight: bool
    epoch: int
    deadline_ms: int = 0
    reserved: int = 0
    ledgers: tuple[str, ...] = ()
    bound_tokens: int = 0
    code: str = ""
    """Why the last attempt failed."""
    retryable: bool = False
    retry_at_ms: int = 0
    summary: tuple[Part, ...] | None = None
    """What the model wrote."""


class Embedding(msgspec.Struct, frozen=True, omit_defaults=True):
    """How far the model is that gives what was learned its vectors."""

    model: str
    """As "provider:model"."""
    attempt: int
    tries: int
    """Those that we stopped or lost ourselves do not count."""
    in_flight: bool
    epoch: int
    reserved: int = 0
    ledgers: tuple[str, ...] = ()
    bound_tokens: int = 0
    code: str = ""
    """Why the last attempt failed."""
    retryable: bool = False
    retry_at_ms: int = 0
    vectors: tuple[Part, ...] | None = None
    """What it gave (`core.embedding`)."""


class Ran(msgspec.Struct, frozen=True):
    """A run that has ended."""

    run: str
    outcome: str
    started_ms: int
    tools: tuple[str, ...]
    """Of the calls that ended well, in order."""


class Judgment(msgspec.Struct, frozen=True):
    """What a person decided about a call."""

    tool: str
    decision: str
    by: str
    arguments: str
    messages: int
    """How many messages there were then."""


class Seen(msgspec.Struct, frozen=True):
    """A tool's answer, whole, with how it was asked for: what the guard looks for grounds in."""

    call: str
    """`run/call`."""
    tool: str
    arguments: str
    text: str
    label: Label
    messages: int
    """How many messages there were before it."""
    sealed: bool = False
    """It was not shown to the model."""


class Denied(msgspec.Struct, frozen=True):
    """A value that was refused in this session. It stays refused unless the user names it afterwards."""

    value: str
    messages: int
    """How many messages there were then."""


class Trace(msgspec.Struct, frozen=True):
    """A settled call as the loop detection sees it."""

    call: str
    """Digest of tool and arguments."""
    result: str
    tool: str
    failed: bool
    at_ms: int
    turn: int
    number: int = 0
    """Its place among the calls of its step."""


class Refusal(msgspec.Struct, frozen=True):
    """A reservation that was refused and not made since."""

    ledger: str
    hard: bool
    needed: int
    left: int
    since_ms: int


class Totals(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the run has used."""

    turns: int = 0
    tool_calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: int = 0
    cache_expected: int = 0
    """Input tokens that should have been read from a cache, as estimated before each call .."""
    cache_hit: int = 0
    """.. and how many of them were."""
    malformed_in_row: int = 0
    last_tokens: int = 0
    """Input of the last request, as its provider counted it."""
    result_bytes: int = 0
    """What tools answered, as far as it is shown; of what was erased it is not known."""
    input_bytes: int = 0
    """Of the texts that were said to it."""


class Missed(msgspec.Struct, frozen=True):
    """A model call that read less from the cache than its session had sent before. Tokens."""

    turn: int
    sent: int
    read: int
    reason: str
    """As in `core.kept.WORDS`."""


class State(msgspec.Struct, frozen=True, omit_defaults=True):
    """A run, folded."""

    run: str = ""
    tenant: str = ""
    session: str = ""
    user: str = ""
    agent: str = ""
    bundle: str = ""
    caps: Caps = Caps()
    ledgers: tuple[str, ...] = ()
    dry_run: bool = False
    deadline_ms: int = 0
    batch_api: bool = False
    seq: int = 0
    hash: bytes = b""
    at_ms: int = 0
    started_ms: int = 0
    waited_ms: int = 0
    """Time spent waiting for people and nothing else, and before the first worker came."""
    unclaimed: bool = False
    """It was accepted and nobody has driven it yet: its wall clock stands."""
    messages: tuple[Message, ...] = ()
    """The conversation: the session's, from its first run on, as the model is shown it."""
    more: bool = False
    """Something was said, or a result came, that the model has not answered."""
    tail: tuple[Part, ...] = ()
    """Said while a step was under way; goes behind the step's results."""
    held: tuple[str, ...] = ()
    """Results too long to show whole; number n is read as result "n"."""
    past: tuple[Message, ...] = ()
    """After a compaction: the session's messages up to the last one that there was then, as they were said .."""
    seam: int = 0
    """.. and from where on `messages` goes on from them."""
    covers: int = 0
    """How many messages of the session `head` stands for."""
    trimmed: int = 0
    """Before this message of the session long results are left out."""
    head: tuple[Part, ...] = ()
    """With what `messages` begins since the last compaction."""
    declared: tuple[Part, ...] = ()
    """Of it what the author wants kept."""
    summary: tuple[Part, ...] = ()
    """The last summary that a model wrote."""
    compacting: Compacting | None = None
    squeezed: int = 0
    """Compactions since the model answered last."""
    rewritten: bool = False
    """The next request begins otherwise than the one before it, because of a compaction."""
    judgments: tuple[Judgment, ...] = ()
    """What people decided in this session."""
    prefix: bytes = b""
    """Digest over all parts of `messages`, in order (I8)."""
    content_bytes: int = 0
    """Of all parts of `messages`."""
    hidden_bytes: int = 0
    """Of all that was said and is not in `messages`, about."""
    weight: int = 0
    """Upper bound of the tokens of all parts of `messages`: bytes, and for media what they declare."""
    exact_tokens: int = 0
    """Input and output of the last finished model call, as its provider counted, and for which route."""
    exact_route: int = -1
    weight_since: int = 0
    """Of the parts that came to `messages` after that call."""
    counted_tokens: int = 0
    """Input of the last finished model call, and the weight that `messages` had in it: tokens per byte."""
    counted_weight: int = 0
    base_tokens: int = 0
    """Input of the first model call of the session, or since its last compaction .."""
    carried_tokens: int = 0
    """.. and by how much the calls after it had more, added up."""
    kept_parts: int = 0
    """How many parts the last answered request had, whose end its provider may keep; and which model that was."""
    kept_by: str = ""
    kept_prefix: str = ""
    """Its digest, as it was sent: another now means that some of it was erased since."""
    kept_tokens: int = 0
    """Its input, as the provider counted it; 0: nothing of it is kept."""
    kept_ms: int = 0
    """When it was sent."""
    refreshed_ms: int = 0
    """When it was refreshed since."""
    kept_long: bool = False
    """For the long life."""
    kept_void: bool = False
    """The conversation was compacted since: what is kept is not what the next request begins with."""
    kept_calls: int = 0
    """How many model calls of the session were answered."""
    missed: tuple[Missed, ...] = ()
    """The run's model calls that read less than that."""
    refreshing: bool = False
    """The run asks for the last request of another session once more, and for nothing else."""
    refreshed: str = ""
    """That session."""
    unbounded: str = ""
    """Type of the first media part that declares no bound."""
    prompted: str = ""
    """Digest of the bundle that the last model call was made under."""
    prompted_route: int = -1
    """The route of the session's last model call."""
    reasoners: tuple[str, ...] = ()
    """The models whose reasoning or own blocks stand in `messages`, as "provider:model"."""
    model: ModelCall | None = None
    finish: Finish | Literal[""] = ""
    """How the last answer ended, while it is not dealt with."""
    calls: tuple[Call, ...] = ()
    """Of the current step; empty between steps."""
    route: int = 0
    """The route in use."""
    step: str = ""
    """The type of the run's turns, where it was said at the start."""
    trial: Trial | None = None
    rung: int = 0
    """How many models of the table's row were asked for this turn in vain .."""
    attempts: int = 0
    """.. in so many attempts."""
    passed_on: tuple[str, ...] = ()
    """Types of steps of which a turn of this run came to the agent's own model after all."""
    degraded: tuple[str, ...] = ()
    """What the run had to do without, as in `RunFinished`."""
    totals: Totals = Totals()
    traces: tuple[Trace, ...] = ()
    warned: tuple[str, ...] = ()
    foreseen_turn: int = 0
    """The turn after which it was told that its money will not be enough."""
    looped: tuple[str, ...] = ()
    """Kinds of loops the model was told of."""
    looped_turn: int = 0
    """The turn after which it was told last."""
    refused: Refusal | None = None
    overrun: bool = False
    cancelled_by: str = ""
    parked: str = ""
    done: tuple[tuple[str, str], ...] = ()
    """Call and tool of what ended well."""
    worked: tuple[str, ...] = ()
    """Tools that ended well, or were pretended to, in the last step."""
    doubtful: tuple[str, ...] = ()
    task: str = ""
    grants: tuple[Grant, ...] | None = None
    """What the run was started with at most; None: what its bundle grants."""
    granted: tuple[Grant, ...] = ()
    """What people allowed for the session since."""
    denied: tuple[Denied, ...] = ()
    refused_calls: tuple[Denied, ...] = ()
    """Digests of calls that a person rejected in this session: refused again until the user says something new."""
    policy: str = ""
    """Digest of the policies in force: the session's, and behind "+" the active ones where they are others."""
    pinned: str = ""
    """Digest of the policies that the session began with, once it has had a run before this one."""
    plan: tuple[str, ...] | None = None
    """Tools by which effects were announced."""
    mark: bool = False
    quarantine: bool = False
    sealed: tuple[Sealed, ...] = ()
    """Results of this session that the model is not shown, by number: the n-th is "rn"."""
    checked: tuple[str, ...] = ()
    """Where text waits for its checks."""
    unchecked: tuple[Unchecked, ...] = ()
    recalling: bool = False
    """What is remembered of the user comes first .."""
    unsaid: tuple[Unchecked, ...] = ()
    """.. and then what was said to the run meanwhile."""
    began_parts: int = 0
    """How many parts the conversation had when the run began."""
    remembers: str = ""
    """The run of which this one looks what is to be remembered; it does nothing else."""
    said_ms: int = 0
    """When that ended."""
    recalled: tuple[Part, ...] = ()
    """What was known before it."""
    before: Ran | None = None
    """The run that the session goes on from, or that is looked at."""
    embedding: Embedding | None = None
    checks: tuple[Checking, ...] = ()
    """The classifiers that were asked about texts which are not settled."""
    blocked: tuple[str, ...] = ()
    """The checks that blocked an answer in this run."""
    seen: tuple[Seen, ...] = ()
    """Answers of tools in this session, in order."""
    best: tuple[Text, ...] = ()
    """The last text that the model said in this run: what a halted run returns."""
    over: str = ""
    """The limit by which a call of the last step was refused."""
    answer: tuple[Part, ...] = ()
    outcome: str = ""
    reason: str = ""

    @property
    def ended(self) -> bool:
        """Whether the run is over."""
        return self.outcome != ""

    @property
    def asking(self) -> bool:
        """Whether a call waits for a person."""
        return any(call.phase == "asking" for call in self.calls)

    @property
    def reserved(self) -> int:
        """What the attempts under way that are no turn of the model have reserved."""
        calls = sum(call.reserved for call in self.calls if call.phase == "running")
        summary = self.compacting.reserved if self.compacting is not None and self.compacting.in_flight else 0
        vectors = self.embedding.reserved if self.embedding is not None and self.embedding.in_flight else 0
        return calls + summary + vectors + sum(check.reserved for check in self.checks if check.in_flight)

    @property
    def extracting(self) -> bool:
        """Whether an attempt at a tool call is under way that calls a model: an `extract`, or a tool of memory."""
        return any(call.phase == "running" and call.bound_tokens for call in self.calls)

    @property
    def in_flight(self) -> bool:
        """Whether an attempt has left that a worker waits for."""
        model = self.model is not None and self.model.in_flight and not self.model.batch
        model = model or (self.compacting is not None and self.compacting.in_flight)
        model = model or (self.embedding is not None and self.embedding.in_flight)
        return model or any(c.phase == "running" for c in self.calls) or any(c.in_flight for c in self.checks)

    @property
    def in_batch(self) -> bool:
        """Whether a model call was handed in with a batch and is not answered."""
        return self.model is not None and self.model.in_flight and self.model.batch

    def call(self, call_id: str) -> Call | None:
        """Find a call of the current step."""
        return next((call for call in self.calls if call.id == call_id), None)


EDIT_INVALID = "edit_invalid"
"""The rule that asks again after arguments were edited into what the tool cannot take."""


def decisions_for(call: Call) -> tuple[str, ...]:
    """Say what a person may decide about a call that waits."""
    if call.in_doubt:
        return ("retry", "record", "fail")
    return ("edit", "reject") if call.rule == EDIT_INVALID else ("approve", "edit", "reject")
