"""`stanchion worker`: drive runs, and take no requests. As many as are wanted, on one database."""

from __future__ import annotations

from typing import Annotated

import typer

from stanchion.cli.desk import Where
from stanchion.cli.loop import run_loop
from stanchion.cli.options import Data, Model, Output, Policies, SimScript, Simulated, SimulatedIfNoKey
from stanchion.cli.output import print_line, print_text, say
from stanchion.cli.serve import Answering, Files, Grace, Hosted, MaxActive, Quotas, check_grace, hosted, notes, settle


def worker(
    files: Files,
    data: Data = "",
    grace_s: Grace = 10.0,
    max_active: MaxActive = 4_000,
    quota: Quotas = None,
    policies: Policies = None,
    health_port: Annotated[
        int | None,
        typer.Option(
            help="Answer GET /live and /ready on this port (0: a free one).", min=0, max=65535, show_default=False
        ),
    ] = None,
    health_host: Annotated[str, typer.Option(help="Address for the health port.")] = "127.0.0.1",
    model: Model = "",
    simulated: Simulated = False,
    simulated_if_no_key: SimulatedIfNoKey = False,
    sim_script: SimScript = "",
    output: Output = "text",
) -> None:
    """Drive the runs of agents, without HTTP: beside `stanchion api`, or to add capacity to `stanchion serve`.

    \b
    Start as many as you like on one PostgreSQL database: each takes up what nobody drives, and what a worker that
    died was driving, within some three seconds. A data file has one driver: one worker, with `stanchion api` beside it.
    SIGTERM and Ctrl-C drain: nothing new is taken up, steps in flight finish or are journaled, and the other workers
    go on with the rest at once.

    \b
    Examples:
        stanchion worker agent.py --data postgresql://stanchion@db.internal/agents
        stanchion worker support.py billing.py --health-port 8421
        stanchion worker agent.py --data /srv/agents/stanchion.db --grace-s 30
    """
    where, grace = Where(data=data).in_a_file(), check_grace(grace_s)
    answering = Answering(model, simulated, simulated_if_no_key, sim_script, max_active, quota or (), policies or ())
    run_loop(_work(files, where, answering, grace, health_host, health_port, as_json=output == "json"))


async def _work(
    files: list[str],
    where: Where,
    answering: Answering,
    grace_s: float,
    health_host: str,
    health_port: int | None,
    *,
    as_json: bool,
) -> None:
    from stanchion.server.settings import Settings
    from stanchion.server.work import work

    health = None if health_port is None else Settings(host=health_host, port=health_port, grace_s=grace_s)
    async with hosted(files, where, answering) as host:

        def announce(address: str) -> None:
            settle()
            if as_json:
                print_line({"health": address, **host.facts})
            else:
                print_text(welcome(host, address))

        await work(host.runtime, grace_s=grace_s, health=health, ready_callback=announce)
    say("stopped; what was not finished goes on with the other workers, or when this one is back")


def welcome(host: Hosted, health: str) -> str:
    """Say what is driven here, and where to look."""
    lines = [f"driving the runs of {', '.join(host.names)} (data: {host.data})", *notes(host)]
    return "\n".join([*lines, *([f"health: {health}/live and {health}/ready"] if health else [])])
