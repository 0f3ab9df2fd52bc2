"""What a client may ask about costs, and what it gets."""

from __future__ import annotations

from pydantic import BaseModel, Field

from stanchion.server.models import Query


class CostsQuery(Query):
    """Of which runs, by what, and what if."""

    by: str = Field(
        "agent", max_length=100, examples=["agent,day"],
        description="One or two of agent, model, step, tool, skill, user, tenant, session, run, day.",
    )  # fmt: skip
    since: str = Field(
        "", max_length=40, description='A day (UTC), a time with its zone, or "7d" or "24h" ago. From then on.'
    )
    until: str = Field("", max_length=40, description="Likewise; before then.")
    agent: str = Field("", max_length=200)
    session: str = Field("", max_length=200)
    user: str = Field("", max_length=200)
    on_model: str = Field("", max_length=200, description='"provider:model": the same tokens at its price of today.')
    without_cache: bool = Field(False, description="All input at the plain rate.")
    batch: bool = Field(False, description="Every model call at the batch price.")
    route: str = Field(
        "", max_length=1_000, examples=["answer=anthropic:claude-haiku-4-5@2000"],
        description="STEP=PROVIDER:MODEL@TOKENS, some with commas: steps done by another model with so much input at most.",
    )  # fmt: skip
    top: int = Field(20, ge=1, le=1000, description="So many groups, the dearest first; the rest is one sum.")


class ForecastQuery(Query):
    """Of what run."""

    agent: str = Field(max_length=200)
    input_bytes: int = Field(0, ge=0, le=100_000_000, description="Length of the input, as UTF-8.")
    turns: int = Field(0, ge=0, le=1_000, description="A shape in place of past runs: so many model calls, ..")
    prefix_tokens: int = Field(0, ge=0, le=10_000_000, description=".. of which the first is so long, ..")
    growth_tokens: int = Field(
        0, ge=0, le=10_000_000, description=".. and each so much longer than the one before it, .."
    )
    output_tokens: int = Field(0, ge=0, le=10_000_000, description=".. and answers so long.")


class CostSumModel(BaseModel):
    """What some charges come to. Amounts are exact to the nano-dollar."""

    usd: str
    runs: int = Field(description="Runs with a charge among these.")
    calls: int = Field(description="Attempts at model calls.")
    tool_calls: int
    input_tokens: int = Field(description="All input, cached or not.")
    cache_read_tokens: int
    cache_write_tokens: int
    output_tokens: int
    added_tokens: int = Field(description="Input tokens by which tools' results made the next request longer.")
    cache_read_saved_usd: str = Field(description="What reads from the cache would have cost more at the plain rate.")
    cache_extra_usd: str = Field(
        description="What writes to it cost above the plain rate, and what refreshes of it cost."
    )
    cache_net_usd: str = Field(description="The one less the other.")
    unmetered_usd: str = Field(
        description="Part of `usd`: of model calls whose tokens do not say it, such as one settled at its reservation."
    )
    what_if_usd: str | None = Field(description="What it would have been. null: nothing was supposed.")


class CostGroupModel(CostSumModel):
    """What a group's charges come to."""

    key: dict[str, str] = Field(examples=[{"agent": "support", "day": "2026-11-20"}])


class WhatIfModel(BaseModel):
    """What was supposed, and what it comes to."""

    model: str
    price_on: str = Field(description="Of which day the price is.")
    without_cache: bool
    batch: bool
    route: list[str] = Field(description="Steps that another model is supposed to have done.")
    usd: str
    difference_usd: str = Field(description="To what it was; below zero: cheaper.")
    kept_usd: str = Field(
        description="Part of `usd` that stayed as it was: tools, checks, and calls whose tokens do not say their cost."
    )
    note: str = Field(description="What the number leaves out.")


class CostsModel(BaseModel):
    """What runs cost."""

    by: list[str]
    since_ms: int
    until_ms: int
    groups: list[CostGroupModel]
    more_groups: int = Field(description="How many groups there are beside those.")
    rest: CostSumModel | None = Field(description="What those come to.")
    total: CostSumModel = Field(description="The sum of all groups. A run in several groups is counted once here.")
    what_if: WhatIfModel | None
    looked_at: int = Field(description="Runs that were looked at.")
    complete: bool = Field(description="false: only the newest runs were looked at, back to `reached_ms`.")
    reached_ms: int
    unreadable: list[str] = Field(
        description="Runs that this server's version cannot read, and left out; some of them."
    )
