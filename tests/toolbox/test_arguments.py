"""What a model wrote is taken, put in one form, or refused in words it can use."""

from __future__ import annotations

import enum
import json
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, BeforeValidator, Field, SecretStr, field_validator
from typing_extensions import TypedDict

from stanchion.toolbox.answer import Answer, Checked, Problem, ToolContext
from stanchion.toolbox.function import tool
from stanchion.toolbox.registry import Registry


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Card(BaseModel):
    kind: Literal["card"]
    number: SecretStr


class Cash(BaseModel):
    kind: Literal["cash"]
    cents: int


class Open(BaseModel, extra="allow"):
    n: int


class Where(TypedDict):
    city: str


class Line(msgspec.Struct):
    sku: str
    count: Annotated[int, msgspec.Meta(ge=1)] = 1


class Order(msgspec.Struct):
    id: UUID
    on: date
    lines: list[Line]
    stock: Stock | None = None
    price: Decimal = Decimal("1.10")
    notes: list[str] = []


@dataclass
class Stock:
    shelf: str
    bins: list[int] = field(default_factory=list)


class Tree(BaseModel):
    name: str
    parts: list[Tree] = []


def _no_key(value: str) -> str:
    raise KeyError(value)


@tool(effect="read")
def order(
    what: Order,
    pay: Annotated[Card | Cash, Field(discriminator="kind")],
    where: Where | None = None,
    colours: list[Colour] = [Colour.RED],  # noqa: B006
    at: datetime | None = None,
    tags: dict[str, int] | None = None,
) -> str:
    return "ok"


@tool(effect="read")
def plain(name: str, count: int = 1, share: float = 0.5, sure: bool = False, mode: Literal["a", "b"] = "a") -> str:
    return "ok"


@tool(effect="read")
def shape(
    tree: Tree | None = None, open_: Open | None = None, free: Any = None, pair: tuple[int, str] = (1, "a")
) -> str:
    return "ok"


@tool(effect="read")
def odd(value: Annotated[str, BeforeValidator(_no_key)]) -> str:
    return value


NO_LINES: list[Line] = []


@tool(effect="read", strict=True)
def careful(
    name: str, limit: int = 10, line: Line | None = None, lines: list[Line] = NO_LINES, note: str | None = "x"
) -> str:
    return "ok"


@tool(effect="read")
def nothing() -> str:
    return "ok"


TOOLS = Registry([order, plain, shape, odd, careful, nothing])


def checked(name: str, arguments: object) -> Any:
    """Check and give the canonical arguments back as JSON."""
    found = TOOLS.check(name, arguments if isinstance(arguments, str) else json.dumps(arguments))
    assert isinstance(found, Checked), found
    return json.loads(found.arguments)


def refused(name: str, arguments: object) -> str:
    found = TOOLS.check(name, arguments if isinstance(arguments, str) else json.dumps(arguments))
    assert isinstance(found, Problem), found
    return found.text


def test_defaults_are_filled_in_and_keys_sorted():
    """One call has one form, however it was written."""
    want = b'{"count":5,"mode":"a","name":"x","share":0.5,"sure":false}'
    for text in ('{"name":"x","count":5}', '{ "count": 5, "name": "x" }', '{"name":"y","name":"x","count":"5"}'):
        assert TOOLS.check("plain", text) == Checked(want)


@pytest.mark.parametrize(
    ("given_", "want"),
    [
        ({"count": "5"}, {"count": 5}),
        ({"count": 5.0}, {"count": 5}),
        ({"share": "0.25"}, {"share": 0.25}),
        ({"share": 2}, {"share": 2.0}),
        ({"sure": "true"}, {"sure": True}),
    ],
)
def test_harmless_coercion(given_: dict[str, Any], want: dict[str, Any]):
    """A value that can mean only one thing is taken."""
    got = checked("plain", {"name": "x", **given_})
    assert got.items() >= want.items()


@pytest.mark.parametrize(
    ("given_", "says"),
    [
        ({"count": True}, "count: should be a valid integer; given: true. Expected: {"),
        ({"count": 5.5}, "count: should be a valid integer"),
        ({"count": "five"}, "count: should be a valid integer"),
        ({"count": None}, "count: should be a valid integer; given: null"),
        ({"share": True}, "share: should be a valid number"),
        ({"share": "NaN"}, "share: should be a finite number"),
        ({"sure": 1}, "sure: should be a valid boolean"),
        ({"sure": "yes"}, "sure: should be a valid boolean"),
        ({"name": 5}, "name: should be a valid string; given: 5"),
        ({"mode": "c"}, "mode: should be 'a' or 'b'; given: \"c\""),
        ({"nmae": "y"}, "nmae: there is no such field; did you mean 'name'? The fields are: name, count,"),
        ({"zzzz": 1}, "zzzz: there is no such field. The fields are:"),
    ],
)
def test_what_does_not_fit_is_said_field_by_field(given_: dict[str, Any], says: str):
    """The field, what was given and what is expected; no traces of the library."""
    text = refused("plain", {"name": "x", **given_})
    assert f"- {says}" in text
    assert text.startswith("The arguments of plain do not fit:\n")
    assert "pydantic" not in text
    assert "http" not in text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "not valid JSON: EOF while parsing an object at line 1 column 1"),
        ("not json", "not valid JSON"),
        ("{'a': 1}", "not valid JSON"),
        ('{"name": "x",}', "not valid JSON"),
        ('{"name": "x"} and more', "not valid JSON"),
        ('{"name": "\ud800"}', "not valid JSON"),
        ('{"name": "\\ud800"}', "not valid JSON"),
        ('{"name": "x", "share": NaN}', "not valid JSON"),
        ('{"name": "x", "share": -Infinity}', "not valid JSON"),
        ('{"name": "x", "share": 1e999}', "share: should be a finite number"),
        ('{"name": "x", "count": ' + "9" * 5000 + "}", "not valid JSON"),
        ("[" * 100_000, "not valid JSON: recursion limit"),
        ('{"name":' * 100_000, "not valid JSON: recursion limit"),
        ("[]", "must be one JSON object, not an array. Its schema: {"),
        ('"x"', "not a string"),
        ("5", "not a number"),
        ("true", "not a boolean"),
        ("null", "not null"),
        ('{"name": "' + "x" * 1_000_000 + '"}', "too long: 1000012 characters"),
        ("", "name: is missing"),
        ("  \n", "name: is missing"),
    ],
)
def test_damaged_text_is_a_problem_and_never_an_exception(text: str, says: str):
    """Whatever a model writes is answered in words."""
    assert says in refused("plain", text)


def test_no_arguments_are_the_empty_object():
    """A tool without arguments may be called with no text at all."""
    assert checked("nothing", "") == {}
    assert "x: there is no such field. There are none." in refused("nothing", {"x": 1})


ID = "12345678-1234-5678-1234-567812345678"


def test_models_dataclasses_structs_enums_and_unions():
    """Every kind of type is read, at any depth, and written in one form."""
    got = checked(
        "order",
        {
            "what": {
                "id": ID,
                "on": "2026-03-12",
                "lines": [{"sku": "a", "count": 2}, {"sku": "b"}],
                "stock": {"shelf": "s"},
            },
            "pay": {"kind": "cash", "cents": 5},
            "where": {"city": "Oslo"},
            "colours": ["blue"],
            "at": "2026-03-12T14:22:00Z",
            "tags": {"b": 1, "a": 2},
        },
    )
    assert got["what"]["lines"] == [{"count": 2, "sku": "a"}, {"count": 1, "sku": "b"}]
    assert got["what"]["price"] == "1.10"
    assert got["what"]["stock"] == {"shelf": "s", "bins": []}
    assert (got["pay"], got["colours"], got["tags"]) == ({"kind": "cash", "cents": 5}, ["blue"], {"a": 2, "b": 1})


def test_refusals_deep_inside_name_the_path():
    """Unknown and wrong fields are found in models, dataclasses, TypedDicts and Structs."""
    text = refused(
        "order",
        {
            "what": {"id": "no", "on": "2026-13-01", "lines": [{"sku": "a", "count": 0}, {"sky": "b"}], "x": 1},
            "pay": {"kind": "cash", "cents": "five"},
            "where": {"city": "Oslo", "zip": "1"},
            "colours": ["green"],
        },
    )
    for path in (
        "what.id: ",
        "what.on: ",
        "what.lines[1].sku: is missing",
        "what.lines[1].sky: there is no such field",
    ):
        assert f"- {path}" in text
    assert "- what.x: there is no such field" in text
    assert "and 1 more" in text or "where.zip" in text
    assert "- what.lines[0]: Expected `int` >= 1 - at `$.count`" in refused(
        "order",
        {
            "what": {"id": ID, "on": "2026-01-01", "lines": [{"sku": "a", "count": 0}]},
            "pay": {"kind": "cash", "cents": 1},
        },
    )
    many = refused("plain", {f"f{n}": n for n in range(30)} | {"name": "x"})
    assert "- and 22 more" in many
    assert "- free" not in many


def test_a_recursive_type_is_checked_at_any_depth():
    """A type that contains itself keeps a definition, and errors have their path."""
    assert checked("shape", {"tree": {"name": "a", "parts": [{"name": "b", "parts": []}]}})["pair"] == [1, "a"]
    assert "tree.parts[0].name: is missing" in refused("shape", {"tree": {"name": "a", "parts": [{}]}})


def test_the_world_is_closed_for_open_models_too():
    """A model that would take anything takes what the schema shows."""
    assert "open_.more: there is no such field" in refused("shape", {"open_": {"n": 1, "more": 2}})
    assert checked("shape", {"free": {"any": [1, {"thing": None}]}})["free"] == {"any": [1, {"thing": None}]}


def test_a_secret_is_kept_as_it_was_written():
    """A type whose JSON hides its value must not lose it between check and call."""
    given_ = {"what": {"id": ID, "on": "2026-03-12", "lines": []}, "pay": {"kind": "card", "number": "4111"}}
    assert checked("order", given_) == given_


def test_a_validator_that_fails_in_its_own_way_is_a_problem():
    """A mistake in a user's validator is answered, not raised."""
    assert "could not be checked: KeyError: 'x'" in refused("odd", {"value": "x"})


class Judge(BaseModel):
    cents: int

    @field_validator("cents")
    @classmethod
    def _positive(cls, value: int) -> int:
        if value <= 0:
            raise ValueError("must be above 0")
        return value


def test_a_validators_words_reach_the_model():
    """What a user's validator says is what the model reads."""

    @tool(effect="read")
    def pay(what: Judge) -> str:
        return ""

    found = Registry([pay]).check("pay", '{"what":{"cents":0}}')
    assert isinstance(found, Problem)
    assert "- what.cents: must be above 0; given: 0." in found.text


def test_strict_mode_takes_null_for_what_may_be_left_out():
    """Strict providers send every field; null stands for the default where null is no value."""
    assert checked("careful", {"name": "x", "limit": None, "line": None, "lines": None, "note": None}) == {
        "name": "x",
        "limit": 10,
        "line": None,
        "lines": [],
        "note": None,
    }
    assert checked("careful", {"name": "x", "line": {"sku": "a", "count": None}})["line"] == {"sku": "a", "count": 1}
    assert checked("careful", {"name": "x", "lines": [{"sku": "a", "count": None}]})["lines"] == [
        {"sku": "a", "count": 1}
    ]
    assert "name: should be a valid string; given: null" in refused("careful", {"name": None})


async def test_any_name_may_be_a_parameters():
    """Names that mean something to pydantic or dataclasses, and aliases, are names like others."""

    @tool(effect="read")
    async def odd_names(
        _x: str, model_config: int, self_: int, key: str, al: Annotated[int, Field(alias="theAlias")] = 3
    ) -> str:
        return f"{_x} {model_config} {self_} {key} {al}"

    registry = Registry([odd_names])
    found = registry.check("odd_names", '{"_x":"a","model_config":1,"self_":2,"key":"k","theAlias":5}')
    assert isinstance(found, Checked)
    assert await registry.run("odd_names", found.arguments, ToolContext()) == Answer("a 1 2 k 5")


def test_a_number_beyond_json_is_refused_anywhere():
    """A free value cannot smuggle an infinity in."""
    assert "Out of range float" in refused("shape", '{"free": [1e999]}')


def test_an_unknown_tool_is_named_with_what_there_is():
    """A misspelt name is answered with the right one."""
    assert refused("plan", {}) == (
        "There is no tool 'plan'. Did you mean 'plain'? The tools are: order, plain, shape, odd, careful, nothing."
    )


def test_read_result_is_checked_here():
    """The built-in is listed last, and its arguments are checked like any other's."""
    assert TOOLS.specs[-1].name == "read_result"
    assert checked("read_result", {"result": "call_1"}) == {"result": "call_1", "offset": 0}
    assert "offset: should be greater than or equal to 0" in refused("read_result", {"result": "a", "offset": -1})


def test_a_flood_of_errors_is_counted_and_not_written_out():
    """Ten thousand wrong values are one short answer."""
    given_ = {"name": "x", "lines": [{"sku": n} for n in range(10_000)]}
    assert refused("careful", given_).startswith("The arguments of careful do not fit in 10000 places. Expected: {")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["name", "parts", "kind", "n", "x"]), inner)
    ),
    max_leaves=12,
)
FIELDS = st.sampled_from(
    ["name", "count", "share", "sure", "mode", "tree", "open_", "free", "pair", "limit", "lines", "x"]
)


@settings(max_examples=300, deadline=None)
@given(name=st.sampled_from(["plain", "shape", "careful"]), arguments=st.dictionaries(FIELDS, JSON, max_size=5))
def test_checking_twice_changes_nothing(name: str, arguments: dict[str, Any]):
    """Canonical arguments are their own canonical form, and nothing a model could write raises."""
    found = TOOLS.check(name, json.dumps(arguments))
    if isinstance(found, Checked):
        assert TOOLS.check(name, found.arguments.decode()) == found


@settings(max_examples=200, deadline=None)
@given(st.text() | st.text(alphabet='{}[]":,0123456789.eE-+ntrufals \\u'))
def test_any_text_is_answered(text: str):
    """No text makes a check raise."""
    assert isinstance(TOOLS.check("shape", text), Checked | Problem)
