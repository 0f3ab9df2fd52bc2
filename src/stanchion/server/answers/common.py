"""What every route may answer: errors, that something was accepted, and how the server is."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field


class ErrorDetail(BaseModel):
    """What went wrong."""

    code: str = Field(examples=["not_found"])
    message: str
    field: str = Field(description='Path of the offending field ("limits.usd"), or "".')
    retryable: bool
    id: str = Field("", description="Where the fault is ours: what the server's log has it under.")


class ErrorBody(BaseModel):
    """An error."""

    error: ErrorDetail


class AcceptedModel(BaseModel):
    """What was asked is durable, and the run will take it in."""

    run: str


class HealthModel(BaseModel):
    """The process lives."""

    status: Literal["ok"]
    version: str


class ReadyModel(BaseModel):
    """The server takes new runs."""

    ready: Literal[True]
