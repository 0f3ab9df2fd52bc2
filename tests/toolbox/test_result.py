"""What a function returns becomes the text that the model reads."""

from __future__ import annotations

from typing import Any

import pytest

from stanchion.toolbox.answer import (
    Answer,
    Partial,
    Result,
)
from stanchion.toolbox.function import tool
from tests.toolbox.calling import Line, Refund, Row, call, failed


@pytest.mark.parametrize(
    ("annotation", "returned", "text"),
    [
        (str, "plain é", "plain é"),
        (None, None, "ok"),
        (str | None, None, "ok"),
        (int, 5, "5"),
        (bool, True, "true"),
        (Refund, Refund(order="ü", cents=1), '{"order":"ü","cents":1}'),
        (Refund, {"order": "a", "cents": 1}, '{"order":"a","cents":1}'),
        (list[Row], [Row(1), Row(2)], '[{"a":1},{"a":2}]'),
        (list[Line], [Line("x")], '[{"sku":"x"}]'),
        (Line, Line("x"), '{"sku":"x"}'),
        (dict[str, Any], {"b": 1, "a": [None]}, '{"b":1,"a":[null]}'),
        (Any, Line("x"), '{"sku":"x"}'),
        (Result[int], Result(5), "5"),
        (Partial[int], Partial([1], {"b": "sold out"}), '{"ok":[1],"failed":{"b":"sold out"}}'),
    ],
)
async def test_a_result_becomes_text(annotation: Any, returned: Any, text: str):
    """Text passes as it is, None is "ok", all else is compact JSON."""

    def give():
        return returned

    give.__annotations__["return"] = annotation
    assert await call(tool(effect="read")(give)) == Answer(text)


async def test_an_unannotated_result_is_written_as_it_is():
    """Without an annotation nothing is checked."""

    @tool(effect="read")
    async def give():
        return Result({"a": Row(1)}, cost_usd="0.01")

    assert await call(give) == Answer('{"a":{"a":1}}', cost_nano_usd=10_000_000)


async def test_a_cost_that_is_no_amount_is_noted():
    """The answer counts; the cost is left out, and a person can see why."""

    @tool(effect="write")
    async def give() -> Result[str]:
        return Result("done", cost_usd="-1")

    outcome = await call(give)
    assert isinstance(outcome, Answer)
    assert (outcome.text, outcome.cost_nano_usd) == ("done", 0)
    assert "the cost was not taken: cost_usd" in outcome.note


@pytest.mark.parametrize("returned", [{"order": "a"}, 5, None, object()])
async def test_a_wrong_result_of_a_read_is_an_error(returned: Any):
    """A read that gives what it must not has failed, for certain."""

    @tool(effect="read")
    async def look() -> Refund:
        return returned

    outcome = failed(await call(look))
    assert (outcome.code, outcome.in_doubt, outcome.retryable) == ("result_invalid", False, False)
    assert outcome.text.startswith("look returned what it must not: ")
    assert "pydantic" not in outcome.text


@pytest.mark.parametrize("returned", [{"order": "a"}, object()])
async def test_a_wrong_result_of_an_effect_is_an_answer_with_a_warning(returned: Any):
    """The effect has happened: the model must not do it again."""

    @tool(effect="irreversible")
    async def pay() -> Refund:
        return returned

    outcome = await call(pay)
    assert isinstance(outcome, Answer)
    assert "[warning: pay was carried out, but" in outcome.text
    assert outcome.text.endswith("Do not repeat the call.]")
    assert outcome.note


async def test_a_value_without_json_is_an_error_that_says_so():
    """An arbitrary object has no text."""

    @tool(effect="read")
    async def look():
        return object()

    assert "object has no JSON form; return a dataclass" in failed(await call(look)).text
