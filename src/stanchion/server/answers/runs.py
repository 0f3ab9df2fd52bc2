"""Runs, their events and their sessions."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from stanchion.server.answers.people import WaitingModel


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
