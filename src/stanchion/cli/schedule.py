"""`stanchion schedule`: runs that start by themselves at certain times."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

import typer

from stanchion.cli.desk import Where
from stanchion.cli.options import ApiKey, Data, Output, Tenant, Url
from stanchion.cli.outgoing import Outgoing, open_outgoing
from stanchion.cli.output import Column, Form, one_line, print_json, print_text, say, table, when

app = typer.Typer(
    name="schedule", no_args_is_help=True, rich_markup_mode=None, help="Start runs by themselves at certain times."
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of a schedule; `stanchion schedule ls` lists them.")]
LOOKS = 50
LOOK_S = 0.1
"""How long `run` waits for a worker to start what it made due: 5 s."""

COLUMNS: tuple[Column, ...] = (
    ("name", lambda row: row["name"]),
    ("when", lambda row: row["cron"]),
    ("zone", lambda row: row["tz"]),
    ("agent", lambda row: row["agent"]),
    ("next", lambda row: _local(row["next_ms"][0], row["tz"]) if row["next_ms"] else "paused"),
    ("last run", lambda row: row["last_run"]),
    ("", lambda row: one_line(row["note"], 60)),
)


@app.command()
def add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What to call it.")],
    cron: Annotated[
        str,
        typer.Argument(
            metavar="WHEN", help='"MINUTE HOUR DAY MONTH WEEKDAY", @hourly, @daily, @weekly, @monthly, or "@every 5m".'
        ),
    ],
    agent: Annotated[str, typer.Argument(metavar="AGENT", help="Name of the agent that a worker serves.")],
    input: Annotated[str, typer.Argument(metavar="INPUT", help="What is said to it.")],
    tz: Annotated[str, typer.Option("--tz", metavar="ZONE", help="Time zone of WHEN, like Europe/Berlin.")] = "UTC",
    session: Annotated[str, typer.Option(help="One session for all its runs; else each has its own.")] = "",
    user: Annotated[str, typer.Option(help="Who the runs are for: budgets and erasure go by it.")] = "",
    usd: Annotated[str, typer.Option(help="What each run may cost at most, in US dollars.")] = "",
    priority: Annotated[
        Literal["batch", "interactive"], typer.Option(help="Who goes first when runs wait for a worker.")
    ] = "batch",
    if_busy: Annotated[
        Literal["skip", "queue"], typer.Option(help="While --session has a live run: leave the time out, or wait.")
    ] = "skip",
    if_missed: Annotated[
        Literal["run_once", "skip"], typer.Option(help="When no worker was there: one run for all the times, or none.")
    ] = "run_once",
    replace: Annotated[bool, typer.Option("--replace", help="In place of the schedule of this name.")] = False,
    data: Data = "",
    url: Url = "",
    api_key: ApiKey = "",
    tenant: Tenant = "",
    output: Output = "text",
) -> None:
    """Start a run of an agent at certain times; prints the next five.

    \b
    Each time starts one run, whichever workers see it and whatever dies meanwhile. Where clocks are set
    forward or back the rules are Debian cron's.

    \b
    Examples:
        stanchion schedule add daily "0 9 * * MON-FRI" support "Write the report." --tz Europe/Berlin
        stanchion schedule add poll "@every 15m" support "Look for new tickets." --usd 0.05
        stanchion schedule add diary "@daily" support "Go on." --session diary --if-busy queue
    """
    asked: dict[str, Any] = {"cron": cron, "agent": agent, "input": input, "tz": tz, "session": session, "user": user}
    asked |= {"priority": priority, "if_busy": if_busy, "if_missed": if_missed}
    asked |= {"limits": {"usd": usd}} if usd else {}
    where = Where(data, url, api_key, tenant)
    view = _work(where, lambda side: side.set_schedule(name, asked, replace=replace), create=True)
    _print(view, output, f"{view['name']} starts {view['agent']} at:")


@app.command()
def ls(data: Data = "", url: Url = "", api_key: ApiKey = "", tenant: Tenant = "", output: Output = "text") -> None:
    """List schedules, with their next time and their last run.

    \b
    Example:
        stanchion schedule ls
    """
    rows = _work(Where(data, url, api_key, tenant), lambda side: side.schedules())
    if output == "json":
        print_json(rows)
    else:
        table(rows, COLUMNS, empty="there are no schedules; make one with `stanchion schedule add`")


@app.command()
def show(
    name: Name, data: Data = "", url: Url = "", api_key: ApiKey = "", tenant: Tenant = "", output: Output = "text"
) -> None:
    """Show a schedule: what it starts, its next times, and what its last one did.

    \b
    Example:
        stanchion schedule show daily
    """
    view = _work(Where(data, url, api_key, tenant), lambda side: side.schedule(name))
    if output == "json":
        print_json(view)
        return
    rows = [
        (key, view[key]) for key in ("name", "agent", "input", "session", "user", "priority", "if_busy", "if_missed")
    ]
    rows += [("when", f"{view['cron']} ({view['tz']})"), ("limits", view["limits"] or "")]
    rows += [("last time", when(view["last_ms"])), ("last run", view["last_run"]), ("note", view["note"])]
    for key, value in rows:
        if value:
            print_text(f"{key:10} {value}")
    _print(view, output, "paused" if not view["enabled"] else "next times:")


@app.command()
def pause(
    name: Name, data: Data = "", url: Url = "", api_key: ApiKey = "", tenant: Tenant = "", output: Output = "text"
) -> None:
    """Start no runs of a schedule until it is resumed.

    \b
    Example:
        stanchion schedule pause daily
    """
    view = _work(Where(data, url, api_key, tenant), lambda side: side.change_schedule(name, "pause"))
    _print(view, output, f"{name} is paused; `stanchion schedule resume {name}` lets it go on")


@app.command()
def resume(
    name: Name, data: Data = "", url: Url = "", api_key: ApiKey = "", tenant: Tenant = "", output: Output = "text"
) -> None:
    """Let a paused schedule go on with its next time; those that passed are left out.

    \b
    Example:
        stanchion schedule resume daily
    """
    view = _work(Where(data, url, api_key, tenant), lambda side: side.change_schedule(name, "resume"))
    _print(view, output, f"{name} goes on at:")


@app.command()
def run(
    name: Name, data: Data = "", url: Url = "", api_key: ApiKey = "", tenant: Tenant = "", output: Output = "text"
) -> None:
    """Make a schedule due now, and print the run that a worker starts for it.

    \b
    Example:
        stanchion schedule run daily
    """

    async def work(side: Outgoing) -> Any:
        before = await side.schedule(name)
        view = await side.change_schedule(name, "run")
        for _ in range(LOOKS):
            if view["last_ms"] != before["last_ms"]:
                break
            await asyncio.sleep(LOOK_S)
            view = await side.schedule(name)
        return {**view, "started": view["last_ms"] != before["last_ms"]}

    view = _work(Where(data, url, api_key, tenant), work)
    if output == "json":
        print_json(view)
    elif not view["started"]:
        say(f"{name} is due; no worker that serves {view['agent']} has started it yet")
    elif view["note"]:
        say(f"{name} started no run: {view['note']}")
    else:
        print_text(view["last_run"])


@app.command()
def rm(
    name: Name, data: Data = "", url: Url = "", api_key: ApiKey = "", tenant: Tenant = "", output: Output = "text"
) -> None:
    """Remove a schedule. Its runs stay.

    \b
    Example:
        stanchion schedule rm daily
    """
    _work(Where(data, url, api_key, tenant), lambda side: side.remove_schedule(name))
    if output == "json":
        print_json({"removed": name})
    else:
        say(f"{name} is removed")


def _work(where: Where, what: Callable[[Outgoing], Awaitable[Any]], *, create: bool = False) -> Any:
    async def work() -> Any:
        async with open_outgoing(where, create=create) as side:
            return await what(side)

    return asyncio.run(work())


def _print(view: Any, output: Form, heading: str) -> None:
    if output == "json":
        print_json(view)
        return
    say(heading)
    for at_ms in view["next_ms"]:
        print_text(_local(at_ms, view["tz"]))


def _local(at_ms: int, tz: str) -> str:
    """Write a time as the schedule's zone has it."""
    return datetime.fromtimestamp(at_ms / 1000, ZoneInfo(tz)).strftime("%a %Y-%m-%d %H:%M %Z")
