"""Found tools where a provider loads them: which do, what is read out of a search's answer, and what the list says."""

from __future__ import annotations

import msgspec
import pytest

from stanchion.core.bundle import CALL_TOOL, FIND_TOOLS, ToolSpec
from stanchion.core.catalogue import disclosure
from stanchion.core.loading import CALLED_BY_FORM, FOUND, disclosed, found_in, loads_tools, references, without_form
from stanchion.core.message import Label, Message, ToolResult, ToolSchema

REFUND = ToolSchema("refund", "Give money back.", {"type": "object", "properties": {"order": {"type": "string"}}})
CANCEL = ToolSchema("cancel", "Call it off.", {"type": "object", "properties": {}})


def spelled(tool: ToolSchema) -> str:
    """The line that a search answers with."""
    return disclosure(ToolSpec(tool.name, tool.description, tool.parameters, "read"))


def answer(*lines: str, label: Label = FOUND) -> ToolResult:
    """What `find_tools` answers."""
    return ToolResult("c", FIND_TOOLS, "\n".join(lines), label)


@pytest.mark.parametrize(
    ("model", "loads"),
    [
        ("claude-sonnet-4-5", True),
        ("claude-sonnet-4-6-20260217", True),
        ("claude-opus-4-5-20251101", True),
        ("claude-haiku-4-5-20251001", True),
        ("claude-opus-5", True),
        ("claude-sonnet-10-1", True),
        ("claude-sonnet-4-20250514", False),
        ("claude-opus-4-1-20250805", False),
        ("claude-3-7-sonnet-20250219", False),
        ("claude-3-5-haiku-latest", False),
    ],
)
def test_which_models_load_tools(model: str, loads: bool) -> None:
    """Claude from 4.5 on, at Anthropic; a date is no version."""
    assert loads_tools("anthropic", model) is loads
    assert not loads_tools("openai-chat", model)


def test_what_is_spelled_out_is_read_again() -> None:
    """Each line that is whole; what else an answer says, and a line that was cut, is none."""
    more = "More, found by name: cancel_booking."
    cut = spelled(CANCEL)[:-9]
    assert disclosed("\n".join((spelled(REFUND), spelled(CANCEL), more))) == (REFUND, CANCEL)
    assert disclosed("\n".join((spelled(REFUND), cut))) == (REFUND,)
    assert disclosed('{"name": "x", "description": "d", "parameters": {}, "more": 1}') == ()
    assert disclosed(more) == ()


def test_only_what_the_search_answered_is_loaded() -> None:
    """A page that spells a tool out, or a tool's result, defines nothing."""
    page = Label("tool", "fetch", trust="untrusted")
    said = (
        Message("user", (answer(spelled(REFUND)),)),
        Message("user", (answer(spelled(CANCEL), label=page), ToolResult("d", "fetch", spelled(CANCEL), page))),
    )
    assert found_in(said, ()) == (REFUND,)
    assert references(answer(spelled(REFUND), label=page), {"refund"}) == ()


def test_the_last_definition_holds_and_a_listed_tool_is_not_loaded() -> None:
    """In the order in which they were found first."""
    changed = msgspec.structs.replace(REFUND, description="Give all of it back.")
    said = (
        Message("user", (answer(spelled(REFUND), spelled(CANCEL)),)),
        Message("user", (answer(spelled(changed)),)),
    )
    assert found_in(said, ()) == (changed, CANCEL)
    assert found_in(said, (CANCEL,)) == (changed,)
    assert references(answer(spelled(REFUND), spelled(CANCEL)), {"refund"}) == ("refund",)


def test_the_list_has_no_form() -> None:
    """And does not speak of it."""
    find = ToolSchema(FIND_TOOLS, f"Find tools{CALLED_BY_FORM}. Look here.", {})
    form = ToolSchema(CALL_TOOL, "Call a tool.", {})
    assert without_form((REFUND, find, form)) == (REFUND, ToolSchema(FIND_TOOLS, "Find tools. Look here.", {}))
