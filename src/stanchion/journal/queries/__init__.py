"""The SQL of the stores, a folder each: statements under `-- name:` lines, one file for each concern, read once.

`migrations/NNNN_name.sql` brings a schema from the version before it to version NNNN. A new database runs all of them, an
older one those that it lacks: there is one way to a schema.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import resources


def text(file: str) -> str:
    """Read a file of this folder."""
    return resources.files(__name__).joinpath(file).read_text(encoding="utf-8")


@cache
def migrations(store: str) -> Mapping[int, str]:
    """Read the migrations of a store ("sqlite", "postgres") by the version that each leads to, in order."""
    folder = resources.files(__name__).joinpath(store, "migrations")
    files = sorted(file.name for file in folder.iterdir() if file.name.endswith(".sql"))
    return {int(name.partition("_")[0]): text(f"{store}/migrations/{name}") for name in files}


@cache
def named(file: str) -> Mapping[str, str]:
    """Read the statements of a file by their names."""
    statements: dict[str, str] = {}
    for block in text(file).split("-- name: ")[1:]:
        name, _, sql = block.partition("\n")
        lines = (line for line in sql.splitlines() if not line.lstrip().startswith("--"))
        statements[name.strip()] = " ".join(" ".join(lines).split()).rstrip("; ")
    return statements
