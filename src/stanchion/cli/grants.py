"""`stanchion grants`: what people allowed for a session beyond one call, and taking it back."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated

import typer

from stanchion.cli.desk import Json, Where, open_desk, user_name
from stanchion.cli.options import ApiKey, By, Data, Output, Tenant, Url
from stanchion.cli.output import Column, print_json, say, table, when

app = typer.Typer(
    name="grants", no_args_is_help=True, rich_markup_mode=None, help="See and take back what was allowed for a session."
)
Session = Annotated[
    str, typer.Argument(metavar="SESSION", help="Id of the session; `stanchion runs ls` shows each run's.")
]

COLUMNS: tuple[Column, ...] = (
    ("id", lambda grant: grant["id"]),
    ("tools", lambda grant: " ".join(grant["tools"])),
    ("kind", lambda grant: grant["kind"]),
    ("value", lambda grant: grant["value"]),
    ("by", lambda grant: grant["by"]),
    ("since", lambda grant: when(grant["at_ms"])),
    ("run", lambda grant: grant["run"]),
)


@app.command()
def ls(
    session: Session, data: Data = "", url: Url = "", api_key: ApiKey = "", tenant: Tenant = "", output: Output = "text"
) -> None:
    """List what is allowed in a session beside what its agent may do: to which destinations, for which tools, by whom.

    \b
    Example:
        stanchion grants ls ses_01
    """

    async def work() -> Sequence[Json]:
        async with open_desk(Where(data, url, api_key, tenant)) as desk:
            return await desk.grants(session)

    grants = asyncio.run(work())
    if output == "json":
        print_json(grants)
    else:
        table(grants, COLUMNS, empty="nothing was allowed in this session beyond single calls")


@app.command()
def revoke(
    session: Session,
    grants: Annotated[
        list[str], typer.Argument(metavar="GRANT...", help="Ids of grants; `stanchion grants ls` lists them.")
    ],
    by: By = "",
    data: Data = "",
    url: Url = "",
    api_key: ApiKey = "",
    tenant: Tenant = "",
    output: Output = "text",
) -> None:
    """Take back what was allowed: calls that are judged from now on wait for a person again.

    \b
    Example:
        stanchion grants revoke ses_01 grant_01
    """

    async def work() -> None:
        async with open_desk(Where(data, url, api_key, tenant)) as desk:
            for grant in grants:
                await desk.revoke_grant(session, grant, by=user_name(by))

    asyncio.run(work())
    if output == "json":
        print_json([{"id": grant, "revoked": True} for grant in grants])
    else:
        say(f"revoked: {', '.join(grants)}")
