"""`stanchion decide`: a person's decision on a call that waits."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any, Literal, cast

import msgspec
import typer

from stanchion.cli.desk import Decided, Desk, Json, Where, open_desk, user_name
from stanchion.cli.options import ApiKey, By, Data, Output, Tenant, Url, text_of
from stanchion.cli.output import Column, one_line, print_json, print_text, say, table, when
from stanchion.cli.runs import with_hint
from stanchion.cli.show import arguments_text
from stanchion.core.errors import Conflict, InputError, NotFound

_CALL = re.compile(r"\d+\.\d+")
DECISIONS = ("approve", "edit", "reject", "retry", "record", "fail")

COLUMNS: tuple[Column, ...] = (
    ("run", lambda row: row["run"]),
    ("call", lambda row: row["call"]),
    ("tool", lambda row: row["tool"]),
    ("arguments", lambda row: one_line(arguments_text(row["arguments"]), 60)),
    ("tier", lambda row: row["tier"]),
    ("waits for", lambda row: "approval" if row["kind"] == "approval" else "what became of it"),
    ("since", lambda row: when(row["asked_ms"])),
    ("decisions", lambda row: "|".join(row["decisions"])),
)


Words = Annotated[
    list[str] | None,
    typer.Argument(metavar="[CALL] DECISION", help="approve, edit, reject; retry, record, fail for a call in doubt."),
]
All = Annotated[
    bool, typer.Option("--all", help="Decide on every call of the run that waits: on all of them, or on none.")
]
Allow = Annotated[
    Literal["", "session", "destination"],
    typer.Option(
        help="approve: from now on in this session, this tool may go to this `destination`; or use all values of this "
        "call (`session`).",
        show_default=False,
    ),
]
Arguments = Annotated[str, typer.Option(metavar="JSON|@FILE", help="edit: the arguments to call it with instead.")]
Revision = Annotated[
    int | None, typer.Option(help="The revision you were shown; another is refused.", min=0, show_default=False)
]


def decide(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Id of the run.")] = "",
    words: Words = None,
    list_: Annotated[bool, typer.Option("--list", help="List every call that waits for a person.")] = False,
    all_: All = False,
    allow: Allow = "",
    arguments: Arguments = "",
    result: Annotated[str | None, typer.Option(metavar="TEXT|@FILE", help="record: what the call brought.")] = None,
    reason: Annotated[str, typer.Option(help="Why; the model is told it.")] = "",
    revision: Revision = None,
    by: By = "",
    data: Data = "",
    url: Url = "",
    api_key: ApiKey = "",
    tenant: Tenant = "",
    output: Output = "text",
) -> None:
    """Decide on a tool call that waits for a person. Without CALL: on the only one of the run that waits.

    \b
    Without a decision it shows what waits: what speaks against it, what it would do, where each value comes from.

    \b
    Decisions:
        approve   run it as it was proposed
        edit      run it with other --arguments, which are checked as the model's are
        reject    do not run it; the model reads the --reason
        retry     (in doubt) run it once more
        record    (in doubt) it was done: --result is what it brought
        fail      (in doubt) tell the model that it failed

    \b
    Examples:
        stanchion decide --list
        stanchion decide run_01
        stanchion decide run_01 approve
        stanchion decide run_01 --all approve
        stanchion decide run_01 4.0 approve --allow destination
        stanchion decide run_01 4.0 edit --arguments '{"order_id": "A-17", "cents": 900}'
        stanchion decide run_01 reject --reason "not without an invoice"
        stanchion decide run_01 record --result @receipt.json
    """
    where = Where(data, url, api_key, tenant)
    given = words or []
    if list_ or not given:
        if given or (list_ and run) or not (list_ or run):
            raise InputError("say RUN [CALL] DECISION, or --list, or only RUN to see what waits in it")
        asyncio.run(_list(where, output) if list_ else _show(where, run, "", output))
        return
    if len(given) == 1 and _CALL.fullmatch(given[0]):
        asyncio.run(_show(where, run, given[0], output))
        return
    call, decision = _words(given)
    _check_options(decision, call, allow=allow, all_=all_, revision=revision)
    decided = Decided(
        call,
        cast("Any", decision),
        revision,
        _arguments(arguments, decision),
        _result(result, decision),
        reason,
        user_name(by),
        allow=allow,
    )
    done = asyncio.run(_decide(where, run, decided, all_=all_))
    if output == "json":
        said = [{"run": run, "call": one.call, "revision": one.revision, "decision": decision} for one in done]
        print_json(said if all_ else said[0])
    else:
        say("\n".join(f"{run} {one.call}: {decision}" for one in done))


def _check_options(decision: str, call: str, *, allow: str, all_: bool, revision: int | None) -> None:
    if allow and decision != "approve":
        raise InputError(f"only `approve` takes it, not {decision!r}", field="--allow")
    if all_ and (call or decision in ("edit", "record")):
        what = f"CALL {call}" if call else f"`{decision}`, which is about one call"
        raise InputError(f"it decides on every call that waits, which does not go with {what}", field="--all")
    if all_ and revision is not None:
        raise InputError("it takes the revisions that wait now; leave --revision out", field="--all")


def _words(words: Sequence[str]) -> tuple[str, str]:
    decision = words[-1]
    if len(words) > 2:
        raise InputError(f"say RUN [CALL] DECISION, not {len(words) + 1} words")
    if decision not in DECISIONS:
        raise InputError(f"{decision!r} is no decision; it is one of {', '.join(DECISIONS)}", field="DECISION")
    return (words[0] if len(words) == 2 else ""), decision


def _arguments(arguments: str, decision: str) -> dict[str, Any] | None:
    if decision != "edit":
        if arguments:
            raise InputError(f"only `edit` takes it, not {decision!r}", field="--arguments")
        return None
    if not arguments:
        raise InputError("`edit` needs it: the arguments to call the tool with, as JSON", field="--arguments")
    try:
        return msgspec.json.decode(text_of(arguments, "--arguments"), type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise InputError(f"this is no JSON object: {error}", field="--arguments") from None


def _result(result: str | None, decision: str) -> str | None:
    if decision != "record":
        if result is not None:
            raise InputError(f"only `record` takes it, not {decision!r}", field="--result")
        return None
    if result is None:
        raise InputError("`record` needs it: what the call brought, as the model is to read it", field="--result")
    return text_of(result, "--result")


async def _decide(where: Where, run: str, decided: Decided, *, all_: bool) -> Sequence[Decided]:
    """Find what is meant, bind the decision to the revision, attempt and policies that wait now, and post it."""
    async with open_desk(where) as desk:
        view = await _view(desk, run)
        asks = _waiting_in(view) if all_ else [_meant(view, decided.call)]
        bound = [_bound(decided, ask) for ask in asks]
        if all_:
            await desk.decide_all(run, bound)
        else:
            await desk.decide(run, bound[0])
        return bound


def _bound(decided: Decided, ask: Json) -> Decided:
    revision = ask["revision"] if decided.revision is None else decided.revision
    shown = {"call": ask["call"], "attempt": ask.get("attempt"), "policy": ask.get("policy")}
    return msgspec.structs.replace(decided, revision=revision, **shown)


async def _view(desk: Desk, run: str) -> Json:
    try:
        return await desk.view(run)
    except NotFound as error:
        raise NotFound(with_hint(str(error))) from None


def _waiting_in(view: Json) -> Sequence[Json]:
    waiting = view["waiting"]
    if not waiting:
        state = f"is over ({view['outcome']})" if view["status"] == "ended" else f"is {view['status']}"
        raise Conflict(f"{view['run']} {state} and waits for no decision; `stanchion decide --list` shows what waits")
    return waiting


def _meant(view: Json, call: str) -> Json:
    waiting = _waiting_in(view)
    found = [ask for ask in waiting if ask["call"] == call] if call else waiting
    if len(found) == 1:
        return found[0]
    calls = ", ".join(f"{ask['call']} ({ask['tool']})" for ask in waiting)
    if call:
        raise NotFound(f"{view['run']} has no call {call!r} that waits; there are: {calls}")
    raise InputError(f"{len(found)} calls of {view['run']} wait; name one, or --all: {calls}", field="CALL")


async def _show(where: Where, run: str, call: str, output: str) -> None:
    """Show what waits in a run, in full: what speaks against it first."""
    from stanchion.cli.approval import waiting_lines
    from stanchion.cli.run import there
    from stanchion.cli.show import how_to_decide

    async with open_desk(where) as desk:
        view = await _view(desk, run)
    if call and view["waiting"]:
        view = {**view, "waiting": [_meant(view, call)]}
    if output == "json":
        print_json([{"run": view["run"], "agent": view["agent"], **ask} for ask in view["waiting"]])
        return
    if not view["waiting"]:
        say("nothing waits for a person")
        return
    for place, ask in enumerate(view["waiting"]):
        print_text(("\n" if place else "") + "\n".join(waiting_lines(ask)))
    say(f"decide with\n{how_to_decide(run, view['waiting'], there(where))}")


async def _list(where: Where, output: str) -> None:
    """List every call that waits."""
    async with open_desk(where) as desk:
        views = [view async for view in _waiting(desk)]
    rows = [{"run": view["run"], "agent": view["agent"], **ask} for view in views for ask in view["waiting"]]
    if output == "json":
        print_json(rows)
    else:
        table(rows, COLUMNS, empty="nothing waits for a person")


async def _waiting(desk: Desk) -> AsyncIterator[Json]:
    """Every run that waits, a page at a time."""
    before = ""
    while rows := await desk.runs(status="waiting", before=before, limit=200):
        for row in rows:
            yield await desk.view(row["run"])
        before = rows[-1]["run"]
