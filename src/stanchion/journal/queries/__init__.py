"""The SQL of the stores, one file each: statements under `-- name:` lines, read once when the adapter is imported."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import resources


def text(file: str) -> str:
    """Read a file of this folder."""
    return resources.files(__name__).joinpath(file).read_text(encoding="utf-8")


@cache
def named(file: str) -> Mapping[str, str]:
    """Read the statements of a file by their names."""
    statements: dict[str, str] = {}
    for block in text(file).split("-- name: ")[1:]:
        name, _, sql = block.partition("\n")
        lines = (line for line in sql.splitlines() if not line.lstrip().startswith("--"))
        statements[name.strip()] = " ".join(" ".join(lines).split()).rstrip("; ")
    return statements
