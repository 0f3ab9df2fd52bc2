"""Sums for the agent: numbers, + - * / ** and brackets, and nothing that could run code or take for ever."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable

Number = int | float


class NoSum(Exception):
    """This is not a sum that can be worked out; the message says why."""


MAX_POWER = 100  # of base and exponent: more is no sum of money, and could take for ever


def _power(base: Number, exponent: Number) -> Number:
    if abs(base) > MAX_POWER or abs(exponent) > MAX_POWER:
        raise ValueError(f"powers are worked out up to {MAX_POWER}")
    return base**exponent


_SIGNS: dict[type[ast.unaryop], Callable[[Number], Number]] = {ast.UAdd: lambda x: x, ast.USub: lambda x: -x}
_OPERATORS: dict[type[ast.operator], Callable[[Number, Number], Number]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Pow: _power,
}


def calculate(expression: str) -> str:
    """Work out a sum of numbers with + - * / ** and brackets, to two places."""
    if any(char not in "0123456789+-*/(). " for char in expression):
        raise NoSum("invalid characters in expression")
    try:
        return str(round(float(_value(ast.parse(expression.strip(), mode="eval").body)), 2))
    except (SyntaxError, TypeError, ValueError, ArithmeticError, RecursionError, MemoryError) as error:
        raise NoSum(f"cannot work out {expression[:100]!r}: {error}") from None


def _value(node: ast.expr) -> Number:
    match node:
        case ast.Constant(value=int() | float() as number):
            return number
        case ast.UnaryOp(op=sign, operand=operand) if type(sign) in _SIGNS:
            return _SIGNS[type(sign)](_value(operand))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            return _OPERATORS[type(op)](_value(left), _value(right))
        case _:
            raise ValueError("only numbers, + - * / and brackets are understood")
