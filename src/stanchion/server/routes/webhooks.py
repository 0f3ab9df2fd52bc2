"""Who is told over HTTP when a run ends, stands still or waits for a person."""

from __future__ import annotations

from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, Path
from fastapi import Query as QueryOf
from starlette.responses import Response

from stanchion.server.body import Given, described, json_body
from stanchion.server.delivery import (
    AddWebhook,
    ChangeWebhook,
    DeliveriesModel,
    DeliveriesQuery,
    DeliveryModel,
    NewWebhookModel,
    Redeliver,
    RedeliveredModel,
    RemovedModel,
    Rotate,
    SecretModel,
    TryWebhook,
    WebhookModel,
    WebhooksModel,
)
from stanchion.server.edge import EdgeOf, TenantOf, reply

router = APIRouter(tags=["webhooks"])

WebhookId = Annotated[str, Path(max_length=200)]


@router.get("/webhooks", response_model=WebhooksModel)
async def list_webhooks(edge: EdgeOf, tenant: TenantOf) -> Response:
    """List endpoints, oldest first."""
    return reply({"webhooks": await edge.runtime.webhooks.ls(tenant=tenant)})


@router.post("/webhooks", status_code=201, response_model=NewWebhookModel, openapi_extra=described(AddWebhook))
async def add_webhook(
    edge: EdgeOf, tenant: TenantOf, given: Annotated[Given[AddWebhook], Depends(json_body(AddWebhook))]
) -> Response:
    """Tell a receiver what happens from now on. The answer holds the secret that its messages are signed with.

    Messages are signed by the Standard Webhooks specification, come at least once and in order for each run, and hold no
    content unless `include` asks for it.
    """
    body = given.body
    view, secret = await edge.runtime.webhooks.add(
        body.url, events=body.events, agents=body.agents, include=body.include, secret=body.secret, tenant=tenant
    )
    return reply({**msgspec.to_builtins(view), "secret": secret.secret}, 201)


@router.get("/webhooks/deliveries", response_model=DeliveriesModel)
async def list_deliveries(edge: EdgeOf, tenant: TenantOf, query: Annotated[DeliveriesQuery, QueryOf()]) -> Response:
    """List deliveries, newest first: what was accepted, what is pending, what was given up and why."""
    rows = await edge.runtime.webhooks.deliveries(tenant=tenant, **query.model_dump())
    before = rows[-1].id if len(rows) == query.limit else ""
    return reply({"deliveries": rows, "before": before})


@router.get("/webhooks/deliveries/{delivery}", response_model=DeliveryModel)
async def get_delivery(delivery: WebhookId, edge: EdgeOf, tenant: TenantOf) -> Response:
    """Read a delivery."""
    return reply(await edge.runtime.webhooks.delivery(delivery, tenant=tenant))


@router.post("/webhooks/redeliver", response_model=RedeliveredModel, openapi_extra=described(Redeliver))
async def redeliver(
    edge: EdgeOf, tenant: TenantOf, given: Annotated[Given[Redeliver], Depends(json_body(Redeliver))]
) -> Response:
    """Post a delivery again, or all that was given up for an endpoint. Messages keep their ids."""
    return reply({"redelivered": await edge.runtime.webhooks.redeliver(given.body.id, tenant=tenant)})


@router.get("/webhooks/secret", response_model=SecretModel)
async def get_secret(edge: EdgeOf, tenant: TenantOf) -> Response:
    """Read what callbacks of single runs (`webhook` of `POST /v1/runs`) are signed with."""
    return reply(await edge.runtime.webhooks.secret(tenant=tenant))


@router.post("/webhooks/secret", response_model=SecretModel, openapi_extra=described(Rotate, optional=True))
async def rotate_secret(
    edge: EdgeOf, tenant: TenantOf, given: Annotated[Given[Rotate], Depends(json_body(Rotate, optional=True))]
) -> Response:
    """Change what callbacks of single runs are signed with; for a time the one before signs as well."""
    body = given.body
    return reply(await edge.runtime.webhooks.rotate(secret=body.secret, overlap_s=body.overlap_s, tenant=tenant))


@router.get("/webhooks/{id}", response_model=WebhookModel)
async def get_webhook(id: WebhookId, edge: EdgeOf, tenant: TenantOf) -> Response:
    """Read an endpoint, without its secret."""
    return reply(await edge.runtime.webhooks.show(id, tenant=tenant))


@router.patch("/webhooks/{id}", response_model=WebhookModel, openapi_extra=described(ChangeWebhook))
async def change_webhook(
    id: WebhookId,
    edge: EdgeOf,
    tenant: TenantOf,
    _: Annotated[Given[ChangeWebhook], Depends(json_body(ChangeWebhook))],
) -> Response:
    """Enable an endpoint that was disabled because its receiver answered 410."""
    return reply(await edge.runtime.webhooks.enable(id, tenant=tenant))


@router.delete("/webhooks/{id}", response_model=RemovedModel)
async def remove_webhook(id: WebhookId, edge: EdgeOf, tenant: TenantOf) -> Response:
    """Remove an endpoint, and what it still had to get."""
    await edge.runtime.webhooks.remove(id, tenant=tenant)
    return reply({"removed": id})


@router.post(
    "/webhooks/{id}/test",
    status_code=202,
    response_model=DeliveryModel,
    openapi_extra=described(TryWebhook, optional=True),
)
async def try_webhook(
    id: WebhookId,
    edge: EdgeOf,
    tenant: TenantOf,
    _: Annotated[Given[TryWebhook], Depends(json_body(TryWebhook, optional=True))],
) -> Response:
    """Post a trial message to an endpoint. Its delivery says what came of it."""
    return reply(await edge.runtime.webhooks.test(id, tenant=tenant), 202)


@router.post("/webhooks/{id}/secret", response_model=SecretModel, openapi_extra=described(Rotate, optional=True))
async def rotate_webhook(
    id: WebhookId,
    edge: EdgeOf,
    tenant: TenantOf,
    given: Annotated[Given[Rotate], Depends(json_body(Rotate, optional=True))],
) -> Response:
    """Give an endpoint another secret; for a time the one before signs as well."""
    body = given.body
    return reply(await edge.runtime.webhooks.rotate(id, secret=body.secret, overlap_s=body.overlap_s, tenant=tenant))
