"""The built-in demo: what the simulated model says when no script does.

It says that it is simulated, echoes the user, calls a tool whose name the user writes (or the request demands) with
arguments made from its schema, and tells what the tool answered. An output schema is answered with a sample of its form.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import cycle, islice
from typing import Any, cast

import msgspec

from stanchion.sim.exchange import Ask, AskedTool, Call, Said

_SENTENCE = "this is a simulated answer of the stanchion sim and no model was asked for any word of it"


def words(n: int) -> str:
    """Make a text of n words."""
    return " ".join(islice(cycle(_SENTENCE.split()), n))


def demo_reply(ask: Ask) -> Said:
    """Answer a request without a script."""
    thinking = (
        "No model thinks here: this is the simulated provider." if ask.thinking and ask.wire == "anthropic" else ""
    )
    if ask.after == "tool" and ask.tool_choice in ("auto", "none"):
        return Said(f"[simulated] The tool answered: {ask.last_tool}", thinking)
    tool = _wanted(ask)
    if tool is not None:
        arguments = msgspec.json.encode(sample(tool.schema, ask.last_user)).decode()
        return Said(thinking=thinking, calls=(Call(tool.name, arguments),), finish="tool_calls")
    if ask.output_schema is not None:
        return Said(msgspec.json.encode(sample(ask.output_schema, ask.last_user)).decode(), thinking)
    return Said(f"[simulated] This is stanchion sim; no model was asked. You said: {ask.last_user}", thinking)


def _wanted(ask: Ask) -> AskedTool | None:
    if ask.tool_choice == "none":
        return None
    forced = [tool for tool in ask.tools if tool.name == ask.tool_choice]
    named = [tool for tool in ask.tools if re.search(rf"\b{re.escape(tool.name)}\b", ask.last_user)]
    if forced or (named and ask.after == "user"):
        return (forced or named)[0]
    if ask.tool_choice != "required" or not ask.tools:
        return None
    # After a result the last tool: frameworks that force a call put their "final answer" tool there.
    return ask.tools[-1 if ask.after == "tool" else 0]


def sample(schema: Mapping[str, Any], text: str, root: Mapping[str, Any] | None = None) -> Any:
    """Make a value of a JSON schema's form; `name=value` in the text gives a property its value."""
    root = schema if root is None else root
    if "$ref" in schema:
        return sample(_resolve(schema["$ref"], root), text, root)
    for given in ("const", "default"):
        if given in schema:
            return schema[given]
    if schema.get("enum"):
        return schema["enum"][0]
    for branch in schema.get("anyOf") or schema.get("oneOf") or ():
        return sample(branch, text, root)
    kind: Any = schema.get("type")
    kind = str(cast("list[Any]", kind)[0] if isinstance(kind, list) else kind)
    if kind == "object" or "properties" in schema:
        return _object(schema, text, root)
    if kind == "array":
        return [sample(schema.get("items") or {}, text, root)] * int(schema.get("minItems") or 0)
    numbers = {"integer": int(schema.get("minimum") or 1), "number": float(schema.get("minimum") or 1)}
    return {**numbers, "boolean": True, "null": None, "None": "simulated"}.get(kind, "simulated")


def _object(schema: Mapping[str, Any], text: str, root: Mapping[str, Any]) -> dict[str, Any]:
    properties = cast("dict[str, dict[str, Any]]", schema.get("properties") or {})
    required = cast("list[str]", schema.get("required") or [])
    made: dict[str, Any] = {}
    for name, member in properties.items():
        found = re.search(rf"\b{re.escape(name)}=(\S+)", text)
        if found:
            made[name] = _read(found[1].rstrip(".,;"), member)
        elif name in required:
            made[name] = sample(member, text, root)
    return made


def _read(word: str, schema: Mapping[str, Any]) -> Any:
    if schema.get("type") == "string":
        return word
    try:
        return msgspec.json.decode(word)
    except msgspec.DecodeError:
        return word


def _resolve(ref: str, root: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Any = root
    for step in ref.removeprefix("#/").split("/"):
        found = found.get(step, {})
    return found
