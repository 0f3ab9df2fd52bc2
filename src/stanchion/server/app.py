"""The application: routes, errors, the guard around them, and the OpenAPI document. Nothing is loaded from other hosts."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, FastAPI, Security
from fastapi.openapi.utils import get_openapi
from fastapi.security import HTTPBearer
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from stanchion.runtime import Runtime
from stanchion.server import delivery, failure
from stanchion.server.answers.common import ErrorBody
from stanchion.server.body import REFERENCE
from stanchion.server.edge import Edge
from stanchion.server.guard import Guard
from stanchion.server.models import (
    Cancel,
    Decide,
    DecideAll,
    Replay,
    Revive,
    Say,
    SetBudget,
    SetQuota,
    SetShare,
    StartRun,
)
from stanchion.server.routes import (
    admin,
    approvals,
    connections,
    costs,
    dlq,
    health,
    memory,
    quotas,
    runs,
    schedules,
    sessions,
    shares,
    starting,
    webhooks,
)
from stanchion.server.settings import Settings

DESCRIPTION = """
Start agents and follow them. A run is a journal of events: a client that lost its connection attaches again after the last
event it saw, and a request that was repeated under its `Idempotency-Key` is the same run.

Every error is `{"error": {"code", "message", "field", "retryable"}}`, and `id` where the fault is the server's.
"""
BODIES: tuple[type[BaseModel], ...] = (
    StartRun,
    Cancel,
    Decide,
    DecideAll,
    Say,
    Revive,
    Replay,
    SetBudget,
    SetShare,
    SetQuota,
    *delivery.BODIES,
    *memory.BODIES,
)
_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorBody, "description": what}
    for status, what in {
        400: "Malformed: not JSON, or a bad parameter.",
        401: "No API key, or not a valid one.",
        403: "Not with this key, or from another site's page.",
        404: "There is no such thing (for this tenant).",
        409: "Not possible in the present state.",
        413: "The body is too large.",
        415: "The body is not JSON.",
        422: "A field is not of its form, or the idempotency key was used with another body.",
        429: "Too much at once.",
        503: "Stopping, or the store does not answer.",
    }.items()
}
_KEY = HTTPBearer(auto_error=False, description="An API key: `stanchion keys add`. Without any keys none is needed.")


def create_app(runtime: Runtime, settings: Settings | None = None) -> FastAPI:
    """Make the ASGI application of a runtime."""
    edge = Edge(runtime, settings or Settings())
    app = _Application(
        title="Stanchion",
        version=version("stanchion"),
        description=DESCRIPTION.strip(),
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.edge = edge
    failure.install(app)
    app.add_middleware(Guard, edge=edge)
    app.include_router(health.router)
    app.include_router(
        _versioned(
            (
                starting.router,
                runs.router,
                approvals.router,
                sessions.router,
                dlq.router,
                shares.router,
                quotas.router,
                admin.router,
            )
        )
    )
    app.include_router(_versioned((schedules.router, webhooks.router, connections.router, costs.router, memory.router)))
    return app


def _versioned(routers: Sequence[APIRouter]) -> APIRouter:
    v1 = APIRouter(prefix="/v1", responses=_ERRORS, dependencies=[Security(_KEY)])
    for router in routers:
        v1.include_router(router)
    return v1


class _Application(FastAPI):
    def openapi(self) -> dict[str, Any]:
        """Describe the API, with the bodies that we read ourselves."""
        if self.openapi_schema is None:
            document = get_openapi(
                title=self.title, version=self.version, description=self.description, routes=self.routes
            )
            _, bodies = models_json_schema([(model, "validation") for model in BODIES], ref_template=REFERENCE)
            schemas = document["components"]["schemas"]
            schemas.update(bodies["$defs"])
            for unused in ("HTTPValidationError", "ValidationError"):
                schemas.pop(unused, None)
            self.openapi_schema = document
        return self.openapi_schema
