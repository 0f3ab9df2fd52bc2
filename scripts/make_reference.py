"""Write docs/reference/{events,errors,cli,config}.md from the code (`make reference`), or fail on what is stale or undocumented.

Docstrings are the source: a class's, and the string below a field. A page whose source does not exist yet is left out; once
the page is committed its source must exist. `--check` writes nothing and fails when a page differs from the code.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import sys
import textwrap
import typing
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "docs/reference"
EVENTS = "stanchion.core.event:Event"
ERRORS = "stanchion.core.errors:StanchionError"
CLI = "stanchion.cli.main:app"
CONFIG = "stanchion.server.settings:Settings"


@dataclass
class Page:
    """A page in the making, and what it found without a word of documentation."""

    lines: list[str] = field(default_factory=list[str])
    undocumented: list[str] = field(default_factory=list[str])

    def add(self, *lines: str) -> None:
        self.lines += lines

    def require(self, text: str | None, what: str) -> str:
        """Return a documentation, or note that there is none."""
        if not (text or "").strip():
            self.undocumented.append(what)
        return inspect.cleandoc(text or "")

    def render(self) -> str:
        return "\n".join(["<!-- Written by scripts/make_reference.py from the code. Do not edit. -->", *self.lines, ""])


# --- what the source says ---------------------------------------------------------------------------------------------


@dataclass
class FieldDoc:
    """A field of a class, as its source writes it."""

    name: str
    type: str
    default: str
    doc: str


def find(source: str) -> Any:
    """Import `module:name`; None where there is no such module."""
    module, _, name = source.partition(":")
    parents = [module.rsplit(".", depth)[0] for depth in range(module.count("."), -1, -1)]
    if any(importlib.util.find_spec(parent) is None for parent in parents):
        return None
    return getattr(importlib.import_module(module), name)


def class_nodes(module: ModuleType) -> dict[str, ast.ClassDef]:
    return {node.name: node for node in ast.parse(inspect.getsource(module)).body if isinstance(node, ast.ClassDef)}


def fields_of(node: ast.ClassDef) -> Iterator[FieldDoc]:
    """List the annotated fields of a class with the strings below them."""
    following = [*node.body[1:], None]
    for statement, after in zip(node.body, following, strict=True):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            default = ast.unparse(statement.value) if statement.value else ""
            yield FieldDoc(statement.target.id, ast.unparse(statement.annotation), default, string_of(after))


def string_of(statement: ast.stmt | None) -> str:
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
        return inspect.cleandoc(str(statement.value.value))
    return ""


def code(text: str) -> str:
    """Write code into a table's cell: a bar would end it."""
    return f"`{text.replace('|', chr(92) + '|')}`" if text else ""


def cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    """Write a table, or nothing where it would have no row."""
    written = [f"| {' | '.join(row)} |" for row in rows]
    columns = list(head)
    return [f"| {' | '.join(columns)} |", f"|{' --- |' * len(columns)}", *written, ""] if written else []


def field_table(fields: Iterable[FieldDoc]) -> list[str]:
    rows = ((code(f.name), code(f.type), code(f.default) if f.default else "required", cell(f.doc)) for f in fields)
    return table(("field", "type", "default", ""), rows)


# --- the pages --------------------------------------------------------------------------------------------------------


def events_page(event: Any) -> Page:
    """Every member of the union, with its tag and its fields."""
    page = Page()
    kinds: tuple[type, ...] = typing.get_args(event)
    module = sys.modules[kinds[0].__module__]
    nodes = class_nodes(module)
    page.add("# Events", "", page.require(module.__doc__, "stanchion.core.event"), "")
    page.add("Every event also has `parts`, its content: labelled parts of a message, `()` by default.", "")
    for kind in kinds:
        doc = page.require(kind.__dict__.get("__doc__"), f"event {kind.__name__}")
        tag = typing.cast("Any", kind).__struct_config__.tag
        page.add(f"## {kind.__name__}", "", f"Type `{tag}`. {doc}", "", *field_table(fields_of(nodes[kind.__name__])))
    return page


def errors_page(root: Any) -> Page:
    """The tree of errors, and the codes of a failed model call."""
    page = Page()
    module = sys.modules[root.__module__]
    page.add("# Errors", "", *tree_text(page.require(module.__doc__, "stanchion.core.errors")), "")
    for error in descend(root):
        doc = page.require(error.__dict__.get("__doc__"), f"error {error.__name__}")
        head, _, rest = doc.partition("\n\n")
        retry = "may be retried" if error.retryable else "not to be retried as it is"
        page.add(f"## {error.__name__}", "", f"Code `{error.code}`, fault: {error.fault}, {retry}.", "", head, "")
        page.add(*([rest, ""] if rest else []))
    page.add("## Codes of ModelError", "", *table(("code", ""), model_error_codes(inspect.getsource(module))))
    return page


def tree_text(doc: str) -> list[str]:
    """Fence the drawn tree within the module's docstring."""
    lines, fenced = list[str](), False
    for line in doc.splitlines():
        drawn = line.startswith("    ")
        if drawn != fenced:
            lines.append("```text" if drawn else "```")
            fenced = drawn
        lines.append(line[4:] if drawn else line)
    return lines + (["```"] if fenced else [])


def descend(error: Any) -> Iterator[Any]:
    """List an error and those below it in its module, in the order of the source."""
    yield error
    for child in error.__subclasses__():
        if child.__module__ == error.__module__:
            yield from descend(child)


def model_error_codes(source: str) -> Iterator[tuple[str, str]]:
    """Read the codes and the comments beside them: a Literal keeps no comment at run time."""
    inside = source.partition("ModelErrorCode = Literal[")[2].partition("\n]")[0]
    for line in inside.strip().splitlines():
        value, _, comment = line.partition("#")
        yield code(value.strip().strip('",')), cell(comment)


def cli_page(app: Any) -> Page:
    """Every command with its arguments and options."""
    typer_main = importlib.import_module("typer.main")
    page = Page()
    page.add("# Command line", "")
    add_command(page, typer_main.get_command(app), "stanchion")
    return page


def add_command(page: Page, command: Any, path: str) -> None:
    """Write a command and those below it."""
    doc = page.require(command.help, f"command {path}").replace("\b\n", "").replace("\f", "")
    page.add(f"## {path}", "", *preformatted(doc), "")
    page.add(*([*preformatted(inspect.cleandoc(command.epilog)), ""] if command.epilog else []))
    shown = [p for p in command.params if p.name not in {"help", "install_completion", "show_completion"}]
    rows = [parameter_row(page, parameter, path) for parameter in shown if not getattr(parameter, "hidden", False)]
    page.add(*table(("", "default", ""), rows))
    for name, child in getattr(command, "commands", {}).items():
        if not child.hidden:
            add_command(page, child, f"{path} {name}")


def preformatted(doc: str) -> list[str]:
    """Fence indented examples as plain text."""
    return tree_text("\n".join(line.rstrip() for line in doc.splitlines()))


def parameter_row(page: Page, parameter: Any, path: str) -> tuple[str, str, str]:
    argument = parameter.param_type_name == "argument"
    names = parameter.name.upper() if argument else ", ".join([*parameter.opts, *parameter.secondary_opts])
    doc = page.require(getattr(parameter, "help", ""), f"{path}: {names}")
    default = "" if parameter.default in (None, False, ()) or callable(parameter.default) else str(parameter.default)
    envvar = f" (`{parameter.envvar}`)" if isinstance(parameter.envvar, str) else ""
    return code(names), "required" if parameter.required else code(default), cell(doc) + envvar


def config_page(settings: Any) -> Page:
    """Every setting, from a struct or dataclass whose fields each have a string below them."""
    page = Page()
    module = sys.modules[settings.__module__]
    page.add("# Configuration", "", page.require(settings.__doc__, settings.__name__), "")
    fields = list(fields_of(class_nodes(module)[settings.__name__]))
    for setting in fields:
        page.require(setting.doc, f"setting {setting.name}")
    page.add(*field_table(fields))
    return page


WRITERS: dict[str, tuple[str, Callable[[Any], Page]]] = {
    "events": (EVENTS, events_page),
    "errors": (ERRORS, errors_page),
    "cli": (CLI, cli_page),
    "config": (CONFIG, config_page),
}


def problems_of(name: str, *, write: bool) -> list[str]:
    """Write or check a page, and say what is wrong with it."""
    source, writer = WRITERS[name]
    target = PAGES / f"{name}.md"
    found = find(source)
    if found is None:
        return [f"{name}.md is committed and its source {source} is gone"] if target.exists() else []
    page = writer(found)
    text = page.render()
    if write:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    stale = not target.exists() or target.read_text() != text
    undocumented = [f"undocumented: {what}" for what in page.undocumented]
    return [*undocumented, *([f"{name}.md is stale; run `make reference`"] if stale else [])]


def main(arguments: list[str]) -> int:
    """Write the pages, or check them; the exit code tells whether something is wrong."""
    problems = [problem for name in WRITERS for problem in problems_of(name, write="--check" not in arguments)]
    for problem in problems:
        print(problem, file=sys.stderr)
    missing = [f"{name} ({source})" for name, (source, _) in WRITERS.items() if find(source) is None]
    print(
        textwrap.shorten(f"no source yet: {', '.join(missing)}", 200) if missing else "reference: every page is written"
    )
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
