"""`stanchion dlq`: the dead letters, runs that stand until a person acts: list them, look at one, set it going, give it up."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from typing import Annotated, Literal

import typer

from stanchion.cli.desk import Desk, Json, Where, open_desk, user_name
from stanchion.cli.options import ApiKey, By, Data, Output, Run, Tenant, Url
from stanchion.cli.output import Column, one_line, print_json, print_text, say, table, when
from stanchion.core.errors import Conflict, InputError

app = typer.Typer(
    name="dlq",
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Dead letters: runs that stand until a person acts. List them, look at one, replay or drop it.",
)
Reason = Literal["dead_letter", "bundle_changed", "agent_missing"]
AllTenants = Annotated[
    bool, typer.Option("--all-tenants", help="Of every tenant; only on the data itself, for its operator.")
]
_PAGE = 200

COLUMNS: tuple[Column, ...] = (
    ("run", lambda row: row["run"]),
    ("agent", lambda row: row["agent"]),
    ("reason", lambda row: row["reason"]),
    ("attempts", lambda row: str(row["attempts"])),
    ("since", lambda row: when(row["since_ms"])),
    ("cost", lambda row: f"${row['usd']}"),
    ("last error", lambda row: one_line(row["error"], 80)),
)
TENANT: Column = ("tenant", lambda row: row["tenant"])


@app.command()
def ls(
    agent: Annotated[str, typer.Option(help="Only runs of this agent.")] = "",
    everything: Annotated[
        bool, typer.Option("--all", help="Also runs parked for another reason than claims without progress.")
    ] = False,
    all_tenants: AllTenants = False,
    limit: Annotated[int, typer.Option(help="At most so many, the newest.", min=1, max=10_000)] = 50,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print the ids only, one per line.")] = False,
    data: Data = "",
    url: Url = "",
    api_key: ApiKey = "",
    tenant: Tenant = "",
    output: Output = "text",
) -> None:
    """List dead letters, newest first: runs that were claimed again and again without progress.

    \b
    Examples:
        stanchion dlq ls
        stanchion dlq ls --all --agent support
        stanchion dlq ls --all-tenants --data postgresql://stanchion@db.internal/agents
    """
    where = Where(data, url, api_key, tenant)
    _check_tenants(where, all_tenants)
    reason = "" if everything else "dead_letter"

    async def main() -> Sequence[Json]:
        async with open_desk(where) as desk:
            return await _found(desk, agent, reason, limit, all_tenants=all_tenants)

    rows = asyncio.run(main())
    if output == "json":
        print_json(rows)
    elif quiet:
        for row in rows:
            print_text(row["run"])
    else:
        none = (
            "no run stands" if everything else "no dead letters (`--all` also lists what is parked for another reason)"
        )
        table(rows, (TENANT, *COLUMNS) if all_tenants else COLUMNS, empty=none)


@app.command()
def show(
    run: Run, data: Data = "", url: Url = "", api_key: ApiKey = "", tenant: Tenant = "", output: Output = "text"
) -> None:
    """Show a standing run with its whole context: why, the claims it cost, open calls, the last events, its input.

    \b
    Example:
        stanchion dlq show run_01
    """
    where = Where(data, url, api_key, tenant)

    async def main() -> Json:
        async with open_desk(where) as desk:
            return await desk.letter(run)

    letter = asyncio.run(main())
    if output == "json":
        print_json(letter)
    else:
        _print(letter, where)


def _print(letter: Json, where: Where) -> None:
    from stanchion.cli.run import there
    from stanchion.cli.serve import program
    from stanchion.cli.show import Calls, event_line

    facts = {
        "run": letter["run"],
        "agent": letter["agent"],
        "user": letter["user"],
        "session": letter["session"],
        "reason": letter["reason"],
        "why": letter["why"],
        "since": when(letter["since_ms"]),
        "attempts": str(letter["attempts"]),
        "cost": f"${letter['usd']}",
        "error": letter["error"],
        "input": letter["input"],
    }
    for name, value in facts.items():
        if value:
            print_text(f"{name:<9} {one_line(value, 1000)}")
    for claim in letter["claims"]:
        who = claim.get("worker") or ("a worker that gave it back" if "worker" in claim else "a worker")
        print_text(f"claim     epoch {claim['epoch']} by {who}, in vain until {when(claim['ended_ms'])}")
    for call in letter["calls"]:
        doubt = ", IN DOUBT: it may have been done" if call["in_doubt"] else ""
        print_text(f"call      {call['call']} {call['tool']}: {call['phase']}, attempt {call['attempt']}{doubt}")
    calls = Calls()
    for event in letter["events"]:
        calls.note(event)
        print_text(f"  {event_line(event, calls)}")
    options, run = there(where), letter["run"]
    say(f"mend it, then: {program()} dlq replay {run}{options}\nor give it up: {program()} dlq drop {run}{options}")


@app.command()
def replay(
    runs: Annotated[list[str] | None, typer.Argument(metavar="RUN..", help="Ids of runs; or --all.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every run that stands for --reason.")] = False,
    agent: Annotated[str, typer.Option(help="With --all: only runs of this agent.")] = "",
    reason: Annotated[Reason, typer.Option(help="With --all: for which reason they stand.")] = "dead_letter",
    all_tenants: AllTenants = False,
    by: By = "",
    data: Data = "",
    url: Url = "",
    api_key: ApiKey = "",
    tenant: Tenant = "",
    output: Output = "text",
) -> None:
    """Set runs going again, once what stopped them is mended. Their count of attempts starts anew.

    \b
    Nothing that was done is done again: a call in doubt follows its tool's rules, as after any crash.

    \b
    Examples:
        stanchion dlq replay run_01 run_02
        stanchion dlq replay --all --agent support
        stanchion dlq replay --all --reason bundle_changed
    """
    where = Where(data, url, api_key, tenant)
    _check_tenants(where, all_tenants)
    _check_which(runs, everything=everything, narrowed=bool(agent or all_tenants))

    async def main() -> list[str]:
        async with open_desk(where) as desk:
            if not everything:
                for run in runs or ():
                    await desk.revive(run, by=user_name(by))
                return list(runs or ())
            found = await _found(desk, agent, reason, sys.maxsize, all_tenants=all_tenants)
            return [row["run"] for row in found if await _revived(desk, row, user_name(by), of_tenant=all_tenants)]

    done = asyncio.run(main())
    if output == "json":
        print_json({"replayed": done})
    else:
        say(f"{len(done)} run{'' if len(done) == 1 else 's'} set going again" if done else "nothing to replay")


async def _revived(desk: Desk, row: Json, by: str, *, of_tenant: bool) -> bool:
    try:
        await (desk.at(row["tenant"]) if of_tenant else desk).revive(row["run"], by=by)
    except Conflict:  # somebody was faster
        return False
    return True


@app.command()
def drop(
    runs: Annotated[list[str], typer.Argument(metavar="RUN..", help="Ids of runs that stand.")],
    reason: Annotated[str, typer.Option(help="Why, for the journal.")] = "dropped from the dead letters",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    by: By = "",
    data: Data = "",
    url: Url = "",
    api_key: ApiKey = "",
    tenant: Tenant = "",
    output: Output = "text",
) -> None:
    """Give runs up: they are cancelled, and the last event of each says what was done and what is in doubt.

    \b
    Example:
        stanchion dlq drop run_01 --reason "the customer was called" --yes
    """
    if not yes:
        if not sys.stdin.isatty():
            raise InputError("nobody can be asked here; add --yes to give these runs up")
        typer.confirm(f"give up {', '.join(runs)}?", abort=True, err=True)
    where = Where(data, url, api_key, tenant)

    async def main() -> None:
        async with open_desk(where) as desk:
            for run in runs:
                await desk.letter(run)  # only what stands
                await desk.cancel(run, by=user_name(by), reason=reason)

    asyncio.run(main())
    if output == "json":
        print_json({"dropped": runs})
    else:
        say(f"{', '.join(runs)}: will be cancelled by whoever drives")


async def _found(desk: Desk, agent: str, reason: str, limit: int, *, all_tenants: bool) -> list[Json]:
    """List, page by page."""
    rows: list[Json] = []
    before = ("", "")
    while len(rows) < limit:
        size = min(_PAGE, limit - len(rows))
        page = await desk.letters(agent=agent, reason=reason, before=before, limit=size, all_tenants=all_tenants)
        rows += page
        if len(page) < size:
            break
        before = (page[-1].get("tenant", ""), page[-1]["run"])
    return rows


def _check_tenants(where: Where, all_tenants: bool) -> None:
    if all_tenants and (where.tenant or where.resolve().url):
        raise InputError("--all-tenants is for the data itself (--data), without --tenant and not through a server")


def _check_which(runs: list[str] | None, *, everything: bool, narrowed: bool) -> None:
    if bool(runs) == everything:
        raise InputError("name the runs, or say --all for every one" if not runs else "give runs or --all, not both")
    if narrowed and not everything:
        raise InputError("--agent and --all-tenants go with --all")
