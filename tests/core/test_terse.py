"""What a model is shown of a tool's parameters: less words, and nothing that the tool would then refuse."""

from __future__ import annotations

import copy
import inspect
import json
from collections.abc import Callable
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from stanchion.core.bundle import ToolSpec
from stanchion.core.catalogue import disclosure
from stanchion.core.terse import shown_parameters
from stanchion.toolbox.answer import Checked, Problem
from stanchion.toolbox.function import tool
from stanchion.toolbox.registry import Registry
from tests.loop.script import bundle

TEXT, NUMBER, NULL = {"type": "string"}, {"type": "integer"}, {"type": "null"}


def shown(parameters: dict[str, Any], *, strict: bool = False) -> Any:
    """Give what is shown of parameters. They stay as they are."""
    before = copy.deepcopy(parameters)
    found = shown_parameters(ToolSpec("t", "", parameters, "read", strict=strict))
    assert parameters == before
    return found


def of_field(field: Any, *, required: bool = False) -> Any:
    """Give what is shown of one field."""
    return shown({"properties": {"a": field}, "required": ["a"] if required else []})["properties"]["a"]


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ({"anyOf": [TEXT, NULL], "default": None}, TEXT),
        ({"anyOf": [NULL, TEXT], "default": None, "description": "Why."}, {**TEXT, "description": "Why."}),
        ({"anyOf": [TEXT, NUMBER, NULL], "default": None}, {"anyOf": [TEXT, NUMBER]}),
        ({"anyOf": [{"$ref": "#/$defs/T"}, NULL], "default": None}, {"$ref": "#/$defs/T"}),
        (
            {"anyOf": [{**TEXT, "description": "A."}, NULL], "default": None, "description": "B."},
            {"anyOf": [{**TEXT, "description": "A."}], "description": "B."},
        ),
        ({"default": None, "description": "Whatever."}, {"description": "Whatever."}),
        ({"enum": ["a", None], "default": None}, {"enum": ["a", None]}),
        ({"anyOf": [NULL], "default": None}, {"anyOf": [NULL]}),
        ({"anyOf": [True, NULL], "default": None}, {"anyOf": [True]}),
    ],
)
def test_a_field_that_is_null_when_it_is_left_out_is_shown_as_what_it_is_else(field: Any, said: Any) -> None:
    """With all else that is said of it. Where the field and its only form both say something, both are shown."""
    assert of_field(field) == said


@pytest.mark.parametrize(
    "field",
    [
        {"anyOf": [TEXT, NULL], "default": "x"},
        {"anyOf": [TEXT, NULL]},
        {"default": 0, "minimum": 0, "type": "integer"},
        {"default": False, "type": "boolean"},
        {"default": {"additionalProperties": False, "properties": {}}, "enum": [{"additionalProperties": True}]},
        {"const": {"additionalProperties": True}},
        {"type": ["string", "null"]},
        {"items": [TEXT, NUMBER]},
        {},
        True,
        "odd",
        None,
    ],
)
def test_what_says_something_stays(field: Any) -> None:
    """Other defaults, null where it means something, values that look like schemas, and what no tool of ours has."""
    assert of_field(field) == field


def test_a_required_field_takes_null_and_says_so() -> None:
    """It cannot be left out: null is the only way to say none."""
    field = {"anyOf": [TEXT, NULL], "default": None}
    assert of_field(field, required=True) == field


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"properties": {"a": TEXT}, "additionalProperties": False}, {"properties": {"a": TEXT}}),
        ({"properties": {}, "additionalProperties": False}, {"properties": {}}),
        ({"additionalProperties": True}, {}),
        ({"additionalProperties": False}, None),
        ({"properties": {"a": TEXT}, "additionalProperties": True}, None),
        ({"additionalProperties": NUMBER}, None),
        ({"properties": {}, "patternProperties": {"^x": TEXT}, "additionalProperties": False}, None),
        ({"properties": None, "additionalProperties": False}, None),
        ({}, None),
    ],
)
def test_that_an_object_is_as_it_looks_is_not_said(more: Any, said: Any) -> None:
    """Closed with named fields, open without: at the top and inside. The four kinds stay apart. `None`: all of it is shown."""
    node = {"type": "object", **more}
    expected = node if said is None else {"type": "object", **said}
    assert shown(node) == expected
    assert of_field(node) == expected
    assert of_field({"type": "array", "items": node}) == {"type": "array", "items": expected}
    assert of_field({"additionalProperties": node}) == {"additionalProperties": expected}
    for key in ("anyOf", "oneOf", "allOf", "prefixItems"):
        assert of_field({key: [node, TEXT]}) == {key: [expected, TEXT]}
    assert shown({"$defs": {"T": node}}) == {"$defs": {"T": expected}}


def test_a_strict_tool_is_shown_as_it_is() -> None:
    """Providers refuse a strict schema that leaves something open."""
    schema = {"type": "object", "properties": {"a": {"anyOf": [TEXT, NULL], "default": None}},
              "additionalProperties": False}  # fmt: skip
    assert shown(schema, strict=True) is schema


def test_the_order_is_the_schema_s() -> None:
    """Same tool, same bytes."""
    fields = {name: {"anyOf": [TEXT, NULL], "default": None, "description": name} for name in "zbya"}
    found = shown({"required": ["z"], "properties": fields, "additionalProperties": False, "type": "object"})
    assert list(found) == ["required", "properties", "type"]
    assert list(found["properties"]) == list("zbya")
    assert json.dumps(found["properties"]["b"]) == '{"type": "string", "description": "b"}'


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "object"},
        {"properties": None, "$defs": 1, "required": "a"},
        {"properties": {"a": {"default": 1}}, "required": None},
    ],
)
def test_odd_schemas_pass_through(schema: dict[str, Any]) -> None:
    """As they are."""
    assert shown(schema) == schema


# --- nothing else is accepted, and nothing less --------------------------------------------------------------------------


class Line(BaseModel):
    """Part of an order."""

    sku: str
    note: str | None = None


@tool(effect="read")
def put(order: str, why: str | None = None, lines: list[Line] | None = None, more: dict[str, Any] | None = None) -> str:
    """Put an order."""
    return "ok"


TOOLS = Registry([put])


@pytest.mark.parametrize(
    "given", [{}, {"why": None}, {"lines": None, "more": None}, {"lines": [{"sku": "s", "note": None}]}]
)
def test_null_is_accepted_where_it_is_not_shown(given: dict[str, Any]) -> None:
    """Models write it, and so do conversations from before."""
    assert isinstance(TOOLS.check("put", json.dumps({"order": "A", **given})), Checked)


@pytest.mark.parametrize(
    ("given", "place"), [({"whom": "x"}, "whom"), ({"lines": [{"sku": "s", "colour": "red"}]}, "lines[0].colour")]
)
def test_a_field_too_many_is_still_refused_by_its_name(given: dict[str, Any], place: str) -> None:
    """At any depth."""
    found = TOOLS.check("put", json.dumps({"order": "A", **given}))
    assert isinstance(found, Problem)
    assert place in found.text


def test_the_bundle_has_the_whole_schema() -> None:
    """What is shown is no part of it: its digest is what it was."""
    spec = TOOLS.specs[0]
    assert spec.parameters["additionalProperties"] is False
    assert bundle(spec).tools[0].parameters == spec.parameters
    said = json.loads(disclosure(spec))["parameters"]
    assert said == shown_parameters(spec) != spec.parameters
    assert "null" not in json.dumps(said)
    assert "additionalProperties" not in json.dumps(said)


SCALARS = st.sampled_from([str, int, bool, Literal["a", "b"], Annotated[int, Field(ge=1, le=9)], Line])
TYPES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        inner.map(lambda kind: list[kind]),
        inner.map(lambda kind: dict[str, kind]),
        inner.map(lambda kind: kind | None),
        st.tuples(inner, inner).map(lambda kinds: kinds[0] | kinds[1]),
    ),
    max_leaves=4,
)
FIELDS = st.dictionaries(
    st.sampled_from(["order", "when", "lines", "note"]),
    st.tuples(TYPES, st.sampled_from(["required", "null", "described"])),
    max_size=4,
)


def made(fields: dict[str, tuple[Any, str]]) -> Registry:
    """Make a tool with such fields."""

    def run(**_: Any) -> str:
        return ""

    parameters: list[inspect.Parameter] = []
    for name, (kind, how) in fields.items():
        annotation: Any = kind if how == "required" else kind | None
        if how == "described":
            annotation = Annotated[annotation, Field(description="Why.")]
        default = inspect.Parameter.empty if how == "required" else None
        run.__annotations__[name] = annotation
        parameters.append(
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        )
    run.__annotations__["return"] = str
    del run.__annotations__["_"]
    run.__signature__ = inspect.Signature(parameters, return_annotation=str)  # type: ignore[attr-defined]
    return Registry([tool(effect="read", name="made")(run)])


def values(node: dict[str, Any], pick: Callable[[st.SearchStrategy[Any]], Any]) -> Any:
    """Write what a node of a schema says, as who reads it would: named fields and no others."""
    if "anyOf" in node:
        return values(pick(st.sampled_from(node["anyOf"])), pick)
    if "enum" in node:
        return pick(st.sampled_from(node["enum"]))
    match node.get("type"):
        case "object" if "properties" in node:
            required = node.get("required", ())
            wanted = [name for name in node["properties"] if name in required or pick(st.booleans())]
            return {name: values(node["properties"][name], pick) for name in wanted}
        case "object":
            inner = node["additionalProperties"]
            return {name: values(inner, pick) for name in pick(st.lists(st.sampled_from("xyz"), unique=True))}
        case "array":
            return [values(node["items"], pick) for _ in range(pick(st.integers(0, 2)))]
        case "integer":
            return pick(st.integers(node.get("minimum", -50), node.get("maximum", 50)))
        case kind:
            return {"string": "text", "boolean": True, "null": None}[str(kind)]


@settings(max_examples=150, deadline=None)
@given(FIELDS, st.data())
def test_what_fits_what_is_shown_fits_the_whole(fields: dict[str, tuple[Any, str]], data: st.DataObject) -> None:
    """And is not changed by that: a model that goes by what it sees is understood."""
    registry = made(fields)
    said = values(dict(shown_parameters(registry.specs[0])), data.draw)
    found = registry.check("made", json.dumps(said))
    assert isinstance(found, Checked), found
    taken = json.loads(found.arguments)
    assert {name: taken[name] for name in said}.keys() == said.keys()
