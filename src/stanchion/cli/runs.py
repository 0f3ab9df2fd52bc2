"""`stanchion runs`: list runs, look at one, follow it, and say something to it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Literal, TypeVar

import typer

from stanchion.cli.desk import Desk, Json, Where, open_desk, user_name
from stanchion.cli.options import ApiKey, By, Data, Output, Run, Tenant, Url
from stanchion.cli.output import Column, one_line, print_json, print_line, print_text, say, table, when
from stanchion.core.errors import InputError, NotFound

app = typer.Typer(
    name="runs", no_args_is_help=True, rich_markup_mode=None, help="List runs, look at one, follow it, steer it."
)
T = TypeVar("T")
Status = Literal["queued", "runnable", "waiting", "parked", "ended"]

COLUMNS: tuple[Column, ...] = (
    ("run", lambda row: row["run"]),
    ("agent", lambda row: row["agent"]),
    ("status", lambda row: row["outcome"] or row.get("parked") or row["status"]),
    ("cost", lambda row: f"${row['usd']}"),
    ("events", lambda row: str(row["seq"])),
    ("started", lambda row: when(row["created_ms"])),
    ("session", lambda row: row["session"]),
    ("user", lambda row: row["user"]),
)


@app.command()
def ls(
    status: Annotated[Status | None, typer.Option(help="Only runs in this state.")] = None,
    outcome: Annotated[
        str,
        typer.Option(help="Only runs that ended so (done, failed, halted, cancelled), or are parked for this reason."),
    ] = "",
    agent: Annotated[str, typer.Option(help="Only runs of this agent.")] = "",
    session: Annotated[str, typer.Option(help="Only runs of this session.")] = "",
    user: Annotated[str, typer.Option(help="Only runs for this user.")] = "",
    before: Annotated[str, typer.Option(metavar="RUN", help="Only runs older than this one: the next page.")] = "",
    limit: Annotated[int, typer.Option(help="At most so many.", min=1, max=1000)] = 50,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print the ids only, one per line.")] = False,
    data: Data = "",
    url: Url = "",
    api_key: ApiKey = "",
    tenant: Tenant = "",
    output: Output = "text",
) -> None:
    """List runs, newest first.

    \b
    Examples:
        stanchion runs ls
        stanchion runs ls --status waiting
        stanchion runs ls --outcome failed
        stanchion runs ls --agent support --limit 10 -o json
        stanchion runs show $(stanchion runs ls -q --limit 1)
    """

    async def work(desk: Desk) -> Any:
        asked = {"session": session, "agent": agent, "user": user, "status": status or "", "outcome": outcome}
        return await desk.runs(**asked, before=before, limit=limit)

    rows = _at(Where(data, url, api_key, tenant), work)
    if output == "json":
        print_json(rows)
        return
    if quiet:
        for row in rows:
            print_text(row["run"])
        return
    table(rows, COLUMNS, empty="no runs")
    if len(rows) == limit:
        say(f"there may be more: --before {rows[-1]['run']}")


@app.command()
def show(
    run: Run, data: Data = "", url: Url = "", api_key: ApiKey = "", tenant: Tenant = "", output: Output = "text"
) -> None:
    """Show a run as it stands: its answer or the best so far, what it cost, what waits for a person.

    \b
    Examples:
        stanchion runs show run_01
        stanchion runs show run_01 -o json | jq .waiting
    """
    where = Where(data, url, api_key, tenant)
    view = _at(where, lambda desk: desk.view(run))
    if output == "json":
        print_json(view)
    else:
        _show(view, where)


def _show(view: Json, where: Where) -> None:
    from stanchion.cli.approval import waiting_lines
    from stanchion.cli.run import there
    from stanchion.cli.show import counted, forecast_text, how_to_decide, state_of

    usage = view["usage"]
    lines = {
        "run": view["run"],
        "state": state_of(view),
        "agent": view["agent"],
        "session": view["session"],
        "user": view["user"],
        "started": when(view["created_ms"]),
        "moved": when(view["updated_ms"]),
        "cost": f"${view['usd']}",
        "expected": forecast_text(view.get("forecast")),
        "used": f"{counted(usage['turns'], 'turn')}, {counted(usage['tool_calls'], 'tool call')}, "
        f"{usage['input_tokens']:,} tokens in, {usage['output_tokens']:,} out",
        "cache": _cached(view),
        "events": str(view["seq"]),
        "done": ", ".join(view["done"]),
        "in doubt": ", ".join(view["in_doubt"]),
        "parked": view["parked"],
        "without": "; ".join(view.get("degraded", ())),
    }
    for name, value in lines.items():
        if value:
            print_text(f"{name:<9} {one_line(value, 1000)}")
    if view["text"]:
        print_text(f"\n{view['text']}")
    for waiting in view["waiting"]:
        print_text("\n" + "\n".join(waiting_lines(waiting)))
    if view["waiting"]:
        say(f"decide with\n{how_to_decide(view['run'], view['waiting'], there(where))}")


def _cached(view: Json) -> str:
    """Say how much was read of what the provider's cache should have had, and what was not, and why."""
    usage = view["usage"]
    sent, read = usage.get("cache_expected_tokens", 0), usage.get("cache_hit_tokens", 0)
    missed = [
        f"turn {miss['turn']} read {miss['read']:,} of {miss['sent']:,}: {miss['reason']}"
        for miss in view.get("cache_misses", ())
    ]
    return "; ".join([*([f"{read:,} of {sent:,} tokens read that were sent before"] if sent else []), *missed])


@app.command()
def tail(
    run: Run,
    after: Annotated[int, typer.Option(help="Only events behind this seq.", min=0)] = 0,
    deltas: Annotated[bool, typer.Option("--deltas", help="Also the text of the model call in the making.")] = False,
    follow: Annotated[bool, typer.Option("--follow/--no-follow", help="Stay until the run is over.")] = True,
    data: Data = "",
    url: Url = "",
    api_key: ApiKey = "",
    tenant: Tenant = "",
    output: Output = "text",
) -> None:
    """Print a run's events as they happen, gapless, until it is over. With -o json a line for each.

    \b
    Examples:
        stanchion runs tail run_01
        stanchion runs tail run_01 --no-follow -o json > journal.jsonl
        stanchion runs tail run_01 --after 12 --deltas
    """
    from stanchion.cli.show import Calls, event_line

    calls = Calls()

    async def work(desk: Desk) -> None:
        last = None if follow else (await desk.view(run))["seq"]
        if last is not None and after >= last:
            return
        async for kind, item in desk.tail(run, after=after, deltas=deltas and follow):
            if output == "json":
                print_line(item if kind == "event" else {"type": "delta", **item})
            elif kind == "delta":
                print_text(f"      {item['kind']} {one_line(item['text'], 200)}")
            else:
                calls.note(item)
                print_text(event_line(item, calls))
            if kind == "event" and item["seq"] == last:
                return

    _at(Where(data, url, api_key, tenant), work)


@app.command()
def cancel(
    run: Run,
    reason: Annotated[str, typer.Option(help="Why, for the journal.")] = "",
    by: By = "",
    data: Data = "",
    url: Url = "",
    api_key: ApiKey = "",
    tenant: Tenant = "",
    output: Output = "text",
) -> None:
    """Cancel a run: nothing new begins, and its last event says what was done and what is in doubt.

    \b
    Example:
        stanchion runs cancel run_01 --reason "wrong customer"
    """
    _at(Where(data, url, api_key, tenant), lambda desk: desk.cancel(run, by=user_name(by), reason=reason))
    _posted(run, "cancel", "will be cancelled", output)


@app.command()
def send(
    run: Run,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What to say.")],
    by: By = "",
    data: Data = "",
    url: Url = "",
    api_key: ApiKey = "",
    tenant: Tenant = "",
    output: Output = "text",
) -> None:
    """Say something more to a run that is not over.

    \b
    Example:
        stanchion runs send run_01 "Only business class, please."
    """
    if not text.strip():
        raise InputError("it is empty; say something", field="TEXT")
    _at(Where(data, url, api_key, tenant), lambda desk: desk.send(run, text, by=user_name(by)))
    _posted(run, "send", "will be told", output)


@app.command()
def revive(
    run: Run,
    by: By = "",
    data: Data = "",
    url: Url = "",
    api_key: ApiKey = "",
    tenant: Tenant = "",
    output: Output = "text",
) -> None:
    """Set a parked run going again, once what parked it is mended.

    \b
    Example:
        stanchion runs revive run_01
    """
    _at(Where(data, url, api_key, tenant), lambda desk: desk.revive(run, by=user_name(by)))
    _posted(run, "revive", "goes on", output)


def _posted(run: str, what: str, outcome: str, output: str) -> None:
    """Say that a message is in the run's inbox: durable, and taken in by whoever drives the run."""
    if output == "json":
        print_json({"run": run, "posted": what})
    else:
        say(f"{run} {outcome}")


def _at(where: Where, work: Callable[[Desk], Awaitable[T]]) -> T:
    """Do something at the desk. An id that is not known comes with where to find the ones that are."""

    async def main() -> T:
        async with open_desk(where) as desk:
            return await work(desk)

    try:
        return asyncio.run(main())
    except NotFound as error:
        raise NotFound(with_hint(str(error))) from None


def with_hint(message: str) -> str:
    """Add where runs are listed to a message about one that is not there."""
    return (
        message
        if "stanchion runs ls" in message or "data file" in message
        else f"{message}; `stanchion runs ls` lists the runs"
    )
