"""What the one who runs the server sees: agents, workers, shares, limits, budgets."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field


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
