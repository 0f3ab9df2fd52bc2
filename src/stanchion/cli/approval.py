"""How a call that waits looks on a terminal: first why not, then what it would do, then all that is known of it.

The first screen must do for a no. What a model or a third party wrote stands in quotes, without its control characters.
"""

from __future__ import annotations

import contextlib
import os
import textwrap
from collections.abc import Iterator, Sequence

import msgspec

from stanchion.cli.desk import Json
from stanchion.cli.output import clean, one_line, when

FIRST = (5, 2, 2)
"""Lines of the reasons on the first screen: the gravest is told whole."""
_LABEL = 13


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
    width = _width() - _LABEL - 6  # lines break at words
    shown = [_cut(line, lines * width) for line, lines in zip(said, FIRST, strict=False)]
    return [*shown, f"and {len(said) - len(FIRST)} more, below"] if len(said) > len(FIRST) else shown


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
        yield from _field("model says", [f"{_quoted(claim, 600)} (its own words, which prove nothing)"])
    yield from _field("arguments", [msgspec.json.encode(waiting["arguments"]).decode()])
    yield from _field("values", [_value(row) for row in waiting.get("values") or ()])
    later = str(waiting.get("why") or "").splitlines()[len(FIRST) :]
    yield from _field("also", [_cut(" ".join(line.split()), 560) for line in later])
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
    return f"{where}: {_quoted(origin['around'], 160)}"


def _quoted(text: str, most: int) -> str:
    """Quote what others wrote on one line, so that it cannot end the quote itself."""
    return '"' + one_line(text.replace('"', "'"), most) + '"'


def _rule(rule: Json) -> str:
    return ": ".join(piece for piece in (rule.get("rule", ""), one_line(rule.get("text", ""), 300)) if piece)


def _precedent(past: Json) -> str:
    why = f": {_quoted(past['reason'], 120)}" if past.get("reason") else ""
    same = "the same call" if past["same"] == "call" else "the same destination"
    return f"{past['decision']} by {past['by']}, {when(past['at_ms'])}, {same} ({past['run']} {past['call']}){why}"


def _width() -> int:
    """Columns of the terminal, also where a pager stands between: of whichever of the three streams is one."""
    said = os.environ.get("COLUMNS", "")
    width = int(said) if said.isdecimal() else 0
    for stream in (1, 2, 0):
        with contextlib.suppress(OSError):
            width = width or os.get_terminal_size(stream).columns
    return min(max(width or 100, 60), 140)


def _field(name: str, said: Sequence[str]) -> Iterator[str]:
    """Write a field with its name before it, wrapped to the terminal."""
    width = _width()
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
