"""Runs one tool in a registry of its own, with the types that the tests of calls share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
from pydantic import BaseModel

from stanchion.toolbox.answer import (
    Answer,
    Failure,
    ToolContext,
)
from stanchion.toolbox.function import Tool
from stanchion.toolbox.registry import Registry

CONTEXT = ToolContext(run="run_1", session="s", user="u", tenant="acme", call="c1", attempt=2, key="k1")


async def call(made: Tool[..., Any], arguments: bytes = b"{}", deps: dict[type, Any] | None = None) -> Answer | Failure:
    """Run one tool in a registry of its own."""
    async with Registry([made], deps) as registry:
        return await registry.run(made.name, arguments, CONTEXT)


def failed(outcome: Answer | Failure) -> Failure:
    assert isinstance(outcome, Failure), outcome
    return outcome


class Refund(BaseModel):
    order: str
    cents: int


@dataclass
class Row:
    a: int


class Line(msgspec.Struct):
    sku: str


class Db:
    def __init__(self, name: str = "db") -> None:
        self.name = name
