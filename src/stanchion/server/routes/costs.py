"""What a tenant's runs cost, by what one likes, what they would have cost otherwise, and what the next one will."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter
from fastapi import Query as QueryOf
from starlette.responses import Response

from stanchion.runtime import CostQuestion, ForecastQuestion
from stanchion.server.answers.runs import ForecastModel
from stanchion.server.costs import CostsModel, CostsQuery, ForecastQuery
from stanchion.server.edge import EdgeOf, TenantOf, reply

router = APIRouter(tags=["costs"])

MOST_RUNS = 50_000
"""That a request looks at, the newest: some ten seconds. `stanchion costs` on the data itself looks at all."""


@router.get("/costs", response_model=CostsModel)
async def get_costs(edge: EdgeOf, tenant: TenantOf, query: Annotated[CostsQuery, QueryOf()]) -> Response:
    """Reckon from the journals what runs cost: by agent, model, step, tool, skill, user, session, run or day, or by two of them.

    With what the provider's cache saved, and, if asked, what the same tokens would have cost on another model, without the cache,
    through the batch API, or with some steps done by another.
    """
    asked: dict[str, Any] = query.model_dump() | {
        "by": tuple(name.strip() for name in query.by.split(",")),
        "route": tuple(each.strip() for each in query.route.split(",") if each.strip()),
    }
    return reply(await edge.runtime.costs.report(CostQuestion(**asked), tenant=tenant, most_runs=MOST_RUNS))


@router.get("/forecast", response_model=ForecastModel)
async def get_forecast(edge: EdgeOf, tenant: TenantOf, query: Annotated[ForecastQuery, QueryOf()]) -> Response:
    """Say what a run of an agent will cost: by its past runs, or by a shape where there are few of them or one is given.

    Of a run that is under way `GET /v1/runs/{run}` says it.
    """
    return reply(await edge.runtime.forecasting.before(ForecastQuestion(**query.model_dump()), tenant=tenant))
