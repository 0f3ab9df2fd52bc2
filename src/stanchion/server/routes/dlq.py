"""Dead letters: runs that stand until a person acts, with what is known of them."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends
from fastapi import Query as QueryOf
from starlette.responses import Response

from stanchion.core.errors import Conflict
from stanchion.runtime.operating.letters import Letter
from stanchion.server.answers.common import AcceptedModel
from stanchion.server.answers.letters import LetterModel, LetterPage, ReplayedModel
from stanchion.server.body import Given, described, json_body
from stanchion.server.edge import EdgeOf, TenantOf, reply
from stanchion.server.models import Cancel, LettersQuery, Replay, Revive
from stanchion.server.routes.runs import RunId, accepted

router = APIRouter(prefix="/dlq", tags=["dlq"])


@router.get("", response_model=LetterPage)
async def list_letters(edge: EdgeOf, tenant: TenantOf, query: Annotated[LettersQuery, QueryOf()]) -> Response:
    """List runs that stand, newest first: dead letters, or with another `reason` (or `all`) the others as well."""
    reason = "" if query.reason == "all" else query.reason
    place = (tenant, query.before) if query.before else ("", "")
    found = await edge.runtime.parked(tenant=tenant, agent=query.agent, reason=reason, before=place, limit=query.limit)
    before = found[-1].run if len(found) == query.limit else ""
    return reply({"letters": [letter_view(letter) for letter in found], "before": before})


def letter_view(letter: Letter) -> dict[str, Any]:
    """Give a letter as a client sees it."""
    return {name: getattr(letter, name) for name in letter.__struct_fields__ if name != "tenant"}


@router.get("/{run}", response_model=LetterModel)
async def get_letter(run: RunId, edge: EdgeOf, tenant: TenantOf) -> Response:
    """Show a run that stands with its whole context. 409 if it does not stand (any more)."""
    view = await edge.runtime.letter(run, tenant=tenant)
    shown = {name: getattr(view, name) for name in view.__struct_fields__ if name != "letter"}
    shown["claims"] = [
        {"epoch": claim.epoch, "ended_ms": claim.ended_ms} for claim in view.claims
    ]  # workers: operator's
    return reply(letter_view(view.letter) | shown)


@router.post("/replay", status_code=202, response_model=ReplayedModel, openapi_extra=described(Replay))
async def replay_letters(
    edge: EdgeOf, tenant: TenantOf, given: Annotated[Given[Replay], Depends(json_body(Replay))]
) -> Response:
    """Set many runs going again: all that stand for a reason, of one agent if it is named; at most `limit` at a time."""
    body = given.body
    found = await edge.runtime.parked(tenant=tenant, agent=body.agent, reason=body.reason, limit=body.limit)
    replayed: list[str] = []
    for letter in found:
        try:
            await edge.runtime.revive(letter.run, by=body.by, tenant=tenant)
        except Conflict:  # somebody was faster
            continue
        replayed.append(letter.run)
    return reply({"runs": replayed, "more": len(found) == body.limit}, 202)


@router.post(
    "/{run}/replay", status_code=202, response_model=AcceptedModel, openapi_extra=described(Revive, optional=True)
)
async def replay_letter(
    run: RunId,
    edge: EdgeOf,
    tenant: TenantOf,
    given: Annotated[Given[Revive], Depends(json_body(Revive, optional=True))],
) -> Response:
    """Set a run going again, once what stopped it is mended. Its count of attempts starts anew."""
    await edge.runtime.revive(run, by=given.body.by, tenant=tenant)
    return accepted(run)


@router.post(
    "/{run}/drop", status_code=202, response_model=AcceptedModel, openapi_extra=described(Cancel, optional=True)
)
async def drop_letter(
    run: RunId,
    edge: EdgeOf,
    tenant: TenantOf,
    given: Annotated[Given[Cancel], Depends(json_body(Cancel, optional=True))],
) -> Response:
    """Give a run up: it is cancelled, and its last event says what was done and what is in doubt. 409: it does not stand."""
    await edge.runtime.letter(run, tenant=tenant)
    await edge.runtime.cancel(run, tenant=tenant, by=given.body.by, reason=given.body.reason)
    return accepted(run)
