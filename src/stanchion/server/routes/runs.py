"""Runs that there are: read them, follow them, and say something to them."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Path
from fastapi import Query as QueryOf
from starlette.requests import Request
from starlette.responses import Response

from stanchion.core.errors import InputError, NotFound
from stanchion.core.money import format_usd
from stanchion.runtime import RunRow, entry_json
from stanchion.server.answers.common import AcceptedModel
from stanchion.server.answers.people import ExplanationModel
from stanchion.server.answers.runs import EventPage, RunModel, RunPage
from stanchion.server.body import Given, described, json_body
from stanchion.server.edge import Edge, EdgeOf, TenantOf, reply, reply_bytes
from stanchion.server.models import MAX_SEQ, Cancel, EventsQuery, Revive, RunsQuery, Say, said

router = APIRouter(tags=["runs"])

RunId = Annotated[str, Path(max_length=200)]
_EVENTS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The events, as a stream or as a page.",
        "content": {
            "text/event-stream": {
                "schema": {
                    "type": "string",
                    "description": "`id` is the seq, `event` the event's type, `data` the entry as JSON; `delta` without an "
                    "id is text in the making; `end` is the last, with a reason: finished, draining or error.",
                }
            }
        },
    }
}


@router.get("/runs", response_model=RunPage)
async def list_runs(edge: EdgeOf, tenant: TenantOf, query: Annotated[RunsQuery, QueryOf()]) -> Response:
    """List runs, newest first."""
    rows = await edge.runtime.runs(tenant=tenant, **query.model_dump())
    before = rows[-1].run if len(rows) == query.limit else ""
    return reply({"runs": [row_view(row) for row in rows], "before": before})


def row_view(row: RunRow) -> dict[str, Any]:
    """Give a run's row without what is the engine's own (leases, epochs, hashes)."""
    return {
        "run": row.run,
        "session": row.session,
        "agent": row.agent,
        "user": row.user,
        "status": row.status,
        "outcome": row.outcome if row.status == "ended" else "",
        "parked": row.outcome if row.status == "parked" else "",
        "seq": row.seq,
        "usd": format_usd(row.cost),
        "attempts": row.attempts,
        "parent": row.parent,
        "root": row.root,
        "created_ms": row.created_ms,
        "updated_ms": row.updated_ms,
    }


@router.get("/runs/{run}", response_model=RunModel)
async def get_run(run: RunId, edge: EdgeOf, tenant: TenantOf) -> Response:
    """Read a run as it stands: its answer or the best so far, what it cost, and what waits for a person."""
    return reply(await edge.runtime.view(run, tenant=tenant))


@router.get("/runs/{run}/events", response_model=EventPage, responses=_EVENTS)
async def get_events(
    request: Request,
    run: RunId,
    edge: EdgeOf,
    tenant: TenantOf,
    query: Annotated[EventsQuery, QueryOf()],
    last_event_id: Annotated[
        str | None, Header(description="The id of the last event that was received; goes before `after`.")
    ] = None,
) -> Response:
    """Follow a run: its events from any seq on, without a gap, then those to come.

    A stream by default; a page of JSON with `Accept: application/json` or `format=json`. A run that waits keeps its
    stream open, with a comment every 15 s. Deltas end in a `model_call_finished` with the whole text, or in a
    `model_call_failed`, which voids them. Attach again with the last id that came: nothing is missed or repeated.
    """
    after = query.after if last_event_id is None else parse_seq(last_event_id)
    row = await edge.runtime.store.run(tenant, run)
    if row is None:
        raise NotFound(f"there is no run {run!r}")
    if after > row.seq:
        field = "after" if last_event_id is None else "Last-Event-ID"
        raise InputError(f"run {run} has only {row.seq} events, not {after}", field=field, code="bad_query")
    if wants_page(query, request.headers.get("accept", "")):
        return await page(edge, run, tenant=tenant, after=after, limit=query.limit)
    edge.check_room()
    over = row.status == "ended" and after == row.seq
    return edge.stream(run, tenant=tenant, after=after, deltas=query.deltas, over=over)


def parse_seq(text: str) -> int:
    """Read a `Last-Event-ID`; an empty one is the beginning. Raises `InputError`."""
    if not text:
        return 0
    if not (text.isascii() and text.isdigit()) or len(text) > 16 or int(text) > MAX_SEQ:
        raise InputError(f"{text[:40]!r} is not the id of an event", field="Last-Event-ID", code="bad_query")
    return int(text)


def wants_page(query: EventsQuery, accept: str) -> bool:
    """Decide between page and stream: what the query says, or else the header."""
    if query.format:
        return query.format == "json"
    return "application/json" in accept and "text/event-stream" not in accept


async def page(edge: Edge, run: str, *, tenant: str, after: int, limit: int) -> Response:
    """Answer with a page of events."""
    entries = await edge.runtime.store.read(tenant, run, after=after, limit=limit + 1)
    shown = entries[:limit]
    last = shown[-1].seq if shown else after
    more = b"true" if len(entries) > limit else b"false"
    body = b'{"events":[%b],"after":%d,"more":%b}' % (b",".join(map(entry_json, shown)), last, more)
    return reply_bytes(body)


@router.get("/runs/{run}/calls/{call}/explanation", response_model=ExplanationModel)
async def explain_call(
    run: RunId, call: Annotated[str, Path(max_length=40)], edge: EdgeOf, tenant: TenantOf
) -> Response:
    """Say why a call was allowed, asked about or denied: each value, its ground, and where it came from. 404: not judged."""
    return reply(await edge.runtime.explain(run, call, tenant=tenant))


# --- saying something to a run -------------------------------------------------------------------------------------------


def accepted(run: str) -> Response:
    """Answer that a message is in the run's inbox."""
    return reply({"run": run}, 202, {"location": f"/v1/runs/{run}"})


@router.post(
    "/runs/{run}/cancel", status_code=202, response_model=AcceptedModel, openapi_extra=described(Cancel, optional=True)
)
async def cancel_run(
    run: RunId,
    edge: EdgeOf,
    tenant: TenantOf,
    given: Annotated[Given[Cancel], Depends(json_body(Cancel, optional=True))],
) -> Response:
    """Stop a run: nothing new begins; what was done and what is in doubt stands in its last event. 409 if it is over."""
    await edge.runtime.cancel(run, tenant=tenant, by=given.body.by, reason=given.body.reason)
    return accepted(run)


@router.post("/runs/{run}/messages", status_code=202, response_model=AcceptedModel, openapi_extra=described(Say))
async def send_message(
    run: RunId,
    edge: EdgeOf,
    tenant: TenantOf,
    given: Annotated[Given[Say], Depends(json_body(Say))],
    idempotency_key: Annotated[
        str | None,
        Header(
            max_length=255,
            pattern="^[!-~]+$",
            description="The same key and body is said once; the same key with another body is 422.",
        ),
    ] = None,
) -> Response:
    """Say something more to a live run. 409 if it is over: start another in its session."""
    await edge.runtime.send(
        run, said(given.body.input), by=given.body.by, tenant=tenant, idempotency_key=idempotency_key or ""
    )
    return accepted(run)


@router.post(
    "/runs/{run}/revive", status_code=202, response_model=AcceptedModel, openapi_extra=described(Revive, optional=True)
)
async def revive_run(
    run: RunId,
    edge: EdgeOf,
    tenant: TenantOf,
    given: Annotated[Given[Revive], Depends(json_body(Revive, optional=True))],
) -> Response:
    """Set a parked run going again, once what parked it was mended."""
    await edge.runtime.revive(run, by=given.body.by, tenant=tenant)
    return accepted(run)
