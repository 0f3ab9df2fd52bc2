"""The schema a model is shown: closed, quiet, the same every time; and docstrings in the three usual forms."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field

from stanchion.core.errors import ConfigError
from stanchion.toolbox.docstring import read_docstring
from stanchion.toolbox.function import tool
from stanchion.toolbox.schema import strict, tidy


class Point(BaseModel):
    """A point on the map."""

    x: int
    title: str = "here"


class Node(BaseModel):
    value: int
    next: Node | None = None


@dataclass
class Segment:
    begin: Point
    end: Point


def every_object(node: Any) -> list[dict[str, Any]]:
    """Collect the nodes of type object."""
    if isinstance(node, list):
        return [found for inner in node for found in every_object(inner)]
    if not isinstance(node, dict):
        return []
    own = [node] if node.get("type") == "object" else []
    return own + [found for inner in node.values() for found in every_object(inner)]


@tool(effect="read")
def draw(
    segment: Segment, chain: Node, points: list[Point] | None = None, width: Annotated[int, Field(ge=1)] = 1
) -> str:
    return ""


def test_every_object_is_closed_and_titles_are_gone():
    """Closed world at every depth; a field named "title" stays."""
    schema = draw.spec.parameters
    assert all(found["additionalProperties"] is False for found in every_object(schema))
    begin = schema["properties"]["segment"]["properties"]["begin"]
    assert begin["properties"] == {"x": {"type": "integer"}, "title": {"default": "here", "type": "string"}}
    assert begin["description"] == "A point on the map."
    assert '"title": "' not in json.dumps(schema)


def test_references_are_written_out_but_for_recursion():
    """Only a type that contains itself keeps a definition."""
    schema = draw.spec.parameters
    assert list(schema["$defs"]) == ["Node"]
    assert schema["properties"]["chain"] == {"$ref": "#/$defs/Node"}
    assert schema["$defs"]["Node"]["properties"]["next"]["anyOf"][0] == {"$ref": "#/$defs/Node"}
    assert "$ref" not in json.dumps(schema["properties"]["segment"])


def test_the_bytes_are_the_same_every_time():
    """Two readings of one function give the same bytes, in the order of the parameters."""
    again = tool(effect="read")(draw.function)
    assert json.dumps(again.spec.parameters) == json.dumps(draw.spec.parameters)
    assert list(draw.spec.parameters["properties"]) == ["segment", "chain", "points", "width"]


def test_tidy_leaves_its_input_alone():
    """A schema is copied before it is changed."""
    source = {"type": "object", "title": "T", "properties": {"a": {"title": "A", "type": "string"}}}
    before = json.dumps(source)
    assert tidy(source) == {"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": False}
    assert json.dumps(source) == before


def test_a_typed_map_stays_open():
    """A map that the author asked for is a map."""

    @tool(effect="read")
    def put(tags: dict[str, int], free: dict[str, Any]) -> None: ...

    assert put.spec.parameters["properties"]["tags"] == {"type": "object", "additionalProperties": {"type": "integer"}}


def test_strict_requires_every_field_at_every_depth():
    """What may be left out takes null; what strict modes do not know is gone."""

    @tool(effect="read", strict=True)
    def find(
        q: Annotated[str, Field(min_length=1, description="What")], near: Point | None = None, top: int = 5
    ) -> str:
        return ""

    schema = find.spec.parameters
    assert schema["required"] == ["q", "near", "top"]
    assert schema["properties"]["q"] == {"description": "What", "type": "string"}
    assert schema["properties"]["top"] == {"anyOf": [{"type": "integer"}, {"type": "null"}]}
    assert schema["properties"]["near"]["anyOf"][0]["required"] == ["x", "title"]


@pytest.mark.parametrize("annotation", [dict[str, int], Any, tuple[int, str], list[dict[str, Any]]])
def test_strict_refuses_what_it_cannot_say(annotation: Any):
    """A map, a free value or a tuple has no form in a strict mode."""

    def look(value): ...

    look.__annotations__["value"] = annotation
    with pytest.raises(ConfigError, match=r"tool 'look': value(\[\])? cannot be said in strict mode"):
        tool(effect="read", strict=True)(look)


def test_strict_reaches_into_definitions():
    """A recursive type is made strict where it is defined."""
    made = strict(
        tidy(Node.model_json_schema() | {"$defs": {"Node": Node.model_json_schema()["$defs"]["Node"]}}), tool="t"
    )
    assert made["$defs"]["Node"]["required"] == ["value", "next"]


GOOGLE = """Move money.

    It is quick.

    Args:
        source: Where from,
            an account.
        cents (int): How much.
        key: The key.

    Returns:
        A receipt.
    """
NUMPY = """Move money.

    It is quick.

    Parameters
    ----------
    source : str
        Where from,
        an account.
    cents
        How much.
    key : str
        The key.

    Returns
    -------
    A receipt.
    """
SPHINX = """Move money.

    It is quick.

    :param source: Where from,
        an account.
    :param int cents: How much.
    :type cents: int
    :param key: The key.
    :returns: A receipt.
    """


@pytest.mark.parametrize("text", [GOOGLE, NUMPY, SPHINX])
def test_parameters_are_read_from_a_docstring(text: str):
    """The section moves into the schema; the rest stays."""
    description, said = read_docstring(text, ["source", "cents", "key"])
    assert said == {"source": "Where from, an account.", "cents": "How much.", "key": "The key."}
    assert description.startswith("Move money.\n\nIt is quick.")
    assert "A receipt." in description
    assert "How much" not in description


@pytest.mark.parametrize("text", [GOOGLE, NUMPY, SPHINX])
def test_a_section_of_something_else_stays_as_written(text: str):
    """Where a name is not a parameter's, nothing is moved."""
    description, said = read_docstring(text, ["source"])
    assert said == {}
    assert "How much." in description


def test_a_plain_docstring_is_the_description():
    """No section, no change but the indentation."""
    assert read_docstring("One.\n\n        Two: three.\n", ["a"]) == ("One.\n\nTwo: three.", {})
    assert read_docstring(None, []) == ("", {})


def test_a_field_description_wins_over_the_docstring():
    """What stands at the parameter is the more exact word."""

    @tool(effect="read")
    def look(a: Annotated[str, Field(description="from the type")], b: str) -> str:
        """Look.

        Args:
            a: from the docstring
            b: b's
        """
        return a + b

    shown = look.spec.parameters["properties"]
    assert (shown["a"]["description"], shown["b"]["description"]) == ("from the type", "b's")
    assert look.spec.description == "Look."
