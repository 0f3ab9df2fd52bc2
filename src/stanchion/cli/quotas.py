"""`stanchion quotas`: what all workers together may ask of a provider with one key, and what counts of it now."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import typer

from stanchion.cli.desk import Where, open_desk
from stanchion.cli.options import ApiKey, Data, Output, Url
from stanchion.cli.output import Column, print_json, say, table
from stanchion.core.errors import InputError

app = typer.Typer(
    name="quotas",
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Set and list what all workers together may ask of a model provider.",
)
MAX_COUNT = 1_000_000_000
NONE_SET = (
    "no limit is set in the store (processes may have been started with some: --quota); "
    "set one with `stanchion quotas set anthropic --rpm 50`"
)
Name = Annotated[
    str, typer.Argument(metavar="NAME", help="A provider (anthropic), or one of its models (openai:gpt-5).")
]

COLUMNS: tuple[Column, ...] = (
    ("name", lambda row: row["name"]),
    *((name, lambda row, name=name: _shown(row[name])) for name in ("rpm", "tpm", "itpm", "otpm")),
    ("window", lambda row: f"{row['window_s']:g} s"),
)
USAGE: tuple[Column, ...] = (
    ("limit", lambda row: row["limit"]),
    ("counts now", lambda row: str(row["amount"])),
    ("workers", lambda row: str(row["workers"])),
)


def _shown(value: int | None) -> str:
    return "" if value is None else str(value)


@app.command()
def ls(data: Data = "", url: Url = "", api_key: ApiKey = "", output: Output = "text") -> None:
    """List the limits that are set in the store, what counts against limits now, and what is closed.

    \b
    A limit holds for each API key by itself; keys are shown by a fingerprint. Limits that a server was started with
    (--quota, STANCHION_QUOTAS) are not in the store, and go before those that are.

    \b
    Example:
        stanchion quotas ls
    """

    async def work() -> Any:
        async with open_desk(Where(data, url, api_key)) as desk:
            return await desk.quotas()

    found = asyncio.run(work())
    if output == "json":
        print_json(found)
        return
    table(found["quotas"], COLUMNS, empty=NONE_SET)
    if found["usage"]:
        say("")
        table(found["usage"], USAGE, empty="")
    for row in found["closed"]:
        say(f"{row['name']} rests for {row['for_s']:g} s more: its provider said so")
    for row in found["breakers"]:
        say(f"the breaker of {row['tool'] or row['model']} is {row['state'].replace('_', ' ')}, for {row['for_s']:g} s")


@app.command(name="set")
def set_(
    name: Name,
    rpm: Annotated[int | None, typer.Option(help="Requests in a window.", min=1, max=MAX_COUNT)] = None,
    tpm: Annotated[
        int | None, typer.Option(help="Tokens in a window, input and output together.", min=1, max=MAX_COUNT)
    ] = None,
    itpm: Annotated[int | None, typer.Option(help="Input tokens in a window.", min=1, max=MAX_COUNT)] = None,
    otpm: Annotated[int | None, typer.Option(help="Output tokens in a window.", min=1, max=MAX_COUNT)] = None,
    window_s: Annotated[float, typer.Option(help="The window, in seconds.", min=1, max=86_400)] = 60.0,
    data: Data = "",
    url: Url = "",
    api_key: ApiKey = "",
    output: Output = "text",
) -> None:
    """Set the limits of a provider: requests, tokens, input tokens, output tokens in a window (a minute).

    \b
    All workers of the store go by it within seconds. It replaces what was set under the name.

    \b
    Examples:
        stanchion quotas set anthropic --rpm 50 --tpm 40000
        stanchion quotas set anthropic:claude-sonnet-4-6 --itpm 30000 --otpm 8000
    """
    given = {"rpm": rpm, "tpm": tpm, "itpm": itpm, "otpm": otpm}
    counts: dict[str, float] = {key: value for key, value in given.items() if value is not None}
    if not counts:
        raise InputError("give at least one of --rpm, --tpm, --itpm, --otpm; `stanchion quotas rm` takes a limit away")

    async def work() -> Any:
        async with open_desk(Where(data, url, api_key), create=True) as desk:
            return await desk.set_quota(name, {**counts, "window_s": window_s})

    done = asyncio.run(work())
    if output == "json":
        print_json(done)
    else:
        shown = ", ".join(f"{key} {done[key]}" for key in given if done[key] is not None)
        say(f"{done['name']}: {shown} in {done['window_s']:g} s")


@app.command()
def rm(name: Name, data: Data = "", url: Url = "", api_key: ApiKey = "", output: Output = "text") -> None:
    """Take the limits of a provider away.

    \b
    Example:
        stanchion quotas rm anthropic
    """

    async def work() -> None:
        async with open_desk(Where(data, url, api_key)) as desk:
            await desk.drop_quota(name)

    asyncio.run(work())
    if output == "json":
        print_json({"name": name})
    else:
        say(f"{name}: no limit")
