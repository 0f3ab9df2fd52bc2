"""Whether the process lives, and whether it takes work."""

from __future__ import annotations

import asyncio
from importlib.metadata import version

from fastapi import APIRouter
from starlette.responses import Response

from stanchion.core.errors import StanchionError
from stanchion.server.answers.common import ErrorBody, HealthModel, ReadyModel
from stanchion.server.edge import EdgeOf, reply
from stanchion.server.failure import failure, log_fault

router = APIRouter(tags=["health"])

STORE_TIMEOUT_S = 2.0
_VERSION = version("stanchion")


@router.get("/health", response_model=HealthModel)
async def health() -> Response:
    """Say that the process lives. Asks nothing of the store: a restart would not mend it."""
    return reply({"status": "ok", "version": _VERSION})


@router.get("/ready", response_model=ReadyModel, responses={503: {"model": ErrorBody}})
async def ready(edge: EdgeOf) -> Response:
    """Say whether new runs are taken: the store answers, and the server is not about to stop."""
    if edge.draining.is_set() or not edge.runtime.ready:
        return failure(503, "draining", "the server is stopping and takes no new runs", retryable=True)
    try:
        await asyncio.wait_for(edge.runtime.store.now_ms(), STORE_TIMEOUT_S)
    except (StanchionError, TimeoutError) as error:
        known = log_fault(error, at="asking the store")
        return failure(503, "store", "the store does not answer", retryable=True, id=known)
    return reply({"ready": True})
