"""Runs that start by themselves at certain times."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path
from starlette.responses import Response

from stanchion.server.body import Given, described, json_body
from stanchion.server.delivery import ChangeSchedule, RemovedModel, RunNow, ScheduleModel, SchedulesModel, SetSchedule
from stanchion.server.edge import EdgeOf, TenantOf, reply
from stanchion.server.routes.starting import limits_of

router = APIRouter(tags=["schedules"])

ScheduleName = Annotated[str, Path(max_length=128)]


@router.get("/schedules", response_model=SchedulesModel)
async def list_schedules(edge: EdgeOf, tenant: TenantOf) -> Response:
    """List schedules by name."""
    return reply({"schedules": await edge.runtime.schedules.ls(tenant=tenant)})


@router.get("/schedules/{name}", response_model=ScheduleModel)
async def get_schedule(name: ScheduleName, edge: EdgeOf, tenant: TenantOf) -> Response:
    """Read a schedule: its next times, and what its last one did."""
    return reply(await edge.runtime.schedules.show(name, tenant=tenant))


@router.put("/schedules/{name}", response_model=ScheduleModel, openapi_extra=described(SetSchedule))
async def set_schedule(
    name: ScheduleName,
    edge: EdgeOf,
    tenant: TenantOf,
    given: Annotated[Given[SetSchedule], Depends(json_body(SetSchedule))],
) -> Response:
    """Make a schedule, or replace the one of this name. Each of its times starts one run, whatever dies meanwhile."""
    body, schedules = given.body, edge.runtime.schedules
    view = await schedules.add(
        name,
        body.cron,
        body.agent,
        body.input,
        tz=body.tz,
        session=body.session,
        user=body.user,
        limits=limits_of(body.limits),
        priority=body.priority,
        if_busy=body.if_busy,
        if_missed=body.if_missed,
        enabled=body.enabled,
        replace=True,
        tenant=tenant,
    )
    return reply(view)


@router.patch("/schedules/{name}", response_model=ScheduleModel, openapi_extra=described(ChangeSchedule))
async def change_schedule(
    name: ScheduleName,
    edge: EdgeOf,
    tenant: TenantOf,
    given: Annotated[Given[ChangeSchedule], Depends(json_body(ChangeSchedule))],
) -> Response:
    """Pause a schedule, or let it go on with its next time."""
    schedules = edge.runtime.schedules
    change = schedules.resume if given.body.enabled else schedules.pause
    return reply(await change(name, tenant=tenant))


@router.post(
    "/schedules/{name}/run",
    status_code=202,
    response_model=ScheduleModel,
    openapi_extra=described(RunNow, optional=True),
)
async def run_schedule(
    name: ScheduleName,
    edge: EdgeOf,
    tenant: TenantOf,
    _: Annotated[Given[RunNow], Depends(json_body(RunNow, optional=True))],
) -> Response:
    """Make a schedule due now: a worker that serves its agent starts the run, and `last_run` then names it."""
    return reply(await edge.runtime.schedules.run(name, tenant=tenant), 202)


@router.delete("/schedules/{name}", response_model=RemovedModel)
async def remove_schedule(name: ScheduleName, edge: EdgeOf, tenant: TenantOf) -> Response:
    """Remove a schedule. Its runs stay."""
    await edge.runtime.schedules.remove(name, tenant=tenant)
    return reply({"removed": name})
