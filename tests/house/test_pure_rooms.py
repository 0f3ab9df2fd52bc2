"""The pure rooms are pure: no clock, no chance, no I/O, nothing awaited, and no library that does such things."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src/stanchion"
PURE_ROOMS = ("core", "guard", "context", "loop")
PURE_FILES = sorted(path for room in PURE_ROOMS for path in (PACKAGE / room).rglob("*.py"))
BUILTINS_WITH_EFFECTS = {"open", "input", "print", "hash", "id", "exec", "eval", "breakpoint"}
LIBRARIES = {"msgspec", "stanchion"}
"""All that a pure room may import besides the standard library."""

FORBIDDEN = """\
import asyncio
import os.path
import random
import time
import uuid
from datetime import datetime
from pathlib import Path
NOW = datetime.now()
"""


def banned_in(path: str, source: str) -> set[str]:
    """Names that ruff finds banned in a source, were it at this path."""
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--select=TID251", "--output-format=json", f"--stdin-filename={path}", "-"],
        input=source, capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip
    return {finding["message"].split("`")[1] for finding in json.loads(done.stdout)}


@pytest.mark.parametrize("room", PURE_ROOMS)
def test_ruff_bans_clocks_ids_and_io_in_a_pure_room(room: str) -> None:
    """The rule is on where it must be: a file with every kind of impurity is refused for each."""
    banned = banned_in(f"src/stanchion/{room}/deep/new.py", FORBIDDEN)
    assert banned == {"asyncio", "os", "random", "time", "uuid", "datetime.datetime.now", "pathlib"}


def test_ruff_bans_nothing_at_the_edge() -> None:
    """The same file may stand in the engine, in a test and in a script."""
    assert [banned_in(path, FORBIDDEN) for path in ("src/stanchion/engine/a.py", "tests/a.py", "scripts/a.py")] == [
        set()
    ] * 3


def impurities(path: Path) -> Iterator[str]:
    """What ruff's rule does not see: builtins with effects, coroutines, and libraries that are not pure."""
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.AsyncFunctionDef() | ast.Await() | ast.AsyncFor() | ast.AsyncWith():
                yield f"{node.lineno}: nothing in a pure room awaits"
            case ast.Call(func=ast.Name(id=name)) if name in BUILTINS_WITH_EFFECTS:
                yield f"{node.lineno}: {name}()"
            case ast.Import(names=names):
                yield from (f"{node.lineno}: import {name.name}" for name in names if foreign(name.name))
            case ast.ImportFrom(module=str(module)) if foreign(module):
                yield f"{node.lineno}: from {module}"
            case _:
                pass


def foreign(module: str) -> bool:
    top = module.partition(".")[0]
    return top not in LIBRARIES and top not in sys.stdlib_module_names


@pytest.mark.parametrize("path", PURE_FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_pure_file_has_no_effects(path: Path) -> None:
    """Every file of the pure rooms, as it is."""
    assert list(impurities(path)) == []


def test_the_search_for_effects_finds_them(tmp_path: Path) -> None:
    """The test above can fail: a file with one of each is found out."""
    probe = tmp_path / "probe.py"
    probe.write_text("import aiohttp\nfrom apsw import x\nasync def f():\n    await g()\nopen('a')\nhash('a')\n")
    assert sorted(line for line in impurities(probe)) == [
        "1: import aiohttp",
        "2: from apsw",
        "3: nothing in a pure room awaits",
        "4: nothing in a pure room awaits",
        "5: open()",
        "6: hash()",
    ]
