"""Plots as SVG text: bars with their spread, and lines on logarithmic axes. No library, no script, no font but the reader's."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from html import escape
from typing import NamedTuple

OURS, THEIRS, INK, FAINT = "#0b6e4f", "#8a94a6", "#1f2933", "#d5dae1"
COLOURS = ("#0b6e4f", "#c8553d", "#3d5a98", "#e09f3e", "#7b4b94", "#4aa5a5", "#a1683a", "#6b7280", "#b23a78")
WIDTH, ROW, LEFT, RIGHT, TOP = 760, 26, 230, 150, 46
CHARACTER = 7.2
"""About how wide one is."""


class Bar(NamedTuple):
    label: str
    value: float
    low: float
    high: float
    ours: bool = False


class Line(NamedTuple):
    label: str
    points: Sequence[tuple[float, float]]
    colour: int = 0


def number(value: float) -> str:
    """Write a number with three digits that mean something."""
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def bars(title: str, unit: str, rows: Sequence[Bar], mark: float | None = None) -> str:
    """Draw horizontal bars; `mark` is a limit, drawn as a line across."""
    height = TOP + ROW * len(rows) + 16
    most = max([row.high for row in rows] + [mark or 0.0]) or 1.0
    scale = (WIDTH - LEFT - RIGHT) / most
    parts: list[str] = []
    for place, row in enumerate(rows):
        y = TOP + ROW * place
        colour = OURS if row.ours else THEIRS
        parts.append(_text(LEFT - 8, y + 14, row.label, anchor="end", weight="600" if row.ours else "400"))
        parts.append(
            f'<rect x="{LEFT}" y="{y + 3}" width="{max(row.value * scale, 1):.1f}" height="15" fill="{colour}"/>'
        )
        ends = LEFT + row.low * scale, LEFT + row.high * scale
        parts.append(f'<path d="M{ends[0]:.1f} {y + 10.5}H{ends[1]:.1f}" stroke="{INK}" stroke-width="1.5"/>')
        parts.append(_text(ends[1] + 8, y + 14, f"{number(row.value)} {unit}"))
    if mark is not None:
        x = LEFT + mark * scale
        parts.append(f'<path d="M{x:.1f} {TOP - 4}V{height - 12}" stroke="#c8553d" stroke-dasharray="4 3"/>')
    return _page(title, height, parts)


def lines(title: str, x_name: str, y_name: str, series: Sequence[Line]) -> str:
    """Draw lines on two logarithmic axes."""
    height, left, right = 400, 78, 256
    points = [point for line in series for point in line.points]
    if not points:
        return _page(title, height, [])
    x_of = _axis([x for x, _ in points], left, WIDTH - right)
    y_of = _axis([y for _, y in points], height - 48, TOP + 8)
    parts: list[str] = []
    for value in _marks([y for _, y in points]):
        y = y_of(value)
        parts.append(f'<path d="M{left} {y:.1f}H{WIDTH - right}" stroke="{FAINT}"/>')
        parts.append(_text(left - 6, y + 4, number(value), anchor="end"))
    parts += [_text(x_of(x), height - 30, number(x), anchor="middle") for x in sorted({x for x, _ in points})]
    parts.append(_text((left + WIDTH - right) / 2, height - 10, x_name, anchor="middle"))
    parts.append(_text(left - 6, TOP - 8, y_name, anchor="start"))
    ends = _apart([y_of(line.points[-1][1]) for line in series], 15)
    for line, end in zip(series, ends, strict=True):
        colour = COLOURS[line.colour % len(COLOURS)]
        spots = [(x_of(x), y_of(y)) for x, y in line.points]
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in spots)
        parts.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in spots]
        parts.append(_text(WIDTH - right + 12, end + 4, line.label, colour=colour, weight="600"))
    return _page(title, height, parts)


class Dots(NamedTuple):
    label: str
    values: Sequence[float | None]
    """One for each contender."""


def dots(title: str, x_name: str, names: Sequence[str], rows: Sequence[Dots]) -> str:
    """Draw a row of dots for each case, one colour for each contender, on a logarithmic axis that begins at 1."""
    left, right, top = 150, 24, 62
    height = top + ROW * len(rows) + 44
    most = max([value for row in rows for value in row.values if value is not None] + [1.1])
    x_of = _axis([1.0, most], left, WIDTH - right)
    parts: list[str] = []
    x = 16.0
    for place, name in enumerate(names):
        parts.append(f'<circle cx="{x:.0f}" cy="42" r="5" fill="{COLOURS[place % len(COLOURS)]}"/>')
        parts.append(_text(x + 9, 46, name))
        x += 36 + CHARACTER * len(name)
    for value in _marks([1.0, most]):
        parts.append(f'<path d="M{x_of(value):.1f} {top - 4}V{height - 40}" stroke="{FAINT}"/>')
        parts.append(_text(x_of(value), height - 26, number(value), anchor="middle"))
    parts.append(_text((left + WIDTH - right) / 2, height - 8, x_name, anchor="middle"))
    for place, row in enumerate(rows):
        y = top + ROW * place + 12
        parts.append(_text(left - 10, y + 4, row.label, anchor="end"))
        for at, value in reversed(list(enumerate(row.values))):  # ours, the first, on top
            if value is not None:
                colour = COLOURS[at % len(COLOURS)]
                parts.append(
                    f'<circle cx="{x_of(max(value, 1.0)):.1f}" cy="{y}" r="5" fill="{colour}" fill-opacity=".85"/>'
                )
    return _page(title, height, parts)


def _axis(values: Sequence[float], start: float, end: float) -> Callable[[float], float]:
    low, high = math.log10(min(values)), math.log10(max(values))
    span = (high - low) or 1.0
    return lambda value: start + (math.log10(value) - low) / span * (end - start)


def _marks(values: Sequence[float]) -> list[float]:
    """Give round values between the least and the most: powers of ten, and their halves where there are few."""
    low, high = min(values), max(values)
    powers = [10.0**power for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]
    steps = (1,) if high / low > 1_000 else (1, 2, 5)
    return [power * step for power in powers for step in steps if low <= power * step <= high]


def _apart(places: Sequence[float], least: float) -> list[float]:
    """Move labels so that none covers another, keeping their order."""
    order = sorted(range(len(places)), key=lambda i: places[i])
    moved = list(places)
    for before, after in itertools.pairwise(order):
        moved[after] = max(moved[after], moved[before] + least)
    return moved


def _text(x: float, y: float, text: str, *, anchor: str = "start", weight: str = "400", colour: str = INK) -> str:
    style = f'text-anchor="{anchor}" font-weight="{weight}" fill="{colour}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(text)}</text>'


def _page(title: str, height: float, parts: Sequence[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    style = 'font-family="system-ui, sans-serif" font-size="13" role="img"'
    body = "\n".join(parts)
    name = f"<title>{escape(title)}</title>"
    ground = f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>'
    return f"{head} {style}>\n{name}\n{ground}\n{_text(16, 24, title, weight='600')}\n{body}\n</svg>\n"
