"""`stanchion serve`: agents over HTTP, until it is told to stop."""

from __future__ import annotations

import gc
import json
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stanchion.cli.desk import Where, check_data
from stanchion.cli.loop import run_loop
from stanchion.cli.options import Data, Model, Output, SimScript, Simulated, SimulatedIfNoKey
from stanchion.cli.output import print_line, print_text, say
from stanchion.core.errors import InputError

if TYPE_CHECKING:
    from stanchion.agent import Agent


def serve(
    files: Annotated[
        list[str],
        typer.Argument(metavar="AGENT..", help="Files that hold agents: agent.py, or agent.py:name for one of them."),
    ],
    host: Annotated[
        str, typer.Option(help="Address to listen on; anything but the loopback needs an API key.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.", min=0, max=65535)] = 8420,
    data: Data = "",
    grace_s: Annotated[
        float, typer.Option(help="Seconds from SIGTERM to the end: what is in flight finishes or is journaled.", min=0)
    ] = 10.0,
    access_log: Annotated[bool, typer.Option("--access-log", help="Write a line per request to stderr.")] = False,
    model: Model = "",
    simulated: Simulated = False,
    simulated_if_no_key: SimulatedIfNoKey = False,
    sim_script: SimScript = "",
    try_: Annotated[
        list[str] | None, typer.Option("--try", metavar="TEXT", help="What the printed examples say; twice for two.")
    ] = None,
    output: Output = "text",
) -> None:
    """Serve agents over HTTP. What a killed server left unfinished goes on when it starts again.

    \b
    SIGTERM and Ctrl-C drain: no new runs, steps in flight finish or are journaled, streams end with their reason.

    \b
    Examples:
        stanchion serve agent.py
        stanchion serve agent.py --simulated
        stanchion serve support.py billing.py --data /srv/agents/stanchion.db --port 8080
        stanchion serve agent.py --model openai-chat:gpt-5
    """
    if not (grace_s < float("inf")):
        raise InputError("give a number of seconds", field="--grace-s")
    where = Where(data=data).in_a_file()
    check_data(where.data, create=True)
    run_loop(
        _serve(
            files,
            model,
            where.data,
            simulated=simulated,
            if_no_key=simulated_if_no_key,
            script=sim_script,
            settings={"host": host, "port": port, "grace_s": grace_s, "access_log": access_log},
            said=try_ or (),
            as_json=output == "json",
        )
    )


async def _serve(
    files: Sequence[str],
    model: str,
    data: str,
    *,
    simulated: bool,
    if_no_key: bool,
    script: str,
    settings: dict[str, object],
    said: Sequence[str],
    as_json: bool,
) -> None:
    from stanchion.cli.agents import load, model_provider
    from stanchion.runtime import Runtime
    from stanchion.server.serve import serve as serve_http
    from stanchion.server.settings import Settings

    agents = load(files, model)
    async with model_provider(agents, simulated=simulated, if_no_key=if_no_key, script=script) as provider:
        runtime = await Runtime.open(*agents, data=data, environment=provider.environment)
        locked = bool(await runtime.keys())

        def announce(address: str) -> None:
            gc.collect()
            gc.freeze()  # what start-up made stays: no later collection needs to look at it
            names = [agent.name for agent in agents]
            if as_json:
                print_line({"url": address, "agents": names, "data": data, "simulated": bool(provider.simulated)})
            else:
                print_text(welcome(address, agents, data, said, provider.simulated, locked=locked))

        try:
            await serve_http(runtime, settings=Settings(**settings), ready_callback=announce)  # pyright: ignore[reportArgumentType]
        finally:
            await runtime.aclose(grace_s=0)
    say("stopped; what was not finished goes on when it is served again")


_KEY_FIRST = "(first: export STANCHION_API_KEY=sk-st-.., made with `stanchion keys add`)"
_BEARER = '-H "authorization: Bearer $STANCHION_API_KEY" '


def welcome(
    address: str, agents: Sequence[Agent], data: str, said: Sequence[str], simulated: str, *, locked: bool = False
) -> str:
    """Say where it listens, and three things to try. `locked`: requests need an API key."""
    agent = agents[0].name
    texts = [*said, "hello"]
    asked, posted = texts[0], texts[1] if len(texts) > 2 else texts[0]
    body = json.dumps({"agent": agent, "input": posted, "mode": "wait"}, ensure_ascii=False)
    stanchion = program()
    played = f"SIMULATED: no model is asked and nothing is paid; {simulated} plays the model"
    lines = [
        f"serving {', '.join(each.name for each in agents)} at {address} (data: {data})",
        *([played] if simulated else []),
        "",
        "three things to try, each one command:" + (f" {_KEY_FIRST}" if locked else ""),
        f"  {stanchion} run {agent} {shlex.quote(asked)} --url {address}",
        f"  curl -s {address}/v1/runs {_BEARER if locked else ''}-H 'content-type: application/json' -d {shlex.quote(body)}",
        f"  {stanchion} runs ls --url {address}",
    ]
    return "\n".join(lines)


def program() -> str:
    """Name this program as a person in the same folder can call it: by its path where it is not on the PATH."""
    called = sys.argv[0]
    if not Path(called).name.startswith("stanchion"):
        return "stanchion"  # started as `python -m stanchion.cli`
    found = shutil.which("stanchion")
    same = found is not None and Path(found).resolve() == Path(called).resolve()
    return "stanchion" if same else shlex.quote(called)
