"""What this server runs, and what a tenant may spend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path
from starlette.responses import Response

from stanchion.agent import Agent
from stanchion.core.errors import NotFound, Unauthorized
from stanchion.core.money import format_usd
from stanchion.runtime import Ledger
from stanchion.server.answers.operating import AgentsModel, LedgerModel, LedgersModel
from stanchion.server.body import Given, described, json_body
from stanchion.server.edge import Edge, EdgeOf, TenantOf, reply
from stanchion.server.models import SetBudget

router = APIRouter()

LedgerName = Annotated[
    str, Path(max_length=250, description='"tenant", "user:ann" or "session:s1", alone or with "/day" or "/month".')
]


@router.get("/agents", response_model=AgentsModel, tags=["agents"])
async def list_agents(edge: EdgeOf, _: TenantOf) -> Response:
    """List the agents that this server runs, the same for all tenants."""
    return reply({"agents": [agent_view(agent) for agent in edge.runtime.agents.values()]})


def agent_view(agent: Agent) -> dict[str, Any]:
    """Give what a client needs to know of an agent; its identity is the deployment's own."""
    tools = [{"name": s.name, "effect": s.effect, "description": s.description} for s in agent.registry().specs]
    return {"name": agent.name, "models": [model.name for model in agent.models()], "tools": tools}


def ledger_view(row: Ledger, told: Sequence[int] = ()) -> dict[str, Any]:
    """Give a budget in dollars."""
    return {
        "ledger": row.ledger,
        "limit_usd": None if row.limit < 0 else format_usd(row.limit),
        "settled_usd": format_usd(row.settled),
        "reserved_usd": format_usd(row.reserved),
        "closed": row.closed,
        "told": list(told),
    }


def is_of_all(ledger: str) -> bool:
    """Say whether a budget is that of all tenants together."""
    return ledger.partition("/")[0] == "all"


async def visible(edge: Edge, tenant: str) -> list[Ledger]:
    """List the budgets that a tenant may see: where there are keys, not those of all tenants."""
    is_open = await edge.door.is_open()
    rows = await edge.runtime.budgets(tenant=tenant)
    return [row for row in rows if is_open or not is_of_all(row.ledger)]


@router.get("/budgets", response_model=LedgersModel, tags=["budgets"])
async def list_budgets(edge: EdgeOf, tenant: TenantOf) -> Response:
    """List budgets: each limit that was set, and each period that was spent in."""
    told = await edge.runtime.told(tenant=tenant)
    return reply({"budgets": [ledger_view(row, told(row)) for row in await visible(edge, tenant)]})


@router.get("/budgets/{ledger:path}", response_model=LedgersModel, tags=["budgets"])
async def get_budget(ledger: LedgerName, edge: EdgeOf, tenant: TenantOf) -> Response:
    """Read a budget and its periods: of "tenant/day" also "tenant/day:2026-11-20"."""
    found = [row for row in await visible(edge, tenant) if row.ledger == ledger or row.ledger.startswith(f"{ledger}:")]
    if not found or not ledger:
        raise NotFound(f"there is no budget {ledger!r}; GET /v1/budgets lists what there is")
    told = await edge.runtime.told(tenant=tenant)
    return reply({"budgets": [ledger_view(row, told(row)) for row in found]})


@router.put("/budgets/{ledger:path}", response_model=LedgerModel, tags=["budgets"], openapi_extra=described(SetBudget))
async def set_budget(
    ledger: LedgerName,
    edge: EdgeOf,
    tenant: TenantOf,
    given: Annotated[Given[SetBudget], Depends(json_body(SetBudget))],
) -> Response:
    """Set a budget's limit in dollars, or take it away with null. A tenant's own is the operator's to set."""
    if ledger.partition("/")[0] in ("all", "tenant") and not await edge.door.is_open():
        raise Unauthorized(
            "the budgets of a tenant and of all are not set with a tenant's key, but by the operator: "
            "`stanchion budgets set` on the data file",
            code="forbidden",
        )
    return reply(ledger_view(await edge.runtime.set_budget(ledger, given.body.usd, tenant=tenant)))
