"""Dead letters: runs that stand until a person acts."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field


class LetterItem(BaseModel):
    """A run that stands until a person acts."""

    run: str
    session: str
    user: str
    agent: str
    reason: str = Field(examples=["dead_letter", "bundle_changed", "agent_missing"])
    attempts: int = Field(description="Claims without progress until it was parked.")
    seq: int
    usd: str
    created_ms: int
    since_ms: int
    error: str = Field(description="The last thing that went wrong in it.")


class LetterPage(BaseModel):
    """A page of runs that stand, newest first."""

    letters: list[LetterItem]
    before: str = Field(description='Give it as `before` for the next page; "": this is the last one.')


class VainClaimModel(BaseModel):
    """A claim that made no progress."""

    epoch: int
    ended_ms: int


class OpenCallModel(BaseModel):
    """A call that is not settled."""

    call: str
    tool: str
    phase: str
    attempt: int
    epoch: int
    in_doubt: bool


class LetterModel(LetterItem):
    """A run that stands, with its whole context."""

    why: str
    claims: list[VainClaimModel]
    calls: list[OpenCallModel]
    events: list[dict[str, Any]] = Field(description="The last events.")
    input: str


class ReplayedModel(BaseModel):
    """Runs that were set going again."""

    runs: list[str]
    more: bool = Field(description="There may be more; call again.")
