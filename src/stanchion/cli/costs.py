"""`stanchion costs`: what runs cost, by what one likes, and what they would have cost otherwise."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from stanchion.cli.desk import Json, Where, open_desk
from stanchion.cli.options import ApiKey, Data, Output, Tenant, Url
from stanchion.cli.output import Column, Row, print_json, print_text, say, table, when
from stanchion.core.errors import InputError
from stanchion.core.money import parse_usd

NAMELESS = "-"
"""Shown for what has no name: a call without a tool, a run without a user."""

By = Annotated[
    str,
    typer.Option(
        metavar="NAME[,NAME]",
        help="One or two of agent, model, step, tool, skill, user, tenant, session, run, day.",
    ),
]
Since = Annotated[
    str, typer.Option(metavar="TIME", help='From then on: a day (UTC), a time with its zone, or "7d" or "24h" ago.')
]
Until = Annotated[str, typer.Option(metavar="TIME", help="Before then; written likewise.")]
OnModel = Annotated[
    str, typer.Option(metavar="PROVIDER:MODEL", help="What if: the same tokens at this model's price of today.")
]
WithoutCache = Annotated[bool, typer.Option("--without-cache", help="What if: all input at the plain rate.")]
InBatches = Annotated[bool, typer.Option("--batch", help="What if: every model call at the batch price.")]
Routes = Annotated[
    list[str] | None,
    typer.Option(
        metavar="STEP=PROVIDER:MODEL@TOKENS",
        help="What if: a step (plan, act, answer, extract) by this model, with so many tokens of input at most.",
    ),
]
AllTenants = Annotated[
    bool, typer.Option("--all-tenants", help="Of every tenant; only on the data itself, for its operator.")
]


def costs(
    by: By = "agent",
    since: Since = "",
    until: Until = "",
    agent: Annotated[str, typer.Option(help="Only runs of this agent.")] = "",
    session: Annotated[str, typer.Option(help="Only runs of this session.")] = "",
    user: Annotated[str, typer.Option(help="Only runs for this user.")] = "",
    top: Annotated[int, typer.Option(help="So many groups, the dearest first.", min=1, max=1000)] = 20,
    on_model: OnModel = "",
    without_cache: WithoutCache = False,
    batch: InBatches = False,
    route: Routes = None,
    all_tenants: AllTenants = False,
    data: Data = "",
    url: Url = "",
    api_key: ApiKey = "",
    tenant: Tenant = "",
    output: Output = "text",
) -> None:
    """Say what runs cost, what the provider's cache saved, and what they would have cost otherwise.

    \b
    Steps are plan (a run's first answer, if it asks for tools), act (later ones that do), answer (those that do not), extract,
    check, tool, retry (attempts that failed and were billed), refresh (made so that the cache keeps a request), and
    remember (what is worth remembering of a run). A skill's costs are those of a run from where it opened the skill on.

    \b
    Examples:
        stanchion costs
        stanchion costs --by agent,day --since 7d
        stanchion costs --by tool --agent support -o json | jq .groups
        stanchion costs --since 2026-11-01 --on-model anthropic:claude-haiku-4-5
        stanchion costs --without-cache --batch
        stanchion costs --by skill --route answer=anthropic:claude-haiku-4-5@2000
    """
    where = Where(data, url, api_key, tenant)
    if all_tenants and (tenant or where.resolve().url):
        raise InputError(
            "goes with --data alone: a server's API key, or --tenant, says whose runs are meant", field="--all-tenants"
        )
    asked = {
        "by": [name.strip() for name in by.split(",")], "since": since, "until": until, "agent": agent,
        "session": session, "user": user, "on_model": on_model, "without_cache": without_cache, "batch": batch, "top": top,
        "route": route or [],
    }  # fmt: skip

    async def work() -> Json:
        async with open_desk(where) as desk:
            with _progress() as tell:
                return await desk.costs(asked, all_tenants=all_tenants, progress=tell)

    try:
        report = asyncio.run(work())
    except InputError as error:
        option = f"--{error.field.replace('_', '-')}" if error.field in asked else error.field
        raise InputError(str(error).removeprefix(f"{error.field}: "), field=option) from None
    if output == "json":
        print_json(report)
    else:
        _print(report)


@contextmanager
def _progress() -> Generator[Callable[[int], None]]:
    """Count on stderr while it goes on, where that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda _runs: None
        return

    def tell(runs: int) -> None:
        sys.stderr.write(f"\rlooked at {runs:,} run{'' if runs == 1 else 's'}")
        sys.stderr.flush()

    yield tell
    sys.stderr.write("\r\x1b[K")


# --- as text ------------------------------------------------------------------------------------------------------------


def _print(report: Json) -> None:
    rows = in_order(report["groups"], report["by"])
    if rows and report["rest"]:
        rows.append({**report["rest"], "key": {report["by"][0]: f"({report['more_groups']:,} more)"}})
    if len(rows) > 1:
        rows.append({**report["total"], "key": {report["by"][0]: "(total)"}})
    table(rows, list(_columns(report)), empty="no run cost anything in that time")
    if rows:
        _print_beside(report)
    if not report["complete"]:
        newest = f"only the newest {report['looked_at']:,} runs were looked at, back to {when(report['reached_ms'])}"
        say(f"{newest}; ask on the data itself (--data) for all")
    if report["unreadable"]:
        say(f"left out, for this version cannot read them: {', '.join(report['unreadable'])}")


def in_order(groups: Sequence[Row], by: Sequence[str]) -> list[Row]:
    """Put groups in the order in which they are read: by time where there are days, else the dearest first, as they came."""
    return sorted(groups, key=lambda group: [group["key"][name] for name in by]) if "day" in by else list(groups)


def _columns(report: Json) -> Iterator[Column]:
    whole = _nano(report["total"]["usd"])
    for name in report["by"]:
        yield name, _part(name)
    yield "cost", _dollars("usd")
    yield "share", lambda row: f"{100 * _nano(row['usd']) / whole:.1f} %" if whole else NAMELESS
    if report["what_if"]:
        yield "what if", _dollars("what_if_usd")
    yield "runs", _count("runs")
    yield "calls", _count("calls")
    if "tool" in report["by"]:
        yield "tool calls", _count("tool_calls")
        yield "added tokens", _count("added_tokens")
    yield "input", _count("input_tokens")
    yield "from cache", _cached
    yield "output", _count("output_tokens")
    yield "cache saved", _dollars("cache_net_usd")


def _print_beside(report: Json) -> None:
    """Say what the cache did, what is not known, and what was supposed."""
    total, what_if = report["total"], report["what_if"]
    if _nano(total["cache_read_saved_usd"]) or _nano(total["cache_extra_usd"]):
        saved, extra = total["cache_read_saved_usd"], total["cache_extra_usd"]
        print_text(
            f"\ncache: reads saved ${saved}, writes and refreshes cost ${extra} more; net {_signed(total['cache_net_usd'])}"
        )
    if _nano(total["unmetered_usd"]):
        text = "of calls whose tokens do not say it, such as lost ones that were settled at their reservation"
        print_text(f"in it: ${total['unmetered_usd']} {text}")
    if what_if:
        print_text(
            f"\nwhat if: ${what_if['usd']} in place of ${total['usd']} ({_signed(what_if['difference_usd'], plus=True)})"
        )
        print_text(what_if["note"])
        if _nano(what_if["kept_usd"]):
            print_text(
                f"${what_if['kept_usd']} of it stayed as it was: tools, checks, calls whose tokens do not say it."
            )


def _part(name: str) -> Callable[[Row], str]:
    return lambda row: (row["key"][name] or NAMELESS) if name in row["key"] else ""


def _count(name: str) -> Callable[[Row], str]:
    return lambda row: f"{row[name]:,}"


def _dollars(name: str) -> Callable[[Row], str]:
    return lambda row: _signed(row[name])


def _cached(row: Row) -> str:
    return f"{100 * row['cache_read_tokens'] / row['input_tokens']:.0f} %" if row["input_tokens"] else NAMELESS


def _signed(usd: str, *, plus: bool = False) -> str:
    """Write an amount that may be below zero."""
    if usd.startswith("-"):
        return f"-${usd[1:]}"
    return f"+${usd}" if plus and _nano(usd) else f"${usd}"


def _nano(usd: Any) -> int:
    sign = -1 if usd.startswith("-") else 1
    return sign * parse_usd(usd.removeprefix("-"), field="usd")
