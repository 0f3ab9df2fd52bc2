"""What waits for a person: list it, decide on it; and what was allowed for a session, to be seen and taken back."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Path
from fastapi import Query as QueryOf
from starlette.requests import Request
from starlette.responses import Response

from stanchion.runtime import Approval, Decision
from stanchion.server.answers.common import AcceptedModel
from stanchion.server.answers.people import ApprovalPage, GrantsModel, RevokedModel
from stanchion.server.body import REFERENCE, Given, check, check_type, digest_of, parse, read_body
from stanchion.server.edge import CallerOf, EdgeOf, TenantOf, reply
from stanchion.server.models import ApprovalsQuery, Decide, DecideAll

router = APIRouter(tags=["approvals"])

RunId = Annotated[str, Path(max_length=200)]
SessionId = Annotated[str, Path(max_length=200)]
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {"oneOf": [{"$ref": REFERENCE.format(model=name)} for name in ("Decide", "DecideAll")]}
            }
        },
    }
}


async def decisions_of(request: Request) -> Given[DecideAll]:
    """Read one decision, or a list of them."""
    raw = await read_body(request, request.app.state.edge.settings)
    check_type(request)
    document = parse(raw)
    digest = digest_of(document)
    if "decisions" in document:
        return Given(check(DecideAll, document), digest)
    return Given(DecideAll.model_construct(decisions=[check(Decide, document)]), digest)


@router.get("/approvals", response_model=ApprovalPage)
async def list_approvals(edge: EdgeOf, tenant: TenantOf, query: Annotated[ApprovalsQuery, QueryOf()]) -> Response:
    """List the calls that wait for a person in all runs, of the newest run first.

    `why` is what speaks against a call. A page holds the calls of whole runs: with filters it may be short, even empty, and
    still have a `before` to go on from. `similar` is left out here; `GET /v1/runs/{run}` has it.
    """
    found, before = await edge.runtime.approvals(tenant=tenant, **query.model_dump())
    return reply({"approvals": [approval_view(each) for each in found], "before": before})


def approval_view(approval: Approval) -> dict[str, Any]:
    """Give a call that waits, and whose it is, as one object."""
    whose = {name: getattr(approval, name) for name in ("run", "session", "user", "agent")}
    shown: dict[str, Any] = msgspec.to_builtins(approval.waiting)
    shown.pop("similar", None)
    return whose | shown


@router.post("/runs/{run}/decisions", status_code=202, response_model=AcceptedModel, openapi_extra=_BODY)
async def decide_call(
    run: RunId, edge: EdgeOf, caller: CallerOf, given: Annotated[Given[DecideAll], Depends(decisions_of)]
) -> Response:
    """Decide on a call that waits for a person, or on several at once (`decisions`): all are taken, or none.

    Give the `revision`, `attempt` and `policy` you were shown: you decide on those. 404: no such call waits. 409: decided
    already, expired, another revision or attempt, or not a decision for what is asked. 403: beyond what your key may approve.
    """
    decisions = [Decision(**one.model_dump()) for one in given.body.decisions]
    await edge.runtime.decide_all(run, decisions, tenant=caller.tenant, reviewer=caller.reviewer)
    return reply({"run": run}, 202, {"location": f"/v1/runs/{run}"})


@router.get("/sessions/{session}/grants", response_model=GrantsModel)
async def list_grants(session: SessionId, edge: EdgeOf, tenant: TenantOf) -> Response:
    """List what people allowed for the rest of a session and did not take back."""
    return reply({"grants": await edge.runtime.grants(session, tenant=tenant)})


@router.delete("/sessions/{session}/grants/{grant}", response_model=RevokedModel)
async def revoke_grant(
    session: SessionId, grant: Annotated[str, Path(max_length=200)], edge: EdgeOf, caller: CallerOf
) -> Response:
    """Take back what was allowed in a session: calls that are judged from now on wait again."""
    by = caller.reviewer.name if caller.reviewer else ""
    await edge.runtime.revoke_grant(session, grant, by=by, tenant=caller.tenant)
    return reply({"id": grant})
