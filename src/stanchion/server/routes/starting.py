"""`POST /v1/runs`: start a run, and answer at once, when it ended, or with its events."""

from __future__ import annotations

import asyncio
import re
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header
from starlette.requests import Request
from starlette.responses import Response

from stanchion.agent import Limits
from stanchion.core.errors import InputError, StanchionError
from stanchion.runtime import Callback, RunView, Started
from stanchion.server.answers.runs import RunModel, StartedModel
from stanchion.server.body import Given, described, json_body
from stanchion.server.edge import Edge, EdgeOf, TenantOf, reply
from stanchion.server.models import LimitsBody, StartRun, said

router = APIRouter(tags=["runs"])

_PREFERRED_WAIT = re.compile(r"\bwait\s*=\s*\"?([0-9]{1,6})\b")
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "model": RunModel,
        "description": "wait: the run ended. stream: its events. submit: the run of an earlier request under this key.",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    },
    202: {"model": StartedModel, "description": "Accepted. wait: the run as it stands, which has not ended."},
}


@router.post(
    "/runs", status_code=202, openapi_extra=described(StartRun), responses=_RESPONSES, response_model=StartedModel
)
async def start_run(
    request: Request,
    edge: EdgeOf,
    tenant: TenantOf,
    given: Annotated[Given[StartRun], Depends(json_body(StartRun))],
    idempotency_key: Annotated[
        str | None,
        Header(
            max_length=255,
            pattern="^[!-~]+$",
            description="The same key and body is the same run, live or ended; the same key with another body is 422.",
        ),
    ] = None,
) -> Response:
    """Start a run of an agent.

    How it is answered: `mode` in the body, or else `Accept: text/event-stream` (stream), `Prefer: wait=30` (wait). A run
    goes on whatever becomes of the request: a client that went away finds it under its `Location`.
    """
    body = given.body
    mode, wait_s = delivery(body, request, edge)
    if mode == "stream":
        edge.check_room()
    started = await start(edge, tenant, given, idempotency_key or "")
    headers = {"location": f"/v1/runs/{started.run}"}
    match mode:
        case "stream":
            return edge.stream(started.run, tenant=tenant, headers=headers)
        case "wait":
            view = await wait(edge, request, started.run, tenant=tenant, timeout_s=wait_s)
            return reply(view, 200 if view.status == "ended" else 202, headers)
        case _:
            return reply(started, 200 if started.existing else 202, headers)


async def start(edge: Edge, tenant: str, given: Given[StartRun], key: str) -> Started:
    """Start the run that a body asks for."""
    body = given.body
    try:
        return await edge.runtime.start(
            body.agent,
            said(body.input),
            tenant=tenant,
            session=body.session,
            user=body.user,
            limits=limits_of(body.limits),
            idempotency_key=key,
            idempotency_digest=given.digest if key else "",
            if_busy=body.if_busy,
            dry_run=body.dry_run,
            priority=body.priority,
            batch_api=body.batch_api,
            grants=None if body.grants is None else [grant.model_dump() for grant in body.grants],
            task=body.task,
            step=body.step,
            webhook=Callback(body.webhook.url, tuple(body.webhook.events)) if body.webhook else None,
            deadline_ms=int(body.deadline.timestamp() * 1000) if body.deadline else 0,
        )
    except InputError as error:
        if error.field == "deadline_ms":  # the runtime's name for it
            raise InputError("must lie in the future", field="deadline") from None
        raise


def delivery(body: StartRun, request: Request, edge: Edge) -> tuple[str, float]:
    """Find how the client wants its answer, and how long it would wait (seconds)."""
    settings = edge.settings
    preferred = _PREFERRED_WAIT.search(request.headers.get("prefer", "").lower())
    wait_s = body.wait_s or (float(preferred[1]) if preferred else settings.wait_s)
    if body.wait_s and body.wait_s > settings.max_wait_s:
        raise InputError(f"at most {settings.max_wait_s:g} s", field="wait_s")
    if body.wait_s and body.mode not in (None, "wait"):
        raise InputError(f'goes with mode "wait", not {body.mode!r}', field="wait_s")
    if body.mode is not None:
        mode = body.mode
    elif body.wait_s or preferred:
        mode = "wait"
    else:
        mode = "stream" if "text/event-stream" in request.headers.get("accept", "") else "submit"
    return mode, min(wait_s, settings.max_wait_s)


def limits_of(body: LimitsBody | None) -> Limits | None:
    """Give limits as the runtime takes them."""
    if body is None:
        return None
    return Limits(
        usd=body.usd,
        turns=body.turns,
        tool_calls=body.tool_calls,
        tool_calls_per_turn=body.tool_calls_per_turn,
        input_tokens=body.input_tokens,
        output_tokens=body.output_tokens,
        wall_s=body.wall_s,
        stop_early=body.stop_early,
    )


async def wait(edge: Edge, request: Request, run: str, *, tenant: str, timeout_s: float) -> RunView:
    """Wait until a run ends or needs a person, the time is over, the client is gone, or the server stops."""
    waiting = asyncio.create_task(edge.runtime.wait(run, tenant=tenant, timeout_s=timeout_s))
    others = [asyncio.create_task(edge.draining.wait()), asyncio.create_task(_gone(request))]
    try:
        await asyncio.wait([waiting, *others], return_when=asyncio.FIRST_COMPLETED)
        if waiting.done():
            try:
                return waiting.result()
            except StanchionError as error:
                if error.code != "draining":
                    raise
        return await edge.runtime.view(run, tenant=tenant)
    finally:
        for task in (waiting, *others):
            task.cancel()
        await asyncio.gather(waiting, *others, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
