"""What goes to the terminal: data on stdout, messages on stderr.

`-o json` prints one JSON document, or JSON lines for a stream. `-o text` prints tables, with rich where stdout is a
terminal and as plain aligned columns elsewhere. What a model or a tool wrote never reaches a terminal with its control
characters.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

Form = Literal["text", "json"]
Row = Mapping[str, Any]
Column = tuple[str, Callable[[Row], str]]
"""A heading, and how a row's cell is written."""


def print_json(value: Any) -> None:
    """Print one JSON document, readable."""
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")


def print_line(value: Any) -> None:
    """Print one line of a stream of JSON documents, at once."""
    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")
    sys.stdout.flush()


def print_text(text: str, *, end: str = "\n") -> None:
    """Print data as text, at once."""
    sys.stdout.write(clean(text) + end)
    sys.stdout.flush()


def say(message: str) -> None:
    """Tell the person at the terminal something that is not data."""
    sys.stderr.write(clean(message) + "\n")
    sys.stderr.flush()


def clean(text: str) -> str:
    """Show control characters in place of sending them: a tool's result must not move the cursor or set a title."""
    if text.isprintable():
        return text
    return "".join(char if char in "\n\t" or not _controls(char) else repr(char)[1:-1] for char in text)


def _controls(char: str) -> bool:
    return char < " " or "\x7f" <= char <= "\x9f" or char in "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


def one_line(text: str, width: int = 100) -> str:
    """Shorten a text to one line."""
    flat = " ".join(text.split())
    return flat if len(flat) <= width else f"{flat[: width - 1]}…"


def table(rows: Iterable[Row], columns: Sequence[Column], *, empty: str) -> None:
    """Print rows as a table; where there are none, say so on stderr."""
    cells = [[clean(one_line(write(row), 200)) for _, write in columns] for row in rows]
    if not cells:
        say(empty)
    elif is_terminal():
        _rich_table([heading for heading, _ in columns], cells)
    else:
        _plain_table([heading for heading, _ in columns], cells)


def is_terminal() -> bool:
    """Tell whether stdout is a terminal that may be drawn on."""
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def colored() -> bool:
    """Tell whether colour may be used on stderr (https://no-color.org)."""
    return sys.stderr.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def dim(text: str) -> str:
    """Grey, where colour may be used."""
    return f"\x1b[2m{text}\x1b[0m" if colored() else text


def _rich_table(headings: list[str], cells: list[list[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        drawn.add_column(heading, overflow="fold")
    for row in cells:
        drawn.add_row(*(Text(cell) for cell in row))
    Console().print(drawn)


def _plain_table(headings: list[str], cells: list[list[str]]) -> None:
    widths = [max(len(row[i]) for row in [headings, *cells]) for i in range(len(headings))]
    for row in [headings, *cells]:
        padded = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        sys.stdout.write("  ".join(padded).rstrip() + "\n")


def usd(nano_usd: int) -> str:
    """Write money for a person: at least cents, at most six decimals, rounded up, so that nothing looks free."""
    micro = -(-nano_usd // 1000)
    text = f"{micro // 1_000_000}.{micro % 1_000_000:06d}".rstrip("0")
    whole, _, decimals = text.partition(".")
    return f"${whole}.{decimals.ljust(2, '0')}"


def when(at_ms: int) -> str:
    """Write a time for a person, in their time zone; "-" where there is none."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S") if at_ms else "-"


def took(ms: int) -> str:
    """Write a length of time."""
    return f"{ms} ms" if ms < 1000 else f"{ms / 1000:.1f} s"


def size(chars: int) -> str:
    """Write the length of a text."""
    return f"{chars:,} char{'' if chars == 1 else 's'}"
