"""What waits for a person, what was allowed, and why a call was let through, asked about or denied."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field


class PrecedentModel(BaseModel):
    """A call like one that waits, and what a person decided about it."""

    run: str
    call: str
    tool: str
    decision: Literal["approve", "edit", "reject"]
    by: str
    at_ms: int
    reason: str
    same: Literal["call", "destination"] = Field(description="The same arguments, or only the same destination.")


class WaitingModel(BaseModel):
    """A call that waits for a person."""

    call: str
    tool: str
    revision: int
    attempt: int = Field(description="The last attempt at it; 0: none.")
    kind: Literal["approval", "in_doubt"]
    why: str = Field(
        description="What speaks against it, a line each: first the values that nobody trusted said, and where they stand."
    )
    action: str = Field(description="What would be done, in a sentence.")
    undo: str = Field(description="Whether it can be undone.")
    arguments: Any = Field(description="Exactly: an object, or the text that the model wrote if it is none.")
    values: list[RowModel] = Field(description="Each value: what it means, its ground, and where it stands.")
    rule: str
    reason: str
    rules: list[ReasonModel] = Field(description="All that asked.")
    claim: str = Field(description="What the model said when it proposed the call: its word and nothing more.")
    tier: str
    batch: str = Field(description="The calls of one step that wait share it: they are one question.")
    quorum: int = Field(description="How many people must approve.")
    approvals: list[str] = Field(description="Who has.")
    decisions: list[str] = Field(description="What may be decided on it.")
    policy: str = Field(description="Digest of the policies under which it was judged.")
    asked_ms: int
    expires_ms: int
    similar: list[PrecedentModel] = Field([], description="What was decided about calls like it of late.")


class ApprovalItem(WaitingModel):
    """A call that waits, and whose it is."""

    run: str
    session: str
    user: str
    agent: str


class ApprovalPage(BaseModel):
    """Calls that wait, of the newest run first."""

    approvals: list[ApprovalItem]
    before: str = Field(description='The run to go on from, for the next page; "": there is none.')


class GrantItem(BaseModel):
    """What a person allowed for the rest of a session."""

    id: str
    tools: list[str]
    kind: str = Field(examples=["email"])
    value: str
    by: str
    run: str = Field(description="In which it was allowed.")
    at_ms: int


class RevokedModel(BaseModel):
    """What was taken back."""

    id: str


class GrantsModel(BaseModel):
    """What people allowed in a session."""

    grants: list[GrantItem]


class OriginModel(BaseModel):
    """A place where a value stands."""

    source: Literal["developer", "user", "tool", "document", "memory", "model", "reviewer", "runtime"]
    trusted: bool = Field(description="It can ground a value.")
    around: str = Field(description="The text around it there.")
    tool: str = Field(description="Whose answer it is.")
    call: str = Field(description="`run/call` of that answer.")
    path: str = Field(description="Of the value in that answer.")
    message: int = Field(description="Number of the message; -1: the agent's own instructions.")


class RowModel(BaseModel):
    """A value of a call."""

    path: str = Field(examples=["recipients.0", "body[12:40]"])
    value: Any
    role: Literal["destination", "bound", "content"]
    kind: str
    ground: Literal["user", "configured", "field", "memory", "allowed", "reviewer", "free", "none", ""]
    origins: list[OriginModel]
    note: str = Field(description="The ground in words.")


class ReasonModel(BaseModel):
    """What one rule has against a call."""

    action: Literal["allow", "ask", "deny"]
    rule: str
    text: str = ""
    values: list[str] = Field([], description="Paths of the values that it is about.")
    expires_s: float = 0.0
    quorum: int = 0


class JudgementModel(BaseModel):
    """A verdict, or a person's decision."""

    seq: int
    at_ms: int
    revision: int
    action: str
    rule: str
    reason: str
    by: str
    policy: str


class ExplanationModel(BaseModel):
    """Why a call was allowed, asked about or denied."""

    run: str
    call: str
    tool: str
    tier: str
    revision: int
    arguments: dict[str, Any] | None = Field(description="null: they cannot be read any more.")
    action: Literal["allow", "ask", "deny"]
    rule: str
    reason: str
    values: list[str] = Field(description="Paths of the values that made it ask or deny.")
    policy: str = Field(description="Digest of the policies under which it was judged.")
    quorum: int
    rows: list[RowModel]
    reasons: list[ReasonModel]
    history: list[JudgementModel]
    replay: Literal["same", "differs", "none"] = Field(
        description="Whether judging again gives what is in the journal; none: it was not the guard that judged."
    )
    note: str
