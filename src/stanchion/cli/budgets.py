"""`stanchion budgets`: what may be spent, on which name, in which time."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import typer

from stanchion.cli.desk import Where, open_desk
from stanchion.cli.options import ApiKey, Data, Output, Tenant, Url
from stanchion.cli.output import Column, print_json, say, table
from stanchion.core.money import parse_usd

app = typer.Typer(
    name="budgets", no_args_is_help=True, rich_markup_mode=None, help="Set and list what may be spent, and on what."
)

COLUMNS: tuple[Column, ...] = (
    ("ledger", lambda ledger: ledger["ledger"]),
    ("limit", lambda ledger: "none" if ledger["limit_usd"] is None else f"${ledger['limit_usd']}"),
    ("spent", lambda ledger: f"${ledger['settled_usd']}"),
    ("reserved", lambda ledger: f"${ledger['reserved_usd']}"),
    ("told", lambda ledger: ", ".join(f"{line} %" for line in ledger.get("told", ()))),
    ("", lambda ledger: "closed: a bill was above its reservation; set a limit to open it" if ledger["closed"] else ""),
)


@app.command()
def ls(data: Data = "", url: Url = "", api_key: ApiKey = "", tenant: Tenant = "", output: Output = "text") -> None:
    """List the budgets that are set or were drawn on, and which lines of their limits were crossed and told.

    \b
    Who is to hear of it is told by webhook: `stanchion webhooks add URL --event budget.alert`; of the budget of all with `--operator`.

    \b
    Example:
        stanchion budgets ls
    """

    async def work() -> Any:
        async with open_desk(Where(data, url, api_key, tenant)) as desk:
            return await desk.budgets()

    ledgers = asyncio.run(work())
    if output == "json":
        print_json(ledgers)
    else:
        table(ledgers, COLUMNS, empty="no budget is set and none was drawn on; set one with `stanchion budgets set`")


@app.command(name="set")
def set_(
    ledger: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="all, tenant, user:NAME or session:ID; with /day or /month it begins anew (UTC)."
        ),
    ],
    usd: Annotated[str, typer.Argument(metavar="USD", help="US dollars, like 5 or 0.50; `none` takes the limit away.")],
    data: Data = "",
    url: Url = "",
    api_key: ApiKey = "",
    tenant: Tenant = "",
    output: Output = "text",
) -> None:
    """Set a budget. Runs are held to it from their next model call on, and a budget that was closed opens.

    \b
    Examples:
        stanchion budgets set tenant/month 200
        stanchion budgets set user:ann/day 0.50
        stanchion budgets set all none
    """
    limit = None if usd == "none" else usd
    if limit is not None:
        parse_usd(limit, field="USD")

    async def work() -> Any:
        async with open_desk(Where(data, url, api_key, tenant), create=True) as desk:
            return await desk.set_budget(ledger, limit)

    done = asyncio.run(work())
    if output == "json":
        print_json(done)
    else:
        say(f"{done['ledger']}: " + ("no limit" if limit is None else f"at most ${done['limit_usd']}"))
