"""`stanchion forecast`: what a run of an agent will cost."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import typer

from stanchion.cli.desk import Where, open_desk
from stanchion.cli.options import ApiKey, Data, Output, Tenant, Url
from stanchion.cli.output import print_json, print_text
from stanchion.cli.show import forecast_text


def forecast(
    agent: Annotated[str, typer.Argument(metavar="AGENT", help="The agent's name.")],
    input: Annotated[str, typer.Option(metavar="TEXT", help="What it would be asked; only its length is used.")] = "",
    turns: Annotated[
        int | None, typer.Option(metavar="N", help="By a shape, not by past runs: N model calls, ..", min=1, max=1_000)
    ] = None,
    prefix_tokens: Annotated[
        int | None,
        typer.Option(
            metavar="N", help=".. the first of N tokens (else: identity and tools), ..", min=1, max=10_000_000
        ),
    ] = None,
    growth_tokens: Annotated[
        int | None, typer.Option(metavar="N", help=".. each N longer, ..", min=1, max=10_000_000)
    ] = None,
    output_tokens: Annotated[
        int | None, typer.Option(metavar="N", help=".. N answered.", min=1, max=10_000_000)
    ] = None,
    data: Data = "",
    url: Url = "",
    api_key: ApiKey = "",
    tenant: Tenant = "",
    output: Output = "text",
) -> None:
    """Say what a run of an agent will cost, and within what range: by its past runs, or by a shape.

    \b
    Of a run that is under way, `stanchion runs show RUN` says it.

    \b
    Examples:
        stanchion forecast support
        stanchion forecast support --input "Please cancel my reservation."
        stanchion forecast support --turns 15 --prefix-tokens 60000 --growth-tokens 1400 --output-tokens 500
    """
    asked = {
        "agent": agent, "input_bytes": len(input.encode()), "turns": turns or 0, "prefix_tokens": prefix_tokens or 0,
        "growth_tokens": growth_tokens or 0, "output_tokens": output_tokens or 0,
    }  # fmt: skip

    async def work() -> Any:
        async with open_desk(Where(data, url, api_key, tenant)) as desk:
            return await desk.forecast(asked)

    said = asyncio.run(work())
    if output == "json":
        print_json(said)
    else:
        print_text(f"{forecast_text(said)}\n{said['note']}")
