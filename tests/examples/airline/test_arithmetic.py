"""Sums: worked out to two places, and what is none is refused."""

from __future__ import annotations

import pytest

from examples.airline import arithmetic


@pytest.mark.parametrize(
    ("expression", "answer"),
    [
        ("152 + 103", "255.0"),
        ("(350 - 122) * 2 + -4", "452.0"),
        ("10 / 3", "3.33"),
        (" 7 // 2", "3.0"),
        ("2 ** 10", "1024.0"),
    ],
)
def test_sums(expression: str, answer: str) -> None:
    """Results are floats with at most two places."""
    assert arithmetic.calculate(expression) == answer


@pytest.mark.parametrize(
    "expression",
    ["", "2 +", "x", "__import__('os')", "1/0", "9**9**9", "(-8)**0.5", "100**100**100", "(1)(2)", "()", "(" * 300],
)
def test_what_is_no_sum_is_refused(expression: str) -> None:
    """Nothing but arithmetic is worked out."""
    with pytest.raises(arithmetic.NoSum):
        arithmetic.calculate(expression)
