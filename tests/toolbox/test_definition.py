"""What `@tool` makes of a function, and what it refuses."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, assert_type

import pytest
from pydantic import BaseModel, Field

from stanchion.core.bundle import RetryPolicy
from stanchion.core.errors import ConfigError
from stanchion.toolbox.answer import Inject, ToolContext
from stanchion.toolbox.function import Tool, tool
from stanchion.toolbox.registry import Registry


class Db:
    """A dependency."""


class Refund(BaseModel):
    order_id: str
    cents: int


@tool(effect="irreversible", timeout_s=10)
async def refund(order_id: str, cents: int, *, key: str) -> Refund:
    """Refund an order. `cents` is at most what was paid. Example: refund("A-17", 1250)."""
    return Refund(order_id=order_id, cents=cents)


@tool(effect="read")
def double(number: int) -> int:
    return 2 * number


async def test_the_function_stays_callable_with_its_types():
    """A tool is called like the function it was, and pyright knows what it gives."""
    assert_type(double(3), int)
    assert double(3) == 6
    refunded = await refund("A-17", 5, key="k")
    assert_type(refunded, Refund)
    assert refunded == Refund(order_id="A-17", cents=5)
    assert repr(double) == "<Tool double effect=read>"


def test_a_spec_says_what_the_function_says():
    """Name, docstring, effect, key and schema come from the function; the key is hidden from the model."""
    spec = refund.spec
    assert (spec.name, spec.effect, spec.timeout_s, spec.keyed) == ("refund", "irreversible", 10, True)
    assert spec.description.startswith("Refund an order. `cents` is at most")
    assert spec.parameters == {
        "type": "object",
        "properties": {"order_id": {"type": "string"}, "cents": {"type": "integer"}},
        "required": ["order_id", "cents"],
        "additionalProperties": False,
    }


def test_options_reach_the_spec():
    """Every option of the decorator is in the spec."""

    @tool(
        effect="write", name="put-it", timeout_s=1.5, retries=0, repeatable=True, max_result_chars=9, ends_run=True,
        version="2", strict=True, dry_run=lambda: "pretended", reconcile=lambda: None,
    )  # fmt: skip
    def put() -> None: ...

    spec = put.spec
    assert (spec.name, spec.effect, spec.timeout_s, spec.retry.attempts) == ("put-it", "write", 1.5, 1)
    assert (spec.repeatable, spec.max_result_chars, spec.ends_run, spec.version) == (True, 9, True, "2")
    assert (spec.strict, spec.dry_run, spec.reconciles, spec.keyed) == (True, True, True, False)


def test_a_retry_policy_is_taken_whole():
    """`retries` may be a whole policy."""
    policy = RetryPolicy(attempts=7, base_s=0.1)

    @tool(effect="read", retries=policy)
    def look() -> str:
        return ""

    assert look.spec.retry == policy
    assert double.spec.retry.attempts == 3


def test_hidden_parameters_are_not_shown():
    """Context, dependencies and key are the runtime's."""

    @tool(effect="write")
    def put(a: str, context: ToolContext, db: Inject[Db], cache: Annotated[Db, Inject], plain: Db, *, key: str) -> str:
        return a

    assert list(put.spec.parameters["properties"]) == ["a"]
    assert list(Registry([put], {Db: Db()}).specs[0].parameters["properties"]) == ["a"]


def test_a_type_in_deps_is_hidden_without_a_mark():
    """A type that a model could write is a dependency where the agent has one of it."""

    @dataclass
    class Settings:
        limit: int

    @tool(effect="read")
    def look(q: str, settings: Settings) -> str:
        return q

    assert list(look.spec.parameters["properties"]) == ["q", "settings"]
    assert list(Registry([look], {Settings: Settings(1)}).specs[0].parameters["properties"]) == ["q"]


def test_a_bound_method_and_a_partial_are_tools():
    """Anything callable with a signature will do."""

    class Shop:
        def find(self, q: str) -> str:
            return f"found {q}"

    def both(a: str, b: str) -> str:
        return a + b

    assert tool(effect="read")(Shop().find)("x") == "found x"
    made = tool(effect="read", name="half")(functools.partial(both, b="!"))
    assert made("x") == "x!"
    assert made.spec.name == "half"


def _untyped(a): ...
def _rest(*values: str): ...
def _fields(**values: str): ...
def _positional(a: str, /): ...
def _callback(then: Callable[[int], int]): ...
def _bad_default(count: int = None): ...  # type: ignore[assignment]  # noqa: RUF013
def _field_default(count: int = Field(5, ge=1)): ...
def _unresolved(a: Nowhere): ...  # type: ignore[name-defined]  # noqa: F821
def _number_key(*, key: int): ...
def _fine(a: str): ...
def _generator():
    yield 1


async def _async_generator():
    yield 1


class _WithSelf:
    def method(self, a: str): ...


REFUSED: list[tuple[Any, dict[str, Any], str]] = [
    (_untyped, {}, r"tool '_untyped', parameter 'a': has no type; annotate it, like `a: str`"),
    (_rest, {}, r"tool '_rest', parameter 'values': takes any number of values; take a list"),
    (_fields, {}, r"tool '_fields', parameter 'values': takes fields without names"),
    (_positional, {}, r"tool '_positional', parameter 'a': is positional-only; remove the `/`"),
    (_callback, {}, r"tool '_callback', parameter 'then': a model cannot write a .*Callable"),
    (_bad_default, {}, r"tool '_bad_default', parameter 'count': the default None is no value of its type"),
    (_field_default, {}, r"tool '_field_default', parameter 'count': write Field\(...\) in the type"),
    (_unresolved, {}, r"tool '_unresolved': an annotation cannot be resolved: name 'Nowhere' is not defined; import"),
    (_number_key, {}, r"tool '_number_key', parameter 'key': the idempotency key is text; write `key: str`"),
    (_generator, {}, r"tool '_generator': the function is a generator; return the whole result"),
    (_async_generator, {}, r"tool '_async_generator': the function is an async generator"),
    (_WithSelf.method, {}, r"tool 'method', parameter 'self': make a tool of the bound method"),
    (lambda: None, {}, r"tool '<lambda>': a tool's name is 1 to 64 of .* set it with name="),
    (_WithSelf, {}, r"tool '_WithSelf': .* is not a function"),
    (5, {"name": "five"}, r"tool 'five': 5 is not a function"),
    (_fine, {"retries": RetryPolicy(attempts=0)}, r"retries.attempts=0 must be a whole number of at least 1"),
    (
        _fine,
        {"effect": "wirte"},
        r"tool '_fine': effect='wirte' is none of 'read', 'write', 'irreversible', 'destructive'",
    ),
    (_fine, {"name": "read_result"}, r"tool 'read_result': this name is the built-in tool's"),
    (_fine, {"name": "a b"}, r"tool 'a b': a tool's name"),
    (_fine, {"name": "a" * 65}, r"a tool's name is 1 to 64"),
    (_fine, {"timeout_s": 0}, r"tool '_fine': timeout_s=0 must be a number of seconds"),
    (_fine, {"timeout_s": float("nan")}, r"timeout_s=nan must be"),
    (_fine, {"timeout_s": "10"}, r"timeout_s='10' must be"),
    (_fine, {"retries": -1}, r"tool '_fine': retries=-1 must be a whole number of at least 0"),
    (_fine, {"retries": 1.5}, r"retries=1.5 must be a whole number"),
    (_fine, {"max_result_chars": 0}, r"max_result_chars=0 must be a whole number of at least 1"),
    (_fine, {"max_concurrency": -1}, r"max_concurrency=-1 must be"),
    (_fine, {"concurrency": 10**20}, r"concurrency=100000000000000000000 must be at most 1,000,000,000"),
    (_fine, {"rate": "99999999999999999999/s"}, r"must be at most 1,000,000,000 calls"),
    (_fine, {"reconcile": lambda order: None}, r"tool '_fine \(reconciler\)', parameter 'order': has no type"),
]


@pytest.mark.parametrize(("function", "options", "message"), REFUSED)
def test_what_cannot_work_is_refused_where_it_is_defined(
    function: Callable[..., Any], options: dict[str, Any], message: str
):
    """The error names the tool, the parameter and the way to mend it."""
    with pytest.raises(ConfigError, match=message):
        tool(**{"effect": "read", **options})(function)


def test_what_a_tool_does_to_the_world_is_said():
    """Without its effect a tool is refused, with the choices: a forgotten one would be taken for a read and run again."""
    for make in (lambda: tool(_fine), lambda: tool()(_fine), lambda: tool(timeout_s=1)(_fine)):
        with pytest.raises(ConfigError, match=r"tool '_fine': say what it does to the world: @tool\(effect=\.\.\)"):
            make()


def test_names_are_unique():
    """Two tools of one name are refused, and both are named."""
    other = tool(effect="read", name="double")(refund.function)
    with pytest.raises(ConfigError, match=r"two tools are named 'double': .*\.double and .*\.refund"):
        Registry([double, other])


def test_a_plain_function_must_say_its_effect():
    """An undecorated function is refused: nobody said what it does to the world."""
    with pytest.raises(ConfigError, match=r"tools: '_fine' is a plain function; .* @tool\(effect=...\)"):
        Registry([_fine])
    with pytest.raises(ConfigError, match=r"tools: 'refund' is not a tool"):
        Registry(["refund"])


def test_a_missing_dependency_is_refused_at_the_agent():
    """Marked or not, what only the agent could give must be there."""

    @tool(effect="read")
    def marked(db: Inject[Db]) -> str:
        return ""

    @tool(effect="read")
    def unmarked(db: Db) -> str:
        return ""

    with pytest.raises(
        ConfigError, match=r"'marked', parameter 'db': the agent has no dependency Db; add it: deps={Db: ...}"
    ):
        Registry([marked])
    with pytest.raises(
        ConfigError, match=r"'unmarked', parameter 'db': a model cannot write a Db, and the agent has no"
    ):
        Registry([unmarked])


def test_a_reconciler_asks_only_for_what_the_tool_has():
    """A parameter that is neither the tool's nor a dependency is refused at the agent."""

    @tool(effect="write")
    def put(a: str) -> None: ...

    @put.reconciler
    def _(a, other: str): ...

    with pytest.raises(ConfigError, match=r"tool 'put \(reconciler\)', parameter 'other': is no parameter of the tool"):
        Registry([put])


def test_types_defined_beside_the_tool_are_found():
    """Annotations that are text may name what is local to the function the tool stands in."""

    @dataclass
    class Local:
        n: int

    made = tool(effect="read")(_taking(Local))
    assert isinstance(made, Tool)

    @tool(effect="read")
    def look(item: Local) -> Local:
        return item

    assert look.spec.parameters["properties"]["item"]["properties"] == {"n": {"type": "integer"}}


def _taking(kind: type) -> Callable[..., Any]:
    def look(item):
        return item

    look.__annotations__["item"] = kind
    return look
