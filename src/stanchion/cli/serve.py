"""`stanchion serve`: agents over HTTP, until it is told to stop."""

from __future__ import annotations

import contextlib
import gc
import json
import shlex
import shutil
import sys
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit, urlunsplit

import typer

from stanchion.cli.desk import Where, check_data
from stanchion.cli.loop import run_loop
from stanchion.cli.options import Data, Model, Output, Policies, SimScript, Simulated, SimulatedIfNoKey
from stanchion.cli.output import print_line, print_text, say
from stanchion.core.errors import InputError

if TYPE_CHECKING:
    from stanchion.agent import Agent
    from stanchion.runtime import Runtime

Files = Annotated[
    list[str],
    typer.Argument(metavar="AGENT..", help="Files that hold agents: agent.py, or agent.py:name for one of them."),
]
Host = Annotated[str, typer.Option(help="Address to listen on; anything but the loopback needs an API key.")]
Port = Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.", min=0, max=65535)]
Grace = Annotated[
    float, typer.Option(help="Seconds from SIGTERM to the end: what is in flight finishes or is journaled.", min=0)
]
MaxActive = Annotated[
    int,
    typer.Option(
        help="Runs that are driven here at once; a tenth of it is kept free of batch runs. Others wait their turn.",
        min=1,
    ),
]
Quotas = Annotated[
    list[str] | None,
    typer.Option(
        "--quota",
        metavar="LIMIT",
        help='What all workers together may ask of a provider: "anthropic rpm=50 tpm=40000"; may be repeated, also in '
        "STANCHION_QUOTAS (with ;). See `stanchion quotas`.",
    ),
]
AccessLog = Annotated[bool, typer.Option("--access-log", help="Write a line per request to stderr.")]


def serve(
    files: Files,
    host: Host = "127.0.0.1",
    port: Port = 8420,
    data: Data = "",
    grace_s: Grace = 10.0,
    max_active: MaxActive = 4_000,
    quota: Quotas = None,
    policies: Policies = None,
    access_log: AccessLog = False,
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
        stanchion serve agent.py --data postgresql://stanchion@db.internal/agents

    \b
    On PostgreSQL any number of servers and workers share one database: see also `stanchion worker` (drives only) and
    `stanchion api` (HTTP only). A data file has one driver.
    """
    where = Where(data=data).in_a_file()
    settings = http_settings(host, port, grace_s, access_log=access_log)
    answering = Answering(model, simulated, simulated_if_no_key, sim_script, max_active, quota or (), policies or ())
    run_loop(serve_http(files, where, answering, settings, said=try_ or (), as_json=output == "json"))


def http_settings(host: str, port: int, grace_s: float, *, access_log: bool) -> dict[str, object]:
    """Give the options of the HTTP server as its settings. Raises `InputError`."""
    return {"host": host, "port": port, "grace_s": check_grace(grace_s), "access_log": access_log}


def check_grace(grace_s: float) -> float:
    """Refuse a grace without an end. Raises `InputError`."""
    if not (grace_s < float("inf")):
        raise InputError("give a number of seconds", field="--grace-s")
    return grace_s


async def serve_http(
    files: Sequence[str],
    where: Where,
    answering: Answering | None,
    settings: dict[str, object],
    *,
    said: Sequence[str] = (),
    model: str = "",
    as_json: bool,
) -> None:
    """Serve agents over HTTP until a signal comes; without models (`answering` None) their runs are left to workers."""
    from stanchion.server.serve import serve as serve_runtime
    from stanchion.server.settings import Settings

    async with hosted(files, where, answering, model=model) as host:
        locked = bool(await host.runtime.keys.list())

        def announce(address: str) -> None:
            settle()
            if as_json:
                print_line({"url": address, **host.facts})
            else:
                print_text(welcome(address, host, said, locked=locked))

        await serve_runtime(host.runtime, settings=Settings(**settings), ready_callback=announce)  # pyright: ignore[reportArgumentType]
    say("stopped; what was not finished goes on when it is served again")


@dataclass(frozen=True, slots=True)
class Answering:
    """Who answers for the models, as the options say it."""

    model: str = ""
    simulated: bool = False
    if_no_key: bool = False
    script: str = ""
    max_active: int = 0
    """How many runs are driven at once."""
    quotas: Sequence[str] = ()
    """Limits of providers that all workers share."""
    policies: Sequence[str] = ()
    """Files and folders of Cedar policies."""


@dataclass(frozen=True, slots=True)
class Hosted:
    """A runtime with the agents of some files."""

    runtime: Runtime
    agents: list[Agent]
    data: str
    """Where the runs are, as it may be shown."""
    simulated: str
    """Address of the simulated provider, if it plays the models."""
    drives: bool

    @property
    def names(self) -> list[str]:
        return [agent.name for agent in self.agents]

    @property
    def facts(self) -> dict[str, object]:
        """What a program is told of it."""
        return {"agents": self.names, "data": self.data, "drives": self.drives, "simulated": bool(self.simulated)}


@contextlib.asynccontextmanager
async def hosted(
    files: Sequence[str], where: Where, answering: Answering | None, *, model: str = ""
) -> AsyncGenerator[Hosted]:
    """Open a runtime with the agents of some files; without `answering` it drives nothing and needs no model key."""
    from stanchion.cli.agents import load, model_provider
    from stanchion.runtime import Runtime

    check_data(where.data, create=True)
    agents = load(files, answering.model if answering else model)
    async with contextlib.AsyncExitStack() as stack:
        environment, simulated = None, ""
        if answering is not None:
            asked = (answering.simulated, answering.if_no_key, answering.script)
            provider = await stack.enter_async_context(
                model_provider(agents, simulated=asked[0], if_no_key=asked[1], script=asked[2])
            )
            environment, simulated = provider.environment, provider.simulated
        drives = answering is not None
        most = answering.max_active if answering else 0
        quotas = answering.quotas if answering else ()
        runtime = await Runtime.open(
            *agents,
            data=where.data,
            environment=environment,
            drive=drives,
            max_active=most,
            quotas=quotas,
            policies=answering.policies if answering else (),
        )
        stack.push_async_callback(runtime.aclose, grace_s=0)
        yield Hosted(runtime, agents, shown(where.data), simulated, drives)


def settle() -> None:
    """Keep what start-up made: no later collection needs to look at it."""
    gc.collect()
    gc.freeze()


def shown(data: str) -> str:
    """Write where the data is without the password that a URL may hold."""
    parts = urlsplit(data) if "://" in data else None
    if parts is None or parts.password is None:
        return data
    user, _, host = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{user.partition(':')[0]}:..@{host}"))


_KEY_FIRST = "(first: export STANCHION_API_KEY=sk-st-.., made with `stanchion keys add`)"
_BEARER = '-H "authorization: Bearer $STANCHION_API_KEY" '


def welcome(address: str, host: Hosted, said: Sequence[str], *, locked: bool = False) -> str:
    """Say where it listens, and three things to try. `locked`: requests need an API key."""
    agent = host.agents[0].name
    texts = [*said, "hello"]
    asked, posted = texts[0], texts[1] if len(texts) > 2 else texts[0]
    body = json.dumps({"agent": agent, "input": posted, "mode": "wait"}, ensure_ascii=False)
    stanchion = program()
    lines = [
        f"serving {', '.join(host.names)} at {address} (data: {host.data})",
        *notes(host),
        "",
        "three things to try, each one command:" + (f" {_KEY_FIRST}" if locked else ""),
        f"  {stanchion} run {agent} {shlex.quote(asked)} --url {address}",
        f"  curl -s {address}/v1/runs {_BEARER if locked else ''}-H 'content-type: application/json' -d {shlex.quote(body)}",
        f"  {stanchion} runs ls --url {address}",
    ]
    return "\n".join(lines)


def notes(host: Hosted) -> list[str]:
    """Say what a person might mistake: who answers, and who drives."""
    said: list[str] = []
    if host.simulated:
        said.append(f"SIMULATED: no model is asked and nothing is paid; {host.simulated} plays the model")
    if not host.drives:
        said.append("HTTP only: runs are accepted and followed here; they go on where `stanchion worker` drives them")
    return said


def program() -> str:
    """Name this program as a person in the same folder can call it: by its path where it is not on the PATH."""
    called = sys.argv[0]
    if not Path(called).name.startswith("stanchion"):
        return "stanchion"  # started as `python -m stanchion.cli`
    found = shutil.which("stanchion")
    same = found is not None and Path(found).resolve() == Path(called).resolve()
    return "stanchion" if same else shlex.quote(called)
