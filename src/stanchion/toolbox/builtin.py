"""The tools that the loop answers itself, or has a model answer: listed and checked like others. No tool of an author's has their names.

read_result     read on in a result that was too long to be shown whole
declare_plan    announce effects before text of others is read            (GuardRules.freeze)
extract         have typed values taken out of text that is not shown     (GuardRules.quarantine)
use_skill       read the instructions for a task                          (Agent.skills)
find_tools      look for tools that are not shown                         (Agent.search)
call_tool       call one of them; the loop never sees a call of it        (Agent.search)
read_history    read what was said before and is in the prompt no more    (Agent.compaction)
recall_memory, remember_fact, write_note                                  (Agent.memory)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from stanchion.core.bundle import (
    CALL_TOOL,
    DECLARE_PLAN,
    EXTRACT,
    FIND_TOOLS,
    NOTE,
    READ_HISTORY,
    READ_RESULT,
    RECALL,
    REMEMBER,
    USE_SKILL,
    ToolSpec,
)
from stanchion.core.fact import MAX_NAME_CHARS, MAX_VALUE_CHARS
from stanchion.core.loading import CALLED_BY_FORM
from stanchion.core.quarantine import MAX_FIELDS, FieldType
from stanchion.core.remembered import MemoryRules
from stanchion.toolbox.arguments import Arguments
from stanchion.toolbox.signature import EMPTY, Parameter

EXTRACT_TIMEOUT_S = 120.0
_GROUPS_CHARS = 600
"""Of the groups that are named in the prompt."""


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


def built_in(
    *,
    freeze: bool,
    quarantine: bool,
    skills: bool = False,
    search: bool = False,
    groups: Sequence[str] = (),
    history: bool = False,
    memory: MemoryRules | None = None,
) -> Mapping[str, BuiltIn]:
    """Make the tools that an agent has beside its own. `groups`: the groups of those, for `search` to name."""
    made = [_read_result()]
    if freeze:
        made.append(_declare_plan())
    if quarantine:
        made.append(_extract())
    if skills:
        made.append(_use_skill())
    if search:
        made += [_find_tools(groups), _call_tool()]
    if history:
        made.append(_read_history())
    if memory is not None:
        made += [_recall()] if memory.recall else []
        made += [_remember()] if memory.remember else []
        made += [_note()] if memory.notes else []
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


def _find_tools(groups: Sequence[str]) -> BuiltIn:
    """How many tools there are is not said, nor which: one that comes or goes changes no byte of the prompt."""
    named = 'What is to be done, and to what, in a few words ("refund a card payment"); or the name of a tool, or of a group.'
    arguments = Arguments(
        FIND_TOOLS,
        (Parameter("query", Annotated[str, Field(description=named, max_length=1_000)], EMPTY, "argument"),),
        {},
        strict_mode=False,
    )
    widest = list(dict.fromkeys(group.partition("/")[0] for group in groups if group))
    said = ", ".join(sorted(widest))
    if len(said) > _GROUPS_CHARS:
        said = said[: said.rindex(",", 0, _GROUPS_CHARS)] + ", .."
    described = f"Find tools that you have and are not listed{CALLED_BY_FORM}. Look here before you say that you cannot do something."
    described += f" Groups, to be listed by name: {said}." if said else ""
    return BuiltIn(ToolSpec(FIND_TOOLS, described, arguments.schema, "read"), arguments)


def _call_tool() -> BuiltIn:
    named = f"The tool's name, as {FIND_TOOLS} gave it."
    fits = "What the tool takes: an object that fits its parameters."
    arguments = Arguments(
        CALL_TOOL,
        (
            Parameter("name", Annotated[str, Field(description=named)], EMPTY, "argument"),
            Parameter("arguments", Annotated[dict[str, Any], Field(description=fits)], {}, "argument"),
        ),
        {},
        strict_mode=False,
    )
    described = f"Call a tool that {FIND_TOOLS} gave you."
    return BuiltIn(ToolSpec(CALL_TOOL, described, arguments.schema, "read"), arguments)


def _read_history() -> BuiltIn:
    query = "What you look for, in words that stand in it: names, ids, amounts, dates, or the question itself."
    turns = 'Instead: which turns to read, as in "12" or "12-14".'
    arguments = Arguments(
        READ_HISTORY,
        (
            Parameter("query", Annotated[str, Field(description=query)], "", "argument"),
            Parameter("turns", Annotated[str, Field(description=turns)], "", "argument"),
            Parameter("page", Annotated[int, Field(ge=1, description="Further pages of the same.")], 1, "argument"),
        ),
        {},
        strict_mode=False,
    )
    described = (
        "Find what was said or read earlier in this conversation and was left out of your prompt to save room: what the user said, "
        "what you did, what tools answered. Use it before you ask the user again or call a tool again for the same."
    )
    return BuiltIn(ToolSpec(READ_HISTORY, described, arguments.schema, "read", repeatable=True), arguments)


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


_DATE = r"^(\d{4}-\d{2}-\d{2})?$"


def _recall() -> BuiltIn:
    asked = "What you want to know, in words that may stand in it."
    as_of = 'A date (2026-03-31): what held then. "": what holds now.'
    known_at = 'A date: what was known then. "": what is known now.'
    arguments = Arguments(
        RECALL,
        (
            Parameter(
                "query", Annotated[str, Field(description=asked, min_length=1, max_length=500)], EMPTY, "argument"
            ),
            Parameter("as_of", Annotated[str, Field(description=as_of, pattern=_DATE)], "", "argument"),
            Parameter("known_at", Annotated[str, Field(description=known_at, pattern=_DATE)], "", "argument"),
        ),
        {},
        strict_mode=False,
    )
    described = "Search what is remembered of this user from earlier conversations: facts, what was done before, notes."
    return BuiltIn(ToolSpec(RECALL, described, arguments.schema, "read"), arguments)


def _remember() -> BuiltIn:
    name = 'Of few plain words, as in "home city".'
    value = "In the user's own words."
    since = 'A date (2026-03-31) from when on it holds. "": now.'
    arguments = Arguments(
        REMEMBER,
        (
            Parameter(
                "attribute", Annotated[str, Field(description=name, max_length=MAX_NAME_CHARS)], EMPTY, "argument"
            ),
            Parameter("value", Annotated[str, Field(description=value, max_length=MAX_VALUE_CHARS)], EMPTY, "argument"),
            Parameter("subject", Annotated[str, Field(max_length=MAX_NAME_CHARS)], "user", "argument"),
            Parameter("since", Annotated[str, Field(description=since, pattern=_DATE)], "", "argument"),
        ),
        {},
        strict_mode=False,
    )
    described = (
        "Remember a fact about this user for later conversations, when the user asks for it or says something lasting. It replaces "
        "what was known of the same attribute."
    )
    return BuiltIn(ToolSpec(REMEMBER, described, arguments.schema, "write", keyed=True), arguments)


def _note() -> BuiltIn:
    text = "What to note. An empty text takes the note away."
    arguments = Arguments(
        NOTE,
        (
            Parameter("name", Annotated[str, Field(min_length=1, max_length=MAX_NAME_CHARS)], EMPTY, "argument"),
            Parameter("text", Annotated[str, Field(description=text, max_length=MAX_VALUE_CHARS)], EMPTY, "argument"),
        ),
        {},
        strict_mode=False,
    )
    described = "Write a note for yourself, which you have again in later conversations with this user. One of its name is replaced."
    return BuiltIn(ToolSpec(NOTE, described, arguments.schema, "write", keyed=True), arguments)
