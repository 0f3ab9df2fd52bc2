"""The SQL of the stores, a folder each: statements under `-- name:` lines, one file for each concern, read once.

`migrations/NNNN_name.sql` brings a schema from the version before it to version NNNN. A new database runs all of them, an
older one those that it lacks: there is one way to a schema.

A migration after which programs of the version before it still work says so in a line that begins with `-- additive`: it adds
tables, columns with defaults, or indices, and nothing that an older program writes is wrong by it. `compatible_from` is the
last one that does not: programs that know a lesser version must not touch the schema.
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


def compatible_from(statements: Mapping[int, str]) -> int:
    """Give the version that a program must know at least to work with a schema made by these migrations."""
    return max((version for version, sql in statements.items() if not _is_additive(sql)), default=0)


def _is_additive(sql: str) -> bool:
    return any(line.startswith("-- additive") for line in sql.splitlines())


@cache
def named(file: str) -> Mapping[str, str]:
    """Read the statements of a file by their names."""
    statements: dict[str, str] = {}
    for block in text(file).split("-- name: ")[1:]:
        name, _, sql = block.partition("\n")
        lines = (line for line in sql.splitlines() if not line.lstrip().startswith("--"))
        statements[name.strip()] = " ".join(" ".join(lines).split()).rstrip("; ")
    return statements
