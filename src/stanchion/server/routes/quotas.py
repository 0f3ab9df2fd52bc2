"""Limits of providers that all workers share, and what stands in the way of calls now."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path
from starlette.responses import Response

from stanchion.core.errors import NotFound, Unauthorized
from stanchion.runtime.desks.quotas import Quota, quota_json, quotas_json
from stanchion.server.answers.operating import DroppedModel, QuotaModel, QuotasModel
from stanchion.server.body import Given, described, json_body
from stanchion.server.edge import Edge, EdgeOf, TenantOf, reply
from stanchion.server.models import SetQuota

router = APIRouter()

QuotaName = Annotated[str, Path(max_length=200, description='A provider or one of its models: "openai:gpt-5".')]


async def _check_operator(edge: Edge) -> None:
    if not await edge.door.is_open():
        raise Unauthorized(
            "the limits of providers are not a tenant's to see or set, but the operator's: `stanchion quotas` on the data",
            code="forbidden",
        )


@router.get("/quotas", response_model=QuotasModel, tags=["quotas"])
async def list_quotas(edge: EdgeOf, _: TenantOf) -> Response:
    """List the limits that are set, what counts against limits now, what is closed for a time, and open breakers."""
    await _check_operator(edge)
    return reply(quotas_json(await edge.runtime.quotas.view()))


@router.put("/quotas/{name:path}", response_model=QuotaModel, tags=["quotas"], openapi_extra=described(SetQuota))
async def set_quota(
    name: QuotaName, edge: EdgeOf, _: TenantOf, given: Annotated[Given[SetQuota], Depends(json_body(SetQuota))]
) -> Response:
    """Set a limit, whole. All workers go by it within some seconds."""
    await _check_operator(edge)
    body = given.body
    quota = Quota(name, body.rpm or 0, body.tpm or 0, body.itpm or 0, body.otpm or 0, body.window_s)
    return reply(quota_json(await edge.runtime.quotas.set(quota)))


@router.delete("/quotas/{name:path}", response_model=DroppedModel, tags=["quotas"])
async def drop_quota(name: QuotaName, edge: EdgeOf, _: TenantOf) -> Response:
    """Take a limit away."""
    await _check_operator(edge)
    if not await edge.runtime.quotas.drop(name):
        raise NotFound(f"there is no limit for {name!r}; GET /v1/quotas lists what there is")
    return reply({"name": name})
