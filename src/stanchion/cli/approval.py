"""How a call that waits looks on a terminal: first why not, then what it would do, then all that is known of it.

The first screen must do for a no. What a model or a third party wrote stands in quotes, without its control characters.
"""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterator, Sequence

import msgspec

from stanchion.cli.desk import Json
from stanchion.cli.output import clean, one_line, when

FIRST = 3
"""Reasons on the first screen."""
_LABEL = 13
_LONG, _SHORT = 560, 270
"""Characters of a reason that stands alone, and of one among others: a few lines of a terminal."""


def waiting_lines(waiting: Json, *, full: bool = True) -> Sequence[str]:
    """Describe a call that waits for a person. Not in full: what is needed to say no."""
    doubt = waiting["kind"] == "in_doubt"
    what = "may have been done or not: nobody answered" if doubt else "waits for approval"
    undo = f" · {waiting['undo']}" if waiting.get("undo") else ""
    head = f"{clean(waiting['tool'])} {what} (call {waiting['call']}, revision {waiting['revision']}){undo}"
    lines = [head, *_field("why" if doubt else "why not", _reasons(waiting)), *_field("action", [_action(waiting)])]
    return [*lines, *_more(waiting)] if full else lines


def _reasons(waiting: Json) -> list[str]:
    why = str(waiting.get("why") or waiting.get("reason") or waiting.get("rule") or "")
    said = [" ".join(line.split()) for line in why.splitlines() if line.strip()]
    most = _LONG if len(said) == 1 else _SHORT
    shown = [_cut(line, most) for line in said[:FIRST]]
    return [*shown, f"and {len(said) - FIRST} more, below"] if len(said) > FIRST else shown


def _cut(line: str, most: int) -> str:
    """Shorten a line; a quote at its end stays closed."""
    if len(line) <= most:
        return line
    return line[: most - 2] + ('…"' if line.endswith('"') else "…")


def _action(waiting: Json) -> str:
    return one_line(str(waiting.get("action") or waiting["tool"]), 400)


def _more(waiting: Json) -> Iterator[str]:
    """All the rest, for who has not decided yet."""
    if claim := waiting.get("claim"):
        yield from _field("model says", [f'"{one_line(claim, 600)}" (its own words, which prove nothing)'])
    yield from _field("arguments", [msgspec.json.encode(waiting["arguments"]).decode()])
    yield from _field("values", [_value(row) for row in waiting.get("values") or ()])
    later = str(waiting.get("why") or "").splitlines()[FIRST:]
    yield from _field("also", [_cut(" ".join(line.split()), _LONG) for line in later])
    tier = waiting.get("tier", "")
    yield from _field("tier", [tier] if tier else [])
    rules = waiting.get("rules") or [{"rule": waiting.get("rule", ""), "text": waiting.get("reason", "")}]
    yield from _field("asked by", [_rule(rule) for rule in rules])
    if waiting.get("quorum", 1) > 1:
        said = ", ".join(waiting["approvals"]) or "nobody"
        yield from _field("approved", [f"by {len(waiting['approvals'])} of {waiting['quorum']}: {said}"])
    if waiting["expires_ms"]:
        yield from _field("expires", [f"{when(waiting['expires_ms'])}; then it counts as rejected"])
    yield from _field("decided", [_precedent(past) for past in waiting.get("similar") or ()])


def _value(row: Json) -> str:
    """Say a value, what it is, its ground, and where that stands; where a value without one stands is said above."""
    said = one_line(msgspec.json.encode(row["value"]).decode(), 80)
    what = " ".join(word for word in (row["role"], row.get("kind", "")) if word)
    line = f"{row['path']} = {said} · {what} · {row.get('note') or row.get('ground') or ''}"
    places = [_place(origin) for origin in row.get("origins", ())[:1] if row.get("ground") != "none"]
    return line + "".join(f" · {place}" for place in places)


def _place(origin: Json) -> str:
    where = f"{origin['tool']} returned" if origin.get("tool") else f"the {origin['source']} said"
    return f'{where}: "{one_line(origin["around"], 160)}"'


def _rule(rule: Json) -> str:
    return ": ".join(piece for piece in (rule.get("rule", ""), one_line(rule.get("text", ""), 300)) if piece)


def _precedent(past: Json) -> str:
    why = f': "{one_line(past["reason"], 120)}"' if past.get("reason") else ""
    same = "the same call" if past["same"] == "call" else "the same destination"
    return f"{past['decision']} by {past['by']}, {when(past['at_ms'])}, {same} ({past['run']} {past['call']}){why}"


def _field(name: str, said: Sequence[str]) -> Iterator[str]:
    """Write a field with its name before it, wrapped to the terminal."""
    width = min(max(shutil.get_terminal_size((100, 24)).columns, 60), 140)
    for place, text in enumerate(said):
        label = f"  {name}" if place == 0 else ""
        yield from textwrap.wrap(
            clean(text),
            width,
            initial_indent=label.ljust(_LABEL),
            subsequent_indent=" " * _LABEL,
            break_long_words=True,
            break_on_hyphens=False,
        ) or [label]
