"""What is remembered of users: listed, corrected, taken along and forgotten."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Path, Query
from pydantic import BaseModel, Field
from starlette.responses import Response

from stanchion.server.auth import Caller
from stanchion.server.body import Given, described, json_body
from stanchion.server.edge import CallerOf, EdgeOf, TenantOf, reply
from stanchion.server.models import Body, Name

router = APIRouter(tags=["memory"])

User = Annotated[str, Path(max_length=128, description="Whose memory it is: the user that runs are started for.")]
FactId = Annotated[str, Path(max_length=128, description="A version of a fact.")]
Kind = Literal["", "fact", "note", "episode", "procedure"]
Word = Annotated[str, Query(max_length=500)]
Millis = Annotated[int, Query(ge=0, le=1 << 53)]


class AddFact(Body):
    """A fact, written down by hand."""

    space: Name = Field(description="The agent's name, or the space that its Memory names.")
    attribute: str = Field(min_length=1, max_length=64, examples=["home city"])
    value: str = Field(min_length=1, max_length=2_000)
    subject: str = Field("user", min_length=1, max_length=64)
    from_ms: int = Field(0, ge=0, le=1 << 53, description="From when on it holds; now if it is left out.")
    to_ms: int = Field(0, ge=0, le=1 << 53, description="Until when; for ever if it is left out.")


class EditFact(Body):
    """The right value of a fact that was wrong."""

    value: str = Field(min_length=1, max_length=2_000)


class RetractFact(Body):
    """Nothing needs to be said."""


BODIES = (AddFact, EditFact, RetractFact)


class FactModel(BaseModel):
    """A version of a fact. Times are milliseconds since 1970 UTC; an end of 0 is open."""

    id: str
    user: str
    space: str
    kind: Literal["fact", "note", "episode", "procedure"]
    subject: str
    attribute: str
    value: str
    confidence: float
    trust: Literal["trusted", "user", "untrusted"] = Field(description="That of the text in which it stands.")
    source: str
    name: str
    secrecy: str
    run: str = Field(description="The run in which it was said.")
    place: str
    valid_from_ms: int
    valid_to_ms: int
    recorded_ms: int
    ended_ms: int = Field(description="When it was not believed any more.")
    why: Literal["", "superseded", "ended", "edited", "retracted", "counted"]
    replaced_by: str
    count: int = Field(description="Of a procedure: how often it worked.")


class FactsModel(BaseModel):
    """Facts."""

    facts: list[FactModel]


class RememberedModel(BaseModel):
    """That there is something of a user."""

    user: str
    space: str
    facts: int
    updated_ms: int


class RememberedUsersModel(BaseModel):
    """Who is remembered."""

    users: list[RememberedModel]


class ForgottenModel(BaseModel):
    """What was erased."""

    versions: int
    journals: bool = Field(description="Whether journals held recalled memory, which is erased as well.")


@router.get("/memory", response_model=RememberedUsersModel)
async def list_remembered(
    edge: EdgeOf,
    tenant: TenantOf,
    after: Annotated[str, Query(max_length=128, description="The user to go on from.")] = "",
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> Response:
    """List users of whom something is remembered, by name."""
    return reply({"users": await edge.runtime.memory.users(tenant=tenant, after=after, limit=limit)})


@router.get("/memory/{user}", response_model=FactsModel)
async def list_facts(
    user: User,
    edge: EdgeOf,
    tenant: TenantOf,
    space: Annotated[str, Query(max_length=128)] = "",
    kind: Kind = "",
    query: Word = "",
    as_of_ms: Millis = 0,
    known_at_ms: Millis = 0,
    history: bool = False,
    limit: Annotated[int, Query(ge=1, le=1_000_000)] = 1_000,
) -> Response:
    """List what is remembered of a user: what holds now; at `as_of_ms`; as known at `known_at_ms`; or with `history` all versions."""
    facts = await edge.runtime.memory.ls(
        user,
        tenant=tenant,
        space=space,
        kind=kind,
        query=query,
        as_of_ms=as_of_ms,
        known_at_ms=known_at_ms,
        history=history,
        limit=limit,
    )
    return reply({"facts": facts})


@router.post("/memory/{user}", status_code=201, response_model=FactModel, openapi_extra=described(AddFact))
async def add_fact(
    user: User,
    edge: EdgeOf,
    tenant: TenantOf,
    caller: CallerOf,
    given: Annotated[Given[AddFact], Depends(json_body(AddFact))],
) -> Response:
    """Write a fact down. It is trusted, and replaces what was known of the attribute from then on."""
    said = given.body.model_dump()
    return reply(await edge.runtime.memory.add(user=user, tenant=tenant, by=_by(caller), **said), 201)


@router.delete("/memory/{user}", response_model=ForgottenModel)
async def forget_user(user: User, edge: EdgeOf, tenant: TenantOf) -> Response:
    """Erase all that is remembered of a user, for ever. What the user said in conversations stays."""
    return reply(await edge.runtime.memory.forget(user, tenant=tenant))


@router.get("/memory/{user}/{fact}", response_model=FactsModel)
async def get_fact(user: User, fact: FactId, edge: EdgeOf, tenant: TenantOf) -> Response:
    """Read a version of a fact and all others about the same, oldest first."""
    return reply({"facts": await edge.runtime.memory.show(fact, user=user, tenant=tenant)})


@router.patch("/memory/{user}/{fact}", response_model=FactModel, openapi_extra=described(EditFact))
async def edit_fact(
    user: User,
    fact: FactId,
    edge: EdgeOf,
    tenant: TenantOf,
    caller: CallerOf,
    given: Annotated[Given[EditFact], Depends(json_body(EditFact))],
) -> Response:
    """Give a fact that was wrong its right value. The wrong one stays on record as what was believed."""
    memory = edge.runtime.memory
    return reply(await memory.edit(fact, given.body.value, user=user, tenant=tenant, by=_by(caller)))


@router.post(
    "/memory/{user}/{fact}/retract",
    response_model=FactsModel,
    openapi_extra=described(RetractFact, optional=True),
)
async def retract_fact(
    user: User,
    fact: FactId,
    edge: EdgeOf,
    tenant: TenantOf,
    _: Annotated[Given[RetractFact], Depends(json_body(RetractFact, optional=True))],
) -> Response:
    """Believe a fact no more. It stays on record as what was believed; to erase it, delete it."""
    memory = edge.runtime.memory
    await memory.retract(fact, user=user, tenant=tenant)
    return reply({"facts": await memory.show(fact, user=user, tenant=tenant)})


@router.delete("/memory/{user}/{fact}", response_model=ForgottenModel)
async def forget_fact(user: User, fact: FactId, edge: EdgeOf, tenant: TenantOf) -> Response:
    """Erase all versions about the same, for ever, and what journals hold of recalled memory."""
    return reply(await edge.runtime.memory.forget(user, id=fact, tenant=tenant))


def _by(caller: Caller) -> str:
    return caller.reviewer.name if caller.reviewer is not None else ""
