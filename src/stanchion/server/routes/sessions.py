"""Sessions and their conversations."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path
from fastapi import Query as QueryOf
from starlette.responses import Response

from stanchion.runtime import SessionRow
from stanchion.server.answers.runs import MessagesModel, SessionItem, SessionPage
from stanchion.server.edge import EdgeOf, TenantOf, reply
from stanchion.server.models import PageQuery

router = APIRouter(tags=["sessions"])

SessionId = Annotated[str, Path(max_length=200)]


def row_view(row: SessionRow, *, expired: bool) -> dict[str, Any]:
    """Give a session's row as a client sees it."""
    return {
        "session": row.session,
        "agent": row.agent,
        "user": row.user,
        "live": row.live,
        "last": row.head.run if row.head else "",
        "runs": row.runs,
        "expired": expired,
        "created_ms": row.created_ms,
        "updated_ms": row.updated_ms,
    }


@router.get("/sessions", response_model=SessionPage)
async def list_sessions(edge: EdgeOf, tenant: TenantOf, query: Annotated[PageQuery, QueryOf()]) -> Response:
    """List sessions, newest first."""
    rows = await edge.runtime.sessions(tenant=tenant, before=query.before, limit=query.limit)
    before = rows[-1].session if len(rows) == query.limit else ""
    return reply({"sessions": [row_view(row, expired=edge.runtime.is_expired(row)) for row in rows], "before": before})


@router.get("/sessions/{session}", response_model=SessionItem)
async def get_session(session: SessionId, edge: EdgeOf, tenant: TenantOf) -> Response:
    """Read a session."""
    row = await edge.runtime.session(session, tenant=tenant)
    return reply(row_view(row, expired=edge.runtime.is_expired(row)))


@router.get("/sessions/{session}/messages", response_model=MessagesModel)
async def get_messages(session: SessionId, edge: EdgeOf, tenant: TenantOf) -> Response:
    """Read a session's conversation as it stands."""
    await edge.runtime.session(session, tenant=tenant)
    return reply({"messages": await edge.runtime.messages(session, tenant=tenant)})
