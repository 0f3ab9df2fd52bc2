"""Read a docstring: what a tool is for, and what each of its parameters means.

Google (`Args:`), NumPy (`Parameters` underlined) and Sphinx (`:param x:`) forms are read. A section whose parameters are
all known is moved from the description into the schema, so that the model reads it once and hears nothing of hidden
parameters; any other text stays as written.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Collection

_GOOGLE_HEAD = re.compile(r"(?:Args|Arguments|Parameters|Params):\s*")
_ENTRY = re.compile(r"\*{0,2}(\w+)\s*(?:\([^)]*\))?\s*:\s*(.*)")
_NUMPY_ENTRY = re.compile(r"\*{0,2}(\w+)\s*(?::.*)?")
_SPHINX = re.compile(r":param\s+(?:[^:]*\s)?(\w+):\s*(.*)")
_SPHINX_TYPE = re.compile(r":type\s+\w+:")


def read_docstring(text: str | None, names: Collection[str]) -> tuple[str, dict[str, str]]:
    """Split a docstring into a description and the descriptions of the parameters `names`."""
    lines = inspect.cleandoc(text or "").splitlines()
    for read in (_read_section, _read_sphinx):
        found = read(lines, names)
        if found is not None:
            rest, entries = found
            description = re.sub(r"\n{3,}", "\n\n", "\n".join(rest)).strip()
            return description, {name: " ".join(said).strip() for name, said in entries.items()}
    return "\n".join(lines).strip(), {}


_Read = tuple[list[str], dict[str, list[str]]]


def _read_section(lines: list[str], names: Collection[str]) -> _Read | None:
    """Read a Google or NumPy section: indented under a head with a colon, or flush under an underlined one."""
    for at, line in enumerate(lines):
        underlined = at + 1 < len(lines) and re.fullmatch(r"-{3,}", lines[at + 1].strip())
        if line.strip() == "Parameters" and underlined:
            return _entries(lines, at, at + 2, names, _NUMPY_ENTRY, flush=True)
        if _GOOGLE_HEAD.fullmatch(line):
            return _entries(lines, at, at + 1, names, _ENTRY, flush=False)
    return None


def _entries(
    lines: list[str], head: int, first: int, names: Collection[str], form: re.Pattern[str], *, flush: bool
) -> _Read | None:
    end = _section_end(lines, first, flush=flush)
    body = [line for line in lines[first:end] if line.strip()]
    if not body:
        return None
    margin = min(len(line) - len(line.lstrip()) for line in body)
    entries: dict[str, list[str]] = {}
    current: list[str] = []
    for line in body:
        if len(line) - len(line.lstrip()) > margin:
            current.append(line.strip())
            continue
        found = form.fullmatch(line.strip())
        if found is None or found[1] not in names:
            return None
        current = entries.setdefault(found[1], [])
        if form is _ENTRY:
            current.append(found[2])
    return lines[:head] + lines[end:], entries


def _section_end(lines: list[str], first: int, *, flush: bool) -> int:
    for at in range(first, len(lines)):
        line = lines[at]
        if flush and at + 1 < len(lines) and re.fullmatch(r"-{3,}", lines[at + 1].strip()):
            return at
        if flush and line.strip() and not line[0].isspace() and not lines[at - 1].strip():
            return at
        if not flush and line.strip() and not line[0].isspace():
            return at
    return len(lines)


def _read_sphinx(lines: list[str], names: Collection[str]) -> _Read | None:
    rest: list[str] = []
    entries: dict[str, list[str]] = {}
    current: list[str] | None = None
    for line in lines:
        found = _SPHINX.match(line)
        if found is not None:
            if found[1] not in names:
                return None
            current = entries.setdefault(found[1], [])
            current.append(found[2])
        elif current is not None and line.strip() and line[0].isspace():
            current.append(line.strip())
        else:
            current = None
            if not _SPHINX_TYPE.match(line):
                rest.append(line)
    return (rest, entries) if entries else None
