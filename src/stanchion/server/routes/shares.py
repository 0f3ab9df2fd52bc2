"""Who gets how much of the workers, and which workers there are."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends
from starlette.responses import Response

from stanchion.core.errors import Unauthorized
from stanchion.runtime.desks.sharing import Share, WorkerRow
from stanchion.server.answers.operating import ShareModel, SharesModel, WorkersModel
from stanchion.server.body import Given, described, json_body
from stanchion.server.edge import EdgeOf, TenantOf, reply
from stanchion.server.models import SetShare

router = APIRouter()


@router.get("/shares", response_model=SharesModel, tags=["shares"])
async def list_shares(edge: EdgeOf, tenant: TenantOf) -> Response:
    """List shares: with a key your tenant's own and those of every tenant (tenant ""), without keys all."""
    is_open = await edge.door.is_open()
    rows = [row for row in await edge.runtime.shares.list() if is_open or row.tenant in (tenant, "")]
    return reply({"shares": [share_view(row) for row in rows]})


@router.put("/shares", response_model=ShareModel, tags=["shares"], openapi_extra=described(SetShare))
async def set_share(
    edge: EdgeOf, _: TenantOf, given: Annotated[Given[SetShare], Depends(json_body(SetShare))]
) -> Response:
    """Set a share, whole: what is null goes by its default. It is the operator's to set. In force within a second."""
    if not await edge.door.is_open():
        raise Unauthorized(
            "shares are not set with a tenant's key, but by the operator: `stanchion shares set` on the data",
            code="forbidden",
        )
    body = given.body
    share = await edge.runtime.shares.set(
        body.scope,
        tenant=body.tenant,
        weight=body.weight,
        max_running=body.max_running,
        max_queued=body.max_queued,
    )
    return reply(share_view(share))


def share_view(row: Share) -> dict[str, Any]:
    """Give a share; null is what is not set."""
    return {
        "tenant": row.tenant,
        "scope": row.scope,
        "weight": row.weight or None,
        "max_running": None if row.max_running < 0 else row.max_running,
        "max_queued": None if row.max_queued < 0 else row.max_queued,
    }


@router.get("/workers", response_model=WorkersModel, tags=["workers"])
async def list_workers(edge: EdgeOf, _: TenantOf) -> Response:
    """List the processes that drive runs, for all tenants together. Their hosts are shown where no key is needed."""
    is_open = await edge.door.is_open()
    now_ms = await edge.runtime.store.now_ms()
    return reply({"workers": [worker_view(row, now_ms, whole=is_open) for row in await edge.runtime.shares.workers()]})


def worker_view(row: WorkerRow, now_ms: int, *, whole: bool) -> dict[str, Any]:
    """Give a worker; not `whole`: without what is the operator's own."""
    return {
        "name": row.name,
        "agents": row.agents if whole else dict.fromkeys(row.agents, ""),
        "version": row.version,
        "host": row.host if whole else "",
        "pid": row.pid if whole else 0,
        "active": row.active,
        "max_active": row.max_active,
        "begun_per_s": row.rate,
        "started_ms": row.started_ms,
        "seen_ms": row.seen_ms,
        "seen_s_ago": round(max(now_ms - row.seen_ms, 0) / 1000, 1),
    }
