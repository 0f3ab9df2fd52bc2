"""Say to a model, in a few lines, what of its arguments does not fit: the field, what was given, what is expected."""

from __future__ import annotations

import difflib
import json
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from stanchion.toolbox.schema import Node, resolve, step

MAX_LINES = 8
MAX_ERRORS = 1_000
"""Above this the errors are counted only: to write out a million of them would hold up every other run."""
_MAX_PATH = 120
_MAX_GIVEN = 80
_MAX_EXPECTED = 300

_MISSING = ("missing", "missing_argument", "missing_keyword_only_argument")
_UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")


def explain(tool: str, error: ValidationError, schema: Node) -> str:
    """Explain a refusal: one line for each field, in the order of the arguments."""
    if error.error_count() > MAX_ERRORS:
        return f"The arguments of {tool} do not fit in {error.error_count()} places{_expected(schema, schema)}"
    lines: dict[str, str] = {}
    for found in error.errors(include_url=False, include_context=False):
        path, node = _locate(found, schema)
        line = _line(found, node, schema)
        # Of a union there is one error for each member: the schema says it all.
        lines[path] = line if path not in lines else f"fits none of its forms{_expected(node, schema)}"
    said = [f"- {_shorten(path, _MAX_PATH) or 'the arguments'}: {line}" for path, line in lines.items()]
    if len(said) > MAX_LINES:
        said = [*said[:MAX_LINES], f"- and {len(said) - MAX_LINES} more"]
    return f"The arguments of {tool} do not fit:\n" + "\n".join(said) + "\nCorrect these and call again."


def _locate(error: ErrorDetails, schema: Node) -> tuple[str, Node]:
    """Find a field's path and node; names of union members in the location are passed over."""
    node, path = schema, ""
    for at, segment in enumerate(error["loc"]):
        inner = step(node, segment, schema)
        if inner is not None:
            node = inner
        elif not (error["type"] in _UNKNOWN and at == len(error["loc"]) - 1):
            continue
        if isinstance(segment, int):
            path += f"[{segment}]"
        else:
            path += f".{segment}" if path else segment
    return path, node


def _line(error: ErrorDetails, node: Node, schema: Node) -> str:
    if error["type"] in _MISSING:
        return f"is missing{_expected(node, schema)}"
    if error["type"] in _UNKNOWN:
        return _unknown(str(error["loc"][-1]), node, schema)
    said = error["msg"].removeprefix("Input ").removeprefix("Value error, ").removeprefix("Assertion failed, ")
    return f"{_shorten(said, _MAX_EXPECTED)}; given: {_shorten(_json(error['input']), _MAX_GIVEN)}{_expected(node, schema)}"


def _unknown(name: str, node: Node, schema: Node) -> str:
    node = resolve(node, schema)
    fields = [
        field for branch in (node, *node.get("anyOf", ())) for field in resolve(branch, schema).get("properties", ())
    ]
    close = difflib.get_close_matches(name, fields, n=1)
    meant = f"; did you mean {close[0]!r}?" if close else "."
    return f"there is no such field{meant} " + (
        f"The fields are: {', '.join(fields)}." if fields else "There are none."
    )


def _expected(node: Node, schema: Node) -> str:
    return f". Expected: {_shorten(_json(resolve(node, schema)), _MAX_EXPECTED)}"


def _json(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, default=repr)
    except (ValueError, RecursionError):
        return "what cannot be shown"


def _shorten(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[:limit]}.."
