"""The tools that the loop answers itself, or has a model answer: listed and checked like others. No tool of an author's has their names.

read_result     read on in a result that was too long to be shown whole
declare_plan    announce effects before text of others is read            (GuardRules.freeze)
extract         have typed values taken out of text that is not shown     (GuardRules.quarantine)
use_skill       read the instructions for a task                          (Agent.skills)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from stanchion.core.bundle import DECLARE_PLAN, EXTRACT, READ_RESULT, USE_SKILL, ToolSpec
from stanchion.core.quarantine import MAX_FIELDS, FieldType
from stanchion.toolbox.arguments import Arguments
from stanchion.toolbox.signature import EMPTY, Parameter

EXTRACT_TIMEOUT_S = 120.0


class AskedField(BaseModel):
    """What a value must be."""

    model_config = ConfigDict(extra="forbid")

    type: FieldType
    options: Annotated[tuple[str, ...], Field(description="Of an enum: what it may be.")] = ()


@dataclass(frozen=True, slots=True)
class BuiltIn:
    """A tool of ours, as it is shown and checked."""

    spec: ToolSpec
    arguments: Arguments


def built_in(*, freeze: bool, quarantine: bool, skills: bool = False) -> Mapping[str, BuiltIn]:
    """Make the tools that an agent has beside its own."""
    made = [_read_result()]
    if freeze:
        made.append(_declare_plan())
    if quarantine:
        made.append(_extract())
    if skills:
        made.append(_use_skill())
    return {one.spec.name: one for one in made}


def _read_result() -> BuiltIn:
    named = "The result's name, as the note at its cut says it."
    arguments = Arguments(
        READ_RESULT,
        (
            Parameter("result", Annotated[str, Field(description=named)], EMPTY, "argument"),
            Parameter("offset", Annotated[int, Field(ge=0, description="Character to read on from.")], 0, "argument"),
        ),
        {},
        strict_mode=False,
    )
    described = "Read on in a result that was too long to be shown whole."
    spec = ToolSpec(READ_RESULT, described, arguments.schema, "read", repeatable=True)
    return BuiltIn(spec, arguments)


def _declare_plan() -> BuiltIn:
    named = "Names of the tools that change something and that you may need. Reads need not be named."
    arguments = Arguments(
        DECLARE_PLAN,
        (Parameter("tools", Annotated[list[str], Field(description=named, max_length=200)], EMPTY, "argument"),),
        {},
        strict_mode=False,
    )
    described = (
        "Say by which tools you mean to change something, before you read anything that others wrote (messages, pages, files). "
        "Call this first, with all that the user's task may need. Afterwards it cannot be changed, and a person is asked about "
        "each change that you did not announce."
    )
    return BuiltIn(ToolSpec(DECLARE_PLAN, described, arguments.schema, "read"), arguments)


def _use_skill() -> BuiltIn:
    """Its schema names no skill: one that comes or goes leaves the tool, and so the runs under way, as they are."""
    named = "The skill's name, as it is listed."
    arguments = Arguments(
        USE_SKILL,
        (Parameter("name", Annotated[str, Field(description=named)], EMPTY, "argument"),),
        {},
        strict_mode=False,
    )
    described = "Read the instructions of a skill that is listed, before you do what it is about."
    return BuiltIn(ToolSpec(USE_SKILL, described, arguments.schema, "read"), arguments)


def _extract() -> BuiltIn:
    fields = (
        f"Name -> type, at most {MAX_FIELDS}. You are told booleans, integers, numbers, dates and enums (with options); of an id "
        "(an address, a number, a name without spaces) or a string you get a reference."
    )
    arguments = Arguments(
        EXTRACT,
        (
            Parameter("ref", Annotated[str, Field(description='The result, as in "r3".')], EMPTY, "argument"),
            Parameter("question", Annotated[str, Field(description="What to look for in it.")], EMPTY, "argument"),
            Parameter("fields", Annotated[dict[str, AskedField], Field(description=fields)], EMPTY, "argument"),
            Parameter("offset", Annotated[int, Field(ge=0, description="Character to read from.")], 0, "argument"),
        ),
        {},
        strict_mode=False,
    )
    described = (
        "Have values taken out of a result that you are not shown. Another model reads it and gives just the values that you ask for. "
        "Write a reference like {{r3.sender}} in a call or in your answer where the value belongs; it is filled in when you are done. "
        "You never see the text behind a reference, so ask for what you must decide on as a boolean, an enum, a number or a date."
    )
    spec = ToolSpec(EXTRACT, described, arguments.schema, "read", timeout_s=EXTRACT_TIMEOUT_S)
    return BuiltIn(spec, arguments)
