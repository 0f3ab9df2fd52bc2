"""What users have connected: the link that one opens, and what comes back by the browser.

The answer must be brought by who asked for the link. Where API keys are, the application that the browser returns to hands it
on with its key and its user, whom it knows by its own session; the browser alone may bring it only to an open server.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import Response

from stanchion.core.errors import InputError
from stanchion.runtime import Redirect
from stanchion.server.delivery import RemovedModel
from stanchion.server.edge import EdgeOf, TenantOf, reply

router = APIRouter(tags=["connections"])

Name = Annotated[str, Path(max_length=64, description="Name of a credential among an agent's.")]
User = Annotated[str, Query(max_length=128, description="Whose connection it is.")]
Word = Annotated[str, Query(max_length=4_096)]


class LinkModel(BaseModel):
    """The link that the user opens in a browser."""

    url: str


class ConnectionModel(BaseModel):
    """That a user has connected something."""

    name: str
    user: str
    created_ms: int
    updated_ms: int


class ConnectionsModel(BaseModel):
    """Connections by user and name."""

    connections: list[ConnectionModel]


class ConnectedModel(BaseModel):
    """What was connected."""

    name: str
    user: str
    scopes: list[str] = Field(description="What the user allowed.")


@router.get("/connections", response_model=ConnectionsModel)
async def list_connections(edge: EdgeOf, tenant: TenantOf, user: User = "") -> Response:
    """List what users have connected: names, never tokens."""
    return reply({"connections": await edge.runtime.connections.ls(user=user, tenant=tenant)})


@router.get("/connections/callback", response_model=ConnectedModel)
async def complete_connection(
    request: Request,
    edge: EdgeOf,
    tenant: TenantOf,
    state: Word = "",
    code: Word = "",
    error: Word = "",
    iss: Word = "",
    user: User = "",
) -> Response:
    """Take what the browser brought back to the redirect URI: hand on its query. With an API key, name the `user` as well."""
    if not user and request.headers.get("authorization") is not None:
        raise InputError("say whose browser brought this, by your own session of it", field="user")
    redirect = Redirect(state, code, error, iss)
    return reply(await edge.runtime.connections.complete(redirect, tenant=tenant, user=user))


@router.get("/connections/{name}/authorize", response_model=LinkModel)
async def authorize_connection(name: Name, edge: EdgeOf, tenant: TenantOf, user: User = "") -> Response:
    """Get the link by which a user connects something. It is good for ten minutes, once, and for this user only."""
    return reply({"url": await edge.runtime.connections.authorize(name, user=user, tenant=tenant)})


@router.delete("/connections/{name}", response_model=RemovedModel)
async def remove_connection(name: Name, edge: EdgeOf, tenant: TenantOf, user: User = "") -> Response:
    """Forget a user's connection and its tokens."""
    await edge.runtime.connections.remove(name, user=user, tenant=tenant)
    return reply({"removed": name})
