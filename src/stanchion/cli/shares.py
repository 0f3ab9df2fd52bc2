"""`stanchion shares` and `stanchion workers`: who gets how much of the workers, and which there are."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import typer

from stanchion.cli.desk import Where, open_desk
from stanchion.cli.options import ApiKey, Data, Output, Tenant, Url
from stanchion.cli.output import Column, Row, print_json, say, table
from stanchion.core.errors import InputError

app = typer.Typer(
    name="shares",
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Set and list what a tenant, an agent or a user may have of the workers.",
)
workers = typer.Typer(
    name="workers", no_args_is_help=True, rich_markup_mode=None, help="List the processes that drive runs."
)

COLUMNS: tuple[Column, ...] = (
    ("tenant", lambda share: share["tenant"] or "(every)"),
    ("scope", lambda share: share["scope"]),
    ("weight", lambda share: _shown(share["weight"])),
    ("max running", lambda share: _shown(share["max_running"])),
    ("max queued", lambda share: _shown(share["max_queued"])),
)
WORKER_COLUMNS: tuple[Column, ...] = (
    ("worker", lambda row: row["name"]),
    ("agents", lambda row: ", ".join(row["agents"])),
    ("version", lambda row: row["version"]),
    ("host", lambda row: f"{row['host']}:{row['pid']}" if row["host"] else ""),
    ("runs", lambda row: "" if _gone(row) else f"{row['active']} of {row['max_active']}"),
    ("begun/s", lambda row: "" if _gone(row) else f"{row['begun_per_s']:g}"),
    ("seen", lambda row: f"{row['seen_s_ago']:g} s ago{', gone' if _gone(row) else ''}"),
)


def _gone(row: Row) -> bool:
    from stanchion.runtime.desks.sharing import GONE_MS

    return row["seen_s_ago"] * 1000 > GONE_MS


def _shown(value: int | None) -> str:
    return "" if value is None else str(value)


@app.command()
def ls(data: Data = "", url: Url = "", api_key: ApiKey = "", output: Output = "text") -> None:
    """List the shares that are set.

    \b
    Example:
        stanchion shares ls
    """

    async def work() -> Any:
        async with open_desk(Where(data, url, api_key)) as desk:
            return await desk.shares()

    rows = asyncio.run(work())
    if output == "json":
        print_json(rows)
    else:
        table(rows, COLUMNS, empty="no share is set: every tenant has weight 1, and nothing is capped")


@app.command(name="set")
def set_(
    scope: Annotated[
        str, typer.Argument(metavar="SCOPE", help="tenant, agent:NAME, user:NAME, or user:* for each user.")
    ] = "tenant",
    weight: Annotated[
        str, typer.Option(metavar="N", help="The tenant's weight against others: 3 gets three turns to 1's one.")
    ] = "",
    max_running: Annotated[str, typer.Option(metavar="N", help="Runs that are driven at once.")] = "",
    max_queued: Annotated[
        str, typer.Option(metavar="N", help="Runs of the tenant that may wait to begin; above it a start is refused.")
    ] = "",
    every: Annotated[
        bool, typer.Option("--every", help="For every tenant that has none of its own; an agent's: for all together.")
    ] = False,
    data: Data = "",
    url: Url = "",
    api_key: ApiKey = "",
    tenant: Tenant = "",
    output: Output = "text",
) -> None:
    """Set a share. What is not named stays; `none` takes a value back to its default. In force within a second.

    \b
    Examples:
        stanchion shares set --tenant acme --weight 3
        stanchion shares set --every --max-running 50 --max-queued 1000
        stanchion shares set user:* --every --max-running 2
        stanchion shares set agent:support --tenant acme --max-running 10
        stanchion shares set --tenant acme --max-running none
    """
    if every and tenant:
        raise InputError("--every and --tenant are two answers to one question; give one of them")
    given = {"weight": weight, "max_running": max_running, "max_queued": max_queued}
    changes = {name: _number(name, text) for name, text in given.items() if text}
    if not changes:
        raise InputError("say what to set: --weight, --max-running or --max-queued")

    async def work() -> Any:
        async with open_desk(Where(data, url, api_key, tenant), create=True) as desk:
            return await desk.set_share(scope, changes, every=every)

    done = asyncio.run(work())
    if output == "json":
        print_json(done)
    else:
        values = ", ".join(f"{name.replace('_', ' ')} {done[name]}" for name in given if done[name] is not None)
        say(f"{done['tenant'] or 'every tenant'}, {done['scope']}: {values or 'defaults'}")


def _number(name: str, text: str) -> int | None:
    if text == "none":
        return None
    if not text.isdecimal():
        raise InputError(f"must be a number or none, not {text!r}", field=f"--{name.replace('_', '-')}")
    return int(text)


@workers.command(name="ls")
def list_workers(data: Data = "", url: Url = "", api_key: ApiKey = "", output: Output = "text") -> None:
    """List workers: what they drive, how much, and when they were last heard of; those that are gone for a day.

    \b
    Example:
        stanchion workers ls --data postgresql://stanchion@db.internal/agents
    """

    async def work() -> Any:
        async with open_desk(Where(data, url, api_key)) as desk:
            return await desk.workers()

    rows = asyncio.run(work())
    if output == "json":
        print_json(rows)
    else:
        table(
            rows, WORKER_COLUMNS, empty="no worker was heard of within the last day; start one with `stanchion worker`"
        )
