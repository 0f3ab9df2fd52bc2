"""The options that several commands share, said once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stanchion.cli.output import Form
from stanchion.core.errors import InputError

Output = Annotated[Form, typer.Option("--output", "-o", help="Text for people, or JSON for programs.")]
Data = Annotated[
    str,
    typer.Option(
        "--data",
        metavar="FILE|URL",
        help="The data file, or postgresql://user@host/database. Env STANCHION_DATA; default stanchion.db.",
        show_default=False,
    ),
]
Url = Annotated[
    str,
    typer.Option(
        "--url", help="Ask the server at this address, not a data file. Env STANCHION_URL.", show_default=False
    ),
]
ApiKey = Annotated[
    str,
    typer.Option("--api-key", help="The key for that server. Env STANCHION_API_KEY.", show_default=False),
]
Tenant = Annotated[
    str, typer.Option("--tenant", help="Whose data; with --url the API key says it.", show_default=False)
]
Run = Annotated[str, typer.Argument(metavar="RUN", help="Id of a run; `stanchion runs ls` lists them.")]
By = Annotated[str, typer.Option("--by", help="Who does it, for the journal; default: your user name.")]
Model = Annotated[
    str, typer.Option("--model", metavar="PROVIDER:MODEL", help="Use this model in place of the agent's.")
]
Simulated = Annotated[
    bool, typer.Option("--simulated", help="Start a simulated model provider and use it: no key, no model, no cost.")
]
SimulatedIfNoKey = Annotated[
    bool,
    typer.Option("--simulated-if-no-key", help="As --simulated, but only if no key for the agent's provider is set."),
]
Policies = Annotated[
    list[str] | None,
    typer.Option(
        "--policies",
        metavar="FILE|DIR",
        help="Cedar policies beside the agents' own rules: a file, or a folder of *.cedar; may be repeated, also in "
        "STANCHION_POLICIES. Read again when they change. See `stanchion policy`.",
    ),
]
SimScript = Annotated[
    str, typer.Option("--sim-script", metavar="FILE", help="What the simulated provider plays (docs: sim).")
]


def text_of(value: str, field: str) -> str:
    """Give what an option says, or what the file says that it names with an @. Raises `InputError`."""
    if not value.startswith("@"):
        return value
    try:
        return Path(value[1:]).read_text()
    except OSError as error:
        raise InputError(f"cannot read {value[1:]!r}: {error.strerror}", field=field) from None
    except UnicodeDecodeError:
        raise InputError(f"{value[1:]!r} is not text in UTF-8", field=field) from None
