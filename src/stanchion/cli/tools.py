"""`stanchion tools`: what tools an agent has, what they cost in a prompt, and what a model finds among those that it is not shown."""

from __future__ import annotations

from typing import Annotated

import typer

from stanchion.cli.options import Output
from stanchion.cli.output import Column, one_line, print_json, print_text, say, table

app = typer.Typer(name="tools", no_args_is_help=True, help="List and find the tools of an agent.")

File = Annotated[str, typer.Argument(metavar="FILE", help="An agent's file (agent.py, agent.py:name).")]
ROWS: tuple[Column, ...] = (
    ("tool", lambda row: row["name"]),
    ("agent", lambda row: row["agent"]),
    ("group", lambda row: row["group"] or "-"),
    ("effect", lambda row: row["effect"]),
    ("shown", lambda row: "yes" if row["shown"] else "-"),
    ("tokens", lambda row: f"~{row['tokens']}"),
    ("description", lambda row: one_line(row["description"], 60)),
)


@app.command(name="ls")
def list_tools(file: File, output: Output = "text") -> None:
    """List tools: which stand in every prompt, and about how many tokens they are (an estimate: four characters each).

    \b
    Those that are not shown are found by the model with `find_tools` (search=ToolSearch(..) of an agent).

    \b
    Examples:
        stanchion tools ls agent.py
        stanchion tools ls agent.py -o json
    """
    from stanchion.runtime.authoring.tools import tools_of

    found = tools_of(file)
    if output == "json":
        print_json(found)
        return
    rows = [{name: getattr(view, name) for name in view.__struct_fields__} for view in found]
    table(rows, ROWS, empty="there are no tools")
    shown = [view.tokens for view in found if view.shown]
    hidden = [view.tokens for view in found if not view.shown]
    if found:
        say(
            f"shown in every prompt: {len(shown)}, about {sum(shown):,} tokens; to be found: {len(hidden)}, "
            f"about {sum(hidden):,} tokens (estimates)"
        )


@app.command()
def find(
    file: File,
    query: Annotated[str, typer.Argument(help="What is to be done, in a few words; or the name of a tool or a group.")],
    output: Output = "text",
) -> None:
    """Show what a model is answered that looks for tools: the best with their parameters, and the names of some more.

    \b
    Examples:
        stanchion tools find agent.py "refund a card payment"
        stanchion tools find agent.py billing
    """
    from stanchion.runtime.authoring.tools import answer_to

    text = answer_to(file, query)
    if output == "json":
        print_json({"text": text})
    else:
        print_text(text)
