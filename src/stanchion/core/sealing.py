"""A quarantined run's calls: references are filled into what goes out, and results that are not shown are sealed. Pure and total."""

from __future__ import annotations

import re

import msgspec

from stanchion.core import quarantine
from stanchion.core.bundle import EXTRACT
from stanchion.core.message import Label, Text, ToolResult, Usage
from stanchion.core.state import Call, State

_with = msgspec.structs.replace
_CODE = re.compile(r"[a-z0-9_]{1,32}")
"""A code is ours; whatever else a tool gave for one is its words."""


def fill_call(state: State, call: Call) -> Call:
    """Fill references into a call. What the model said stays as it said it: it does not learn the values."""
    if not (state.quarantine or state.sealed) or call.part.name == EXTRACT:
        return call
    filled = quarantine.fill_json(call.part.arguments, state.sealed)
    if not (filled.used or filled.missing):
        return call
    return _with(call, part=_with(call.part, arguments=filled.text), filled=filled.used, missing=filled.missing)


def is_extract(state: State, call: Call) -> bool:
    """Whether a call is of the built-in, and of no tool of that name."""
    return state.quarantine and call.part.name == EXTRACT


def hides(state: State, call: Call, outcome: str, label: Label) -> bool:
    """Whether a result is not shown: it is a tool's and untrusted, and so is what a tool said went wrong."""
    if not state.quarantine or call.part.name == EXTRACT:
        return False
    failed = outcome == "error" and label.source == "runtime" and call.attempt > 0
    return failed or (label.source == "tool" and label.trust == "untrusted")


def seal(state: State) -> State:
    """Seal the results of a step that are not shown, in call order, and keep what was taken out of earlier ones."""
    if not state.quarantine:
        return state
    sealed = state.sealed
    calls: list[Call] = []
    for call in state.calls:
        result = call.result
        if result is None:
            raise AssertionError("a step is settled when each of its calls has its result")
        if is_extract(state, call) and call.outcome == "ok":
            extracted = quarantine.read_extracted(result.text)
            sealed = sealed if extracted is None else quarantine.with_values(sealed, extracted)
            result = _answered(result, extracted)
        elif hides(state, call, call.outcome, result.label):
            one = quarantine.Sealed(f"r{len(sealed) + 1}", call.part.name, result.text, result.label)
            sealed, result = (*sealed, one), _referred(call, one, result)
        calls.append(_with(call, result=result))
    return _with(state, sealed=sealed, calls=tuple(calls))


def _answered(result: ToolResult, extracted: quarantine.Extracted | None) -> ToolResult:
    """Tell what was taken out. References alone tell nothing of the text: they are neither its words nor its secrets."""
    if extracted is None:
        return _with(result, text="[erased]")
    tells = any(value.value is None or value.type in quarantine.SHOWN for value in extracted.values.values())
    label = result.label if tells else Label(result.label.source, result.label.name, trust="trusted")
    return _with(result, text=quarantine.told(extracted), label=label)


def _referred(call: Call, sealed: quarantine.Sealed, result: ToolResult) -> ToolResult:
    """Give a reference for a result, and what may be shown of it."""
    code = call.code if _CODE.fullmatch(call.code) else "of the tool"
    what = f"error ({code})" if result.error else "result"
    text = quarantine.reference(sealed.ref, what, sealed.tool, sealed.text)
    told = call.told
    label = Label("tool", sealed.tool, trust="trusted", secrecy=told.label.secrecy if told else "public")
    return _with(result, text=f"{text}\n{told.text}" if told else text, label=label, media=())


def shown_of(parts: tuple[object, ...]) -> Text | None:
    """Find what of a result the model is shown though it is not shown the result."""
    told = parts[1] if len(parts) > 1 else None
    return told if isinstance(told, Text) else None


def billed(state: State, call: Call, cost: int, usage: Usage | None) -> State:
    """Count what an attempt cost; one that called a model and was billed without a count is taken to have used its bound."""
    bound = call.bound_tokens if call.phase == "running" and cost else 0
    totals = _with(
        state.totals,
        cost=state.totals.cost + cost,
        input_tokens=state.totals.input_tokens + (usage.total_input_tokens if usage else bound),
        output_tokens=state.totals.output_tokens + (usage.output_tokens if usage else 0),
    )
    return _with(state, totals=totals)
