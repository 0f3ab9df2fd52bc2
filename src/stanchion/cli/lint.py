"""`stanchion lint`: what in an agent's file makes its prompts dearer than they need to be."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stanchion.cli.errors import ExitCode
from stanchion.cli.options import Output
from stanchion.cli.output import print_json, say
from stanchion.core.errors import InputError


def lint(
    files: Annotated[list[str], typer.Argument(metavar="FILE..", help="Agent files.")],
    run: Annotated[
        bool,
        typer.Option(
            "--run", help="Load each file twice as well: compare what is sent byte by byte, and count the tools in it."
        ),
    ] = False,
    output: Output = "text",
) -> None:
    """Find what keeps a provider from caching the beginning of an agent's requests.

    \b
    Identity and tools stand before every conversation. A clock, a random number, an id, an unsorted set or a user's name in
    them makes each request begin differently, and everything behind it is paid in full again. So are more than 40 tools in each
    prompt, of which a model chooses worse; and a run that may have more than 60 turns reads all of itself at each, unless it is
    compacted. The file is not run, unless --run is given.

    \b
    Examples:
        stanchion lint agent.py
        stanchion lint agents/*.py --run -o json
    """
    from stanchion.runtime.authoring.linting import lint as look
    from stanchion.runtime.authoring.linting import tried

    rows: list[dict[str, str | int]] = []
    for file in files:
        try:
            source = Path(file).read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"cannot read {file!r}: {error}", field="FILE") from None
        rows += [
            {"file": file, "line": one.line, "column": one.column, "rule": one.rule, "text": one.text, "fix": one.fix}
            for one in [*look(source, file), *(tried(file) if run else ())]
        ]
    if output == "json":
        print_json(rows)
    else:
        for row in rows:
            say(f"{row['file']}:{row['line']}:{row['column']}: {row['text']}; {row['fix']} [{row['rule']}]")
        say("nothing found" if not rows else f"{len(rows)} found")
    if rows:
        raise typer.Exit(ExitCode.FAILED)
