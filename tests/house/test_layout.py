"""Who may import whom, how long things may be, and what a committed file may not hold."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
SURFACES = ("server", "evals", "release", "cli")
BEHIND_RUNTIME = ("engine", "broker", "journal", "model", "toolbox", "loop", "guard", "context")
FUNCTION_LINES = 70
FILE_LINES = 800
PIN = re.compile(r"[a-z0-9][a-z0-9._-]*(\[[a-z0-9,_-]+\])?==[0-9][A-Za-z0-9.+!]*( ; .+)?")


@cache
def imports() -> grimp.ImportGraph:
    return grimp.build_graph("stanchion", cache_dir=None)


@pytest.mark.parametrize("surface", SURFACES)
def test_a_surface_reaches_behaviour_only_through_runtime(surface: str) -> None:
    """HTTP, CLI, evaluations and releases see the facade and the types of core; what is behind it can change."""
    behind = tuple(f"stanchion.{room}" for room in BEHIND_RUNTIME)
    inside = [module for module in imports().modules if module.startswith(f"stanchion.{surface}")]
    direct = {(module, found) for module in inside for found in imports().find_modules_directly_imported_by(module)}
    assert {pair for pair in direct if re.fullmatch(rf"({'|'.join(behind)})(\..+)?", pair[1])} == set()


def test_an_import_against_the_layers_is_refused(tmp_path: Path) -> None:
    """Up, sideways, and a room that no layer names: the rules of pyproject.toml find each."""
    files = {
        "core/up.py": "import stanchion.model.side",
        "model/side.py": "import stanchion.toolbox.other",
        "toolbox/other.py": "",
        "runtime/runs/up.py": "import stanchion.runtime.desks.side",
        "runtime/desks/side.py": "import stanchion.runtime.money.other",
        "runtime/money/other.py": "",
        "attic/__init__.py": "",
    }
    for name, text in files.items():
        path = tmp_path / "src/stanchion" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        for room in path.parents[: path.parts[::-1].index("stanchion")]:
            (room / "__init__.py").touch()
        path.write_text(text)
    config = tmp_path / "pyproject.toml"
    config.write_text((ROOT / "pyproject.toml").read_text())
    said = lint_imports(tmp_path)
    assert "stanchion.attic" in said
    (tmp_path / "src/stanchion/attic/__init__.py").unlink()
    (tmp_path / "src/stanchion/attic").rmdir()
    said = lint_imports(tmp_path)
    assert "stanchion.core.up -> stanchion.model.side" in said
    assert "stanchion.model.side -> stanchion.toolbox.other" in said
    assert "stanchion.runtime.runs.up -> stanchion.runtime.desks.side" in said
    assert "stanchion.runtime.desks.side -> stanchion.runtime.money.other" in said


def lint_imports(root: Path) -> str:
    """Run the import rules over a tree; they must be broken."""
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache", "--no-logo"],
        cwd=root, env=os.environ | {"PYTHONPATH": str(root / "src")}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode, done.stdout
    return done.stdout + done.stderr


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def test_no_function_is_longer_than_the_cap() -> None:
    """A function that does not fit a screen has two owners; split it."""
    long = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}: {length} lines"
        for path in SOURCES
        for node in functions(path)
        if (length := (node.end_lineno or node.lineno) - node.lineno + 1) > FUNCTION_LINES
    ]
    assert long == []


def test_no_file_is_longer_than_the_cap() -> None:
    """A file of 800 lines is two files."""
    assert [str(path) for path in SOURCES if path.read_text().count("\n") > FILE_LINES] == []


def committed() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout: nothing says which files are committed")
    return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def test_no_committed_file_holds_a_path_of_this_machine() -> None:
    """A path that exists only where somebody worked does not belong in a file for everybody."""
    homes = r"/(?:home|Users)/[A-Za-z0-9_][\w.-]*/"
    here = "|".join(re.escape(str(path)) for path in (ROOT, ROOT.parent) if len(path.parts) > 1)
    private = re.compile(rf"(?<![\w.:/-])(?:{homes}|(?:{here})(?![\w.-]))")
    found = [
        f"{path.relative_to(ROOT)}: {hit[0]}"
        for path in committed()
        if (hit := private.search(path.read_bytes().decode(errors="replace")))
    ]
    assert found == []


@pytest.mark.parametrize("name", ["run.txt", "dev.txt"])
def test_a_lock_holds_exact_versions_and_no_host(name: str) -> None:
    """Every line is a pin or a comment; where packages come from is the machine's affair."""
    lines = (ROOT / "requirements" / name).read_text().splitlines()
    pins = [line for line in lines if line.strip() and not line.strip().startswith("#")]
    assert [line for line in pins if not PIN.fullmatch(line)] == []
    assert not [line for line in lines if "://" in line]


def test_the_lock_covers_what_the_project_asks_for() -> None:
    """A dependency that was added without `make lock` is found here."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    asked = {"run.txt": project["project"]["dependencies"], "dev.txt": project["dependency-groups"]["dev"]}
    for name, requirements in asked.items():
        lock = (ROOT / "requirements" / name).read_text()
        names = {re.split(r"[\[<>=;! ]", requirement)[0].lower() for requirement in requirements}
        assert [
            wanted for wanted in sorted(names) if not re.search(rf"^{re.escape(wanted)}==", lock, re.MULTILINE)
        ] == []
