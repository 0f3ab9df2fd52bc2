"""`stanchion run`: one run in the terminal, from its input to its answer."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import AsyncGenerator
from typing import Annotated, Any

import msgspec
import typer

from stanchion.cli.desk import Ask, Decided, Desk, Json, Where, check_data, open_desk, user_name
from stanchion.cli.errors import OUTCOMES, ExitCode
from stanchion.cli.loop import run_loop
from stanchion.cli.options import (
    ApiKey,
    By,
    Data,
    Model,
    Output,
    Policies,
    SimScript,
    Simulated,
    SimulatedIfNoKey,
    Tenant,
    Url,
    text_of,
)
from stanchion.cli.output import print_json, print_line, print_text, say
from stanchion.core.errors import InputError

LEAVE_S = 2.0
"""How long closing waits for what is in flight, once the run is over or left."""


class Wanted(msgspec.Struct, frozen=True):
    """What the command line asks for."""

    ask: Ask
    where: Where
    model: str
    simulated: bool
    if_no_key: bool
    script: str
    answer: bool | None
    """True: approve all; False: leave what waits; None: ask the person at the terminal."""
    by: str
    as_json: bool
    events: bool
    policies: list[str]


Batch = Annotated[
    bool, typer.Option("--batch", help="Let it wait behind interactive runs; it is taken up when there is room.")
]
Grants = Annotated[
    str,
    typer.Option("--grant", metavar="JSON|@FILE", help="What it may do at most: grants; calls outside are denied."),
]
AskHere = Annotated[
    bool | None,
    typer.Option(
        "--ask/--no-ask", help="Ask here about what waits, or leave it. Default: ask in a terminal.", show_default=False
    ),
]
Task = Annotated[str, typer.Option("--task", help="The type of task it is for: policies may go by it.")]
Step = Annotated[str, typer.Option("--step", help="The type of its turns, by which the agent's table routes them.")]
Events = Annotated[bool, typer.Option("--events", help="With -o json: print each event as a line, then the run.")]


def run(
    agent: Annotated[
        str, typer.Argument(metavar="AGENT", help="The agent's file (agent.py, agent.py:name); with --url its name.")
    ],
    input: Annotated[str, typer.Argument(metavar="INPUT", help="What to say to it; `-` reads it from stdin.")],
    session: Annotated[str, typer.Option(help="Conversation to go on with; a new one if left out.")] = "",
    user: Annotated[str, typer.Option(help="Who it is for: budgets go by it.")] = "",
    usd: Annotated[str, typer.Option(metavar="USD", help="What this run may cost at most, like 0.50.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read for real, only pretend to have effects.")] = False,
    batch: Batch = False,
    grant: Grants = "",
    task: Task = "",
    step: Step = "",
    policies: Policies = None,
    model: Model = "",
    simulated: Simulated = False,
    simulated_if_no_key: SimulatedIfNoKey = False,
    sim_script: SimScript = "",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Approve every call that waits for approval.")] = False,
    ask: AskHere = None,
    by: By = "",
    events: Events = False,
    data: Data = "",
    url: Url = "",
    api_key: ApiKey = "",
    tenant: Tenant = "",
    output: Output = "text",
) -> None:
    """Run an agent in the terminal: its text, its tool calls and what they brought, and what it cost.

    \b
    What waits for a person is asked about here. Ctrl-C cancels the run; a second one leaves it to go on
    when it is served. The answer goes to stdout, the rest to stderr.

    \b
    Examples:
        stanchion run agent.py "Where is order A-17?"
        stanchion run agent.py "hello" --simulated
        stanchion run agent.py - --usd 0.10 --yes < question.txt
        stanchion run agent.py "Refund A-17" --grant '[{"tools": ["lookup_*"]}]'
        stanchion run support "And when?" --session ses_1 --url http://127.0.0.1:8420
        stanchion run agent.py "hello" -o json | jq -r .text

    \b
    Exit codes: 0 done, 1 failed, 2 usage, 3 halted by a limit or a budget, 4 waits for a person,
    5 cancelled, 6 handed over to a person, 130 left with Ctrl-C.
    """
    if yes and ask:
        raise InputError("--yes and --ask are two answers to one question; give one of them")
    said = sys.stdin.read() if input == "-" else input
    if not said.strip():
        raise InputError("it is empty; say something", field="INPUT")
    if usd:
        _check_usd(usd)
    wanted = Wanted(
        Ask(agent, said, session, user, usd, dry_run, "batch" if batch else "", _grants(grant), task, step),
        Where(data, url, api_key, tenant),
        model,
        simulated,
        simulated_if_no_key,
        sim_script,
        _answer(yes=yes, ask=ask, stdin_is_input=input == "-"),
        user_name(by),
        output == "json",
        events,
        policies or [],
    )
    raise typer.Exit(int(run_loop(_run(wanted))))


def _answer(*, yes: bool, ask: bool | None, stdin_is_input: bool) -> bool | None:
    """Settle who answers for what waits: all approved (True), a person here (None), nobody now (False)."""
    if yes:
        return True
    asked = sys.stdin.isatty() if ask is None else ask
    return None if asked and not stdin_is_input else False


def _grants(grant: str) -> Any:
    """Read what the run is narrowed to, as plain JSON: the runtime checks it."""
    if not grant:
        return None
    try:
        said = msgspec.json.decode(text_of(grant, "--grant"))
    except msgspec.DecodeError as error:
        raise InputError(f"this is no JSON: {error}", field="--grant") from None
    return [said] if isinstance(said, dict) else said


def _check_usd(usd: str) -> None:
    from stanchion.core.money import parse_usd

    if not parse_usd(usd, field="--usd"):
        raise InputError("0 dollars pay for nothing; give an amount like 0.50", field="--usd")


async def _run(wanted: Wanted) -> ExitCode:
    from stanchion.cli.follow import Follower, Lines, approve, ask_person
    from stanchion.cli.show import Screen

    async with _desk(wanted) as (desk, ask, simulated):
        run = await desk.start(ask)
        lines = Lines()

        async def on_waiting(waiting: Json) -> Decided | None:
            if wanted.answer is None:
                return await ask_person(lines, waiting, wanted.by)
            return approve(waiting, wanted.by) if wanted.answer else None

        screen = Screen(quiet=wanted.as_json)
        follower = Follower(desk, run, screen, on_waiting, by=wanted.by, lines=wanted.as_json and wanted.events)
        view = await follower.follow()
        _conclude(wanted, view, live=screen.live, simulated=simulated)
        return _code(view, left=follower.left)


@contextlib.asynccontextmanager
async def _desk(wanted: Wanted) -> AsyncGenerator[tuple[Desk, Ask, bool]]:
    """Open what the run is started at: a server, or a runtime of its own with the agents of the file."""
    if _at_server(wanted):
        async with open_desk(wanted.where) as desk:
            yield desk, wanted.ask, False
        return
    from stanchion.cli.agents import load, model_provider
    from stanchion.cli.desk import FileDesk
    from stanchion.runtime import Runtime

    where = wanted.where.in_a_file()
    check_data(where.data, create=True)
    agents = load([wanted.ask.agent], wanted.model)
    if len(agents) > 1:
        names = ", ".join(f"{wanted.ask.agent}:{agent.name}" for agent in agents)
        raise InputError(f"{wanted.ask.agent} has {len(agents)} agents; name one: {names}", field="AGENT")
    async with model_provider(
        agents, simulated=wanted.simulated, if_no_key=wanted.if_no_key, script=wanted.script
    ) as provider:
        runtime = await Runtime.open(
            *agents, data=where.data, environment=provider.environment, adopt=False, policies=wanted.policies
        )
        log = logging.getLogger("stanchion")
        level = log.level
        log.setLevel(logging.ERROR)  # what becomes of the run is on the screen
        try:
            ask = msgspec.structs.replace(wanted.ask, agent=agents[0].name)
            if provider.simulated:
                say(f"SIMULATED: no model is asked and nothing is paid; {provider.simulated} plays the model")
            yield FileDesk(runtime, where.tenant or "default"), ask, bool(provider.simulated)
        finally:
            await runtime.aclose(grace_s=LEAVE_S)
            log.setLevel(level)


def _at_server(wanted: Wanted) -> bool:
    """A file is run here, a name at the server; an address on the command line settles it."""
    agent, where = wanted.ask.agent, wanted.where
    is_file = agent.partition(":")[0].endswith(".py") or "/" in agent
    if where.url and is_file:
        raise InputError(f"{agent!r} is a file; with --url name an agent of that server", field="AGENT")
    if where.url and (wanted.simulated or wanted.if_no_key or wanted.model or wanted.policies):
        raise InputError("--model, --simulated and --policies are the server's to choose; they do not go with --url")
    return bool(where.url) or (not is_file and not where.data and bool(os.environ.get("STANCHION_URL")))


def _conclude(wanted: Wanted, view: Json, *, live: bool, simulated: bool) -> None:
    """Print what the run came to."""
    from stanchion.cli.serve import program
    from stanchion.cli.show import how_to_decide, summary

    if wanted.as_json:
        (print_line if wanted.events else print_json)(view)
        return
    if not live and view["text"]:
        print_text(view["text"])
    say(summary(view, simulated=simulated))
    if view["waiting"]:
        say(f"it waits for a person; decide with\n{how_to_decide(view['run'], view['waiting'], there(wanted.where))}")
        if not _at_server(wanted):
            say("and it goes on when the agent is served (or run) on this data file")
    elif view["status"] == "parked":
        say(
            f"it is parked ({view['parked']}); mend that, then: "
            f"{program()} runs revive {view['run']}{there(wanted.where)}"
        )


def there(where: Where) -> str:
    """The options that another command needs to find the same runs."""
    said = {"--url": where.url, "--data": where.data, "--tenant": where.tenant}
    return "".join(f" {name} {value}" for name, value in said.items() if value)


def _code(view: Json, *, left: bool) -> ExitCode:
    if left and view["status"] != "ended":
        say("it is left; it goes on when its agent is served")
        return ExitCode.INTERRUPTED
    if view["status"] == "ended":
        return OUTCOMES.get(view["outcome"], ExitCode.FAILED)
    return ExitCode.WAITING
