"""`stanchion webhooks`: who is told when a run ends, stands still or waits for a person."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Literal

import typer

from stanchion.cli.desk import Where
from stanchion.cli.options import ApiKey, Data, Output, Tenant, Url
from stanchion.cli.outgoing import Outgoing, open_outgoing
from stanchion.cli.output import Column, one_line, print_json, print_text, say, table, when

app = typer.Typer(
    name="webhooks",
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Tell others over HTTP when runs end, stand still or wait for a person.",
)

Id = Annotated[str, typer.Argument(metavar="ID", help="Id of a webhook; `stanchion webhooks ls` lists them.")]
Operator = Annotated[
    bool,
    typer.Option(
        "--operator", help="The operator's of the store, of no tenant: told of the budget of all. On the data itself."
    ),
]
LOOK_S = 0.2
COLUMNS: tuple[Column, ...] = (
    ("id", lambda row: row["id"]),
    ("url", lambda row: one_line(row["url"], 70)),
    ("events", lambda row: ", ".join(row["events"]) or "all"),
    ("agents", lambda row: ", ".join(row["agents"]) or "all"),
    ("", lambda row: "" if row["enabled"] else f"disabled: {row['note']}"),
)
DELIVERIES: tuple[Column, ...] = (
    ("id", lambda row: row["id"]),
    ("type", lambda row: row["type"]),
    ("run", lambda row: row["run"]),
    ("webhook", lambda row: row["endpoint"]),
    ("made", lambda row: when(row["created_ms"])),
    ("standing", lambda row: row["standing"]),
    ("attempts", lambda row: str(row["attempts"])),
    ("next", lambda row: when(row["next_ms"]) if row["next_ms"] else ""),
    ("", lambda row: one_line(row["note"], 80)),
)


@app.command()
def add(
    address: Annotated[str, typer.Argument(metavar="URL", help="Where to post, like https://example.com/hooks.")],
    event: Annotated[
        list[str] | None,
        typer.Option(
            "--event",
            help="run.finished, run.parked, run.asked, budget.alert, spend.spike or run.budget; if left out all but the last.",
        ),
    ] = None,
    agent: Annotated[list[str] | None, typer.Option("--agent", help="Of whose runs; of all if left out.")] = None,
    include_answer: Annotated[
        bool, typer.Option("--include-answer", help="Send the answer as well; else no content is sent.")
    ] = False,
    secret: Annotated[str, typer.Option(help="whsec_..; one is made if it is left out.")] = "",
    data: Data = "",
    url: Url = "",
    api_key: ApiKey = "",
    tenant: Tenant = "",
    operator: Operator = False,
    output: Output = "text",
) -> None:
    """Tell a receiver what happens from now on; prints the secret that it checks the messages with.

    \b
    Messages are signed by the Standard Webhooks specification, come at least once and in order for each run.

    \b
    Examples:
        stanchion webhooks add https://example.com/hooks
        stanchion webhooks add https://example.com/asks --event run.asked --agent support
        stanchion webhooks add https://example.com/done --event run.finished --include-answer
        stanchion webhooks add https://example.com/money --operator --data stanchion.db
    """
    asked: dict[str, Any] = {"url": address, "events": event or [], "agents": agent or [], "secret": secret}
    asked |= {"include": ["answer"] if include_answer else []}
    made = _work(Where(data, url, api_key, tenant, operator), lambda side: side.add_webhook(asked), create=True)
    if output == "json":
        print_json(made)
    else:
        print_text(made["secret"])
        say(
            f"webhook {made['id']}: its receiver checks messages with this secret; try it: stanchion webhooks test {made['id']}"
        )


@app.command()
def ls(
    data: Data = "",
    url: Url = "",
    api_key: ApiKey = "",
    tenant: Tenant = "",
    operator: Operator = False,
    output: Output = "text",
) -> None:
    """List webhooks, never their secrets.

    \b
    Example:
        stanchion webhooks ls
    """
    rows = _work(Where(data, url, api_key, tenant, operator), lambda side: side.webhooks())
    if output == "json":
        print_json(rows)
    else:
        table(rows, COLUMNS, empty="there are no webhooks; make one with `stanchion webhooks add`")


@app.command()
def rm(
    id: Id,
    data: Data = "",
    url: Url = "",
    api_key: ApiKey = "",
    tenant: Tenant = "",
    operator: Operator = False,
    output: Output = "text",
) -> None:
    """Remove a webhook, and what it still had to get.

    \b
    Example:
        stanchion webhooks rm hook_3f9a
    """
    _work(Where(data, url, api_key, tenant, operator), lambda side: side.remove_webhook(id))
    if output == "json":
        print_json({"removed": id})
    else:
        say(f"{id} is removed")


@app.command()
def enable(
    id: Id,
    data: Data = "",
    url: Url = "",
    api_key: ApiKey = "",
    tenant: Tenant = "",
    operator: Operator = False,
    output: Output = "text",
) -> None:
    """Enable a webhook that was disabled because its receiver answered 410 Gone.

    \b
    Example:
        stanchion webhooks enable hook_3f9a
    """
    view = _work(Where(data, url, api_key, tenant, operator), lambda side: side.enable_webhook(id))
    if output == "json":
        print_json(view)
    else:
        say(f"{id} is enabled; what it missed: stanchion webhooks redeliver {id}")


@app.command(name="test")
def try_(
    id: Id,
    wait_s: Annotated[float, typer.Option("--wait-s", help="How long to wait for its answer.", min=0, max=600)] = 20.0,
    data: Data = "",
    url: Url = "",
    api_key: ApiKey = "",
    tenant: Tenant = "",
    operator: Operator = False,
    output: Output = "text",
) -> int:
    """Post a trial message, and say what the receiver answered. A worker posts it: one must be running.

    \b
    Example:
        stanchion webhooks test hook_3f9a
    """

    async def work(side: Outgoing) -> Any:
        row = await side.test_webhook(id)
        left_s = wait_s
        while row["standing"] == "pending" and not row["note"] and left_s > 0:
            await asyncio.sleep(LOOK_S)
            left_s -= LOOK_S
            row = await side.delivery(row["id"])
        return row

    row = _work(Where(data, url, api_key, tenant, operator), work)
    if output == "json":
        print_json(row)
    elif row["standing"] == "done":
        say(f"accepted: HTTP {row['http_status']}")
    else:
        say(f"not accepted: {row['note'] or 'no worker has posted it yet; is one running?'} ({row['id']})")
    return 0 if row["standing"] == "done" else 1


@app.command()
def deliveries(
    endpoint: Annotated[str, typer.Option("--webhook", metavar="ID", help="Of this webhook only.")] = "",
    run: Annotated[str, typer.Option(help="Of this run only.")] = "",
    standing: Annotated[
        Literal["", "pending", "done", "dead"], typer.Option(help="Only those to be posted, accepted, or given up.")
    ] = "",
    limit: Annotated[int, typer.Option(help="How many, newest first.", min=1, max=200)] = 50,
    data: Data = "",
    url: Url = "",
    api_key: ApiKey = "",
    tenant: Tenant = "",
    operator: Operator = False,
    output: Output = "text",
) -> None:
    """List what was told or is to be: accepted, pending, or given up and why.

    \b
    Examples:
        stanchion webhooks deliveries
        stanchion webhooks deliveries --standing dead --webhook hook_3f9a
        stanchion webhooks deliveries --run run_06gz -o json
    """
    asked = {"endpoint": endpoint, "run": run, "standing": standing}
    rows = _work(Where(data, url, api_key, tenant, operator), lambda side: side.deliveries(asked, limit))
    if output == "json":
        print_json(rows)
    else:
        table(rows, DELIVERIES, empty="there are no such deliveries")


@app.command()
def redeliver(
    id: Annotated[
        str, typer.Argument(metavar="ID", help="A delivery (msg_..), or a webhook: all that was given up for it.")
    ],
    data: Data = "",
    url: Url = "",
    api_key: ApiKey = "",
    tenant: Tenant = "",
    operator: Operator = False,
    output: Output = "text",
) -> None:
    """Post again what was given up or accepted. A message keeps its id, so that its receiver knows the repetition.

    \b
    Examples:
        stanchion webhooks redeliver msg_5b1e
        stanchion webhooks redeliver hook_3f9a
    """
    count = _work(Where(data, url, api_key, tenant, operator), lambda side: side.redeliver(id))
    if output == "json":
        print_json({"redelivered": count})
    else:
        say(f"{count} {'delivery is' if count == 1 else 'deliveries are'} posted again")


@app.command()
def rotate(
    id: Annotated[
        str, typer.Argument(metavar="[ID]", help="A webhook; left out: the tenant's own secret, for callbacks of runs.")
    ] = "",
    overlap_s: Annotated[
        float, typer.Option("--overlap-s", help="How long the secret before signs as well, in seconds.", min=0)
    ] = 86_400.0,
    secret: Annotated[str, typer.Option(help="whsec_..; one is made if it is left out.")] = "",
    data: Data = "",
    url: Url = "",
    api_key: ApiKey = "",
    tenant: Tenant = "",
    operator: Operator = False,
    output: Output = "text",
) -> None:
    """Change a secret. For a day both sign, so that the receiver can change over at leisure.

    \b
    Examples:
        stanchion webhooks rotate hook_3f9a
        stanchion webhooks rotate hook_3f9a --overlap-s 0
        stanchion webhooks rotate
    """
    made = _work(
        Where(data, url, api_key, tenant, operator), lambda side: side.rotate(id, secret=secret, overlap_s=overlap_s)
    )
    if output == "json":
        print_json(made)
    else:
        print_text(made["secret"])
        say(
            f"the secret before signs until {when(made['previous_until_ms'])}"
            if made["previous_until_ms"]
            else "at once"
        )


@app.command(name="secret")
def secret_(data: Data = "", url: Url = "", api_key: ApiKey = "", tenant: Tenant = "", output: Output = "text") -> None:
    """Print the tenant's own secret, which callbacks of single runs are signed with.

    \b
    Example:
        stanchion webhooks secret
    """
    found = _work(Where(data, url, api_key, tenant), lambda side: side.secret(), create=True)
    if output == "json":
        print_json(found)
    else:
        print_text(found["secret"])


def _work(where: Where, what: Callable[[Outgoing], Awaitable[Any]], *, create: bool = False) -> Any:
    async def work() -> Any:
        async with open_outgoing(where, create=create) as side:
            return await what(side)

    return asyncio.run(work())
