"""What a client may send, as pydantic models that refuse what they do not know. Only this edge uses pydantic."""

from __future__ import annotations

import base64
import binascii
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, WithJsonSchema, model_validator

from stanchion.core.errors import InputError
from stanchion.core.message import USER, Media, Part, Text
from stanchion.core.money import Amount, parse_usd

MAX_SEQ = 2**53 - 1
"""The largest seq that every JSON reader takes exactly."""


def _usd(value: Amount) -> str:
    try:
        parse_usd(value, field="")
    except InputError as error:
        raise ValueError(str(error)) from None
    return f"{value}"


def _moment(value: object) -> datetime:
    if not isinstance(value, str):
        raise ValueError('write a time with its zone, like "2026-11-20T12:00:00Z"')
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None or moment.year < 1970:
        raise ValueError('write a time with its zone, like "2026-11-20T12:00:00Z"')
    return moment


Usd = Annotated[
    str,
    BeforeValidator(_usd),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "number"}], "examples": ["0.50"]}),
]
Name = Annotated[str, Field(max_length=200)]
Moment = Annotated[datetime, BeforeValidator(_moment), WithJsonSchema({"type": "string", "format": "date-time"})]
Count = Annotated[int, Field(ge=1, le=1_000_000_000)]
Seconds = Annotated[float, Field(gt=0, le=31_536_000)]


class Body(BaseModel):
    """A request body: strict types, no unknown fields."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)


class TextPart(Body):
    """Text said by the user."""

    type: Literal["text"]
    text: str = Field(min_length=1)

    def part(self) -> Part:
        """Give the part as the journal holds it."""
        return Text(self.text, USER)


class MediaPart(Body):
    """An image, a document, audio or video: by exactly one of `data`, `url` and `file_id`."""

    type: Literal["media"]
    mime: str = Field(pattern=r"^[a-z]+/[A-Za-z0-9.+-]+$", max_length=100, examples=["image/png"])
    data: str = Field("", description="Base64.")
    url: str = Field("", max_length=2000, pattern="^(https?://.+)?$")
    file_id: str = Field("", max_length=500, description="A file already at the model's provider.")
    name: str = Field("", max_length=200)
    max_input_tokens: int = Field(
        0, ge=0, le=10_000_000, description="What it is billed as at most. Needed under a budget."
    )

    @model_validator(mode="after")
    def _one_source(self) -> MediaPart:
        if sum(map(bool, (self.data, self.url, self.file_id))) != 1:
            raise ValueError("give exactly one of data, url and file_id")
        try:
            base64.b64decode(self.data, validate=True)
        except (binascii.Error, ValueError):
            raise ValueError("data is not valid base64") from None
        return self

    def part(self) -> Part:
        """Give the part as the journal holds it."""
        return Media(self.mime, USER, self.data, self.url, self.file_id, self.name, self.max_input_tokens)


def _form(value: object) -> str | None:
    return "text" if isinstance(value, str) else "parts" if isinstance(value, list) else None


Input = Annotated[
    Annotated[str, Field(min_length=1), Tag("text")]
    | Annotated[
        list[Annotated[TextPart | MediaPart, Field(discriminator="type")]],
        Field(min_length=1, max_length=100),
        Tag("parts"),
    ],
    Discriminator(
        _form, custom_error_type="input_form", custom_error_message="Give a string, or a list of text and media parts"
    ),
]


def said(given: str | list[TextPart | MediaPart]) -> str | list[Part]:
    """Give an input as the runtime takes it."""
    return given if isinstance(given, str) else [item.part() for item in given]


class LimitsBody(Body):
    """Limits of this run, which can only narrow the agent's own."""

    usd: Usd | None = Field(None, description="What the run may cost.")
    turns: Count | None = Field(None, description="Model calls.")
    tool_calls: Count | None = None
    tool_calls_per_turn: Count | None = None
    input_tokens: Count | None = None
    output_tokens: Count | None = None
    wall_s: Seconds | None = Field(None, description="Seconds from the start, without the waiting for people.")
    stop_early: bool = Field(
        False,
        description="By what past runs cost it cannot be expected to end within `usd`: it is told, and soon stopped.",
    )


class SetShare(Body):
    """A share of the workers, whole: null goes by the default."""

    tenant: Name = Field("", description='A tenant; "": every one that has none of its own.')
    scope: str = Field("tenant", max_length=250, description='"tenant", "agent:NAME", "user:NAME" or "user:*".')
    weight: int | None = Field(None, description="The tenant's weight against others; 1 by default.")
    max_running: int | None = Field(None, description="Runs that are driven at once; no limit by default.")
    max_queued: int | None = Field(None, description="Runs of a tenant that may wait to begin; 10,000 by default.")


class CallbackBody(Body):
    """Who is to be told of this run."""

    url: str = Field(min_length=1, max_length=2000, examples=["https://example.com/hooks"])
    events: list[Literal["run.finished", "run.parked", "run.asked", "run.budget"]] = Field(
        ["run.finished"], min_length=1, max_length=10, description="What to tell."
    )


class StartRun(Body):
    """A run to start."""

    agent: str = Field(min_length=1, max_length=200, description="Name of an agent; `GET /v1/agents` lists them.")
    input: Input = Field(description="What the user says.")
    session: Name = Field("", description="Conversation to go on with; a new one if it is left out.")
    user: Name = Field("", description="Who it is for: budgets and erasure go by it.")
    limits: LimitsBody | None = None
    if_busy: Literal["reject", "queue"] = Field("reject", description="What to do while the session has a live run.")
    dry_run: bool = Field(False, description="Read for real, and only pretend to have effects.")
    deadline: Moment | None = Field(None, description="The run ends at this time at the latest.")
    batch_api: bool = Field(
        False,
        description="Let its model calls wait for the provider's batch API: half the price, answers within a day. "
        "Used where there is one, and where deadline and limits leave a day.",
    )
    priority: Literal["", "interactive", "batch"] = Field(
        "",
        description="Who goes first when runs wait for a worker: interactive before batch. The agent's own if left out.",
    )
    task: Name = Field("", description="The type of task that it is for: policies and capabilities may go by it.")
    step: Name = Field(
        "", description="The type of its turns, by which the agent's routing table sends them to a model."
    )
    grants: list[GrantBody] | None = Field(
        None,
        max_length=200,
        description="What it may do at most: calls outside of these are denied. null: what its agent may.",
    )
    webhook: CallbackBody | None = Field(
        None, description="Whom to tell, with a message that is signed with the secret of `GET /v1/webhooks/secret`."
    )
    mode: Literal["submit", "wait", "stream"] | None = Field(
        None,
        description="submit: 202 at once (the default). wait: until it ends or needs a person. stream: its events.",
    )
    wait_s: Seconds | None = Field(None, description="How long `wait` waits at most.")


class ParamBody(Body):
    """What an argument must be."""

    path: str = Field(min_length=1, max_length=200, examples=["recipients.*"])
    among: list[Annotated[str, Field(max_length=1000)]] = Field(
        [], max_length=1000, description="Patterns: one of them."
    )
    most: str = Field("", max_length=50, description="A decimal number.")
    least: str = Field("", max_length=50, description="A decimal number.")


class GrantBody(Body):
    """Calls of these tools, within these constraints, until then."""

    tools: list[Annotated[str, Field(min_length=1, max_length=200)]] = Field(min_length=1, max_length=200)
    params: list[ParamBody] = Field([], max_length=100)
    until_ms: int = Field(0, ge=0, le=MAX_SEQ, description="Milliseconds since 1970 UTC; 0: without end.")


class Cancel(Body):
    """Why a run is to stop."""

    by: str = Field("", max_length=200)
    reason: str = Field("", max_length=10_000)


class Decide(Body):
    """A person's decision on a call that waits."""

    call: str = Field(min_length=1, max_length=100, description="The call, as the run's `waiting` names it.")
    decision: Literal["approve", "edit", "reject", "retry", "record", "fail"] = Field(
        description="approve, edit (needs `arguments`), reject a proposal; retry, record (needs `result`), fail a call in doubt."
    )
    revision: int | None = Field(
        None, ge=0, le=1_000_000, description="The revision that was decided on; 409 if it is another."
    )
    attempt: int | None = Field(
        None,
        ge=0,
        le=1_000_000,
        description="The attempt that was shown; 409 if there was another since. A request that comes late, or twice, then "
        "decides nothing else.",
    )
    arguments: dict[str, Any] | None = None
    result: str | None = Field(None, max_length=1_000_000)
    reason: str = Field("", max_length=10_000, description="The model is told it.")
    by: str = Field(
        "",
        max_length=200,
        description="Who decided. With an API key that is the key's name, and this stands with the reason.",
    )
    policy: str | None = Field(
        None, max_length=200, description="The `policy` that was shown; 409 if it was judged by others since."
    )
    allow: Literal["", "session", "destination"] = Field(
        "",
        description="With `approve`, from now on in this session and for this tool: destination: where it goes, which nobody "
        "trusted had named; session: that, and how much. `GET /v1/sessions/{session}/grants` lists what was allowed.",
    )


class DecideAll(Body):
    """Decisions on several calls of a run: all of them are taken, or none."""

    decisions: Annotated[list[Decide], Field(min_length=1, max_length=100)]


class Say(Body):
    """Something more to say to a live run."""

    input: Input
    by: str = Field("", max_length=200)


class Revive(Body):
    """Who sets a parked run going again."""

    by: str = Field("", max_length=200)


class Replay(Body):
    """Which standing runs to set going again."""

    agent: str = Field("", max_length=200, description="Only runs of this agent.")
    reason: Literal["dead_letter", "bundle_changed", "agent_missing"] = "dead_letter"
    limit: Annotated[int, Field(ge=1, le=1000)] = 200
    by: str = Field("", max_length=200)


class SetBudget(Body):
    """A budget's limit; null takes it away. Setting one opens a budget that an overrun had closed."""

    usd: Usd | None


class SetQuota(Body):
    """What may be asked of a provider with one key, by all workers together; null: no limit of this kind."""

    rpm: Count | None = Field(None, description="Requests in a window.")
    tpm: Count | None = Field(None, description="Tokens in a window, input and output.")
    itpm: Count | None = Field(None, description="Input tokens in a window.")
    otpm: Count | None = Field(None, description="Output tokens in a window.")
    window_s: Annotated[float, Field(ge=1, le=86_400)] = Field(60.0, description="The window, in seconds.")


# --- queries ------------------------------------------------------------------------------------------------------------


class Query(BaseModel):
    """Parameters of a query: unknown ones are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class PageQuery(Query):
    """A page of a list, newest first."""

    before: str = Field("", max_length=200, description="The last item of the page before.")
    limit: int = Field(50, ge=1, le=200)


class RunsQuery(PageQuery):
    """Which runs to list."""

    session: str = Field("", max_length=200)
    agent: str = Field("", max_length=200)
    user: str = Field("", max_length=200)
    status: Literal["", "queued", "runnable", "waiting", "parked", "ended"] = ""
    outcome: str = Field("", max_length=50, description="How it ended, or why it is parked.")


class ApprovalsQuery(PageQuery):
    """Which calls that wait to list."""

    session: str = Field("", max_length=200)
    agent: str = Field("", max_length=200)
    user: str = Field("", max_length=200)
    tool: str = Field("", max_length=200)
    tier: Literal["", "read", "write", "irreversible", "destructive"] = ""
    kind: Literal["", "approval", "in_doubt"] = ""


class LettersQuery(PageQuery):
    """Which standing runs to list."""

    agent: str = Field("", max_length=200)
    reason: Literal["dead_letter", "bundle_changed", "agent_missing", "all"] = "dead_letter"


class EventsQuery(Query):
    """Where in a run's journal to begin, and in which form."""

    after: int = Field(0, ge=0, le=MAX_SEQ, description="Events behind this seq. `Last-Event-ID` goes before it.")
    deltas: bool = Field(True, description="Also the text of the model call in the making.")
    format: Literal["", "sse", "json"] = Field("", description="json: one page instead of a stream.")
    limit: int = Field(100, ge=1, le=1000, description="Events of a JSON page.")
