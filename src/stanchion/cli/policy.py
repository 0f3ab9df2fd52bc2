"""`stanchion policy`: check policies, try them on cases, and explain what became of a call."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from stanchion.cli.desk import Json, Where, open_desk
from stanchion.cli.errors import ExitCode
from stanchion.cli.options import ApiKey, Data, Output, Tenant, Url
from stanchion.cli.output import Column, one_line, print_json, print_text, say, table, when
from stanchion.cli.runs import with_hint
from stanchion.core.errors import NotFound

app = typer.Typer(name="policy", no_args_is_help=True, help="Check policies, try them, and explain calls.")

Files = Annotated[
    list[str], typer.Argument(metavar="FILE..", help="Files of Cedar policies, or folders with *.cedar files.")
]
Agents = Annotated[
    list[str] | None,
    typer.Option("--agent", metavar="AGENT", help="Agents' files (agent.py, agent.py:name) whose tools are meant."),
]
TRIED: tuple[Column, ...] = (
    ("", lambda row: "ok" if row["ok"] else "WRONG"),
    ("case", lambda row: row["name"]),
    ("tool", lambda row: row["tool"]),
    ("expected", lambda row: row["expected"]),
    ("said", lambda row: row["action"]),
    ("by", lambda row: ", ".join(row["rules"])),
    ("because", lambda row: one_line(row["reason"], 80)),
)
ROWS: tuple[Column, ...] = (
    ("value", lambda row: one_line(f"{row['path']} = {row['value']!r}", 60)),
    ("means", lambda row: " ".join(filter(None, (row["role"], row["kind"])))),
    ("ground", lambda row: row["ground"] or "-"),
    ("which is", lambda row: row["note"]),
)


@app.command()
def check(files: Files, agent: Agents = None, output: Output = "text") -> None:
    """Check that policies can be read, and that they fit the tools of agents.

    \b
    Refused are: what is no Cedar; tools, arguments and attributes that do not exist; comparisons of two types; optional
    arguments without `has`; names asked about with `has` that no call has. Each problem is said with file and line.

    \b
    Examples:
        stanchion policy check policies/ --agent agent.py
        stanchion policy check refunds.cedar mail.cedar --agent support.py --agent billing.py
    """
    from stanchion.cli.agents import load
    from stanchion.runtime.authoring.trying import check_policies

    checked = check_policies(files, load(agent or ()))
    if output == "json":
        print_json(checked)
        return
    print_text(f"{len(checked.policies)} policies are in order: {', '.join(checked.policies) or 'none'}")
    print_text(f"digest {checked.digest}")
    if not checked.agents:
        say("the names of tools and arguments were not checked; give the agents with --agent")


@app.command(name="test")
def try_cases(
    files: Files,
    cases: Annotated[str, typer.Option(metavar="FILE", help="Calls with what is expected, as JSON or YAML.")],
    agent: Agents = None,
    output: Output = "text",
) -> None:
    """Ask policies about calls that a file describes, and say where the answer is not the one expected.

    \b
    A case has a tool, arguments, a context (tenant, user, agent, task, said, destinations, secrecy, untrusted, granted,
    now_ms; tier without --agent), and what to expect: allow, ask or deny; perhaps the rule that decides.

    \b
    Examples:
        stanchion policy test policies/ --cases cases.yaml --agent agent.py
        stanchion policy test refunds.cedar --cases cases.json -o json

    \b
    Exit codes: 0 all as expected, 1 not all, 2 the files cannot be used.
    """
    from stanchion.cli.agents import load
    from stanchion.runtime.authoring import trying

    tried = trying.try_cases(files, load(agent or ()), trying.read_cases(cases))
    wrong = sum(not one.ok for one in tried)
    if output == "json":
        print_json(tried)
    else:
        rows = [{name: getattr(one, name) for name in one.__struct_fields__} for one in tried]
        table(rows, TRIED, empty="there are no cases")
        say(f"{len(tried) - wrong} of {len(tried)} as expected")
    if wrong:
        raise typer.Exit(int(ExitCode.FAILED))


@app.command()
def explain(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Id of the run.")],
    call: Annotated[str, typer.Argument(metavar="[CALL]", help="Which call, as in 4.0; without it all of them.")] = "",
    data: Data = "",
    url: Url = "",
    api_key: ApiKey = "",
    tenant: Tenant = "",
    output: Output = "text",
) -> None:
    """Say why a call was allowed, asked about or denied: each value, what it means, its ground and where it came from.

    \b
    The call is judged again, by the bundle and the policies as they were then; it says so where that gives something else.

    \b
    Examples:
        stanchion policy explain run_01
        stanchion policy explain run_01 4.0 --url http://127.0.0.1:8420
    """
    said = asyncio.run(_explained(Where(data, url, api_key, tenant), run, call))
    if output == "json":
        print_json(said[0] if call else said)
        return
    if not said:
        say(f"no call of {run} was judged")
    for number, one in enumerate(said):
        print_text("\n" * bool(number), end="")
        show(one)


async def _explained(where: Where, run: str, call: str) -> Sequence[Json]:
    async with open_desk(where) as desk:
        try:
            calls = [call] if call else await desk.judged(run)
            return [await desk.explain(run, each) for each in calls]
        except NotFound as error:
            raise NotFound(with_hint(str(error))) from None


def show(said: Json) -> None:
    """Print an explanation: the verdict first, then the values, where they came from, and what each rule had to say."""
    word = {"allow": "allowed", "ask": "asked about", "deny": "denied"}[said["action"]]
    tier = f" ({said['tier']})" if said["tier"] else ""
    print_text(f"{said['run']} {said['call']}: {said['tool']}{tier} was {word} by {said['rule']}")
    if said["reason"]:
        print_text(f"  {said['reason']}")
    print_text("")
    table(said["rows"], ROWS, empty="  it has no values that can be shown")
    for row in said["rows"]:
        for origin in row["origins"]:
            print_text(f"\n{row['path']} stands {place_of(origin)}:\n  {origin['around']}")
    print_text("\nwhat each rule says")
    for reason in said["reasons"]:
        about = f" [{', '.join(reason['values'])}]" if reason.get("values") else ""
        print_text(f"  {reason['action']:<5} {reason['rule']}{about}: {reason.get('text', '')}")
    print_text("\nwhat happened")
    for one in said["history"]:
        by = f" by {one['by']}" if one["by"] else f" by {one['rule']}" if one["rule"] else ""
        why = f": {one['reason']}" if one["reason"] else ""
        print_text(f"  {when(one['at_ms'])}  {one['action']}{by}{why}")
    print_text(f"\n{_replay(said)}")


def place_of(origin: Json) -> str:
    """Say where a value stands, and whether that counts."""
    if origin["tool"]:
        path = f" at {origin['path']}" if origin["path"] else ""
        where = f"in what {origin['tool']} answered ({origin['call']}){path}"
    elif origin["message"] < 0:
        where = "in the agent's own instructions"
    else:
        where = f"in what the {origin['source']} said (message {origin['message']})"
    return where if origin["trusted"] else f"{where}, which is not trusted"


def _replay(said: Any) -> str:
    under = f" under the policies {said['policy']}" if said["policy"] else ""
    note = f": {said['note']}" if said["note"] else ""
    match said["replay"]:
        case "same":
            return f"judged again{under}, the verdict is the same{note}"
        case "differs":
            return f"DIFFERS: the journal says {said['action']} by {said['rule']}{under}{note}"
        case _:
            return f"not judged again{note}"
