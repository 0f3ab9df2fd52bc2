"""What a client may send about schedules and webhooks, and what it gets. For the bodies the rules of `models` hold."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from stanchion.server.models import Body, LimitsBody, Name, PageQuery

EventName = Literal["run.finished", "run.parked", "run.asked", "run.budget", "budget.alert", "spend.spike"]
Url = Annotated[str, Field(min_length=1, max_length=2000, examples=["https://example.com/hooks"])]


class SetSchedule(Body):
    """A schedule, whole."""

    cron: str = Field(
        min_length=1,
        max_length=200,
        examples=["0 9 * * MON-FRI"],
        description="Five fields: minute, hour, day of the month, month, weekday. Or @hourly, @daily, .., @every 5m.",
    )
    agent: str = Field(min_length=1, max_length=200)
    input: str = Field(min_length=1, max_length=1_000_000, description="What the user says.")
    tz: str = Field("UTC", max_length=100, description="IANA time zone in which the expression is read.")
    session: Name = Field("", description="One session for all its runs; a new one for each if it is left out.")
    user: Name = Field("", description="Who the runs are for: budgets and erasure go by it.")
    limits: LimitsBody | None = None
    priority: Literal["interactive", "batch"] = "batch"
    if_busy: Literal["skip", "queue"] = Field(
        "skip", description="What becomes of a time at which the schedule's session has a live run."
    )
    if_missed: Literal["run_once", "skip"] = Field(
        "run_once", description="What becomes of times at which no worker was there: one run for all of them, or none."
    )
    enabled: bool = True


class ChangeSchedule(Body):
    """Whether a schedule is at work."""

    enabled: bool = Field(description="false pauses it; true lets it go on with its next time.")


class RunNow(Body):
    """Nothing needs to be said."""


class AddWebhook(Body):
    """A receiver to be told what happens."""

    url: Url
    events: list[EventName] = Field(
        [], max_length=10, description="What it hears of; if it is left out everything but `run.budget`."
    )
    agents: list[Annotated[str, Field(max_length=200)]] = Field([], max_length=100, description="Of whose runs.")
    include: list[Literal["answer"]] = Field([], max_length=1, description="Content that it gets as well; none else.")
    secret: str = Field("", max_length=200, description="whsec_..; one is made if it is left out.")


class ChangeWebhook(Body):
    """Whether an endpoint is told."""

    enabled: Literal[True] = Field(description="true enables one that was disabled because its receiver answered 410.")


class TryWebhook(Body):
    """Nothing needs to be said."""


class Rotate(Body):
    """How a secret is to be changed."""

    secret: str = Field("", max_length=200, description="whsec_..; one is made if it is left out.")
    overlap_s: float = Field(86_400.0, ge=0, le=2_592_000, description="For how long the one before signs as well.")


class Redeliver(Body):
    """What is to be posted again."""

    id: str = Field(
        min_length=1, max_length=200, description="A delivery, or an endpoint: all that was given up for it."
    )


class DeliveriesQuery(PageQuery):
    """Which deliveries to list."""

    endpoint: str = Field("", max_length=200)
    run: str = Field("", max_length=200)
    standing: Literal["", "pending", "done", "dead"] = ""


# --- answers --------------------------------------------------------------------------------------------------------------


class ScheduleModel(BaseModel):
    """A schedule as it stands."""

    name: str
    cron: str
    tz: str
    agent: str
    input: str
    session: str
    user: str
    limits: dict[str, Any] | None
    priority: Literal["interactive", "batch"]
    if_busy: Literal["skip", "queue"]
    if_missed: Literal["run_once", "skip"]
    enabled: bool
    next_ms: list[int] = Field(description="The next times; none while it is paused.")
    last_ms: int
    last_run: str
    note: str = Field(description="Why the last time started no run.")
    created_ms: int


class SchedulesModel(BaseModel):
    """Schedules."""

    schedules: list[ScheduleModel]


class WebhookModel(BaseModel):
    """An endpoint, without its secret."""

    id: str
    url: str
    events: list[str]
    agents: list[str]
    include: list[str]
    enabled: bool
    note: str = Field(description="Why it is not enabled.")
    created_ms: int


class NewWebhookModel(WebhookModel):
    """An endpoint that was made, and its secret."""

    secret: str


class WebhooksModel(BaseModel):
    """Endpoints."""

    webhooks: list[WebhookModel]


class SecretModel(BaseModel):
    """A secret, for who sets up the receiver."""

    id: str = Field(description="The endpoint; empty: the tenant's own, for callbacks of single runs.")
    secret: str
    previous_until_ms: int = Field(description="Until when the one before signs as well.")


class DeliveryModel(BaseModel):
    """A delivery as it stands."""

    id: str
    endpoint: str
    type: str
    run: str
    seq: int
    standing: Literal["pending", "done", "dead"]
    attempts: int
    next_ms: int
    http_status: int
    note: str
    created_ms: int
    settled_ms: int


class DeliveriesModel(BaseModel):
    """A page of deliveries, newest first."""

    deliveries: list[DeliveryModel]
    before: str = Field(description="What to go on from; empty: this was the last page.")


class RedeliveredModel(BaseModel):
    """How many are posted again."""

    redelivered: int


class RemovedModel(BaseModel):
    """It is gone."""

    removed: str


BODIES: tuple[type[BaseModel], ...] = (
    SetSchedule,
    ChangeSchedule,
    RunNow,
    AddWebhook,
    ChangeWebhook,
    TryWebhook,
    Rotate,
    Redeliver,
)
