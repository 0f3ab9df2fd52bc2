"""`stanchion skills`: what skills there are, whether they can be used, and what the model reads of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from stanchion.cli.errors import ExitCode
from stanchion.cli.options import Output
from stanchion.cli.output import Column, one_line, print_json, print_text, say, table
from stanchion.core.errors import NotFound

if TYPE_CHECKING:
    from stanchion.runtime.authoring.skills import SkillView

app = typer.Typer(name="skills", no_args_is_help=True, help="List, check and show skills.")

Targets = Annotated[
    list[str],
    typer.Argument(
        metavar="FILE..", help="Agents' files (agent.py, agent.py:name), skills' folders, or folders of them."
    ),
]
ROWS: tuple[Column, ...] = (
    ("skill", lambda row: row["name"]),
    ("version", lambda row: row["version"] or "-"),
    ("digest", lambda row: row["digest"]),
    ("agent", lambda row: row["agent"] or "-"),
    ("tools", lambda row: ", ".join(row["tools"]) or "-"),
    ("rules", lambda row: str(len(row["rules"]))),
    ("prompt", lambda row: f"~{row['index_tokens']}"),
    ("opened", lambda row: f"~{row['body_tokens']}"),
    ("description", lambda row: one_line(row["description"], 60)),
)


@app.command(name="ls")
def list_skills(files: Targets, output: Output = "text") -> None:
    """List skills: what each costs in every prompt and once it is opened, in tokens (an estimate: four characters each).

    \b
    Examples:
        stanchion skills ls agent.py
        stanchion skills ls skills/ -o json
    """
    from stanchion.runtime.authoring.skills import HEADING_TOKENS

    found = _found(files)
    if output == "json":
        print_json(found)
        return
    table([_row(view) for view in found], ROWS, empty="there are no skills")
    if found:
        prompt = HEADING_TOKENS + sum(view.index_tokens for view in found)
        opened = sum(view.body_tokens for view in found)
        say(f"about {prompt} tokens in every prompt, about {opened} more if all are opened (estimates)")


@app.command()
def check(
    files: Targets,
    agent: Annotated[
        list[str] | None,
        typer.Option("--agent", metavar="AGENT", help="Agents' files whose tools the skills are held against."),
    ] = None,
    output: Output = "text",
) -> None:
    """Check that skills can be read and that their tools and arguments exist; say what is doubtful.

    \b
    Each problem has file and line. Warnings (keys that mean nothing here, files that the model is not shown) are no problem.

    \b
    Examples:
        stanchion skills check agent.py
        stanchion skills check skills/ --agent agent.py

    \b
    Exit codes: 0 in order, 1 not.
    """
    from stanchion.runtime.authoring.skills import check_skill_files

    checked = check_skill_files(files, agent or ())
    if output == "json":
        print_json(checked)
    else:
        for warning in checked.warnings:
            say(f"warning: {warning}")
        for problem in checked.problems:
            print_text(problem)
        rules = sum(len(view.rules) for view in checked.skills)
        say(f"in order: {len(checked.skills)}; rules that are enforced: {rules}; problems: {len(checked.problems)}")
    if checked.problems:
        raise typer.Exit(int(ExitCode.FAILED))


@app.command()
def show(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="An agent's file, a skill's folder, or a folder of them.")
    ],
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="Which skill; without it all of them.")] = "",
    output: Output = "text",
) -> None:
    """Show a skill: its line in every prompt, what becomes a rule, and what the model reads when it opens it.

    \b
    Examples:
        stanchion skills show skills/refunds
        stanchion skills show agent.py refunds
    """
    found = _found([file])
    chosen = [view for view in found if not name or view.name == name]
    if not chosen:
        there = ", ".join(view.name for view in found) or "none"
        raise NotFound(f"there is no skill {name!r}; there are: {there}")
    if output == "json":
        print_json(chosen[0] if name else chosen)
        return
    for number, view in enumerate(chosen):
        print_text("\n" * bool(number), end="")
        _print(view)


def _print(view: SkillView) -> None:
    version = f" {view.version}" if view.version else ""
    print_text(f"{view.name}{version} ({view.digest}) {view.file}".rstrip())
    print_text(f"  {view.description}")
    for what, said in (
        ("use it when", view.trigger),
        ("its tools", ", ".join(view.tools)),
        ("evals (not run)", ", ".join(view.evals)),
    ):
        if said:
            print_text(f"  {what}: {said}")
    for rule in view.rules:
        print_text(f"  enforced: {rule}")
    for warning in view.warnings:
        say(f"warning: {warning}")
    tokens = f"about {view.index_tokens} tokens in every prompt, about {view.body_tokens} once opened (estimates)"
    print_text(f"  {tokens}\n\n{view.text}")


def _found(files: Sequence[str]) -> list[SkillView]:
    from stanchion.runtime.authoring.skills import skills_of

    return [view for file in files for view in skills_of(file)]


def _row(view: SkillView) -> dict[str, object]:
    return {name: getattr(view, name) for name in view.__struct_fields__}
